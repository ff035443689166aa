"""How common classes are where nobody painted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.data.shares import adapted_shares, learned_shares


def answers(shares: np.ndarray, learned: np.ndarray, spread: float, seed: int) -> np.ndarray:
    """What a network that is calibrated for `learned` says of pixels whose classes are as common as `shares`."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(shares), 20_000, p=shares)
    seen = truth[:, None] + rng.normal(0, spread, (len(truth), 1))
    odds = learned * np.exp(-((seen - np.arange(len(shares))) ** 2) / (2 * spread**2))
    return np.asarray(odds / odds.sum(1, keepdims=True))


weights = st.lists(st.integers(1, 50), min_size=3, max_size=5)


@settings(max_examples=25)
@given(weights, st.floats(0.2, 0.35), st.integers(0, 99))
def test_shares_of_classes_that_are_told_apart_come_near_to_the_true_ones(
    weights: list[int], spread: float, seed: int
) -> None:
    shares = np.array(weights) / sum(weights)
    learned = np.full(len(shares), 1 / len(shares))
    found = adapted_shares(answers(shares, learned, spread, seed), learned)
    assert found.sum() == pytest.approx(1)
    assert np.abs(found - shares).sum() <= 0.2 * np.abs(learned - shares).sum() + 0.03


@settings(max_examples=25)
@given(weights, st.floats(0.2, 2.0), st.integers(0, 99))
def test_what_was_said_is_never_less_likely_with_the_shares_that_are_found(
    weights: list[int], spread: float, seed: int
) -> None:
    shares = np.array(weights) / sum(weights)
    learned = np.full(len(shares), 1 / len(shares))
    said = answers(shares, learned, spread, seed)
    # The method is an expectation maximisation: relative to the learned shares, the logarithm rises from 0.
    assert np.log((said * (adapted_shares(said, learned) / learned)).sum(1)).mean() >= -1e-12


def test_what_is_as_common_as_it_was_learned_stays() -> None:
    learned = np.array([0.6, 0.3, 0.1])
    np.testing.assert_allclose(adapted_shares(answers(learned, learned, 0.4, 0), learned), learned, atol=0.02)


def test_a_class_that_was_not_learned_has_no_share() -> None:
    learned = np.array([0.5, 0.0, 0.5])
    found = adapted_shares(np.array([[0.7, 0.1, 0.2], [0.2, 0.1, 0.7]]), learned)
    assert found[1] == 0 and found.sum() == pytest.approx(1)


def test_paint_counts_by_its_weight() -> None:
    target = np.full((10, 10), IGNORE, np.uint8)
    target[0, :9], target[1, :1] = 0, 2
    shares = learned_shares([Example(np.zeros((10, 10, 1), np.float32), target, 0, 0)], 4)
    # Weights are inverse square roots of frequencies: 9 to 1 in pixels are 3 to 1.
    np.testing.assert_allclose(shares, [0.75, 0, 0.25, 0], atol=1e-6)
