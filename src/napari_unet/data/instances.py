"""From the probabilities of a stack to numbered objects, never a whole slice in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice, pairwise, product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.axes import ArrayLike, Stack
from napari_unet.data.blocks import IDS, BlockJob, Blocks, Plane, decode_block, decode_whole
from napari_unet.data.blockwise import Numbers, RunAll, decode_slice
from napari_unet.data.stitching import Box, Pairs, best_pairs, common, groups, shared_pixels, within
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop
from napari_unet.spec import ObjectDecoding

__all__ = ["IDS", "Blocks", "Scratch", "Window", "check_window", "find_objects", "slices_of"]

Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""(start, stop) in slices, y and x."""

Index = tuple[int, ...]
"""Which slice, in time and depth."""

Scratch = Callable[[tuple[int, ...], np.dtype[Any]], Any]
"""Makes an array that can be read and written, of a shape and a type; `numpy.zeros` does."""


class _Labels(Protocol):
    """A numpy or zarr array of labels, read and written."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X)."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Read a block."""
        ...

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Write a block."""
        ...


@dataclass(frozen=True, eq=False)
class _Task:
    """What `find_objects` was given, and what follows from it."""

    labels: _Labels
    planes: dict[Index, Plane]
    blocks: Blocks
    chunk: tuple[int, int]
    scratch: Scratch
    run_all: RunAll
    tell: Callable[[int, int], None]
    stop: Stop

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the window."""
        return next(iter(self.planes.values())).shape

    def write(self, index: Index, numbers: Callable[[Box], NDArray[Any]]) -> None:
        """Write a slice, chunk by chunk; `numbers` returns those of a part of the window."""
        window = self.planes[index].window
        for chunk in _chunks(self.labels.shape[-2:], self.chunk):
            picture = np.zeros([side.stop - side.start for side in chunk], IDS)
            part = common(chunk, window)
            if part:
                picture[within(part, chunk)] = numbers(within(part, window))
            self.labels[(*index, *chunk)] = picture

    def highest(self, index: Index) -> int:
        """Return the highest number of a slice that an earlier run has written."""
        chunks = _chunks(self.labels.shape[-2:], self.chunk)
        return max(int(np.max(self.labels[(*index, *chunk)])) for chunk in chunks)


def find_objects(
    probabilities: ArrayLike,
    labels: _Labels,
    decoding: ObjectDecoding,
    *,
    slice_axes: str = "",
    link: bool = False,
    chunk: tuple[int, int] | None = None,
    window: Window | None = None,
    blocks: Blocks | None = None,
    scratch: Scratch = np.zeros,
    run_all: RunAll = map,
    is_done: Callable[[Index], bool] | None = None,
    tell: Callable[[int, int], None] | None = None,
    stop: Stop = never_stop,
) -> bool:
    """Turn the probabilities of a stack into objects.

    The objects of a slice are those of `decode`, whatever the size of its chunks and blocks (save in
    regions larger than `Blocks.limit`). Their numbers go on from slice to slice, so that no two objects
    share one; with `link`, objects of slices next to each other along Z that are each other's best
    overlap, with an IoU of 0.25 or more, become one object with one number.

    Parameters
    ----------
    probabilities : array-like of uint8 or float, shape (3, ..., Y, X)
        Of background, inside and border; 255 stands for 1.
    labels : array-like of uint32, shape (..., Y, X)
        Receives the objects, a slice at a time, chunk by chunk, the last chunk last. With `link` it is
        left alone until the objects of all slices are known.
    decoding : ObjectDecoding
        Thresholds, depth of necks, and what is left out; sizes are those in one slice.
    slice_axes : str
        Letters of the axes before Y and X; needed for `link`.
    link : bool
        Join objects along Z, and never along T.
    chunk : (cy, cx), optional
        Pixels of a chunk of `labels`; the whole slice by default.
    window : tuple of (start, stop), optional
        Part to decode, in slices, y and x; the rest is written as 0, in slices that are decoded.
    blocks : Blocks, optional
        How a slice is cut where it is larger than a block.
    scratch : callable
        Makes room for the objects of the window: (y, x) for one slice at a time, not needed where slices
        are no larger than a block; or (slices, y, x) with `link`. Its chunks must not reach over the
        borders of slices and blocks (these begin at the start of the window), as blocks may be written
        at the same time.
    run_all : callable
        Like `map`, and as lazy if it can be: runs functions of this package, that can be pickled, on
        values that can be if the arrays can. Other processes must see what is written into scratch.
    is_done : callable, optional
        Asked for each slice, by its index, whether an earlier run has written it. With `link` only
        that all are matters.
    tell : callable, optional
        Given slices done and all slices after each of them.
    stop : callable
        Asked before each slice and each block.

    Returns
    -------
    bool
        True if stopped before the end.

    Raises
    ------
    DataError
        With `link`, if there is not a letter for each axis before Y and X.
    """
    height, width = labels.shape[-2:]
    y, x = window[1:] if window else ((0, height), (0, width))
    planes = {
        index: Plane(probabilities, index, (slice(*y), slice(*x)), decoding)
        for index in _slices(labels.shape[:-2], window)
    }
    task = _Task(
        labels,
        planes,
        blocks or Blocks(),
        chunk or (height, width),
        scratch,
        run_all,
        tell or (lambda _done, _of: None),
        stop,
    )
    done = {index for index in planes if is_done is not None and is_done(index)}
    if link:
        return len(done) < len(planes) and _find_linked(task, slice_axes)
    return _find_apart(task, done)


