"""The one door: any path gives an image or one sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet.errors import ConfigError, DataError, FileError
from napari_unet.files.image import Image, count_series, image_name, open_image, open_source
from napari_unet.files.reading import length_in, unit_name
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource


@pytest.mark.parametrize("function", [open_image, count_series])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no such file or folder"),
        (b"", r"is empty \(0 bytes\)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:3a95\nsize 15792153\n",
            "is a Git LFS pointer, a short text that stands for the image of 15792153 bytes; .* 'git lfs pull'",
        ),
    ],
)
def test_what_is_no_image_is_said_in_one_sentence(
    tmp_path: Path, content: bytes | None, sentence: str, function: object
) -> None:
    path = tmp_path / "a.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=rf"a\.tif: {sentence}") as caught:
        function(path)  # type: ignore[operator]
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    "content", [b"hello", b"II*\0", b"PK\x03\x04 no zip", b"\x89PNG\r\n\x1a\n", bytes(99)]
)
def test_garbage_is_a_file_error_with_a_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FileError, match=r"copy it again|damaged"):
        open_image(tmp_path / "a.tif")


def test_an_impossible_name_is_a_file_error() -> None:
    with pytest.raises(FileError):
        open_image("a\0b.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(FileError, match="is neither a file nor a folder"):
        open_image(tmp_path / "a.tif")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0")
    path.chmod(0)
    with pytest.raises(FileError, match="Permission denied"):
        open_image(path)


@pytest.mark.parametrize("folder", ["ü ñ 漢", "a b", "x" * 200])
def test_any_path_works(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / ("n" * 180 + ".ome.tif")
    path.parent.mkdir()
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    write_tiff(path, array, "YX")
    assert np.array_equal(open_image(str(path)).array, array)


def test_a_source_names_series_level_and_axes(tmp_path: Path) -> None:
    array = np.zeros((3, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    assert open_source(ArraySource(path=str(tmp_path / "a.tif"), axes="CYX")).axes == "CYX"
    with pytest.raises(FileError, match="has 1 image, so number 4"):
        open_source(ArraySource(path=str(tmp_path / "a.tif"), series=4))


def test_a_pixel_size_that_is_given_counts_instead_of_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_tiff(path, np.zeros((8, 9), np.uint8), "YX", pixel_size={"Y": 2.0, "X": 2.0}, unit="millimeter")
    as_is = open_source(ArraySource(path=str(path)))
    given = open_source(ArraySource(path=str(path), pixel_size={"Y": 0.5, "X": 0.25}, unit="µm"))
    assert (as_is.pixel_size, as_is.unit) == ({"Y": 2.0, "X": 2.0}, "millimeter")
    assert (given.pixel_size, given.unit) == ({"Y": 0.5, "X": 0.25}, "micrometer")
    with pytest.raises(ConfigError, match=r"pixel_size\.Y"):
        ArraySource(path=str(path), pixel_size={"Y": 0.0})


def test_an_image_is_a_stack_for_what_computes() -> None:
    image = Image(np.zeros((2, 3, 8, 9)), "ZCYX", "cells")
    assert image.stack.shape == (2, 8, 9, 3)
    assert image.levels == (image.array,)
    with pytest.raises(DataError, match="complex"):
        _ = Image(np.zeros((8, 9), complex), "YX", "cells").stack


def test_the_summary_is_plain_values() -> None:
    image = Image(np.zeros((8, 9), np.uint8), "YX", "cells", {"Y": 0.5}, "micrometer")
    assert image.summary() == {
        "name": "cells",
        "axes": "YX",
        "shape": [8, 9],
        "type": "uint8",
        "pixel_size": {"Y": 0.5},
        "unit": "micrometer",
        "channels": [],
        "pyramid_levels": 1,
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/cells.ome.tif", "cells"), ("cells.v2.png", "cells.v2"), ("b/x.zarr/", "x"), (".ome.tif", ".ome")],
)
def test_an_image_is_named_after_its_file(path: str, name: str) -> None:
    assert image_name(path) == name


@pytest.mark.parametrize(
    "text", ["µm", "μm", "um", "micron", "microns", "Micrometer", "\\u00B5m", " micrometre "]
)
def test_all_spellings_of_a_micrometre_are_one(text: str) -> None:
    assert unit_name(text) == "micrometer"


@pytest.mark.parametrize("text", ["", "pixel", "pixels", "furlong", None, 3, "seconds"])
def test_what_is_no_length_is_a_pixel(text: object) -> None:
    assert unit_name(text) == "pixel"


def test_lengths_convert() -> None:
    assert length_in("micrometer", 2.0, "millimeter") == pytest.approx(2000.0)
    assert length_in("pixel", 2.0, "millimeter") == 2.0


def test_the_pointer_of_the_corpus_is_recognised(real_data: Path) -> None:
    with pytest.raises(FileError, match="git lfs pull"):
        open_image(real_data / "readers" / "lfs_pointer" / "s_1_t_1_c_10_z_1.ome.tiff")
