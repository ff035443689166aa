"""Telling a dead network from one that learns, in little memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from napari_unet.nn.probe import Probe


class OneClassEach:
    """Batches of two patches; those of batch n show class n alone."""

    def batch(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape = (2, 16, 16)
        return np.full((*shape, 1), n, np.float32), np.full(shape, n, np.uint8), np.ones(shape, np.float32)


@pytest.mark.parametrize(("slope", "dead"), [(0.0, True), (1.0, False)])
def test_no_more_patches_at_once_than_in_a_step(slope: float, dead: bool) -> None:
    shapes = []

    def forward(images: np.ndarray) -> np.ndarray:
        shapes.append(images.shape)
        return slope * images

    learner: Any = SimpleNamespace(forward=forward)
    assert Probe(OneClassEach()).finds_dead(learner, 1) is dead
    assert shapes == [(1, 16, 16, 1)] * 4


def test_memory_that_runs_out_is_told_as_such() -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    learner: Any = SimpleNamespace(forward=forward)
    with pytest.raises(MemoryError):
        Probe(OneClassEach()).finds_dead(learner, 2)
