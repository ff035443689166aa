"""zarr: plain arrays and OME-Zarr 0.1 to 0.5 in, results as OME-Zarr 0.5 out.

A result is a group with one array, ``0``. Its chunks are written even where they are all
zeros, each under a temporary name first, so **a chunk that exists is a chunk that is done**:
the result is its own journal, and another process can read it while it fills.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore, ZipStore

from napari_unet.data.axes import ArrayLike, guess_axes
from napari_unet.errors import FileError
from napari_unet.files.atomic import check_writable, file_error
from napari_unet.files.lazy import FileArray, first_damaged
from napari_unet.files.omezarr import Multiscale, ome_attributes, ome_images
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
    "chunk_done",
    "count_zarr_series",
    "create_result",
    "create_scratch",
    "folder_of",
    "is_zarr",
    "open_result",
    "open_zarr",
    "result_attributes",
    "watch_result",
]

_KIND = "a zarr"
_MARKS = ("zarr.json", ".zarray", ".zgroup")
_OWN = "napari-unet"
_MOST_CHUNKS = 20_000
_SCRATCH_SIDE = 1024


def is_zarr(path: str | PathLike[str]) -> bool:
    """Tell whether a folder is a zarr array or group."""
    return any((Path(path) / mark).is_file() for mark in _MARKS)


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

    A chunk that is missing reads as the fill value, as zarr defines it; one that is damaged is a
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
    _check_codecs(path, array)
    dtype = check_dtype(path, array.dtype)
    chunk = math.prod(array.shards or array.chunks) * dtype.itemsize
    # Missing chunks cost nothing, so what a zarr may promise is bound by one chunk, not by the
    # whole. With no chunk at all it is an empty promise.
    stored = _stored_bytes(array, enough=chunk)
    check_size(path, chunk if stored else math.prod(array.shape) * dtype.itemsize, stored)


def _check_codecs(path: str | PathLike[str], array: zarr.Array[Any]) -> None:
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
        for folder, _, files in os.walk(store.root / array.path):
            for file in files:
                if not file.startswith(".z") and file != "zarr.json":
                    total += Path(folder, file).stat().st_size
            if total >= enough:
                break
    return total


def _read(path: str | PathLike[str], array: zarr.Array[Any], lazy_above: int) -> ArrayLike:
    lazy = FileArray(array, path, locate=lambda key: first_damaged(array, key))
    few = (
        math.prod(-(-size // step) for size, step in zip(array.shape, array.chunks, strict=True))
        <= _MOST_CHUNKS
    )
    return np.asarray(lazy[...]) if few and lazy.nbytes <= lazy_above else lazy


def create_result(
    path: str | PathLike[str],
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: npt.DTypeLike,
    axes: str,
    *,
    pixel_size: Mapping[str, float] | None = None,
    unit: str = "pixel",
    attributes: Mapping[str, Any] | None = None,
    channel_names: Sequence[str] = (),
    colors: Mapping[int, str] | None = None,
    overwrite: bool = False,
) -> zarr.Array[Any]:
    """Make an empty OME-Zarr 0.5 image to be filled chunk by chunk.

    Parameters
    ----------
    path : str or os.PathLike
        The new folder, usually ``NAME.zarr``. It appears complete with its metadata, or not at all.
    shape, chunks : sequence of int
        Of the array, one for each axis.
    dtype : dtype-like
        Of its pixels.
    axes : str
        One letter of ``TZCYX`` for each axis.
    pixel_size : mapping of str to float, optional
        Size along ``"Z"``, ``"Y"`` and ``"X"``.
    unit : str
        Of `pixel_size`, as `Image.unit` has it.
    attributes : mapping, optional
        What the program wants to find again with `result_attributes`; values of JSON.
    channel_names : sequence of str
        One for each channel.
    colors : mapping of int to str, optional
        ``#RRGGBB`` of each channel where there is an axis C, else of each label value.
    overwrite : bool
        Replace a result that this program made earlier; nothing else is ever replaced.

    Returns
    -------
    zarr.Array
        Open for writing; a write of a whole chunk stores it, zeros included.

    Raises
    ------
    FileError
        If there is something at `path` already, or the disk refuses.
    """
    target = Path(path)
    check_axes(path, axes, tuple(shape))
    _check_free(target, overwrite)
    check_writable(target.with_name(f"{target.name}.check"))
    part = target.with_name(f".{target.name[:50]}.{secrets.token_hex(6)}.part")
    attrs: dict[str, Any] = ome_attributes(
        axes, pixel_size or {}, unit, channel_names=channel_names, colors=colors or {}, dtype=np.dtype(dtype)
    )
    attrs[_OWN] = dict(attributes or {})
    try:
        group = zarr.create_group(LocalStore(part), zarr_format=3, attributes=attrs)
        group.create_array(
            "0",
            shape=tuple(int(size) for size in shape),
            chunks=tuple(min(int(step), max(int(size), 1)) for step, size in zip(chunks, shape, strict=True)),
            dtype=np.dtype(dtype),
            dimension_names=tuple(axes.lower()),
            fill_value=0,
        )
        _take_place(part, target)
    except OSError as error:
        raise file_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_result(path)


def create_scratch(path: str | PathLike[str], shape: Sequence[int], dtype: npt.DTypeLike) -> zarr.Array[Any]:
    """Make an array on disk for intermediate results; the caller removes the folder.

    Raises
    ------
    FileError
        If the disk refuses.
    """
    *slices, height, width = (max(1, int(size)) for size in shape)
    try:
        return zarr.create_array(
            LocalStore(Path(path)),
            shape=tuple(map(int, shape)),
            chunks=(*(1 for _ in slices), min(height, _SCRATCH_SIDE), min(width, _SCRATCH_SIDE)),
            dtype=np.dtype(dtype),
            fill_value=0,
            overwrite=True,
        )
    except OSError as error:
        raise file_error(path, error) from error


def _check_free(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise FileError(target, "exists already; choose another name, or allow it to be overwritten.")
    if not (target.is_dir() and is_zarr(target) and _OWN in _group(target).attrs):
        raise FileError(
            target, "exists and is no result of this program, so it is not overwritten; choose another name."
        )


def _take_place(part: Path, target: Path) -> None:
    """Give the new folder its name; an old result steps aside first and is then removed."""
    if not target.exists():
        part.rename(target)
        return
    old = part.with_name(f".{target.name[:50]}.{secrets.token_hex(6)}.part")
    target.rename(old)
    try:
        part.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def open_result(path: str | PathLike[str]) -> zarr.Array[Any]:
    """Open a result to go on filling it, after removing the half-written chunks of a killed run.

    Only one process at a time may fill a result.

    Returns
    -------
    zarr.Array
        Open for writing, as `create_result` returns it.

    Raises
    ------
    FileError
        If `path` is no result of this program.
    """
    with parsing(path, _KIND):
        group = _group(path, mode="r+")
        if _OWN not in group.attrs or "0" not in group:
            raise FileError(
                path, "is no result of this program, so it cannot be gone on with; choose another name."
            )
        array = group["0"]
        if not isinstance(array, zarr.Array):
            raise FileError(path, "is no result of this program: its '0' is not an array.")
        _check_codecs(path, array)
        for leftover in (Path(path) / "0").rglob("*.partial"):
            with suppress(OSError):  # one that stays does no harm: it is never read
                leftover.unlink()
        return array.with_config({"write_empty_chunks": True})


def watch_result(path: str | PathLike[str]) -> zarr.Array[Any]:
    """Open a result to look at while another process fills it; nothing in it is touched.

    Raises
    ------
    FileError
        If `path` is no result of this program.
    """
    with parsing(path, _KIND):
        array = _group(path)["0"]
        if not isinstance(array, zarr.Array):
            raise FileError(path, "is no result of this program: its '0' is not an array.")
        return array


def result_attributes(path: str | PathLike[str]) -> dict[str, Any]:
    """Read back the `attributes` that `create_result` was given.

    Raises
    ------
    FileError
        If `path` is no result of this program.
    """
    with parsing(path, _KIND):
        found = _group(path).attrs.get(_OWN)
        if not isinstance(found, dict):
            raise FileError(path, "is no result of this program.")
        return dict(found)


def _group(path: str | PathLike[str], mode: Any = "r") -> zarr.Group:
    if not Path(path).is_dir():
        raise FileError(path, "there is no such folder.")
    node = zarr.open(LocalStore(Path(fspath(path)), read_only=mode == "r"), mode=mode)
    if not isinstance(node, zarr.Group):
        raise FileError(path, "is a plain zarr array, no result of this program.")
    return node


def folder_of(array: zarr.Array[Any]) -> Path:
    """Return the folder of the group that an array lies in.

    Raises
    ------
    FileError
        If it is stored in another way.
    """
    store = array.store_path.store
    if not isinstance(store, LocalStore):
        raise FileError(str(store), "is not a folder, so its chunks cannot be looked for.")
    return Path(store.root)


def chunk_done(array: zarr.Array[Any], index: Sequence[int]) -> bool:
    """Tell whether a chunk of a result is on disk, complete.

    Parameters
    ----------
    array : zarr.Array
        From `create_result` or `open_result`.
    index : sequence of int
        Of the chunk in the grid of chunks, one for each axis.
    """
    return (folder_of(array) / array.path / array.metadata.encode_chunk_key(tuple(index))).is_file()
