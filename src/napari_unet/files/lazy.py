"""Images that stay on disk: read piece by piece, inside the reader boundary."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import product
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.data.axes import ArrayLike
from napari_unet.errors import FileError, NapariUNetError
from napari_unet.files.reading import in_words

__all__ = ["FileArray", "first_damaged"]


class FileArray:
    """A lazy array of a file: sliced like numpy, and a failing read becomes a `FileError`.

    Parameters
    ----------
    array : array-like
        What is read from.
    path : str or os.PathLike
        The file, to be named in errors.
    select : tuple of int or slice, optional
        For each dimension of `array`: an index to drop it, or a slice from 0 to keep its start.
    locate : callable, optional
        Given the indices of a failed read into `array`, name the damaged piece.
    owner : object, optional
        Kept alive as long as this array: the open file that `array` reads from.
    """

    def __init__(
        self,
        array: ArrayLike,
        path: str | PathLike[str],
        *,
        select: tuple[int | slice, ...] | None = None,
        locate: Callable[[tuple[Any, ...]], str] | None = None,
        owner: object = None,
    ) -> None:
        self._array = array
        self._select = select or (slice(None),) * len(array.shape)
        self._locate = locate
        self._owner = owner
        self.path = os.fspath(path)
        self.shape: tuple[int, ...] = tuple(
            len(range(*part.indices(size)))
            for part, size in zip(self._select, array.shape, strict=True)
            if isinstance(part, slice)
        )
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, if all of it were read."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the pieces the file stores; reads along them are the fastest."""
        inner = getattr(self._array, "chunks", None) or self._array.shape
        kept = [size for part, size in zip(self._select, inner, strict=True) if isinstance(part, slice)]
        return tuple(min(size, whole) for size, whole in zip(kept, self.shape, strict=True))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        wanted = self._inner_key(key)
        try:
            return np.asarray(self._array[wanted])
        except NapariUNetError:
            raise
        except Exception as error:  # the boundary: see files/reading.py
            piece = self._locate(wanted) if self._locate else "part of its pixel data"
            raise FileError(
                self.path,
                f"{piece} cannot be read ({in_words(error)}); the file is damaged or incomplete, "
                "so copy it again from its source.",
            ) from error

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def __repr__(self) -> str:
        return f"FileArray({self.path!r}, shape={self.shape}, dtype={self.dtype})"

    def _inner_key(self, key: Any) -> tuple[Any, ...]:
        """Return indices into the wrapped array; a caller's mistake is an IndexError, not the file's fault."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(part is Ellipsis for part in keys):
            at = next(i for i, part in enumerate(keys) if part is Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        if len(keys) != self.ndim:
            raise IndexError(f"{len(keys)} indices for an array of {self.ndim} dimensions")
        parts = [_checked(part, size) for part, size in zip(keys, self.shape, strict=True)]
        outer = iter(parts)
        return tuple(next(outer) if isinstance(part, slice) else part for part in self._select)


def _checked(part: Any, size: int) -> int | slice:
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if step < 1:
            raise IndexError("an image on disk is read forward only: slice with a step of at least 1")
        return slice(start, max(start, stop), step)
    index = int(part)
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for a dimension of {size}")
    return index % size


def first_damaged(array: Any, key: tuple[Any, ...]) -> str:
    """Name the chunk of a zarr array that makes a read of `key` fail."""
    sizes = getattr(array, "shards", None) or array.chunks
    ranges = []
    for part, size, whole in zip(key, sizes, array.shape, strict=True):
        start, stop = (part.start, part.stop) if isinstance(part, slice) else (part, part + 1)
        ranges.append(range(start // size, max(start, min(stop, whole) - 1) // size + 1))
    for index in product(*ranges):
        corner = tuple(slice(i * size, (i + 1) * size) for i, size in zip(index, sizes, strict=True))
        try:
            array[corner]
        except Exception:  # noqa: BLE001 - part of the boundary: it only finds out which chunk it was
            return f"chunk {array.metadata.encode_chunk_key(index)}"
    return "part of its pixel data"
