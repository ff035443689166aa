"""The weight map of the U-Net paper, and the balance of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.data.weights import border_weights, class_weights, weigh


def by_definition(target: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Distances to every region of another class, the two smallest, the formula."""
    distances = [np.full(target.shape, np.inf)] * 2
    for kind in set(np.unique(target).tolist()) - {IGNORE}:
        regions, count = ndimage.label(target == kind)
        for number in range(1, count + 1):
            distance = ndimage.distance_transform_edt(regions != number)
            distances.append(np.where(target == kind, np.inf, distance))
    d1, d2 = np.sort(distances, axis=0)[:2]
    weights = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return np.where((d1 + d2 > np.ceil(3 * sigma)) | (target == IGNORE), 0, weights)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.sampled_from([1.0, 2.5]))
def test_it_is_the_definition(seed: int, classes: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(24, 31)), 2)
    target = np.digitize(smooth, np.quantile(smooth, np.arange(1, classes) / classes)).astype(np.uint8)
    target[rng.random(target.shape) < 0.02] = IGNORE
    np.testing.assert_allclose(border_weights(target, 10, sigma), by_definition(target, 10, sigma), atol=1e-4)


def test_a_thin_membrane_between_two_cells_counts_most() -> None:
    target = np.ones((40, 40), np.uint8)
    target[:, 20:22] = 0  # a membrane of two pixels
    target[5:15, 30:] = 0  # an outcrop at the border, between no two cells
    weight = border_weights(target)
    # Between the cells d1 + d2 is 3 pixels.
    assert weight[30, 20] == pytest.approx(10 * np.exp(-9 / 50), rel=1e-5)
    assert weight[10, 35] == 0
    assert weight[:, :15].max() == 0


def test_one_region_alone_has_no_gaps() -> None:
    assert (border_weights(np.ones((9, 9), np.uint8)) == 0).all()
    assert (border_weights(np.full((9, 9), IGNORE, np.uint8)) == 0).all()


@given(st.lists(st.integers(0, 500), min_size=2, max_size=5).filter(any))
def test_rare_classes_weigh_more_and_the_mean_is_1(counts: list[int]) -> None:
    target = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)[None]
    image = np.zeros((*target.shape, 1), np.float32)
    weights = class_weights([Example(image, target, 0, 0)], len(counts))
    assert weights[target].mean() == pytest.approx(1, abs=1e-4)
    assert (weights[np.array(counts) == 0] == 0).all()
    there = [(count, weight) for count, weight in zip(counts, weights, strict=True) if count]
    assert [w for _, w in sorted(there, key=lambda pair: pair[0])] == sorted(weights[weights > 0])[::-1]


def test_unpainted_pixels_weigh_nothing() -> None:
    target = np.array([[0, 1, IGNORE]], np.uint8)
    example = Example(np.zeros((1, 3, 1), np.float32), target, 0, 0)
    (weighed,) = weigh([example], np.array([0.5, 2.0], np.float32))
    assert weighed.weight is not None
    assert weighed.weight.tolist() == [[0.5, 2.0, 0.0]]
