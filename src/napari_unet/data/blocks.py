"""Blocks of a slice, and what is decoded in one of them without looking at the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from napari_unet.data.axes import ArrayLike
from napari_unet.data.objects import decode, foreground, grow, sow
from napari_unet.data.stitching import Box
from napari_unet.data.tally import Tally, certainty, in_order
from napari_unet.spec import ObjectDecoding

__all__ = ["IDS", "Block", "BlockJob", "Blocks", "Cut", "Plane", "decode_block", "decode_cut", "decode_whole"]

IDS = np.dtype(np.uint32)
"""Type of the objects of a stack: how many there will be is not known before."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a slice is cut.

    Parameters
    ----------
    side : int
        Pixels of a side of a block. The objects do not depend on it, unless a region has to be cut.
    limit : int
        Pixels of the box around a region of the foreground from which it is cut.
    margin : int
        Pixels around the blocks of a region that is cut.
    """

    side: int = 2048
    limit: int = 2**23
    margin: int = 256

    def grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of blocks of a slice."""
        height, width = shape
        return -(-height // self.side), -(-width // self.side)

    def places(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        """List row and column of each block of a slice, row by row."""
        rows, columns = map(range, self.grid(shape))
        return list(product(rows, columns))

    def box(self, at: tuple[int, int], shape: tuple[int, int], margin: int = 0) -> Box:
        """Return the pixels of a block, by its row and column."""
        y, x = (
            slice(max(0, n * self.side - margin), min(size, (n + 1) * self.side + margin))
            for n, size in zip(at, shape, strict=True)
        )
        return y, x


@dataclass(frozen=True, eq=False, slots=True)
class Plane:
    """Probabilities of a slice, or of a window in it.

    Parameters
    ----------
    probabilities : array-like of uint8 or float, shape (3, ..., Y, X)
        Of background, inside and border; 255 stands for 1.
    index : tuple of int
        Which slice.
    window : Box
        Rows and columns.
    decoding : ObjectDecoding
        How objects are made.
    """

    probabilities: ArrayLike
    index: tuple[int, ...]
    window: Box
    decoding: ObjectDecoding

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the window."""
        y, x = self.window
        return y.stop - y.start, x.stop - x.start

    def read(self, box: Box) -> NDArray[np.float32]:
        """Return probabilities (y, x, 3) of a part of the window, as coarse as 8 bits however stored.

        What was not computed, and is 0 in all maps, is background.
        """
        y, x = (slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, self.window, strict=True))
        stored = np.moveaxis(np.asarray(self.probabilities[(slice(None), *self.index, y, x)]), 0, -1)
        # So that objects do not depend on the type that the user wants probabilities in.
        steps = np.array(stored if stored.dtype == np.uint8 else np.rint(stored * 255), np.float32)
        steps[~steps.any(axis=-1), 0] = 255
        steps /= np.float32(255)
        return steps

    def placed(self, tally: Tally, box: Box) -> Tally:
        """Turn places in a box, counted row by row, into places in the window."""
        y, x = np.divmod(tally.first, box[1].stop - box[1].start)
        return replace(tally, first=(y + box[0].start) * self.shape[1] + x + box[1].start)


@dataclass(frozen=True, eq=False, slots=True)
class BlockJob:
    """A block to decode into scratch, where other blocks may be decoded at the same time."""

    plane: Plane
    box: Box
    ids: Any
    where: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """What is known of a block: its own objects, and parts of regions that go on in the next block.

    `edges` are the parts along its first and last row, first and last column; `corners` (parts, 4) are
    the boxes around the parts: first row and column, last row and column + 1.
    """

    tally: Tally
    pixels: NDArray[np.int64]
    corners: NDArray[np.int64]
    edges: tuple[NDArray[Any], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Cut:
    """Whole regions, or parts of one, to decode in a box; each is known by one of its pixels."""

    plane: Plane
    box: Box
    pixels: NDArray[np.int64]


def decode_block(job: BlockJob) -> Block:
    """Decode the regions that end in a block, and say what is needed of the others."""
    plane, box = job.plane, job.box
    probabilities = plane.read(box)
    mask = foreground(probabilities, plane.decoding)
    regions = label(mask, connectivity=2)
    goes_on = np.zeros(int(regions.max(initial=0)) + 1, bool)
    for line, inner in zip(_edges(regions), _inner(box, plane.shape), strict=True):
        goes_on[line] |= inner
    goes_on[0] = False
    crossing = goes_on[regions]
    parts, found = in_order(np.where(crossing, regions, 0))
    own = mask & ~crossing
    seeds = sow(probabilities, own, plane.decoding)
    objects, tally = in_order(grow(probabilities, seeds, own), certainty(probabilities))
    job.ids[(*job.where, *box)] = objects.astype(IDS)
    return Block(
        plane.placed(tally, box),
        plane.placed(found, box).first,
        _corners(parts, len(found), box),
        tuple(line.copy() for line in _edges(parts)),
    )


def decode_cut(cut: Cut) -> tuple[NDArray[Any], Tally]:
    """Return the objects of some of the regions in a box, and what is counted of them."""
    grown, _, certain = _grown(cut)
    objects, tally = in_order(grown, certain)
    return objects, cut.plane.placed(tally, cut.box)


def decode_part(cut: Cut) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
    """Return the objects of parts of regions in a box, from which pixels they grew, and how certain each pixel is."""
    grown, seeds, certain = _grown(cut)
    objects = in_order(grown)[0]
    seeded = np.zeros(int(objects.max(initial=0)) + 1, bool)
    seeded[objects[seeds]] = True
    return objects, (objects > 0) & (seeds | ~seeded[objects]), certain


def _grown(cut: Cut) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
    """Ids of objects, where their seeds are, and how certain each pixel is."""
    plane, box = cut.plane, cut.box
    probabilities = plane.read(box)
    regions = label(foreground(probabilities, plane.decoding), connectivity=2)
    y, x = np.divmod(cut.pixels, plane.shape[1])
    chosen = np.zeros(int(regions.max(initial=0)) + 1, bool)
    chosen[regions[y - box[0].start, x - box[1].start]] = True
    mask = chosen[regions]
    seeds = sow(probabilities, mask, plane.decoding)
    return grow(probabilities, seeds, mask), seeds > 0, certainty(probabilities)


def decode_whole(plane: Plane) -> NDArray[Any]:
    """Return the objects of a slice that is no larger than a block."""
    height, width = plane.shape
    return decode(plane.read((slice(0, height), slice(0, width))), plane.decoding)


def _edges(picture: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """First and last row, first and last column."""
    return picture[0], picture[-1], picture[:, 0], picture[:, -1]


def _inner(box: Box, shape: tuple[int, int]) -> tuple[bool, ...]:
    """Whether the slice goes on beyond each of these."""
    y, x = box
    return y.start > 0, y.stop < shape[0], x.start > 0, x.stop < shape[1]


def _corners(parts: NDArray[Any], count: int, box: Box) -> NDArray[np.int64]:
    """Boxes around parts, as first row and column, last row and column + 1, in the slice."""
    origin = np.array([side.start for side in box] * 2)
    found = [[y.start, x.start, y.stop, x.stop] for y, x in ndimage.find_objects(parts, max_label=count)]
    return np.asarray(np.array(found, np.int64).reshape(-1, 4) + origin)
