"""How good a segmentation is, by the definitions of the field.

Sources
-------
IoU : Jaccard, "The distribution of the flora in the alpine zone", New Phytologist 11 (1912).
Dice : Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945).
Pixel error, V_rand, V_info : Arganda-Carreras et al., "Crowdsourcing the creation of image
segmentation algorithms for connectomics", Frontiers in Neuroanatomy 9:142 (2015), the ISBI 2012
challenge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from napari_unet.errors import DataError

__all__ = [
    "THRESHOLDS",
    "ClassScore",
    "MembraneScores",
    "class_scores",
    "membrane_scores",
    "pixel_error",
    "segment_scores",
    "thin_membranes",
]

THRESHOLDS: tuple[float, ...] = tuple(step / 10 for step in range(11))
"""The thresholds of the ISBI 2012 challenge."""

_DENSE = 4  # times as many numbers as pixels are counted in an array of that length


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Agreement of one class.

    Parameters
    ----------
    iou : float
        Intersection over union, 0 to 1 (Jaccard 1912).
    dice : float
        Twice the intersection over the sum of both areas, 0 to 1 (Dice 1945).
    """

    iou: float
    dice: float


@dataclass(frozen=True, slots=True)
class MembraneScores:
    """Scores of a membrane segmentation, as in the ISBI 2012 challenge.

    Each is the mean over slices, at the threshold where that mean is best.

    Parameters
    ----------
    pixel_error : float
        Fraction of pixels on the wrong side, before thinning; 0 is best.
    v_rand : float
        Foreground-restricted Rand score after thinning; 1 is best.
    v_info : float
        Foreground-restricted information-theoretic score after thinning; 1 is best.
    threshold : float
        Where `v_rand` is best: a pixel above it is cell.
    pixel_error_at_half : float
        Pixel error at the threshold 0.5, chosen by nobody.
    """

    pixel_error: float
    v_rand: float
    v_info: float
    threshold: float
    pixel_error_at_half: float


def class_scores(
    prediction: npt.NDArray[Any], truth: npt.NDArray[Any], values: Iterable[int]
) -> dict[int, ClassScore]:
    """Compare labels class by class.

    Parameters
    ----------
    prediction, truth : ndarray of int
        Labels of one shape. Pixels that should not count are left out by indexing both.
    values : iterable of int
        Classes to score.

    Returns
    -------
    dict of int to ClassScore
        By class. A class that occurs in neither is absent: nothing was measured.

    Raises
    ------
    DataError
        If the shapes differ or are empty.
    """
    _check_same_shape(prediction, truth)
    scores = {}
    for value in values:
        ours, theirs = prediction == value, truth == value
        both = int(np.count_nonzero(ours & theirs))
        areas = int(np.count_nonzero(ours)) + int(np.count_nonzero(theirs))
        if areas:
            scores[value] = ClassScore(iou=both / (areas - both), dice=2 * both / areas)
    return scores


