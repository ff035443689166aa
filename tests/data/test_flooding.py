"""Shapes are parted at necks, each as if it were alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction

from napari_unet.data.flooding import part_at_necks

DIAGONALS = np.ones((3, 3))


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Noise, or round shapes that run into each other, cut anywhere."""
    shape = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**31 - 1)))
    if draw(st.booleans()):
        return ndimage.gaussian_filter(rng.normal(size=shape), draw(st.sampled_from([0, 1, 3]))) > 0
    y, x = np.indices(shape)
    mask = np.zeros(shape, bool)
    for _ in range(draw(st.integers(0, 12))):
        at, radius = rng.uniform(0, shape), rng.uniform(1, 12)
        mask |= np.hypot(y - at[0], x - at[1]) < radius
    return mask


depths = st.sampled_from([0.2, 0.5, 1.0, 1.5, 3.0])


@settings(max_examples=200, deadline=None)
@given(masks(), depths)
def test_parts_are_as_many_as_summits_that_rise_by_the_depth(mask: np.ndarray, depth: float) -> None:
    parts = part_at_necks(mask, depth)
    np.testing.assert_array_equal(parts > 0, mask)
    regions, count = ndimage.label(mask, DIAGONALS)
    # The same by another way: grey reconstruction.
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))
    lowered = reconstruction(np.maximum(distance - depth, 0), distance)
    summits = ndimage.label(local_maxima(lowered) & (lowered > 0), DIAGONALS)[0][1:-1, 1:-1]
    for region in range(1, count + 1):
        rising = np.unique(summits[(regions == region) & (summits > 0)])
        found = np.unique(parts[regions == region])
        assert len(found) == max(1, len(rising))
        assert all(ndimage.label(parts == part, DIAGONALS)[1] == 1 for part in found)


@settings(max_examples=100, deadline=None)
@given(masks(), depths, st.data())
def test_a_region_is_parted_as_if_it_were_alone(mask: np.ndarray, depth: float, data: st.DataObject) -> None:
    regions, count = ndimage.label(mask, DIAGONALS)
    if not count:
        return
    number = data.draw(st.integers(1, count))
    y, x = ndimage.find_objects(regions)[number - 1]
    cut = slice(data.draw(st.integers(0, y.start)), y.stop), slice(data.draw(st.integers(0, x.start)), x.stop)
    own = regions[cut] == number
    whole, alone = part_at_necks(mask, depth)[cut][own], part_at_necks(own, depth)[own]
    pairs = set(zip(whole.tolist(), alone.tolist(), strict=True))
    assert len(pairs) == len(set(whole.tolist())) == len(set(alone.tolist()))


def test_the_cut_goes_through_the_neck() -> None:
    y, x = np.indices((20, 40))
    mask = np.minimum(np.hypot(y - 10, x - 11), np.hypot(y - 10, x - 28)) < 10
    for way in (mask, mask.T):
        parts = part_at_necks(way, 2)
        parts = parts if way is mask else parts.T
        (left,), (right,) = (set(side[side > 0].tolist()) for side in (parts[:, :19], parts[:, 21:]))
        assert left != right


def test_bumps_part_nothing() -> None:
    y, x = np.indices((40, 60))
    ellipse = ((y - 20) / 15) ** 2 + ((x - 30) / 27) ** 2 < 1
    ellipse[4:6, 28:31] = ellipse[20, 2:4] = True
    for depth in (0.5, 1.0, 3.0):
        assert len(np.unique(part_at_necks(ellipse, depth))) == 2
