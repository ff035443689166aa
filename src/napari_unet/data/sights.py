"""What images and their paint show: sizes, how much is painted, how wide objects are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE

__all__ = ["Sights", "look"]

_ENOUGH = 32_000_000  # pixels in which objects are looked for: a second or two
_WEIGHT_BYTES = 2  # a pixel: weights are added when training begins


@dataclass(frozen=True)
class Sights:
    """What the images and their paint show.

    Parameters
    ----------
    sizes : tuple of (int, int)
        (Y, X) of each slice that is trained on, in pixels.
    painted : float
        Share of their pixels that carry a class, 0 to 1.
    object_size : float or None
        Usual width of an object, in pixels; None where no object is seen whole.
    bytes : int
        Main memory that the images, targets and weights take as long as training lasts.
    """

    sizes: tuple[tuple[int, int], ...]
    painted: float = 1.0
    object_size: float | None = None
    bytes: int = 0


def look(examples: Sequence[Example]) -> Sights:
    """Measure what settings depend on.

    The width of an object is the diameter of a disk of its area; an object is a connected region of one class, or a hole
    in one. Regions that the image or the paint cuts off are left out, so strokes measure nothing. The usual
    width is the median in which each object counts as much as it is wide: neither many specks nor one
    region around everything decides.

    Parameters
    ----------
    examples : sequence of Example
        What is trained on. Of much, slices are left out at even distances.
    """
    known = sum(int(np.count_nonzero(e.target != IGNORE)) for e in examples)
    pixels = sum(e.target.size for e in examples)
    step = max(1, math.ceil(pixels / _ENOUGH))
    areas = np.concatenate([np.zeros(0), *(_whole_areas(e) for e in examples[::step])])
    widths = np.sort(2 * np.sqrt(areas / math.pi))
    width = float(widths[np.searchsorted(widths.cumsum(), widths.sum() / 2)]) if widths.size else None
    sizes = tuple((e.target.shape[0], e.target.shape[1]) for e in examples)
    return Sights(sizes, known / max(pixels, 1), width, sum(_bytes(e) for e in examples))


def _bytes(example: Example) -> int:
    ids = 0 if example.ids is None else example.ids.nbytes
    # Targets are there twice: a region held out is hidden in a copy.
    return example.image.nbytes + ids + (2 * example.target.itemsize + _WEIGHT_BYTES) * example.target.size


def _whole_areas(example: Example) -> NDArray[np.float64]:
    """Areas of the regions that neither the border nor an unpainted pixel cuts off."""
    known = example.target != IGNORE
    cut = known & ~ndimage.binary_erosion(known, border_value=0)
    areas = [np.zeros(0)]
    for regions in _regions(example, known):
        sizes = np.bincount(regions.ravel()).astype(np.float64)
        sizes[np.unique(regions[cut])] = 0
        areas.append(sizes[1:][sizes[1:] > 0])
    return np.concatenate(areas)


def _regions(example: Example, known: NDArray[np.bool_]) -> Iterable[NDArray[Any]]:
    """Yield the numbered regions of each class, or the objects where each has its number; 0 is elsewhere."""
    if example.ids is not None:
        yield example.ids
        return
    for kind in np.unique(example.target[known]):
        yield ndimage.label(example.target == kind)[0]
