"""What a layer held when the button was pressed, and its way to another process.

Runs beside the viewer and knows neither napari nor Qt.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet.data.axes import Stack, blocks, chunk_of
from napari_unet.errors import FileError
from napari_unet.files.atomic import file_error
from napari_unet.files.image import count_series, open_image, open_source
from napari_unet.files.reading import unit_name
from napari_unet.files.results import create_result
from napari_unet.jobs import ArraySource

__all__ = [
    "Snapshot",
    "Stopped",
    "equals_source",
    "folders_of",
    "link_copy",
    "make_folder",
    "own_file",
    "removed_unless_done",
    "runs_home",
    "save_copy",
    "stand_in",
    "with_file_pixel_size",
]

_CHUNK = 512
_PIECE = 2**29
"""Pixels along a side of a copy's chunk, and bytes that are read at once."""


class Stopped(Exception):
    """The user stopped the work; not an error."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A layer as it was at one moment.

    Parameters
    ----------
    stack : Stack
        Its pixels, axes and name.
    pixel_size : dict of str to float
        Size of a pixel along Z, Y and X, as far as the layer says; empty if it says nothing.
    unit : str
        Of the pixel size, e.g. ``"micrometer"``.
    path : Path or None
        The file it was read from.
    series : int
        Which image of that file.
    """

    stack: Stack
    pixel_size: dict[str, float]
    unit: str
    path: Path | None
    series: int = 0


def runs_home() -> Path:
    """Return the folder in which runs are kept: NAPARI_UNET_HOME, or napari-unet in the home folder."""
    # Absolute, because earlier runs are known by where their results lie.
    return Path(os.environ.get("NAPARI_UNET_HOME") or Path.home() / "napari-unet").expanduser().absolute()


def make_folder(home: Path, name: str) -> Path:
    """Make a folder for a run that begins now.

    Parameters
    ----------
    home : Path
        Where runs are kept; made if it is not there.
    name : str
        What the run is called; letters that a file name cannot hold are left out.

    Raises
    ------
    FileError
        If it cannot be made.
    """
    stem = f"{datetime.now():%Y-%m-%d-%H%M%S}-{_tidy(name) or 'run'}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = home / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder.absolute()
    except OSError as error:
        raise file_error(home, error) from error
    raise FileError(home, f"holds a thousand runs named {stem}; choose another name.")


def folders_of(home: Path, name: str | None = None) -> list[Path]:
    """List the folders of earlier runs, or of those that were called so, the newest first."""
    # The date comes first; a number after the name parts runs of one second.
    called = "" if name is None else f"-{_tidy(name) or 'run'}*"
    return sorted(home.glob(f"[0-9]*{called}"), reverse=True)


