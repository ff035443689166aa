"""What is painted: values counted on every pixel, shapes looked at closely on some slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces

from napari_unet.data.axes import Stack, blocks
from napari_unet.data.labels import as_integers, distinct, too_large
from napari_unet.data.outlines import Outline, measure_outline
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop

__all__ = ["MAX_SPECK", "STROKE_SHARE", "Look", "Paint", "Unusable", "look_closely", "survey_paint"]

MAX_SPECK = 4
"""Pixels of the largest piece that may be a stray click: the smallest round brush covers 1 to 5."""

STROKE_SHARE = 0.15
"""Painted share of a slice above which nobody paints strokes: who covers more has outlined things."""

_BLOCK = 2**22
_LOOK_PIXELS = 2**24
_MAX_VALUES = 2**20
_COLOURS = 255


@dataclass(frozen=True, eq=False)
class Look:
    """The shapes that are painted on one slice (of a very large one: on a part of it).

    Parameters
    ----------
    values, sizes, pieces, specks : ndarray of int64, shape (V,)
        Painted values (not 0), their pixels, their connected pieces (diagonals connect), and how many
        of these are specks: of at most `MAX_SPECK` pixels.
    touching : ndarray of bool, shape (V,)
        Whether a value has a pixel beside another painted value.
    area : int
        Pixels of the slice, painted or not.
    spread : float, optional
        How much the width of what is painted varies along it: the interquartile range over the
        median, of the half-widths on the middle line. Strokes of one brush have about 0. None where
        over `STROKE_SHARE` is painted.
    elongated : float, optional
        Part of the paint that is in pieces at least four times as long as wide. None as above.
    outline : Outline, optional
        How the outlines lie on the image, where there is one.
    """

    values: NDArray[np.int64]
    sizes: NDArray[np.int64]
    pieces: NDArray[np.int64]
    specks: NDArray[np.int64]
    touching: NDArray[np.bool_]
    area: int
    spread: float | None = None
    elongated: float | None = None
    outline: Outline | None = None


@dataclass
class Unusable:
    """Pixels that are no labels: how many of each kind, and the values found.

    Parameters
    ----------
    not_finite, not_whole, negative, too_large : int
        Pixels that are NaN or infinite, not whole numbers, below 0, above 2**63 - 1.
    low, high : float
        Smallest and largest finite value of labels whose type holds decimals; of others the smallest
        negative value. Infinite where there is none.
    """

    not_finite: int = 0
    not_whole: int = 0
    negative: int = 0
    too_large: int = 0
    low: float = np.inf
    high: float = -np.inf

    def any(self) -> bool:
        """Tell whether there are any."""
        return bool(self.not_finite or self.not_whole or self.negative or self.too_large)


@dataclass
class Paint:
    """What one labels stack holds.

    Parameters
    ----------
    stack : Stack
        The labels.
    values, counts : ndarray of int64, shape (V,)
        The different values, 0 among them, ascending, and the pixels of each. At most about a million
        values are told apart; `unusable` pixels count as 0.
    painted : int
        Pixels with a value other than 0.
    empty : list of int
        Slices without paint.
    unusable : Unusable
        Pixels that are no labels.
    colours : int
        Where the labels have channels: how many different colours were seen (255 stands for more).
    grey : bool
        Where the labels have channels: whether all channels hold the same.
    looked : int
        Pieces of slices with paint that could have been looked at closely.
    looks : list of Look
        Those that were.
    """

    stack: Stack
    values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    painted: int = 0
    empty: list[int] = field(default_factory=list)
    unusable: Unusable = field(default_factory=Unusable)
    colours: int = 0
    grey: bool = True
    looked: int = 0
    looks: list[Look] = field(default_factory=list)

    @property
    def pixels(self) -> int:
        """Pixels of all slices, painted or not."""
        count, height, width, _ = self.stack.shape
        return count * height * width


def survey_paint(
    labels: Sequence[Stack],
    images: Sequence[Stack | None] = (),
    *,
    stop: Stop = never_stop,
) -> tuple[Paint, ...]:
    """Count what is painted, and look closely at some of it.

    Each slice is read once, in rectangles of about 4 megapixels, so memory does not grow with the
    stack. Pixels are counted everywhere. Shapes are looked at closely on painted slices that are
    spread evenly over all labels, at most about 16 megapixels of them.

    Parameters
    ----------
    labels : sequence of Stack
        The labels.
    images : sequence of (Stack or None)
        The image of each, of the same shape, where outlines shall be compared with it.
    stop : callable
        Asked before each rectangle; once it answers True, what was counted so far is returned.

    Returns
    -------
    tuple of Paint
        One for each of `labels`.
    """
    found = [Paint(stack) for stack in labels]
    sample = _Sample()
    for i, paint in enumerate(found):
        image = images[i] if i < len(images) else None
        _count(paint, image, sample, stop)
    for paint, look in sample.looks:
        paint.looks.append(look)
    return tuple(found)


def look_closely(painted: NDArray[Any], image: NDArray[Any] | None = None) -> Look:
    """Describe the shapes painted on one slice.

    Parameters
    ----------
    painted : ndarray of int, shape (Y, X)
        Painted values, some of them not 0.
    image : ndarray of real numbers, shape (Y, X, C), optional
        The image that they were painted on.

    Returns
    -------
    Look
        What is there.
    """
    values, index = _indexed(painted)
    names, count = label_pieces(index, background=0, connectivity=2, return_num=True)
    area = np.bincount(names.ravel(), minlength=count + 1)[1:]
    of_value = np.zeros(count + 1, np.int64)
    of_value[names.ravel()] = index.ravel()
    number = len(values)
    share = np.count_nonzero(index) / index.size
    spread, elongated = _widths(index, names, area) if share <= STROKE_SHARE else (None, None)
    return Look(
        values=values[1:],
        sizes=np.bincount(index.ravel(), minlength=number)[1:],
        pieces=np.bincount(of_value[1:], minlength=number)[1:],
        specks=np.bincount(of_value[1:][area <= MAX_SPECK], minlength=number)[1:],
        touching=_touching(index, number)[1:],
        area=index.size,
        spread=spread,
        elongated=elongated,
        outline=None if image is None else measure_outline(image, index),
    )


class _Sample:
    """Looks at painted rectangles, spread evenly over all that come, within `_LOOK_PIXELS`."""

    def __init__(self) -> None:
        self.looks: list[tuple[Paint, Look]] = []
        self._every = 1
        self._seen = 0

    def offer(self, paint: Paint, painted: NDArray[Any], image: NDArray[Any] | None) -> None:
        """Look at this one, if its turn has come."""
        paint.looked += 1
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        self.looks.append((paint, look_closely(painted, image)))
        # drop every second one and look at half as many from now on: still spread evenly
        while sum(look.area for _, look in self.looks) > _LOOK_PIXELS and len(self.looks) > 1:
            self.looks = self.looks[::2]
            self._every *= 2

    def wanted(self) -> bool:
        """Tell whether the next one would be looked at."""
        return self._seen % self._every == 0


def _count(paint: Paint, image: Stack | None, sample: _Sample, stop: Stop) -> None:
    stack = paint.stack
    tally = _Tally()
    empty = np.ones(stack.shape[0], bool)
    for n, y, x in blocks(stack, _BLOCK):
        if stop():
            break
        pixels = stack.read(n, y, x)
        if pixels.shape[2] != 1:
            _see_colours(paint, pixels)
            empty[n] &= not pixels.any()
            continue
        painted = _usable(paint, pixels[..., 0])
        tally.add(painted)
        if painted.any():
            empty[n] = False
            sample.offer(
                paint, painted, None if image is None or not sample.wanted() else image.read(n, y, x)
            )
    paint.values, paint.counts = tally.merged()
    paint.painted = int(paint.counts[paint.values != 0].sum())
    paint.empty = np.flatnonzero(empty).tolist()


def _usable(paint: Paint, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as whole numbers from 0 up; take note of what is none, and make it 0."""
    found = paint.unusable
    if pixels.dtype.kind == "f" and (finite := pixels[np.isfinite(pixels)]).size:
        # also where there are none: the range is told of the whole layer
        found.low = min(found.low, float(finite.min()))
        found.high = max(found.high, float(finite.max()))
    try:
        return as_integers(pixels, paint.stack.name)
    except DataError:
        pass
    wrong = np.zeros(pixels.shape, bool)
    if pixels.dtype.kind == "f":
        infinite = ~np.isfinite(pixels)
        whole = np.floor(pixels) == pixels
        found.not_finite += int(np.count_nonzero(infinite))
        found.not_whole += int(np.count_nonzero(~whole & ~infinite))
        wrong |= infinite | ~whole
    if pixels.dtype.kind != "u":
        negative = (pixels < 0) & ~wrong
        found.negative += int(np.count_nonzero(negative))
        if negative.any():
            found.low = min(found.low, float(pixels[negative].min()))
        wrong |= negative
    large = too_large(pixels) & ~wrong
    found.too_large += int(np.count_nonzero(large))
    wrong |= large
    return np.where(wrong, 0, pixels).astype(np.int64)


