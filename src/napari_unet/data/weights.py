"""How much each pixel counts: rare classes and narrow gaps more than the rest.

The weight map of Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015, section 3:
``w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))² / (2 sigma²))`` with the distances to the nearest
and the second nearest object. There, a gap is background between two cells; here, it is a
pixel of any class between two regions of other classes, because a membrane may have been
painted as a class or left as background. Where each object has an id of its own the distances are
those to the objects themselves, so that pixels on both sides of a line where two touch count too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.data.dataset import Example
from napari_unet.data.holdout import Split
from napari_unet.data.labels import IGNORE
from napari_unet.data.objects import object_distances

__all__ = ["border_weights", "class_counts", "class_weights", "object_weights", "weigh", "weigh_split"]

_REACH = 3  # in sigmas: beyond it the weight is below 1 % of w0


def weigh_split(parts: Split, classes: int, border: float) -> Split:
    """Give both sides of a split their weights, by the classes of the side that is trained on.

    Parameters
    ----------
    parts : Split
        What is trained on and what is held out.
    classes : int
        Classes, background counted in.
    border : float
        As for `weigh`.
    """
    balance = class_weights(parts.train, classes)
    train, held = (weigh(side, balance, border) for side in (parts.train, parts.validation))
    return replace(parts, train=train, validation=held)


def weigh(
    examples: Sequence[Example], balance: NDArray[np.float32], border: float = 0.0, sigma: float = 5.0
) -> tuple[Example, ...]:
    """Give examples their weights.

    Parameters
    ----------
    examples : sequence of Example
        What is trained or measured on.
    balance : ndarray of float32, shape (classes,)
        Weight of each class; see `class_weights`.
    border : float
        w0, the weight of the narrowest gap; 0 where labels are strokes, whose gaps mean nothing.
    sigma : float
        Width of the gaps that count more, in pixels.

    Returns
    -------
    tuple of Example
        The same with `Example.weight`, in the same order.
    """
    table = np.zeros(256, np.float32)
    table[: len(balance)] = balance
    weighed = []
    for example in examples:
        weight = table[example.target]
        if border and example.ids is not None:
            weight += object_weights(example.ids, border, sigma) * (example.target != IGNORE)
        elif border:
            weight += border_weights(example.target, border, sigma)
        weighed.append(replace(example, weight=weight.astype(np.float16)))
    return tuple(weighed)


def class_weights(examples: Sequence[Example], classes: int) -> NDArray[np.float32]:
    """Weigh classes by the inverse square root of their frequency.

    The full inverse would make a class of a thousandth of the pixels count a thousandfold, and
    the network paint it everywhere.

    Parameters
    ----------
    examples : sequence of Example
        What is trained on.
    classes : int
        Classes, background counted in.

    Returns
    -------
    ndarray of float32, shape (classes,)
        The mean over all painted pixels is 1. A class without a pixel has weight 0.
    """
    counts = class_counts(examples, classes)
    share = counts / max(counts.sum(), 1)
    weights = np.where(share > 0, 1 / np.sqrt(np.maximum(share, 1e-12)), 0.0)
    return np.asarray(weights / max((weights * share).sum(), 1e-12), np.float32)


def class_counts(examples: Sequence[Example], classes: int) -> NDArray[np.int64]:
    """Count the painted pixels of each class, shape (classes,)."""
    counts = np.zeros(256, np.int64)
    for example in examples:
        counts += np.bincount(example.target.ravel(), minlength=256)
    return counts[:classes]


def border_weights(target: NDArray[np.uint8], w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float32]:
    """Weigh pixels in narrow gaps between two regions.

    Parameters
    ----------
    target : ndarray of uint8, shape (Y, X)
        Class indices; `napari_unet.data.labels.IGNORE` belongs to no region.
    w0 : float
        Weight of a gap of no width.
    sigma : float
        Standard deviation, in pixels, of the sum of both distances.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        ``w0 exp(-(d1 + d2)² / (2 sigma²))``; 0 on ignored pixels and where the sum exceeds three sigmas.
    """
    reach = int(np.ceil(_REACH * sigma))
    nearest = np.full(target.shape, np.inf, np.float32)
    second = nearest.copy()
    for kind in np.unique(target[target != IGNORE]):
        regions, _ = ndimage.label(target == kind)
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
            window = _grown(rows, reach, target.shape[0]), _grown(columns, reach, target.shape[1])
            distance = ndimage.distance_transform_edt(regions[window] != number).astype(np.float32)
            distance[target[window] == kind] = np.inf  # a gap lies between regions of other classes
            d1, d2 = nearest[window], second[window]
            np.minimum(d2, np.maximum(d1, distance), out=d2)
            np.minimum(d1, distance, out=d1)
    return _by_distance(np.where(target == IGNORE, np.inf, nearest + second), reach, w0, sigma)


def object_weights(ids: NDArray[np.int32], w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float32]:
    """Weigh pixels where two objects are close.

    Parameters
    ----------
    ids : ndarray of int32, shape (Y, X)
        Objects 1, 2, ...; 0 between them.
    w0 : float
        Weight of a gap of no width.
    sigma : float
        Standard deviation, in pixels, of the sum of the distances to the two nearest objects (that to
        the own object is 0).

    Returns
    -------
    ndarray of float32, shape (Y, X)
        ``w0 exp(-(d1 + d2)² / (2 sigma²))``; 0 where the sum exceeds three sigmas.
    """
    reach = int(np.ceil(_REACH * sigma))
    nearest, second = object_distances(ids, reach)
    return _by_distance(nearest + second, reach, w0, sigma)


def _by_distance(both: NDArray[np.float32], reach: int, w0: float, sigma: float) -> NDArray[np.float32]:
    both = np.where(both > reach, np.inf, both)
    return np.asarray(w0 * np.exp(-(both**2) / (2 * sigma**2)), np.float32)


def _grown(side: slice, by: int, size: int) -> slice:
    return slice(max(0, side.start - by), min(size, side.stop + by))
