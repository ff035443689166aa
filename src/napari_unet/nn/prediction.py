"""Applying a network to images of any size, tile by tile, exactly.

A tile is read with the network's halo, so the tiled output equals that of the whole image.
One chunk of the output is the unit of work, of writing and of resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.instances import IDS
from napari_unet.data.labels import ClassMap
from napari_unet.data.normalize import Range, survey
from napari_unet.data.tiling import Halo, Tile, chunk_shape, plan, read_tile
from napari_unet.errors import ModelError
from napari_unet.events import Notify, PredictStarted, Stop, TileDone, Warned, ignore_events, never_stop
from napari_unet.nn import backend
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import halo
from napari_unet.spec import ModelSpec

__all__ = ["Layout", "Output", "Window", "best_chunk", "compute_tile", "output_layout", "segment"]

_TILE_BYTES = 2e9

_BYTES_PER_PIXEL = {"float32": 17, "bfloat16": 11}
"""Memory of a pass, per pixel and filter of the first module: 261 and 165 bytes were measured at 16 filters."""

Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""(start, stop) in slices, y and x: the part to segment."""


class Output(Protocol):
    """What results are written to: a numpy or zarr array."""

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Write a block."""
        ...


class Layout(NamedTuple):
    """How an output lies in memory.

    Parameters
    ----------
    shape : tuple of int
        (T, Z, Y, X) as far as the image has these axes; C first with more than one map.
    axes : str
        Their letters.
    dtype : numpy.dtype
        Of the pixels.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]


def output_layout(spec: ModelSpec, stack: Stack, kind: str, config: PredictConfig | None = None) -> Layout:
    """Say how an output of `segment` lies in memory.

    Parameters
    ----------
    spec : ModelSpec
        The model's card.
    stack : Stack
        The image.
    kind : {"labels", "probabilities"}
        Labels hold the painted value of each pixel's class, in the smallest unsigned type; or the object
        of each pixel (`napari_unet.data.decoding.IDS`) where the model knows objects.
        Probabilities hold one map for two classes (of the higher value), else one map a class,
        in the order of ``spec.classes``.
    config : PredictConfig, optional
        Says the type of probabilities.

    Returns
    -------
    Layout
        Shape, axes and dtype.
    """
    if kind == "labels":
        dtype = IDS if spec.objects else _class_map(spec).decode(np.zeros(1, np.uint8)).dtype
        return Layout(stack.out_shape, stack.out_axes, dtype)
    dtype = np.dtype((config or PredictConfig()).probability_type)
    if spec.network.logits == 1:
        return Layout(stack.out_shape, stack.out_axes, dtype)
    return Layout((spec.network.classes, *stack.out_shape), "C" + stack.out_axes, dtype)


def best_chunk(model: UNetModel, stack: Stack, config: PredictConfig | None = None) -> tuple[int, int]:
    """Return the chunk (cy, cx), in pixels, that is computed fastest within the largest tile allowed."""
    config = config or PredictConfig()
    stride = model.spec.network.stride
    return chunk_shape(_size(stack), halo(model.network), stride, _max_pixels(config, model.spec))


