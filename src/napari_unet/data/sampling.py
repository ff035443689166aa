"""What is held out to measure quality, and which patches are trained on.

Held out is a region: whole images, slices at one end of a stack, or a band of each image, with a gap.
Patches of both sides never overlap, as neighbouring pixels look alike and would flatter the score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.augment import coordinates, flip_and_turn, sample, vary_intensity
from napari_unet.data.dataset import Dataset, Example
from napari_unet.data.labels import IGNORE
from napari_unet.errors import DataError

__all__ = [
    "GAP",
    "MIN_CLASS_PIXELS",
    "MIN_SLICES",
    "MIN_VALIDATION_PIXELS",
    "Batch",
    "Sampler",
    "Split",
    "split",
]

GAP = 32
"""Pixels between a band that is held out and what is trained on; nobody sees their labels."""

MIN_SLICES = 6
"""Trained slices from which whole slices of a stack are held out."""

MIN_IMAGES = 4
"""Images from which whole images are held out."""

MIN_VALIDATION_PIXELS = 500
"""Painted pixels that a region needs to measure anything."""

MIN_CLASS_PIXELS = 25
"""Painted pixels of each class that both sides need."""

Batch = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]
"""Images (B, P, P, C), targets (B, P, P) and weights (B, P, P)."""

_CONTEXT = 128
_BLOCK = 32
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Split:
    """What is trained on and what is held out.

    Parameters
    ----------
    train, validation : tuple of Example
        Slices or parts of slices. `validation` is empty where nothing could be held out.
    message : str
        One sentence: what was held out, or why nothing was.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    message: str


def split(dataset: Dataset, fraction: float, seed: int = 0) -> Split:
    """Hold out a region of the paint to measure quality on.

    Of 4 images or more, whole images are held out. Else, of stacks with 6 trained slices or more
    each, slices at one end, with a gap of one slice. Else a band at one side of each image, with a
    gap of 32 pixels whose labels neither side sees. Nothing is held out where a side would
    miss a class (under 25 pixels of it), or the region would have under 500 painted pixels.

    Parameters
    ----------
    dataset : Dataset
        What there is.
    fraction : float
        Part to hold out, 0 to 0.5.
    seed : int
        Chooses the images, where whole images are held out.

    Returns
    -------
    Split
        The two sides. Those of the second are cut to their labels and 128 pixels of context.
    """
    if fraction <= 0 or not dataset.examples:
        return Split(dataset.examples, (), "Nothing is held out, as asked, so quality is not measured.")
    groups: dict[int, list[Example]] = {}
    for example in dataset.examples:
        groups.setdefault(example.group, []).append(example)
    counts = {(e.group, e.index): _count(e.target) for e in dataset.examples}
    present = _total(counts.values()) > 0
    attempts: Iterator[Split] = iter(())
    if len(groups) >= MIN_IMAGES:
        attempts = _image_splits(groups, fraction, seed)
    elif min(len(group) for group in groups.values()) >= MIN_SLICES:
        attempts = _slice_splits(groups, fraction)
    for attempt in attempts:
        held = _total(counts[e.group, e.index] for e in attempt.validation)
        if _measurable(_total(counts[e.group, e.index] for e in attempt.train), held, present):
            return _cut(attempt)
    attempt = _band_split(groups, fraction)
    held = _total(_count(e.target) for e in attempt.validation)
    if _measurable(_total(_count(e.target) for e in attempt.train), held, present):
        return _cut(attempt)
    return Split(
        dataset.examples,
        (),
        f"Too little is painted to hold a region out (it needs {MIN_VALIDATION_PIXELS} painted pixels, and both sides "
        f"{MIN_CLASS_PIXELS} of each class), so quality is not measured.",
    )


