"""Small networks and images for the tests that need TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.config import UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, prepare
from napari_unet.nn import backend
from napari_unet.spec import ModelSpec

from .runs import SHORT, Run


@pytest.fixture(autouse=True)
def _fresh_backend() -> None:
    """The same start for each test: float32, seed 0."""
    backend.prepare("float32", 0)


def squares(size: int = 96, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image of bright squares on noise, each class with its brightness, and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.uint8)
    for y in range(4, size - 12, 16):
        for x in range(4, size - 12, 16):
            labels[y : y + 9, x : x + 9] = rng.integers(classes)
    image = 100.0 * labels + rng.normal(0, 10, labels.shape) + 200
    return image.astype(np.uint16), labels


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """One image of two classes, large enough to hold a part out."""
    image, labels = squares()
    return prepare([Stack(image, "YX", "squares")], [Stack(labels, "YX", "paint")], unpainted="background")


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    """The card of a tiny network for `dataset`."""
    return ModelSpec(network=UNetConfig(filters=2, depth=1))


# Trainings that several tests look at: each builds and traces a network, which takes seconds.


@pytest.fixture(scope="session")
def whole(dataset: Dataset, spec: ModelSpec) -> Run:
    """The plain training of 12 steps."""
    return Run(dataset, spec, run="folder")


@pytest.fixture(scope="session")
def cut(dataset: Dataset, spec: ModelSpec) -> Run:
    """The same, stopped after 5 steps."""
    return Run(dataset, spec, until=5)


@pytest.fixture(scope="session")
def three(dataset: Dataset, spec: ModelSpec) -> Run:
    """One of 3 steps."""
    return Run(dataset, spec, SHORT.replace(steps=3))
