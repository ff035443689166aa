"""Whether painted values are proposed as classes or as objects."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.data.axes import Stack
from napari_unet.data.paint import survey_paint
from napari_unet.data.synthetic import cells
from napari_unet.data.target_kind import judge_target
from napari_unet.spec import TargetKind


def propose(painted: np.ndarray, background_value: int | None = None) -> tuple[TargetKind, str]:
    (paint,) = survey_paint([Stack(painted, "YX", "cells")])
    return judge_target(paint.looks, background_value)


def test_many_values_in_one_piece_each_are_objects() -> None:
    ids = cells((256, 256), seed=0)[2]
    target, reason = propose(ids)
    assert target == "objects"
    assert reason.startswith(
        f"Each painted value is taken for one object, because a slice has up to {ids.max()} values, 100 % of them in one piece"
    )
    assert reason.endswith("If the values are classes, choose classes.")


def test_a_value_in_several_pieces_is_a_class() -> None:
    _, mask, ids = cells((256, 256), seed=0)
    target, reason = propose(1 + ids % 3 * mask)
    assert target == "classes"
    assert reason.startswith(
        "Each painted value is taken for a class of pixels, because a slice has up to 3 values, "
    )
    assert reason.endswith("of them in several pieces. If each value is one object, choose objects.")
    assert "because no slice has more than 1 value." in propose(mask)[1]
    assert propose(mask * 0)[1].startswith("Nothing is painted yet")


def test_specks_and_background_strokes_do_not_count() -> None:
    ids = cells((256, 256), seed=0)[2].astype(int)
    grown = np.where(ids > 0, ids + 1, 0)
    grown[::6, ::6][grown[::6, ::6] == 0] = 2  # stray clicks of one object
    assert propose(grown)[0] == "objects"
    frayed = np.where(ids > 0, 255, 0)
    frayed[np.arange(9) * 20, 0] = np.arange(9) * 20 + 30  # edges of a mask that was smoothed
    assert propose(frayed)[0] == "classes"
    few = np.zeros((60, 60), int)
    for value in range(1, 9):
        few[7 * value - 4 : 7 * value, 5:50] = value
    assert propose(few)[0] == "objects"
    assert propose(few, background_value=3)[0] == "classes"  # 7 others may be strokes of classes


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(1, 30)), factor=st.sampled_from([1, 7, 10**9]))
def test_only_the_shapes_count_not_the_numbers(order: list[int], factor: int) -> None:
    ids = cells((128, 128), seed=4)[2]
    renamed = np.array([0, *order])[ids].astype(np.int64) * factor
    assert propose(renamed) == propose(ids)
