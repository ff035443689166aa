"""Which patches are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.augment import coordinates, flip_and_turn, sample, vary_intensity
from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.errors import DataError

__all__ = ["Batch", "Sampler"]

Batch = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]
"""Images (B, P, P, C), targets (B, P, P) and weights (B, P, P)."""

_BLOCK = 32


class Sampler:
    """Draws batches of training patches, each from its number alone.

    Batch n comes from ``default_rng([seed, n])``: there is no state to save, batches may be
    drawn in any order and by several threads at once. Every other patch shows a class drawn uniformly, so
    that rare classes are seen; the rest show any painted pixel. That pixel lies in the middle half
    of the patch, save where the image ends, and every patch holds a painted pixel.

    Parameters
    ----------
    examples : sequence of Example
        What to train on.
    classes : int
        Classes, background counted in. Those without a pixel are never drawn.
    patch : int
        Side of a patch, in pixels. Smaller images are reflected, without labels, up to it.
    batch : int
        Patches in a batch.
    seed : int
        The same seed gives the same batches.
    flips : bool
        Whether patches are flipped and turned.
    deform, intensity : float
        Strength of deformation and of varied brightness (`napari_unet.data.augment`); 0 for none.

    Raises
    ------
    DataError
        If no pixel is painted.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        classes: int,
        patch: int,
        batch: int,
        seed: int,
        flips: bool,
        deform: float = 0.0,
        intensity: float = 0.0,
    ) -> None:
        self.examples = tuple(examples)
        self.patch = patch
        self.batch_size = batch
        self.seed = seed
        self.flips = flips
        self.deform = deform
        self.intensity = intensity
        self._places = _paint_places(self.examples)
        self._ends = np.cumsum(self._places["count"])
        if not len(self._ends):
            raise DataError(
                "No pixel is painted in what is to be trained on. Paint some pixels of each class, then start again."
            )
        marks = np.searchsorted(self._places["kind"], np.arange(classes + 1))
        before = np.concatenate([[0], self._ends])[marks]
        self._of_class = [(int(a), int(b)) for a, b in pairwise(before) if a < b]

    def batch(self, n: int) -> Batch:
        """Draw batch n.

        Parameters
        ----------
        n : int
            Its number, from 0 up.

        Returns
        -------
        images : ndarray of float32, shape (B, P, P, C)
            Normalised pixels.
        targets : ndarray of uint8, shape (B, P, P)
            Class indices, or `napari_unet.data.labels.IGNORE`.
        weights : ndarray of float32, shape (B, P, P)
            How much each pixel counts.
        """
        rng = np.random.default_rng([self.seed, n])
        side, channels = self.patch, self.examples[0].image.shape[2]
        images = np.empty((self.batch_size, side, side, channels), np.float32)
        targets = np.empty((self.batch_size, side, side), np.uint8)
        weights = np.empty((self.batch_size, side, side), np.float32)
        for i in range(self.batch_size):
            low, high = 0, int(self._ends[-1])
            if (n * self.batch_size + i) % 2 == 0:
                low, high = self._of_class[int(rng.integers(len(self._of_class)))]
            example, y, x = self._pixel(int(rng.integers(low, high)))
            images[i], targets[i], weights[i] = self._varied(*self._cut(example, y, x, rng), rng)
        return images, targets, weights

    def _varied(
        self,
        image: NDArray[np.float32],
        target: NDArray[np.uint8],
        weight: NDArray[Any],
        rng: np.random.Generator,
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Vary a patch; its paint is kept even if a deformation would move all of it out."""
        if self.deform:
            where = coordinates(self.patch, self.deform, rng)
            moved = sample(target, where, nearest=True)
            if (moved != IGNORE).any():
                image, target = sample(image, where), moved
                weight = sample(weight, where, nearest=True)
        if self.intensity:
            image = vary_intensity(image, self.intensity, rng)
        way = int(rng.integers(8)) if self.flips else 0
        return flip_and_turn(image, way), flip_and_turn(target, way), flip_and_turn(weight, way)

    def _pixel(self, number: int) -> tuple[Example, int, int]:
        """Find painted pixel `number`, counted by class, then image, then block."""
        entry = int(np.searchsorted(self._ends, number, side="right"))
        kind, which, row, column, count = self._places[entry].item()
        example = self.examples[which]
        top, left = row * _BLOCK, column * _BLOCK
        ys, xs = np.nonzero(example.target[top : top + _BLOCK, left : left + _BLOCK] == kind)
        at = number - int(self._ends[entry]) + count
        return example, top + int(ys[at]), left + int(xs[at])

    def _cut(
        self, example: Example, y: int, x: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[Any]]:
        """Cut the patch around a pixel, padded where the image is smaller."""
        rows, above = _window(y, example.target.shape[0], self.patch, rng)
        columns, left = _window(x, example.target.shape[1], self.patch, rng)
        image, target = example.image[rows, columns], example.target[rows, columns]
        weight: NDArray[Any] = (
            np.ones(target.shape) if example.weight is None else example.weight[rows, columns]
        )
        if target.shape != (self.patch, self.patch):
            below, right = self.patch - above - target.shape[0], self.patch - left - target.shape[1]
            # reflect, not zero: a dark rim looks like background to the network
            image = np.pad(image, ((above, below), (left, right), (0, 0)), mode="reflect")
            target = np.pad(target, ((above, below), (left, right)), constant_values=IGNORE)
            weight = np.pad(weight, ((above, below), (left, right)))
        return image, target, weight


_PLACE = np.dtype(
    [("kind", np.uint8), ("which", np.int32), ("row", np.int32), ("column", np.int32), ("count", np.int64)]
)


def _paint_places(examples: Sequence[Example]) -> NDArray[np.void]:
    """Count each class in each block of 32 x 32 pixels: small, where a list of pixels would not be.

    Returns
    -------
    structured ndarray, shape (places,)
        By class, then example, then block: class, example, row and column of the block, pixels.
    """
    parts = [np.empty(0, _PLACE)]
    for which, example in enumerate(examples):
        columns = np.arange(example.target.shape[1]) // _BLOCK * 256
        for row, top in enumerate(range(0, example.target.shape[0], _BLOCK)):
            keys = example.target[top : top + _BLOCK] + columns
            counts = np.bincount(keys.ravel(), minlength=256)
            used = np.flatnonzero(counts)
            used = used[used % 256 != IGNORE]
            part = np.empty(len(used), _PLACE)
            part["kind"], part["which"], part["row"], part["column"] = used % 256, which, row, used // 256
            part["count"] = counts[used]
            parts.append(part)
    places = np.concatenate(parts)
    return places[np.argsort(places["kind"], kind="stable")]


def _window(at: int, size: int, patch: int, rng: np.random.Generator) -> tuple[slice, int]:
    """Choose where a patch lies along one axis: the part of the image, and the padding before it."""
    if size < patch:
        return slice(0, size), int(rng.integers(patch - size + 1))
    start = at - int(rng.integers(patch // 4, patch - patch // 4))
    start = min(max(start, 0), size - patch)
    return slice(start, start + patch), 0
