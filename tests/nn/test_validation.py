"""Measuring on the held-out region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.data.objects import object_targets
from napari_unet.data.tiling import Halo
from napari_unet.nn import validation
from napari_unet.nn.losses import SegmentationLoss
from napari_unet.nn.validation import THRESHOLDS, measure


def example(image: np.ndarray, target: np.ndarray) -> Example:
    return Example(image.astype(np.float32), target.astype(np.uint8), 0, 0)


def see(pixels: np.ndarray) -> np.ndarray:
    """A network that answers with its input."""
    return pixels


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_loss_is_the_one_of_training(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, (9, 12)).astype(np.uint8)
    target[rng.random(target.shape) < 0.3] = IGNORE
    logits = rng.normal(0, 2, (9, 12, 1 if classes == 2 else classes)).astype(np.float32)
    weight = rng.uniform(0.1, 12, target.shape).astype(np.float16)
    weighed = replace(example(logits, target), weight=weight)
    quality = measure(see, [weighed], classes, Halo(0, 0), 1)
    truth = np.stack([target, weight], -1).astype(np.float32)
    assert quality is not None
    assert quality.loss == pytest.approx(float(SegmentationLoss()(truth[None], logits[None])), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_score_is_the_best_dice_of_any_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, (20, 20)).astype(np.uint8)
    p = np.clip(rng.normal(0.4 + 0.3 * target, 0.2), 0.01, 0.99).astype(np.float32)
    quality = measure(see, [example(np.log(p / (1 - p))[..., None], target)], 2, Halo(0, 0), 1)
    assert quality is not None

    def dice(threshold: float) -> float:
        answer, truth = p >= threshold, target == 1
        pairs = ((answer, truth), (~answer, ~truth))
        return float(
            np.mean([2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) for ours, theirs in pairs])
        )

    assert quality.score == pytest.approx(max(map(dice, THRESHOLDS)), abs=1e-2)
    assert round(quality.threshold, 2) in np.round(THRESHOLDS, 2)


@pytest.mark.parametrize("painted", ["whole", "strokes"])
def test_threshold_parts_regions(painted: str) -> None:
    target = np.ones((24, 49), int)
    target[:, 24] = 0
    logits = np.where(target == 1, 3.0, -3.0)
    logits[10:12, 24] = 1.0  # a gap in the wall, for any threshold below 0.73
    if painted == "strokes":
        stroke = np.zeros(target.shape, bool)
        stroke[4:9, 4:20] = stroke[9:18, 30:45] = stroke[13:22, 24] = True  # not on the gap
        target[~stroke] = IGNORE
    quality = measure(see, [example(logits[..., None], target)], 2, Halo(0, 0), 1, whole=painted == "whole")
    assert quality is not None
    assert quality.threshold == pytest.approx(0.85, abs=0.1)
    logits[4:7, 10] = 0.5  # pixels of a cell that this threshold loses, but that do not tear it in two
    again = measure(see, [example(logits[..., None], target)], 2, Halo(0, 0), 1, whole=painted == "whole")
    assert again is not None
    assert again.threshold > 0.72


def test_regions_are_looked_for_where_labels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    target = np.full((40, 49), IGNORE)
    target[30:] = 1
    target[30:, 24] = 0
    logits = np.where(target == 0, -3.0, 3.0)
    logits[34, 24], logits[32:34, 40] = 1.0, 0.5
    held = [example(logits[..., None], target)] * 3
    for room in (10 * 49, 10**6):  # less than the context above the labels has
        monkeypatch.setattr(validation, "_DECODED_PIXELS", room)
        quality = measure(see, held, 2, Halo(0, 0), 1, whole=True)
        assert quality is not None
        assert quality.threshold > 0.72


def test_of_equal_thresholds_the_middle_one_counts() -> None:
    target = np.array([[0, 1], [1, 0]])
    quality = measure(see, [example(np.where(target, 9.0, -9.0)[..., None], target)], 2, Halo(0, 0), 1)
    assert quality is not None
    assert (quality.score, quality.threshold) == (1.0, 0.5)


def test_score_is_the_mean_over_the_classes_with_background() -> None:
    target = np.array([[0, 0, 1, 1, 2, 2, 2, IGNORE]])
    answer = np.array([[0, 1, 1, 1, 2, 2, 0, 1]])
    logits = 5 * np.eye(3)[answer]
    quality = measure(see, [example(logits, target)], 3, Halo(0, 0), 1)
    assert quality is not None
    assert quality.score == pytest.approx((2 * 1 / (2 + 2) + 2 * 2 / (2 + 3) + 2 * 2 / (3 + 2)) / 3)
    assert quality.threshold == 0.5


def test_stopped_is_none() -> None:
    assert (
        measure(see, [example(np.zeros((4, 4, 1)), np.ones((4, 4)))], 2, Halo(0, 0), 1, lambda: True) is None
    )


def test_how_objects_are_made_is_chosen_on_examples_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.zeros((40, 48), np.int32)
    ids[4:18, 4:18], ids[4:18, 18:32], ids[24:38, 10:30] = 1, 2, 3
    target = object_targets(ids)
    sure = np.log(np.eye(3, dtype=np.float32)[target] + 1e-6)
    sure[target > 0, 0] = 0.2  # the network takes objects for background, by a little
    examples = [replace(example(sure, target), ids=ids) for _ in range(6)]
    blind = np.zeros_like(sure)
    blind[..., 0] = 9
    examples[1] = replace(examples[1], image=blind)
    monkeypatch.setattr(validation, "_DECODED_PIXELS", 3 * ids.size)
    quality = measure(see, examples, 3, Halo(0, 0), 1)
    assert quality is not None and quality.choice is not None
    assert quality.choice.ap50 == 1  # every other example was looked at, and the blind one is not among them
    assert quality.choice.decoding.foreground_threshold < 0.5
    monkeypatch.setattr(validation, "_DECODED_PIXELS", 6 * ids.size)
    everything = measure(see, examples, 3, Halo(0, 0), 1)
    assert everything is not None and everything.choice is not None
    assert everything.choice.ap50 == pytest.approx(5 / 6)
    monkeypatch.setattr(validation, "_DECODED_PIXELS", round(5.5 * ids.size))
    most = measure(see, examples, 3, Halo(0, 0), 1)
    assert most is not None and most.choice is not None
    # Of the last one it is the upper half, with two of its objects.
    assert most.choice.ap50 == pytest.approx(14 / 17)


def test_of_classes_no_objects_are_made() -> None:
    quality = measure(see, [example(np.zeros((6, 6, 3)), np.eye(6))], 3, Halo(0, 0), 1)
    assert quality is not None
    assert quality.choice is None
