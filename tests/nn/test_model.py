"""A model as named arrays."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.config import UNetConfig
from napari_unet.errors import ModelError
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import build_unet
from napari_unet.spec import ModelSpec


@pytest.fixture
def model(spec: ModelSpec) -> UNetModel:
    return UNetModel(spec, build_unet(spec.network))


def test_arrays_there_and_back(model: UNetModel) -> None:
    arrays = model.arrays()
    again = UNetModel.from_arrays(model.spec, arrays).arrays()
    assert arrays.keys() == again.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[name])


def test_arrays_are_copies(model: UNetModel) -> None:
    arrays = model.arrays()
    arrays["logits/bias"][:] = 5
    assert (model.arrays()["logits/bias"] == 0).all()


def test_missing_unknown_misshapen_and_broken_weights_are_refused(model: UNetModel) -> None:
    arrays = model.arrays()
    bad = {
        r"'logits/bias' is missing": {k: v for k, v in arrays.items() if k != "logits/bias"},
        r"'extra' is not one of its weights": {**arrays, "extra": np.zeros(1, np.float32)},
        r"'logits/bias' has shape \(2,\), not \(1,\)": {**arrays, "logits/bias": np.zeros(2, np.float32)},
        r"not finite": {**arrays, "logits/bias": np.array([np.nan], np.float32)},
    }
    for sentence, content in bad.items():
        with pytest.raises(ModelError, match=sentence):
            UNetModel.from_arrays(model.spec, content)


def test_precision_changes_the_computation_not_the_weights(model: UNetModel) -> None:
    assert model.in_precision("float32") is model
    low = model.in_precision("bfloat16")
    assert low.network.get_layer("up0_conv0").compute_dtype == "bfloat16"
    np.testing.assert_array_equal(low.arrays()["up0_conv0/kernel"], model.arrays()["up0_conv0/kernel"])
    pixels = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    a, b = (np.asarray(m.network(pixels)) for m in (model, low))
    assert b.dtype == np.float32
    np.testing.assert_allclose(a, b, atol=0.1)


def test_a_second_network_in_the_process_has_the_same_names() -> None:
    config = UNetConfig(filters=1, depth=1)
    spec = ModelSpec(network=config)
    first, second = (UNetModel(spec, build_unet(config)).arrays() for _ in range(2))
    assert first.keys() == second.keys()
