"""zarr in and out: OME-Zarr, plain arrays, damage, and results that are their own journal."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import FileError
from napari_unet.files.image import count_series, open_image
from napari_unet.files.lazy import FileArray
from napari_unet.files.results import chunk_done, create_result, open_result, result_attributes
from napari_unet.files.zarr import open_zarr


def numbers(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


def array_at(path: Path, array: np.ndarray, **options: Any) -> Path:
    options = {"chunks": tuple(min(size, 8) for size in array.shape), **options}
    zarr.create_array(path, shape=array.shape, dtype=array.dtype, **options)[...] = array
    return path


# Results


def test_a_new_result_is_an_ome_zarr_with_everything_in_it(tmp_path: Path) -> None:
    path = tmp_path / "ü ñ 漢.zarr"
    array = create_result(
        path,
        (2, 3, 20, 30),
        (1, 1, 16, 16),
        "uint8",
        "CZYX",
        pixel_size={"Z": 2.0, "Y": 0.5, "X": 0.25},
        unit="micrometer",
        attributes={"model": "sha", "n": 3},
        channel_names=("background", "cell"),
        colors={1: "#ff8000"},
    )
    array[:] = 7
    ome = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert ome["multiscales"][0]["axes"][1] == {"name": "z", "type": "space", "unit": "micrometer"}
    assert ome["omero"]["channels"][1]["color"] == "ff8000"
    assert result_attributes(path) == {"model": "sha", "n": 3}
    image = open_image(path)
    assert (image.axes, image.unit, image.name) == ("CZYX", "micrometer", "ü ñ 漢")
    assert image.pixel_size == {"Z": 2.0, "Y": 0.5, "X": 0.25}
    assert image.channel_names == ("background", "cell")
    assert np.all(np.asarray(image.array) == 7)


@pytest.mark.parametrize("unit", ["micrometer", "pixel"])
def test_a_step_that_nobody_measured_is_not_claimed(tmp_path: Path, unit: str) -> None:
    size = {"Y": 1.0, "X": 1.0} if unit == "micrometer" else {}
    create_result(tmp_path / "r.zarr", (3, 20, 30), (1, 20, 30), "uint8", "ZYX", pixel_size=size, unit=unit)
    image = open_image(tmp_path / "r.zarr")
    assert (image.pixel_size, image.unit) == (size, unit)
    ome = json.loads((tmp_path / "r.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["multiscales"][0]["axes"][0] == {"name": "z", "type": "space"}


def test_colours_of_labels_are_stored(tmp_path: Path) -> None:
    create_result(tmp_path / "r.zarr", (8, 8), (8, 8), "uint8", "YX", colors={2: "#0102ff"})
    ome = json.loads((tmp_path / "r.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["image-label"]["colors"] == [{"label-value": 2, "rgba": [1, 2, 255, 255]}]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_chunk_is_done_exactly_when_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ndim = data.draw(st.integers(2, 3))
    shape = tuple(data.draw(st.integers(1, 9)) for _ in range(ndim))
    chunks = tuple(data.draw(st.integers(1, 5)) for _ in range(ndim))
    path = tmp_path_factory.mktemp("z") / "r.zarr"
    array = create_result(path, shape, chunks, "uint16", "ZYX"[-ndim:])
    grid = [
        *itertools.product(*(range(-(-size // min(c, size))) for size, c in zip(shape, chunks, strict=True)))
    ]
    assert not any(chunk_done(array, index) for index in grid)
    written = data.draw(st.sets(st.sampled_from(grid)))
    for index in written:
        # All zeros: by default zarr would not store such a chunk.
        array[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, array.chunks, strict=True))] = 0
    again = open_result(path)
    assert {index for index in grid if chunk_done(again, index)} == written


def test_a_result_can_be_read_by_another_process_while_it_fills(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    array = create_result(path, (16, 16), (8, 8), "uint8", "YX")
    array[:8, :8] = 5
    script = "import sys, zarr; a = zarr.open(sys.argv[1], mode='r')['0']; print(int(a[:].sum()))"
    read = [sys.executable, "-c", script, str(path)]
    assert int(subprocess.check_output(read, text=True)) == 5 * 64
    array[8:, 8:] = 1
    assert int(subprocess.check_output(read, text=True)) == 6 * 64


def test_what_a_killed_run_left_is_removed_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    array = create_result(path, (16, 16), (8, 8), "uint8", "YX")
    array[:8, :8] = 5
    leftover = path / "0" / "c" / "0" / "1.0123456789abcdef.partial"
    leftover.write_bytes(b"half")
    again = open_result(path)
    assert not leftover.exists()
    assert chunk_done(again, (0, 0))
    assert not chunk_done(again, (0, 1))


def test_only_own_results_are_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    create_result(path, (8, 8), (8, 8), "uint8", "YX", attributes={"run": 1})[:] = 1
    with pytest.raises(FileError, match="exists already; choose another name, or allow it to be overwritten"):
        create_result(path, (8, 8), (8, 8), "uint8", "YX")
    array = create_result(path, (4, 4), (4, 4), "uint8", "YX", attributes={"run": 2}, overwrite=True)
    assert result_attributes(path) == {"run": 2}
    assert not chunk_done(array, (0, 0))
    foreign = array_at(tmp_path / "raw.zarr", numbers((8, 8)))
    (tmp_path / "notes.zarr").mkdir()
    for other in (foreign, tmp_path / "notes.zarr"):
        with pytest.raises(FileError, match="no result of this program"):
            create_result(other, (4, 4), (4, 4), "uint8", "YX", overwrite=True)
    assert np.array_equal(open_zarr(foreign).array, numbers((8, 8)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.zarr", "r.zarr", "raw.zarr"]


def test_a_missing_folder_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        create_result(tmp_path / "no" / "r.zarr", (4, 4), (4, 4), "uint8", "YX")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", [open_result, result_attributes])
def test_only_own_results_are_gone_on_with(tmp_path: Path, function: Any) -> None:
    foreign = array_at(tmp_path / "raw.zarr", numbers((8, 8)))
    with pytest.raises(FileError, match="no result of this program"):
        function(foreign)
    with pytest.raises(FileError, match="there is no such folder"):
        function(tmp_path / "none.zarr")


# Reading


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("lazy_above", [0, 2**28])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float16", "bool", "complex64"])
def test_plain_arrays_open(tmp_path: Path, zarr_format: Any, lazy_above: int, dtype: str) -> None:
    array = numbers((3, 20, 30), dtype)
    path = array_at(tmp_path / "a.zarr", array, zarr_format=zarr_format)
    image = open_zarr(path, lazy_above=lazy_above)
    assert isinstance(image.array, FileArray) == (lazy_above == 0)
    assert image.axes == "ZYX"
    assert np.dtype(image.array.dtype).newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(image.array[...], array)
    assert np.array_equal(image.array[1, 5:9], array[1, 5:9])


def test_dimension_names_are_the_axes(tmp_path: Path) -> None:
    named = array_at(tmp_path / "a.zarr", numbers((2, 8, 9)), dimension_names=("c", "y", "x"))
    assert open_zarr(named).axes == "CYX"
    old = array_at(tmp_path / "b.zarr", numbers((2, 8, 9)), zarr_format=2)
    zarr.open_array(old).attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"]
    assert open_zarr(old).axes == "TYX"
    assert open_zarr(old, axes="ZYX").axes == "ZYX"


def test_a_zipped_zarr_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr.zip"
    with zarr.storage.ZipStore(path, mode="w") as store:
        zarr.create_array(store, shape=(8, 9), dtype="uint16")[:] = numbers((8, 9))
    assert np.array_equal(open_image(path).array, numbers((8, 9)))


def pyramid(
    path: Path, ome: dict[str, Any], shape: tuple[int, ...], levels: int = 1, version: int = 3
) -> Path:
    attributes = {"ome": ome} if version == 3 else ome
    group = zarr.create_group(path, zarr_format=version, attributes=attributes)
    for i in range(levels):
        small = numbers(shape)[..., :: 2**i, :: 2**i]
        group.create_array(str(i), shape=small.shape, dtype=small.dtype)[...] = small
    return path


def entry(axes: list[Any] | None, scales: list[list[float]], **more: Any) -> dict[str, Any]:
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for i, scale in enumerate(scales)
    ]
    return {"datasets": datasets, **({"axes": axes} if axes else {}), **more}


def test_a_pyramid_opens_at_any_level(tmp_path: Path) -> None:
    axes = [{"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "nanometer"}]
    ome = {"version": "0.5", "multiscales": [entry(axes, [[0.5, 500.0], [1.0, 1000.0]])]}
    path = pyramid(tmp_path / "a.zarr", ome, (16, 24), levels=2)
    image = open_zarr(path)
    assert [level.shape for level in image.levels] == [(16, 24), (8, 12)]
    assert image.unit == "nanometer"
    assert image.pixel_size == pytest.approx({"Y": 500.0, "X": 500.0})
    half = open_zarr(path, level=1)
    assert half.pixel_size == pytest.approx({"Y": 1000.0, "X": 1000.0})
    assert np.array_equal(half.array, numbers((16, 24))[::2, ::2])
    with pytest.raises(FileError, match=r"has 2 pyramid levels, so number 2"):
        open_zarr(path, level=2)


@pytest.mark.parametrize("axes", [None, ["c", "y", "x"], [{"name": "c", "type": "channel"}, "y", "x"]])
def test_old_versions_name_axes_in_their_own_ways(tmp_path: Path, axes: list[Any] | None) -> None:
    shape = (2, 8, 9) if axes else (1, 2, 1, 8, 9)
    path = pyramid(tmp_path / "a.zarr", {"multiscales": [{"datasets": [{"path": "0"}]}]}, shape, version=2)
    if axes:
        multiscales = [{"datasets": [{"path": "0"}], "axes": axes}]
        zarr.open_group(path).attrs["multiscales"] = multiscales
    assert open_zarr(path).axes == ("CYX" if axes else "TCZYX")


def test_a_collection_holds_several_images(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_group(path, zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for i, shape in enumerate([(8, 9), (6, 7)]):
        ome = {"multiscales": [entry(["y", "x"], [[1.0, 1.0]])]}
        pyramid(path / str(i), ome, shape, version=2)
    assert count_series(path) == 2
    second = open_image(path, series=1)
    assert (second.array.shape, second.name) == ((6, 7), "a-1")
    zarr.create_group(path / "OME", zarr_format=2, attributes={"series": ["1"]})
    assert count_series(path) == 1
    assert open_image(path).array.shape == (6, 7)


# Damage


def test_a_group_says_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.create_group(path)
    group.create_array("raw", shape=(5, 8, 9), dtype="uint8")
    group.create_group("more")
    with pytest.raises(FileError, match=r"more \(group\), raw \(array \(5, 8, 9\) of uint8\)"):
        open_image(path)


def test_a_missing_chunk_is_the_fill_value(tmp_path: Path) -> None:
    path = array_at(tmp_path / "a.zarr", numbers((16, 16)) + 1, fill_value=0)
    assert open_image(path).missing == (0, 4)
    (path / "c" / "0" / "1").unlink()
    assert open_image(path).missing == (1, 4)
    pixels = np.asarray(open_image(path).array)
    assert np.all(pixels[:8, 8:] == 0)
    assert np.array_equal(pixels[8:], numbers((16, 16))[8:] + 1)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_chunk_is_named(tmp_path: Path, zarr_format: Any) -> None:
    path = array_at(tmp_path / "a.zarr", numbers((16, 16)), zarr_format=zarr_format)
    key = "1.0" if zarr_format == 2 else "c/1/0"
    chunk = path / key
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(FileError, match=rf"a\.zarr: chunk {key} cannot be read"):
        open_image(path)
    lazy = open_image(path, lazy_above=0).array
    assert np.array_equal(lazy[:8], numbers((16, 16))[:8])
    with pytest.raises(FileError, match=rf"chunk {key} cannot be read"):
        lazy[4:12, 2]


@pytest.mark.parametrize("shape", [[10**6, 10**6], [10**12, 10**12], [2**62, 2**62]])
def test_a_dimension_bomb_is_refused(tmp_path: Path, shape: list[int]) -> None:
    path = array_at(tmp_path / "a.zarr", numbers((8, 8)))
    meta = json.loads((path / "zarr.json").read_text())
    meta["shape"] = shape
    meta["chunk_grid"]["configuration"]["chunk_shape"] = shape
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(FileError, match=r"promises .* bytes of pixels but has only|cannot be read as a zarr"):
        open_image(path)
    meta["chunk_grid"]["configuration"]["chunk_shape"] = [8, 8]
    (path / "c" / "0" / "0").unlink()
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(
        FileError, match=r"promises .* bytes of pixels but has only 0|cannot be read as a zarr"
    ):
        open_image(path)


def test_sparse_labels_on_a_huge_stack_are_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    labels = zarr.create_array(path, shape=(1000, 30_000, 30_000), chunks=(1, 512, 512), dtype="uint8")
    labels[3, :512, :512] = 1
    image = open_image(path)
    assert isinstance(image.array, FileArray)
    assert image.array[3, :600, :600].sum() == 512 * 512


def test_many_tiny_chunks_are_not_all_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=(16_000, 16_000), chunks=(1, 1), dtype="uint8")[0, :2] = 1
    assert isinstance(open_image(path).array, FileArray)
    assert open_image(path).missing == (0, 0)  # nor counted


@pytest.mark.filterwarnings("ignore")
def test_pickled_chunks_are_never_opened(tmp_path: Path) -> None:
    path = array_at(tmp_path / "a.zarr", numbers((8, 8)), zarr_format=2)
    meta = json.loads((path / ".zarray").read_text())
    meta["filters"] = [{"id": "pickle", "protocol": 5}]
    (path / ".zarray").write_text(json.dumps(meta))
    with pytest.raises(FileError, match="pickle"):
        open_image(path)


@pytest.mark.parametrize("content", ["", "{}", "[]", "not json", '{"zarr_format": 9, "node_type": "array"}'])
def test_damaged_metadata_is_a_file_error(tmp_path: Path, content: str) -> None:
    path = array_at(tmp_path / "a.zarr", numbers((8, 8)))
    (path / "zarr.json").write_text(content)
    with pytest.raises(FileError, match=r"a\.zarr: "):
        open_image(path)


@pytest.mark.parametrize(
    "multiscales",
    [
        [],
        [{}],
        [{"datasets": []}],
        [{"datasets": [{"path": "9"}]}],
        [{"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}]}],
        [entry(["y", "y"], [[1, 1]])],
        [entry(["q", "x"], [[1, 1]])],
        "none",
        7,
    ],
)
def test_damaged_ome_metadata_is_a_file_error(tmp_path: Path, multiscales: Any) -> None:
    path = pyramid(tmp_path / "a.zarr", {"version": "0.5", "multiscales": multiscales}, (8, 9))
    with pytest.raises(FileError, match=r"a\.zarr: "):
        open_image(path)


def test_text_and_lists_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="an image has at least rows and columns"):
        open_image(array_at(tmp_path / "a.zarr", numbers((8,))))
    text = np.array([["a", "b"]], dtype="<U2")
    with pytest.raises(FileError, match=r"b\.zarr: "):
        open_image(array_at(tmp_path / "b.zarr", text, zarr_format=2))


def test_a_plain_folder_is_no_zarr(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder, but no zarr"):
        open_image(tmp_path)


# Real files


@pytest.mark.parametrize(
    ("name", "shape", "axes", "levels", "size"),
    [
        ("readers/ome_zarr/camera.ome.zarr", (1, 1, 1, 480, 640), "TCZYX", 3, {}),
        ("readers/ome_zarr/image-02.zarr", (200, 200), "YX", 1, {"Y": 1.0, "X": 1.0}),
        ("readers/ome_zarr/input9.zarr", (2, 100, 100), "ZYX", 5, {"Z": 1.0, "Y": 1.0, "X": 1.0}),
        (
            "omezarr_multichannel/cardio_B03_mip_L1.zarr",
            (3, 1, 1080, 1280),
            "CZYX",
            3,
            {"Z": 1.0, "Y": 0.65, "X": 0.65},
        ),
    ],
)
def test_real_ome_zarr_opens(
    real_data: Path, name: str, shape: tuple[int, ...], axes: str, levels: int, size: dict[str, float]
) -> None:
    image = open_image(real_data / name)
    assert (image.array.shape, image.axes, len(image.levels)) == (shape, axes, levels)
    assert image.pixel_size == pytest.approx(size)
    assert np.asarray(image.levels[-1][...]).max() > 0


def test_channels_of_a_real_ome_zarr_have_names(real_data: Path) -> None:
    image = open_image(real_data / "omezarr_multichannel" / "cardio_B03_mip_L1.zarr")
    assert image.channel_names == ("DAPI", "nanog", "Lamin B1")
    labels = open_image(real_data / "omezarr_multichannel" / "cardio_B03_mip_L1.zarr" / "labels" / "nuclei")
    assert labels.axes == "ZYX"
