"""The objects of one slice, block by block, as if it had been decoded whole.

Regions of the foreground that do not touch have no influence on each other. So a block is decoded
without those that go on in the next one; these are found by joining the blocks' borders, and decoded
in a box around each, or around neighbours at once. Only regions too large for that are cut: they are
decoded in blocks with a margin, and objects joined where they overlap there (see `Seams`). Objects that
are smaller than the margin come out as if the region had not been cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.blocks import IDS, Block, Blocks, Cut, Plane, decode_cut, decode_part
from napari_unet.data.stitching import Box, Pairs, Part, Seams, common, groups, within
from napari_unet.data.tally import NOWHERE, Tally, measure
from napari_unet.events import Stop
from napari_unet.spec import ObjectDecoding

__all__ = ["Numbers", "RunAll", "decode_slice"]

RunAll = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Like `map`: does the same with each of many things and returns the answers in their order."""

_WAITING = 4  # blocks' worth of pixels in boxes that wait to be put into scratch


@dataclass(frozen=True, eq=False, slots=True)
class Numbers:
    """What the scratch of a slice means.

    Parameters
    ----------
    blocks : Blocks
        How it was cut.
    shape : (y, x)
        Of the slice.
    starts : sequence of int
        Number of objects in the blocks before each, and in all. Those of other regions come after these.
    own : int
        Highest value in scratch of an object of one block; those of other regions come after it.
    table : ndarray of uint32
        Number of each of these objects, from 1; 0 for those left out.
    areas : ndarray of int64
        Pixels by number; 0 for number 0.
    """

    blocks: Blocks
    shape: tuple[int, int]
    starts: Sequence[int]
    own: int
    table: NDArray[np.uint32]
    areas: NDArray[np.int64]

    def of_block(self, at: tuple[int, int]) -> NDArray[np.uint32]:
        """Return the number of each value that scratch has in a block."""
        n = at[0] * self.blocks.grid(self.shape)[1] + at[1]
        here = self.table[self.starts[n] : self.starts[n + 1]]
        table = np.zeros(1 + self.own + len(self.table) - self.starts[-1], IDS)
        table[1 : 1 + len(here)] = here
        table[1 + self.own :] = self.table[self.starts[-1] :]
        return table

    def read(self, ids: Any, where: tuple[int, ...], box: Box) -> NDArray[np.uint32]:
        """Return the numbers of a part of the slice."""
        numbers = np.asarray(ids[(*where, *box)], IDS)
        for at in _touched(box, self.blocks.side):
            part = common(box, self.blocks.box(at, self.shape))
            if part:
                here = within(part, box)
                numbers[here] = self.of_block(at)[numbers[here]]
        return numbers


def decode_slice(
    plane: Plane,
    ids: Any,
    where: tuple[int, ...],
    blocks: Blocks,
    found: Iterator[Any],
    run_all: RunAll,
    stop: Stop,
) -> Numbers | None:
    """Find the objects of a slice.

    Parameters
    ----------
    plane : Plane
        The slice.
    ids : array-like of uint32, shape (..., y, x)
        Scratch, of the size of the window.
    where : tuple of int
        Index of the slice in scratch.
    blocks : Blocks
        How it is cut.
    found : iterator
        Answers of `decode_block` for each block, row by row.
    run_all : callable
        Like `map`.
    stop : callable
        Asked before each block and each box.

    Returns
    -------
    Numbers or None
        What scratch means now; None if stopped.
    """
    known: list[Block] = []
    for _ in blocks.places(plane.shape):
        if stop():
            return None
        known.append(next(found))
    starts = list(accumulate((len(block.tally) for block in known), initial=0))
    own = max(len(block.tally) for block in known)
    patches = _Patches(plane, ids, where, blocks, own)
    cuts, large = _cuts(plane, known, blocks)
    for cut, answer in zip(cuts, run_all(decode_cut, cuts), strict=True):
        if stop():
            return None
        patches.add(cut.box, *answer)
    pairs = _stitch(large, patches, run_all, stop)
    if pairs is None:
        return None
    patches.write()
    tally = Tally.of([*(block.tally for block in known), *patches.tallies])
    same = groups((pairs[0] + starts[-1], pairs[1] + starts[-1]), len(tally))
    table, areas = _ranked(tally.joined(same), same, plane.decoding)
    return Numbers(blocks, plane.shape, starts, own, table, areas)


class _Patches:
    """Objects decoded in boxes of their own, which are put into scratch many at a time.

    Parameters
    ----------
    plane, ids, where, blocks
        As for `decode_slice`.
    own : int
        Highest value in scratch of an object of one block.
    """

    def __init__(self, plane: Plane, ids: Any, where: tuple[int, ...], blocks: Blocks, own: int) -> None:
        self.plane, self.ids, self.where, self.blocks, self.own = plane, ids, where, blocks, own
        self.tallies: list[Tally] = []
        self.count = 0
        self._waiting: list[tuple[Box, NDArray[Any], int]] = []

    def add(self, box: Box, objects: NDArray[Any], tally: Tally) -> None:
        """Take in the objects of a box."""
        self._waiting.append((box, objects, self.own + self.count))
        self.tallies.append(tally)
        self.count += len(tally)
        if sum(objects.size for _, objects, _ in self._waiting) > _WAITING * self.blocks.side**2:
            self.write()

    def write(self) -> None:
        """Put what has come in into scratch: whole blocks, each once."""
        of_block = defaultdict(list)
        for patch in self._waiting:
            for at in _touched(patch[0], self.blocks.side):
                of_block[at].append(patch)
        for at, patches in of_block.items():
            block = self.blocks.box(at, self.plane.shape)
            picture = np.asarray(self.ids[(*self.where, *block)], IDS)
            for box, objects, before in patches:
                part = common(box, block)
                if part:
                    new = objects[within(part, box)].astype(IDS)
                    np.copyto(picture[within(part, block)], new + IDS.type(before), where=new > 0)
            self.ids[(*self.where, *block)] = picture
        self._waiting.clear()


