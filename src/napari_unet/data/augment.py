"""Variation of training patches that needs no interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["flip_and_turn"]


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
