"""Applying a network to images of any size, tile by tile, exactly.

A tile is read with the network's halo, so the tiled output equals that of the whole image.
One chunk of the output is the unit of work, of writing and of resuming.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window
from napari_unet.data.normalize import Range
from napari_unet.data.tiling import Tile, read_tile
from napari_unet.errors import BackendError, ModelError
from napari_unet.events import (
    Noted,
    Notify,
    PredictStarted,
    Stop,
    TileDone,
    Warned,
    ignore_events,
    never_stop,
)
from napari_unet.nn import backend, computing
from napari_unet.nn.engine import SAMPLED, Engine, needed_halo
from napari_unet.nn.estimate import Estimate, estimate
from napari_unet.nn.inputs import check_channels, check_dropout, measure_range
from napari_unet.nn.machine import this_computer
from napari_unet.nn.model import UNetModel
from napari_unet.nn.outputs import Writable, Writer
from napari_unet.nn.plan import Plan, Work, best_chunk, bytes_per_pixel, largest_tile, pixels_of
from napari_unet.spec import ModelSpec

__all__ = [
    "compute_chunks",
    "compute_tile",
    "foresee",
    "make_plan",
    "segment",
    "settle_precision",
]

Answers = dict[str, npt.NDArray[Any]]


def segment(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    outputs: Mapping[str, Writable],
    *,
    chunk: tuple[int, int] | None = None,
    window: Window | None = None,
    pixel_range: Range | None = None,
    is_done: Callable[[tuple[int, ...]], bool] | None = None,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> bool:
    """Segment an image into `outputs`.

    Emits `PredictStarted` (its `outputs` are for the caller to fill in), `Warned`, `Noted` with what the run is
    expected to take, and a `TileDone` for each chunk.

    Parameters
    ----------
    model : UNetModel
        A trained model.
    stack : Stack
        The image: any size, as many channels as the model reads.
    config : PredictConfig
        Settings.
    outputs : mapping of str to array
        One or several of ``"labels"``, ``"probabilities"``, ``"entropy"`` and ``"uncertainty"``, laid out as
        `output_layout` says and full of zeros. Each chunk is written once, whole, in the order of the mapping:
        the last output's chunk is the sign that all are there.
    chunk : (cy, cx), optional
        Pixels of a chunk, multiples of the network's stride or at least the image's size; by
        default as `make_plan` finds best. A chunk larger than the largest tile is assembled from tiles.
    window : tuple of (start, stop), optional
        Part to segment, in slices, y and x. The rest stays 0.
    pixel_range : Range, optional
        Black and white of each channel, where they have been measured already.
    is_done : callable, optional
        Asked for each chunk, by its index (slice indices, chunk row, chunk column), whether an
        earlier run has written it.
    notify : callable
        Receives events.
    stop : callable
        Asked before each tile.

    Returns
    -------
    bool
        True if stopped before the end.

    Raises
    ------
    DataError
        If the image has other channels than the model reads.
    ModelError
        If the model lacks the brightness range that ``normalize="model"`` asks for, or if labels are asked of a
        model that knows objects.
    """
    check_channels(model.spec, stack)
    if model.spec.objects and "labels" in outputs:
        raise ModelError("Objects are made of the probabilities of whole slices: compute these first.")
    plan = make_plan(model, stack, config, tuple(outputs), chunk, window)
    todo = [work for work in plan.works() if is_done is None or not is_done(work.index)]
    total = len(plan.slices) * len(plan.tiles)
    notify(PredictStarted({}, total - len(todo), total, backend.device_name()))
    if not todo:
        return False
    pixel_range = pixel_range or measure_range(model.spec, stack, config, notify, stop)
    if stop():
        return True
    engine = _engine(model, stack, config, tuple(outputs), pixel_range, plan)
    found = estimate(plan, engine, stack, len(todo), _pixel_bytes(model.spec, config, outputs))
    if found.is_news:
        notify(Noted(found.sentence))
    write = Writer(plan, model.spec, outputs, window)
    return _Run(plan, engine, stack, write, total, notify, stop).do(todo)


def compute_chunks(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    outputs: Mapping[str, Writable],
    plan: Plan,
    wanted: Collection[tuple[int, ...]],
    *,
    window: Window | None,
    pixel_range: Range,
    notify: Notify,
    stop: Stop,
) -> bool:
    """Compute some chunks of a segmentation whose others are computed elsewhere.

    Parameters
    ----------
    model, stack, config, outputs, window, stop
        As for `segment`.
    plan : Plan
        From `make_plan`, with the chunks of the outputs.
    wanted : collection of tuple of int
        Index of each chunk to compute.
    pixel_range : Range
        Black and white of each channel.
    notify : callable
        Receives `Warned`, and a `TileDone` for each chunk.

    Returns
    -------
    bool
        True if stopped before the end.
    """
    todo = [work for work in plan.works() if work.index in wanted]
    engine = _engine(model, stack, config, tuple(outputs), pixel_range, plan)
    write = Writer(plan, model.spec, outputs, window)
    return _Run(plan, engine, stack, write, len(todo), notify, stop).do(todo)


def foresee(
    model: UNetModel, stack: Stack, config: PredictConfig, kinds: Sequence[str], window: Window | None
) -> Estimate:
    """Say what segmenting an image would take, without doing it.

    Parameters
    ----------
    model, stack, config, window
        As for `segment`.
    kinds : sequence of str
        Outputs.

    Returns
    -------
    Estimate
        Memory, time and tiles.

    Raises
    ------
    DataError
        If the image has other channels than the model reads.
    """
    check_channels(model.spec, stack)
    plan = make_plan(model, stack, config, kinds, None, window)
    channels = stack.shape[3]
    engine = _engine(model, stack, config, kinds, Range((0.0,) * channels, (1.0,) * channels), plan)
    todo = len(plan.slices) * len(plan.tiles)
    return estimate(plan, engine, stack, todo, _pixel_bytes(model.spec, config, kinds), always=True)


def make_plan(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    kinds: Sequence[str],
    chunk: tuple[int, int] | None = None,
    window: Window | None = None,
    *,
    memory: int | None = None,
    parts: int = 1,
) -> Plan:
    """Plan how an image is segmented.

    Parameters
    ----------
    model, stack, config, chunk, window
        As for `segment`.
    kinds : sequence of str
        Outputs.
    memory : int, optional
        Bytes that are free where tiles are computed; by default those of this computer.
    parts : int
        How many chunks there should be, where they are not given, so that several processes have something to do.

    Raises
    ------
    ConfigError
        If the largest tile allowed is too small for the network.
    ModelError
        If uncertainty is asked of a model without dropout.
    """
    if SAMPLED in kinds:
        check_dropout(model.spec)
    reach, stride = needed_halo(model.network, config), model.spec.network.stride
    largest = largest_tile(
        config, model.spec, settle_precision(config), reach, several_passes=SAMPLED in kinds, memory=memory
    )
    # Asked for even when the chunk is given: it refuses a tile limit that no chunk can keep.
    best = best_chunk(stack, reach, stride, largest, parts)
    slices, sides = (window[0], window[1:]) if window else (None, None)
    one_shape = computing.compile_ahead() or backend.device_name() != "CPU"
    return Plan.of(stack, chunk or best, reach, stride, largest, slices, sides, one_shape=one_shape)


def compute_tile(
    forward: computing.Forward, stack: Stack, n: int, tile: Tile, stride: int, pixel_range: Range
) -> npt.NDArray[np.float32]:
    """Read, normalise, compute and crop one tile; (y, x, L), as large as ``tile.write``."""
    pixels = pixel_range.apply(read_tile(stack, n, tile, stride))
    computed: npt.NDArray[np.float32] = forward(pixels[None])[0][tile.crop]
    return computed


class _Run:
    """Computes chunks and writes them.

    On an accelerator, the next tile is read and the last chunk written while a tile is computed; a processor has no time left over.
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
        self._writing: deque[Future[None]] = deque()

    def do(self, todo: Sequence[Work]) -> bool:
        """Compute `todo`; return True if stopped before the end."""
        self._left, self._begun, self._count = len(todo), perf_counter(), len(todo)
        with _threads(self._ahead) as reader, _threads(self._ahead) as writer:
            found: list[tuple[Tile, Answers]] = []
            for (work, tile, last), pixels in self._read(todo, reader):
                if self._stop():
                    self._settle(0)
                    return True
                found.append((tile, self._answers(work.n, tile, pixels)))
                if last:
                    self._writing.append(writer.submit(self._write, work, _assembled(work.tile, found)))
                    self._settle(self._ahead)
                    found = []
            self._settle(0)
        return False

    def _parts(self, todo: Iterable[Work]) -> Iterator[tuple[Work, Tile, bool]]:
        """List the tiles of each chunk; the flag says which is the last of its chunk."""
        for work in todo:
            *others, last = self._plan.tiles_of(work.tile, self._largest)
            yield from ((work, tile, False) for tile in others)
            yield work, last, True

    def _read(self, todo: Iterable[Work], reader: Executor) -> Iterator[tuple[tuple[Work, Tile, bool], Any]]:
        reading: deque[tuple[tuple[Work, Tile, bool], Future[Any]]] = deque()
        for part in self._parts(todo):
            reading.append((part, reader.submit(self._load, part[0].n, part[1])))
            if len(reading) > self._ahead:
                done, pixels = reading.popleft()
                yield done, pixels.result()
        for done, pixels in reading:
            yield done, pixels.result()

    def _load(self, n: int, tile: Tile) -> npt.NDArray[Any]:
        return read_tile(self._stack, n, tile, self._plan.stride)

    def _answers(self, n: int, tile: Tile, pixels: npt.NDArray[Any]) -> Answers:
        try:
            with computing.memory_errors():
                return self._engine(pixels, n, tile)
        except MemoryError:
            parts = self._smaller(tile)
        return _assembled(tile, [(part, self._answers(n, part, self._load(n, part))) for part in parts])

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

    def _settle(self, most: int) -> None:
        """Wait until at most that many chunks are still being written, and tell of those that are done."""
        while len(self._writing) > most:
            self._writing.popleft().result()
            self._left -= 1
            done = self._count - self._left
            left = (perf_counter() - self._begun) / done * self._left
            self._notify(TileDone(self._total - self._left, self._total, left))


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


def _engine(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    kinds: Sequence[str],
    pixel_range: Range,
    plan: Plan,
) -> Engine:
    # Of all chunks, also those that are done or another worker's: each is computed in the same way.
    pixels = len(plan.slices) * sum(map(pixels_of, plan.tiles))
    model = model.in_precision(settle_precision(config))
    return Engine(model, config, kinds, pixel_range, stack.dtype, pixels)


def settle_precision(config: PredictConfig) -> backend.Precision:
    """Return the precision to compute in: as asked, or what this computer is fast in."""
    if config.precision != "auto":
        return config.precision
    return "bfloat16" if this_computer().bfloat16 else "float32"


def _pixel_bytes(spec: ModelSpec, config: PredictConfig, kinds: Iterable[str]) -> float:
    return bytes_per_pixel(spec, settle_precision(config), several_passes=SAMPLED in kinds)
