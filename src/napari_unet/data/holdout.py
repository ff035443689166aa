"""What is held out of training to measure quality.

Held out is a region: whole images, slices at one end of a stack, or a band of each image, with a gap.
Labels of both sides never touch, as neighbouring pixels look alike and would flatter the score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.dataset import Dataset, Example
from napari_unet.data.labels import IGNORE
from napari_unet.data.objects import BORDER, INSIDE

__all__ = [
    "ENOUGH_PIXELS",
    "GAP",
    "MIN_CLASS_PIXELS",
    "MIN_IMAGES",
    "MIN_SLICES",
    "MIN_VALIDATION_PIXELS",
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

ENOUGH_PIXELS = 2_000_000
"""Painted pixels to measure on: whole images and slices beyond are better trained on, and measuring takes its time."""

MIN_CLASS_PIXELS = 25
"""Painted pixels of each class that both sides need."""

_CONTEXT = 128
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
    miss a class (under 25 pixels of it), or the region would have under 500 painted pixels. Of whole images and
    slices, only as many are held out as it takes to reach 2 megapixels of paint, or more where these would miss a class.

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
    counts = {(e.group, e.index): _count(e) for e in dataset.examples}
    present = _total(counts.values()) > 0
    paint = {key: int(count.sum()) for key, count in counts.items()}
    for attempt in _whole_splits(groups, paint, fraction, seed):
        held = _total(counts[e.group, e.index] for e in attempt.validation)
        if _measurable(_total(counts[e.group, e.index] for e in attempt.train), held, present):
            return _cut(attempt)
    attempt = _band_split(groups, fraction)
    held = _total(_count(e) for e in attempt.validation)
    if _measurable(_total(_count(e) for e in attempt.train), held, present):
        return _cut(attempt)
    return Split(
        dataset.examples,
        (),
        f"Too little is painted to hold a region out (it needs {MIN_VALIDATION_PIXELS} painted pixels, and both sides "
        f"{MIN_CLASS_PIXELS} of each class), so quality is not measured.",
    )


def _count(example: Example) -> NDArray[np.int64]:
    """Count the pixels of each class, without `IGNORE`."""
    return np.bincount(_parted(example).ravel(), minlength=256)[:IGNORE]


def _parted(example: Example) -> NDArray[np.uint8]:
    """Class indices of which both sides need some: borders may be few, so they count as inside of objects."""
    if example.ids is None:
        return example.target
    return np.where(example.target == BORDER, np.uint8(INSIDE), example.target)


def _total(counts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    total = np.zeros(IGNORE, np.int64)
    for count in counts:
        total += count
    return total


def _measurable(train: NDArray[np.int64], held: NDArray[np.int64], present: NDArray[np.bool_]) -> bool:
    """Tell from pixels of each class whether both sides have enough of every one."""
    rarest = min(train[present].min(), held[present].min())
    return bool(held.sum() >= MIN_VALIDATION_PIXELS and rarest >= MIN_CLASS_PIXELS)


_Paint = dict[tuple[int, int], int]
"""Painted pixels of each slice, by image and index."""


def _whole_splits(
    groups: dict[int, list[Example]], paint: _Paint, fraction: float, seed: int
) -> Iterator[Split]:
    """Hold out whole images or slices, if there are several: first as few as tell enough, then more."""
    for enough in (ENOUGH_PIXELS, 4 * ENOUGH_PIXELS, np.inf):
        if len(groups) >= MIN_IMAGES:
            yield from _image_splits(groups, paint, fraction, seed, enough)
        elif min(len(group) for group in groups.values()) >= MIN_SLICES:
            yield from _slice_splits(groups, paint, fraction, enough)


def _image_splits(
    groups: dict[int, list[Example]], paint: _Paint, fraction: float, seed: int, enough: float
) -> Iterator[Split]:
    """Hold out some images, drawn anew in each attempt."""
    rng = np.random.default_rng(seed)
    names = list(groups)
    most = max(1, round(fraction * len(names)))
    for _ in range(_TRIES):
        drawn = rng.permutation(names)[:most].tolist()
        painted = [sum(paint[e.group, e.index] for e in groups[name]) for name in drawn]
        chosen = set(drawn[: _enough(painted, enough)])
        train = tuple(e for name in names if name not in chosen for e in groups[name])
        yield Split(
            train,
            tuple(e for name in names if name in chosen for e in groups[name]),
            f"Quality is measured on {len(chosen)} of the {len(names)} images, held out from training.",
        )


def _enough(paint: Sequence[int], pixels: float) -> int:
    """Return how many of some images or slices, the first ones, have so many painted pixels together, or all."""
    return min(len(paint), 1 + int(np.searchsorted(np.cumsum(paint), pixels)))


def _slice_splits(
    groups: dict[int, list[Example]], paint: _Paint, fraction: float, enough: float
) -> Iterator[Split]:
    """Hold out the last slices of each stack, or else the first."""
    for end in ("last", "first"):
        train: list[Example] = []
        validation: list[Example] = []
        for group in groups.values():
            ordered = sorted(group, key=lambda e: e.index, reverse=end == "first")
            most = ordered[: -1 - max(1, round(fraction * len(ordered))) : -1]
            held = ordered[-_enough([paint[e.group, e.index] for e in most], enough / len(groups)) :]
            validation += sorted(held, key=lambda e: e.index)
            # a gap of one slice: neighbours show the same thing twice
            rest = [e for e in ordered[: -len(held)] if abs(e.index - held[0].index) > 1]
            train += sorted(rest, key=lambda e: e.index)
        which = end if len(validation) == 1 else f"{end} {len(validation)}"
        yield Split(
            tuple(train),
            tuple(validation),
            f"Quality is measured on the {which} of {sum(map(len, groups.values()))} painted slices, held out "
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
    lines = np.sum([_count_lines(_parted(example), axis) for example in group], axis=0)
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
        if not known.any():  # its paint lies on pixels that are not numbers
            continue
        rows, columns = (
            slice(max(0, int(at.min()) - _CONTEXT), int(at.max()) + 1 + _CONTEXT)
            for at in (np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0)))
        )
        ids = None if example.ids is None else example.ids[rows, columns]
        image, target = example.image[rows, columns], example.target[rows, columns]
        cut.append(replace(example, image=image, target=target, ids=ids))
    return replace(whole, validation=tuple(cut))
