"""Variation of training patches: of image, labels and weights alike."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

__all__ = ["coordinates", "flip_and_turn", "sample", "vary_intensity"]

_GRID = 3  # points a side of the coarse grid, as in the U-Net paper
_SHIFT = 0.04  # standard deviation of its displacements, in sides of a patch: 10 pixels of 256
_TURN = 15.0  # largest rotation, in degrees, on top of quarter turns
_SCALE = 0.15  # largest logarithm of the scale

_CONTRAST, _BRIGHTNESS, _GAMMA, _NOISE = 0.15, 0.1, 0.2, 0.04  # standard deviations; black is 0, white is 1


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


def coordinates(side: int, strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw where each pixel of a deformed patch comes from.

    An elastic deformation (displacements on a coarse 3 x 3 grid, normally distributed, bicubic in
    between; Ronneberger et al., "U-Net", MICCAI 2015, section 3.1) after a small rotation and scaling.

    Parameters
    ----------
    side : int
        Side P of the patch, in pixels.
    strength : float
        1 for displacements of 0.04 P (10 pixels of 256), up to 15 degrees and 15 %; 0 for none.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    ndarray of float32, shape (2, P, P)
        Rows and columns; some lie outside the patch.
    """
    spread = _spread(side)
    grid = rng.normal(0.0, strength * _SHIFT * side, (2, _GRID, _GRID))
    angle = np.deg2rad(strength * rng.uniform(-_TURN, _TURN))
    scale = np.exp(strength * rng.uniform(-_SCALE, _SCALE))
    # Two small matrix products: a zoom of the grid would cost half a training step.
    shift = spread @ grid @ spread.T
    at = np.arange(side) - (side - 1) / 2
    rows, columns = at[:, np.newaxis], at[np.newaxis]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    middle = (side - 1) / 2
    turned = np.stack([cos * rows - sin * columns, sin * rows + cos * columns])
    return np.asarray(turned + shift + middle, np.float32)


def sample(patch: NDArray[Any], where: NDArray[np.float32], *, nearest: bool = False) -> NDArray[Any]:
    """Read a patch at other coordinates, mirrored beyond its rim.

    Parameters
    ----------
    patch : ndarray of shape (P, P) or (P, P, C)
        Pixels; classes and weights with ``nearest=True``.
    where : ndarray of float32, shape (2, P, P)
        From `coordinates`.
    nearest : bool
        Take the nearest pixel rather than interpolating linearly.

    Returns
    -------
    ndarray
        Of the shape and type of `patch`.
    """
    if nearest:
        rows, columns = (_mirrored(np.rint(axis).astype(np.intp), len(patch)) for axis in where)
        return np.asarray(patch[rows, columns])
    moved = [
        ndimage.map_coordinates(channel, where, order=1, mode="mirror")
        for channel in np.moveaxis(patch, -1, 0)
    ]
    return np.stack(moved, axis=-1)


def vary_intensity(
    image: NDArray[np.float32], strength: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Vary contrast, brightness, gamma and noise of a patch.

    Parameters
    ----------
    image : ndarray of float32, shape (P, P, C)
        Normalised pixels: black is about 0, white about 1.
    strength : float
        1 for about 15 % of contrast, 10 % of brightness, 20 % of gamma and up to 4 % of noise; 0 for none.
    rng : numpy.random.Generator
        Draws.

    Returns
    -------
    ndarray of float32, shape (P, P, C)
        A new image.
    """
    contrast, gamma = np.exp(strength * rng.normal(0, (_CONTRAST, _GAMMA)))
    brightness = strength * rng.normal(0, _BRIGHTNESS)
    noise = strength * abs(rng.normal(0, _NOISE))
    # Gamma is of the range between black and white; what lies outside keeps its place.
    inside = np.clip(image, 0, 1)
    varied = inside**gamma + (image - inside)
    varied = (varied - 0.5) * contrast + 0.5 + brightness
    return np.asarray(varied + noise * rng.standard_normal(image.shape, np.float32), np.float32)


@lru_cache(maxsize=8)
def _spread(side: int) -> NDArray[np.float64]:
    """Matrix (P, 3) that interpolates three points cubically to P."""
    return np.asarray(CubicSpline(np.arange(_GRID), np.eye(_GRID))(np.linspace(0, _GRID - 1, side)))


def _mirrored(at: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Reflect indices at the centres of the first and last pixel, as scipy's mode "mirror" does."""
    if size == 1:
        return np.zeros_like(at)
    at = np.abs(at) % (2 * (size - 1))
    return np.minimum(at, 2 * (size - 1) - at)
