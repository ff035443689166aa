"""Ways to segment one image with Keras: in one piece, by our engine, and by `model.predict` on tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import psutil
from inference_measure import Precision, Run, Way, local, measured

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.normalize import survey
from napari_unet.data.tiling import Tile, padded, plan
from napari_unet.nn import computing
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import halo
from napari_unet.nn.prediction import segment

__all__ = ["ORIGINAL", "REWRITTEN", "Subject", "image_ways", "pixels_of", "sampled", "tiles_of_segment"]

ORIGINAL, REWRITTEN = "one traced pass", "one traced pass, rewritten"
_WHOLE_BYTES = 30
"""Memory of the original network, whole image, per pixel and filter: 350 to 426 bytes were measured at 16 filters."""
_WARM = 64  # pixels; a multiple of any network's stride
_MEMORY = 0.6  # of what is available, for a pass over the whole image


@dataclass(frozen=True)
class Subject:
    """A model and an image."""

    model: UNetModel
    image: np.ndarray  # (Y, X)
    tile_megapixels: float | None = None

    @cached_property
    def normalized(self) -> np.ndarray:
        """The image as the network reads it, (Y, X, 1)."""
        given = self.model.spec.normalization
        found = survey(Stack(self.image, "YX"), given.lower, given.upper)
        return found.range.apply(self.image[..., None])

    @cached_property
    def pixels(self) -> np.ndarray:
        """The same, mirrored to multiples of the network's stride, (1, Y', X', 1)."""
        size = (self.image.shape[0], self.image.shape[1])
        whole = padded(size, self.model.spec.network.stride)
        margins = [(0, after - before) for before, after in zip(size, whole, strict=True)]
        return np.pad(self.normalized, [*margins, (0, 0)], mode="reflect")[None]

    @property
    def fits(self) -> bool:
        """Whether the memory surely holds a pass over the whole image."""
        needed = self.pixels.size * self.model.spec.network.filters * _WHOLE_BYTES
        return needed < _MEMORY * psutil.virtual_memory().available

    def config(self, precision: Precision, **others: Any) -> PredictConfig:
        return PredictConfig(precision=precision, tile_megapixels=self.tile_megapixels, **others)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (Y, X, L) into probabilities."""
        if logits.shape[-1] == 1:
            return 1 / (1 + np.exp(-logits))
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        return odds / odds.sum(-1, keepdims=True)

    def crop(self, computed: np.ndarray) -> np.ndarray:
        """Cut what a whole pass computed, (1, Y', X', L), to the image's size."""
        return computed[0, : self.image.shape[0], : self.image.shape[1]]


def image_ways(subject: Subject, precisions: Sequence[Precision]) -> list[Way]:
    """List the ways, the right answer's first."""
    fits = subject.fits
    against = f"{REWRITTEN}, float32" if fits else "ours, float32"
    ways: list[Way] = []
    tiles: dict[Precision, list[Tile]] = {}
    for precision in precisions:
        model = subject.model.in_precision(precision)
        tiles[precision] = tiles_of_segment(subject, model, precision)
        if fits:
            ways += _whole(subject, model, precision, against)
        ways += _ours(subject, model, precision, tiles[precision], against)
    if fits:
        ways.append(_predict_whole(subject, against))
    for name, theirs in (
        ("predict, our tiles", tiles["float32"]),
        ("predict, csbdeep-style tiles", _csbdeep_tiles(subject)),
    ):
        ways += _predict_tiles(subject, name, theirs, against)
    return ways


def pixels_of(tiles: Sequence[Tile]) -> int:
    """Pixels that are computed for some tiles."""
    return sum(y * x for y, x in map(_shape, tiles))


def sampled(name: str, precision: Precision, forward: computing.Forward, tiles: Sequence[Tile]) -> Way:
    """Make a bare pass on the reads of some tiles, of which it runs one of each shape."""
    shapes = set(map(_shape, tiles))
    total, here = pixels_of(tiles), sum(y * x for y, x in shapes)
    images = [np.random.default_rng(0).random((1, *shape, 1), np.float32) for shape in sorted(shapes)]

    def work() -> None:
        for image in images:
            forward(image)

    def run() -> Run:
        # A job that ran in between set new seeds, after which TensorFlow prepares each function anew.
        forward(images[0][:, :_WARM, :_WARM])
        return measured(work)

    return Way(name, precision, total, work, run, over=name, scale=total / here, shown=False)


def tiles_of_segment(subject: Subject, model: UNetModel, precision: Precision) -> list[Tile]:
    """Find the tiles that `segment` computes, from the chunks that it writes."""
    logits = subject.model.spec.network.logits
    size = (subject.image.shape[0], subject.image.shape[1])
    chunks = _Chunks(size if logits == 1 else (logits, *size))
    config = subject.config(precision)

    def known() -> bool:
        return chunks.first != (0, 0)

    segment(model, Stack(subject.image, "YX"), config, {"probabilities": chunks}, stop=known)
    return plan(size, chunks.first, halo(subject.model.network), subject.model.spec.network.stride)


