"""Axis letters: any image becomes slices of shape (Y, X, C), and a result goes back.

One letter names each axis: ``T`` time, ``Z`` depth, ``C`` channels, ``Y`` rows, ``X`` columns,
``S`` colour samples (RGB). Networks see one slice at a time, so T and Z are counted together
(n = 0, 1, ... in the array's own order) and C or S comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import DataError

__all__ = ["AXES", "ArrayLike", "Stack", "blocks", "chunk_of", "guess_axes", "has_idle_alpha"]

AXES = "TZCYXS"
"""The letters that may name an axis."""

_NAMES = {
    "t": "T", "time": "T", "z": "Z", "depth": "Z", "c": "C", "ch": "C", "channel": "C", "channels": "C",
    "y": "Y", "x": "X", "s": "S", "rgb": "S",
}  # fmt: skip
_BY_DIMENSIONS = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TZCYX"}


class ArrayLike(Protocol):
    """What an image is read from: NumPy, zarr, dask and lazy TIFF arrays all qualify."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Type of a pixel."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return the part that integers and slices, one for each axis, select."""


@dataclass(frozen=True, eq=False)
class Stack:
    """An image of any axes, seen as N slices of shape (Y, X, C).

    Parameters
    ----------
    array : ArrayLike
        The pixels: whole numbers, decimals or bool, of either byte order. Read only where asked.
    axes : str
        One letter of TZCYXS for each axis of `array`, in any order. Y and X must be there, and
        C and S exclude each other.
    name : str
        What the user knows it by; used in messages.

    Raises
    ------
    DataError
        If the letters do not fit the array, an axis is empty, or pixels are not real numbers.
    """

    array: ArrayLike
    axes: str
    name: str = "image"

    def __post_init__(self) -> None:
        _check_axes(self.name, tuple(self.array.shape), self.axes)
        kind = np.dtype(self.array.dtype).kind
        if kind not in "buif":
            found = {"c": "complex numbers", "O": "Python objects"}.get(
                kind, f"pixels of type {self.array.dtype}"
            )
            way_out = (
                "take its magnitude or its phase first" if kind == "c" else "convert it to numbers first"
            )
            raise DataError(f"{self.name!r} holds {found}. Pixels must be real numbers: {way_out}.")

    @property
    def slice_axes(self) -> str:
        """The letters T and Z that the array has, in its own order."""
        return "".join(letter for letter in self.axes if letter in "TZ")

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """Length of each axis of `slice_axes`."""
        return tuple(self._length(letter) for letter in self.slice_axes)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape as (N, Y, X, C): slices, rows, columns, channels."""
        channels = prod(self._length(letter) for letter in self.axes if letter in "CS")
        return prod(self.slice_shape), self._length("Y"), self._length("X"), channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels that `read` returns: native byte order, uint8 for bool."""
        dtype = np.dtype(self.array.dtype)
        return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")

    @property
    def out_axes(self) -> str:
        """Axes of a label image of this stack."""
        return self.slice_axes + "YX"

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of a label image of this stack."""
        return (*self.slice_shape, self._length("Y"), self._length("X"))

    def read(self, n: int, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        """Read a rectangle of one slice, and nothing else.

        Parameters
        ----------
        n : int
            Slice, counted over T and Z in the array's order.
        y, x : slice
            Rows and columns.

        Returns
        -------
        ndarray of shape (y, x, C)
            Pixels of type `dtype`. It may be a view of the source: do not write into it.
        """
        where: dict[str, int | slice] = {"Y": y, "X": x}
        where.update(
            zip(self.slice_axes, map(int, np.unravel_index(n, self.slice_shape or (1,))), strict=False)
        )
        pixels = np.asarray(self.array[tuple(where.get(letter, slice(None)) for letter in self.axes)])
        left = [letter for letter in self.axes if letter not in "TZ"]
        pixels = pixels.transpose([left.index(letter) for letter in "YXCS" if letter in left])
        if pixels.ndim == 2:
            pixels = pixels[..., np.newaxis]
        return pixels.astype(self.dtype, copy=False)

    def _length(self, letter: str) -> int:
        return int(self.array.shape[self.axes.index(letter)])


def blocks(stack: Stack, pixels: int = 2**20) -> Iterator[tuple[int, slice, slice]]:
    """Walk over a stack in rectangles that are cheap to read.

    Parameters
    ----------
    stack : Stack
        What to walk over.
    pixels : int
        About how many values (pixels times channels) to read at once. A chunk of a chunked array
        is never cut, as it would be decoded again for each part.

    Yields
    ------
    n : int
        Slice.
    y, x : slice
        Rows and columns. Together the rectangles cover each pixel exactly once.
    """
    count, height, width, channels = stack.shape
    rows, columns = chunk_of(stack) or (1, min(width, max(1, pixels // channels)))
    columns *= max(1, min(ceil(width / columns), pixels // (rows * columns * channels)))
    rows *= max(1, min(ceil(height / rows), pixels // (rows * columns * channels)))
    for n in range(count):
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                yield n, slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


def chunk_of(stack: Stack) -> tuple[int, int] | None:
    """Return rows and columns of a storage chunk, of a zarr (ints) or dask (ints a chunk) array; None where there are none."""
    chunks = getattr(stack.array, "chunks", None)
    if chunks is None:
        return None
    sides = (chunks[stack.axes.index(letter)] for letter in "YX")
    rows, columns = (side if isinstance(side, int) else max(side) for side in sides)
    return max(1, min(int(rows), stack.shape[1])), max(1, min(int(columns), stack.shape[2]))


def has_idle_alpha(array: ArrayLike, axis: int = -1) -> bool:
    """Tell whether there are four samples of a colour of which the last says nothing: it is the same everywhere.

    Parameters
    ----------
    array : array-like
        Pixels. Of one that is not in memory, which would have to be read for that, it is taken for granted.
    axis : int
        Of the samples.
    """
    if array.shape[axis] != 4:
        return False
    if not isinstance(array, np.ndarray):
        return True
    alpha = np.take(array, -1, axis=axis)
    return bool((alpha == alpha.flat[0]).all())


def guess_axes(shape: Sequence[int], *, rgb: bool = False, labels: Sequence[str] | None = None) -> str:
    """Name the axes of a bare array or a napari layer.

    Names given by the user or the file win. Without them two axes are YX, three ZYX, four TZYX and
    five TZCYX (the order of ImageJ); colour samples are a last axis S only where the layer says
    so. A stack of 3 planes is therefore 3 slices, never 3 channels, unless its axes say so.

    Parameters
    ----------
    shape : sequence of int
        Shape of the array, the axis of colour samples included.
    rgb : bool
        True if the last axis holds the 3 or 4 samples of a colour.
    labels : sequence of str, optional
        Names of the axes, such as ``("t", "y", "x")``; without the one of the colour samples, as
        napari has them, or with it. Used only if they name every axis.

    Returns
    -------
    str
        One letter of TZCYXS for each axis.

    Raises
    ------
    DataError
        If there are fewer than two or more than five axes, or the last is no colour though `rgb`.
    """
    if rgb and (len(shape) < 3 or shape[-1] not in (3, 4)):
        raise DataError(
            f"A colour image ends in an axis of 3 or 4 samples, but this one has shape {tuple(shape)}."
        )
    plain = len(shape) - int(rgb)
    samples = "S" if rgb else ""
    named = "".join(_NAMES.get(label.strip().lower(), "?") for label in labels or ())
    for axes in (named, named + samples):
        if len(axes) == len(shape) and not _wrong(axes) and (not rgb or axes[-1] == "S"):
            return axes
    if plain not in _BY_DIMENSIONS or (rgb and plain == 5):
        raise DataError(
            f"An array of shape {tuple(shape)} has {_axes(shape)}. An image has Y and X, and beside them "
            "at most T, Z and C (or colour): select fewer axes, or name them."
        )
    return _BY_DIMENSIONS[plain] + samples


def _check_axes(name: str, shape: tuple[int, ...], axes: str) -> None:
    if len(shape) < 2:
        raise DataError(
            f"{name!r} has shape {shape}, which is {_axes(shape)}. An image needs at least two, Y and X: choose an image."
        )
    if len(axes) != len(shape):
        raise DataError(
            f"{name!r} has shape {shape}, which is {_axes(shape)}, but its axes are given as {axes!r}: "
            "give one letter of TZCYXS for each axis."
        )
    if problem := _wrong(axes):
        raise DataError(f"The axes of {name!r} are given as {axes!r}, but {problem}.")
    for letter, length in zip(axes, shape, strict=True):
        if length == 0:
            raise DataError(
                f"{name!r} has shape {shape}: its axis {letter} is empty. Each axis needs at least one pixel: choose an image with pixels."
            )


def _axes(shape: Sequence[int]) -> str:
    return f"{len(shape)} {'axis' if len(shape) == 1 else 'axes'}"


def _wrong(axes: str) -> str:
    """Say what is wrong with the letters, or nothing."""
    if unknown := [letter for letter in axes if letter not in AXES]:
        return f"{unknown[0]!r} is not an axis: use the letters T, Z, C, Y, X and S"
    if repeated := [letter for letter in axes if axes.count(letter) > 1]:
        return f"{repeated[0]} is there more than once: name each axis once"
    if "Y" not in axes or "X" not in axes:
        return "Y and X must both be there: name the rows Y and the columns X"
    if "C" in axes and "S" in axes:
        return "C and S exclude each other: select one channel, or turn the colour image to grey"
    return ""
