"""Applying a network to images of any size, tile by tile, exactly.

A tile is read with the network's halo, so the tiled output equals that of the whole image.
One chunk of the output is the unit of work, of writing and of resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window
from napari_unet.data.normalize import Range
from napari_unet.data.tiling import Tile, read_tile
from napari_unet.errors import ModelError
from napari_unet.events import Noted, Notify, PredictStarted, Stop, ignore_events, never_stop
from napari_unet.nn import backend, computing
from napari_unet.nn.engine import SAMPLED, Engine, needed_halo
from napari_unet.nn.estimate import Estimate, estimate
from napari_unet.nn.inputs import check_channels, check_dropout, measure_range
from napari_unet.nn.machine import memory_of_tiles, this_computer
from napari_unet.nn.model import UNetModel
from napari_unet.nn.outputs import Writable, Writer
from napari_unet.nn.pipeline import Pipeline
from napari_unet.nn.plan import Plan, best_chunk, bytes_per_pixel, largest_tile, pixels_of
from napari_unet.spec import ModelSpec

__all__ = [
    "compute_chunks",
    "compute_tile",
    "foresee",
    "make_plan",
    "segment",
    "settle_precision",
]


def segment(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    outputs: Mapping[str, Writable],
    *,
    plan: Plan | None = None,
    chunk: tuple[int, int] | None = None,
    window: Window | None = None,
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
    plan : Plan, optional
        From `make_plan`, with the same window; by default made here.
    chunk : (cy, cx), optional
        Without a plan, pixels of a chunk: multiples of the network's stride or at least the image's size; by
        default as `make_plan` finds best. A chunk larger than the largest tile is assembled from tiles.
    window : tuple of (start, stop), optional
        Part to segment, in slices, y and x. The rest stays 0.
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
    plan = plan or make_plan(model, stack, config, tuple(outputs), chunk, window)
    todo = [work for work in plan.works() if is_done is None or not is_done(work.index)]
    total = len(plan.slices) * len(plan.tiles)
    notify(PredictStarted({}, total - len(todo), total, backend.device_name()))
    if not todo:
        return False
    pixel_range = measure_range(model.spec, stack, config, notify, stop)
    if stop():
        return True
    engine = _engine(model, stack, config, tuple(outputs), pixel_range, plan)
    found = estimate(plan, engine, stack, len(todo), _pixel_bytes(model.spec, config, outputs))
    if found.is_news:
        notify(Noted(found.sentence))
    write = Writer(plan, model.spec, outputs, window)
    return Pipeline(plan, engine, stack, write, total, notify, stop).do(todo)


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
    return Pipeline(plan, engine, stack, write, len(todo), notify, stop).do(todo)


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
        Bytes that are free where tiles are computed; by default those of this computer or its accelerator.
    parts : int
        How many chunks there should be, where they are not given, so that several processes have something to do.

    Raises
    ------
    ConfigError
        If the largest tile allowed is too small for the network.
    ModelError
        If uncertainty is asked of a model without dropout.
    BackendError
        If a viewer with OpenGL lives in this process on Linux.
    """
    backend.load_keras()  # refuses to go on beside a viewer, which may have been opened since
    if SAMPLED in kinds:
        check_dropout(model.spec)
    reach, stride = needed_halo(model.network, config), model.spec.network.stride
    accelerated = backend.device_name() != "CPU"
    largest = largest_tile(
        config,
        model.spec,
        settle_precision(config),
        reach,
        memory_of_tiles() if memory is None else memory,
        several_passes=SAMPLED in kinds,
        accelerated=accelerated,
    )
    one_shape = computing.compile_ahead() or accelerated
    # Asked for even when the chunk is given: it refuses a tile limit that no chunk can keep.
    best = best_chunk(stack, reach, stride, largest, parts, one_shape=one_shape)
    return Plan.of(stack, chunk or best, reach, stride, largest, window, one_shape=one_shape)


def compute_tile(
    forward: computing.Forward, stack: Stack, n: int, tile: Tile, stride: int, pixel_range: Range
) -> npt.NDArray[np.float32]:
    """Read, normalise, compute and crop one tile; (y, x, L), as large as ``tile.write``."""
    pixels = pixel_range.apply(read_tile(stack, n, tile, stride))
    computed: npt.NDArray[np.float32] = forward(pixels[None])[0][tile.crop]
    return computed


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
