"""A patch is flipped and turned in each of the eight ways, and all its parts alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.data.augment import coordinates, flip_and_turn, sample, vary_intensity


def test_there_are_eight_ways_and_parts_stay_together() -> None:
    target = np.arange(16, dtype=np.uint8).reshape(4, 4)
    image = np.stack([target, 2.0 * target], axis=-1).astype(np.float32)
    ways = set()
    for way in range(8):
        turned, labels = flip_and_turn(image, way), flip_and_turn(target, way)
        np.testing.assert_array_equal(turned[..., 0], labels)
        np.testing.assert_array_equal(turned[..., 1], 2.0 * labels)
        ways.add(labels.tobytes())
    assert len(ways) == 8


def test_way_0_changes_nothing() -> None:
    patch = np.arange(25).reshape(5, 5)
    np.testing.assert_array_equal(flip_and_turn(patch, 0), patch)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([16, 33, 64]), st.floats(0, 3))
def test_image_and_labels_are_deformed_alike(seed: int, side: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 4, (side, side)).astype(np.uint8)
    where = coordinates(side, strength, rng)
    moved = sample(target, where, nearest=True)
    image = sample(target[..., None].astype(np.float32), np.rint(where))
    np.testing.assert_allclose(image[..., 0], moved, atol=1e-4)


def test_strength_0_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((32, 32, 2)).astype(np.float32)
    np.testing.assert_allclose(sample(image, coordinates(32, 0.0, rng)), image, atol=1e-5)
    np.testing.assert_allclose(vary_intensity(image, 0.0, rng), image, atol=1e-6)


def test_displacements_have_the_size_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    straight = coordinates(256, 0.0, rng)
    corners = [(coordinates(256, 1.0, rng) - straight)[:, 128, 128] for _ in range(400)]
    # The middle is a point of the grid, and neither turned nor scaled away.
    assert np.std(corners) == pytest.approx(10.24, rel=0.1)


def test_values_beyond_black_and_white_stay_finite() -> None:
    image = np.array([[[-5.0], [0.0], [1.0], [1e6]]], np.float32)
    varied = vary_intensity(image, 3.0, np.random.default_rng(3))
    assert np.isfinite(varied).all()
    assert varied.dtype == np.float32
