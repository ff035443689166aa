"""Objects as targets of a network, and probabilities back to objects.

Each object has an id of its own. A network learns three classes: background, inside of an object, and
border: a thin outline, wider where objects touch, as the winners of the 2018 Data Science Bowl drew it
between touching nuclei (Caicedo et al., "Nucleus segmentation across imaging experiments", Nature
Methods 16, 2019) and as is common around all of them (Caicedo et al., Cytometry A 95, 2019). What it
answers becomes objects by a watershed: connected insides are the seeds, parted at necks, and they grow over the
foreground.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from napari_unet.data.flooding import flood, part_at_necks
from napari_unet.data.tally import certainty, in_order
from napari_unet.errors import DataError
from napari_unet.spec import OBJECT_CLASSES, ObjectDecoding

__all__ = [
    "BORDER",
    "BORDER_WIDTH",
    "INSIDE",
    "decode",
    "foreground",
    "grow",
    "learn_objects",
    "number_objects",
    "object_distances",
    "object_targets",
    "sow",
]

INSIDE, BORDER = OBJECT_CLASSES.index("inside"), OBJECT_CLASSES.index("border")

BORDER_WIDTH = 2.0
"""Pixels from which an object counts as touching another: that border is twice as wide.

On 66 images of nuclei (dsb2018_fluo), targets decoded without a network give the objects back with
an AP at IoU 0.9 of 0.99 for 2 pixels and 0.93 for 3.
"""

_TABLE = 2**22


def number_objects(ids: NDArray[Any]) -> NDArray[np.int32]:
    """Give objects the numbers 1, 2, ... in the order of their ids.

    Parameters
    ----------
    ids : ndarray of int, shape (Y, X)
        Values from 0, which is no object, to 2**63 - 1.

    Returns
    -------
    ndarray of int32, shape (Y, X)
        The same objects; 0 stays 0.
    """
    if ids.size and int(ids.max()) < _TABLE:
        # counting needs no sorting, which is what makes np.unique slow on a whole image
        there = np.bincount(ids.ravel().astype(np.intp, copy=False)) > 0
        there[0] = False
        table = np.where(there, np.cumsum(there), 0).astype(np.int32)
        return np.asarray(table[ids], np.int32)
    values, numbers = np.unique(ids, return_inverse=True)
    first = 0 if len(values) and values[0] == 0 else 1
    return (numbers.reshape(ids.shape) + first).astype(np.int32)


def object_distances(ids: NDArray[np.int32], reach: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Measure how far each pixel is from the nearest object, and from the second nearest.

    Parameters
    ----------
    ids : ndarray of int32, shape (Y, X)
        Objects 1, 2, ...; 0 between them.
    reach : float
        Pixels beyond which it does not matter.

    Returns
    -------
    nearest, second : ndarray of float32, shape (Y, X)
        In pixels, between pixel centres; 0 on the object itself; infinite, or at least above
        `reach`, where there is none in reach.
    """
    nearest = np.full(ids.shape, np.inf, np.float32)
    second = nearest.copy()
    margin = int(np.ceil(reach))
    for number, box in enumerate(ndimage.find_objects(ids), start=1):
        if box is None:
            continue
        window = tuple(
            slice(max(0, side.start - margin), min(size, side.stop + margin))
            for side, size in zip(box, ids.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(ids[window] != number).astype(np.float32)
        d1, d2 = nearest[window], second[window]
        np.minimum(d2, np.maximum(d1, distance), out=d2)
        np.minimum(d1, distance, out=d1)
    return nearest, second


def object_targets(
    ids: NDArray[Any], known: NDArray[np.bool_] | None = None, width: float = BORDER_WIDTH
) -> NDArray[np.uint8]:
    """Turn objects into what a network learns.

    Border are the outermost pixels of each object, and all pixels from which the distances to the two
    nearest objects add up to `width` or less: pixels of an object that near to another, and the
    gap between two objects that narrow. An object that would be all border keeps as inside what is
    farthest from others.

    Parameters
    ----------
    ids : ndarray of int, shape (Y, X)
        Object of each pixel; 0 is background.
    known : ndarray of bool, shape (Y, X), optional
        Where `ids` was painted: an object does not end at what is not known. By default everywhere.
    width : float
        In pixels; 1 for pixels that touch another object, diagonals left out.

    Returns
    -------
    ndarray of uint8, shape (Y, X)
        0 background, 1 inside, 2 border.
    """
    numbers = number_objects(ids)
    nearest, second = object_distances(numbers, width)
    target = np.where(numbers > 0, INSIDE, 0).astype(np.uint8)
    target[_outlines(numbers, known) | (nearest + second <= width)] = BORDER
    lost = _lost(numbers, target)
    if len(lost):
        # All at once: there may be thousands, and to look for each in the whole image would take long.
        of_lost = np.isin(numbers, lost)
        farthest = np.zeros(int(numbers.max()) + 1, np.float32)
        farthest[lost] = ndimage.maximum(second[of_lost], numbers[of_lost], lost)
        target[of_lost & (second == farthest[numbers])] = INSIDE
    return target


def _outlines(numbers: NDArray[np.int32], known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Pixels of objects beside a known pixel that is not of the same object; diagonals left out."""
    edge = np.zeros(numbers.shape, bool)
    for one, other in (
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        differ = numbers[one] != numbers[other]
        if known is not None:
            differ &= known[one] & known[other]
        edge[one] |= differ
        edge[other] |= differ
    return edge & (numbers > 0)


def learn_objects(
    ids: NDArray[Any], known: NDArray[np.bool_] | None = None, *, pieces: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Turn painted objects into what a network learns, and number them.

    Parameters
    ----------
    ids : ndarray of int, shape (Y, X)
        Object of each pixel; 0 is background.
    known : ndarray of bool, shape (Y, X), optional
        Where `ids` was painted; by default everywhere.
    pieces : bool
        Take each connected region (with diagonals) for one object, where all have the same id.

    Returns
    -------
    target : ndarray of uint8, shape (Y, X)
        From `object_targets`.
    numbers : ndarray of int32, shape (Y, X)
        Objects 1, 2, ...; 0 is background.
    """
    numbers = number_objects(ids)
    if pieces:
        numbers = np.asarray(label(numbers, connectivity=2), np.int32)
    return object_targets(numbers, known), numbers


def _lost(numbers: NDArray[np.int32], target: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Objects without any inside."""
    pixels = np.bincount(numbers.ravel())
    inside = np.bincount(numbers[target == INSIDE], minlength=len(pixels))
    pixels[0] = 0
    return np.flatnonzero((pixels > 0) & (inside == 0))


def decode(probabilities: NDArray[np.float32], decoding: ObjectDecoding) -> NDArray[Any]:
    """Turn probabilities into objects, by a seeded watershed.

    Seeds are connected regions (with diagonals) of pixels whose probability of inside reaches the
    seed threshold, parted where they have a neck. They grow, the likeliest inside first, over all pixels whose
    probability of not being background reaches the foreground threshold. A connected region of these without a seed
    is an object too: the seeds only say where to part. Objects smaller than the least size, or whose mean probability
    of not being background is below the least confidence, are left out.
    Regions of the foreground that do not touch, diagonals included, do not change each other's objects.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3)
        Of background, inside and border; they add up to 1.
    decoding : ObjectDecoding
        Thresholds, the depth of necks, and what is left out.

    Returns
    -------
    ndarray of uint8, uint16 or uint32, shape (Y, X)
        Objects 1, 2, ... in the order of their first pixels, in the smallest type that holds
        them; 0 between them.

    Raises
    ------
    DataError
        If there are not three probabilities for each pixel.
    """
    if probabilities.ndim != 3 or probabilities.shape[-1] != len(OBJECT_CLASSES):
        raise DataError(
            f"Objects are made from three probabilities a pixel ({', '.join(OBJECT_CLASSES)}), as (y, x, 3), "
            f"but these have shape {probabilities.shape}."
        )
    mask = foreground(probabilities, decoding)
    objects = grow(probabilities, sow(probabilities, mask, decoding), mask)
    return in_order(objects, certainty(probabilities), decoding)[0]


def foreground(probabilities: NDArray[np.float32], decoding: ObjectDecoding) -> NDArray[np.bool_]:
    """Say which pixels belong to objects.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3)
        Of background, inside and border.
    decoding : ObjectDecoding
        Its foreground threshold is used.

    Returns
    -------
    ndarray of bool, shape (Y, X)
        Where the probability of not being background reaches the threshold.
    """
    return np.asarray(1 - probabilities[..., 0] >= decoding.foreground_threshold)


def sow(
    probabilities: NDArray[np.float32], mask: NDArray[np.bool_], decoding: ObjectDecoding
) -> NDArray[np.int32]:
    """Say where objects start.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3)
        Of background, inside and border.
    mask : ndarray of bool, shape (Y, X)
        The foreground, or whole regions of it.
    decoding : ObjectDecoding
        Its seed threshold and depth of necks are used.

    Returns
    -------
    ndarray of int32, shape (Y, X)
        A number for each seed, in no order and not without gaps; 0 elsewhere.
    """
    sure = mask & (probabilities[..., INSIDE] >= decoding.seed_threshold)
    if decoding.neck_depth:
        return part_at_necks(sure, decoding.neck_depth)
    return np.asarray(label(sure, connectivity=2), np.int32)


def grow(
    probabilities: NDArray[np.float32], seeds: NDArray[np.int32], mask: NDArray[np.bool_]
) -> NDArray[Any]:
    """Part a foreground into objects.

    Regions of the foreground that do not touch, not even diagonally, have no influence on each other:
    each is parted as if it were alone, wherever the picture is cut around it.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3)
        Of background, inside and border.
    seeds : ndarray of int32, shape (Y, X)
        Where objects start, from `sow`.
    mask : ndarray of bool, shape (Y, X)
        The foreground, or whole regions of it.

    Returns
    -------
    ndarray of int, shape (Y, X)
        An id for each object, in no order and not without gaps; 0 outside `mask`.
    """
    regions = np.asarray(label(mask, connectivity=1), np.int32)
    seeded = np.zeros(int(regions.max(initial=0)) + 1, bool)
    seeded[regions[seeds > 0]] = True
    alone = mask & ~seeded[regions]
    grown = flood(probabilities[..., BORDER] - probabilities[..., INSIDE], seeds, mask & ~alone)
    grown[alone] = regions[alone] + seeds.max()
    return grown
