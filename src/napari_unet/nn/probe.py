"""Telling a dead network from one that learns."""

from __future__ import annotations

import numpy as np

from napari_unet.data.labels import IGNORE
from napari_unet.nn import computing
from napari_unet.nn.batches import Source
from napari_unet.nn.learner import Learner
from napari_unet.nn.validation import log_probabilities

__all__ = ["Probe"]

_BATCHES = 16  # drawn at most to find two classes
_SPREAD = 1e-3  # of probabilities, under which a network's answer is the same everywhere


class Probe:
    """A few patches with more than one class, for which a network that learns has more than one answer.

    Parameters
    ----------
    source : Source
        Draws batches. Its first ones are taken; if they show a single class, any answer will do.
    """

    def __init__(self, source: Source) -> None:
        self._images: np.ndarray | None = None
        images = []
        classes: set[int] = set()
        for n in range(_BATCHES):
            batch, targets, _ = source.batch(n)
            images.append(batch)
            classes.update(np.unique(targets[targets != IGNORE]).tolist())
            if len(classes) > 1:
                self._images = np.concatenate(images)
                return

    def finds_dead(self, learner: Learner, at_once: int) -> bool:
        """Whether the network gives the same answer on every pixel.

        Parameters
        ----------
        learner : Learner
            The network.
        at_once : int
            Patches to compute at once.

        Raises
        ------
        MemoryError
            If memory ran out.
        """
        if self._images is None:
            return False
        parts = [self._images[i : i + at_once] for i in range(0, len(self._images), at_once)]
        with computing.memory_errors():
            logits = np.concatenate([learner.forward(part) for part in parts])
        return bool(np.exp(log_probabilities(logits)).std((0, 1, 2)).max() < _SPREAD)
