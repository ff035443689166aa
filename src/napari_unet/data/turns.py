"""The eight ways to flip and turn an image by quarters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AS_IT_IS", "TURNS", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A flip, then quarter turns.

    Parameters
    ----------
    mirrored : bool
        Whether columns are reversed first.
    quarters : int
        Quarter turns after that, 0 to 3.
    """

    mirrored: bool
    quarters: int

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Turn an array of shape (Y, X, ...)."""
        flipped = pixels[:, ::-1] if self.mirrored else pixels
        return np.rot90(flipped, self.quarters)

    def undo(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Turn back what `apply` has turned, or what was computed of it."""
        turned = np.rot90(pixels, -self.quarters)
        return turned[:, ::-1] if self.mirrored else turned


AS_IT_IS = Turn(mirrored=False, quarters=0)

TURNS = tuple(Turn(mirrored, quarters) for mirrored in (False, True) for quarters in range(4))
"""The symmetries of the square, the one that changes nothing first."""
