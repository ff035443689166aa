"""How well objects are found: matched by their overlap, by the definitions of the field.

Sources
-------
Average precision : Everingham et al. (Pascal VOC) count detections; the form TP / (TP + FP + FN) at a
threshold on IoU is that of the 2018 Data Science Bowl, and, pooled over images, that of Schmidt et al.,
"Cell detection with star-convex polygons", MICCAI 2018 (StarDist).
SEG : Maška et al., "A benchmark for comparison of cell tracking algorithms", Bioinformatics 30 (2014),
of the Cell Tracking Challenge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.data.objects import number_objects
from napari_unet.errors import DataError

__all__ = [
    "IOU_THRESHOLDS",
    "ObjectScore",
    "Overlap",
    "count_matches",
    "mean_score",
    "overlap",
    "pooled_score",
    "seg_score",
]

IOU_THRESHOLDS: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""At which average precision is reported."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """What is needed to score one image.

    Parameters
    ----------
    found, truth : int
        Number of objects in each.
    matched : ndarray of float64, shape (pairs,)
        IoU of each pair of matched objects, 0.5 or more, descending. Each object is in one pair at most.
    jaccard : float
        Sum, over the true objects, of the IoU with the object found that covers more than half of
        them; 0 for those without one.
    """

    found: int
    truth: int
    matched: npt.NDArray[np.float64]
    jaccard: float


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """Agreement of the objects found with the true ones, at one threshold on IoU.

    Parameters
    ----------
    ap : float
        Average precision: TP / (TP + FP + FN), 0 to 1.
    precision : float
        Part of the objects found that are true; 0 where none was found.
    recall : float
        Part of the true objects that are found; 0 where there is none.
    f1 : float
        2 TP / (2 TP + FP + FN), 0 to 1.
    """

    ap: float
    precision: float
    recall: float
    f1: float


def overlap(found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Overlap:
    """Compare the objects of one image with the true ones.

    Pairs are formed by descending IoU. From an IoU of 0.5 on that is the only way to match as
    many objects as possible: above it an object can have one partner only, and of two with exactly 0.5
    either will do.

    Parameters
    ----------
    found, truth : ndarray of int, any one shape
        Objects; 0 is none.

    Returns
    -------
    Overlap
        Counts and IoUs.

    Raises
    ------
    DataError
        If the shapes differ or are empty.
    """
    if found.shape != truth.shape or not truth.size:
        raise DataError(
            f"The objects found have shape {found.shape} and the true ones {truth.shape}. "
            "They must match and not be empty: compare labels of the same image."
        )
    ours, theirs = number_objects(found).ravel(), number_objects(truth).ravel()
    areas, true_areas = np.bincount(ours), np.bincount(theirs)
    both = (ours > 0) & (theirs > 0)
    keys, shared = np.unique(ours[both].astype(np.int64) * len(true_areas) + theirs[both], return_counts=True)
    i, j = np.divmod(keys, len(true_areas))
    iou = shared / (areas[i] + true_areas[j] - shared)
    covers = 2 * shared > true_areas[j]
    return Overlap(
        found=len(areas) - 1,
        truth=len(true_areas) - 1,
        matched=_pairs(i, j, iou),
        jaccard=float(iou[covers].sum()),
    )


def _pairs(
    i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], iou: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """IoU of pairs, the best first, each object used once."""
    candidates = np.flatnonzero(iou >= IOU_THRESHOLDS[0])
    candidates = candidates[np.argsort(-iou[candidates], kind="stable")]
    # The first occurrence of each object is its best; only ties at 0.5 have a second one.
    _, first_i = np.unique(i[candidates], return_index=True)
    _, first_j = np.unique(j[candidates], return_index=True)
    chosen = np.intersect1d(first_i, first_j)
    return np.asarray(iou[candidates[chosen]], np.float64)


def count_matches(images: Sequence[Overlap], threshold: float) -> tuple[int, int, int]:
    """Count objects found rightly, found wrongly and missed.

    Parameters
    ----------
    images : sequence of Overlap
        From `overlap`.
    threshold : float
        Least IoU of a match, 0.5 to 1.

    Returns
    -------
    tp, fp, fn : int
        Over all images.

    Raises
    ------
    DataError
        If the threshold is below 0.5, where matches are not unique.
    """
    if not IOU_THRESHOLDS[0] <= threshold <= 1:
        raise DataError(
            f"Objects are matched from an IoU of 0.5 on, where each has one partner at most, but {threshold:g} was asked for."
        )
    tp = sum(int(np.count_nonzero(image.matched >= threshold)) for image in images)
    return tp, sum(image.found for image in images) - tp, sum(image.truth for image in images) - tp


def pooled_score(images: Sequence[Overlap], threshold: float) -> ObjectScore | None:
    """Score the objects of all images together, so that an image with many counts for more (StarDist).

    Parameters
    ----------
    images : sequence of Overlap
        From `overlap`.
    threshold : float
        Least IoU of a match, 0.5 to 1.

    Returns
    -------
    ObjectScore or None
        None where there is no object, neither found nor true: nothing was measured.
    """
    tp, fp, fn = count_matches(images, threshold)
    if not tp + fp + fn:
        return None
    return ObjectScore(
        ap=tp / (tp + fp + fn),
        precision=tp / max(tp + fp, 1),
        recall=tp / max(tp + fn, 1),
        f1=2 * tp / (2 * tp + fp + fn),
    )


def mean_score(images: Sequence[Overlap], threshold: float) -> ObjectScore | None:
    """Average the scores of the images, so that each counts as much; those without any object are left out.

    Parameters
    ----------
    images : sequence of Overlap
        From `overlap`.
    threshold : float
        Least IoU of a match, 0.5 to 1.

    Returns
    -------
    ObjectScore or None
        None where no image has an object.
    """
    each = [score for image in images if (score := pooled_score([image], threshold)) is not None]
    if not each:
        return None
    names = ("ap", "precision", "recall", "f1")
    return ObjectScore(*(float(np.mean([getattr(score, name) for score in each])) for name in names))


def seg_score(images: Sequence[Overlap]) -> float | None:
    """Return SEG of the Cell Tracking Challenge: the mean, over the true objects, of their IoU with what covers them.

    Parameters
    ----------
    images : sequence of Overlap
        From `overlap`.

    Returns
    -------
    float or None
        0 to 1; an object that nothing covers by more than half counts 0. None without true objects.
    """
    truth = sum(image.truth for image in images)
    return sum(image.jaccard for image in images) / truth if truth else None
