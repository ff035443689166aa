"""Tiles: which pixels to read, which of them to keep, where to write them.

An image is *padded* at its bottom and right to a multiple of the network's stride. The output is
cut into a grid of *chunks*; each chunk is computed from one read that reaches past it by the
*halo*, so that tiled output equals whole-image output. Reads start and stop at multiples of the
stride: a network with pooling answers differently at other offsets.

The algebra is integers in, slices out, so it serves every array and every network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_unet.errors import ConfigError, DataError

if TYPE_CHECKING:
    from napari_unet.data.axes import Stack

__all__ = ["Halo", "Sides", "Tile", "chunk_shape", "padded", "plan", "read_tile"]

Sides = tuple[tuple[int, int], tuple[int, int]]
"""A region of a slice: (start, stop) in y, then in x, in pixels."""

# Reads of one shape spare the network a trace (or, on other backends, a compilation) for each
# shape at the border: worth 2 % more work along an axis, not the 10 % it would cost three tiles.
_EQUAL_READS = 0.02


@dataclass(frozen=True, slots=True)
class Halo:
    """How far a network looks past the pixel it answers for.

    Parameters
    ----------
    before, after : int
        Pixels towards lower and higher coordinates, the same in y and in x.
    """

    before: int
    after: int

    def __post_init__(self) -> None:
        if self.before < 0 or self.after < 0:
            raise ConfigError(
                f"A halo of {self.before} and {self.after} pixels is impossible: it must be 0 or more."
            )


@dataclass(frozen=True, slots=True)
class Tile:
    """One piece of work: read, compute, crop, write. Each is a pair of slices (y, x), in pixels.

    Parameters
    ----------
    read : tuple of slice
        Region of the padded image to compute.
    crop : tuple of slice
        Region within the computed read to keep.
    write : tuple of slice
        Region of the output that it fills.
    """

    read: tuple[slice, slice]
    crop: tuple[slice, slice]
    write: tuple[slice, slice]


def padded(shape: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the image's shape after padding to multiples of the stride.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the image, in pixels.
    stride : int
        ``2**depth`` of the network.

    Returns
    -------
    tuple of int
        (Y', X'), at least the shape.
    """
    return _up(shape[0], stride), _up(shape[1], stride)


def chunk_shape(
    shape: tuple[int, int], halo: Halo, stride: int, max_pixels: int, *, one_shape: bool = False
) -> tuple[int, int]:
    """Choose the chunks that cost the fewest computed pixels.

    Of all grids of nearly equal chunks whose reads hold at most `max_pixels`, the one with the
    smallest sum of reads; among equals the one with the longest rows, which are stored together.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the image, in pixels.
    halo : Halo
        Of the network.
    stride : int
        ``2**depth`` of the network.
    max_pixels : int
        Largest read, in pixels.
    one_shape : bool
        Whether all reads will have one shape, as `plan` can make them.

    Returns
    -------
    tuple of int
        (cy, cx): multiples of the stride, or the image's own size where that is smaller.

    Raises
    ------
    ConfigError
        If not even the smallest chunk with its halo fits `max_pixels`.
    """
    _check(shape, stride)
    rows, columns = (_choices(size, halo, stride, one_shape) for size in shape)
    # Arrays over all pairs of a choice in y (axis 0) and a choice in x (axis 1).
    largest = rows.largest[:, None] * columns.largest
    cost = (rows.computed[:, None] * columns.computed).astype(float)
    cost[largest > max_pixels] = np.inf
    if np.isinf(cost).all():
        raise ConfigError(
            f"A tile of at most {max_pixels / 1e6:.2g} megapixels is too small for this network: the smallest that "
            f"holds its surroundings has {int(largest.min()):,} pixels. "
            f"Allow tiles of {_megapixels(int(largest.min()))} or more."
        )
    # Choices run from the whole axis downwards, so among equals the last row and the first column win.
    best_y, best_x = max(np.argwhere(cost == cost.min()).tolist(), key=lambda pair: (pair[0], -pair[1]))
    return min(int(rows.chunk[best_y]), shape[0]), min(int(columns.chunk[best_x]), shape[1])


def plan(
    shape: tuple[int, int],
    chunk: tuple[int, int],
    halo: Halo,
    stride: int,
    window: Sides | None = None,
    *,
    one_shape: bool = False,
) -> list[Tile]:
    """List the tiles of an image, one for each chunk, row by row.

    The writes are the chunks of the grid, so together they cover each output pixel exactly once.
    A chunk is the unit of storing and of resuming: with a `window` the tiles are the chunks that
    meet it, and each still writes its whole chunk. Whoever wants nothing outside the window
    masks what is written there. A chunk's read does not depend on the window, so its answer
    doesn't either.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the image, in pixels.
    chunk : tuple of int
        (cy, cx), multiples of the stride or at least the image's size.
    halo : Halo
        Of the network. Reads hold it on all sides, save where the padded image ends.
    stride : int
        ``2**depth`` of the network.
    window : tuple of (start, stop), optional
        Region wanted, in y and in x; everything by default. It is cut at the image's border.
    one_shape : bool
        Let all reads have one shape, whatever more that computes: for a backend that compiles for each shape.

    Returns
    -------
    list of Tile
        Reads lie inside the padded image; those of inner chunks all have one shape.

    Raises
    ------
    ConfigError
        If the chunks do not fit the stride.
    """
    _check(shape, stride)
    for axis, length, size in zip("yx", chunk, shape, strict=True):
        if length < 1 or (length % stride and length < size):
            raise ConfigError(
                f"Chunks of {length} pixels in {axis} do not fit this network: its tiles must be multiples of {stride} "
                f"(or at least {size}, the whole image). Write to a new result."
            )
    wanted = window or ((0, shape[0]), (0, shape[1]))
    rows, columns = (
        _axis(size, length, halo, stride, span, np.inf if one_shape else _EQUAL_READS)
        for size, length, span in zip(shape, chunk, wanted, strict=True)
    )
    return [
        Tile(read=(y[0], x[0]), crop=(y[1], x[1]), write=(y[2], x[2]))
        for y in rows
        for x in columns
    ]  # fmt: skip


