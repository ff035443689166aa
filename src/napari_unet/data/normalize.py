"""Brightness: percentiles of a whole stack, and pixels brought to about 0 to 1 by them.

The range comes from the whole image or stack, never from a tile: a range for each tile would
alone make seams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.axes import Stack, blocks
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop

__all__ = ["Range", "Survey", "survey"]

_LIMIT = 1e6
_PIECE = 2**18

_Each = Callable[..., Iterable[Any]]
"""Applies a function to each of several values, as `map` does."""

_Histograms = dict[int, NDArray[np.int64]]
"""How often each digit occurs, by the higher digits that come before it."""


@dataclass(frozen=True)
class Range:
    """The brightness that becomes 0 and the one that becomes 1, for each channel.

    Parameters
    ----------
    low, high : tuple of float
        One value for each channel, in the unit of the pixels. Where they are equal the channel is
        constant and becomes 0.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not np.isfinite((*self.low, *self.high)).all():
            raise DataError(
                f"A brightness range needs a finite low and high for each channel, not {self.low} and {self.high}."
            )

    def apply(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Bring pixels to this range: ``(pixel - low) / (high - low)``, not clipped to 0 and 1.

        Parameters
        ----------
        pixels : ndarray of real numbers, shape (..., C)
            Pixels of any type, as the stack holds them.

        Returns
        -------
        ndarray of float32, shape (..., C)
            Always finite: NaN and infinite pixels become 0, absurd outliers stop at a million.

        Raises
        ------
        DataError
            If the number of channels differs.
        """
        if pixels.shape[-1] != len(self.low):
            raise DataError(
                f"The number of channels is {len(self.low)} in the brightness range but {pixels.shape[-1]} in the image. "
                "They must match: choose an image with as many channels."
            )
        low, high = np.array(self.low), np.array(self.high)
        with np.errstate(over="ignore", invalid="ignore"):
            span = np.minimum(high - low, np.finfo(np.float64).max)
            span[span <= 0] = np.inf  # a constant channel: whatever is divided becomes 0
            if pixels.dtype.kind in "bui" and pixels.dtype.itemsize <= 2:
                # float32 holds these exactly, and is twice as fast
                quick: NDArray[np.float32] = (pixels - low.astype(np.float32)) / span.astype(np.float32)
                return quick
            scaled: NDArray[np.float64] = (pixels.astype(np.float64, copy=False) - low) / span
            np.clip(scaled, -_LIMIT, _LIMIT, out=scaled)
        if pixels.dtype.kind == "f":
            scaled[~np.isfinite(pixels)] = 0
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class Survey:
    """What one look at a whole stack found.

    Parameters
    ----------
    range : Range
        Its percentiles.
    not_finite : int
        Values (pixels times channels) that are NaN or infinite.
    first_not_finite : tuple of int, optional
        Slice, row, column and channel of the first of them.
    constant : tuple of bool
        For each channel, whether all its finite pixels are equal.
    """

    range: Range
    not_finite: int
    first_not_finite: tuple[int, int, int, int] | None
    constant: tuple[bool, ...]


def survey(
    stack: Stack,
    lower: float = 1.0,
    upper: float = 99.8,
    stop: Stop = never_stop,
    each: _Each = map,
) -> Survey:
    """Find the percentiles of a whole stack, and its pixels that are no numbers.

    Pixels are counted in a histogram, block by block, so memory does not grow with the stack. Values
    wider than 16 bits are counted 16 bits at a time, from the highest down (a radix select): the
    result is exact for every type, at one pass for each two bytes of a value.

    Parameters
    ----------
    stack : Stack
        What to survey.
    lower, upper : float
        Percentiles, 0 to 100, interpolated linearly as `numpy.percentile` does. Where both fall on
        the same value, as in a mostly black image, the smallest and largest value are taken.
    stop : callable
        Asked before each block. Once it answers True, the survey covers what was read so far, and
        wide values only roughly: the caller, who knows, drops it.
    each : callable
        `map`, or that of a pool of threads, which count parts of a block beside each other.

    Returns
    -------
    Survey
        Channels without a finite pixel count as constant, with the range 0 to 0.
    """
    counts = [
        _Select(stack.dtype.itemsize if stack.dtype.itemsize <= 8 else 8, lower, upper)
        for _ in range(stack.shape[3])
    ]
    not_finite, first = 0, None
    for level in range(counts[0].passes):
        for n, y, x in blocks(stack):
            if stop():
                break
            pixels = stack.read(n, y, x)
            finite = np.isfinite(pixels) if pixels.dtype.kind == "f" else None
            if finite is not None and finite.all():
                finite = None
            if level == 0 and finite is not None:
                not_finite += int(finite.size - np.count_nonzero(finite))
                first = first or _position(finite, n, y.start, x.start)
            for c, count in enumerate(counts):
                count.add(pixels[..., c], None if finite is None else finite[..., c], each)
        for count in counts:
            count.descend()
        if stop():
            break
    found = [count.range(stack.dtype) for count in counts]
    limits = Range(tuple(low for low, _, _ in found), tuple(high for _, high, _ in found))
    return Survey(limits, not_finite, first, tuple(constant for _, _, constant in found))


class _Select:
    """Chosen order statistics of a stream of unsigned keys, 16 bits in each pass.

    Wanted are the smallest and largest key and the neighbours of both percentiles. Each pass counts
    one digit of the keys that share the higher digits found so far.
    """

    def __init__(self, size: int, lower: float, upper: float) -> None:
        self.passes = max(1, size // 2)
        self.percentiles = (lower, upper)
        self.width = 16 if size > 1 else 8
        self.total = 0
        self.level = 0
        self.prefixes: list[int] = []
        self.ranks: list[int] = []
        self.histograms: _Histograms = {0: self._empty()}

    def _empty(self) -> NDArray[np.int64]:
        return np.zeros(2**self.width, np.int64)

    def add(self, pixels: NDArray[Any], finite: NDArray[np.bool_] | None, each: _Each) -> None:
        """Count pixels (y, x) in this pass, where they are finite."""

        def found_in(rows: slice) -> _Histograms:
            return self._counted(_keys(pixels[rows] if finite is None else pixels[rows][finite[rows]]))

        for histograms in each(found_in, _pieces(pixels.shape)):
            for prefix, histogram in histograms.items():
                self.histograms[prefix] += histogram

    def _counted(self, keys: NDArray[Any]) -> _Histograms:
        if self.passes == 1:
            return {0: _count(keys, self.width)}
        shift = 16 * (self.passes - 1 - self.level)
        digits = (keys >> keys.dtype.type(shift)).ravel()
        if self.level == 0:
            return {0: _count(digits.astype(np.uint16), 16)}
        higher = digits >> digits.dtype.type(16)
        found = {prefix: digits[higher == digits.dtype.type(prefix)] for prefix in self.histograms}
        return {prefix: _count(mine.astype(np.uint16), 16) for prefix, mine in found.items() if mine.size}

    def descend(self) -> None:
        """End a pass: find the next digit of each key wanted."""
        if self.level == 0:
            self.total = int(self.histograms[0].sum())
            last = max(0, self.total - 1)
            self.ranks = [0, last]
            for percentile in self.percentiles:
                below = int(percentile / 100 * last)
                self.ranks += [below, min(below + 1, last)]
            self.prefixes = [0] * len(self.ranks)
        cumulated = {prefix: np.cumsum(histogram) for prefix, histogram in self.histograms.items()}
        for i, (prefix, rank) in enumerate(zip(self.prefixes, self.ranks, strict=True)):
            ends = cumulated[prefix]
            digit = min(int(np.searchsorted(ends, rank, side="right")), len(ends) - 1)
            self.ranks[i] = rank - (int(ends[digit - 1]) if digit else 0)
            self.prefixes[i] = (prefix << self.width) | digit
        self.level += 1
        self.histograms = {prefix: self._empty() for prefix in self.prefixes}

    def range(self, dtype: np.dtype[Any]) -> tuple[float, float, bool]:
        """Return the low and high end and whether all values are equal."""
        if self.total == 0:
            return 0.0, 0.0, True
        missing = 16 * (self.passes - self.level)
        smallest, largest, *neighbours = (_value(key << missing, dtype) for key in self.prefixes)
        ends = []
        for percentile, below, above in zip(self.percentiles, neighbours[::2], neighbours[1::2], strict=True):
            part = percentile / 100 * (self.total - 1) % 1.0
            # equal neighbours stay exactly equal, or rounding would make a range of a constant
            ends.append(below if below == above else below * (1 - part) + above * part)
        low, high = ends if ends[0] < ends[1] else (smallest, largest)
        return low, high, smallest == largest


def _keys(values: NDArray[Any]) -> NDArray[Any]:
    """Map real numbers to unsigned integers that sort in the same order.

    For IEEE 754 numbers: flip the sign bit, and of negative numbers all others too.
    """
    if values.dtype.kind in "ub":
        return values
    if values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits = unsigned.itemsize * 8
    sign = unsigned.type(1 << (bits - 1))
    if values.dtype.kind == "i":
        keys: NDArray[Any] = values.view(unsigned) ^ sign
    else:
        raw = (values + values.dtype.type(0)).view(unsigned)  # adding 0 turns -0 into 0
        others = (raw >> unsigned.type(bits - 1)) * unsigned.type((1 << (bits - 1)) - 1)
        keys = raw ^ (others | sign)
    return keys


def _value(key: int, dtype: np.dtype[Any]) -> float:
    """Turn a key back into the number it stands for."""
    if dtype.kind in "ub":
        return float(key)
    if dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    bits = dtype.itemsize * 8
    if dtype.kind == "i":
        return float(key - (1 << (bits - 1)))
    raw = key ^ (1 << (bits - 1)) if key >> (bits - 1) else key ^ ((1 << bits) - 1)
    return float(np.array(raw, dtype=f"u{dtype.itemsize}").view(dtype))


def _count(keys: NDArray[Any], width: int) -> NDArray[np.int64]:
    return np.bincount(keys.ravel(), minlength=2**width)


def _pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut a block in rows, as `numpy.bincount` copies its input to 8 bytes a value."""
    rows = max(1, _PIECE // shape[1])
    for top in range(0, shape[0], rows):
        yield slice(top, top + rows)


def _position(finite: NDArray[np.bool_], n: int, top: int, left: int) -> tuple[int, int, int, int]:
    y, x, c = (int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
    return n, top + y, left + x, c