def segment(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    outputs: Mapping[str, Output],
    *,
    chunk: tuple[int, int] | None = None,
    window: Window | None = None,
    is_done: Callable[[tuple[int, ...]], bool] | None = None,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> bool:
    """Segment an image into `outputs`.

    Emits `PredictStarted` (its `outputs` are for the caller to fill in), `Warned`, and a
    `TileDone` for each chunk.

    Parameters
    ----------
    model : UNetModel
        A trained model.
    stack : Stack
        The image: any size, as many channels as the model reads.
    config : PredictConfig
        Settings.
    outputs : mapping of str to array
        ``"labels"`` and ``"probabilities"``, or one of them, laid out as `output_layout` says and
        full of zeros. Each chunk is written once, whole, in the order of the mapping:
        the last output's chunk is the sign that all are there.
    chunk : (cy, cx), optional
        Pixels of a chunk, multiples of the network's stride or at least the image's size; by
        default `best_chunk`. A chunk larger than the largest tile is assembled from tiles.
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
    ModelError
        If the image has other channels than the model reads, if the model lacks the brightness range
        that ``normalize="model"`` asks for, or if labels are asked of a model that knows objects.
    """
    _check_channels(model.spec, stack)
    if model.spec.objects and "labels" in outputs:
        raise ModelError("Objects are made of the probabilities of whole slices: compute these first.")
    plan_ = _Plan.of(model, stack, config, chunk, window)
    todo = [work for work in plan_.works() if is_done is None or not is_done(work.index)]
    total = sum(1 for _ in plan_.works())
    notify(PredictStarted({}, total - len(todo), total, backend.device_name()))
    if not todo:
        return False
    pixel_range = _pixel_range(model.spec, stack, config, notify, stop)
    if stop():
        return True
    forward = model.in_precision(config.precision).probabilities
    write = _Writer(model.spec, stack, config, outputs, window)
    started = perf_counter()
    for done, work in enumerate(todo, 1):
        block = _compute(plan_, forward, stack, work, pixel_range, stop)
        if block is None:
            return True
        write(work, block)
        left = (perf_counter() - started) / done * (len(todo) - done)
        notify(TileDone(total - len(todo) + done, total, left))
    return False


def compute_tile(
    forward: backend.Forward, stack: Stack, n: int, tile: Tile, stride: int, pixel_range: Range
) -> npt.NDArray[np.float32]:
    """Read, normalise, compute and crop one tile; (y, x, L), as large as ``tile.write``."""
    pixels = pixel_range.apply(read_tile(stack, n, tile, stride))
    computed: npt.NDArray[np.float32] = forward(pixels[None])[0][tile.crop]
    return computed


@dataclass(frozen=True)
class _Work:
    """One chunk of one slice."""

    n: int
    index: tuple[int, ...]  # slice indices, chunk row, chunk column
    tile: Tile


@dataclass(frozen=True)
class _Plan:
    """What to compute, in which order."""

    size: tuple[int, int]
    slice_shape: tuple[int, ...]
    slices: range
    chunk: tuple[int, int]
    tiles: list[Tile]
    halo: Halo
    stride: int
    max_pixels: int

    @classmethod
    def of(
        cls,
        model: UNetModel,
        stack: Stack,
        config: PredictConfig,
        chunk: tuple[int, int] | None,
        window: Window | None,
    ) -> _Plan:
        size, count = _size(stack), stack.shape[0]
        reach, stride = halo(model.network), model.spec.network.stride
        # Asked for even when the chunk is given: it refuses a tile limit that no chunk can keep.
        largest = _max_pixels(config, model.spec)
        best = chunk_shape(size, reach, stride, largest)
        chunk = chunk or best
        first, last = window[0] if window else (0, count)
        tiles = plan(size, chunk, reach, stride, window[1:] if window else None)
        return cls(
            size, stack.slice_shape, range(first, min(last, count)), chunk, tiles, reach, stride,
            largest,
        )  # fmt: skip

    def works(self) -> Iterator[_Work]:
        """List the chunks, slice by slice."""
        for n, tile in product(self.slices, self.tiles):
            row, column = (
                write.start // length for write, length in zip(tile.write, self.chunk, strict=True)
            )
            yield _Work(n, (*_slice_index(n, self.slice_shape), row, column), tile)

    def tiles_of(self, tile: Tile) -> list[Tile]:
        """Cut the tile of a chunk into tiles that keep the limit; usually it does."""
        if _pixels(tile) <= self.max_pixels:
            return [tile]
        window = tuple((side.start, side.stop) for side in tile.write)
        sides = list(self.chunk)
        while True:
            longer = int(sides[1] >= sides[0])
            # Halved, so that the parts meet the borders of the chunk; rounded up to the stride.
            sides[longer] = -(-sides[longer] // (2 * self.stride)) * self.stride
            parts = plan(self.size, (sides[0], sides[1]), self.halo, self.stride, (window[0], window[1]))
            if max(map(_pixels, parts)) <= self.max_pixels or sides == [self.stride, self.stride]:
                return [_cut(part, tile) for part in parts]


def _compute(
    plan_: _Plan, forward: backend.Forward, stack: Stack, work: _Work, pixel_range: Range, stop: Stop
) -> npt.NDArray[np.float32] | None:
    """Probabilities (y, x, L) of a chunk; None if stopped."""
    tiles = plan_.tiles_of(work.tile)
    block: npt.NDArray[np.float32] | None = None
    top, left = (side.start for side in work.tile.write)
    for tile in tiles:
        if stop():
            return None
        part = compute_tile(forward, stack, work.n, tile, plan_.stride, pixel_range)
        if len(tiles) == 1:
            return part
        if block is None:
            size = (side.stop - side.start for side in work.tile.write)
            block = np.empty((*size, part.shape[-1]), np.float32)
        y, x = tile.write
        block[y.start - top : y.stop - top, x.start - left : x.stop - left] = part
    return block


class _Writer:
    """Turns probabilities into the outputs asked for."""

    def __init__(
        self,
        spec: ModelSpec,
        stack: Stack,
        config: PredictConfig,
        outputs: Mapping[str, Output],
        window: Window | None,
    ) -> None:
        self._outputs = outputs
        self._classes = _class_map(spec)
        self._threshold = spec.threshold if config.threshold is None else config.threshold
        self._bytes = config.probability_type == "uint8"
        self._slice_shape = stack.slice_shape
        self._window = window

    def __call__(self, work: _Work, probabilities: npt.NDArray[np.float32]) -> None:
        where = (*_slice_index(work.n, self._slice_shape), *work.tile.write)
        inside = None if self._window is None else _inside(work.tile, self._window)
        for kind, output in self._outputs.items():
            # The class axis first, where there is one.
            key = where if kind == "labels" or probabilities.shape[-1] == 1 else (slice(None), *where)
            block = self._labels(probabilities) if kind == "labels" else self._maps(probabilities)
            output[key] = block if inside is None else np.where(inside, block, block.dtype.type(0))

    def _labels(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        if probabilities.shape[-1] == 1:
            return self._classes.decode((probabilities[..., 0] >= self._threshold).astype(np.uint8))
        return self._classes.decode(probabilities.argmax(-1))

    def _maps(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        maps = probabilities[..., 0] if probabilities.shape[-1] == 1 else np.moveaxis(probabilities, -1, 0)
        return np.rint(maps * 255).astype(np.uint8) if self._bytes else maps


def _inside(tile: Tile, window: Window) -> npt.NDArray[np.bool_]:
    """Which pixels (y, x) of a tile's write lie in the window."""
    y, x = (
        (np.arange(side.start, side.stop) >= start) & (np.arange(side.start, side.stop) < stop)
        for side, (start, stop) in zip(tile.write, window[1:], strict=True)
    )
    return y[:, None] & x


def _cut(part: Tile, whole: Tile) -> Tile:
    """Keep of `part` what lies in the chunk of `whole`."""
    sides = []
    for crop, write, limit in zip(part.crop, part.write, whole.write, strict=True):
        low, high = max(write.start, limit.start), min(write.stop, limit.stop)
        shift = crop.start - write.start
        sides.append((slice(low + shift, high + shift), slice(low, high)))
    (crop_y, write_y), (crop_x, write_x) = sides
    return Tile(part.read, (crop_y, crop_x), (write_y, write_x))


def _pixel_range(spec: ModelSpec, stack: Stack, config: PredictConfig, notify: Notify, stop: Stop) -> Range:
    """Black and white of each channel, from the whole image or as the training images had them."""
    given = spec.normalization
    if config.normalize == "model":
        if not given.low or not given.high:
            raise ModelError(
                f"Model {spec.name!r} does not say which brightness its training images had: "
                "take the brightness range from the image."
            )
        return Range(given.low, given.high)
    found = survey(stack, given.lower, given.upper, stop)
    if found.not_finite:
        notify(
            Warned(
                f"Image {stack.name!r} has {found.not_finite:,} values that are NaN or infinite; they count as 0."
            )
        )
    if any(found.constant) and not stop():
        notify(
            Warned(f"Image {stack.name!r} has the same value everywhere, so there is nothing to tell apart.")
            if all(found.constant)
            else Warned(f"A channel of image {stack.name!r} has the same value everywhere.")
        )
    return found.range


def _check_channels(spec: ModelSpec, stack: Stack) -> None:
    wanted, found = spec.network.channels, stack.shape[3]
    if wanted == found:
        return
    way_out = (
        "convert the image to grey (one channel)" if wanted == 1 else f"give an image of {wanted} channels"
    )
    raise ModelError(
        f"Model {spec.name!r} reads {wanted} channel{'s' * (wanted > 1)}, but image {stack.name!r} has {found} "
        f"(axes {stack.axes}): {way_out}, or use a model trained on images like this."
    )


def _class_map(spec: ModelSpec) -> ClassMap:
    return ClassMap(tuple(c.value for c in spec.classes), "background")


def _slice_index(n: int, slice_shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(n, slice_shape)) if slice_shape else ()


def _size(stack: Stack) -> tuple[int, int]:
    return int(stack.shape[1]), int(stack.shape[2])


def _max_pixels(config: PredictConfig, spec: ModelSpec) -> int:
    """Pixels of the largest tile: as asked, or as many as the network computes in 2 GB."""
    if config.tile_megapixels is not None:
        return int(config.tile_megapixels * 1e6)
    return int(_TILE_BYTES / (_BYTES_PER_PIXEL[config.precision] * spec.network.filters))


def _pixels(tile: Tile) -> int:
    y, x = tile.read
    return int((y.stop - y.start) * (x.stop - x.start))
