"""What to compute in which order: the chunks of a result, the tiles they are made of, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window
from napari_unet.data.tiling import Halo, Tile, chunk_shape, plan
from napari_unet.nn.backend import Precision
from napari_unet.spec import ModelSpec

__all__ = ["Plan", "Work", "best_chunk", "bytes_per_pixel", "largest_tile", "pixels_of"]

_MOST_PIXELS = 6_750_000
"""Of a tile. Larger ones gain little: of a large image, these compute 1.2 pixels for each that they write. With 16 filters they take 2 GB."""

_MOST_PIXELS_ACCELERATED = 9_000_000
"""The same on an accelerator: two of them are an image of 4096 x 4096, of which they compute 1.05 pixels for each instead of 1.16."""

_SHARE = 0.5
"""Of the free memory that a tile may take; the estimate can be wrong, and others need some too."""

_LEAST = 2**20
"""Pixels of a tile that is not made smaller for the sake of more chunks: it would be halo for the most part."""

_BYTES_PER_PIXEL = {"float32": 17, "bfloat16": 11}
"""Memory of a pass, per pixel and filter of the first module: 261 and 165 bytes were measured at 16 filters."""

_BYTES_OF_SKIPS = {"float32": 8, "bfloat16": 4}
"""And of the contracting path's features that are kept from one pass with dropout to the next."""


_COPIES_OF_PIXELS, _COPIES_OF_MAPS = 2, 4
"""Of pixels (as they are, normalised) and of probabilities (logits, softmax, logarithms, bytes) that are there at once, in float32."""


def bytes_per_pixel(spec: ModelSpec, precision: Precision, *, several_passes: bool = False) -> float:
    """Return the memory that computing a tile takes, in bytes for each of its pixels."""
    network = spec.network
    kept = _BYTES_OF_SKIPS[precision] if several_passes else 0
    ends = 4 * (_COPIES_OF_PIXELS * network.channels + _COPIES_OF_MAPS * network.logits)
    return float((_BYTES_PER_PIXEL[precision] + kept) * network.filters + ends)


def largest_tile(
    config: PredictConfig,
    spec: ModelSpec,
    precision: Precision,
    reach: Halo,
    memory: int,
    *,
    several_passes: bool = False,
    accelerated: bool = False,
) -> int:
    """Return the pixels of the largest tile: as asked, or as many as memory is there for.

    Parameters
    ----------
    config : PredictConfig
        Settings.
    spec : ModelSpec
        The model's card.
    precision : {"float32", "bfloat16"}
        Of the computation.
    reach : Halo
        Around a tile. Where memory is short, tiles of twice its width are still tried.
    memory : int
        Bytes that are free where the tile is computed.
    several_passes : bool
        Whether features are kept from one pass to the next.
    accelerated : bool
        Whether it is computed on an accelerator.
    """
    if config.tile_megapixels is not None:
        return int(config.tile_megapixels * 1e6)
    most = _MOST_PIXELS_ACCELERATED if accelerated else _MOST_PIXELS
    pixel = bytes_per_pixel(spec, precision, several_passes=several_passes)
    return max(_smallest(reach, spec.network.stride), min(most, int(_SHARE * memory / pixel)))


