"""Flips and turns: eight different ones, and each can be undone."""

from __future__ import annotations

import numpy as np

from napari_unet.data.turns import AS_IT_IS, TURNS


def test_there_are_eight_and_each_is_undone() -> None:
    pixels = np.arange(24).reshape(4, 3, 2)
    turned = [turn.apply(pixels) for turn in TURNS]
    assert len({(array.shape, array.tobytes()) for array in turned}) == 8
    for turn, array in zip(TURNS, turned, strict=True):
        np.testing.assert_array_equal(turn.undo(array), pixels)
    np.testing.assert_array_equal(AS_IT_IS.apply(pixels), pixels)
    assert TURNS[0] == AS_IT_IS
