"""TIFF in and out: what is promised must be there, and what goes out comes back."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import FileError
from napari_unet.files.image import open_image
from napari_unet.files.lazy import FileArray
from napari_unet.files.reading import HARMLESS_BYTES, MOST_EXPANSION
from napari_unet.files.tiff import count_tiff_series, open_tiff, write_tiff

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def numbers(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


def saved(path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


# Writing


@settings(max_examples=40, deadline=None)
@given(
    axes=st.permutations("TZCYX").flatmap(lambda p: st.integers(0, 3).map(lambda n: "".join(p)[n:])),
    dtype=st.sampled_from(["uint8", "int8", "uint16", ">u2", "int32", "float32", ">f8", "bool", "float16"]),
)
def test_any_axis_order_and_type_comes_back(
    tmp_path_factory: pytest.TempPathFactory, axes: str, dtype: str
) -> None:
    axes = axes if {"Y", "X"} <= set(axes) else "YX"
    array = numbers(tuple(range(2, 2 + len(axes))), dtype)
    path = tmp_path_factory.mktemp("t") / "a.ome.tif"
    write_tiff(path, array, axes)
    image = open_tiff(path)
    lead = "".join(letter for letter in axes if letter not in "YX")
    assert image.axes == lead + "YX"
    expected = array.transpose([axes.index(letter) for letter in image.axes])
    assert np.array_equal(image.array, expected)


@pytest.mark.parametrize(
    ("axes", "shape"), [("YXS", (6, 7, 3)), ("ZYXS", (2, 6, 7, 4)), ("SYX", (3, 6, 7)), ("YSX", (6, 3, 7))]
)
def test_colour_is_written_as_samples(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    array = numbers(shape, "uint8")
    write_tiff(tmp_path / "c.ome.tif", array, axes)
    image = open_tiff(tmp_path / "c.ome.tif")
    assert image.axes == ("ZYXS" if "Z" in axes else "YXS")
    assert np.array_equal(image.array, array.transpose([axes.index(letter) for letter in image.axes]))


def test_two_samples_are_written_as_channels(tmp_path: Path) -> None:
    write_tiff(tmp_path / "c.ome.tif", numbers((6, 7, 2)), "YXS")
    assert open_tiff(tmp_path / "c.ome.tif").axes == "CYX"


def test_size_unit_channels_and_name_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ü ñ 漢.ome.tif"
    write_tiff(
        path,
        numbers((3, 2, 6, 7)),
        "ZCYX",
        pixel_size={"Z": 2.0, "Y": 0.5, "X": 0.25},
        unit="micrometer",
        channel_names=("DAPI", "Lamin β"),
        name="cells",
    )
    image = open_tiff(path)
    assert image.pixel_size == {"Z": 2.0, "Y": 0.5, "X": 0.25}
    assert image.unit == "micrometer"
    assert image.channel_names == ("DAPI", "Lamin β")
    with tifffile.TiffFile(path) as tif:
        assert 'PhysicalSizeXUnit="µm"' in (tif.ome_metadata or "")


@pytest.mark.parametrize(
    ("values", "dtype", "stored"),
    [
        ([0, 255], "int64", "uint8"),
        ([0, 256], "uint64", "uint16"),
        ([0, 2**32 - 1], "uint64", "uint32"),
        ([-1, 200], "int64", "int16"),
        ([-(2**31), 5], "int64", "int32"),
    ],
)
def test_64_bit_labels_take_the_smallest_type_that_holds_them(
    tmp_path: Path, values: list[int], dtype: str, stored: str
) -> None:
    array = np.array([values], dtype)
    write_tiff(tmp_path / "l.ome.tif", array, "YX")
    image = open_tiff(tmp_path / "l.ome.tif")
    assert image.array.dtype == stored
    assert np.array_equal(image.array, array)


def test_labels_beyond_32_bits_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=r"the values 0 to 1099511627776 do not fit .* Write a \.zarr instead"
    ):
        write_tiff(tmp_path / "l.ome.tif", np.array([[0, 2**40]]), "YX")
    assert list(tmp_path.iterdir()) == []


def test_an_array_without_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="has no pixels"):
        write_tiff(tmp_path / "a.ome.tif", np.zeros((0, 5)), "YX")


class Recorder:
    """An array-like that notes the largest piece that was asked for."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype, self._array, self.largest = array.shape, array.dtype, array, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self._array[key]
        self.largest = max(self.largest, part.size)
        return part


