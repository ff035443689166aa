"""Bringing a network that learned from strokes to how common classes are where nobody painted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_unet.data.dataset import Dataset, Example
from napari_unet.data.labels import IGNORE
from napari_unet.data.shares import adapted_shares, learned_shares
from napari_unet.nn.computing import Forward
from napari_unet.nn.model import Arrays
from napari_unet.nn.validation import log_probabilities

__all__ = ["Prior"]

_LOOKS = 12  # patches that are looked at
_SIDE = 256  # of each, in pixels, at most
_RARE = 1e-4  # a class is taken for at least that common
_PART = 1 / 2
"""Of the way there: all of it lost the rarest of four classes (rocks)."""

_LAST = "logits/bias"


class Prior:
    """How common classes are in the unpainted parts of what is trained on.

    It counts where unpainted pixels are ignored and the largest of three or more classes wins. Of two classes a threshold decides,
    of objects the settings of their watershed, which are chosen on what is held out.

    Parameters
    ----------
    dataset : Dataset
        What labels mean.
    examples : sequence of Example
        What is trained on.
    stride : int
        Of the network.
    """

    def __init__(self, dataset: Dataset, examples: Sequence[Example], stride: int) -> None:
        classes = len(dataset.class_map.values)
        self._looks: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = []
        self._learned = learned_shares(examples, classes)
        if classes > 2 and dataset.target == "classes" and dataset.class_map.unpainted == "ignore":
            self._looks = _unpainted(examples, stride)

    def correct(self, forward: Forward, weights: Arrays) -> Arrays:
        """Return weights whose answers fit better how common classes are where nobody painted.

        Only the last biases change: by half the logarithm of how much more common each class is than it was painted.

        Parameters
        ----------
        forward : callable
            From normalised pixels to the logits of the network with `weights`.
        weights : mapping of str to ndarray
            Of the network, by name.
        """
        if not self._looks:
            return weights
        answers = np.concatenate(
            [np.exp(log_probabilities(forward(pixels[None])[0][free])) for pixels, free in self._looks]
        )
        shares = adapted_shares(answers, self._learned)
        change = np.log(np.maximum(shares, _RARE)) - np.log(np.maximum(self._learned, _RARE))
        return {**weights, _LAST: (weights[_LAST] + _PART * change).astype(np.float32)}


def _unpainted(
    examples: Sequence[Example], stride: int
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """Take patches, spread over all examples, and which of their pixels nobody painted."""
    rng = np.random.default_rng(0)
    looks = []
    for number in np.linspace(0, len(examples) - 1, _LOOKS).round().astype(int):
        example = examples[number]
        sides = [min(size, _SIDE) // stride * stride for size in example.target.shape]
        y, x = (
            int(rng.integers(size - side + 1)) for size, side in zip(example.target.shape, sides, strict=True)
        )
        window = slice(y, y + sides[0]), slice(x, x + sides[1])
        free = example.target[window] == IGNORE
        if free.any():
            looks.append((np.ascontiguousarray(example.image[window]), free))
    return looks
