"""Results of segmentation, as OME-Zarr 0.5 that fills chunk by chunk.

A result is a group with one array, ``0``. Its chunks are written even where they are all
zeros, each under a temporary name first, so **a chunk that exists is a chunk that is done**:
the result is its own journal, and another process can read it while it fills.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from napari_unet.errors import FileError
from napari_unet.files.atomic import check_writable, file_error, leftovers_of, part_of
from napari_unet.files.omezarr import ome_attributes
from napari_unet.files.reading import check_axes, parsing
from napari_unet.files.zarr import check_codecs, is_zarr
from napari_unet.words import count

__all__ = [
    "chunk_done",
    "clear_up",
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
_PARTIAL = ".partial"  # as zarr calls a chunk that is being written


@dataclass(eq=False)
class _Filling(zarr.Array[Any]):
    """An array that fills, in whatever process: what the disk refuses is a sentence that says what is kept.

    Parameters
    ----------
    named : str
        What the user calls it.
    lasting : bool
        Whether its chunks are still there for the next run.
    """

    named: str
    lasting: bool

    def __setitem__(self, selection: Any, value: Any) -> None:
        try:
            super().__setitem__(selection, value)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> FileError:
        chunks = (folder_of(self) / self.path / "c").rglob("*")
        written = sum(path.is_file() and path.suffix != _PARTIAL for path in chunks)
        missing = (self.nchunks - written) * math.prod(self.chunks) * self.dtype.itemsize
        chunks_kept = f"the {count(written, 'chunk')} written so far {'is' if written == 1 else 'are'} kept"
        kept = chunks_kept if self.lasting else "what was computed before is kept"
        return file_error(self.named, error, needed=missing, kept=kept)


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
    part = part_of(target)
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
            dtype=np.dtype(np.dtype(dtype).str),  # NumPy has two types of 64 bits, of which zarr knows one
            dimension_names=tuple(axes.lower()),
            fill_value=0,
        )
        _take_place(part, target)
    except OSError as error:
        raise file_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_result(path)


def create_scratch(
    path: str | PathLike[str], shape: Sequence[int], dtype: npt.DTypeLike, named: str = ""
) -> zarr.Array[Any]:
    """Make an array on disk for intermediate results; the caller removes the folder.

    Parameters
    ----------
    path : str or os.PathLike
        The new folder.
    shape : sequence of int
        Of the array, (..., Y, X).
    dtype : dtype-like
        Of its values.
    named : str
        What errors are to call it, where that is not its folder.

    Raises
    ------
    FileError
        If the disk refuses.
    """
    *slices, height, width = (max(1, int(size)) for size in shape)
    try:
        array = zarr.create_array(
            LocalStore(Path(path)),
            shape=tuple(map(int, shape)),
            chunks=(*(1 for _ in slices), min(height, _SCRATCH_SIDE), min(width, _SCRATCH_SIDE)),
            dtype=np.dtype(dtype),
            fill_value=0,
            overwrite=True,
        )
    except OSError as error:
        raise file_error(path, error) from error
    return _Filling(array.async_array, named or fspath(path), lasting=False)


def _check_free(target: Path, overwrite: bool) -> None:
    if _is_remains(target):
        shutil.rmtree(target)
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise FileError(target, "exists already; choose another name, or allow it to be overwritten.")
    if not (target.is_dir() and is_zarr(target) and _OWN in _group(target).attrs):
        raise FileError(
            target, "exists and is no result of this program, so it is not overwritten; choose another name."
        )


def _is_remains(target: Path) -> bool:
    """Whether it is what zarr made anew of a result that was removed while it was being written: chunks, no metadata."""
    return target.is_dir() and [path.relative_to(target).as_posix() for path in target.glob("*/*")] == ["0/c"]


def _take_place(part: Path, target: Path) -> None:
    """Give the new folder its name; an old result steps aside first and is then removed."""
    if not target.exists():
        part.rename(target)
        return
    old = part_of(target)
    target.rename(old)
    try:
        part.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def clear_up(path: str | PathLike[str]) -> None:
    """Remove what killed writers left beside a result, and bring an old one back that had stepped aside for nothing.

    Call it only where no other process writes it.
    """
    target = Path(path)
    for part in leftovers_of(target):
        with suppress(OSError):  # one that stays does no harm: it is never read
            if not os.path.lexists(target) and (part / "0" / "c").is_dir():
                part.rename(target)
            elif part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()


def open_result(path: str | PathLike[str], named: str = "") -> zarr.Array[Any]:
    """Open a result to go on filling it, after removing the half-written chunks of a killed run.

    Only one process at a time may fill a result.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.
    named : str
        What the user calls it, where it is hidden.

    Returns
    -------
    zarr.Array
        Open for writing, as `create_result` returns it. What the disk refuses is a FileError, which says what is kept.

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
        for leftover in (Path(path) / "0").rglob(f"*{_PARTIAL}"):
            with suppress(OSError):  # one that stays does no harm: it is never read
                leftover.unlink()
        return _Filling(
            array.with_config({"write_empty_chunks": True}).async_array, named or fspath(path), lasting=True
        )


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
