"""Where a network is least sure: the regions of an image that are most worth a look, or more paint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.axes import Stack

__all__ = ["Region", "rank_regions"]

_SIDE = 64
"""Pixels of a region: what is looked at, and painted, at a glance."""

_CELL = _SIDE // 2
"""Regions begin at multiples of this."""


@dataclass(frozen=True, slots=True)
class Region:
    """A square of one slice, cut at the image's border.

    Parameters
    ----------
    n : int
        Slice, counted over time and depth.
    y, x : tuple of int
        (start, stop) in pixels.
    unsure : float
        Mean of the map in it, 0 to 1.
    """

    n: int
    y: tuple[int, int]
    x: tuple[int, int]
    unsure: float


def rank_regions(unsure: Stack, slices: Sequence[int], most: int = 50) -> list[Region]:
    """Rank the regions of a map of uncertainty.

    Greedily, the square of 64 x 64 pixels with the highest mean first, then the next that does not overlap one
    chosen before. Reads a band of rows at a time.

    Parameters
    ----------
    unsure : Stack
        A map, as uint8 (255 stands for 1) or decimals, 0 to 1.
    slices : sequence of int
        Those to look at.
    most : int
        Regions to return at most.

    Returns
    -------
    list of Region
        Highest mean first; of equals the first in the stack. Squares that are 0 everywhere are left out.
    """
    found: list[Region] = []
    for n in slices:
        found += _of_slice(unsure, n, most)
        found.sort(key=lambda region: (-region.unsure, region.n, region.y, region.x))
        del found[most:]
    return found


def _of_slice(unsure: Stack, n: int, most: int) -> list[Region]:
    _, height, width, _ = unsure.shape
    sums, sizes = _cells(unsure, n)
    means = _squares(sums) / _squares(sizes)
    found: list[Region] = []
    while len(found) < most:
        row, column = (int(i) for i in np.unravel_index(int(means.argmax()), means.shape))
        value = float(means[row, column])
        if value <= 0:
            break
        y, x = row * _CELL, column * _CELL
        found.append(Region(n, (y, min(y + _SIDE, height)), (x, min(x + _SIDE, width)), value))
        # Squares that begin one cell before or after overlap this one.
        means[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
    return found


def _cells(unsure: Stack, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of each cell of a slice, and how many pixels it has."""
    _, height, width, _ = unsure.shape
    scale = 255.0 if unsure.dtype == np.uint8 else 1.0
    starts = np.arange(0, width, _CELL)
    rows = range(0, height, _CELL)
    sums = np.empty((len(rows), len(starts)))
    for i, top in enumerate(rows):
        band = unsure.read(n, slice(top, min(top + _CELL, height)))[..., 0].sum(axis=0, dtype=np.float64)
        sums[i] = np.add.reduceat(band, starts) / scale
    down, across = (np.minimum(_CELL, size - np.arange(0, size, _CELL)) for size in (height, width))
    return sums, np.outer(down, across).astype(np.float64)


def _squares(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up two by two neighbouring cells, fewer where the image is smaller."""
    for axis in (0, 1):
        if cells.shape[axis] > 1:
            first, second = (np.take(cells, range(i, cells.shape[axis] - 1 + i), axis) for i in (0, 1))
            cells = first + second
    return cells
