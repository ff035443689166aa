"""From probabilities to objects: how it is done best, and for whole stacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_unet.config import PredictConfig
from napari_unet.data.axes import ArrayLike, Stack
from napari_unet.data.instance_metrics import IOU_THRESHOLDS, Overlap, overlap, pooled_score
from napari_unet.data.objects import decode
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop
from napari_unet.spec import ModelSpec, ObjectDecoding

__all__ = ["IDS", "Choice", "Region", "Window", "choose_decoding", "decode_stack", "decoding_of", "slices_of"]

IDS = np.dtype(np.uint32)
"""Type of the objects of a stack: how many there will be is not known before."""

_SEEDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.8, 0.9)
_FOREGROUNDS = (0.5, 0.4, 0.6, 0.3, 0.7)
_SIZES = (0.0, 0.25, 0.5)
_SMALL = 5  # percentile of the true objects' sizes that the least size is a part of: of the median it would cost real ones

Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""(start, stop) in slices, y and x."""


@dataclass(frozen=True, eq=False)
class Region:
    """Probabilities and truth of a part of an image that was held out.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3)
        Of background, inside and border.
    truth : ndarray of int32, shape (Y, X)
        Objects; 0 is none.
    known : ndarray of bool, shape (Y, X)
        Where the truth is known; elsewhere neither truth nor answer counts.
    """

    probabilities: NDArray[np.float32]
    truth: NDArray[np.int32]
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Choice:
    """The best way to make objects, and how good they are.

    Parameters
    ----------
    decoding : ObjectDecoding
        Thresholds and least size.
    ap50 : float
        Average precision at IoU 0.5, pooled over the regions.
    """

    decoding: ObjectDecoding
    ap50: float


def choose_decoding(regions: Sequence[Region], stop: Stop = never_stop) -> Choice | None:
    """Choose the settings of the watershed that find the true objects best.

    What is maximised is the mean, over IoU 0.5, 0.55, ..., 0.9, of the pooled average precision.
    Foreground threshold, seed threshold and least size are chosen one after the other, each with the
    best of those before; of equals the one nearest to the default stays.

    Parameters
    ----------
    regions : sequence of Region
        What was held out.
    stop : callable
        Asked before each decoding.

    Returns
    -------
    Choice or None
        None if there is no true object, or if stopped.
    """
    truths = [np.where(region.known, region.truth, 0) for region in regions]
    sizes = np.concatenate([np.bincount(truth.ravel())[1:] for truth in truths] or [np.empty(0, np.int64)])
    if not sizes.any():
        return None
    small = float(np.percentile(sizes[sizes > 0], _SMALL))
    best, best_score = ObjectDecoding(), (-1.0, 0.0)
    for name, values in (
        ("foreground_threshold", _FOREGROUNDS),
        ("seed_threshold", _SEEDS),
        ("min_size", [round(part * small) for part in _SIZES]),
    ):
        start = best
        for value in values:
            if stop():
                return None
            candidate = start.replace(**{name: value})
            if candidate == start and best_score[0] >= 0:
                continue
            score = _score(regions, truths, candidate)
            if score[0] > best_score[0]:
                best, best_score = candidate, score
    return Choice(best, best_score[1])


def _score(
    regions: Sequence[Region], truths: Sequence[NDArray[np.int32]], decoding: ObjectDecoding
) -> tuple[float, float]:
    """Mean AP over the thresholds, and AP at the first of them."""
    images: list[Overlap] = []
    for region, truth in zip(regions, truths, strict=True):
        found = decode(region.probabilities, decoding)
        images.append(overlap(np.where(region.known, found, 0), truth))
    scores = [pooled_score(images, threshold) for threshold in IOU_THRESHOLDS]
    aps = [score.ap for score in scores if score is not None]
    return float(np.mean(aps)), aps[0]


