"""Image and labels are flipped and turned alike."""

from __future__ import annotations

import numpy as np

from napari_unet.data.augment import flip_and_turn


def test_all_eight_ways_come_up_and_pairs_stay_paired() -> None:
    target = np.arange(16, dtype=np.uint8).reshape(4, 4)
    image = np.stack([target, 2.0 * target], axis=-1).astype(np.float32)
    rng = np.random.default_rng(0)
    ways = set()
    for _ in range(200):
        turned, labels = flip_and_turn(image, target, rng)
        np.testing.assert_array_equal(turned[..., 0], labels)
        np.testing.assert_array_equal(turned[..., 1], 2.0 * labels)
        ways.add(labels.tobytes())
    assert len(ways) == 8


def test_the_same_generator_gives_the_same_way() -> None:
    image, target = np.random.default_rng(1).random((5, 5, 1)), np.arange(25).reshape(5, 5)
    ways = [flip_and_turn(image, target, np.random.default_rng(7)) for _ in range(2)]
    np.testing.assert_array_equal(ways[0][0], ways[1][0])
    np.testing.assert_array_equal(ways[0][1], ways[1][1])