def test_only_one_plane_is_read_at_a_time(tmp_path: Path) -> None:
    source = Recorder(numbers((5, 4, 16, 17), "int64"))
    write_tiff(tmp_path / "a.ome.tif", source, "TZYX")
    assert source.largest == 16 * 17
    assert np.array_equal(open_tiff(tmp_path / "a.ome.tif").array, source._array)


@pytest.mark.parametrize(
    ("axes", "shape", "dtype"),
    [
        ("YX", (50, 70), "uint16"),
        ("YX", (48, 64), "int64"),
        ("ZCYX", (2, 3, 33, 47), "float32"),
        ("XTY", (70, 2, 50), ">u2"),
        ("ZYXS", (2, 40, 50, 3), "uint8"),
    ],
)
@pytest.mark.parametrize("lazy_above", [0, 2**30])
def test_of_large_planes_one_row_of_tiles_is_read_at_a_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    axes: str,
    shape: tuple[int, ...],
    dtype: str,
    lazy_above: int,
) -> None:
    monkeypatch.setattr("napari_unet.files.tiff._PLANE_BYTES", 1000)
    monkeypatch.setattr("napari_unet.files.tiff._TILE", 16)
    source = Recorder(numbers(shape, dtype))
    write_tiff(tmp_path / "a.ome.tif", source, axes)
    width = shape[axes.index("X")] * (3 if "S" in axes else 1)
    assert source.largest == 16 * width
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.pages[0].tile == (16, 16)
    image = open_tiff(tmp_path / "a.ome.tif", lazy_above=lazy_above)
    expected = source._array.transpose([axes.index(letter) for letter in image.axes])
    assert np.array_equal(np.asarray(image.array[...]), expected)


