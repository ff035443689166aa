"""A patch is flipped and turned in each of the eight ways, and all its parts alike."""

from __future__ import annotations

import numpy as np

from napari_unet.data.augment import flip_and_turn


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