def decoding_of(spec: ModelSpec, config: PredictConfig) -> ObjectDecoding:
    """Return how a model's probabilities become objects, as the user may have overruled it.

    Raises
    ------
    DataError
        If the model knows no objects.
    """
    if spec.objects is None:
        raise DataError(
            f"Model {spec.name!r} tells classes apart, not objects: use a model trained on objects."
        )
    own = {
        "foreground_threshold": config.threshold,
        "seed_threshold": config.seed_threshold,
        "min_size": config.min_size,
    }
    return spec.objects.replace(**{name: value for name, value in own.items() if value is not None})


class _Labels(Protocol):
    """A numpy or zarr array of labels, read and written."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X)."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Read a block."""
        ...

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Write a block."""
        ...


def decode_stack(
    probabilities: ArrayLike,
    labels: _Labels,
    decoding: ObjectDecoding,
    *,
    chunk: tuple[int, int] | None = None,
    window: Window | None = None,
    is_done: Callable[[tuple[int, ...]], bool] | None = None,
    tell: Callable[[int, int], None] | None = None,
    stop: Stop = never_stop,
) -> bool:
    """Turn the probabilities of a stack into objects, slice by slice.

    Numbers go on from slice to slice, so that no two objects of a stack share one: what lies in
    different slices is not joined.

    Parameters
    ----------
    probabilities : array-like of uint8 or float, shape (3, ..., Y, X)
        Of background, inside and border; 255 stands for 1.
    labels : array-like, shape (..., Y, X)
        Receives the objects of each slice, chunk by chunk, the last chunk last.
    decoding : ObjectDecoding
        Thresholds and least size.
    chunk : (cy, cx), optional
        Pixels of a chunk; the whole slice by default.
    window : tuple of (start, stop), optional
        Part to decode, in slices, y and x; the rest is written as 0, in slices that are decoded.
    is_done : callable, optional
        Asked for each slice, by its index, whether an earlier run has written it.
    tell : callable, optional
        Given slices done and all slices after each of them.
    stop : callable
        Asked before each slice.

    Returns
    -------
    bool
        True if stopped before the end.
    """
    height, width = labels.shape[-2:]
    where = tuple(slice(*side) for side in window[1:]) if window else (slice(None), slice(None))
    indices = _slices(labels.shape[:-2], window)
    used = 0
    for n, index in enumerate(indices):
        if stop():
            return True
        if is_done is not None and is_done(index):
            used = max(used, int(np.max(labels[index])))
        else:
            found = decode(_read(probabilities, index, where), decoding).astype(IDS)
            found[found > 0] += used
            used = max(used, int(found.max(initial=0)))
            whole = np.zeros((height, width), IDS)
            whole[where] = found
            for y, x in _chunks((height, width), chunk):
                labels[(*index, y, x)] = whole[y, x]
        if tell is not None:
            tell(n + 1, len(indices))
    return False


def slices_of(stack: Stack, window: Window | None) -> list[tuple[int, ...]]:
    """List the slices of a stack in a window, or all, by their index in time and depth."""
    return _slices(stack.slice_shape, window)


def _slices(shape: tuple[int, ...], window: Window | None) -> list[tuple[int, ...]]:
    indices: list[tuple[int, ...]] = list(np.ndindex(*shape))
    return indices[slice(*window[0])] if window else indices


def _read(probabilities: ArrayLike, index: tuple[int, ...], where: tuple[slice, ...]) -> NDArray[np.float32]:
    """Probabilities (y, x, 3) of a part of a slice, as coarse as 8 bits whatever they are stored as."""
    stored = np.moveaxis(np.asarray(probabilities[(slice(None), *index, *where)]), 0, -1)
    # So that objects do not depend on the type that the user wants probabilities in.
    steps = stored if stored.dtype == np.uint8 else np.rint(stored * 255)
    return np.asarray(steps, np.float32) / np.float32(255)


def _chunks(size: tuple[int, int], chunk: tuple[int, int] | None) -> list[tuple[slice, slice]]:
    step = chunk or size
    rows, columns = (
        [slice(at, min(at + length, total)) for at in range(0, total, length)]
        for total, length in zip(size, step, strict=True)
    )
    return list(product(rows, columns))
