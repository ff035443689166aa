"""zarr: plain arrays and OME-Zarr 0.1 to 0.5 in; results are written by `napari_unet.files.results`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, ZipStore

from napari_unet.data.axes import ArrayLike, guess_axes
from napari_unet.errors import FileError
from napari_unet.files.lazy import FileArray, first_damaged
from napari_unet.files.omezarr import Multiscale, ome_images
from napari_unet.files.reading import (
    LAZY_BYTES,
    Image,
    check_axes,
    check_dtype,
    check_series,
    check_size,
    parsing,
)

__all__ = [
    "count_zarr_series",
    "is_zarr",
    "marks_of",
    "open_zarr",
]

_KIND = "a zarr"
_MARKS = ("zarr.json", ".zarray", ".zgroup")
_MOST_CHUNKS = 20_000


def is_zarr(path: str | PathLike[str]) -> bool:
    """Tell whether a folder is a zarr array or group."""
    return any(mark.is_file() for mark in marks_of(path))


def marks_of(path: str | PathLike[str]) -> list[Path]:
    """Return the files of which a zarr folder has one."""
    return [Path(path) / mark for mark in _MARKS]


def count_zarr_series(path: str | PathLike[str]) -> int:
    """Count the images of a zarr: more than one where bioformats2raw or a list of multiscales holds them.

    Raises
    ------
    FileError
        If the folder cannot be read, or is a group without an image.
    """
    with parsing(path, _KIND):
        node = _node(path)
        return 1 if isinstance(node, zarr.Array) else len(ome_images(path, node))


def open_zarr(
    path: str | PathLike[str],
    *,
    series: int = 0,
    level: int = 0,
    axes: str | None = None,
    lazy_above: int = LAZY_BYTES,
    name: str = "image",
) -> Image:
    """Open one image of a zarr folder or of a zipped one.

    A chunk that is missing reads as the fill value, as zarr defines it, and is counted; one that is damaged is a
    FileError that names it.

    Parameters
    ----------
    path : str or os.PathLike
        The folder of an array, an OME-Zarr image or a bioformats2raw collection, or a .zip of one.
    series, level : int
        Which image, and which level of its pyramid.
    axes : str, optional
        Letters of its axes, where the file doesn't say.
    lazy_above : int
        Levels of more bytes than this are not read now, but when they are sliced.
    name : str
        Name of the image.

    Raises
    ------
    FileError
        If it cannot be read, holds no image at this place, or promises more than it can hold.
    """
    with parsing(path, _KIND):
        node = _node(path)
        if isinstance(node, zarr.Array):
            image = _plain(path, node)
            check_series(path, "image", series, 1)
        else:
            images = ome_images(path, node)
            check_series(path, "image", series, len(images))
            image = images[series]
        check_series(path, "pyramid level", level, len(image.arrays))
        levels = image.arrays[level:]
        for array in levels:
            _check_array(path, array)
        shape = tuple(int(size) for size in levels[0].shape)
        letters = check_axes(path, axes or image.axes, shape)
        whole = image.arrays[0].shape
        factors = {
            letter: full / size for letter, full, size in zip(letters, whole, shape, strict=True) if size
        }
        arrays = (_read(path, levels[0], lazy_above), *(_read(path, array, -1) for array in levels[1:]))
        return Image(
            array=arrays[0],
            axes=letters,
            name=name,
            pixel_size={letter: size * factors.get(letter, 1.0) for letter, size in image.pixel_size.items()},
            unit=image.unit,
            channel_names=image.channel_names,
            levels=arrays,
            missing=_missing(levels[0]),
        )


def _node(path: str | PathLike[str]) -> zarr.Array[Any] | zarr.Group:
    if Path(path).is_dir():
        if not is_zarr(path):
            raise FileError(
                path,
                f"is a folder, but no zarr: it has none of {', '.join(_MARKS)}. "
                "Name a file in it, or a .zarr folder.",
            )
        return zarr.open(LocalStore(Path(path), read_only=True), mode="r")
    return zarr.open(ZipStore(Path(path), mode="r", read_only=True), mode="r")


def _plain(path: str | PathLike[str], array: zarr.Array[Any]) -> Multiscale:
    """Describe an array by itself: axes from its dimension names, else from how many there are."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if array.ndim < 2:
        raise FileError(
            path, f"is an array of shape {array.shape}, but an image has at least rows and columns."
        )
    labels = [str(name) for name in names] if isinstance(names, list | tuple) else None
    return Multiscale(arrays=(array,), axes=guess_axes(array.shape, labels=labels))


def _check_array(path: str | PathLike[str], array: zarr.Array[Any]) -> None:
    """Refuse values that are no pixels, codecs that run code, and chunks that cannot be."""
    check_codecs(path, array)
    dtype = check_dtype(path, array.dtype)
    chunk = math.prod(array.shards or array.chunks) * dtype.itemsize
    # Missing chunks cost nothing, so what a zarr may promise is bound by one chunk, not by the
    # whole. With no chunk at all it is an empty promise.
    stored = _stored_bytes(array, enough=chunk)
    check_size(path, chunk if stored else math.prod(array.shape) * dtype.itemsize, stored)


def check_codecs(path: str | PathLike[str], array: zarr.Array[Any]) -> None:
    metadata = array.metadata.to_dict()
    codecs = json.dumps([metadata.get(key) for key in ("codecs", "filters", "compressor")], default=str)
    if "pickle" in codecs:
        raise FileError(
            path, "stores its chunks as Python pickles, which can run code when they are read; not opened."
        )


def _stored_bytes(array: zarr.Array[Any], enough: int) -> int:
    """Count bytes of chunks on disk, at most until `enough`: a big zarr has millions of files."""
    store = array.store_path.store
    if isinstance(store, ZipStore):
        return Path(store.path).stat().st_size
    total = 0
    if isinstance(store, LocalStore):
        for paths in _stored(store.root / array.path):
            total += sum(path.stat().st_size for path in paths)
            if total >= enough:
                break
    return total


def _stored(place: Path) -> Iterator[list[Path]]:
    """Yield the chunks of an array, those of one folder at a time."""
    for folder, _, files in os.walk(place):
        yield [Path(folder, file) for file in files if not file.startswith(".") and file != "zarr.json"]


def _missing(array: zarr.Array[Any]) -> tuple[int, int]:
    """Count the chunk files that are not there, and all that may be; none in a zip or of a big array, where that takes long."""
    store = array.store_path.store
    total = _grid(array.shape, array.shards or array.chunks)
    if not isinstance(store, LocalStore) or total > _MOST_CHUNKS:
        return 0, 0
    return max(0, total - sum(map(len, _stored(store.root / array.path)))), total


def _grid(shape: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    return math.prod(-(-size // step) for size, step in zip(shape, chunk, strict=True))


def _read(path: str | PathLike[str], array: zarr.Array[Any], lazy_above: int) -> ArrayLike:
    lazy = FileArray(array, path, locate=lambda key: first_damaged(array, key))
    few = _grid(array.shape, array.chunks) <= _MOST_CHUNKS
    return np.asarray(lazy[...]) if few and lazy.nbytes <= lazy_above else lazy
