"""The settings of the watershed are those that find the true objects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.config import PredictConfig, UNetConfig
from napari_unet.data.decoding import Region, choose_decoding, choose_threshold, decoding_of
from napari_unet.data.objects import decode
from napari_unet.errors import DataError
from napari_unet.spec import ClassInfo, ModelSpec, ObjectDecoding

from .blobs import blobs, blurred


def region(seed: int, sigma: float = 1.0) -> Region:
    ids = blobs(seed)
    return Region(blurred(ids, sigma), ids, np.ones(ids.shape, bool))


def test_what_a_network_says_too_seldom_is_made_up_for() -> None:
    sure = region(1)
    shy = np.stack([1 - (s := 0.6 * sure.probabilities[..., 1:]).sum(-1), s[..., 0], s[..., 1]], axis=-1)
    choice = choose_decoding([Region(shy, sure.truth, sure.known)])
    assert choice is not None
    assert choice.decoding.foreground_threshold < 0.5
    best = choose_decoding([sure])
    assert best is not None
    assert best.decoding.foreground_threshold == 0.5
    assert choice.ap50 == best.ap50 == 1


def test_specks_are_left_out() -> None:
    sure = region(2)
    specked = sure.probabilities.copy()
    specked[1::12, 1::12] = 0, 1, 0
    choice = choose_decoding([Region(specked, sure.truth, sure.known)])
    assert choice is not None
    assert 2 <= choice.decoding.min_size <= 30


def test_doubtful_specks_are_left_out_however_large() -> None:
    sure = region(2)
    specked = sure.probabilities.copy()
    free = ndimage.distance_transform_edt(sure.truth == 0) > 6
    specked[free] = 0.2, 0.6, 0.2
    choice = choose_decoding([Region(specked, sure.truth, sure.known)])
    assert choice is not None
    assert 0.8 < choice.decoding.min_confidence <= 0.9
    assert choice.ap50 == 1


def test_borders_that_a_network_misses_are_made_up_for_by_necks() -> None:
    ids = blobs(5, (96, 104))
    shut = np.stack([ids == 0, ids > 0, 0 * ids], -1).astype(np.float32)
    choice = choose_decoding([Region(shut, ids, np.ones(ids.shape, bool))])
    assert choice is not None
    assert choice.decoding.neck_depth > 0
    assert np.array_equal(np.unique(decode(shut, choice.decoding)), np.unique(ids))


def test_what_is_not_known_does_not_count() -> None:
    sure = region(3)
    known = np.zeros(sure.known.shape, bool)
    known[:, :26] = True
    lost = sure.probabilities.copy()
    lost[:, 30:] = 1, 0, 0
    choice = choose_decoding([Region(lost, sure.truth, known)])
    assert choice is not None
    assert choice.ap50 == 1


def test_without_objects_or_once_stopped_nothing_is_chosen() -> None:
    sure = region(0)
    assert choose_decoding([]) is None
    assert choose_decoding([Region(sure.probabilities, 0 * sure.truth, sure.known)]) is None
    assert choose_decoding([sure], stop=lambda: True) is None


def walled(weak: float) -> Region:
    """Two cells of class 1, and a network that sees their wall but for a gap, where it says `weak` for the cell."""
    truth = np.ones((20, 41), np.uint8)
    truth[:, 20] = 0
    cell = np.where(truth == 1, 0.9, 0.1).astype(np.float32)
    cell[8:10, 20] = weak
    cell[1::3, 3] = 0.65  # and a few pixels within a cell that it is less sure of
    return Region(np.stack([1 - cell, cell], -1), truth, np.ones(truth.shape, bool))


THRESHOLDS = [round(0.05 * i, 2) for i in range(1, 20)]


def dice(region: Region) -> dict[float, float]:
    """Mean Dice of both classes at each threshold."""
    truth, cell = region.truth == 1, region.probabilities[..., 1]
    found = {threshold: cell >= threshold for threshold in THRESHOLDS}
    return {
        threshold: float(
            np.mean(
                [
                    2 * (a & b & region.known).sum() / ((a & region.known).sum() + (b & region.known).sum())
                    for a, b in ((truth, ours), (~truth, ~ours))
                ]
            )
        )
        for threshold, ours in found.items()
    }


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_wall_that_is_torn_at_the_best_threshold_of_pixels_is_whole_at_that_of_regions(
    exchanged: bool,
) -> None:
    region = walled(0.72)
    if exchanged:
        region = Region(region.probabilities[..., ::-1], 1 - region.truth, region.known)
    threshold = choose_threshold([region], dice(region))
    assert 0.7 < (1 - threshold if exchanged else threshold) < 0.9


@pytest.mark.parametrize("exchanged", [False, True])
def test_nothing_is_joined_across_what_is_not_known(exchanged: bool) -> None:
    region = walled(0.72)
    if exchanged:
        region = Region(region.probabilities[..., ::-1], 1 - region.truth, region.known)
    known, answers = region.known.copy(), region.probabilities.copy()
    known[:3] = False
    answers[:3] = 1, 0  # what was not computed is class 0
    region = Region(answers, region.truth, known)
    threshold = choose_threshold([region], dice(region))
    assert 0.7 < (1 - threshold if exchanged else threshold) < 0.9


def test_a_torn_wall_that_is_not_known_does_not_count() -> None:
    region = walled(0.72)
    known = region.known.copy()
    known[:, 21:] = False  # there is nothing to be joined with, then
    region = Region(region.probabilities, region.truth, known)
    assert choose_threshold([region], dice(region)) < 0.7


@pytest.mark.parametrize("rare", [0.02, 0.3])
def test_where_nothing_can_be_joined_the_threshold_is_that_of_dice(rare: float) -> None:
    yy, xx = np.mgrid[:200, :200] % 40 - 20
    truth = yy**2 + xx**2 < rare * 40**2 / np.pi
    noise = np.random.default_rng(0).normal(0, 0.1, truth.shape)
    cell = np.clip(ndimage.gaussian_filter(truth.astype(float), 2) + noise, 0, 1).astype(np.float32)
    region = Region(np.stack([1 - cell, cell], -1), truth.astype(np.uint8), np.ones(truth.shape, bool))
    scores = dice(region)
    assert scores[choose_threshold([region], scores)] > max(scores.values()) - 0.005


def stroked(*strokes: tuple[slice, slice]) -> Region:
    """`walled(0.72)` of which only strokes are painted."""
    region = walled(0.72)
    known = np.zeros(region.known.shape, bool)
    for stroke in strokes:
        known[stroke] = True
    return Region(region.probabilities, region.truth, known)


LEFT, RIGHT = (slice(2, 5), slice(5, 15)), (slice(12, 15), slice(25, 38))
WALL = (slice(12, 19), slice(20, 21))


@pytest.mark.parametrize("exchanged", [False, True])
def test_strokes_in_two_cells_ask_for_a_threshold_that_parts_them(exchanged: bool) -> None:
    region = stroked(LEFT, RIGHT, WALL)
    if exchanged:
        region = Region(region.probabilities[..., ::-1], 1 - region.truth, region.known)
    threshold = choose_threshold([region], dice(region), whole=False)
    assert 0.7 < (1 - threshold if exchanged else threshold) < 0.9


def test_a_stroke_that_a_threshold_breaks_speaks_against_it() -> None:
    region = stroked(LEFT, RIGHT, WALL)
    region.probabilities[:, 30, 1] = 0.5  # the cell on the right is dim across its middle
    threshold = choose_threshold([region], dice(region), whole=False)
    assert threshold <= 0.5


def test_one_stroke_of_each_class_leaves_the_threshold_to_dice() -> None:
    region = stroked(LEFT, WALL)
    scores = {threshold: 0.8 - abs(threshold - 0.3) for threshold in THRESHOLDS}
    assert choose_threshold([region], scores, whole=False) == 0.3


def test_what_was_not_computed_joins_no_strokes() -> None:
    region = stroked(LEFT, RIGHT, WALL)
    region.probabilities[6:11] = np.nan  # the gap lies there
    scores = {threshold: 0.8 - abs(threshold - 0.3) for threshold in THRESHOLDS}
    assert choose_threshold([region], scores, whole=False) == 0.3


def test_without_regions_dice_alone_counts_and_of_equals_the_middle() -> None:
    assert choose_threshold([], {0.2: 0.7, 0.45: 0.8, 0.6: 0.8, 0.9: 0.1}) == 0.45


def test_settings_of_the_user_overrule_those_of_the_model() -> None:
    spec = ModelSpec(
        network=UNetConfig(classes=3),
        classes=tuple(ClassInfo(value=i) for i in range(3)),
        target="objects",
        objects=ObjectDecoding(seed_threshold=0.7, min_size=9),
    )
    assert decoding_of(spec, PredictConfig()) == spec.objects
    assert decoding_of(spec, PredictConfig(threshold=0.2, min_size=0, neck_depth=2)) == ObjectDecoding(
        foreground_threshold=0.2, seed_threshold=0.7, min_size=0, neck_depth=2
    )
    with pytest.raises(DataError, match="tells classes apart, not objects"):
        decoding_of(ModelSpec(), PredictConfig())
