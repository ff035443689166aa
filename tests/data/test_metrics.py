"""Scores agree with cases worked by hand and with scikit-image."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage.metrics import adapted_rand_error

from napari_unet.data.metrics import (
    THRESHOLDS,
    ClassScore,
    class_scores,
    membrane_scores,
    pixel_error,
    segment_scores,
    thin_membranes,
)
from napari_unet.errors import DataError

patient = settings(deadline=None, max_examples=50)  # the clock of a shared machine proves nothing

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("NAPARI_UNET_DATA", ROOT.parent / "shared" / "data"))


def rows(*lines: str) -> np.ndarray:
    return np.array([[int(letter) for letter in line] for line in lines])


def test_class_scores_of_a_case_worked_by_hand():
    truth = rows("1100", "1122")
    prediction = rows("1000", "1112")
    scores = class_scores(prediction, truth, (0, 1, 2))
    # Class 1: 3 shared; 4 true, 4 predicted. Class 2: 1 shared; 2 and 1. Class 0: 2 shared; 2 and 3.
    assert scores[1] == ClassScore(iou=3 / 5, dice=6 / 8)
    assert scores[2] == ClassScore(iou=1 / 2, dice=2 / 3)
    assert scores[0] == ClassScore(iou=2 / 3, dice=4 / 5)
    assert pixel_error(prediction, truth) == 2 / 8


def test_a_class_that_is_nowhere_is_absent_not_zero():
    assert class_scores(rows("11"), rows("11"), (1, 7)) == {1: ClassScore(1.0, 1.0)}
    assert class_scores(rows("71"), rows("11"), (7,)) == {7: ClassScore(0.0, 0.0)}


@patient
@given(
    arrays.arrays(np.uint8, (5, 6), elements=st.integers(0, 3)),
    arrays.arrays(np.uint8, (5, 6), elements=st.integers(0, 3)),
)
def test_iou_and_dice_are_symmetric_and_tied_to_each_other(a, b):
    forth, back = class_scores(a, b, range(4)), class_scores(b, a, range(4))
    assert forth == back
    for score in forth.values():
        assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))


def test_segment_scores_of_a_merge_worked_by_hand():
    # Two cells of 4 and 2 pixels, proposed as one of 6.
    v_rand, v_info = segment_scores(rows("1111022"), rows("1111111"))
    assert v_rand == pytest.approx(2 * (16 + 4) / (36 + 16 + 4))
    assert v_info == 0.0  # one segment tells nothing


def test_segment_scores_of_a_split_with_a_line_worked_by_hand():
    # One cell of 5 pixels, proposed as 2 + 2 with one line pixel, which is its own segment.
    v_rand, v_info = segment_scores(rows("11111"), rows("11022"))
    assert v_rand == pytest.approx(2 * (4 + 4 + 1) / (25 + 4 + 4 + 1))
    assert v_info == pytest.approx(0, abs=1e-12)


def test_segment_scores_of_a_shifted_border_worked_by_hand():
    # True 3 + 3, proposed 2 + 4: p = 2/6, 1/6, 3/6.
    v_rand, v_info = segment_scores(rows("111222"), rows("112222"))
    assert v_rand == pytest.approx(2 * (4 + 1 + 9) / (9 + 9 + 4 + 16))

    def entropy(*counts: int) -> float:
        return -sum(n / 6 * math.log(n / 6) for n in counts)

    mutual = entropy(2, 4) + entropy(3, 3) - entropy(2, 1, 3)
    assert v_info == pytest.approx(2 * mutual / (entropy(2, 4) + entropy(3, 3)))


def test_a_proposal_of_nothing_but_lines_is_worked_by_hand():
    v_rand, v_info = segment_scores(rows("1122"), rows("0000"))
    assert v_rand == pytest.approx(2 * 4 / (4 + 8))
    assert v_info == pytest.approx(2 * math.log(2) / (math.log(2) + math.log(4)))


def test_pixels_outside_the_true_cells_do_not_count():
    assert segment_scores(rows("1102200"), rows("1102234")) == (1.0, 1.0)


segments = arrays.arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@patient
@given(segments, segments)
def test_segment_scores_lie_between_0_and_1_and_ignore_numbering(truth, proposal):
    truth[0, 0] = 1
    v_rand, v_info = segment_scores(truth, proposal)
    assert 0 < v_rand <= 1 + 1e-12
    assert -1e-12 <= v_info <= 1 + 1e-12
    renamed = np.array([0, 30, 7, 99, 2])
    assert segment_scores(renamed[truth], renamed[proposal]) == pytest.approx((v_rand, v_info))


@patient
@given(segments)
def test_a_partition_scores_1_against_itself(truth):
    truth[0, 0] = 1
    assert segment_scores(truth, truth) == pytest.approx((1.0, 1.0))


def test_thinning_leaves_lines_of_one_pixel_between_cells():
    cell = np.ones((9, 20), bool)
    cell[:, 7:12] = False  # a membrane five pixels thick
    cell[4, 14:17] = False  # and one that separates nothing
    thinned = thin_membranes(cell)
    assert set(np.unique(thinned)) == {0, 1, 2}
    assert ((thinned == 0).sum(axis=1) == 1).all()
    np.testing.assert_array_equal(thinned[:, 9], 0)
    assert (thinned[4, 14:17] == thinned[4, 18]).all()


def test_thinning_knows_no_cell_and_one_cell():
    assert (thin_membranes(np.zeros((4, 5), bool)) == 0).all()
    one = np.zeros((4, 5), bool)
    one[2, 2] = True
    assert (thin_membranes(one) == 1).all()


@patient
@given(st.integers(0, 2**32 - 1))
def test_thinning_keeps_every_cell_apart(seed):
    cell = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 40)), 1.5) > -0.1
    thinned = thin_membranes(cell)
    components, count = ndimage.label(cell)
    assert len(set(np.unique(thinned)) - {0}) == count
    for number in range(1, count + 1):
        assert len(np.unique(thinned[components == number])) == 1
    # No two cells touch across an edge: the lines are 4-connected barriers.
    for a, b in ((thinned[1:], thinned[:-1]), (thinned[:, 1:], thinned[:, :-1])):
        assert not ((a != b) & (a > 0) & (b > 0)).any()


def noisy_membranes(seed: int, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Truth (bool) and a probability that resembles it."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)), 6)
    truth = np.abs(field) > 0.15 * field.std()
    probability = ndimage.gaussian_filter(truth + rng.normal(0, 0.8, truth.shape), 1.5)
    return truth, np.clip(probability, 0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_v_rand_agrees_with_scikit_image_after_thinning(seed):
    truth, probability = noisy_membranes(seed)
    components = ndimage.label(truth)[0]
    for level in (0.4, 0.6, 0.8):
        thinned = thin_membranes(probability > level)
        # scikit-image takes 0 for one segment; the challenge takes each line pixel for its own.
        lines = thinned == 0
        single = thinned.copy()
        single[lines] = thinned.max() + 1 + np.arange(lines.sum())
        error = adapted_rand_error(components, single, ignore_labels=(0,))[0]
        assert segment_scores(components, thinned)[0] == pytest.approx(1 - error, abs=1e-4)


def test_membrane_scores_take_the_best_of_the_means_over_slices():
    pairs = [noisy_membranes(seed) for seed in range(3)]
    truth = np.stack([pair[0] for pair in pairs])
    probability = np.stack([pair[1] for pair in pairs])
    scores = membrane_scores(probability, truth)
    table = np.array(
        [
            [segment_scores(ndimage.label(t)[0], thin_membranes(p > level)) for level in THRESHOLDS]
            for t, p in zip(truth, probability, strict=True)
        ]
    )
    assert scores.v_rand == pytest.approx(table[..., 0].mean(axis=0).max())
    assert scores.v_info == pytest.approx(table[..., 1].mean(axis=0).max())
    assert scores.threshold == THRESHOLDS[table[..., 0].mean(axis=0).argmax()]
    errors = [pixel_error(probability > level, truth) for level in THRESHOLDS]
    assert scores.pixel_error == pytest.approx(min(errors))
    assert scores.pixel_error_at_half == errors[5]


def test_a_slice_without_cells_counts_for_the_pixel_error_only():
    truth, probability = noisy_membranes(0)
    alone = membrane_scores(probability[None], truth[None])
    padded = membrane_scores(np.stack([probability, probability * 0]), np.stack([truth, truth & False]))
    assert (padded.v_rand, padded.v_info) == (alone.v_rand, alone.v_info)
    assert padded.pixel_error < alone.pixel_error


def test_the_real_labels_of_isbi_2012_score_1_against_themselves():
    folder = DATA / "isbi2012_em" / "label"
    if not folder.is_dir():
        pytest.skip(
            f"no ISBI 2012 labels in {folder}: set NAPARI_UNET_DATA to the folder that holds isbi2012_em"
        )
    import imageio.v3 as iio

    truth = np.stack([iio.imread(folder / f"{n:02d}.png") for n in (0, 19)]) > 127
    scores = membrane_scores(truth.astype(np.float32), truth)
    assert scores.v_rand == pytest.approx(1, abs=1e-6)
    assert scores.v_info == pytest.approx(1, abs=1e-6)
    assert scores.pixel_error == scores.pixel_error_at_half == 0
    # A neighbour 50 nm away resembles it and is not it.
    shifted = membrane_scores(np.roll(truth, 3, axis=2).astype(np.float32), truth)
    assert 0.7 < shifted.v_rand < 0.999
    assert shifted.pixel_error > 0.05


@pytest.mark.parametrize(
    ("probability", "truth", "sentence"),
    [
        (
            np.zeros((1, 4, 4)),
            np.ones((1, 4, 5), bool),
            r"The prediction has shape \(1, 4, 4\) but the truth has \(1, 4, 5\)",
        ),
        (
            np.zeros((4, 4)),
            np.ones((4, 4), bool),
            r"shape \(slices, y, x\), but the truth is bool of shape \(4, 4\)",
        ),
        (np.zeros((1, 4, 4)), np.ones((1, 4, 4), int), "the truth is int64"),
        (
            np.full((1, 4, 4), 255),
            np.ones((1, 4, 4), bool),
            "go from 255 to 255: divide 8-bit probabilities by 255",
        ),
        (np.full((1, 4, 4), np.nan), np.ones((1, 4, 4), bool), "must lie between 0 and 1"),
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool), "The truth holds no cell"),
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4), bool), "Nothing can be scored"),
    ],
)
def test_what_cannot_be_scored_is_said(probability, truth, sentence):
    with pytest.raises(DataError, match=sentence):
        membrane_scores(probability, truth)