def _touched(box: Box, side: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of the blocks that a box touches."""
    y, x = (range(part.start // side, (part.stop - 1) // side + 1) for part in box)
    return product(y, x)


def _cuts(
    plane: Plane, known: Sequence[Block], blocks: Blocks
) -> tuple[list[Cut], dict[tuple[int, int], Cut]]:
    """Boxes around the regions that are in several blocks, and blocks of those too large for that."""
    pixels = np.concatenate([block.pixels for block in known])
    if not len(pixels):
        return [], {}
    starts = list(accumulate((len(block.pixels) for block in known), initial=0))
    rows, columns = blocks.grid(plane.shape)
    region = groups(_touching(known, starts, rows, columns), len(pixels))
    _, a_part = np.unique(region, return_index=True)
    parts = np.concatenate([block.corners for block in known])
    corners = parts[a_part]
    np.minimum.at(corners[:, :2], region, parts[:, :2])
    np.maximum.at(corners[:, 2:], region, parts[:, 2:])
    is_large = np.prod(corners[:, 2:] - corners[:, :2], axis=1) > blocks.limit
    small = np.flatnonzero(~is_large)
    large = {}
    for at, start, stop in zip(blocks.places(plane.shape), starts, starts[1:], strict=False):
        here = pixels[start:stop][is_large[region[start:stop]]]
        if len(here):
            large[at] = Cut(plane, blocks.box(at, plane.shape, blocks.margin), here)
    return _bundles(plane, corners[small], pixels[a_part][small], blocks.side), large


def _touching(known: Sequence[Block], starts: Sequence[int], rows: int, columns: int) -> Pairs:
    """Parts on both sides of a border between blocks, which may meet at a corner."""
    edges = [
        [np.where(line > 0, line.astype(np.int64) + start, 0) for line in block.edges]
        for block, start in zip(known, starts, strict=False)
    ]
    grid = np.arange(rows * columns).reshape(rows, columns)
    borders = [(one, other, 1, 0) for one, other in pairwise(grid)]
    borders += [(one, other, 3, 2) for one, other in pairwise(grid.T)]
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for one, other, last, first in borders:
        a = np.concatenate([edges[n][last] for n in one])
        b = np.concatenate([edges[n][first] for n in other])
        for i, j in ((a, b), (a[1:], b[:-1]), (a[:-1], b[1:])):
            both = (i > 0) & (j > 0)
            found.append((i[both] - 1, j[both] - 1))
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _bundles(plane: Plane, corners: NDArray[np.int64], pixels: NDArray[np.int64], side: int) -> list[Cut]:
    """Boxes around regions: several across the same border share one, up to the size of a block."""
    spans = np.concatenate([corners[:, :2], corners[:, 2:] - 1], axis=1) // side
    bundles: list[tuple[NDArray[np.int64], list[int]]] = []
    for n in np.lexsort((pixels, *spans.T)):
        if bundles:
            box, members = bundles[-1]
            both = np.append(np.minimum(box[:2], corners[n, :2]), np.maximum(box[2:], corners[n, 2:]))
            if (spans[n] == spans[members[0]]).all() and np.prod(both[2:] - both[:2]) <= side**2:
                bundles[-1] = both, [*members, n]
                continue
        bundles.append((corners[n], [n]))
    return [
        Cut(plane, (slice(int(y0), int(y1)), slice(int(x0), int(x1))), pixels[members])
        for (y0, x0, y1, x1), members in bundles
    ]


def _stitch(
    large: Mapping[tuple[int, int], Cut], patches: _Patches, run_all: RunAll, stop: Stop
) -> Pairs | None:
    """Decode blocks of regions that are too large; say which of their objects are the same, from 0."""
    blocks = patches.blocks
    seams = Seams(blocks.margin, blocks.side, necks=patches.plane.decoding.neck_depth > 0)
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    cuts = list(large.values())
    for at, cut, (objects, sown, certain) in zip(large, cuts, run_all(decode_part, cuts), strict=True):
        if stop():
            return None
        block = blocks.box(at, patches.plane.shape)
        here = within(block, cut.box)
        tally = measure(objects[here], certain[here], int(objects.max()))
        # What lies in the margin alone may be torn there, and would join what belongs to other blocks.
        there = tally.pixels > 0
        whole = np.where(there[objects], objects, 0)
        i, j = seams.add(at, Part(cut.box, whole, sown, patches.count))
        found.append((i - 1, j - 1))
        tally = patches.plane.placed(tally, block)
        patches.add(block, objects[here], replace(tally, first=np.where(there, tally.first, NOWHERE))[1:])
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _ranked(
    tally: Tally, same: NDArray[np.int64], decoding: ObjectDecoding
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Give objects, some of which are the same, numbers by first pixel; also return pixels by number."""
    kept = np.flatnonzero(tally.kept(decoding))
    order = kept[np.argsort(tally.first[kept])]
    numbers = np.zeros(len(tally), IDS)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers[same], np.append(0, tally.pixels[order])