def _tidy(name: str) -> str:
    """Keep of a name what every file system can hold."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60]


def with_file_pixel_size(snapshot: Snapshot) -> Snapshot:
    """Take pixel size and unit from the file behind a layer that has none.

    napari's own reader drops them, so a layer of scale 1 without a unit says nothing; and a scale without a unit,
    as one stretches a stack to look at it, says less than a file that has one.
    """
    if snapshot.path is None or (snapshot.pixel_size and snapshot.unit != "pixel"):
        return snapshot
    try:
        image = open_image(snapshot.path, series=snapshot.series)
    except FileError:
        return snapshot  # a file of another reader's kind: the layer is all there is to know
    if snapshot.pixel_size and (image.unit == "pixel" or not image.pixel_size):
        return snapshot
    return replace(snapshot, pixel_size=dict(image.pixel_size), unit=image.unit)


def own_file(snapshot: Snapshot, stop: Callable[[], bool]) -> ArraySource | None:
    """Return the file that an image came from, if it still holds the same pixels.

    Raises
    ------
    Stopped
        If `stop` said so.
    """
    if snapshot.path is not None and _equals_file(snapshot, snapshot.path, stop):
        return _file_source(snapshot, snapshot.path)
    return None


def save_copy(snapshot: Snapshot, folder: Path, stop: Callable[[], bool], number: int = 0) -> ArraySource:
    """Copy an image into a run folder, piece by piece; a copy that does not come to its end is removed.

    Parameters
    ----------
    snapshot : Snapshot
        The image.
    folder : Path
        The run folder.
    stop : callable
        True once the user wants it to end.
    number : int
        Which of the run's images this is, counted from 0.

    Raises
    ------
    FileError
        If the copy cannot be written.
    Stopped
        If `stop` said so.
    """
    with _place_of(snapshot, folder, number) as path:
        return _copy(snapshot, path, stop)


def link_copy(snapshot: Snapshot, folder: Path, copy: Path, number: int = 0) -> ArraySource:
    """Take over the copy that another run made of an image: its files get a second name, or are copied where that cannot be.

    Parameters
    ----------
    snapshot, folder, number
        As for `save_copy`.
    copy : Path
        Made by `save_copy`, of the same pixels.

    Raises
    ------
    FileError
        If it cannot be taken over.
    """
    with _place_of(snapshot, folder, number) as path:
        try:
            shutil.copytree(copy, path, copy_function=_link)
        except OSError as error:
            raise file_error(path, error) from error
        return ArraySource(path=str(path), axes=_stored_axes(snapshot.stack)[0])


def _link(old: str, new: str) -> None:
    try:
        os.link(old, new)
    except OSError:  # another disk, or one that knows no second names
        shutil.copy2(old, new)


@contextmanager
def _place_of(snapshot: Snapshot, folder: Path, number: int) -> Iterator[Path]:
    """Make the folder of an image's copy, and remove it if the copy does not come to its end."""
    # In a folder of its own: a layer may be called "labels", and so is a result.
    place = folder / (f"image-{number}" if number else "image")
    try:
        place.mkdir()
    except OSError as error:
        raise file_error(place, error) from error
    with removed_unless_done(place):
        yield place / f"{_tidy(snapshot.stack.name) or 'image'}.zarr"


def equals_source(snapshot: Snapshot, source: ArraySource, stop: Callable[[], bool]) -> bool:
    """Tell whether an image is what an earlier run reads: its file, or the copy that was made of it.

    A copy is compared with all pixels; a file as `own_file` does it.

    Raises
    ------
    Stopped
        If `stop` said so.
    """
    if snapshot.path is not None and source.path == str(snapshot.path.absolute()):
        return source == _file_source(snapshot, snapshot.path) and _equals_file(snapshot, snapshot.path, stop)
    try:
        copy = open_source(source)
    except FileError:
        return False
    if (copy.pixel_size, copy.unit) != (snapshot.pixel_size, unit_name(snapshot.unit)):
        return False
    if copy.axes != _stored_axes(snapshot.stack)[0] or copy.stack.shape != snapshot.stack.shape:
        return False
    return copy.stack.dtype == snapshot.stack.dtype and _same_pixels(copy.stack, snapshot.stack, stop)


def _file_source(snapshot: Snapshot, path: Path) -> ArraySource:
    return ArraySource(
        path=str(path.absolute()),
        series=snapshot.series,
        axes=snapshot.stack.axes,
        pixel_size=snapshot.pixel_size,
        unit=snapshot.unit,
    )


