"""What a user would otherwise reach for: scikit-image's features at several scales and a random forest.

As in scikit-image's "Trainable segmentation using local features and random forests", with the
classifier of `skimage.future.TrainableSegmenter`. Needs scikit-learn.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_cells import Cell
from quality_data import CLASSES, DataSet, Picture
from quality_scores import score
from quality_trial import Meter, Paint, components
from skimage.feature import multiscale_basic_features

__all__ = ["run"]

_PIXELS = 200_000  # that a forest learns from, over all images; more takes minutes and changes little
_TREES = 100
_BLOCK = 500_000  # pixels classified at once


def run(data: DataSet, paint: Paint, cell: Cell, folder: Path) -> dict[str, Any]:  # noqa: ARG001
    """Train and score; see `quality.one`."""
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError:
        raise SystemExit(
            "The forest needs scikit-learn: install it with python -m pip install scikit-learn."
        ) from None
    paint = paint.as_regions() if data.kind == "objects" else paint
    meter = Meter()
    forest = RandomForestClassifier(_TREES, n_jobs=-1, random_state=cell.seed)
    forest.fit(*_samples(data, paint, np.random.default_rng(cell.seed)))
    use = {"train_seconds": round(meter.seconds, 1), **meter.read()}
    started = time.perf_counter()
    results = [_segment(forest, picture, data) for picture in data.test]
    return {
        "scores": score(data, results),
        "marks": [],
        "predict_seconds": round(time.perf_counter() - started, 1),
        **use,
    }


def _samples(
    data: DataSet, paint: Paint, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Take features and classes of painted pixels: as many from each image."""
    features, classes = [], []
    for picture, labels in zip(data.train, paint.labels, strict=True):
        values = labels if paint.dense else labels - 1  # -1 is unpainted
        places = np.flatnonzero(values.ravel() >= 0)
        if len(places) > _PIXELS // len(data.train):
            places = rng.choice(places, _PIXELS // len(data.train), replace=False)
        features.append(_features(picture)[places])
        classes.append(values.ravel()[places])
    return np.concatenate(features), np.concatenate(classes)


def _features(picture: Picture) -> npt.NDArray[np.float32]:
    """Intensity, edges and texture at five scales, (pixels, features)."""
    channel = -1 if picture.image.ndim == 3 else None
    found = multiscale_basic_features(picture.image, sigma_min=1, sigma_max=16, channel_axis=channel)
    return np.asarray(found.reshape(-1, found.shape[-1]), np.float32)


def _segment(forest: Any, picture: Picture, data: DataSet) -> npt.NDArray[Any]:
    features = _features(picture)
    blocks = [
        forest.predict_proba(features[start : start + _BLOCK]) for start in range(0, len(features), _BLOCK)
    ]
    known = np.zeros((len(features), len(CLASSES.get(data.name, "ab"))), np.float32)
    known[:, forest.classes_] = np.concatenate(blocks)
    if data.kind == "membranes":
        return known[:, 1].reshape(picture.truth.shape)
    classes = known.argmax(1).reshape(picture.truth.shape)
    return components(classes) if data.kind == "objects" else classes
