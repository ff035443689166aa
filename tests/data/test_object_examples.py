"""Painted objects become examples: numbered, weighed, held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, prepare
from napari_unet.data.holdout import split
from napari_unet.data.labels import IGNORE, ClassMap
from napari_unet.data.objects import BORDER, INSIDE, object_targets
from napari_unet.data.weights import object_weights, weigh_split
from napari_unet.errors import DataError


def one(labels: np.ndarray, **options: Any) -> Dataset:
    image = np.random.default_rng(0).integers(0, 100, labels.shape).astype(np.uint8)
    options = {"unpainted": "background", "target": "objects", **options}
    return prepare([Stack(image, "YX", "raw")], [Stack(labels, "YX", "cells")], **options)


def squares(shape: tuple[int, int], side: int = 8, step: int = 12) -> np.ndarray:
    """Squares apart from each other, each with its own id."""
    ids = np.zeros(shape, np.int64)
    tops = [(y, x) for y in range(2, shape[0] - side, step) for x in range(2, shape[1] - side, step)]
    for number, (y, x) in enumerate(tops, start=1):
        ids[y : y + side, x : x + side] = number
    return ids


def test_any_number_of_objects_becomes_three_classes() -> None:
    ids = np.arange(400).reshape(20, 20) * 2**40
    dataset = one(np.kron(ids, np.ones((3, 3), np.int64)))
    assert dataset.target == "objects"
    assert dataset.class_map == ClassMap((0, 1, 2), "background")
    (example,) = dataset.examples
    assert example.ids is not None
    assert (example.ids.max(), example.ids.dtype) == (399, np.int32)
    np.testing.assert_array_equal(example.target, object_targets(example.ids))


def test_what_is_unpainted_carries_no_loss_and_background_is_named() -> None:
    labels = np.zeros((12, 20), np.uint8)
    labels[2:8, 2:6], labels[2:8, 6:10], labels[2:8, 10:14] = 5, 6, 3
    (example,) = one(labels, unpainted="ignore", background_value=3).examples
    assert example.target[4, :16].tolist() == [IGNORE] * 2 + [1, 1, 2, 2, 2, 2, 1, 2] + [0] * 4 + [IGNORE] * 2
    assert example.ids is not None
    assert example.ids[4, :16].tolist() == [0, 0] + [1] * 4 + [2] * 4 + [0] * 6
    with pytest.raises(DataError, match="7 is named as background"):
        one(labels, unpainted="ignore", background_value=7)


def test_pieces_of_one_value_are_objects() -> None:
    labels = (squares((40, 40)) > 0) * np.uint8(255)
    dataset = one(labels)
    assert dataset.examples[0].ids is not None
    assert dataset.examples[0].ids.max() == 9


def test_nothing_painted_is_refused() -> None:
    with pytest.raises(DataError, match="have no painted pixels"):
        one(np.zeros((9, 9), np.uint8))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.5]))
def test_weights_are_the_formula_of_the_paper(seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    ids = np.where(rng.random((24, 31)) < 0.03, rng.integers(1, 6, (24, 31)), 0)
    ids = ndimage.grey_dilation(ids, 5).astype(np.int32)
    distances = [np.full(ids.shape, np.inf)] * 2
    distances += [ndimage.distance_transform_edt(ids != i) for i in np.unique(ids[ids > 0])]
    both = np.sort(distances, axis=0)[:2].sum(0)
    expected = np.where(both > np.ceil(3 * sigma), 0, 10 * np.exp(-(both**2) / (2 * sigma**2)))
    np.testing.assert_allclose(object_weights(ids, 10, sigma), expected, atol=1e-4)


def test_borders_weigh_most_and_ignored_pixels_nothing() -> None:
    labels = np.full((60, 60), 2, np.uint8)
    labels[10:40, 10:25], labels[10:40, 25:40], labels[50:] = 3, 4, 0
    dataset = one(labels, unpainted="ignore", background_value=2)
    (example,) = weigh_split(split(dataset, 0.0), 3, 10.0).train
    assert example.weight is not None
    weight = example.weight.astype(float)
    assert (weight[example.target == IGNORE] == 0).all()
    assert weight[20:30, 24:26].min() > 9
    assert weight[20:30, 24:26].min() > 3 * weight[20:30, 12].max()


def test_a_band_is_held_out_though_few_objects_touch() -> None:
    ids = squares((120, 200))
    ids[2:10, 10:13] = ids[2:10, 2:3]  # one pair that almost touches, at the left
    dataset = one(ids)
    assert (dataset.examples[0].target == BORDER).any()
    parts = split(dataset, 0.15)
    assert parts.validation, parts.message
    (held,) = parts.validation
    assert held.ids is not None
    assert held.ids.shape == held.target.shape == held.image.shape[:2]
    known = held.target != IGNORE
    np.testing.assert_array_equal(known & (held.ids > 0), np.isin(held.target, (INSIDE, BORDER)) & known)
