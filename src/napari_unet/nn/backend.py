"""The library that computes: loading it once, where that is safe; seeds, precision, threads, devices.

TensorFlow is the default and the tested backend; ``KERAS_BACKEND`` set to ``jax`` or ``torch``
chooses another. This module imports no Keras by itself, so it can say clearly why Keras or
TensorFlow cannot be loaded.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from napari_unet.errors import BackendError

__all__ = [
    "Precision",
    "device_name",
    "limit_threads",
    "load_keras",
    "loaded",
    "name",
    "policy",
    "prepare",
    "versions",
]

Precision = Literal["float32", "bfloat16"]


# Drivers of Mesa, which carry LLVM as TensorFlow does; both in one process end in a crash.
_MESA = re.compile(r"/(libgallium[^/]*\.so|[^/]+_dri\.so)")


_LIBRARIES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def load_keras() -> Any:
    """Import Keras with its backend, where that is possible and safe.

    Returns
    -------
    module
        ``keras``.

    Raises
    ------
    BackendError
        If a viewer with OpenGL lives in this process on Linux, or if Keras or its backend
        is missing or cannot run on this processor.
    """
    _refuse_beside_viewer()
    library = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if library == "tensorflow" and "tensorflow" not in sys.modules:
        _check_processor()
        # Its start-up notes go to the log of whoever asked for them, not to everyone's terminal.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        importlib.import_module(library)
        return importlib.import_module("keras")
    except ImportError as error:
        # Several lines of advice about other platforms follow the first one.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"{_LIBRARIES.get(library, library)} cannot be loaded ({reason}): "
            f'install it with "{sys.executable} -m pip install --upgrade keras {library}".'
        ) from error


def name() -> str:
    """Return the name of the backend: ``"tensorflow"``, ``"jax"`` or ``"torch"``."""
    return str(loaded().backend.backend())


def loaded() -> Any:
    """Return Keras, loaded if need be. Whether it may be loaded isn't asked anew: that takes 5 ms, too much for each tile."""
    return sys.modules.get("keras") or load_keras()


def prepare(precision: Precision = "float32", seed: int = 0) -> None:
    """Set up the backend for one job: precision, seeds, memory.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
        Of the computation; weights are float32 in both.
    seed : int
        Of everything random in Keras: first weights and dropout.

    Raises
    ------
    BackendError
        As `load_keras`.
    """
    keras = load_keras()
    keras.config.set_dtype_policy(_policy_name(precision))
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        _prepare_tensorflow()


def limit_threads(count: int) -> None:
    """Compute with so many threads in this process, which shares its processor with others.

    It has no effect once TensorFlow has computed something, nor on JAX, which takes what the system lets it take.

    Parameters
    ----------
    count : int
        Of one operation of the network; operations run one after the other.

    Raises
    ------
    BackendError
        As `load_keras`.
    """
    match name():
        case "tensorflow":
            import tensorflow as tf

            with suppress(RuntimeError):  # its threads have started
                tf.config.threading.set_intra_op_parallelism_threads(count)
                tf.config.threading.set_inter_op_parallelism_threads(1)
        case "torch":
            import torch

            torch.set_num_threads(count)


@contextmanager
def policy(precision: Precision) -> Iterator[None]:
    """Build layers in `precision` within this context."""
    keras = load_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_policy_name(precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def device_name() -> str:
    """Say in words what computes: ``"CPU"``, or ``"GPU: "`` and its name."""
    match name():
        case "tensorflow":
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
            found = (
                tf.config.experimental.get_device_details(gpus[0]).get("device_name", "") if gpus else None
            )
        case "jax":
            import jax

            device = jax.devices()[0]
            found = None if device.platform == "cpu" else device.device_kind
        case _:
            import torch

            found = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return "CPU" if found is None else f"GPU: {found}".removesuffix(": ")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a model depends on."""
    found = {"python": platform.python_version()}
    for package in ("napari-unet", "keras", name(), "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            module = sys.modules.get(package)
            if module is not None:  # tensorflow-cpu and its like install the same module
                found[package] = str(module.__version__)
    return found


def _policy_name(precision: Precision) -> str:
    return "float32" if precision == "float32" else "mixed_bfloat16"


def _refuse_beside_viewer() -> None:
    """Refuse to load TensorFlow where it would crash the viewer."""
    if not sys.platform.startswith("linux"):
        return
    if _viewer_lives() or _mesa_is_loaded():
        raise BackendError(
            "Keras cannot be loaded in a process that shows a napari viewer: on Linux its libraries and the viewer's "
            "OpenGL driver crash each other. Run the job beside it with napari_unet.run_in_worker(job), or in a script "
            "without a viewer."
        )


def _viewer_lives() -> bool:
    """Whether a viewer is open, asked without importing napari."""
    viewer = sys.modules.get("napari.viewer")
    return viewer is not None and viewer.current_viewer() is not None


def _mesa_is_loaded() -> bool:
    try:
        return _MESA.search(Path("/proc/self/maps").read_text(errors="replace")) is not None
    except OSError:
        return False


def _check_processor() -> None:
    """Refuse a processor that TensorFlow would crash on."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if flags is not None and "avx" not in flags.group(1).split():
        raise BackendError(
            "TensorFlow needs a processor with AVX instructions, which this one lacks: use another computer, "
            "or install PyTorch and set the environment variable KERAS_BACKEND to torch."
        )


def _prepare_tensorflow() -> None:
    import tensorflow as tf

    # Its advice on tracing is for programmers: each run traces once, on purpose.
    tf.get_logger().setLevel("ERROR")
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        # Costs nothing on a CPU; on a GPU it would cost much of the speed.
        tf.config.experimental.enable_op_determinism()
    for gpu in gpus:
        # Refused once the device is in use; it was set up before that, then.
        with suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)
