"""Objects of neighbouring slices that are one object share a number, along Z alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet.data.instances import IDS, Blocks, find_objects
from napari_unet.data.stitching import best_pairs
from napari_unet.errors import DataError
from napari_unet.spec import ObjectDecoding


def of_ids(ids: np.ndarray) -> np.ndarray:
    """Bytes (3, ..., y, x) that are decoded into these objects, if they do not touch."""
    return np.stack([255 * (ids == 0), 255 * (ids > 0), 0 * ids]).astype(np.uint8)


def linked(ids: np.ndarray, axes: str, **options: Any) -> np.ndarray:
    labels = np.zeros(ids.shape, IDS)
    assert not find_objects(of_ids(ids), labels, ObjectDecoding(), slice_axes=axes, link=True, **options)
    return labels


BLOCKS = [None, Blocks(4), Blocks(7)]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_tube_has_one_number(blocks: Blocks | None) -> None:
    ids = np.zeros((5, 12, 20), int)
    for z in range(5):
        ids[z, 2:8, 2 + z : 10 + z] = 2
    ids[1:, 10:, :3] = 3
    ids[2, 0, 19] = 4
    expected = np.select([ids == 2, ids == 3, ids == 4], [1, 2, 3])
    np.testing.assert_array_equal(linked(ids, "Z", blocks=blocks), expected)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_tubes_that_cross_keep_their_numbers(blocks: Blocks | None) -> None:
    ids = np.zeros((13, 8, 20), int)
    for z in range(13):
        ids[z, :3, z : z + 6] = 1
        ids[z, 4:7, 13 - z : 19 - z] = 2
    found = linked(ids, "Z", blocks=blocks)
    np.testing.assert_array_equal(found, ids)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_of_an_object_that_splits_the_larger_part_keeps_the_number(blocks: Blocks | None) -> None:
    ids = np.zeros((2, 6, 20), int)
    ids[0, 1:5, 1:19] = 1
    ids[1, 1:5, 1:7], ids[1, 1:5, 8:19] = 2, 1
    np.testing.assert_array_equal(linked(ids, "Z", blocks=blocks), ids)


def test_too_little_overlap_joins_nothing() -> None:
    ids = np.zeros((2, 4, 12), int)
    ids[0, :, :5], ids[1, :, 3:8] = 1, 2  # 8 of 32 pixels: an IoU of 0.25
    assert linked(ids, "Z").max() == 1
    ids[1, 0, 8] = 2
    assert linked(ids, "Z").max() == 2


@pytest.mark.parametrize("axes", ["TZ", "ZT", "T"])
def test_what_lies_apart_in_time_is_not_joined(axes: str) -> None:
    ids = np.zeros((2, 2, 6, 6), int)[: 2 if axes != "T" else 1]
    ids[..., 1:5, 1:5] = 1
    ids = ids[0] if axes == "T" else ids
    order = {"TZ": [[1, 1], [2, 2]], "ZT": [[1, 2], [1, 2]], "T": [1, 2]}[axes]
    expected = np.asarray(order)[..., None, None] * (ids > 0)
    np.testing.assert_array_equal(linked(ids, axes), expected)


def test_to_join_along_z_takes_letters() -> None:
    with pytest.raises(DataError) as caught:
        linked(np.zeros((2, 4, 4), int), "")
    assert str(caught.value) == (
        "To join objects along Z, a letter is needed for each of the 1 axes before y and x, "
        'but slice_axes is "".'
    )


def test_each_object_has_one_partner_at_most() -> None:
    i, j = best_pairs(
        np.array([1, 1, 2, 2, 1]),
        np.array([1, 2, 2, 3, 1]),
        np.array([20, 50, 50, 45, 20]),
        (np.array([0, 100, 100]), np.array([0, 50, 100, 50])),
    )
    assert list(zip(i, j, strict=True)) == [(1, 1), (2, 3)]  # 40 of 110, 45 of 105; others 50 of 150
