"""From probabilities to labels and objects: how it is done best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.config import OBJECT_FIELDS, PredictConfig
from napari_unet.data.blocks import IDS
from napari_unet.data.instance_metrics import IOU_THRESHOLDS, overlap, pooled_score
from napari_unet.data.labels import class_map_of
from napari_unet.data.metrics import segment_scores
from napari_unet.data.objects import foreground, grow, sow
from napari_unet.data.tally import certainty, in_order
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

# Class and border weights make a network say too much, so there are more high ones.
_FOREGROUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_NECKS = (3.0, 2.0, 1.5, 1.0)
_SEEDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_CONFIDENCES = (0.7, 0.75, 0.8, 0.85, 0.87, 0.9, 0.92, 0.95)
_SIZES = (0.25, 0.5, 1.0)
_RIM = 2  # pixels of a region's border that do not count when regions are told apart
_SMALL = 5  # percentile of the true objects' sizes that the least size is a part of: of the median it would cost real ones


@dataclass(frozen=True, eq=False)
class Region:
    """Probabilities and truth of a part of an image that was held out.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (Y, X, 3) or (Y, X, 2)
        Of background, inside and border; or of two classes, NaN where nothing was computed.
    truth : ndarray of int, shape (Y, X)
        Objects, 0 for none; or the class, 0 or 1.
    known : ndarray of bool, shape (Y, X)
        Where the truth is known. Elsewhere the answer does not count either, but that it may join strokes.
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
        Thresholds, depth of necks, and what is left out.
    ap : float
        Mean, over IoU 0.5, 0.55, ..., 0.9, of the average precision pooled over the regions.
    ap50 : float
        Average precision at IoU 0.5.
    """

    decoding: ObjectDecoding
    ap: float
    ap50: float


def choose_decoding(regions: Sequence[Region], stop: Stop = never_stop) -> Choice | None:
    """Choose the settings of the watershed that find the true objects best.

    What is maximised is `Choice.ap`. Foreground threshold, depth of necks, seed threshold, least confidence and least size are chosen one after the other,
    each with the best of those before; both thresholds by going from the default as long as it gets no worse, up or else
    down. Of equals the one nearest to the default stays.

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

    def tried(decoding: ObjectDecoding, grown: _Grown | None = None) -> _Scored:
        if stop():
            return _Scored(decoding, -1.0, 0.0, ())
        return _scored(regions, truths, decoding, grown or [_grown(region, decoding) for region in regions])

    best = tried(ObjectDecoding())
    best = _climbed(best, "foreground_threshold", _FOREGROUNDS, tried)
    for depth in _NECKS:
        best = max(best, tried(best.decoding.replace(neck_depth=depth)), key=_by_score)
    best = _climbed(best, "seed_threshold", _SEEDS, tried)
    # What is left out does not change how the others grow.
    for confidence in _CONFIDENCES:
        best = max(best, tried(best.decoding.replace(min_confidence=confidence), best.grown), key=_by_score)
    small = float(np.percentile(sizes[sizes > 0], _SMALL))
    for part in _SIZES:
        best = max(
            best, tried(best.decoding.replace(min_size=round(part * small)), best.grown), key=_by_score
        )
    return None if stop() else Choice(best.decoding, best.score, best.ap50)


