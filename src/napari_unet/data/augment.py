"""Variation of training patches: of image, labels and weights alike.

What is done to a patch is drawn first, as a `Variation`, and always in full: a strength of 0
takes part in nothing but leaves all other draws as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.augmentation import Augmentation
from napari_unet.data.labels import IGNORE

__all__ = ["Variation", "coordinates", "draw_variation", "flip_and_turn", "mirrored", "read_patch", "relight"]

_GRID = 3  # points a side of the coarse grid, as in the U-Net paper
_SOFTENED = 0.25  # of the patches are blurred, and as many of low resolution
_DARK = 1e-7  # for gamma: the power of an exact 0 takes five times as long
_BAND = 32  # rows computed at a time: what they need stays in the processor's cache


@dataclass(frozen=True, eq=False)
class Variation:
    """What is done to one patch.

    Parameters
    ----------
    way : int
        In which of the eight ways it lies (`flip_and_turn`).
    grid : ndarray of float, shape (2, 3, 3), or None
        Where the points of the coarse grid come from: rows and columns, in pixels from the middle of the
        patch. None if it is neither turned by an angle nor scaled nor deformed.
    blur : float
        Standard deviation of a Gaussian, in pixels; 0 for none.
    coarseness : float
        Factor by which resolution is lowered; 1 for none.
    gamma, contrast, brightness, noise : float
        Exponent, factor, summand, and standard deviation of noise; black is 0, white is 1.
    """

    way: int
    grid: NDArray[np.float64] | None
    blur: float
    coarseness: float
    gamma: float
    contrast: float
    brightness: float
    noise: float


def draw_variation(settings: Augmentation, side: int, rng: np.random.Generator) -> Variation:
    """Draw what is done to a patch.

    The same number of draws is made whatever the strengths, so that turning one of them off leaves
    the others as they were.

    Parameters
    ----------
    settings : Augmentation
        Strengths.
    side : int
        Side P of the patch, in pixels.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    Variation
        The elastic deformation is that of Ronneberger et al., "U-Net", MICCAI 2015, section 3.1: normally
        distributed displacements on a 3 x 3 grid, interpolated in between.
    """
    way = int(rng.integers(8))
    turn, size = rng.uniform(-1, 1, 2).tolist()
    bumps = rng.standard_normal((2, _GRID, _GRID))
    gamma, contrast, brightness, noise = rng.standard_normal(4).tolist()
    whether_blur, whether_coarse, how_blurred, how_coarse = rng.random(4).tolist()
    return Variation(
        way if settings.flips else 0,
        _grid(settings, side, turn, size, bumps),
        how_blurred * settings.blur if whether_blur < _SOFTENED else 0.0,
        1 + how_coarse * (settings.low_resolution - 1) if whether_coarse < _SOFTENED else 1.0,
        float(np.exp(gamma * settings.gamma)),
        float(np.exp(contrast * settings.contrast)),
        brightness * settings.brightness,
        abs(noise) * settings.noise,
    )


def _grid(
    settings: Augmentation, side: int, turn: float, size: float, bumps: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Turn and scale the points of the coarse grid, then move each on its own."""
    if not (settings.rotation or settings.scaling or settings.deform):
        return None
    at = np.linspace(-(side - 1) / 2, (side - 1) / 2, _GRID)
    rows, columns = np.meshgrid(at, at, indexing="ij")
    angle = np.deg2rad(turn * settings.rotation)
    scale = (1 + settings.scaling) ** size
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turned = np.stack([cos * rows - sin * columns, sin * rows + cos * columns])
    return np.asarray(turned + settings.deform * side * bumps)


