"""Watersheds that do not depend on how a picture is cut, and with them the parting of shapes at their necks.

The distance to the outline has a summit in the middle of each round part of a shape. One that rises little above
the way to a higher summit is a bump of the outline, one that rises much is a part of its own.

Sources
-------
How much a summit rises : its "dynamics" (Grimaud, "A new measure of contrast: the dynamics", SPIE 1769, 1992).
Touching nuclei parted by the distance to their outline : Malpica et al., "Applying watershed algorithms to the
segmentation of clustered nuclei", Cytometry 28, 1997.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

__all__ = ["flood", "part_at_necks"]

# Newer scikit-image takes all seed pixels for equal unless told to look at their values.
_BY_VALUE: dict[str, Any] = {"from_minima": True} if "from_minima" in signature(watershed).parameters else {}

_NEXT = (  # to the right, below, and on both diagonals
    ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))),
    ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))),
)


def flood(
    relief: NDArray[np.floating[Any]],
    seeds: NDArray[np.int32],
    mask: NDArray[np.bool_],
    corners: bool = False,
) -> NDArray[Any]:
    """Grow seeds over a mask, the lowest relief first, in an order that nothing beyond connected pixels changes.

    Parameters
    ----------
    relief : ndarray of float, shape (Y, X)
        From -1 up.
    seeds : ndarray of int32, shape (Y, X)
        A number for each seed; 0 elsewhere.
    mask : ndarray of bool, shape (Y, X)
        Where they grow; all seeds lie in it.
    corners : bool
        Whether they grow over corners too.

    Returns
    -------
    ndarray of int, shape (Y, X)
        Number of the seed that each pixel was reached from; 0 where none could.
    """
    sown = seeds > 0
    # What lies within a seed has nowhere to grow: without it the queue is short.
    within = sown.copy()
    within[1:] &= sown[:-1]
    within[:-1] &= sown[1:]
    within[:, 1:] &= sown[:, :-1]
    within[:, :-1] &= sown[:, 1:]
    rim = sown & ~within
    # Among equal seed pixels the queue's own order would decide, which depends on how many there are in
    # the picture. So no two are equal, and all come before the rest.
    heights = relief.astype(np.float64)
    count = np.count_nonzero(rim)
    heights[rim] = np.arange(count) - (count + 2.0)
    grown: NDArray[Any] = watershed(
        heights, np.where(rim, seeds, 0), 2 if corners else 1, mask=mask & ~within, **_BY_VALUE
    )
    grown[within] = seeds[within]
    return grown


def part_at_necks(mask: NDArray[np.bool_], depth: float) -> NDArray[np.int32]:
    """Part connected regions where they are narrower than on both sides.

    A region's parts do not depend on what is around it, nor on how the picture is cut around it.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        Regions, connected by sides and corners.
    depth : float
        In pixels: two parts stay one unless the largest circle that fits into the smaller of them has a radius
        larger by more than this than any that passes from one to the other.

    Returns
    -------
    ndarray of int32, shape (Y, X)
        A number for each part, in no order and not without gaps; 0 outside `mask`.
    """
    # Beyond the rim of the picture there is no region: so the distance is the same wherever it is cut.
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))
    summits = np.asarray(label(local_maxima(distance), connectivity=2), np.int32)[1:-1, 1:-1]
    distance = distance[1:-1, 1:-1]
    slopes = flood(-distance / (1 + distance), summits, mask, corners=True)
    heights = np.zeros(int(summits.max(initial=0)) + 1)
    heights[summits] = distance
    heights[0] = 0
    return np.asarray(_joined(heights, *_passes(slopes, distance), depth)[slopes])


def _passes(
    slopes: NDArray[np.int32], distance: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Slopes that touch, and the highest place to go from one to the other, the highest first."""
    found = []
    for one, other in _NEXT:
        a, b = slopes[one], slopes[other]
        at = (a != b) & (a > 0) & (b > 0)
        height = np.minimum(distance[one][at], distance[other][at])
        found.append((np.minimum(a[at], b[at]), np.maximum(a[at], b[at]), height))
    a, b, height = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.lexsort((b, a, -height))
    return a[order].astype(np.int64), b[order].astype(np.int64), height[order]


def _joined(
    heights: NDArray[np.float64],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    passes: NDArray[np.float64],
    depth: float,
) -> NDArray[np.int32]:
    """Give each slope the number of its part: going down from pass to pass, the lower summit of the two sides ends."""
    _, first = np.unique(a * len(heights) + b, return_index=True)
    first.sort()
    side, part = (list(range(len(heights))) for _ in range(2))
    for i, j, height in zip(a[first].tolist(), b[first].tolist(), passes[first].tolist(), strict=True):
        one, other = _root(side, i), _root(side, j)
        if one == other:
            continue
        if heights[one] > heights[other]:
            i, j, one, other = j, i, other, one
        side[one] = other
        if heights[one] - height <= depth:
            part[_root(part, i)] = _root(part, j)
    return np.array([_root(part, i) for i in range(len(part))], np.int32)


def _root(parents: list[int], at: int) -> int:
    while parents[at] != at:
        parents[at] = at = parents[parents[at]]
    return at
