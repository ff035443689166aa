"""Patches are bent, lit and softened, and image, labels and weights always alike."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.augmentation import Augmentation, AugmentationPreset
from napari_unet.data.augment import (
    Variation,
    coordinates,
    draw_variation,
    flip_and_turn,
    mirrored,
    read_patch,
    relight,
)
from napari_unet.data.labels import IGNORE

NONE = Augmentation.preset("none")


def variations() -> st.SearchStrategy[Augmentation]:
    """Any strengths within their bounds."""
    bounds = {
        name: [getattr(rule, key) for rule in field.metadata for key in ("ge", "le") if hasattr(rule, key)]
        for name, field in Augmentation.model_fields.items()
    }
    numbers = {name: st.floats(*pair) for name, pair in bounds.items() if pair}
    return st.builds(Augmentation, flips=st.booleans(), **numbers)


def drawn(strengths: Augmentation, side: int = 32, seed: int = 0) -> Variation:
    return draw_variation(strengths, side, np.random.default_rng(seed))


def numbers(variation: Variation) -> dict[str, float]:
    return {name: value for name, value in vars(variation).items() if name != "grid"}


# --- what is drawn ---------------------------------------------------------------------------------


def test_a_strength_leaves_the_other_draws_as_they_are() -> None:
    full = drawn(Augmentation.preset("full"))
    quiet = drawn(Augmentation.preset("full", noise=0.0, flips=False, blur=0.0))
    assert (quiet.noise, quiet.way, quiet.blur) == (0.0, 0, 0.0)
    assert quiet.grid is not None and full.grid is not None
    np.testing.assert_array_equal(quiet.grid, full.grid)
    assert numbers(replace(quiet, noise=full.noise, way=full.way, blur=full.blur)) == numbers(full)


def test_nothing_is_varied_by_none() -> None:
    assert drawn(NONE).grid is None
    assert numbers(drawn(NONE)) == numbers(Variation(0, None, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0))


def test_strengths_are_what_the_settings_say() -> None:
    full = Augmentation(
        rotation=90,
        scaling=0.5,
        deform=0.0,
        brightness=0.2,
        contrast=0.3,
        gamma=0.1,
        blur=2,
        low_resolution=3,
    )
    many = [drawn(full, seed=seed) for seed in range(2000)]
    # Half a patch to the right of the middle lies the point (1, 2) of the grid.
    right = np.array([variation.grid[:, 1, 2] for variation in many if variation.grid is not None]) / 15.5
    angles, scales = np.rad2deg(np.arctan2(-right[:, 0], right[:, 1])), np.hypot(*right.T)
    assert (angles.min(), angles.max()) == (pytest.approx(-90, abs=1), pytest.approx(90, abs=1))
    assert (scales.min(), scales.max()) == (pytest.approx(1 / 1.5, rel=0.01), pytest.approx(1.5, rel=0.01))
    assert np.std([v.brightness for v in many]) == pytest.approx(0.2, rel=0.1)
    assert np.std(np.log([v.contrast for v in many])) == pytest.approx(0.3, rel=0.1)
    assert np.std(np.log([v.gamma for v in many])) == pytest.approx(0.1, rel=0.1)
    for amounts, nothing, largest in (([v.blur for v in many], 0, 2), ([v.coarseness for v in many], 1, 3)):
        assert np.mean(np.array(amounts) > nothing) == pytest.approx(0.25, abs=0.04)
        assert (min(amounts), max(amounts)) == (nothing, pytest.approx(largest, abs=0.1))


def test_displacements_have_the_size_of_the_paper() -> None:
    """A deviation of 10 pixels of 256, and of every point of the grid on its own."""
    elastic = Augmentation.preset("none", deform=0.04)
    grids = np.array([drawn(elastic, 256, seed).grid for seed in range(500)])
    np.testing.assert_allclose(grids.std(axis=0), 10.24, rtol=0.15)
    correlation = np.corrcoef(grids.reshape(500, -1).T)
    assert np.abs(correlation - np.eye(18)).max() < 0.25


# --- where pixels come from ------------------------------------------------------------------------


@pytest.mark.parametrize("side", [16, 33, 256])
def test_the_grid_is_met_and_straight_in_between_where_it_is_straight(side: int) -> None:
    grid = drawn(Augmentation.preset("full"), side).grid
    assert grid is not None
    where = coordinates(grid, side)
    assert where.shape == (2, side, side) and where.dtype == np.float32
    np.testing.assert_allclose(where[:, :: side - 1, :: side - 1], grid[:, ::2, ::2], rtol=1e-4, atol=1e-3)
    turned = drawn(Augmentation.preset("none", rotation=180.0, scaling=1.0), side).grid
    assert turned is not None
    steps = np.diff(coordinates(turned, side), axis=1)
    np.testing.assert_allclose(steps, steps[:, :1, :1] + np.zeros_like(steps), atol=1e-3)


@given(st.integers(1, 9), st.lists(st.integers(-100, 100), min_size=1))
def test_positions_are_reflected_as_numpy_pads(size: int, at: list[int]) -> None:
    padded = np.pad(np.arange(size), 100, mode="reflect" if size > 1 else "edge")
    np.testing.assert_array_equal(mirrored(np.array(at), size), padded[np.array(at) + 100])


# --- reading ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    channels=st.sampled_from([1, 3]),
    side=st.sampled_from([16, 33, 48]),
    strengths=variations(),
    seed=st.integers(0, 10_000),
)
def test_image_labels_and_weights_are_read_at_the_same_places(
    shape: tuple[int, int], channels: int, side: int, strengths: Augmentation, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    target = rng.choice(np.array([0, 1, 2, 7, IGNORE], np.uint8), shape)
    weight = (target.astype(np.float16) + 1) * (target != IGNORE)
    image = np.repeat(target[..., None].astype(np.float32), channels, -1)
    grid = draw_variation(strengths, side, rng).grid
    if grid is None:
        return
    where = np.rint(coordinates(grid, side) + rng.uniform(0, 40, (2, 1, 1)).astype(np.float32))
    read, labels, weights = read_patch(image, target, weight, where)
    assert read.shape == (side, side, channels) and read.dtype == np.float32
    inside = (where >= 0).all(axis=0) & (where[0] < shape[0]) & (where[1] < shape[1])
    # Between pixels nothing is interpolated: what was painted and its weight lie where the image shows them.
    np.testing.assert_array_equal(read[..., 0][inside], labels[inside])
    np.testing.assert_array_equal(read[..., -1], read[..., 0])
    np.testing.assert_array_equal(
        weights[inside], (labels[inside].astype(float) + 1) * (labels[inside] != IGNORE)
    )
    assert (labels[~inside] == IGNORE).all() and (weights[~inside] == 0).all()
    assert set(np.unique(labels)) <= set(np.unique(target)) | {IGNORE}
    assert set(np.unique(read)) <= set(np.unique(image))


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 10_000))
def test_images_are_interpolated_as_scipy_does(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((*shape, 2), np.float32)
    where = rng.uniform(-60, 60, (2, 16, 16)).astype(np.float32)
    read, _, weights = read_patch(image, np.zeros(shape, np.uint8), None, where)
    for channel in (0, 1):
        expected = ndimage.map_coordinates(image[..., channel], where, order=1, mode="mirror")
        np.testing.assert_allclose(read[..., channel], expected, atol=2e-4)
    assert set(np.unique(weights)) <= {0.0, 1.0}


# --- how it looks ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_strength_0_changes_no_bit(seed: int, wild: bool) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1e4 if wild else 1, (16, 16, 2)).astype(np.float32)
    assert relight(image, drawn(NONE, seed=seed), rng).tobytes() == image.tobytes()


@settings(max_examples=60, deadline=None)
@given(strengths=variations(), seed=st.integers(0, 10_000), value=st.sampled_from([0.0, 0.3, 1.0, None]))
def test_what_comes_out_is_finite_and_near_what_went_in(
    strengths: Augmentation, seed: int, value: float | None
) -> None:
    rng = np.random.default_rng(seed)
    image = (
        np.full((16, 16, 1), value or 0.0, np.float32)
        if value is not None
        else rng.random((16, 16, 1), np.float32)
    )
    before = image.copy()
    variation = draw_variation(strengths, 16, rng)
    varied = relight(image, variation, rng)
    assert varied.shape == image.shape and varied.dtype == np.float32
    assert np.isfinite(varied).all()
    np.testing.assert_array_equal(image, before)
    # Within black and white, then contrast around their middle, brightness, and noise of six deviations.
    reach = 0.5 * variation.contrast + abs(variation.brightness) + 6 * variation.noise
    assert np.abs(varied - 0.5).max() <= reach + 1e-3
    if value is not None and not variation.noise:
        assert np.ptp(varied) < 1e-5 * max(1.0, variation.contrast)


def test_values_beyond_black_and_white_stay_finite_and_in_order() -> None:
    image = np.array([-5.0, -1e-3, 0.0, 1e-3, 0.5, 1.0, 1.001, 1e6], np.float32).reshape(1, 8, 1)
    varied = relight(
        image, replace(drawn(NONE), gamma=1.7, contrast=1.3, brightness=-0.2), np.random.default_rng(3)
    )
    assert np.isfinite(varied).all()
    assert (np.diff(varied[0, :, 0]) >= 0).all()


def test_blur_and_low_resolution_lose_detail_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((64, 64, 3), np.float32)
    for changes in ({"blur": 1.5}, {"coarseness": 2.0}, {"coarseness": 7.3}):
        varied = relight(image, replace(drawn(NONE), **changes), rng)
        assert varied.std() < 0.7 * image.std()
        assert varied.mean() == pytest.approx(image.mean(), abs=0.01)
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (64, 64, 1))
    for factor in (1.0, 1.5, 2.0, 3.7):
        varied = relight(ramp, replace(drawn(NONE), coarseness=factor), rng)
        np.testing.assert_allclose(varied[8:-8], ramp[8:-8], atol=0.05)  # nothing moves


def test_noise_has_its_deviation_in_every_channel_on_its_own() -> None:
    varied = relight(
        np.zeros((64, 64, 2), np.float32), replace(drawn(NONE), noise=0.1), np.random.default_rng(1)
    )
    assert varied.std() == pytest.approx(0.1, rel=0.05)
    assert abs(np.corrcoef(varied[..., 0].ravel(), varied[..., 1].ravel())[0, 1]) < 0.1


# --- flips and turns -------------------------------------------------------------------------------


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


# --- presets ---------------------------------------------------------------------------------------


def test_presets_grow_stronger() -> None:
    none, light, full = (Augmentation.preset(name) for name in get_args(AugmentationPreset))
    assert light == Augmentation()
    for name in Augmentation.model_fields:
        assert getattr(none, name) <= getattr(light, name) <= getattr(full, name), name