def check_window(window: Window | None, stack: Stack) -> None:
    """Raise a DataError unless a window lies inside an image and holds something."""
    for axis, size, (start, end) in zip(("slices", "y", "x"), stack.shape, window or (), strict=False):
        if not 0 <= start < end:
            raise DataError(
                f"The window's range {start} to {end} along {axis} is empty: its stop must be above its start, from 0 up."
            )
        if end > size:
            raise DataError(
                f"The window ends at {end} along {axis}, but image {stack.name!r} has {size} there. "
                "Give a window inside the image."
            )


def slices_of(stack: Stack, window: Window | None) -> list[Index]:
    """List the slices of a stack in a window, or all, by their index in time and depth."""
    return _slices(stack.slice_shape, window)


def _slices(shape: tuple[int, ...], window: Window | None) -> list[Index]:
    indices: list[Index] = list(np.ndindex(*shape))
    return indices[slice(*window[0])] if window else indices


def _chunks(size: tuple[int, ...], chunk: tuple[int, int]) -> list[Box]:
    rows, columns = (
        [slice(at, min(at + length, total)) for at in range(0, total, length)]
        for total, length in zip(size, chunk, strict=True)
    )
    return list(product(rows, columns))


def _find_apart(task: _Task, done: set[Index]) -> bool:
    """Find and write the objects of each slice."""
    found = _found(task, [plane for index, plane in task.planes.items() if index not in done])
    used = 0
    for n, index in enumerate(task.planes):
        if task.stop():
            return True
        if index in done:
            used = max(used, task.highest(index))
        else:
            numbers = next(found)
            if numbers is None:
                return True
            count, read = numbers
            task.write(index, _shifted(read, used))
            used += count
        task.tell(n + 1, len(task.planes))
    return False


def _found(
    task: _Task, planes: Sequence[Plane]
) -> Iterator[tuple[int, Callable[[Box], NDArray[Any]]] | None]:
    """How many objects each slice has, and how to read them by number; None once stopped."""
    if planes and max(task.shape) <= task.blocks.side:
        for objects in task.run_all(decode_whole, planes):
            yield int(objects.max(initial=0)), objects.__getitem__
    elif planes:
        ids = task.scratch(task.shape, IDS)
        for plane in planes:
            answers = iter(task.run_all(decode_block, _block_jobs(task, plane, ids, ())))
            numbers = decode_slice(plane, ids, (), task.blocks, answers, task.run_all, task.stop)
            yield (len(numbers.areas) - 1, partial(numbers.read, ids, ())) if numbers else None


def _block_jobs(task: _Task, plane: Plane, ids: Any, where: tuple[int, ...]) -> list[BlockJob]:
    return [
        BlockJob(plane, task.blocks.box(at, task.shape), ids, where) for at in task.blocks.places(task.shape)
    ]


def _shifted(read: Callable[[Box], NDArray[Any]], used: int) -> Callable[[Box], NDArray[Any]]:
    """Numbers that begin after those used before."""

    def shifted(box: Box) -> NDArray[Any]:
        numbers = read(box).astype(IDS)
        numbers[numbers > 0] += IDS.type(used)
        return numbers

    return shifted


