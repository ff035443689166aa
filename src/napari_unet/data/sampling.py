"""Which patches are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_unet.augmentation import Augmentation
from napari_unet.data.augment import (
    Variation,
    coordinates,
    draw_variation,
    flip_and_turn,
    mirrored,
    read_patch,
    relight,
)
from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.errors import DataError

__all__ = ["Batch", "Patch", "Sampler", "cut_patch"]

Batch = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]
"""Images (B, P, P, C), targets (B, P, P) and weights (B, P, P)."""

Patch = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]
"""Image (P, P, C), target (P, P) and weights (P, P)."""

_BLOCK = 32
_SOUGHT = 64  # points a side among which the place of the painted pixel in a bent patch is looked for


class Sampler:
    """Draws batches of training patches, each from its number alone.

    Patch i of batch n comes from ``default_rng([seed, n, i])``: there is no state to save, batches may be
    drawn in any order and by several threads at once. Every other patch shows a class drawn uniformly, so
    that rare classes are seen; the rest show any painted pixel. That pixel lies in the middle half
    of the patch, save where the image ends, and it stays in the patch however that is varied.

    Parameters
    ----------
    examples : sequence of Example
        What to train on.
    classes : int
        Classes, background counted in. Those without a pixel are never drawn.
    patch : int
        Side of a patch, in pixels.
    batch : int
        Patches in a batch.
    seed : int
        The same seed gives the same batches, and the same places whatever the augmentation.
    augmentation : Augmentation
        How patches are varied.

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
        augmentation: Augmentation,
    ) -> None:
        self.examples = tuple(examples)
        self.patch = patch
        self.batch_size = batch
        self.seed = seed
        self.augmentation = augmentation
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
        side, channels = self.patch, self.examples[0].image.shape[2]
        images = np.empty((self.batch_size, side, side, channels), np.float32)
        targets = np.empty((self.batch_size, side, side), np.uint8)
        weights = np.empty((self.batch_size, side, side), np.float32)
        for i in range(self.batch_size):
            rng = np.random.default_rng([self.seed, n, i])
            example, at, start = self.place(rng, even=(n * self.batch_size + i) % 2 == 0)
            variation = draw_variation(self.augmentation, side, rng)
            images[i], targets[i], weights[i] = cut_patch(example, at, start, side, variation, rng)
        return images, targets, weights

    def place(
        self, rng: np.random.Generator, *, even: bool
    ) -> tuple[Example, tuple[int, int], tuple[int, int]]:
        """Draw where a patch lies.

        Parameters
        ----------
        rng : numpy.random.Generator
            Draws.
        even : bool
            Whether each class is shown as often as any other; otherwise each painted pixel is.

        Returns
        -------
        example : Example
            The slice it lies in.
        at : tuple of int
            Row and column of a painted pixel that it shows.
        start : tuple of int
            Row and column of its first pixel; beyond the rim where the image is smaller than the patch.
        """
        low, high = 0, int(self._ends[-1])
        if even:
            low, high = self._of_class[int(rng.integers(len(self._of_class)))]
        example, y, x = self._pixel(int(rng.integers(low, high)))
        height, width = example.target.shape
        return example, (y, x), (_start(y, height, self.patch, rng), _start(x, width, self.patch, rng))

    def _pixel(self, number: int) -> tuple[Example, int, int]:
        """Find painted pixel `number`, counted by class, then image, then block."""
        entry = int(np.searchsorted(self._ends, number, side="right"))
        kind, which, row, column, count = self._places[entry].item()
        example = self.examples[which]
        top, left = row * _BLOCK, column * _BLOCK
        ys, xs = np.nonzero(example.target[top : top + _BLOCK, left : left + _BLOCK] == kind)
        at = number - int(self._ends[entry]) + count
        return example, top + int(ys[at]), left + int(xs[at])


def cut_patch(
    example: Example,
    at: tuple[int, int],
    start: tuple[int, int],
    side: int,
    variation: Variation,
    rng: np.random.Generator,
) -> Patch:
    """Cut a patch out of an example and vary it.

    A patch that is turned or bent shows what really lies around it, as far as the image goes; beyond that
    the image is mirrored, without labels, as it is around an image smaller than the patch.

    Parameters
    ----------
    example : Example
        The slice to cut from.
    at : tuple of int
        Row and column of a pixel that the patch has to show.
    start : tuple of int
        Row and column of the first pixel of the patch if it were not varied; `at` lies in that patch.
    side : int
        Side P of the patch, in pixels.
    variation : Variation
        What is done to it, from `napari_unet.data.augment.draw_variation`.
    rng : numpy.random.Generator
        Draws noise.

    Returns
    -------
    image : ndarray of float32, shape (P, P, C)
    target : ndarray of uint8, shape (P, P)
    weight : ndarray of float32, shape (P, P)
    """
    if variation.grid is None:
        image, target, weight = _cut(example, start, side)
    else:
        bent = coordinates(variation.grid, side)
        # The pixel goes to where it would be if the patch were bent around its middle, or as near as it gets.
        wanted = np.subtract(at, start) - (side - 1) / 2
        step = max(1, side // _SOUGHT)
        apart = bent[:, ::step, ::step] - wanted[:, np.newaxis, np.newaxis]
        row, column = np.unravel_index(int(np.square(apart).sum(axis=0).argmin()), apart.shape[1:])
        shift = np.asarray(at) - bent[:, row * step, column * step]
        where = bent + shift[:, np.newaxis, np.newaxis].astype(np.float32)
        image, target, weight = read_patch(example.image, example.target, example.weight, where)
    image = relight(image, variation, rng)
    way = variation.way
    return flip_and_turn(image, way), flip_and_turn(target, way), flip_and_turn(weight, way)


def _cut(example: Example, start: tuple[int, int], side: int) -> Patch:
    """Cut a patch as it is, mirrored without labels where it reaches beyond the image."""
    places = [first + np.arange(side) for first in start]
    sizes = example.target.shape
    # mirrored, not zero: a dark rim looks like background to the network
    box = np.ix_(*(mirrored(place, size) for place, size in zip(places, sizes, strict=True)))
    image, target = example.image[box], example.target[box]
    weight = np.ones((side, side)) if example.weight is None else example.weight[box]
    rows, columns = ((place < 0) | (place >= size) for place, size in zip(places, sizes, strict=True))
    beyond = rows[:, np.newaxis] | columns
    target[beyond], weight[beyond] = IGNORE, 0
    return image, target, weight.astype(np.float32)


def _start(at: int, size: int, patch: int, rng: np.random.Generator) -> int:
    """Choose where a patch begins along one axis; before 0 if the image is smaller."""
    if size < patch:
        return -int(rng.integers(patch - size + 1))
    start = at - int(rng.integers(patch // 4, patch - patch // 4))
    return min(max(start, 0), size - patch)


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