def choose_threshold(
    regions: Sequence[Region], dice: Mapping[float, float], stop: Stop = never_stop, *, whole: bool = True
) -> float:
    """Choose the threshold of two classes that is good for pixels and keeps connected regions apart.

    The threshold that is best for pixels tears thin walls: a few wrong pixels join two cells, which Dice hardly sees. So
    V_rand (`napari_unet.data.metrics.segment_scores`) is added, of the 4-connected regions of a class, averaged over both
    classes and all that was held out.

    Where every pixel is labelled, it is taken over the cores of the true regions. A core ends two pixels before the region does:
    there, only what is joined, split or lost counts, and how wide regions come out is left to Dice.

    Where strokes are painted, it is taken over the strokes, as far as they are found: one that is broken is a region that was split, and two
    in one region may be two that were joined. Where both were painted within one cell, that costs the same at every good threshold.

    Parameters
    ----------
    regions : sequence of Region
        Of two classes, held out.
    dice : mapping of float to float
        Mean Dice of both classes at each candidate; a pixel that reaches a threshold is of class 1.
    stop : callable
        Asked before each candidate; then, the best so far is taken.
    whole : bool
        Whether every pixel was labelled, rather than strokes painted.

    Returns
    -------
    float
        Of equals, the candidate nearest to 0.5.
    """
    part = _cores if whole else _strokes
    parts = [
        (region, value, parted)
        for region in regions
        for value in (0, 1)
        if (parted := part((region.truth == value) & region.known)).any()
    ]
    best, best_score = 0.5, -1.0
    for threshold in sorted(dice, key=lambda value: (abs(value - 0.5), value)):
        if stop():
            break
        scores = []
        for region, value, parted in parts:
            said = _said(region, value, threshold)
            # Nothing is joined across what is not known; between strokes, all that was computed may join.
            scores.append(
                _parting(parted, said & region.known) if whole else _parting(np.where(said, parted, 0), said)
            )
        score = dice[threshold] + (float(np.mean(scores)) if scores else 0.0)
        if score > best_score:
            best, best_score = threshold, score
    return best


def _said(region: Region, value: int, threshold: float) -> NDArray[np.bool_]:
    """Where the answer is a class; what was not computed is not a number, and of none."""
    reached = region.probabilities[..., 1]
    return np.asarray(reached >= threshold if value else reached < threshold)


def _parting(truth: NDArray[Any], said: NDArray[np.bool_]) -> float:
    """V_rand of the 4-connected regions that were said; 0 where there is nothing to compare."""
    return segment_scores(truth, ndimage.label(said)[0])[0] if truth.any() else 0.0


def _cores(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Part a mask into numbered regions, and leave out what lies near their borders."""
    return np.where(ndimage.binary_erosion(mask, iterations=_RIM, border_value=1), ndimage.label(mask)[0], 0)


def _strokes(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Give each stroke a number; those that touch, also by a corner, are one."""
    return np.asarray(ndimage.label(mask, np.ones((3, 3)))[0])


_Grown = Sequence[tuple[NDArray[Any], NDArray[np.uint8]]]
"""Objects of each region before any are left out, and how certain each pixel is."""


class _Scored(NamedTuple):
    """Settings, how good they are, and what grew with them."""

    decoding: ObjectDecoding
    score: float
    ap50: float
    grown: _Grown


def _by_score(scored: _Scored) -> float:
    return scored.score


def _climbed(
    start: _Scored, name: str, values: Sequence[float], tried: Callable[[ObjectDecoding], _Scored]
) -> _Scored:
    """Go through the values of a setting from where it is, upwards or else downwards, as long as it gets no worse."""
    best, at = start, values.index(getattr(start.decoding, name))
    for way in (values[at + 1 :], values[:at][::-1]):
        for value in way:
            found = tried(best.decoding.replace(**{name: value}))
            if found.score < best.score:
                break
            best = max(best, found, key=_by_score)
        if best is not start:
            break
    return best


def _grown(region: Region, decoding: ObjectDecoding) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    probabilities = region.probabilities
    mask = foreground(probabilities, decoding)
    seeds = sow(probabilities, mask, decoding)
    return grow(probabilities, seeds, mask), certainty(probabilities)


def _scored(
    regions: Sequence[Region], truths: Sequence[NDArray[np.int32]], decoding: ObjectDecoding, grown: _Grown
) -> _Scored:
    """Score settings by the mean AP over the thresholds."""
    images = [
        overlap(np.where(region.known, in_order(*each, decoding)[0], 0), truth)
        for region, truth, each in zip(regions, truths, grown, strict=True)
    ]
    scores = [pooled_score(images, threshold) for threshold in IOU_THRESHOLDS]
    aps = [score.ap for score in scores if score is not None]
    return _Scored(decoding, float(np.mean(aps)), aps[0], grown)


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
    own = {name: getattr(config, name) for name in OBJECT_FIELDS}
    own["foreground_threshold"] = config.threshold
    return spec.objects.replace(**{name: value for name, value in own.items() if value is not None})
