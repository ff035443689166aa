"""The engine on other backends of Keras: the same answers as on TensorFlow, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unet import load_model, predict, save_model
from napari_unet.config import PredictConfig

from .segmenting import random_model

_CONFIG = PredictConfig(
    probability_type="float32", precision="float32", tile_megapixels=0.02, passes=2, average=True
)

_SEGMENT = """
import sys
from pathlib import Path
import keras
import numpy as np
from napari_unet import load_model, predict
from napari_unet.config import PredictConfig
folder = Path(sys.argv[1])
assert keras.backend.backend() == sys.argv[2]
model, config = load_model(folder / "model.unet"), PredictConfig.model_validate_json(sys.argv[3])
images = np.load(folder / "images.npz")
found = {
    f"{name} {kind} {average}": predict(model, image, config.replace(average=average), output=kind)
    for name, image in images.items()
    for kind, average in (("probabilities", False), ("probabilities", True), ("labels", False), ("uncertainty", False))
    if name == "uint8" or (kind, average) == ("probabilities", False)
}
np.savez(folder / "found.npz", **found)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_answers_are_those_of_tensorflow(backend: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: it is an extra")
    rng = np.random.default_rng(0)
    images = {dtype: (200 * rng.random((90, 150))).astype(dtype) for dtype in ("uint8", "uint16", "float64")}
    np.savez(tmp_path / "images.npz", **images)
    save_model(random_model(3, depth=2, filters=4, classes=3), tmp_path / "model.unet")
    command = [sys.executable, "-c", _SEGMENT, str(tmp_path), backend, _CONFIG.model_dump_json()]
    done = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    model = load_model(tmp_path / "model.unet")
    found = np.load(tmp_path / "found.npz")
    assert len(found) == 6
    for key, answer in found.items():
        name, kind, average = key.split()
        config = _CONFIG.replace(average=average == "True")
        expected = predict(model, images[name], config, output=kind)
        assert answer.dtype == expected.dtype
        if kind == "labels":
            assert np.mean(answer != expected) < 1e-3, key
        else:
            np.testing.assert_allclose(answer, expected, atol=2e-5, err_msg=key)