def test_a_source_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_tiff(path, numbers((4, 4)), "YX")

    class Failing(Recorder):
        def __getitem__(self, key: Any) -> np.ndarray:
            raise FileError("source.zarr", "chunk c/0 cannot be read.")

    with pytest.raises(FileError, match=r"source\.zarr"):
        write_tiff(path, Failing(numbers((4, 4))), "YX")
    assert np.array_equal(open_tiff(path).array, numbers((4, 4)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.tif"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX feature")
def test_a_full_disk_leaves_no_stump_and_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_tiff(path, numbers((4, 4)), "YX")
    child = textwrap.dedent(
        """
        import resource, sys
        import numpy as np
        from napari_unet.errors import FileError
        from napari_unet.files.tiff import write_tiff
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        noise = np.random.default_rng(0).integers(0, 255, (4, 512, 512), np.uint8)
        try:
            write_tiff(sys.argv[1], noise, "ZYX")
        except FileError as error:
            print(error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert str(path) in done.stdout
    assert "limit" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.tif"]
    assert np.array_equal(open_tiff(path).array, numbers((4, 4)))


# Reading


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 5}, {"tile": (16, 16)}])
def test_a_lazy_image_reads_the_same_pixels(tmp_path: Path, options: dict[str, Any]) -> None:
    array = numbers((3, 40, 50), ">u2")
    path = saved(tmp_path / "a.tif", array, photometric="minisblack", **options)
    image = open_tiff(path, lazy_above=0)
    assert isinstance(image.array, FileArray)
    assert image.axes == "ZYX"
    assert np.array_equal(image.array[...], array)
    assert np.array_equal(image.array[1, 3:30, 7:9], array[1, 3:30, 7:9])
    assert np.array_equal(image.stack.read(2, slice(0, 5), slice(40, 50))[..., 0], array[2, :5, 40:])
    assert np.array_equal(np.asarray(image.array), array)
    with pytest.raises(IndexError):
        image.array[3]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_lazy_image_is_indexed_like_numpy(data: st.DataObject) -> None:
    array = numbers((3, 4, 5, 2))
    lazy = FileArray(array, "a.tif", select=(slice(None), 1, slice(None), slice(0, 1)))
    plain = array[:, 1, :, :1]
    part = st.integers(-3, 2) | st.slices(3).filter(lambda s: s.step is None or s.step > 0)
    key = tuple(data.draw(st.lists(part, max_size=2)))
    key = data.draw(st.sampled_from([key, (..., *key[:1]), (*key[:1], ...)]))
    try:
        expected = plain[key]
    except IndexError:
        with pytest.raises(IndexError):
            lazy[key]
    else:
        assert np.array_equal(lazy[key], expected)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4, 20, 30), "ZYX"), ((3, 4, 20, 30), "TZYX"), ((2, 3, 4, 20, 30), "TZCYX"), ((1, 20, 30), "YX")],
)
def test_pages_without_a_name_are_slices(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    image = open_tiff(saved(tmp_path / "a.tif", numbers(shape), photometric="minisblack"))
    assert image.axes == axes
    assert image.array.shape == tuple(size for size in shape if size > 1)


def test_too_many_unnamed_axes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", numbers((2, 2, 2, 2, 8, 9)), photometric="minisblack")
    with pytest.raises(FileError, match="at most time, depth and channels can be read"):
        open_tiff(path)


def test_the_user_may_name_the_axes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", numbers((4, 20, 30)), photometric="minisblack")
    assert open_tiff(path, axes="CYX").axes == "CYX"
    with pytest.raises(FileError, match=r"the axes 'YX' do not fit its shape \(4, 20, 30\)"):
        open_tiff(path, axes="YX")


def test_imagej_hyperstacks_keep_axes_size_and_unit(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.tif",
        numbers((2, 3, 4, 20, 30)),
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "TZCYX", "spacing": 1.5, "unit": "um"},
    )
    image = open_tiff(path)
    assert image.axes == "TZCYX"
    assert image.pixel_size == pytest.approx({"Z": 1.5, "Y": 0.5, "X": 0.25})
    assert image.unit == "micrometer"


def test_print_resolution_is_no_pixel_size(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", numbers((20, 30)), resolution=(72, 72), resolutionunit="INCH")
    assert open_tiff(path).pixel_size == {}


def test_mixed_units_become_one(tmp_path: Path) -> None:
    sizes = {
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeZ": 300,
        "PhysicalSizeZUnit": "nm",
    }
    path = saved(tmp_path / "a.ome.tif", numbers((3, 8, 9)), metadata={"axes": "ZYX", **sizes}, ome=True)
    image = open_tiff(path)
    assert image.unit == "micrometer"
    assert image.pixel_size == pytest.approx({"X": 0.5, "Z": 0.3})


def test_each_series_has_its_own_notes(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(numbers((8, 9)), metadata={"axes": "YX", "PhysicalSizeX": 1.0})
        tif.write(
            numbers((2, 5, 6)),
            metadata={"axes": "CYX", "PhysicalSizeX": 2.0, "Channel": {"Name": ["a", "b"]}},
        )
    assert count_tiff_series(path) == 2
    second = open_tiff(path, series=1)
    assert (second.array.shape, second.pixel_size, second.channel_names) == (
        (2, 5, 6),
        {"X": 2.0},
        ("a", "b"),
    )
    with pytest.raises(FileError, match=r"has 2 images, so number 2 \(counted from 0\) cannot be opened"):
        open_tiff(path, series=2)


def test_a_pyramid_gives_all_levels_and_scales_the_pixel(tmp_path: Path) -> None:
    path, array = tmp_path / "a.ome.tif", numbers((64, 96), "uint8")
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(
            array,
            subifds=2,
            tile=(16, 16),
            metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
        for step in (2, 4):
            tif.write(array[::step, ::step], subfiletype=1, tile=(16, 16))
    image = open_tiff(path)
    assert [level.shape for level in image.levels] == [(64, 96), (32, 48), (16, 24)]
    assert np.array_equal(image.levels[2][...], array[::4, ::4])
    half = open_tiff(path, level=1)
    assert half.pixel_size == {"X": 1.0, "Y": 1.0}
    assert np.array_equal(half.array, array[::2, ::2])
    with pytest.raises(FileError, match="has 3 pyramid levels"):
        open_tiff(path, level=3)


@pytest.mark.parametrize(("alpha", "samples"), [(255, 3), (None, 4)])
def test_alpha_is_left_out_where_it_says_nothing(tmp_path: Path, alpha: int | None, samples: int) -> None:
    array = numbers((8, 9, 4), "uint8")
    if alpha is not None:
        array[..., 3] = alpha
    path = saved(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    assert open_tiff(path).array.shape == (8, 9, samples)


def test_alpha_of_grey_and_of_big_images_is_left_out(tmp_path: Path) -> None:
    grey = saved(
        tmp_path / "g.tif", numbers((8, 9, 2), "uint8"), photometric="minisblack", planarconfig="contig",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    image = open_tiff(grey)
    assert (image.axes, image.array.shape) == ("YX", (8, 9))
    assert np.array_equal(image.array, numbers((8, 9, 2), "uint8")[..., 0])
    colour = saved(tmp_path / "c.tif", numbers((8, 9, 4), "uint8"), photometric="rgb")
    assert open_tiff(colour, lazy_above=0).array.shape == (8, 9, 3)


def test_palette_images_keep_their_indices(tmp_path: Path) -> None:
    array = numbers((8, 9), "uint8") % 4
    colormap = np.random.default_rng(0).integers(0, 2**16, (3, 256), np.uint16)
    path = saved(tmp_path / "a.tif", array, photometric="palette", colormap=colormap)
    assert np.array_equal(open_tiff(path).array, array)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_pixels_pass_through(tmp_path: Path, dtype: str) -> None:
    array = numbers((8, 9)).astype(dtype) * 1j
    assert np.array_equal(open_tiff(saved(tmp_path / "a.tif", array)).array, array)


# Damage

_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strips": {"rowsperstrip": 7},
    "zlib": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"tile": (16, 16)},
    "lzw tiles": {"tile": (16, 16), "compression": "lzw"},
    "imagej": {"imagej": True},
    "ome": {"ome": True},
    "ome zlib": {"ome": True, "compression": "zlib"},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
}


@pytest.mark.parametrize("lazy_above", [0, 2**28])
@pytest.mark.parametrize("kept", [0.99, 0.6, 0.2, 0.01])
@pytest.mark.parametrize("kind", _KINDS)
def test_a_truncated_file_is_never_a_smaller_image(
    tmp_path: Path, kind: str, kept: float, lazy_above: int
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4, 40, 50), np.uint8)
    path = saved(
        tmp_path / "cut.tif", array, photometric="minisblack", metadata={"axes": "ZYX"}, **_KINDS[kind]
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(FileError, match=r"cut\.tif: "):
        open_image(path, lazy_above=lazy_above).array[...]


def test_missing_files_of_an_ome_series_are_named_as_such(tmp_path: Path) -> None:
    first = tmp_path / "a_0.ome.tif"
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYCZT" Type="uint16" SizeX="9" SizeY="8" SizeC="1" SizeZ="2" SizeT="1">'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="a_0.ome.tif">urn:uuid:0</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="a_1.ome.tif">urn:uuid:1</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(first, numbers((8, 9)), description=xml, metadata=None)
    with pytest.raises(FileError, match=r"promises 2 planes"):
        open_tiff(first)
    tifffile.imwrite(tmp_path / "a_1.ome.tif", numbers((8, 9)) + 1, description=xml, metadata=None)
    image = open_tiff(first)
    assert image.axes == "ZYX"
    assert np.array_equal(image.array, np.stack([numbers((8, 9)), numbers((8, 9)) + 1]))


def bomb(width: int, height: int) -> bytes:
    """Make a TIFF of a few bytes that announces a huge picture."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 100)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + bytes(200)


@pytest.mark.parametrize("lazy_above", [0, 2**60])
def test_a_dimension_bomb_is_refused_before_reading(tmp_path: Path, lazy_above: int) -> None:
    path = tmp_path / "bomb.tif"
    path.write_bytes(bomb(2**20, 2**20))
    with pytest.raises(FileError, match=r"promises 1,099,511,627,776 bytes of pixels but has only 322 bytes"):
        open_tiff(path, lazy_above=lazy_above)


def test_an_empty_mask_that_compresses_well_is_no_bomb(tmp_path: Path) -> None:
    mask = np.zeros((4096, 4096), np.uint16)
    path = saved(tmp_path / "mask.tif", mask, compression="zstd", rowsperstrip=4096)
    assert path.stat().st_size * MOST_EXPANSION < mask.nbytes <= HARMLESS_BYTES
    assert open_tiff(path).array.shape == mask.shape


def test_pages_that_run_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", numbers((3, 8, 9)), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        last, start = tif.pages[2], tif.pages[0].offset
        at = last.offset + 2 + 12 * len(last.tags)
    content = bytearray(path.read_bytes())
    content[at : at + 4] = struct.pack("<I", start)
    path.write_bytes(content)
    for read in (open_tiff, count_tiff_series):
        with pytest.raises(FileError, match="its pages run in a circle"):
            read(path)


def mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        # The header and the tags are where a changed byte does the most harm.
        end = min(len(changed), 600) if rng.random() < 0.6 else len(changed)
        changed[rng.randrange(end)] = rng.randrange(256)
    if rng.random() < 0.25:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def test_300_mutated_files_open_or_raise_file_error(tmp_path: Path) -> None:
    rng = random.Random(0)
    originals = []
    for kind, options in _KINDS.items():
        array = numbers((3, 40, 50))
        path = saved(tmp_path / "o.tif", array, photometric="minisblack", metadata={"axes": "ZYX"}, **options)
        originals.append((kind, path.read_bytes()))
    opened = refused = 0
    sentences = []
    for _ in range(300):
        kind, content = rng.choice(originals)
        path = tmp_path / "mutated.tif"
        path.write_bytes(mutated(content, rng))
        try:
            image = open_image(path, lazy_above=rng.choice((0, 2**28)))
            pixels = np.asarray(image.array[...])
            json.dumps(image.summary(), allow_nan=False)
        except FileError as error:
            refused += 1
            sentences.append(str(error))
        else:
            assert pixels.nbytes <= max(HARMLESS_BYTES, MOST_EXPANSION * path.stat().st_size), kind
            opened += 1
    assert all(str(path) in sentence and "\n" not in sentence for sentence in sentences)
    assert opened > 30
    assert refused > 100


# Real files


def test_the_whole_corpus_opens_with_the_right_shape(real_data: Path) -> None:
    readers = real_data / "readers"
    if not (readers / "manifest.json").is_file():
        pytest.skip("the real data has no corpus of reader files")
    wrong = []
    for name, known in json.loads((readers / "manifest.json").read_text()).items():
        image = open_image(readers / name)
        lazy = open_image(readers / name, lazy_above=0)
        pixels = np.asarray(image.array)
        shape = [*known["read_shape"]]
        same_mean = known["mean"] is None or float(pixels.mean()) == pytest.approx(known["mean"], rel=1e-4)
        if [*pixels.shape] != shape or not same_mean or count_tiff_series(readers / name) != known["series"]:
            wrong.append(name)
        if "rgba" not in name and not np.array_equal(
            lazy.array[...], pixels, equal_nan=pixels.dtype.kind in "fc"
        ):
            wrong.append(f"{name} (lazy)")
    assert wrong == []


def test_calibrated_imagej_files_have_their_size(real_data: Path) -> None:
    folder = real_data / "readers" / "neubias"
    head = open_image(folder / "xyz_8bit_calibrated_anisotropic__mri_head.tif")
    assert (head.pixel_size, head.unit) == (pytest.approx({"X": 0.5, "Y": 0.5, "Z": 7.0}), "millimeter")
    nucleus = open_image(folder / "xy_8bit__nucleus_calibrated.tif")
    assert (nucleus.pixel_size, nucleus.unit) == (pytest.approx({"X": 0.13, "Y": 0.13}), "micrometer")
