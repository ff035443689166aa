"""From probabilities to labels and objects: how it is done best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.config import PredictConfig
from napari_unet.data.blocks import IDS
from napari_unet.data.instance_metrics import IOU_THRESHOLDS, Overlap, overlap, pooled_score
from napari_unet.data.labels import class_map_of
from napari_unet.data.metrics import segment_scores
from napari_unet.data.objects import decode
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop
from napari_unet.spec import ModelSpec, ObjectDecoding

__all__ = [
    "Choice",
    "Region",
    "choose_decoding",
    "choose_threshold",
    "decoding_of",
    "label_type",
    "threshold_of",
]

_SEEDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.9)
# Class and border weights make a network say too much, so high ones are tried as well.
_FOREGROUNDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.8, 0.9, 0.95)
_SIZES = (0.0, 0.25, 0.5)
_RIM = 2  # pixels of a region's border that do not count when regions are told apart
_SMALL = 5  # percentile of the true objects' sizes that the least size is a part of: of the median it would cost real ones


@dataclass(frozen=True, eq=False)
class Region:
    """Probabilities and truth of a part of an image that was held out.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3) or (Y, X, 2)
        Of background, inside and border; or of two classes.
    truth : ndarray of int, shape (Y, X)
        Objects, 0 for none; or the class, 0 or 1.
    known : ndarray of bool, shape (Y, X)
        Where the truth is known; elsewhere neither truth nor answer counts.
    """

    probabilities: NDArray[np.float32]
    truth: NDArray[Any]
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


def choose_threshold(
    regions: Sequence[Region], dice: Mapping[float, float], stop: Stop = never_stop
) -> float:
    """Choose the threshold of two classes that is good for pixels and keeps connected regions apart.

    The threshold that is best for pixels tears thin walls: a few wrong pixels join two cells, which Dice hardly sees. So
    V_rand (`napari_unet.data.metrics.segment_scores`) is added, of the 4-connected regions of a class over the cores of the true
    ones, averaged over both classes and all regions held out. A core ends two pixels before the region does: there,
    only what is joined, split or lost counts, and how wide regions come out is left to Dice.

    Parameters
    ----------
    regions : sequence of Region
        Of two classes, held out and labelled whole.
    dice : mapping of float to float
        Mean Dice of both classes at each candidate; a pixel that reaches a threshold is of class 1.
    stop : callable
        Asked before each candidate; then, the best so far is taken.

    Returns
    -------
    float
        Of equals, the candidate nearest to 0.5.
    """
    cores = [
        (region, value, core)
        for region in regions
        for value in (0, 1)
        if (core := _cores((region.truth == value) & region.known)).any()
    ]
    best, best_score = 0.5, -1.0
    for threshold in sorted(dice, key=lambda value: (abs(value - 0.5), value)):
        if stop():
            break
        parted = [
            segment_scores(core, ndimage.label(_said(region, value, threshold))[0])[0]
            for region, value, core in cores
        ]
        score = dice[threshold] + (float(np.mean(parted)) if parted else 0.0)
        if score > best_score:
            best, best_score = threshold, score
    return best


def _said(region: Region, value: int, threshold: float) -> NDArray[np.bool_]:
    """Where the answer is a class; nothing is joined across what is not known."""
    return np.asarray(region.known & ((region.probabilities[..., 1] >= threshold) == value))


def _cores(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Part a mask into numbered regions, and leave out what lies near their borders."""
    return np.where(ndimage.binary_erosion(mask, iterations=_RIM, border_value=1), ndimage.label(mask)[0], 0)


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