def pixel_error(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Fraction of pixels whose label is wrong.

    For two classes this is the squared distance of the two images divided by their size, the
    pixel error of Arganda-Carreras et al. 2015.

    Parameters
    ----------
    prediction, truth : ndarray of int or bool
        Labels of one shape.

    Returns
    -------
    float
        0 to 1; 0 is best.

    Raises
    ------
    DataError
        If the shapes differ or are empty.
    """
    _check_same_shape(prediction, truth)
    return float(np.count_nonzero(prediction != truth)) / truth.size


def thin_membranes(cell: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Thin membranes to lines of one pixel and number the cells between them.

    A watershed floods the membrane from the 4-connected components of the cells and keeps
    4-connected watershed lines, so that a score doesn't depend on how thick a membrane was drawn
    (Arganda-Carreras et al. 2015). A membrane that ends inside a cell disappears.

    Parameters
    ----------
    cell : ndarray of bool, shape (Y, X)
        True inside cells, False on membranes.

    Returns
    -------
    ndarray of int32, shape (Y, X)
        1, 2, ... for cells, 0 on the lines; 0 everywhere if there is no cell.
    """
    segments, count = ndimage.label(cell)
    if count < 2:
        # One cell floods everything, no cell floods nothing.
        return np.full(cell.shape, count, np.int32)
    flooded = watershed((~cell).astype(np.uint8), segments, connectivity=1, watershed_line=True)
    return np.asarray(flooded, np.int32)


def segment_scores(truth: npt.NDArray[Any], proposal: npt.NDArray[Any]) -> tuple[float, float]:
    """V_rand and V_info of two partitions of one slice.

    With p(i, j) the fraction of pixels in proposed segment i and true segment j, s and t its sums
    over j and i, I the mutual information and H the entropy (Arganda-Carreras et al. 2015, split
    and merge errors weighted alike)::

        V_rand = 2 sum p**2 / (sum s**2 + sum t**2)        V_info = 2 I(s, t) / (H(s) + H(t))

    Only pixels with `truth` > 0 count. Each of them with `proposal` = 0 (a line) is a segment of
    its own.

    Parameters
    ----------
    truth, proposal : ndarray of int, shape (Y, X)
        Numbered segments, 0 between them.

    Returns
    -------
    v_rand, v_info : float
        0 to 1; 1 is best. V_info is 1 where both are one and the same single segment.

    Raises
    ------
    DataError
        If the shapes differ or are empty, or no pixel has `truth` > 0.
    """
    _check_same_shape(proposal, truth)
    counted = truth > 0
    ours, theirs = proposal[counted].astype(np.int64), truth[counted].astype(np.int64)
    total = theirs.size
    if not total:
        raise DataError("A slice whose truth holds no cell cannot be scored: leave it out.")
    line = ours == 0
    singles = int(np.count_nonzero(line))
    ours, kept = ours[~line], theirs[~line]
    shared = _sizes(ours * (int(theirs.max()) + 1) + kept) / total
    mine, true = _sizes(ours) / total, _sizes(theirs) / total
    # A line pixel adds (1 / total)**2 to a sum of squares and log(total) / total to an entropy.
    squares = singles / total**2
    v_rand = 2 * (_squares(shared) + squares) / (_squares(mine) + squares + _squares(true))
    lines = singles * np.log(total) / total
    h_ours, h_true = _entropy(mine) + lines, _entropy(true)
    if h_ours + h_true <= 0:
        return float(v_rand), 1.0
    # I = H(s) + H(t) - H(s, t)
    v_info = 2 * (h_ours + h_true - _entropy(shared) - lines) / (h_ours + h_true)
    return float(v_rand), float(np.clip(v_info, 0, 1))  # rounding may leave 0 to 1 by 1e-16


def membrane_scores(
    probability: npt.NDArray[Any], truth: npt.NDArray[np.bool_], thresholds: Sequence[float] = THRESHOLDS
) -> MembraneScores:
    """Score a membrane segmentation as the ISBI 2012 challenge does.

    The truth's segments are the 4-connected components of its cells. At each threshold the
    proposal (cell where the probability is above it) is thinned by `thin_membranes` and compared
    by `segment_scores`; slices are averaged, then the best threshold counts. A slice without any
    cell in the truth counts for the pixel error only.

    Parameters
    ----------
    probability : ndarray of float, shape (N, Y, X)
        Probability of cell (not of membrane), 0 to 1.
    truth : ndarray of bool, shape (N, Y, X)
        True inside cells, False on membranes.
    thresholds : sequence of float
        By default 0, 0.1, ..., 1.

    Returns
    -------
    MembraneScores
        The scores.

    Raises
    ------
    DataError
        If the shapes differ or aren't (N, Y, X), if probabilities leave 0 to 1, or if no slice's
        truth holds a cell.
    """
    _check_membranes(probability, truth)
    levels = sorted(thresholds)
    segments, errors = [], []
    for ours, theirs in zip(probability, truth, strict=True):
        errors.append([pixel_error(ours > level, theirs) for level in levels])
        if theirs.any():
            segments.append(_slice_scores(ours, ndimage.label(theirs)[0], levels))
    v_rand, v_info = np.mean(segments, axis=0).T
    return MembraneScores(
        pixel_error=float(np.mean(errors, axis=0).min()),
        v_rand=float(v_rand.max()),
        v_info=float(v_info.max()),
        threshold=float(levels[int(v_rand.argmax())]),
        pixel_error_at_half=pixel_error(probability > 0.5, truth),
    )


def _slice_scores(
    probability: npt.NDArray[Any], truth: npt.NDArray[Any], levels: Sequence[float]
) -> list[tuple[float, float]]:
    """V_rand and V_info of one slice at each of the ascending thresholds."""
    scores: list[tuple[float, float]] = []
    before = -1
    for level in levels:
        cell = probability > level
        # Cells only shrink as the threshold rises: as many of them are the same ones.
        area = int(np.count_nonzero(cell))
        scores.append(scores[-1] if area == before else segment_scores(truth, thin_membranes(cell)))
        before = area
    return scores


def _sizes(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many pixels each id that occurs has."""
    if ids.size and ids.max() <= _DENSE * ids.size:  # many times as fast as sorting
        counts = np.bincount(ids)
        return counts[counts > 0]
    return np.unique(ids, return_counts=True)[1]


def _squares(parts: npt.NDArray[np.float64]) -> float:
    return float(parts @ parts)


def _entropy(parts: npt.NDArray[np.float64]) -> float:
    return float(-(parts @ np.log(parts)))


def _check_same_shape(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
    if prediction.shape != truth.shape:
        raise DataError(
            f"The prediction has shape {prediction.shape} but the truth has {truth.shape}. "
            "They must match: compare labels of the same image."
        )
    if not truth.size:
        raise DataError(f"Nothing can be scored: prediction and truth are empty, of shape {truth.shape}.")


def _check_membranes(probability: npt.NDArray[Any], truth: npt.NDArray[np.bool_]) -> None:
    _check_same_shape(probability, truth)
    if truth.ndim != 3 or truth.dtype != bool:
        raise DataError(
            f"Membranes are scored on true/false of shape (slices, y, x), but the truth is {truth.dtype} "
            f"of shape {truth.shape}: add an axis for the slices and compare it with the cell's value."
        )
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise DataError(
            f"Probabilities must lie between 0 and 1, but these go from {low:g} to {high:g}: "
            "divide 8-bit probabilities by 255."
        )
    if not truth.any():
        raise DataError(
            "The truth holds no cell, so membranes cannot be scored: check which of its values is the cell."
        )
