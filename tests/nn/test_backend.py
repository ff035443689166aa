"""The backend: where Keras may be loaded, seeds, precision, traced functions."""

from __future__ import annotations

import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from napari_unet.config import UNetConfig
from napari_unet.errors import BackendError
from napari_unet.nn import backend, computing
from napari_unet.nn.network import build_unet


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


MISSING = """
import sys
sys.modules["tensorflow"] = None
from napari_unet.errors import BackendError
from napari_unet.nn import backend
try:
    backend.prepare("float32", 0)
except BackendError as error:
    print(error)
"""


def test_without_tensorflow_one_line_says_how_to_install_it() -> None:
    said = run(MISSING)
    assert said.startswith("TensorFlow cannot be loaded (")
    assert said.endswith('-m pip install --upgrade keras tensorflow".')
    assert "\n" not in said


def test_importing_the_package_and_the_backend_loads_and_sets_nothing() -> None:
    code = (
        "import os, sys; before = dict(os.environ); import napari_unet, napari_unet.nn.backend;"
        "print(before == dict(os.environ), 'keras' in sys.modules, 'tensorflow' in sys.modules)"
    )
    assert run(code) == "True False False"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux mixes these libraries")
def test_keras_is_refused_beside_a_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(current_viewer=lambda: object())
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "napari.viewer", module)
        with pytest.raises(BackendError, match=r"napari_unet\.run_in_worker\(job\)"):
            backend.load_keras()
    backend.load_keras()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux mixes these libraries")
def test_keras_is_refused_beside_mesa(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_mesa_is_loaded", lambda: True)
        with pytest.raises(BackendError, match=r"crash each other"):
            backend.load_keras()


@pytest.mark.parametrize(
    ("library", "found"),
    [
        ("/usr/lib/x86_64-linux-gnu/libgallium-25.0.7-2.so", True),
        ("/usr/lib/x86_64-linux-gnu/dri/swrast_dri.so", True),
        ("/usr/lib/libc.so.6", False),
        ("/site-packages/llvmlite/binding/libllvmlite.so", False),
    ],
)
def test_drivers_are_told_by_their_file(library: str, found: bool) -> None:
    line = f"7f5c-7f5d r-xp 00000000 08:01 77 {library}\n"
    assert (backend._MESA.search(line) is not None) == found


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> np.ndarray:
        backend.prepare("float32", seed)
        return build_unet(UNetConfig(filters=1, depth=1)).get_layer("down0_conv0").get_weights()[0]

    np.testing.assert_array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))


def test_precision_belongs_to_the_job() -> None:
    backend.prepare("bfloat16", 0)
    network = build_unet(UNetConfig(filters=1, depth=1))
    assert network.get_layer("down0_conv0").compute_dtype == "bfloat16"
    assert network.get_layer("logits").compute_dtype == "float32"
    assert {w.dtype for w in network.weights} == {"float32"}
    backend.prepare("float32", 0)
    assert build_unet(UNetConfig(filters=1, depth=1)).get_layer("down0_conv0").compute_dtype == "float32"


def test_policy_is_given_back() -> None:
    with backend.policy("bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_traced_function_follows_the_weights_and_any_size() -> None:
    network = build_unet(UNetConfig(filters=2, depth=2, channels=3))
    forward = computing.traced(network)
    rng = np.random.default_rng(0)
    for shape in ((1, 4, 8, 3), (2, 12, 4, 3)):
        pixels = rng.random(shape, np.float32)
        np.testing.assert_allclose(forward(pixels), network.predict(pixels, verbose=0), atol=1e-6)
    network.get_layer("logits").set_weights([np.zeros((1, 1, 2, 1)), np.full(1, 7.0)])
    assert (forward(np.ones((1, 4, 4, 3), np.float32)) == 7).all()


@pytest.mark.parametrize(
    "message",
    [
        "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "CUDNN_STATUS_ALLOC_FAILED in cudnnCreate(&handle)",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "Failed to allocate 8.00GiB (8589934592 bytes)",
        "RESOURCE_EXHAUSTED: Attempting to allocate 8.00GiB",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes",
    ],
)
def test_lack_of_memory_is_known_by_what_the_backend_says(message: str) -> None:
    with pytest.raises(MemoryError), computing.memory_errors():
        raise tf.errors.InternalError(None, None, message)


@pytest.mark.parametrize(
    ("gpus", "details", "words"),
    [
        ([], {}, "CPU"),
        (["a GPU"], {}, "GPU"),
        (["a GPU", "another"], {"device_name": "NVIDIA H100"}, "GPU: NVIDIA H100"),
    ],
)
def test_device_in_words(
    gpus: list[str], details: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert backend.device_name() == words


def test_versions() -> None:
    assert {"python", "keras", "tensorflow", "numpy"} <= backend.versions().keys()
