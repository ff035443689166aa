"""TIFF: OME-TIFF, ImageJ and plain TIFF in, OME-TIFF out.

Axes that a file does not name (tifffile's ``Q`` and ``I``: a series of pages) are read as
slices: Z, then T. Palette images keep their indices, because label images are stored so.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import zarr
from tifffile import PHOTOMETRIC, TiffFile, TiffPageSeries, TiffWriter

from napari_unet.data.axes import ArrayLike, has_idle_alpha
from napari_unet.errors import FileError
from napari_unet.files.atomic import write_atomically
from napari_unet.files.lazy import FileArray
from napari_unet.files.reading import (
    LAZY_BYTES,
    Image,
    check_axes,
    check_series,
    parsing,
)
from napari_unet.files.tiffcheck import check_complete, check_pages
from napari_unet.files.tiffmeta import LABELS_NOTE, describe, physical_sizes

__all__ = ["LARGEST_WHOLE", "count_tiff_series", "open_tiff", "write_tiff"]

LARGEST_WHOLE = 2**32 - 1
"""The largest whole number that an OME-TIFF holds."""

_KIND = "a TIFF"
_PAGE_BYTES = 64 * 2**20
_PLANE_BYTES = 256 * 2**20
_TILE = 1024
_CLASSIC_BYTES = 2**32 - 2**25
_ALPHA = (1, 2)


def count_tiff_series(path: str | PathLike[str]) -> int:
    """Count the images of a TIFF.

    Raises
    ------
    FileError
        If the file cannot be read.
    """
    with parsing(path, _KIND):
        check_pages(path)
        file = _OpenFile(path)
        return len(file.tif.series)


def open_tiff(
    path: str | PathLike[str],
    *,
    series: int = 0,
    level: int = 0,
    axes: str | None = None,
    lazy_above: int = LAZY_BYTES,
    name: str = "image",
) -> Image:
    """Open one image of a TIFF.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    series : int
        Which of its images, from 0.
    level : int
        Which level of its pyramid; 0 is full resolution.
    axes : str, optional
        Letters of its axes, where the file is wrong.
    lazy_above : int
        Levels of more bytes than this are not read now, but when they are sliced; the file
        then stays open as long as the image lives.
    name : str
        Name of the image.

    Returns
    -------
    Image
        An alpha channel that is the same everywhere is left out, as is the alpha channel of a
        grey image and that of an image too big to look through.

    Raises
    ------
    FileError
        If the file is damaged, incomplete or promises more than it can hold.
    """
    with parsing(path, _KIND):
        check_pages(path)
        file = _OpenFile(path)
        check_series(path, "image", series, len(file.tif.series))
        chosen = file.tif.series[series]
        check_series(path, "pyramid level", level, len(chosen.levels))
        check_complete(path, file.tif, chosen, series)
        letters = _letters(path, chosen.axes, chosen.shape)
        levels = _levels(path, file, chosen, level, lazy_above)
        select = _selection(levels[0], letters, chosen)
        selected = tuple(_select(path, file, array, select) for array in levels)
        found = "".join(
            letter for letter, part in zip(letters, select, strict=True) if isinstance(part, slice)
        )
        factors = {
            letter: whole / size
            for letter, whole, size in zip(letters, chosen.levels[0].shape, levels[0].shape, strict=True)
            if size
        }
        notes = describe(
            file.tif, series, channels=selected[0].shape[found.index("C")] if "C" in found else 0
        )
    return Image(
        array=selected[0],
        axes=check_axes(path, axes or found, tuple(selected[0].shape)),
        name=name,
        pixel_size={letter: size * factors.get(letter, 1.0) for letter, size in notes.pixel_size.items()},
        unit=notes.unit,
        channel_names=notes.channel_names,
        labels=notes.labels,
        levels=selected,
    )


class _OpenFile:
    """An open TIFF, closed when the last array that reads from it is gone."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.tif = TiffFile(fspath(path))
        weakref.finalize(self, self.tif.close)


