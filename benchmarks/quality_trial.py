"""What every recipe is given and what it hands back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from quality_cells import Cell
from quality_data import DataSet
from quality_painter import BACKGROUND, scribble
from quality_scores import score
from scipy import ndimage

import napari_unet
from napari_unet.config import PredictConfig, UNetConfig

if TYPE_CHECKING:
    from napari_unet.nn.model import UNetModel

__all__ = ["MARKS", "Meter", "Paint", "components", "marks_of", "network_of", "paint", "score_model"]

MARKS = (1 / 6, 1 / 3, 2 / 3)
"""Parts of its time after which a recipe's model is scored as well, beside the end."""

_Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Paint:
    """Labels of the training images.

    Parameters
    ----------
    labels : list of ndarray of int32, each (Y, X)
        Dense: classes or ids, 0 for background. Scribbles: one more than that, 0 for unpainted.
    unpainted : {"background", "ignore"}
        What 0 means.
    background_value : int or None
        What background is painted with.
    """

    labels: list[_Labels]
    unpainted: Literal["background", "ignore"]
    background_value: int | None

    @property
    def dense(self) -> bool:
        """Whether every pixel is labelled."""
        return self.unpainted == "background"

    def as_regions(self) -> Paint:
        """Return the same paint with one value for all objects."""
        top = 1 if self.dense else BACKGROUND + 1
        labels = [np.minimum(labels, top).astype(np.int32) for labels in self.labels]
        return Paint(labels, self.unpainted, self.background_value)


def network_of(cell: Cell) -> UNetConfig:
    """Return the network that is trained: what is chosen where there is no GPU; for plain, with batch normalisation."""
    return UNetConfig.preset("quick-norm" if cell.recipe == "plain" else "quick")


def paint(data: DataSet, cell: Cell) -> Paint:
    """Paint the training images as the cell asks: each from its seed and its place in the set."""
    truths = [picture.truth for picture in data.train]
    if cell.amount == 1:
        return Paint(truths, "background", None)
    objects = data.kind == "objects"
    labels = [
        scribble(truth, cell.amount, np.random.default_rng([cell.seed, i]), objects=objects)
        for i, truth in enumerate(truths)
    ]
    return Paint(labels, "ignore", BACKGROUND)


class Meter:
    """How long training takes, and how much of the machine it gets, which is shared."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self._cpu = time.process_time()
        self._load = _load()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def read(self) -> dict[str, Any]:
        """CPU seconds, the cores that makes, and the machine's load at the start and now."""
        cpu = time.process_time() - self._cpu
        return {
            "cpu_seconds": round(cpu, 1),
            "cores": round(cpu / max(self.seconds, 1e-3), 2),
            "load": [self._load, _load()],
        }


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def marks_of(
    moments: Sequence[tuple[float, Any]], scores: Callable[[Any], dict[str, float]]
) -> list[dict[str, Any]]:
    """Score what a recipe had at each of `MARKS`.

    Parameters
    ----------
    moments : sequence of (float, model)
        Parts of the time, ascending, and what a user would have had from then on.
    scores : callable
        From a model to its scores; called once for each.

    Returns
    -------
    list of dict
        ``part``, and ``scores``; a mark before the first model is absent.
    """
    marks: list[dict[str, Any]] = []
    known: dict[int, dict[str, float]] = {}
    for part in MARKS:
        there = [i for i, (moment, _) in enumerate(moments) if moment <= part + 0.02]
        if there:
            last = there[-1]
            if last not in known:
                known[last] = scores(moments[last][1])
            marks.append({"part": round(part, 3), "scores": known[last]})
    return marks


def score_model(model: UNetModel, data: DataSet, found: Paint, *, ids: bool = False) -> dict[str, float]:
    """Segment the test images with a model, by napari-unet's tiles, and score that.

    Parameters
    ----------
    model : UNetModel
        Trained on `found`.
    data : DataSet
        Whose test images to segment.
    found : Paint
        What values the model knows.
    ids : bool
        For objects: whether the model's labels are ids; otherwise its connected components are
        taken.
    """
    output: Literal["labels", "probabilities"] = "probabilities" if data.kind == "membranes" else "labels"
    config = PredictConfig(probability_type="float32")
    results = []
    for picture in data.test:
        result = napari_unet.predict(model, picture.image, config, output=output, axes=data.axes)
        if data.kind == "classes" and not found.dense:
            result = np.where(result > 0, result.astype(np.int32) - 1, 0)
        results.append(components(result) if data.kind == "objects" and not ids else result)
    return score(data, results, model.spec.threshold)


def components(foreground: npt.NDArray[Any]) -> _Labels:
    """Number the 4-connected components of what is not 0."""
    return np.asarray(ndimage.label(foreground > 0)[0], np.int32)
