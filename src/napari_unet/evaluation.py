"""Compare segmentations with the truth: files in, figures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_unet.data.instance_metrics import (
    IOU_THRESHOLDS,
    Overlap,
    mean_score,
    overlap,
    pooled_score,
    seg_score,
)
from napari_unet.data.labels import as_integers
from napari_unet.data.metrics import class_scores, membrane_scores, pixel_error
from napari_unet.errors import DataError
from napari_unet.files.image import open_image
from napari_unet.files.pairs import match_pairs

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Figures of a comparison.

    Parameters
    ----------
    task : {"semantic", "instances", "membranes"}
        What was compared.
    images : int
        How many images.
    columns : tuple of str
        What the figures of each row are.
    rows : dict of str to tuple of float
        Figures by class, or over all. What could not be measured has no row.
    """

    task: str
    images: int
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


def evaluate(
    prediction: str | PathLike[str],
    truth: str | PathLike[str],
    *,
    task: Literal["semantic", "instances", "membranes"] = "semantic",
) -> Evaluation:
    """Compare predictions with truths that match them by name.

    Parameters
    ----------
    prediction : path
        Labels (``semantic``, ``instances``) or probabilities of the higher value (``membranes``): a
        file, or a folder of files.
    truth : path
        Labels: a file, or a folder. For membranes, the higher value is the cell, the lower the
        membrane, as in the ISBI 2012 challenge.
    task : {"semantic", "instances", "membranes"}
        ``semantic``: IoU and Dice of each class over the pixels of all images, background counted
        in, and the fraction of pixels that are right. ``instances``: average precision (AP) of objects
        at IoU 0.5, 0.55, ..., 0.9, precision, recall and F1 at 0.5, and SEG: over the objects of all
        images, and the mean of the images; slices of a stack count as images
        (`napari_unet.data.instance_metrics`). ``membranes``: V_rand, V_info and pixel
        error, means over all slices, each at its best threshold (see
        `napari_unet.data.metrics.membrane_scores`).

    Returns
    -------
    Evaluation
        The figures.

    Raises
    ------
    FileError
        If a file cannot be read, or nothing matches.
    DataError
        If two shapes differ.
    """
    pairs = match_pairs(prediction, truth).pairs
    arrays = [_load_pair(*pair) for pair in pairs]
    if task == "membranes":
        return Evaluation(task, len(pairs), ("",), _membranes(arrays))
    if task == "instances":
        return Evaluation(task, len(pairs), ("all objects", "mean of images"), _instances(arrays))
    return Evaluation(task, len(pairs), ("IoU", "Dice"), _semantic(arrays))


_Arrays = npt.NDArray[Any]


def _load_pair(prediction: Path, truth: Path) -> tuple[_Arrays, _Arrays]:
    ours, theirs = (np.asarray(open_image(path).array[...]) for path in (prediction, truth))
    if ours.shape != theirs.shape:
        raise DataError(
            f"{prediction.name} has shape {ours.shape}, but its truth {truth.name} has {theirs.shape}. They must match."
        )
    return ours, as_integers(theirs, truth.name)


def _semantic(arrays: Sequence[tuple[_Arrays, _Arrays]]) -> dict[str, tuple[float, ...]]:
    """Score the pixels of all images together, so that large images count for more."""
    ours = np.concatenate([as_integers(prediction, "the prediction").ravel() for prediction, _ in arrays])
    theirs = np.concatenate([truth.ravel() for _, truth in arrays])
    values = sorted({int(value) for value in np.union1d(ours, theirs)})
    scores = class_scores(ours, theirs, values)
    rows: dict[str, tuple[float, ...]] = {
        f"class {v}": (score.iou, score.dice) for v, score in scores.items()
    }
    rows["mean"] = (
        float(np.mean([score.iou for score in scores.values()])),
        float(np.mean([score.dice for score in scores.values()])),
    )
    wrong = pixel_error(ours, theirs)
    rows["pixels right"] = (1 - wrong, 1 - wrong)
    return rows


def _instances(arrays: Sequence[tuple[_Arrays, _Arrays]]) -> dict[str, tuple[float, ...]]:
    images = [
        overlap(ours, theirs)
        for prediction, truth in arrays
        for ours, theirs in zip(
            _slices(as_integers(prediction, "the prediction")), _slices(truth), strict=True
        )
    ]
    rows: dict[str, tuple[float, ...]] = {}
    if any(image.found or image.truth for image in images):
        for threshold in IOU_THRESHOLDS:
            rows[f"AP {threshold:.2f}"] = _both(images, threshold, "ap")
        for name in ("precision", "recall", "f1"):
            rows[f"{name} {IOU_THRESHOLDS[0]:.2f}"] = _both(images, IOU_THRESHOLDS[0], name)
    if (seg := seg_score(images)) is not None:
        each = [score for image in images if (score := seg_score([image])) is not None]
        rows["SEG"] = (seg, float(np.mean(each)))
    for name in ("found", "truth"):
        counts = [getattr(image, name) for image in images]
        rows[f"objects ({name})"] = (float(sum(counts)), float(np.mean(counts)))
    return rows


def _both(images: Sequence[Overlap], threshold: float, name: str) -> tuple[float, ...]:
    """One figure over all objects, and as the mean of the images; there is an object."""
    return tuple(float(getattr(score(images, threshold), name)) for score in (pooled_score, mean_score))


def _membranes(arrays: Sequence[tuple[_Arrays, _Arrays]]) -> dict[str, tuple[float, ...]]:
    slices = [pair for ours, truth in arrays for pair in zip(_slices(ours), _slices(truth), strict=True)]
    if len({ours.shape for ours, _ in slices}) > 1:
        raise DataError("The slices differ in size: compare slices of one size at a time.")
    probability = np.stack([_probability(ours) for ours, _ in slices])
    truth = np.stack([truth for _, truth in slices])
    scores = membrane_scores(probability, truth == truth.max())
    return {name.replace("_", " "): (value,) for name, value in asdict(scores).items()}


def _slices(array: _Arrays) -> _Arrays:
    return array.reshape(-1, *array.shape[-2:])


def _probability(array: _Arrays) -> _Arrays:
    """Read stored probabilities as 0 to 1."""
    if array.dtype == np.uint8:
        return array / np.float32(255)
    if np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1:
        return array
    raise DataError(
        f"A prediction of type {array.dtype} with values from {array.min()} to {array.max()} is not a probability: "
        "it must be uint8 (255 stands for 1) or float from 0 to 1. Segment with --output probabilities."
    )
