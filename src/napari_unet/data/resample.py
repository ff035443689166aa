"""Images on another grid: the pixel size a model was trained at, and back.

Nothing is resampled before it is asked for, and a rectangle is the same whether it is read
alone or as a part of the whole, so tiles of a resampled image fit without a seam.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.data.axes import Stack

__all__ = ["matched_shape", "needed_for", "resample"]

_TRUNCATE = 4.0  # sigmas after which the smoothing filter ends


def matched_shape(
    shape: tuple[int, int], pixel_size: tuple[float, float], wanted: tuple[float, float]
) -> tuple[int, int]:
    """Return the shape of an image once its pixels have another size.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    pixel_size, wanted : tuple of float
        Size of a pixel now, and as it should be, along Y and X; in one unit.

    Returns
    -------
    tuple of int
        Rows and columns, at least 1 each, rounded so that the image covers nearly the same area.
    """
    rows, columns = (
        max(1, round(length * size / other))
        for length, size, other in zip(shape, pixel_size, wanted, strict=True)
    )
    return rows, columns


def resample(stack: Stack, shape: tuple[int, int], *, nearest: bool = False) -> Stack:
    """Show a stack on a grid of other rows and columns.

    Interpolated linearly between pixel centres; where pixels grow, after a Gaussian whose sigma
    is half of what they grow by (as `skimage.transform.resize` smooths), so that fine texture does
    not turn into false patterns.

    Parameters
    ----------
    stack : Stack
        What to show.
    shape : tuple of int
        Rows and columns wanted. The same as now give the stack itself.
    nearest : bool
        Take the nearest pixel, for labels.

    Returns
    -------
    Stack
        Reads from `stack` where asked; pixels of type float32, or the stack's own with `nearest`.
    """
    if shape == stack.shape[1:3]:
        return stack
    channel = "S" if "S" in stack.axes else "C"
    return replace(stack, array=_Grid(stack, shape, nearest), axes=f"{stack.slice_axes}YX{channel}")


def needed_for(part: tuple[int, int], new: int, old: int) -> tuple[int, int]:
    """Return which pixels of an old grid, along one axis, pixels of a new one are made of.

    Parameters
    ----------
    part : (start, stop)
        Of the new grid.
    new, old : int
        Pixels of either grid.

    Returns
    -------
    (start, stop)
        Of the old grid: what is interpolated, and what smoothing reaches.
    """
    window = _Line(slice(*part), new, old).window
    return window.start, window.stop


@dataclass(frozen=True, eq=False)
class _Grid:
    """The array of a resampled stack, of shape (..., Y, X, C)."""

    source: Stack
    sides: tuple[int, int]
    nearest: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.source.slice_shape, *self.sides, self.source.shape[3])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype if self.nearest else np.dtype(np.float32)

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        *which, rows, columns, channels = key
        n = int(np.ravel_multi_index(cast(list[int], which), self.source.slice_shape)) if which else 0
        lines = [
            _Line(*side) for side in zip((rows, columns), self.sides, self.source.shape[1:3], strict=True)
        ]
        pixels = self.source.read(n, *(line.window for line in lines))
        if self.nearest:
            return np.asarray(pixels[np.ix_(*(line.nearest for line in lines))][..., channels])
        sigmas = [line.sigma for line in lines]
        pixels = pixels.astype(np.float32)
        if any(sigmas):
            pixels = ndimage.gaussian_filter(pixels, (*sigmas, 0), mode="mirror", truncate=_TRUNCATE)
        for axis, line in enumerate(lines):
            pixels = line.interpolate(pixels, axis)
        return pixels[..., channels]


class _Line:
    """Some places of a new grid along one axis, and the window of the old one that they need."""

    def __init__(self, part: int | slice, new: int, old: int) -> None:
        places = np.arange(new)[part if isinstance(part, slice) else slice(part, part + 1)]
        factor = old / new
        self.sigma = max(0.0, (factor - 1) / 2)
        margin = ceil(_TRUNCATE * self.sigma) + 1
        at = np.clip((places + 0.5) * factor - 0.5, 0, old - 1)
        first = max(0, floor(at[0]) - margin) if len(at) else 0
        last = min(old, floor(at[-1]) + 2 + margin) if len(at) else 0
        self.window = slice(first, last)
        self.nearest = np.clip(np.floor((places + 0.5) * factor).astype(np.intp), 0, old - 1) - first
        self._before = np.floor(at).astype(np.intp) - first
        self._after = np.minimum(self._before + 1, last - first - 1)
        self._share = (at - np.floor(at)).astype(np.float32)

    def interpolate(self, pixels: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        share = np.expand_dims(self._share, tuple(i for i in range(pixels.ndim) if i != axis))
        before, after = pixels.take(self._before, axis), pixels.take(self._after, axis)
        return np.asarray(before + share * (after - before), np.float32)
