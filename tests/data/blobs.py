"""Objects that touch, and what a network would say of them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_unet.data.objects import number_objects, object_targets


def blobs(seed: int, shape: tuple[int, int] = (48, 52)) -> np.ndarray:
    """Numbered objects, some of which touch."""
    rng = np.random.default_rng(seed)
    at = np.indices(shape).reshape(2, -1).T
    points = rng.uniform((4, 4), np.array(shape) - 4, (8, 2))
    distance = np.linalg.norm(at[:, None] - points, axis=-1)
    ids = np.where(distance.min(1) < 7, distance.argmin(1) + 1, 0).reshape(shape)
    return number_objects(ids)


def blurred(ids: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """Probabilities as of a network that is unsure near outlines."""
    sure = np.eye(3, dtype=np.float32)[object_targets(ids)]
    return ndimage.gaussian_filter(sure, (sigma, sigma, 0))