def read_tile(stack: Stack, n: int, tile: Tile, stride: int) -> npt.NDArray[Any]:
    """Read the pixels of a tile from one slice of a stack.

    What lies below or right of the image is mirrored from inside it, always as it would be if the
    whole slice were padded at once, however little of it the tile reads.

    Parameters
    ----------
    stack : Stack
        The image.
    n : int
        Which slice.
    tile : Tile
        From `plan`, for this stack's shape.
    stride : int
        The stride that the plan was made for.

    Returns
    -------
    ndarray of shape (y, x, C)
        In the stack's dtype, y and x as long as the tile's read.

    Raises
    ------
    DataError
        If the tile does not belong to an image of this size.
    """
    shape = (int(stack.shape[1]), int(stack.shape[2]))
    if any(read.stop > limit for read, limit in zip(tile.read, padded(shape, stride), strict=True)):
        raise DataError(
            f"A tile up to ({tile.read[0].stop}, {tile.read[1].stop}) does not belong to image {stack.name!r} of "
            f"{shape[0]} x {shape[1]} pixels: plan the tiles for the image they are read from."
        )
    (y, rows), (x, columns) = (_mirror(read, size) for read, size in zip(tile.read, shape, strict=True))
    pixels: npt.NDArray[Any] = stack.read(n, y, x)
    if rows is not None:
        pixels = pixels[rows]
    if columns is not None:
        pixels = pixels[:, columns]
    return pixels


@dataclass(frozen=True, slots=True)
class _Choices:
    """Chunk lengths worth trying along one axis, longest first; int64 arrays of one length."""

    chunk: npt.NDArray[np.int64]
    largest: npt.NDArray[np.int64]  # longest read
    computed: npt.NDArray[np.int64]  # sum of the reads


def _choices(size: int, halo: Halo, stride: int, one_shape: bool) -> _Choices:
    """Lengths that cut `size` into 1, 2, 3, ... nearly equal chunks."""
    blocks = _up(size, stride) // stride
    lengths = sorted({-(-blocks // parts) for parts in range(1, blocks + 1)}, reverse=True)
    chunks = np.array(lengths, np.int64) * stride
    more = np.inf if one_shape else _EQUAL_READS
    reads = [_reads(size, int(chunk), halo, stride, more) for chunk in chunks]
    largest = np.array([int((stop - start).max()) for start, stop in reads], np.int64)
    computed = np.array([int((stop - start).sum()) for start, stop in reads], np.int64)
    return _Choices(chunks, largest, computed)


def _reads(
    size: int, chunk: int, halo: Halo, stride: int, more: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start and stop of the read of each chunk along one axis, of one length if that costs at most the fraction `more`."""
    end = _up(size, stride)
    writes = np.arange(0, size, chunk, dtype=np.int64)
    start = np.maximum((writes - halo.before) // stride * stride, 0)
    stop = np.minimum(-(-(np.minimum(writes + chunk, size) + halo.after) // stride) * stride, end)
    longest = (stop - start).max()
    if longest * len(writes) - (stop - start).sum() <= more * size:
        # Border reads grow inwards: outside the padded image there is nothing to read.
        start = np.minimum(start, end - longest)
        stop = start + longest
    return start, stop


def _axis(
    size: int, chunk: int, halo: Halo, stride: int, window: tuple[int, int], more: float
) -> list[tuple[slice, slice, slice]]:
    """Read, crop and write along one axis, of the chunks that meet the window."""
    parts = []
    starts, stops = _reads(size, chunk, halo, stride, more)
    for index, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        low, high = index * chunk, min((index + 1) * chunk, size)
        if max(low, window[0]) < min(high, window[1]):
            parts.append((slice(start, stop), slice(low - start, high - start), slice(low, high)))
    return parts


def _mirror(read: slice, size: int) -> tuple[slice, npt.NDArray[np.int64] | None]:
    """Pixels of the image to load for a read that may pass its end, and how to lay them out."""
    if read.stop <= size:
        return read, None
    if size == 1:
        return slice(0, 1), np.zeros(read.stop - read.start, np.int64)
    period = 2 * (size - 1)
    position = np.arange(read.start, read.stop) % period
    source = np.minimum(position, period - position)
    low = int(source.min())
    return slice(low, int(source.max()) + 1), source - low


def _check(shape: tuple[int, int], stride: int) -> None:
    if stride < 1:
        raise ConfigError(f"A stride of {stride} pixels is impossible: it must be 1 or more.")
    if min(shape) < 1:
        raise DataError(
            f"An image of {shape[0]} x {shape[1]} pixels has nothing to compute: both sizes must be 1 or more."
        )


def _megapixels(pixels: int) -> str:
    """At least `pixels`, in megapixels with two decimals."""
    return f"{-(-pixels // 10_000) / 100:.2f} megapixels"


def _up(value: int, step: int) -> int:
    """Round up to a multiple of `step`."""
    return -(-value // step) * step
