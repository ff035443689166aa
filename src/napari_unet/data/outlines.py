"""Whether the outlines of labels lie on edges of their image.

Who outlines what is in an image follows its edges; strokes of a brush, and labels that belong to
another image, do not. So the image's brightness is steeper on such an outline than a few pixels
beside it, and steeper than on the same outline moved elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Outline", "edges", "measure_outline"]

_SIDE = 1024
_SMOOTH = 1.0
_BESIDE = (3, 8)
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (0, 2), (2, 0))
_OWN_VALUES = 6
_OWN_PIXELS = 100


@dataclass(frozen=True)
class Outline:
    """How the outlines of labels lie on an image.

    Parameters
    ----------
    pixels : int
        Pixels with a neighbour of another value.
    sharpness : float
        Mean steepness (gradient) of the image on them, over that 3 to 8 pixels beside them: about 1
        where the outlines have nothing to do with the image.
    weakest : float
        The same for the one value of the labels (at most 6 are looked at) that follows edges least.
    lead : float
        How far the steepness on the outlines is above that on the same outlines moved by thirds of
        the image, in standard deviations of the moved ones.
    """

    pixels: int
    sharpness: float
    weakest: float
    lead: float


def measure_outline(image: NDArray[Any], labels: NDArray[Any]) -> Outline | None:
    """Measure how the outlines of labels lie on an image.

    Parameters
    ----------
    image : ndarray of real numbers, shape (Y, X, C)
        The image. Of more than 1024 x 1024 pixels, a part of that size in the middle of the paint is
        looked at.
    labels : ndarray of int, shape (Y, X)
        Its labels; 0 is unpainted.

    Returns
    -------
    Outline or None
        None where there is no outline, or the image is flat on and beside it.
    """
    part = _middle(labels)
    labels = labels[part]
    edge = edges(labels)
    steepness = _steepness(image[part])
    sharpness = _sharpness(edge, steepness)
    if sharpness is None:
        return None
    values = [value for value in np.unique(labels)[: _OWN_VALUES + 2].tolist() if value]
    own = (_sharpness(edge & (labels == value), steepness) for value in values if len(values) <= _OWN_VALUES)
    height, width = labels.shape
    moved = [
        float(steepness[np.roll(edge, (dy * height // 3, dx * width // 3), (0, 1))].mean())
        for dy, dx in _SHIFTS
    ]
    here = float(steepness[edge].mean())
    return Outline(
        int(np.count_nonzero(edge)),
        sharpness,
        min([sharpness, *(one for one in own if one is not None)]),
        (here - float(np.mean(moved))) / max(float(np.std(moved)), 1e-12),
    )


def _middle(labels: NDArray[Any]) -> tuple[slice, slice]:
    """Return the part to look at: all, or a square around the middle of the paint."""
    painted = labels != 0
    part = []
    for axis, length in enumerate(labels.shape):
        lines = np.flatnonzero(painted.any(axis=1 - axis))
        middle = int(lines[len(lines) // 2]) if len(lines) else length // 2
        start = min(max(0, middle - _SIDE // 2), max(0, length - _SIDE))
        part.append(slice(start, start + _SIDE))
    return part[0], part[1]


def edges(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the pixels that have a neighbour (one of 4) of another value."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _steepness(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return the length of the brightness gradient, smoothed over about a pixel."""
    grey = np.nan_to_num(image.mean(axis=-1, dtype=np.float32), posinf=0.0, neginf=0.0)
    smooth = ndimage.gaussian_filter(grey, _SMOOTH, mode="nearest")
    steepness: NDArray[np.float32] = np.hypot(
        ndimage.correlate1d(smooth, [-0.5, 0, 0.5], axis=0),
        ndimage.correlate1d(smooth, [-0.5, 0, 0.5], axis=1),
    )
    return steepness


def _sharpness(edge: NDArray[np.bool_], steepness: NDArray[np.float32]) -> float | None:
    if np.count_nonzero(edge) < _OWN_PIXELS:
        return None
    distance = ndimage.distance_transform_cdt(~edge, "chessboard")
    beside = (distance >= _BESIDE[0]) & (distance <= _BESIDE[1])
    around = float(steepness[beside].mean()) if beside.any() else 0.0
    return float(steepness[edge].mean()) / around if around > 0 else None