def _count(target: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of each class, without `IGNORE`."""
    return np.bincount(target.ravel(), minlength=256)[:IGNORE]


def _total(counts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    total = np.zeros(IGNORE, np.int64)
    for count in counts:
        total += count
    return total


def _measurable(train: NDArray[np.int64], held: NDArray[np.int64], present: NDArray[np.bool_]) -> bool:
    """Tell from pixels of each class whether both sides have enough of every one."""
    rarest = min(train[present].min(), held[present].min())
    return bool(held.sum() >= MIN_VALIDATION_PIXELS and rarest >= MIN_CLASS_PIXELS)


def _image_splits(groups: dict[int, list[Example]], fraction: float, seed: int) -> Iterator[Split]:
    """Hold out some images, drawn anew in each attempt."""
    rng = np.random.default_rng(seed)
    names = list(groups)
    held = max(1, round(fraction * len(names)))
    message = f"Quality is measured on {held} of the {len(names)} images, held out from training."
    for _ in range(_TRIES):
        chosen = set(rng.permutation(names)[:held].tolist())
        train = tuple(e for name in names if name not in chosen for e in groups[name])
        yield Split(train, tuple(e for name in names if name in chosen for e in groups[name]), message)


def _slice_splits(groups: dict[int, list[Example]], fraction: float) -> Iterator[Split]:
    """Hold out the last slices of each stack, or else the first."""
    for end in ("last", "first"):
        train: list[Example] = []
        validation: list[Example] = []
        for group in groups.values():
            ordered = sorted(group, key=lambda e: e.index, reverse=end == "first")
            held = ordered[-max(1, round(fraction * len(ordered))) :]
            validation += sorted(held, key=lambda e: e.index)
            # a gap of one slice: neighbours show the same thing twice
            rest = [e for e in ordered[: -len(held)] if abs(e.index - held[0].index) > 1]
            train += sorted(rest, key=lambda e: e.index)
        yield Split(
            tuple(train),
            tuple(validation),
            f"Quality is measured on the {end} {len(validation)} of {sum(map(len, groups.values()))} painted slices, held out "
            "from training with a gap of one slice.",
        )


def _band_split(groups: dict[int, list[Example]], fraction: float) -> Split:
    """Hold out a band at one side of each image, at the same place in all slices of a stack."""
    train: list[Example] = []
    validation: list[Example] = []
    for group in groups.values():
        bands = [_band(group, axis, at_end, fraction) for axis in (0, 1) for at_end in (True, False)]
        best = max(bands, key=lambda band: band.share)
        if best.share == 0:
            train += group
            continue
        for example in group:
            train.append(replace(example, target=_hide(example.target, best.axis, best.hidden)))
            validation.append(replace(example, target=_hide(example.target, best.axis, best.trained)))
    return Split(
        tuple(e for e in train if (e.target != IGNORE).any()),
        tuple(e for e in validation if (e.target != IGNORE).any()),
        f"Quality is measured on a band of each image, about {fraction:.0%} of the paint, held out from training "
        f"with a gap of {GAP} pixels.",
    )


@dataclass(frozen=True)
class _Band:
    """A band that could be held out: what training must not see, and what validation must not."""

    axis: int
    hidden: slice
    trained: slice
    share: float


def _band(group: Sequence[Example], axis: int, at_end: bool, fraction: float) -> _Band:
    """Place a band that holds `fraction` of the paint, and say how well it serves the rarest class.

    `share` is the smallest part of a class that either side keeps; 0 if a side misses one.
    """
    lines = np.sum([_count_lines(example.target, axis) for example in group], axis=0)
    size = len(lines)
    lines = lines if at_end else lines[::-1]
    paint = lines.sum(axis=1)
    beyond = np.cumsum(paint[::-1])[::-1]
    first = int(np.count_nonzero(beyond >= fraction * beyond[0])) - 1
    last = max(0, first - GAP)
    everything = lines.sum(axis=0)
    sides = np.stack([lines[:last].sum(axis=0), lines[first:].sum(axis=0)])[:, everything > 0]
    share = float((sides / everything[everything > 0]).min()) if everything.any() else 0.0
    if at_end:
        return _Band(axis, slice(last, size), slice(0, first), share)
    return _Band(axis, slice(0, size - last), slice(size - first, size), share)


def _count_lines(target: NDArray[np.uint8], axis: int) -> NDArray[np.int64]:
    """Count the pixels of each class in each row (axis 0) or column (axis 1), without `IGNORE`."""
    lines = target if axis == 0 else target.T
    keys = lines + np.arange(len(lines))[:, np.newaxis] * 256
    counts = np.bincount(keys.ravel(), minlength=256 * len(lines)).reshape(-1, 256)
    return counts[:, :IGNORE].astype(np.int64, copy=False)


def _hide(target: NDArray[np.uint8], axis: int, where: slice) -> NDArray[np.uint8]:
    hidden = target.copy()
    hidden[(where, slice(None)) if axis == 0 else (slice(None), where)] = IGNORE
    return hidden


def _cut(whole: Split) -> Split:
    """Cut what is held out to its labels and some context, as the rest costs time and measures nothing."""
    cut = []
    for example in whole.validation:
        known = example.target != IGNORE
        rows, columns = (
            slice(max(0, int(at.min()) - _CONTEXT), int(at.max()) + 1 + _CONTEXT)
            for at in (np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0)))
        )
        cut.append(replace(example, image=example.image[rows, columns], target=example.target[rows, columns]))
    return replace(whole, validation=tuple(cut))


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