@contextmanager
def removed_unless_done(folder: Path) -> Iterator[None]:
    """Remove a folder that was made for what then failed, or that the user stopped."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _equals_file(snapshot: Snapshot, path: Path, stop: Callable[[], bool]) -> bool:
    """Compare a layer with its file: all pixels in memory, samples of what is read lazily anyway."""
    try:
        if snapshot.series >= count_series(path):
            return False
        image = open_image(path, series=snapshot.series)
        if tuple(image.array.shape) != tuple(snapshot.stack.array.shape):
            return False
        there = Stack(image.array, snapshot.stack.axes, snapshot.stack.name)
        if there.dtype != snapshot.stack.dtype:
            return False
        every = (
            1 if isinstance(snapshot.stack.array, np.ndarray) else max(1, sum(1 for _ in blocks(there)) // 8)
        )
        return _same_pixels(there, snapshot.stack, stop, every)
    except FileError:
        return False


def _same_pixels(there: Stack, here: Stack, stop: Callable[[], bool], every: int = 1) -> bool:
    """Compare two stacks of one shape, or one of every so many blocks of them."""
    for number, (n, y, x) in enumerate(blocks(there)):
        if stop():
            raise Stopped
        if number % every == 0 and not _equal(there.read(n, y, x), here.read(n, y, x)):
            return False
    return True


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def stand_in(snapshot: Snapshot, folder: Path) -> ArraySource:
    """Make a file of an image's shape, axes and type, but with next to nothing in it.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    path = folder / f"{_tidy(snapshot.stack.name) or 'image'}.zarr"
    target, axes = _create(snapshot, path)
    # With no chunk at all it would be refused as an empty promise.
    target[tuple(slice(0, step) for step in target.chunks)] = 0
    return ArraySource(path=str(path), axes=axes, name=snapshot.stack.name)


def _sample(stack: Stack) -> str:
    """Letter of the axis of channels or colours; empty if there is none."""
    return "S" if "S" in stack.axes else "C" if "C" in stack.axes else ""


def _stored_axes(stack: Stack) -> tuple[str, str]:
    """Return the letters of a copy's axes, and the one of them that holds channels or colours."""
    # OME-Zarr wants time before channels before space; colour samples are stored as channels.
    sample = _sample(stack)
    at = 1 if stack.slice_axes.startswith("T") and sample else 0
    return stack.slice_axes[:at] + sample + stack.slice_axes[at:] + "YX", sample


def _create(snapshot: Snapshot, path: Path) -> tuple[Any, str]:
    """Make an empty copy, and say which axes it has."""
    stack = snapshot.stack
    _, height, width, channels = stack.shape
    axes, sample = _stored_axes(stack)
    lengths = {
        **dict(zip(stack.slice_axes, stack.slice_shape, strict=True)),
        sample: channels,
        "Y": height,
        "X": width,
    }
    chunks = {"Y": min(height, _CHUNK), "X": min(width, _CHUNK)}
    target = create_result(
        path,
        tuple(lengths[letter] for letter in axes),
        tuple(chunks.get(letter, 1) for letter in axes),
        stack.dtype,
        axes.replace("S", "C"),
        pixel_size=snapshot.pixel_size,
        unit=snapshot.unit,
    )
    return target, axes


def _copy(snapshot: Snapshot, path: Path, stop: Callable[[], bool]) -> ArraySource:
    stack = snapshot.stack
    slices, height, width, channels = stack.shape
    sample = _sample(stack)
    target, axes = _create(snapshot, path)
    # A chunk that is cut would be decoded again for each part; one of many channels may be too large to be read at once.
    rows, columns = (-(-side // _CHUNK) * _CHUNK for side in chunk_of(stack) or (1, 1))
    fit = _PIECE // (columns * channels * stack.dtype.itemsize) // _CHUNK * _CHUNK
    rows = min(rows, max(fit, _CHUNK))
    for n in range(slices):
        index = dict(zip(stack.slice_axes, np.unravel_index(n, stack.slice_shape or (1,)), strict=False))
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                if stop():
                    raise Stopped
                where = {"Y": slice(top, top + rows), "X": slice(left, left + columns), sample: slice(None)}
                pixels = np.moveaxis(stack.read(n, where["Y"], where["X"]), -1, 0)
                key = tuple(int(index[letter]) if letter in index else where[letter] for letter in axes)
                try:
                    target[key] = pixels if sample else pixels[0]
                except OSError as error:
                    raise file_error(path, error) from error
    return ArraySource(path=str(path), axes=axes)