class _Chunks:
    """An output that remembers the size of its first chunk."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.first = (0, 0)
        self._shape = shape

    def __setitem__(self, key: tuple[Any, ...], value: Any) -> None:
        y, x = key[-2:]
        if (y.start, x.start) == (0, 0):
            self.first = (y.stop, x.stop)


def _whole(subject: Subject, model: UNetModel, precision: Precision, against: str) -> Iterator[Way]:
    """One pass over the whole image, by the network as it is and as we predict with it."""
    original = computing.traced(model.network)
    names = [f"{name}, {precision}" for name in (ORIGINAL, REWRITTEN)]
    works: list[Callable[[], np.ndarray]] = [
        lambda: subject.probabilities(subject.crop(original(subject.pixels))),
        lambda: subject.crop(model.probabilities(subject.pixels)),
    ]
    for name, work in zip(names, works, strict=True):
        yield local(name, precision, subject.pixels.size, work, over=name, against=against)


def _ours(
    subject: Subject, model: UNetModel, precision: Precision, tiles: list[Tile], against: str
) -> Iterator[Way]:
    """Our engine, and what its network alone takes on the tiles."""
    bare = f"our tiles, bare, {precision}"

    def forward() -> None:
        for tile in tiles:
            model.probabilities(subject.pixels[:, *tile.read])

    yield local(bare, precision, pixels_of(tiles), forward, over=bare, shown=False)
    yield local(
        f"ours, {precision}",
        precision,
        pixels_of(tiles),
        lambda: _segmented(subject, model, precision),
        over=bare,
        against=against,
    )


def _segmented(subject: Subject, model: UNetModel, precision: Precision) -> np.ndarray:
    """Segment with our engine: survey, normalisation and writing included; (Y, X, L)."""
    logits = subject.model.spec.network.logits
    maps = np.zeros(subject.image.shape if logits == 1 else (logits, *subject.image.shape), np.float32)
    config = subject.config(precision, probability_type="float32")
    segment(model, Stack(subject.image, "YX"), config, {"probabilities": maps})
    return maps[..., None] if logits == 1 else np.moveaxis(maps, 0, -1)


def _predict_whole(subject: Subject, against: str) -> Way:
    network = subject.model.network
    return local(
        "predict",
        "float32",
        subject.pixels.size,
        lambda: subject.probabilities(subject.crop(network.predict(subject.pixels, verbose=0))),
        over=f"{ORIGINAL}, float32",
        against=against,
    )


def _predict_tiles(subject: Subject, name: str, tiles: list[Tile], against: str) -> Iterator[Way]:
    """Compute tile by tile with `model.predict`, crop, put together."""
    network, logits = subject.model.network, subject.model.spec.network.logits

    def work() -> np.ndarray:
        result = np.empty((*subject.image.shape, logits), np.float32)
        for tile in tiles:
            computed = network.predict(subject.pixels[:, *tile.read], verbose=0)[0]
            result[tile.write] = computed[tile.crop]
        return subject.probabilities(result)

    bare = f"{name}, bare"
    yield sampled(bare, "float32", computing.traced(network), tiles)
    yield local(name, "float32", pixels_of(tiles), work, over=bare, against=against)


def _csbdeep_tiles(subject: Subject, side: int = 512) -> list[Tile]:
    """Tiles as CSBDeep and StarDist have them.

    Each axis is cut into ``n_tiles`` equal runs of blocks (of one stride), here as many as make them about `side`
    pixels long. A tile reads its run and, on both sides, as many whole blocks as hold the receptive field.
    """
    stride = subject.model.spec.network.stride
    reach = halo(subject.model.network)
    # The halo serves blocks on the stride's grid; any pixel needs at most stride - 1 more.
    overlap = -(-(max(reach.before, reach.after) + stride - 1) // stride)
    axes = []
    for size in subject.image.shape:
        blocks = -(-size // stride)
        run = -(-blocks // max(round(size / side), 1))
        parts = []
        for start in range(0, blocks, run):
            stop = min(start + run, blocks)
            low, high = max(start - overlap, 0) * stride, min(stop + overlap, blocks) * stride
            write = slice(start * stride, min(stop * stride, size))
            parts.append((slice(low, high), slice(write.start - low, write.stop - low), write))
        axes.append(parts)
    return [Tile((y[0], x[0]), (y[1], x[1]), (y[2], x[2])) for y, x in product(*axes)]


def _shape(tile: Tile) -> tuple[int, int]:
    y, x = tile.read
    return y.stop - y.start, x.stop - x.start