def _letters(path: str | PathLike[str], axes: str, shape: tuple[int, ...]) -> list[str]:
    """Name each axis by one of TZCYXS, or by a space where it has one entry and is dropped."""
    letters = ["C" if letter == "E" and "C" not in axes else letter for letter in axes]
    for i, size in enumerate(shape):
        both = letters[i] in "CS" and "C" in letters and "S" in letters
        if size == 1 and (letters[i] not in "TZCYXS" or both):
            letters[i] = " "
    unknown = [i for i, letter in enumerate(letters) if letter not in "TZCYXS "]
    free = [letter for letter in "ZTC" if letter not in letters and not (letter == "C" and "S" in letters)]
    if len(unknown) > len(free):
        raise FileError(
            path,
            f"has the axes {axes} with the shape {shape}; at most time, depth and channels can be read "
            "beside rows and columns, so save the part you need as a smaller stack.",
        )
    for i, letter in zip(unknown, sorted(free[: len(unknown)], key="TZC".index), strict=True):
        letters[i] = letter
    return letters


def _levels(
    path: str | PathLike[str], file: _OpenFile, chosen: TiffPageSeries, level: int, lazy_above: int
) -> list[ArrayLike]:
    """Return the asked level and the rest of the pyramid, which only viewers look at, so it is never read now."""
    rest = [
        i for i in range(level + 1, len(chosen.levels)) if len(chosen.levels[i].shape) == len(chosen.shape)
    ]
    return [_read(path, file, chosen, level, lazy_above), *(_read(path, file, chosen, i, 0) for i in rest)]


def _read(
    path: str | PathLike[str], file: _OpenFile, chosen: TiffPageSeries, level: int, lazy_above: int
) -> ArrayLike:
    """Read a level now, or wrap it to be read later."""
    one = chosen.levels[level]
    if one.nbytes <= lazy_above:
        pixels: npt.NDArray[Any] = chosen.asarray(level=level)
        return pixels.reshape(one.shape)
    page = one.keyframe
    # Many thin strips cost more to look up one by one than the whole page costs to decode.
    thin = not page.is_tiled and math.prod(page.chunked) > 1
    whole_pages = thin and (page.nbytes <= _PAGE_BYTES or len(page.dataoffsets) == 1)
    store = chosen.aszarr(level=level, chunkmode=2 if whole_pages else 0)
    lazy = zarr.open_array(store, mode="r")
    return FileArray(lazy, path, owner=file)


def _selection(array: ArrayLike, letters: list[str], chosen: TiffPageSeries) -> tuple[int | slice, ...]:
    """Say what of each axis is kept: nothing but the letters TZCYXS, and no idle alpha channel."""
    select: list[int | slice] = [0 if letter == " " else slice(None) for letter in letters]
    if "S" in letters:
        axis = letters.index("S")
        samples = array.shape[axis]
        page = chosen.keyframe
        colour = page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
        if samples == 2 and not colour and page.extrasamples[-1:] and page.extrasamples[-1] in _ALPHA:
            select[axis] = 0
        elif colour and has_idle_alpha(array, axis):
            select[axis] = slice(0, 3)
    return tuple(select)


def _select(
    path: str | PathLike[str], file: _OpenFile, array: ArrayLike, select: tuple[int | slice, ...]
) -> ArrayLike:
    if isinstance(array, np.ndarray):
        kept: npt.NDArray[Any] = array[select]
        return kept
    return FileArray(array, path, select=select, owner=file)


