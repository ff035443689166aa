"""Which features are dropped, drawn from a hash of where they are.

A generator would give each tile other numbers. A hash of pass, slice, position in the image and channel
gives a feature the same fate in whatever tile it is computed, so that the answer does not depend on the tiling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["kept"]

UInt32 = NDArray[np.uint32]


def kept(rate: float, passage: int, n: int, rows: range, columns: range, channels: int) -> NDArray[np.bool_]:
    """Say which features of a rectangle are kept.

    Parameters
    ----------
    rate : float
        Fraction that is dropped, 0 to 1.
    passage, n : int
        Which pass, and which slice.
    rows, columns : range
        Positions in the whole image, in pixels of the features.
    channels : int
        Features of a pixel.

    Returns
    -------
    ndarray of bool, shape (Y, X, C)
        True for what is kept.
    """
    with np.errstate(over="ignore"):
        start = _mixed(np.full(1, passage, np.uint32) * np.uint32(0x9E3779B1) + np.uint32(n))
        down = _mixed(start + _counted(rows))
        places = _mixed(down[:, None] + np.uint32(0x85EBCA77) * _counted(columns))
        features = _mixed(_counted(range(channels)) + np.uint32(0x27D4EB2F))
        drawn = _mixed(places[..., None] ^ features)
    return drawn >= np.uint32(min(round(rate * 2**32), 2**32 - 1))


def _counted(positions: range) -> UInt32:
    return np.arange(positions.start, positions.stop, positions.step, dtype=np.uint32)


def _mixed(numbers: UInt32) -> UInt32:
    """Mix the bits of numbers: the finaliser "lowbias32" of Chris Wellons' search for integer hash functions, 2018."""
    numbers = numbers ^ (numbers >> np.uint32(16))
    numbers *= np.uint32(0x7FEB352D)
    numbers ^= numbers >> np.uint32(15)
    numbers *= np.uint32(0x846CA68B)
    numbers ^= numbers >> np.uint32(16)
    return numbers