def best_chunk(
    stack: Stack, reach: Halo, stride: int, largest: int, parts: int = 1, *, one_shape: bool = False
) -> tuple[int, int]:
    """Return the chunk (cy, cx), in pixels, that is computed fastest with tiles of at most `largest` pixels.

    With `parts`, chunks are so small that the stack has about as many, as far as that is sensible. With `one_shape`, all
    tiles will be as large as the largest.
    """
    if parts > 1:
        slices, height, width, _ = stack.shape
        largest = min(largest, max(_LEAST, slices * height * width // parts))
    return chunk_shape((stack.shape[1], stack.shape[2]), reach, stride, largest, one_shape=one_shape)


@dataclass(frozen=True)
class Work:
    """One chunk of one slice.

    Parameters
    ----------
    n : int
        Slice, counted over time and depth.
    index : tuple of int
        Slice indices, chunk row, chunk column.
    tile : Tile
        As a whole; it may be too large to compute at once.
    """

    n: int
    index: tuple[int, ...]
    tile: Tile


@dataclass(frozen=True)
class Plan:
    """How a stack is cut into chunks, and these into tiles.

    Parameters
    ----------
    size : tuple of int
        (Y, X) of the image.
    slice_shape : tuple of int
        Length of each axis of slices.
    slices : range
        Those to compute.
    chunk : tuple of int
        (cy, cx).
    tiles : list of Tile
        Of a slice, one for each chunk.
    halo : Halo
        Around each tile.
    stride : int
        Of the network.
    largest : int
        Pixels of the largest tile that is computed at once.
    """

    size: tuple[int, int]
    slice_shape: tuple[int, ...]
    slices: range
    chunk: tuple[int, int]
    tiles: list[Tile]
    halo: Halo
    stride: int
    largest: int

    @classmethod
    def of(
        cls,
        stack: Stack,
        chunk: tuple[int, int],
        reach: Halo,
        stride: int,
        largest: int,
        window: Window | None = None,
        *,
        one_shape: bool = False,
    ) -> Plan:
        """Plan a stack, or a part of it."""
        count, *size = stack.shape[:3]
        (first, last), *sides = window or ((0, count), (0, size[0]), (0, size[1]))
        tiles = plan((size[0], size[1]), chunk, reach, stride, (sides[0], sides[1]), one_shape=one_shape)
        return cls(
            (size[0], size[1]), stack.slice_shape, range(first, min(last, count)), chunk, tiles, reach,
            stride, largest,
        )  # fmt: skip

    def works(self) -> Iterator[Work]:
        """List the chunks, slice by slice."""
        for n, tile in product(self.slices, self.tiles):
            row, column = (
                write.start // length for write, length in zip(tile.write, self.chunk, strict=True)
            )
            yield Work(n, (*self.slice_index(n), row, column), tile)

    def slice_index(self, n: int) -> tuple[int, ...]:
        """Return the indices of a slice in time and depth."""
        return tuple(map(int, np.unravel_index(n, self.slice_shape))) if self.slice_shape else ()

    def tiles_of(self, tile: Tile, largest: int | None = None) -> list[Tile]:
        """Cut the tile of a chunk into tiles that keep the limit; usually it does."""
        most = self.largest if largest is None else largest
        if pixels_of(tile) <= most:
            return [tile]
        window = tuple((side.start, side.stop) for side in tile.write)
        sides = list(self.chunk)
        while True:
            longer = int(sides[1] >= sides[0])
            # Halved, so that the parts meet the borders of the chunk; rounded up to the stride.
            half = -(-sides[longer] // (2 * self.stride)) * self.stride
            smallest = half >= sides[longer]  # an image may be narrower than the stride
            sides[longer] = min(half, sides[longer])
            parts = plan(self.size, (sides[0], sides[1]), self.halo, self.stride, (window[0], window[1]))
            if max(map(pixels_of, parts)) <= most or smallest:
                return [_cut(part, tile) for part in parts]

    @property
    def computed(self) -> float:
        """Megapixels of the largest tile that is computed, which on a small image is far from the limit."""
        return max(pixels_of(part) for tile in self.tiles for part in self.tiles_of(tile)) / 1e6

    @property
    def smallest(self) -> float:
        """Megapixels of the smallest tile that is worth computing."""
        return _smallest(self.halo, self.stride) / 1e6


def _smallest(reach: Halo, stride: int) -> int:
    """Pixels of a tile of which a quarter is kept; smaller ones would compute mostly halo."""
    return int((2 * (reach.before + reach.after + stride)) ** 2)


def pixels_of(tile: Tile) -> int:
    """Count the pixels that are computed for a tile."""
    y, x = tile.read
    return int((y.stop - y.start) * (x.stop - x.start))


def _cut(part: Tile, whole: Tile) -> Tile:
    """Keep of `part` what lies in the chunk of `whole`."""
    sides = []
    for crop, write, limit in zip(part.crop, part.write, whole.write, strict=True):
        low, high = max(write.start, limit.start), min(write.stop, limit.stop)
        shift = crop.start - write.start
        sides.append((slice(low + shift, high + shift), slice(low, high)))
    (crop_y, write_y), (crop_x, write_x) = sides
    return Tile(part.read, (crop_y, crop_x), (write_y, write_x))
