"""Results of segmentation, as OME-Zarr 0.5 that fills chunk by chunk.

A result is a group with one array, ``0``. Its chunks are written even where they are all
zeros, each under a temporary name first, so **a chunk that exists is a chunk that is done**:
the result is its own journal, and another process can read it while it fills.
"""

from __future__ import annotations

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
from zarr.storage import LocalStore

from napari_unet.errors import FileError
from napari_unet.files.atomic import check_writable, file_error
from napari_unet.files.omezarr import ome_attributes
from napari_unet.files.reading import check_axes, parsing
from napari_unet.files.zarr import check_codecs, is_zarr

__all__ = [
    "chunk_done",
    "create_result",
    "create_scratch",
    "folder_of",
    "open_result",
    "result_attributes",
    "watch_result",
]

_KIND = "a zarr"
_OWN = "napari-unet"
_SCRATCH_SIDE = 1024


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
        check_codecs(path, array)
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