def write_tiff(
    path: str | PathLike[str],
    array: ArrayLike,
    axes: str,
    *,
    pixel_size: Mapping[str, float] | None = None,
    unit: str = "pixel",
    channel_names: Sequence[str] = (),
    name: str = "",
    labels: bool = False,
) -> None:
    """Write an image or labels as OME-TIFF, whole or not at all.

    One plane is in memory at a time; of planes above 256 MB, which are written as tiles, one row of tiles. OME-TIFF knows no 64-bit integers: they are written in the
    smallest type that holds them all. bool becomes uint8, float16 becomes float32.

    Parameters
    ----------
    path : str or os.PathLike
        The file, usually ``NAME.ome.tif``. It is replaced only when the new one is complete.
    array : array-like
        Pixels, of any kind that can be sliced (numpy, zarr, a lazy image).
    axes : str
        One letter of ``TZCYXS`` for each dimension, in any order.
    pixel_size : mapping of str to float, optional
        Size along ``"Z"``, ``"Y"`` and ``"X"``.
    unit : str
        Of `pixel_size`, as `Image.unit` has it.
    channel_names : sequence of str
        One for each channel.
    name : str
        Name of the image.
    labels : bool
        Whether the values are labels; the file says so, and `Image.labels` is True when it is opened.

    Raises
    ------
    FileError
        If the pixels don't fit OME-TIFF, the disk is full or the folder can't be written.
    """
    shape = tuple(int(size) for size in array.shape)
    axes = check_axes(path, axes, shape)
    if 0 in shape:
        raise FileError(path, f"was not written: an image of shape {shape} has no pixels.")
    if "S" in axes and shape[axes.index("S")] not in (3, 4):
        axes = axes.replace("S", "C")
        check_axes(path, axes, shape)
    planes = _Planes(array, axes)
    dtype = _stored_dtype(path, planes)
    metadata: dict[str, Any] = {"axes": planes.axes, **physical_sizes(pixel_size or {}, unit)}
    if name:
        metadata["Name"] = name
    if labels:
        metadata["Description"] = LABELS_NOTE
    if channel_names and "C" in axes:
        metadata["Channel"] = {"Name": list(channel_names)}

    def write(file: BinaryIO) -> None:
        total = math.prod(shape) * dtype.itemsize
        with TiffWriter(file, ome=True, bigtiff=total > _CLASSIC_BYTES) as tiff:
            tiff.write(
                (np.ascontiguousarray(part, dtype) for part in planes.parts()),
                shape=planes.shape,
                tile=(_TILE, _TILE) if planes.tiled else None,
                dtype=dtype,
                photometric="rgb" if "S" in axes else "minisblack",
                compression="zlib",
                metadata=metadata,
            )

    write_atomically(path, write)


class _Planes:
    """An array of any axis order as planes (Y, X) or (Y, X, S); the other axes stay in their order.

    Planes too large to be held whole are tiled.
    """

    def __init__(self, array: ArrayLike, axes: str) -> None:
        self._array = array
        self._axes = axes
        self._lead = "".join(letter for letter in axes if letter not in "YXS")
        plane = "YXS" if "S" in axes else "YX"
        left = [letter for letter in axes if letter in plane]
        self._order = [left.index(letter) for letter in plane]
        self.axes = self._lead + plane
        self.shape = tuple(int(array.shape[axes.index(letter)]) for letter in self.axes)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.tiled = math.prod(self.shape[len(self._lead) :]) * self.dtype.itemsize > _PLANE_BYTES

    def parts(self) -> Iterator[npt.NDArray[Any]]:
        """Yield what a TIFF is written of, in its order: planes, or their tiles row by row."""
        for band in self.bands():
            for left in range(0, band.shape[1], _TILE if self.tiled else band.shape[1]):
                yield band[:, left : left + _TILE] if self.tiled else band

    def bands(self) -> Iterator[npt.NDArray[Any]]:
        """Yield planes, or of tiled ones as many rows as a tile has at a time: each is read once."""
        height = self.shape[len(self._lead)]
        rows = _TILE if self.tiled else height
        for index in np.ndindex(self.shape[: len(self._lead)]):
            at: dict[str, int | slice] = dict(zip(self._lead, index, strict=True))
            for top in range(0, height, rows):
                at["Y"] = slice(top, min(top + rows, height))
                key = tuple(at.get(letter, slice(None)) for letter in self._axes)
                yield np.asarray(self._array[key]).transpose(self._order)


def _stored_dtype(path: str | PathLike[str], planes: _Planes) -> np.dtype[Any]:
    """Find the type of OME-TIFF that holds these pixels without loss."""
    dtype = planes.dtype.newbyteorder("=")
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype == np.float16:
        return np.dtype(np.float32)
    if dtype.kind in "iu" and dtype.itemsize == 8:
        low, high = 0, 0
        for band in planes.bands():
            low, high = min(low, int(band.min())), max(high, int(band.max()))
        smallest = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
        if smallest.kind == "f" or smallest.itemsize > 4:
            raise FileError(
                path,
                f"was not written: the values {low} to {high} do not fit the 32-bit integers of OME-TIFF. "
                "Write a .zarr instead, or renumber the labels.",
            )
        return smallest
    if dtype.kind not in "iufc" or dtype.char in "gG":
        raise FileError(path, f"was not written: OME-TIFF cannot hold pixels of type {planes.dtype}.")
    return dtype
