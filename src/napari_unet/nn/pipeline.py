"""Chunks, from reading over computing to writing: one thing after another, or beside each other where an accelerator computes.

An accelerator gets the next tile before the answer of the one before is there: it would stand still while pixels are copied.
Threads fetch answers, read the tile after and write the last chunk. A processor has no time left over for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_unet.data.axes import Stack
from napari_unet.data.tiling import Tile, read_tile
from napari_unet.errors import BackendError
from napari_unet.events import Notify, Stop, TileDone, Warned
from napari_unet.nn import backend, computing
from napari_unet.nn.engine import Answers, Engine
from napari_unet.nn.outputs import Writer
from napari_unet.nn.plan import Plan, Work, pixels_of

__all__ = ["Pipeline"]


class _Part(NamedTuple):
    """A tile of a chunk."""

    work: Work
    tile: Tile
    last: bool  # of its chunk


class Pipeline:
    """Computes chunks and writes them, whole and in order.

    Parameters
    ----------
    plan : Plan
        Where chunks and tiles lie.
    engine : Engine
        Computes tiles.
    stack : Stack
        The image.
    write : Writer
        Writes chunks.
    total : int
        Chunks of the whole result, also those that are there already.
    notify : callable
        Receives `Warned`, and a `TileDone` for each chunk.
    stop : callable
        Asked before each tile.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        stack: Stack,
        write: Writer,
        total: int,
        notify: Notify,
        stop: Stop,
    ) -> None:
        self._plan, self._engine, self._stack, self._write = plan, engine, stack, write
        self._total, self._notify, self._stop = total, notify, stop
        self._largest = plan.largest
        self._ahead = int(backend.device_name() != "CPU")
        self._computing: deque[tuple[_Part, _Computing]] = deque()
        self._found: list[tuple[Tile, Answers]] = []
        self._writing: deque[Future[None]] = deque()

    def do(self, todo: Sequence[Work]) -> bool:
        """Compute `todo`; return True if stopped before the end."""
        self._left, self._begun, self._count = len(todo), perf_counter(), len(todo)
        count = self._ahead
        with _threads(count) as reader, _threads(count) as self._fetcher, _threads(count) as writer:
            for part, pixels in self._read(todo, reader):
                if self._stop():
                    self._settle(0)
                    return True
                self._computing.append((part, self._compute(pixels, part.work.n, part.tile)))
                self._collect(self._ahead, writer)
            self._collect(0, writer)
            self._settle(0)
        return False

    def _parts(self, todo: Iterable[Work]) -> Iterator[_Part]:
        for work in todo:
            *others, last = self._plan.tiles_of(work.tile, self._largest)
            yield from (_Part(work, tile, False) for tile in others)
            yield _Part(work, last, True)

    def _read(self, todo: Iterable[Work], reader: Executor) -> Iterator[tuple[_Part, npt.NDArray[Any]]]:
        reading: deque[tuple[_Part, Future[npt.NDArray[Any]]]] = deque()
        for part in self._parts(todo):
            reading.append((part, reader.submit(self._load, part.work.n, part.tile)))
            if len(reading) > self._ahead:
                done, pixels = reading.popleft()
                yield done, pixels.result()
        for done, pixels in reading:
            yield done, pixels.result()

    def _load(self, n: int, tile: Tile) -> npt.NDArray[Any]:
        return read_tile(self._stack, n, tile, self._plan.stride)

    def _collect(self, most: int, writer: Executor) -> None:
        """Take answers until at most that many tiles are being computed, and have complete chunks written."""
        while len(self._computing) > most:
            part, pending = self._computing.popleft()
            self._found.append((part.tile, self._answers(part.work.n, part.tile, pending)))
            if part.last:
                self._writing.append(writer.submit(self._put, part.work, self._found))
                self._settle(self._ahead)
                self._found = []

    def _answers(self, n: int, tile: Tile, pending: _Computing) -> Answers:
        """Wait for the answers of a tile; where memory runs out, compute it again in parts."""
        answers = pending.wait()
        if answers is not None:
            return answers
        for _, other in self._computing:
            other.wait()  # what it takes is free then
        return _assembled(tile, [(part, self._recomputed(n, part)) for part in self._smaller(tile)])

    def _recomputed(self, n: int, tile: Tile) -> Answers:
        return self._answers(n, tile, self._compute(self._load(n, tile), n, tile))

    def _compute(self, pixels: npt.NDArray[Any], n: int, tile: Tile) -> _Computing:
        return _Computing(self._engine, pixels, n, tile, self._fetcher)

    def _smaller(self, tile: Tile) -> list[Tile]:
        """Cut a tile that memory was not there for."""
        half = pixels_of(tile) // 2
        parts = self._plan.tiles_of(tile, half)
        if max(map(pixels_of, parts)) >= pixels_of(tile):
            raise BackendError(
                f"There is not enough memory for a tile of {pixels_of(tile):,} pixels, the smallest: close other programs, "
                "or use a model of fewer filters."
            )
        if half < self._largest:
            self._largest = half
            self._notify(
                Warned(f"Memory ran out, so tiles have at most {half / 1e6:.2g} megapixels from now on.")
            )
        return parts

    def _put(self, work: Work, found: Sequence[tuple[Tile, Answers]]) -> None:
        self._write(work, _assembled(work.tile, found))

    def _settle(self, most: int) -> None:
        """Wait until at most that many chunks are still being written, and tell of those that are done."""
        while len(self._writing) > most:
            self._writing.popleft().result()
            self._left -= 1
            done = self._count - self._left
            left = (perf_counter() - self._begun) / done * self._left
            self._notify(TileDone(self._total - self._left, self._total, left))


class _Computing:
    """A tile that is being computed. Memory may run out when it begins, or while its answers are fetched."""

    def __init__(
        self, engine: Engine, pixels: npt.NDArray[Any], n: int, tile: Tile, fetcher: Executor
    ) -> None:
        self._fetching: Future[Answers] | None = None
        with suppress(MemoryError), computing.memory_errors():
            # At once, before another tile begins: TensorFlow and PyTorch copy after all that the device was told until then.
            self._fetching = fetcher.submit(engine.begin(pixels, n, tile))

    def wait(self) -> Answers | None:
        """Return the answers; None where memory ran out."""
        if self._fetching is not None:
            with suppress(MemoryError), computing.memory_errors():
                return self._fetching.result()
        return None


class _AtOnce(Executor):
    """Does what it is asked for before it returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _threads(count: int) -> Executor:
    return ThreadPoolExecutor(count) if count else _AtOnce()


def _assembled(whole: Tile, parts: Sequence[tuple[Tile, Answers]]) -> Answers:
    """Put the answers for a chunk together."""
    if len(parts) == 1:
        return parts[0][1]
    top, left = (side.start for side in whole.write)
    size = tuple(side.stop - side.start for side in whole.write)
    blocks = {
        kind: np.empty((*size, *answer.shape[2:]), answer.dtype) for kind, answer in parts[0][1].items()
    }
    for tile, answers in parts:
        y, x = tile.write
        for kind, answer in answers.items():
            blocks[kind][y.start - top : y.stop - top, x.start - left : x.stop - left] = answer
    return blocks
