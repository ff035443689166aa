"""Objects are matched and scored as the field defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from napari_unet.data.instance_metrics import (
    IOU_THRESHOLDS,
    ObjectScore,
    count_matches,
    mean_score,
    overlap,
    pooled_score,
    seg_score,
)
from napari_unet.errors import DataError


def row(*runs: tuple[int, int]) -> np.ndarray:
    """A line of (value, length) runs."""
    return np.concatenate([np.full(length, value) for value, length in runs])


def true_positives(found: np.ndarray, truth: np.ndarray, threshold: float) -> int:
    """The most pairs of an IoU of at least the threshold, object by object."""
    ours, theirs = ([i for i in np.unique(ids) if i] for ids in (found, truth))
    iou = np.zeros((len(ours), len(theirs)))
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            iou[i, j] = np.sum((found == a) & (truth == b)) / np.sum((found == a) | (truth == b))
    matches = iou >= threshold
    chosen = linear_sum_assignment(matches, maximize=True)
    return int(matches[chosen].sum())


def seg(found: np.ndarray, truth: np.ndarray) -> float:
    """The Cell Tracking Challenge's definition, object by object."""
    scores = []
    for b in (i for i in np.unique(truth) if i):
        theirs, best = truth == b, 0.0
        for a in (i for i in np.unique(found) if i):
            ours = found == a
            if np.sum(ours & theirs) > 0.5 * np.sum(theirs):
                best = np.sum(ours & theirs) / np.sum(ours | theirs)
        scores.append(best)
    return float(np.mean(scores))


def objects(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A few overlapping rectangles with ids that are not in order."""
    ids = np.zeros(shape, np.int64)
    for name in rng.choice(np.arange(1, 900), rng.integers(0, 7), replace=False):
        y, x = rng.integers(0, shape)
        ids[y : y + rng.integers(1, 8), x : x + rng.integers(1, 8)] = name
    return ids


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 100_000), st.booleans())
def test_scores_are_those_of_a_slow_second_computation(seed: int, similar: bool) -> None:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(3):
        truth = objects(rng, (11, 14))
        found = np.roll(truth, int(rng.integers(3)), axis=1) * 3 if similar else objects(rng, (11, 14))
        found[rng.random(found.shape) < 0.1] = 0
        pairs.append((found, truth))
    images = [overlap(*pair) for pair in pairs]
    found_n, truth_n = (sum(len(np.unique(p[k][p[k] > 0])) for p in pairs) for k in (0, 1))
    for threshold in IOU_THRESHOLDS:
        tp = sum(true_positives(*pair, threshold) for pair in pairs)
        assert count_matches(images, threshold) == (tp, found_n - tp, truth_n - tp)
        score = pooled_score(images, threshold)
        if found_n + truth_n:
            assert score is not None
            assert score.ap == pytest.approx(tp / (found_n + truth_n - tp))
            assert score.f1 == pytest.approx(2 * tp / (found_n + truth_n))
        else:
            assert score is None
    for image, pair in zip(images, pairs, strict=True):
        assert seg_score([image]) == (pytest.approx(seg(*pair)) if pair[1].any() else None)


def test_a_case_worked_by_hand() -> None:
    # Truth: a of 10 pixels, b of 4, c of 6. Found: 8 of a; b and 1 pixel more; c cut into 3 and 3; one of nothing.
    truth = row((7, 10), (0, 3), (9, 4), (0, 4), (2, 6), (0, 5))
    found = row((1, 8), (0, 5), (2, 5), (0, 3), (3, 3), (4, 3), (0, 2), (5, 3))
    image = overlap(found, truth)
    assert (image.found, image.truth) == (5, 3)
    assert image.matched.tolist() == [0.8, 0.8, 0.5]
    assert count_matches([image], 0.5) == (3, 2, 0)
    assert count_matches([image], 0.8) == (2, 3, 1)
    assert count_matches([image], 0.85) == (0, 5, 3)
    assert pooled_score([image], 0.5) == ObjectScore(3 / 5, 3 / 5, 1.0, 6 / 8)
    # Half of c is not more than half of it.
    assert image.jaccard == pytest.approx(1.6)
    assert seg_score([image]) == pytest.approx(1.6 / 3)


def test_pooled_and_mean_over_images_differ() -> None:
    good = overlap(np.arange(10), np.arange(10))
    bad = overlap(row((1, 4), (0, 4)), row((0, 4), (1, 4)))
    empty = overlap(np.zeros(5, int), np.zeros(5, int))
    pooled, mean = (score([good, bad, empty], 0.5) for score in (pooled_score, mean_score))
    assert pooled is not None and mean is not None
    assert pooled.ap == pytest.approx(9 / 11)
    assert mean.ap == pytest.approx(0.5)
    assert pooled_score([empty], 0.5) is None
    assert mean_score([empty], 0.5) is None
    assert seg_score([empty]) is None


def test_ids_do_not_matter_and_volumes_count_as_one_image() -> None:
    truth = np.zeros((3, 6, 6), np.uint64)
    truth[:, 1:3, 1:3], truth[1:, 4:, 4:] = 2**40, 3
    assert overlap((truth > 0) * (truth % 5 + 1), truth).matched.tolist() == [1, 1]


def test_nothing_found_is_worth_nothing() -> None:
    score = pooled_score([overlap(np.zeros(4, int), np.ones(4, int))], 0.5)
    assert score == ObjectScore(0, 0, 0, 0)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 3)), ((0, 4), (0, 4))])
def test_shapes_must_match(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(DataError, match="They must match and not be empty: compare labels of the same image"):
        overlap(*(np.zeros(shape, int) for shape in shapes))


def test_a_threshold_at_which_matches_are_not_unique_is_refused() -> None:
    with pytest.raises(DataError, match="from an IoU of 0.5 on, .* but 0.4 was asked for"):
        count_matches([], 0.4)
