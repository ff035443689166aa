"""The regions that are least sure come first and do not overlap."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.data.axes import Stack
from napari_unet.data.regions import rank_regions


def test_bright_squares_are_found_worst_first() -> None:
    unsure = np.zeros((3, 200, 300), np.uint8)
    unsure[1, 64:128, 96:160] = 200
    unsure[2, 10:40, 250:290] = 255
    first, second, *rest = rank_regions(Stack(unsure, "ZYX"), range(3))
    assert (first.n, first.y, first.x) == (1, (64, 128), (96, 160))
    assert abs(first.unsure - 200 / 255) < 1e-9
    assert second.n == 2
    assert second.y[0] <= 10
    assert second.x[1] >= 288
    assert all(region.unsure < second.unsure for region in rest)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_they_do_not_overlap_and_their_means_are_right(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 200), st.integers(1, 200)))
    unsure = np.random.default_rng(sum(shape)).random(shape).astype(np.float32) ** 8
    most = data.draw(st.integers(1, 30))
    found = rank_regions(Stack(unsure, "ZYX"), range(shape[0]), most)
    assert 1 <= len(found) <= most
    covered = np.zeros(shape, int)
    for region in found:
        box = (region.n, slice(*region.y), slice(*region.x))
        covered[box] += 1
        assert abs(unsure[box].mean() - region.unsure) < 1e-4
    assert covered.max() == 1
    values = [region.unsure for region in found]
    assert values == sorted(values, reverse=True)


def test_where_all_is_certain_nothing_is_listed_and_other_slices_are_left_out() -> None:
    unsure = np.zeros((2, 80, 80), np.uint8)
    assert rank_regions(Stack(unsure, "ZYX"), range(2)) == []
    unsure[0] = 255
    assert rank_regions(Stack(unsure, "ZYX"), [1]) == []
