"""How a segmentation of the test images is scored, by napari-unet's own evaluation functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_data import CLASSES, DataSet

from napari_unet.data.instance_metrics import overlap, pooled_score, seg_score
from napari_unet.data.metrics import class_scores, membrane_scores

__all__ = ["PRIMARY", "Scores", "score"]

Scores = dict[str, float]

PRIMARY = {"membranes": "v_rand", "classes": "mean_iou", "objects": "ap_50"}
"""The figure that is drawn and compared, by kind of data."""

_IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)

_Arrays = Sequence[npt.NDArray[Any]]


def score(data: DataSet, predictions: _Arrays, threshold: float = 0.5) -> Scores:
    """Score predictions of the test images.

    Parameters
    ----------
    data : DataSet
        Its test images hold the truth.
    predictions : sequence of ndarray, each (Y, X)
        Membranes: probability of the cell, 0 to 1. Classes: class of each pixel. Objects: ids.
    threshold : float
        Membranes: the one the recipe chose without the test images, for `v_rand_chosen`.

    Returns
    -------
    dict of str to float
        Membranes: the challenge's figures, at the best of its eleven thresholds, and V_rand and pixel error at the
        recipe's own threshold. Classes: IoU of each over the pixels of all images, and their mean.
        Objects: average precision at IoU 0.5 to 0.9, pooled over all objects.
    """
    truths = [picture.truth for picture in data.test]
    if data.kind == "membranes":
        return _membranes(np.stack(predictions), np.stack(truths) > 0, threshold)
    if data.kind == "classes":
        return _classes(predictions, truths, CLASSES[data.name])
    return _objects(predictions, truths)


def _membranes(probability: npt.NDArray[Any], truth: npt.NDArray[np.bool_], threshold: float) -> Scores:
    best = membrane_scores(probability, truth)
    # The challenge counts what lies above a threshold, a model what reaches it.
    chosen = membrane_scores(probability, truth, [float(np.nextafter(np.float32(threshold), np.float32(0)))])
    return {
        "v_rand": best.v_rand,
        "v_info": best.v_info,
        "pixel_error": best.pixel_error,
        "v_rand_chosen": chosen.v_rand,
        "pixel_error_chosen": chosen.pixel_error,
    }


def _classes(predictions: _Arrays, truths: _Arrays, names: Sequence[str]) -> Scores:
    ours, theirs = (np.concatenate([array.ravel() for array in arrays]) for arrays in (predictions, truths))
    scores = {
        names[value]: found.iou for value, found in class_scores(ours, theirs, range(len(names))).items()
    }
    return {"mean_iou": float(np.mean(list(scores.values()))), **scores}


def _objects(predictions: _Arrays, truths: _Arrays) -> Scores:
    images = [overlap(ours, theirs) for ours, theirs in zip(predictions, truths, strict=True)]
    found = {f"ap_{100 * iou:.0f}": pooled_score(images, iou) for iou in _IOUS}
    scores = {name: result.ap for name, result in found.items() if result is not None}
    return {**scores, "seg": seg_score(images) or 0.0}