def coordinates(grid: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Interpolate where each pixel of a patch comes from.

    Parameters
    ----------
    grid : ndarray of float, shape (2, 3, 3)
        Where the points of the coarse grid come from.
    side : int
        Side P of the patch, in pixels.

    Returns
    -------
    ndarray of float32, shape (2, P, P)
        Rows and columns, in pixels from the middle of the patch. The spline through three points is the
        parabola, which holds rotation and scaling too: so all of it is two small matrix products.
        (Zooming the grid, as an image, would cost half a training step.)
    """
    spread = _parabolas(side)
    return np.asarray(spread @ grid.astype(np.float32) @ spread.T)


@lru_cache(maxsize=8)
def _parabolas(side: int) -> NDArray[np.float32]:
    """Matrix (P, 3) that interpolates three evenly spaced points to P."""
    t = np.linspace(-1, 1, side)
    return np.asarray(np.stack([t * (t - 1) / 2, 1 - t * t, t * (t + 1) / 2], axis=1), np.float32)


def read_patch(
    image: NDArray[np.float32],
    target: NDArray[np.uint8],
    weight: NDArray[Any] | None,
    where: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Read image, labels and weights at the same coordinates.

    Beyond its rim the image is mirrored; there labels are `napari_unet.data.labels.IGNORE` and weights 0,
    because nobody painted those pixels.

    Parameters
    ----------
    image : ndarray of float32, shape (Y, X, C)
        Interpolated linearly.
    target : ndarray of uint8, shape (Y, X)
        Class indices, of the nearest pixel.
    weight : ndarray, shape (Y, X), optional
        Weights, of the nearest pixel; 1 without them.
    where : ndarray of float32, shape (2, P, P)
        Rows and columns.

    Returns
    -------
    image : ndarray of float32, shape (P, P, C)
    target : ndarray of uint8, shape (P, P)
    weight : ndarray of float32, shape (P, P)
    """
    rows, columns = (mirrored(axis, size) for axis, size in zip(where, target.shape, strict=True))
    top, left = int(rows.min()), int(columns.min())
    box = slice(top, int(rows.max()) + 2), slice(left, int(columns.max()) + 2)
    rows, columns = rows - np.float32(top), columns - np.float32(left)
    planes, classes = np.ascontiguousarray(np.moveaxis(image[box], -1, 0)), np.ascontiguousarray(target[box])
    counts = None if weight is None else np.ascontiguousarray(weight[box])
    read = np.empty((*rows.shape, image.shape[2]), np.float32)
    labels, weights = np.empty(rows.shape, np.uint8), np.ones(rows.shape, np.float32)
    for first in range(0, len(rows), _BAND):
        band = slice(first, first + _BAND)
        y, x = rows[band], columns[band]
        _interpolate(planes, y, x, read[band])
        nearest = np.rint(y).astype(np.intp) * classes.shape[1] + np.rint(x).astype(np.intp)
        labels[band] = classes.take(nearest)
        if counts is not None:
            weights[band] = counts.take(nearest)
    for axis, size in zip(where, target.shape, strict=True):
        if axis.min() < -0.5 or axis.max() > size - 0.5:
            beyond = (axis < -0.5) | (axis > size - 0.5)
            labels[beyond], weights[beyond] = IGNORE, 0
    return read, labels, weights


def _interpolate(
    planes: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Interpolate linearly in planes (C, Y, X) to (M, N, C); scipy's takes longer, in float64."""
    height, width = planes.shape[1:]
    above = np.minimum(y.astype(np.intp), max(height - 2, 0))
    left = np.minimum(x.astype(np.intp), max(width - 2, 0))
    down, right = y - above.astype(np.float32), x - left.astype(np.float32)
    corner = above * width + left
    to_right, below = int(width > 1), width if height > 1 else 0
    for channel, plane in enumerate(planes):
        upper, lower = plane.take(corner), plane.take(corner + below)
        upper += right * (plane.take(corner + to_right) - upper)
        lower += right * (plane.take(corner + (below + to_right)) - lower)
        lower -= upper
        out[..., channel] = upper + down * lower


def mirrored(at: NDArray[Any], size: int) -> NDArray[Any]:
    """Reflect positions at the centres of the first and last pixel, as often as it takes.

    Parameters
    ----------
    at : ndarray
        Positions along an axis, whole or not.
    size : int
        Pixels along it.

    Returns
    -------
    ndarray
        Positions from 0 to ``size - 1``, of the same type.
    """
    last = size - 1
    if last == 0:
        return np.zeros_like(at)
    if at.min() >= 0 and at.max() <= last:
        return at
    at = np.abs(at)
    if at.max() > 2 * last:
        at = at % (2 * last)
    return np.asarray(last - np.abs(last - at))


def relight(
    image: NDArray[np.float32], variation: Variation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Vary how sharp, bright and noisy a patch is.

    In the order of a microscope: optics, pixels, light, noise. What a variation leaves out is not
    computed, so an image without any comes back bit for bit.

    Parameters
    ----------
    image : ndarray of float32, shape (P, P, C)
        Normalised pixels: black is about 0, white about 1. Channels are varied alike, save noise.
    variation : Variation
        From `draw_variation`.
    rng : numpy.random.Generator
        Draws the noise.

    Returns
    -------
    ndarray of float32, shape (P, P, C)
        The image itself if nothing is varied.
    """
    if variation.blur:
        image = ndimage.gaussian_filter(
            image, (variation.blur, variation.blur, 0), mode="mirror", truncate=3.0
        )
    if variation.coarseness > 1:
        image = _coarse(image, variation.coarseness)
    if variation.gamma == 1 and variation.contrast == 1 and not (variation.brightness or variation.noise):
        return image
    result = np.empty_like(image)
    for first in range(0, len(image), _BAND):
        band = slice(first, first + _BAND)
        result[band] = _relit(image[band], variation, rng)
    return result


def _relit(image: NDArray[np.float32], variation: Variation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Apply gamma, contrast, brightness and noise."""
    if variation.gamma != 1:
        # Gamma is of the range between black and white; what lies outside keeps its place.
        inside = np.clip(image, _DARK, 1)
        image = inside**variation.gamma + (image - inside)
    if variation.contrast != 1 or variation.brightness:
        image = image * variation.contrast + (0.5 * (1 - variation.contrast) + variation.brightness)
    if variation.noise:
        image = image + variation.noise * rng.standard_normal(image.shape, np.float32)
    return image


def _coarse(image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Average over larger pixels, then interpolate linearly between these; along rows, then columns."""
    for _ in range(2):
        image = np.swapaxes(_coarse_rows(image, factor), 0, 1)
    return image


def _coarse_rows(image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    side = len(image)
    count = max(1, round(side / factor))
    width, samples = side / count, math.ceil(factor)
    at = width * (np.arange(count * samples) + 0.5).reshape(count, samples) / samples - 0.5
    means = np.asarray(np.mean([_along(image, at[:, i]) for i in range(samples)], axis=0, dtype=np.float32))
    return _along(means, (np.arange(side) + 0.5) / width - 0.5)


def _along(values: NDArray[np.float32], at: NDArray[Any]) -> NDArray[np.float32]:
    """Interpolate linearly along the first axis."""
    last = len(values) - 1
    at = np.clip(at, 0, last)
    first = at.astype(np.intp)
    part = (at - first).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    here = values[first]
    return np.asarray(here + part * (values[np.minimum(first + 1, last)] - here))


def flip_and_turn(patch: NDArray[Any], way: int) -> NDArray[Any]:
    """Show a patch in one of the eight ways a square can lie.

    Parameters
    ----------
    patch : ndarray of shape (P, P) or (P, P, C)
        Pixels, classes or weights; all of one patch are given the same way.
    way : int
        0 to 7; 0 leaves it as it is.

    Returns
    -------
    ndarray
        A view of the input, turned by ``way % 4`` quarters and, from 4 on, mirrored.
    """
    turned = np.rot90(patch, way % 4)
    return turned[:, ::-1] if way >= 4 else turned