def _see_colours(paint: Paint, pixels: NDArray[Any]) -> None:
    paint.grey = paint.grey and bool((pixels == pixels[..., :1]).all())
    if paint.colours < _COLOURS:
        # one slice after the other may add colours; the largest number of one slice is what is told
        colours = len(np.unique(pixels[::2, ::2].reshape(-1, pixels.shape[2]), axis=0))
        paint.colours = min(_COLOURS, max(paint.colours, colours))


class _Tally:
    """Pixels of each value, counted array by array."""

    def __init__(self) -> None:
        self._values: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._waiting = 0

    def add(self, painted: NDArray[Any]) -> None:
        if int(painted.max()) < 2**16:
            counted = np.bincount(painted.ravel().astype(np.intp, copy=False))
            values = np.flatnonzero(counted)
            counts = counted[values]
        else:
            values, counts = np.unique(painted, return_counts=True)
        self._values.append(values.astype(np.int64))
        self._counts.append(counts.astype(np.int64))
        self._waiting += len(values)
        if self._waiting > _MAX_VALUES:
            values, counts = self.merged()
            self._values, self._counts = [values[:_MAX_VALUES]], [counts[:_MAX_VALUES]]
            self._waiting = 0

    def merged(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return values, ascending, and the pixels of each."""
        if not self._values:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        values, where = np.unique(np.concatenate(self._values), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, where, np.concatenate(self._counts))
        return values, counts


def _indexed(painted: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the values, 0 always first, and the index of each pixel's value."""
    values = np.union1d(distinct(painted), [0])
    if values[-1] < 2**16:
        # a table is several times faster than the sort that finding indices in general takes
        table = np.zeros(int(values[-1]) + 1, np.int32)
        table[values] = np.arange(len(values), dtype=np.int32)
        return values, table[painted]
    return values, np.searchsorted(values, painted.astype(np.int64, copy=False)).astype(np.int32)


def _touching(index: NDArray[Any], number: int) -> NDArray[np.bool_]:
    """Tell of each value (by its index) whether it lies beside another painted one."""
    touching = np.zeros(number, bool)
    for a, b in ((index[1:], index[:-1]), (index[:, 1:], index[:, :-1])):
        meet = (a != b) & (a != 0) & (b != 0)
        touching[a[meet]] = True
        touching[b[meet]] = True
    return touching


def _widths(index: NDArray[Any], names: NDArray[np.intp], area: NDArray[np.intp]) -> tuple[float, float]:
    """Return how much the widths of pieces vary, and which part of the paint is elongated."""
    inside = index != 0
    for axis in (0, 1):
        a, b = (
            tuple(slice(*ends) if i == axis else slice(None) for i in (0, 1)) for ends in ((1, None), (-1,))
        )
        differ = index[a] != index[b]
        inside[a] &= ~differ
        inside[b] &= ~differ
    # the outermost pixels of a piece are at distance 1 from its outside
    depth = ndimage.distance_transform_edt(inside).astype(np.float32) + (index != 0)
    widest = np.zeros(len(area) + 1, np.float32)
    np.maximum.at(widest, names.ravel(), depth.ravel())
    width = 2 * widest[1:]
    ridge = depth[(depth >= ndimage.maximum_filter(depth, 3)) & (depth > 1)]
    low, middle, high = np.percentile(ridge, (25, 50, 75)) if ridge.size else (1.0, 1.0, 1.0)
    return float((high - low) / middle), float(area[area > 3 * width**2].sum() / area.sum())
