"""What is counted of objects, in a slice or in its parts: what is left out, and in which order the rest is numbered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.spec import ObjectDecoding

__all__ = ["NOWHERE", "Tally", "certainty", "in_order", "measure"]

NOWHERE = np.iinfo(np.int64).max
"""First pixel of what has none."""

_CERTAIN = 255


@dataclass(frozen=True, eq=False, slots=True)
class Tally:
    """What is counted of objects, each an ndarray of int64, shape (objects,).

    Parameters
    ----------
    pixels : ndarray
        How many pixels each has.
    certain : ndarray
        Sum of `certainty` over them.
    first : ndarray
        Place of the first pixel, row by row.
    """

    pixels: NDArray[np.int64]
    certain: NDArray[np.int64]
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, which: Any) -> Tally:
        return Tally(self.pixels[which], self.certain[which], self.first[which])

    @classmethod
    def of(cls, parts: Sequence[Tally]) -> Tally:
        """Put tallies one after another."""
        return cls(
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.certain for part in parts]),
            np.concatenate([part.first for part in parts]),
        )

    def joined(self, same: NDArray[np.int64]) -> Tally:
        """Add up what belongs together: those for which `same` has the same number, from 0 without gaps."""
        count = int(same.max(initial=-1)) + 1
        joined = Tally(np.zeros(count, np.int64), np.zeros(count, np.int64), np.full(count, NOWHERE))
        np.add.at(joined.pixels, same, self.pixels)
        np.add.at(joined.certain, same, self.certain)
        np.minimum.at(joined.first, same, self.first)
        return joined

    def kept(self, decoding: ObjectDecoding) -> NDArray[np.bool_]:
        """Say which objects are large enough, and certain enough."""
        large = self.pixels >= max(decoding.min_size, 1)
        return np.asarray(large & (self.certain >= decoding.min_confidence * _CERTAIN * self.pixels))


def certainty(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the probability of not being background in whole steps of 0 to 255: sums of these are exact in any order.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3)
        Of background, inside and border.
    """
    steps = np.rint((1 - probabilities[..., 0]) * np.float32(_CERTAIN))
    return np.asarray(np.clip(np.nan_to_num(steps), 0, _CERTAIN), np.uint8)


def in_order(
    objects: NDArray[Any],
    certain: NDArray[np.uint8] | None = None,
    decoding: ObjectDecoding | None = None,
) -> tuple[NDArray[Any], Tally]:
    """Give objects numbers by their first pixels, and leave some out.

    Parameters
    ----------
    objects : ndarray of int, shape (Y, X)
        An id for each object, in any order; 0 between them.
    certain : ndarray of uint8, shape (Y, X), optional
        From `certainty`; 0 everywhere if not given.
    decoding : ObjectDecoding, optional
        What is left out; by default nothing.

    Returns
    -------
    numbers : ndarray of uint8, uint16 or uint32, shape (Y, X)
        Objects 1, 2, ... in the smallest type that holds them.
    tally : Tally
        Of these objects.
    """
    tally = measure(objects, certain)
    kept = tally.kept(decoding or ObjectDecoding())
    kept[0] = False
    order = np.flatnonzero(kept)[np.argsort(tally.first[kept])]
    table = np.zeros(len(tally), np.min_scalar_type(len(order)))
    table[order] = np.arange(1, len(order) + 1)
    return table[objects], tally[order]


def measure(objects: NDArray[Any], certain: NDArray[np.uint8] | None = None, count: int = 0) -> Tally:
    """Count the pixels of objects, add up how certain they are, and find the first of each.

    Parameters
    ----------
    objects : ndarray of int, shape (Y, X)
        Objects; 0 between them.
    certain : ndarray of uint8, shape (Y, X), optional
        From `certainty`; 0 everywhere if not given.
    count : int
        Highest id, if it need not be there.

    Returns
    -------
    Tally
        By id, with 0 for what is between them; the first place is the number of all pixels for ids that are not there.
    """
    flat = objects.ravel()
    pixels = np.bincount(flat, minlength=count + 1)
    sums = np.zeros_like(pixels)
    if certain is not None:
        sums = np.bincount(flat, certain.ravel(), len(pixels)).astype(np.int64)
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    backwards = np.append(starts[::-1], 0)
    # Of several writes to one place the last one stays: that of the first pixel, as they go backwards.
    first = np.full(len(pixels), flat.size, np.int64)
    first[flat[backwards]] = backwards
    return Tally(pixels, sums, first)
