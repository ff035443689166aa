"""What a segmentation will take, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import psutil

from napari_unet.data.axes import Stack
from napari_unet.data.tiling import Tile
from napari_unet.nn import backend, computing
from napari_unet.nn.engine import Engine
from napari_unet.nn.plan import Plan, pixels_of
from napari_unet.words import count, duration

__all__ = ["Estimate", "estimate"]

_SIDE = 256
"""Of the tile that is timed on a processor, in pixels."""

_LARGE = 1_000_000
"""Pixels of a tile that takes memory worth mentioning."""

_WORTH = 100
"""What takes less than this many of those is not timed first."""


@dataclass(frozen=True)
class Estimate:
    """What a segmentation takes.

    Parameters
    ----------
    memory : float
        Of the process at its peak, in bytes.
    seconds : float or None
        None where so little is to be done that it was not looked into.
    tiles : int
        To compute.
    largest : tuple of int
        (Y, X) of the largest tile, in pixels.
    waste : float
        Computed pixels for each pixel of the result.
    written : float
        Pixels of the result.
    """

    memory: float
    seconds: float | None
    tiles: int
    largest: tuple[int, int]
    waste: float
    written: float

    def longer(self, seconds: float) -> Estimate:
        """Add time for what comes after the network, if that of the network is known."""
        return self if self.seconds is None else replace(self, seconds=self.seconds + seconds)

    @property
    def is_news(self) -> bool:
        """Whether it is worth telling: of a single small tile there is nothing to tell."""
        return self.tiles > 1 or self.largest[0] * self.largest[1] >= _LARGE

    @property
    def sentence(self) -> str:
        """Say it to the user."""
        y, x = self.largest
        time = "" if self.seconds is None else f" and {duration(self.seconds)}"
        return (
            f"This takes about {self.memory / 2**30:.1f} GiB of memory{time}: "
            f"{count(self.tiles, 'tile')} of up to {y:,} x {x:,} pixels."
        )


def estimate(
    plan: Plan, engine: Engine, stack: Stack, chunks: int, bytes_per_pixel: float, *, always: bool = False
) -> Estimate:
    """Estimate what it takes to compute chunks of a plan.

    The time is that of a small tile on a processor, and of the first tile on an accelerator, for each pixel.

    Parameters
    ----------
    plan : Plan
        What is computed.
    engine : Engine
        What computes it.
    stack : Stack
        The image.
    chunks : int
        How many are to be computed.
    bytes_per_pixel : float
        Memory of a pass.
    always : bool
        Measure the time even if it is hardly worth it.
    """
    tiles = [part for tile in plan.tiles for part in plan.tiles_of(tile)]
    share = chunks / max(1, len(plan.tiles))  # slices' worth of chunks
    largest = max(tiles, key=pixels_of)
    pixels = share * sum(map(pixels_of, tiles))
    written = sum(np.prod([side.stop - side.start for side in tile.write]) for tile in tiles)
    probe = largest if backend.device_name() != "CPU" else _small(largest, plan.stride)
    worth = always or pixels > _WORTH * pixels_of(probe)
    # First, as it prepares what then takes memory.
    each = _seconds_of_pixel(engine, stack, (probe, _small(largest, plan.stride))) if worth else None
    return Estimate(
        memory=psutil.Process().memory_info().rss + pixels_of(largest) * bytes_per_pixel,
        seconds=None if each is None else each * pixels,
        tiles=round(share * len(tiles)),
        largest=(_length(largest.read[0]), _length(largest.read[1])),
        waste=sum(map(pixels_of, tiles)) / float(written),
        written=share * float(written),
    )


def _small(tile: Tile, stride: int) -> Tile:
    """Cut a tile down to what is quickly computed."""
    most = -(-_SIDE // stride) * stride
    y, x = (slice(0, min(_length(side), most)) for side in tile.read)
    return Tile((y, x), (y, x), (y, x))


def _seconds_of_pixel(engine: Engine, stack: Stack, tiles: Sequence[Tile]) -> float | None:
    """Time the first of some tiles that memory is there for, for each of its pixels; None if it is there for none."""
    for tile in tiles:
        with suppress(MemoryError), computing.memory_errors():
            return _seconds(engine, stack, tile) / pixels_of(tile)
    return None


def _seconds(engine: Engine, stack: Stack, tile: Tile) -> float:
    """Time a tile, the second time: at the first, functions are traced."""
    pixels = np.zeros((_length(tile.read[0]), _length(tile.read[1]), stack.shape[3]), stack.dtype)
    engine(pixels, 0, tile)
    begun = perf_counter()
    engine(pixels, 0, tile)
    return perf_counter() - begun


def _length(side: slice) -> int:
    return int(side.stop - side.start)
