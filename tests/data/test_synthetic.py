"""Sample images: repeatable, of any shape, with true labels that no threshold finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.data.metrics import class_scores
from napari_unet.data.synthetic import cells, membranes
from napari_unet.errors import DataError

patient = settings(deadline=None, max_examples=15)  # the clock of a shared machine proves nothing
sides = st.integers(32, 150)


def best_threshold_iou(image: np.ndarray, truth: np.ndarray) -> float:
    """IoU of the best single threshold, on either side of it, chosen knowing the truth."""
    levels = np.percentile(image, np.arange(1, 100))
    return max(
        class_scores(side, truth, (True,))[True].iou
        for level in levels
        for side in (image > level, image <= level)
    )


@patient
@given(sides, sides, st.integers(0, 1000))
def test_cells_of_any_shape_hold_cells_and_background(height, width, seed):
    image, labels, instances = cells((height, width), seed)
    assert image.shape == labels.shape == instances.shape == (height, width)
    assert (image.dtype, labels.dtype, instances.dtype) == (np.uint16, np.uint8, np.uint16)
    np.testing.assert_array_equal(labels, instances > 0)
    assert 0.1 < labels.mean() < 0.8


@patient
@given(st.integers(1, 4), sides, sides, st.integers(0, 1000))
def test_membranes_of_any_shape_hold_membranes_and_cells(depth, height, width, seed):
    image, labels = membranes((depth, height, width), seed)
    assert image.shape == labels.shape == (depth, height, width)
    assert image.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) == {1, 2}


@pytest.mark.parametrize("seed", range(5))
def test_membranes_are_thin(seed):
    _, labels = membranes((4, 128, 128), seed)
    assert 0.1 < (labels == 1).mean() < 0.4


def test_a_seed_gives_the_same_image_and_another_seed_another():
    for make, shape in ((cells, (64, 80)), (membranes, (2, 64, 80))):
        first, again, other = make(shape, 5), make(shape, 5), make(shape, 6)
        for a, b, c in zip(first, again, other, strict=True):
            np.testing.assert_array_equal(a, b)
            assert (a != c).any()


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_finds_the_cells(seed):
    image, labels, _ = cells((512, 512), seed)
    assert 0.5 < best_threshold_iou(image, labels > 0) < 0.79


def test_no_threshold_finds_the_membranes():
    image, labels = membranes((2, 256, 256))
    assert 0.4 < best_threshold_iou(image, labels == 1) < 0.65


def test_cells_are_brighter_than_their_surroundings_and_debris_is_brighter_still():
    image, labels, _ = cells((512, 512))
    assert np.median(image[labels == 1]) > 1.4 * np.median(image[labels == 0])
    assert image[labels == 0].max() > np.percentile(image[labels == 1], 99.9)


def test_many_cells_touch():
    instances = cells((512, 512))[2].astype(int)
    pairs = {
        frozenset(pair)
        for a, b in ((instances[1:], instances[:-1]), (instances[:, 1:], instances[:, :-1]))
        for pair in zip(a[(a != b) & (a > 0) & (b > 0)], b[(a != b) & (a > 0) & (b > 0)], strict=True)
    }
    assert len(pairs) > 0.4 * instances.max()


def test_every_cell_is_in_one_piece_but_for_slivers():
    instances = cells((512, 512))[2]
    for number in range(1, int(instances.max()) + 1):
        pieces, count = ndimage.label(instances == number)
        if count:
            assert np.bincount(pieces.ravel())[1:].max() >= 0.97 * (pieces > 0).sum()


def test_membranes_change_slowly_through_the_slices():
    _, labels = membranes((8, 256, 256))
    membrane = labels == 1

    def shared(step: int) -> float:
        scores = [class_scores(membrane[z], membrane[z + step], (True,))[True].iou for z in range(8 - step)]
        return float(np.mean(scores))

    assert 1 > shared(1) > shared(3) > shared(6)
    assert shared(1) > 0.6


def test_membranes_are_dark_and_so_is_clutter_inside_the_cells():
    image, labels = membranes((2, 256, 256))
    dark = np.median(image[labels == 1])
    assert dark < 0.7 * np.median(image[labels == 2])
    assert (image[labels == 2] < dark).mean() > 0.03


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: cells((31, 64)),
            "Synthetic cells of 31 x 64 pixels cannot be drawn: each side must be 32 or more",
        ),
        (lambda: membranes((2, 64, 8)), "Synthetic membranes of 64 x 8 pixels cannot be drawn"),
        (
            lambda: membranes((0, 64, 64)),
            r"Membranes of shape \(0, 64, 64\) cannot be drawn: give \(slices, y, x\)",
        ),
        (lambda: membranes((64, 64)), r"Membranes of shape \(64, 64\) cannot be drawn"),
    ],
)
def test_too_small_a_shape_is_refused(call, sentence):
    with pytest.raises(DataError, match=sentence):
        call()
