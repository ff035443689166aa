"""From probabilities to objects: how it is done best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.config import PredictConfig
from napari_unet.data.blocks import IDS
from napari_unet.data.instance_metrics import IOU_THRESHOLDS, Overlap, overlap, pooled_score
from napari_unet.data.labels import class_map_of
from napari_unet.data.objects import decode
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop
from napari_unet.spec import ModelSpec, ObjectDecoding

__all__ = ["Choice", "Region", "choose_decoding", "decoding_of", "label_type", "threshold_of"]

_SEEDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.8, 0.9)
_FOREGROUNDS = (0.5, 0.4, 0.6, 0.3, 0.7)
_SIZES = (0.0, 0.25, 0.5)
_SMALL = 5  # percentile of the true objects' sizes that the least size is a part of: of the median it would cost real ones


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


def label_type(spec: ModelSpec) -> np.dtype[Any]:
    """Return the type of a model's labels: of painted values, or of numbers of objects."""
    return IDS if spec.objects else class_map_of(spec).decode(np.zeros(1, np.uint8)).dtype


def threshold_of(spec: ModelSpec, config: PredictConfig) -> float:
    """Return the threshold of two classes: the user's, or the model's own."""
    return spec.threshold if config.threshold is None else config.threshold


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
