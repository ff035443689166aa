"""A network that learned from strokes answers as fits how common classes are where nobody painted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, prepare
from napari_unet.nn.prior import Prior

BIAS = np.array([0.1, -0.2, 0.3], np.float32)


def dataset(unpainted: Literal["ignore", "background"] = "ignore", classes: int = 3) -> Dataset:
    """A picture whose brightness is the class (0 mostly, 2 seldom), and a stroke of each class, all as long."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, (64, 96), p=[0.8, 0.15, 0.05]).astype(np.uint8)
    labels = np.zeros(truth.shape, np.uint8)
    for kind in range(classes):
        labels.ravel()[np.flatnonzero(truth == kind)[:100]] = kind + 1
    ignore = unpainted == "ignore"
    return prepare(
        [Stack(truth, "YX", "raw")],
        [Stack(labels, "YX", "paint")],
        unpainted=unpainted,
        background_value=1 if ignore else None,
    )


def see(pixels: np.ndarray) -> np.ndarray:
    """Logits of a network that is a little sure of the class it sees, and takes all for as common."""
    seen = np.round(2 * pixels / pixels.max())
    return np.asarray(2.0 * (seen == np.arange(3)) + BIAS)


def correct(data: Dataset) -> np.ndarray:
    weights: Any = {"logits/bias": BIAS, "logits/kernel": np.ones((1, 1, 2, 3), np.float32)}
    corrected = Prior(data, data.examples, 16).correct(see, weights)
    assert corrected["logits/kernel"] is weights["logits/kernel"]
    return np.asarray(corrected["logits/bias"] - BIAS)


def test_common_classes_gain_on_rare_ones() -> None:
    change = correct(dataset())
    assert change[0] > change[1] > change[2]
    assert 0.5 < change[0] - change[2] < np.log(0.8 / 0.05)


@pytest.mark.parametrize(
    "data", [dataset("background"), dataset(classes=2)], ids=["everything is labelled", "two classes"]
)
def test_otherwise_weights_stay(data: Dataset) -> None:
    np.testing.assert_array_equal(correct(data), 0)
