"""Variation of training patches that needs no interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["flip_and_turn"]


def flip_and_turn(
    image: NDArray[Any], target: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Show a patch in one of the eight ways a square can lie.

    Parameters
    ----------
    image : ndarray of shape (P, P, C)
        Pixels.
    target : ndarray of shape (P, P)
        Class of each pixel.
    rng : numpy.random.Generator
        Chooses one of the eight with equal probability, and is advanced by one number.

    Returns
    -------
    image, target : ndarray
        Views of the input, both turned and mirrored alike.
    """
    way = int(rng.integers(8))
    image, target = np.rot90(image, way % 4), np.rot90(target, way % 4)
    return (image[:, ::-1], target[:, ::-1]) if way >= 4 else (image, target)
