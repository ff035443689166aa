"""Which objects of two pictures of one place are the same: across blocks of a slice, and across slices.

Sources
-------
Joining slices by overlap : the `stitch_threshold` of Cellpose (Stringer et al., "Cellpose: a generalist
algorithm for cellular segmentation", Nature Methods 18, 2021). There, several objects of one slice may
take the number of one object of the slice before; here each has one partner at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = [
    "LINKED",
    "Box",
    "Pairs",
    "Part",
    "Seams",
    "best_pairs",
    "common",
    "groups",
    "shared_pixels",
    "within",
]

LINKED = 0.25
"""Least IoU of objects of neighbouring slices that are joined."""

_SAME = 0.5  # IoU above which an object can have one partner only

Box = tuple[slice, slice]
"""Rows and columns."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Numbers of objects that are the same, or pixels, one of each."""


def common(one: Box, other: Box) -> Box | None:
    """Return the pixels that two boxes share, or None."""
    y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return (y, x) if y.start < y.stop and x.start < x.stop else None


def within(box: Box, origin: Box) -> Box:
    """Return a box as seen from the first pixel of another."""
    y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, origin, strict=True))
    return y, x


def groups(pairs: Pairs, count: int) -> NDArray[np.int64]:
    """Join things that are the same.

    Parameters
    ----------
    pairs : tuple of ndarray of int64, shape (pairs,)
        Things from 0 that are the same.
    count : int
        Number of things.

    Returns
    -------
    ndarray of int64, shape (count,)
        Group of each, from 0 without gaps.
    """
    if not len(pairs[0]):
        return np.arange(count)
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def shared_pixels(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    """Count the pixels that objects of two pictures share.

    Parameters
    ----------
    one, other : ndarray of int, any one shape
        Objects; 0 is none.

    Returns
    -------
    i, j, counts : ndarray of int64, shape (pairs,)
        Objects of `one` and `other` that overlap, and by how many pixels.
    """
    both = (one > 0) & (other > 0)
    a, b = one[both].astype(np.int64), other[both].astype(np.int64)
    width = int(b.max(initial=0)) + 1
    keys, counts = np.unique(a * width + b, return_counts=True)
    i, j = np.divmod(keys, width)
    return i, j, counts.astype(np.int64)


def best_pairs(
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    counts: NDArray[np.int64],
    areas: tuple[NDArray[np.int64], NDArray[np.int64]],
    least: float = LINKED,
) -> Pairs:
    """Choose the objects of two slices that are each other's best overlap.

    Parameters
    ----------
    i, j, counts : ndarray of int64, shape (n,)
        Pixels that objects of the two slices share; a pair may be there several times.
    areas : tuple of ndarray of int64, shape (objects + 1,)
        Pixels of each object of both slices, by its number.
    least : float
        Least IoU of a pair.

    Returns
    -------
    i, j : ndarray of int64, shape (pairs,)
        Numbers; each object is in one pair at most. Of equal overlaps, that with the lower number counts.
    """
    width = len(areas[1])
    keys, inverse = np.unique(i * width + j, return_inverse=True)
    i, j = np.divmod(keys, width)
    shared = np.bincount(inverse, counts, len(keys))
    iou = shared / (areas[0][i] + areas[1][j] - shared)
    best_of_i = _first(i, np.lexsort((j, -iou, i)))
    best_of_j = _first(j, np.lexsort((i, -iou, j)))
    chosen = np.intersect1d(best_of_i, best_of_j)
    chosen = chosen[iou[chosen] >= least]
    return i[chosen], j[chosen]


def _first(values: NDArray[np.int64], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places where each value comes first, in an order."""
    return order[np.unique(values[order], return_index=True)[1]]


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """Objects of a block that was decoded with a margin.

    Parameters
    ----------
    box : Box
        The block and its margins.
    objects : ndarray of int, shape (y, x)
        Objects 1, 2, ...; 0 is none.
    sown : ndarray of bool, shape (y, x)
        Pixels from which the objects grew.
    before : int
        What is added to these numbers to tell them from those of other blocks.
    """

    box: Box
    objects: NDArray[Any]
    sown: NDArray[np.bool_]
    before: int

    def cut(self, box: Box) -> Part:
        """Return what lies in a smaller box."""
        here = within(box, self.box)
        return Part(box, self.objects[here].copy(), self.sown[here].copy(), self.before)


class Seams:
    """Joins the objects of blocks that were decoded with a margin, each alone, row by row.

    Where two blocks, margins included, overlap, two objects are the same if they grew from a common
    pixel, as what is a seed does not depend on the block. Of objects for which there is no such pixel,
    those with an IoU above 0.5 there are the same: their seeds lie farther away than the margin.
    Seeds that were parted at necks do depend on the block near the end of its margin, where shapes are cut. These are
    compared along the border between the blocks alone, which an object of both has to cross. Of the blocks no more is kept than what those to come overlap with: two rows of blocks, the upper of
    them without what lies above its margins.

    Parameters
    ----------
    margin : int
        Pixels around each block.
    side : int
        Pixels of a side of a block.
    necks : bool
        Whether seeds were parted at necks.
    """

    def __init__(self, margin: int, side: int, *, necks: bool) -> None:
        self.margin, self.side, self.necks = margin, side, necks
        self._kept: dict[tuple[int, int], Part] = {}

    def add(self, at: tuple[int, int], part: Part) -> Pairs:
        """Return which objects of a block are the same as objects of the blocks before.

        Parameters
        ----------
        at : (row, column)
            Of the block; blocks come row by row.
        part : Part
            Its objects.

        Returns
        -------
        Pairs
            Numbers with what was added.
        """
        row, column = at
        found: list[Pairs] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for near in ((row, column - 1), (row - 1, column - 1), (row - 1, column), (row - 1, column + 1)):
            other = self._kept.get(near)
            strip = common(part.box, other.box) if other else None
            if strip and self.necks:
                strip = common(strip, self._border(at, near, strip))
            if other and strip:
                i, j = _same(part.cut(strip), other.cut(strip))
                found.append((i + part.before, j + other.before))
        self._kept = {key: self._lower(kept) for key, kept in self._kept.items() if key >= (row - 1, column)}
        self._kept[at] = part
        return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])

    def _border(self, at: tuple[int, int], near: tuple[int, int], strip: Box) -> Box:
        """Return the pixels on both sides of the border between two blocks, or of their corner."""
        first, second = (max(a, b) * self.side for a, b in zip(at, near, strict=True))
        y, x = strip
        return (
            y if at[0] == near[0] else slice(first - 1, first + 1),
            x if at[1] == near[1] else slice(second - 1, second + 1),
        )

    def _lower(self, part: Part) -> Part:
        """Leave only what the next row of blocks can overlap with."""
        y, x = part.box
        return part.cut((slice(max(y.start, y.stop - 2 * self.margin), y.stop), x))


def _same(one: Part, other: Part) -> Pairs:
    sure_i, sure_j, _ = shared_pixels(one.objects * one.sown, other.objects * other.sown)
    i, j, shared = shared_pixels(one.objects, other.objects)
    areas = np.bincount(one.objects.ravel())[i] + np.bincount(other.objects.ravel())[j]
    chosen = (shared > _SAME * (areas - shared)) & ~np.isin(i, sure_i) & ~np.isin(j, sure_j)
    return np.append(sure_i, i[chosen]), np.append(sure_j, j[chosen])