def _find_linked(task: _Task, slice_axes: str) -> bool:
    """Find the objects of all slices, join them, and write them all."""
    neighbours = _neighbours(list(task.planes), slice_axes)
    ids = task.scratch((len(task.planes), *task.shape), IDS)
    jobs = (
        job for n, plane in enumerate(task.planes.values()) for job in _block_jobs(task, plane, ids, (n,))
    )
    answers = iter(task.run_all(decode_block, jobs))
    found: list[Numbers] = []
    for n, plane in enumerate(task.planes.values()):
        if task.stop():
            return True
        numbers = decode_slice(plane, ids, (n,), task.blocks, answers, task.run_all, task.stop)
        if numbers is None:
            return True
        found.append(numbers)
        task.tell(n + 1, len(task.planes))
    tables = _linked(task, ids, found, neighbours)
    if tables is None:
        return True
    for n, (index, numbers, table) in enumerate(zip(task.planes, found, tables, strict=True)):
        if task.stop():
            return True
        task.write(index, partial(_translated, table, numbers, ids, (n,)))
    return False


def _translated(
    table: NDArray[np.uint32], numbers: Numbers, ids: Any, where: tuple[int, ...], box: Box
) -> NDArray[Any]:
    return table[numbers.read(ids, where, box)]


def _neighbours(indices: Sequence[Index], slice_axes: str) -> list[tuple[int, int]]:
    """Which slices, by their place in a list, lie next to each other along Z."""
    if len(slice_axes) != len(indices[0]):
        raise DataError(
            f"To join objects along Z, a letter is needed for each of the {len(indices[0])} axes before y and x, "
            f'but slice_axes is "{slice_axes}".'
        )
    place = {index: n for n, index in enumerate(indices)}
    depth = [letter == "Z" for letter in slice_axes]
    above = [tuple(at + step for at, step in zip(index, depth, strict=True)) for index in indices]
    return [(n, place[index]) for n, index in enumerate(above) if index in place and place[index] != n]


@dataclass(frozen=True, eq=False, slots=True)
class _Overlap:
    """A block of two slices in scratch."""

    ids: Any
    slices: tuple[int, int]
    box: Box


def _shared(job: _Overlap) -> tuple[NDArray[np.int64], ...]:
    """Values in scratch that are at the same pixels in both slices, and how often."""
    one, other = (np.asarray(job.ids[(n, *job.box)]) for n in job.slices)
    return shared_pixels(one, other)


def _linked(
    task: _Task, ids: Any, found: Sequence[Numbers], neighbours: Sequence[tuple[int, int]]
) -> list[NDArray[np.uint32]] | None:
    """Last number of each number of each slice; None if stopped."""
    places = task.blocks.places(task.shape)
    jobs = (_Overlap(ids, pair, task.blocks.box(at, task.shape)) for pair in neighbours for at in places)
    answers = iter(task.run_all(_shared, jobs))
    starts = list(accumulate((len(numbers.areas) - 1 for numbers in found), initial=0))
    pairs: list[Pairs] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for n, m in neighbours:
        if task.stop():
            return None
        i, j = _best(found[n], found[m], list(islice(answers, len(places))))
        pairs.append((i + starts[n] - 1, j + starts[m] - 1))
    same = groups((np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])), starts[-1])
    _, first, which = np.unique(same, return_index=True, return_inverse=True)
    rank = np.empty(len(first), IDS)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    last = rank[which]
    return [np.append(IDS.type(0), last[a:b]) for a, b in pairwise(starts)]


def _best(one: Numbers, other: Numbers, shared: Sequence[tuple[NDArray[np.int64], ...]]) -> Pairs:
    """Objects of two slices that belong together, from what was counted in each block."""
    counted = [
        (one.of_block(at)[i], other.of_block(at)[j], counts)
        for at, (i, j, counts) in zip(one.blocks.places(one.shape), shared, strict=True)
    ]
    i, j, counts = (np.concatenate(each).astype(np.int64) for each in zip(*counted, strict=True))
    both = (i > 0) & (j > 0)  # 0 are small objects that were left out
    return best_pairs(i[both], j[both], counts[both], (one.areas, other.areas))
