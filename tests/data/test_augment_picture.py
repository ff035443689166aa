"""The picture shows the user's own patch, its labels and what becomes of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet.augmentation import Augmentation
from napari_unet.data.augment_picture import augmentation_picture
from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.errors import DataError

FULL, NONE = Augmentation.preset("full"), Augmentation.preset("none")


def cell(channels: int = 1, size: int = 64) -> Example:
    """A grey image with a square in its middle, all of it labelled."""
    target = np.zeros((size, size), np.uint8)
    target[size // 4 : size // 2, size // 4 : size // 2] = 1
    return Example(np.full((size, size, channels), 0.5, np.float32), target, 0, 0)


def cells_of(picture: np.ndarray, side: int, columns: int) -> list[np.ndarray]:
    pitch = side + 6
    rows = [picture[6 + pitch * row :][:side] for row in range(picture.shape[0] // pitch)]
    return [row[:, 6 + pitch * column :][:, :side] for row in rows for column in range(columns)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("patch", [16, 48])
def test_the_patch_and_its_variations_lie_in_rows(channels: int, patch: int) -> None:
    picture = augmentation_picture([cell(channels)], FULL, patch, copies=5)
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * (patch + 6) + 6, 3 * (patch + 6) + 6, 3)
    np.testing.assert_array_equal(picture, augmentation_picture([cell(channels)], FULL, patch, copies=5))
    assert not np.array_equal(picture, augmentation_picture([cell(channels)], FULL, patch, copies=5, seed=1))
    first, *others = cells_of(picture, patch, 3)
    assert len(others) == 5
    assert all(not np.array_equal(first, other) for other in others)


def test_without_variation_all_are_alike() -> None:
    first, *others = cells_of(augmentation_picture([cell()], NONE, 48), 48, 3)
    assert len(others) == 8
    assert all(np.array_equal(first, other) for other in others)


def test_labels_are_tinted_and_outlined_in_their_colour() -> None:
    picture = augmentation_picture([cell()], NONE, 64, colors={1: (255, 0, 0)})
    first = cells_of(picture, 64, 3)[0]
    assert tuple(first[16, 20]) == (255, 0, 0)  # the outline
    red, green, blue = first[24, 24].tolist()
    assert red > 127 > green == blue
    assert tuple(first[50, 50]) == (127, 127, 127)  # background is not tinted where all is labelled
    assert (picture[:6, :64] == 255).all()  # the frame of the first


def test_painted_background_is_tinted_where_the_rest_is_not_painted() -> None:
    target = np.full((64, 64), IGNORE, np.uint8)
    target[10:14, 5:60], target[30:34, 5:60] = 0, 1
    strokes = Example(np.full((64, 64, 1), 0.5, np.float32), target, 0, 0)
    first = cells_of(augmentation_picture([strokes], NONE, 64), 64, 3)[0]
    assert tuple(first[50, 50]) == (127, 127, 127)
    assert len({tuple(first[y, 30].tolist()) for y in (11, 31, 50)}) == 3


def test_what_lies_beyond_the_image_is_dimmed() -> None:
    first = cells_of(augmentation_picture([cell(size=32)], NONE, 48), 48, 3)[0]
    assert np.count_nonzero((first == int(127.5 * 0.45)).all(axis=-1)) == 48 * 48 - 32 * 32


def test_large_patches_are_shown_smaller() -> None:
    picture = augmentation_picture([cell(size=600)], FULL, 512, copies=1, columns=2)
    assert picture.shape == (256 + 12, 2 * 262 + 6, 3)


def test_nothing_painted_is_said() -> None:
    empty = Example(np.zeros((20, 20, 1), np.float32), np.full((20, 20), IGNORE, np.uint8), 0, 0)
    for examples in ([], [empty]):
        with pytest.raises(DataError, match="No pixel is painted in what is to be trained on"):
            augmentation_picture(examples, FULL, 32)


def test_a_real_image_in_colour_keeps_its_colours(real_data: Path) -> None:
    from skimage.io import imread

    image = imread(next(iter(sorted((real_data / "dsb2018_color_rgba" / "images").glob("*.png")))))
    pixels = image[..., :3].astype(np.float32) / 255
    example = Example(pixels, np.zeros(pixels.shape[:2], np.uint8), 0, 0)
    first = cells_of(augmentation_picture([example], NONE, 128), 128, 3)[0]
    colors = {tuple(color) for color in first.reshape(-1, 3).tolist()}
    assert colors <= {tuple(color) for color in (255 * pixels).astype(np.uint8).reshape(-1, 3).tolist()}
