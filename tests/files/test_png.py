"""PNG and other pictures: pixels as they are, alpha left out where it says nothing."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest

from napari_unet.errors import FileError
from napari_unet.files.image import open_image
from napari_unet.files.png import open_picture


def noise(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def saved(path: Path, array: np.ndarray) -> Path:
    path.write_bytes(imagecodecs.png_encode(array))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("shape", "axes", "kept"), [((8, 9), "YX", 1), ((8, 9, 3), "YXS", 3), ((8, 9, 4), "YXS", 4)]
)
def test_pixels_keep_their_bits(
    tmp_path: Path, shape: tuple[int, ...], axes: str, kept: int, dtype: str
) -> None:
    array = noise(shape, dtype)
    image = open_image(saved(tmp_path / "a.png", array))
    assert (image.axes, image.array.dtype) == (axes, np.dtype(dtype))
    assert np.array_equal(image.array, array)


@pytest.mark.parametrize("value", [0, 255])
def test_the_last_column_of_a_narrow_picture_is_no_alpha(tmp_path: Path, value: int) -> None:
    array = noise((8, 4))
    array[:, 3] = value
    assert np.array_equal(open_image(saved(tmp_path / "a.png", array)).array, array)


@pytest.mark.parametrize("value", [0, 255])
def test_an_alpha_channel_that_is_the_same_everywhere_is_left_out(tmp_path: Path, value: int) -> None:
    array = noise((8, 9, 4))
    array[..., 3] = value
    assert np.array_equal(open_image(saved(tmp_path / "a.png", array)).array, array[..., :3])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_alpha_channel_of_grey_is_left_out(tmp_path: Path, dtype: str) -> None:
    array = noise((8, 9, 2), dtype)
    image = open_image(saved(tmp_path / "a.png", array))
    assert image.axes == "YX"
    assert np.array_equal(image.array, array[..., 0])


@pytest.mark.parametrize("ending", ["png", "gif", "bmp"])
def test_a_palette_keeps_its_indices(tmp_path: Path, ending: str) -> None:
    indices = noise((8, 9)) % 4
    picture = PIL.Image.fromarray(indices)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    picture.save(tmp_path / f"a.{ending}")
    assert np.array_equal(open_image(tmp_path / f"a.{ending}").array, indices)


def test_one_bit_is_bool(tmp_path: Path) -> None:
    mask = noise((8, 9)) > 100
    PIL.Image.fromarray(mask).save(tmp_path / "a.png")
    assert np.array_equal(open_image(tmp_path / "a.png").array, mask)


def test_other_pictures_open(tmp_path: Path) -> None:
    PIL.Image.fromarray(noise((8, 9, 3))).save(tmp_path / "a.bmp")
    assert np.array_equal(open_image(tmp_path / "a.bmp").array, noise((8, 9, 3)))
    PIL.Image.fromarray(noise((8, 9, 3))).convert("CMYK").save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").array.shape == (8, 9, 3)


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    assert open_image(saved(tmp_path / "a.tif", noise((8, 9)))).array.shape == (8, 9)


def test_a_picture_has_one_image_and_no_pyramid(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise((8, 9)))
    with pytest.raises(FileError, match="has 1 image, so number 1"):
        open_picture(path, series=1)
    with pytest.raises(FileError, match="has 1 pyramid level, so number 2"):
        open_picture(path, level=2)


def test_a_dimension_bomb_is_refused(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**30, 2**30, 16, 6, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(content + bytes(100))
    with pytest.raises(
        FileError, match=r"promises 9,223,372,036,854,775,808 bytes of pixels but has only 133"
    ):
        open_image(tmp_path / "a.png")


def test_mutated_and_truncated_pictures_open_or_raise_file_error(tmp_path: Path) -> None:
    rng = random.Random(0)
    originals = [imagecodecs.png_encode(noise(shape)) for shape in ((40, 50), (40, 50, 3), (40, 50, 2))]
    palette = PIL.Image.fromarray(noise((40, 50)) % 4)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "p.png")
    originals.append((tmp_path / "p.png").read_bytes())
    path, refused = tmp_path / "m.png", 0
    for _ in range(200):
        content = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 4, 16))):
            content[rng.randrange(min(len(content), rng.choice((40, 10**6))))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice((len(content), rng.randrange(len(content))))])
        try:
            assert open_image(path).array.ndim in (2, 3)
        except FileError:
            refused += 1
    assert refused > 100


def test_real_pictures_open(real_data: Path) -> None:
    colour = sorted((real_data / "dsb2018_color_rgba" / "images").glob("*.png"))
    assert {open_image(path).array.shape[2] for path in colour} == {3}
    assert open_image(real_data / "isbi2012_em" / "image" / "00.png").array.shape == (512, 512)
