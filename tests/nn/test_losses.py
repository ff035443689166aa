"""The loss: cross-entropy and Dice over painted pixels only."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.data.labels import IGNORE
from napari_unet.nn.losses import SegmentationLoss


def weighed(target: np.ndarray, weight: float | np.ndarray = 1.0) -> np.ndarray:
    """Targets with weights, as training hands them over."""
    return np.stack([target, np.broadcast_to(weight, target.shape)], -1).astype(np.float32)


def by_hand(target: np.ndarray, logits: np.ndarray, weight: float | np.ndarray = 1.0) -> float:
    """The definition, pixel by pixel."""
    z = logits.astype(np.float64)
    if z.shape[-1] == 1:
        z = np.concatenate([0 * z, z], -1)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    painted = target != IGNORE
    if not painted.any():
        return 0.0
    t, p, w = target[painted], p[painted], np.broadcast_to(weight, target.shape)[painted]
    entropy = -np.average([np.log(row[k]) for k, row in zip(t, p, strict=True)], weights=w)
    dice = [
        1 - 2 * p[t == k, k].sum() / (p[:, k].sum() + (t == k).sum())
        for k in range(p.shape[-1])
        if (t == k).any()
    ]
    return float(entropy + np.mean(dice))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 5]), st.floats(0, 1))
def test_it_is_the_definition(seed: int, outputs: int, unpainted: float) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, max(2, outputs), (2, 4, 5)).astype(np.uint8)
    target[rng.random(target.shape) < unpainted] = IGNORE
    logits = rng.normal(0, 3, (*target.shape, outputs)).astype(np.float32)
    weight = rng.uniform(0.1, 12, target.shape).astype(np.float32)
    loss = float(SegmentationLoss()(weighed(target, weight), logits))
    assert loss == pytest.approx(by_hand(target, logits, weight), abs=1e-4)


@pytest.mark.parametrize("outputs", [1, 4])
def test_nothing_painted_is_zero_with_zero_gradient(outputs: int) -> None:
    import tensorflow as tf

    target = np.full((1, 4, 4), IGNORE, np.uint8)
    logits = tf.Variable(np.random.default_rng(0).normal(size=(1, 4, 4, outputs)).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = SegmentationLoss()(weighed(target), logits)
    assert float(loss) == 0.0
    assert (np.asarray(tape.gradient(loss, logits)) == 0).all()


@pytest.mark.parametrize("outputs", [1, 3])
def test_unpainted_pixels_carry_no_gradient(outputs: int) -> None:
    import tensorflow as tf

    target = np.full((1, 4, 4), IGNORE, np.uint8)
    target[0, 0, :2] = 0, 1
    logits = tf.Variable(np.random.default_rng(0).normal(size=(1, 4, 4, outputs)).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = SegmentationLoss()(weighed(target), logits)
    gradient = np.asarray(tape.gradient(loss, logits))
    assert (gradient[target == IGNORE] == 0).all()
    assert (gradient[target != IGNORE] != 0).all()


def test_sure_and_right_is_almost_zero_sure_and_wrong_is_finite() -> None:
    target = np.array([[[0, 1], [1, 0]]], np.uint8)
    logits = np.where(target == 1, 200.0, -200.0).astype(np.float32)[..., None]
    assert float(SegmentationLoss()(weighed(target), logits)) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(float(SegmentationLoss()(weighed(target), -logits)))


def test_low_precision_logits_are_computed_in_float32() -> None:
    target = np.random.default_rng(0).integers(0, 2, (2, 8, 8)).astype(np.uint8)
    logits = keras.ops.cast(np.random.default_rng(1).normal(size=(2, 8, 8, 1)), "bfloat16")
    loss = SegmentationLoss()(weighed(target), logits)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    rounded = np.asarray(keras.ops.cast(logits, "float32"))
    assert float(loss) == pytest.approx(by_hand(target, rounded), abs=1e-5)
