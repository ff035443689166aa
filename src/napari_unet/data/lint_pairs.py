"""What the label linter finds where images and labels do not belong together, and in images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from napari_unet.data.axes import Stack, blocks
from napari_unet.data.finding import Finding, from_refusal, limited
from napari_unet.data.labels import check_same_shape
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop
from napari_unet.words import count, some

__all__ = [
    "NotFinite",
    "PixelSizes",
    "check_image",
    "check_pairs",
    "check_pixel_sizes",
    "fits",
    "refuse_not_finite",
]

NotFinite = Literal["refuse", "ignore"]
"""What training does with NaN pixels of an image: refuses the image, or does not train on them."""

PixelSizes = tuple[Mapping[str, float], Mapping[str, float]]
"""Pixel size of an image and of its labels, for each axis that has one, in one unit."""

_SAME_SIZE = 1e-3
"""Relative difference up to which two pixel sizes are the same: files round them to 4 digits or more."""

_OTHER_SCALE = 1.5
"""Ratio of pixel sizes from which things look different in size: training itself varies them by less."""

_IMAGE_VALUES = 2**28
"""Values of an image that are searched for NaN: a second or two for decimals in memory."""


def check_pairs(images: Sequence[Stack], labels: Sequence[Stack]) -> Iterator[Finding]:
    """Find labels that were not drawn on their image, and images that differ in kind.

    Parameters
    ----------
    images, labels : sequence of Stack
        Images and the labels of each.

    Yields
    ------
    Finding
        Errors: training would refuse.
    """
    if len(images) != len(labels) or not images:
        found = f"{count(len(images), 'image')} and {count(len(labels), 'labels')}".replace(
            "labelses", "labels"
        )
        yield Finding(
            "error",
            "all images",
            f"Training needs labels for each image, but there are {found}.",
            "Choose them in pairs: one labels layer or file for each image.",
        )
    pairs = list(zip(images, labels, strict=False))
    misfits = ((image, stack, refusal) for image, stack in pairs if (refusal := _refusal(image, stack)))
    yield from limited(_explain(*misfit, images) for misfit in misfits)
    yield from limited(
        _channels(image, images[0]) for image in images if image.shape[3] != images[0].shape[3]
    )


def fits(image: Stack, labels: Stack) -> bool:
    """Tell whether labels may have been drawn on this image, by their shapes."""
    return _refusal(image, labels) is None


def _refusal(image: Stack, labels: Stack) -> DataError | None:
    if labels.shape[3] != 1:
        return None  # colours are told of elsewhere, with their number
    try:
        check_same_shape(image, labels)
    except DataError as error:
        return error
    return None


def _explain(image: Stack, labels: Stack, refusal: DataError, images: Sequence[Stack]) -> Finding:
    """Add to what is wrong with a shape what it looks like."""
    finding = from_refusal(refusal, f"labels {labels.name!r}")
    (high, wide), (tall, broad) = image.shape[1:3], labels.shape[1:3]
    if (tall, broad) == (high, wide):
        if image.shape[0] == labels.shape[0]:
            return finding
        return replace(
            finding,
            fix=f"The image has {count(image.shape[0], 'slice')}, the labels {labels.shape[0]}: choose the slices that were painted, or "
            "labels of the whole stack.",
        )
    others = [other.name for other in images if other is not image and other.shape[1:3] == (tall, broad)]
    factor = high / tall
    if others and len(others) < len(images) - 1:
        fix = f"That is the shape of {some(others)}: check which labels belong to which image."
    elif (tall, broad) == (wide, high):
        fix = "Rows and columns are exchanged: transpose the labels (swap their X and Y)."
    elif factor == wide / broad and max(factor, 1 / factor) >= 2:
        smaller = "a smaller copy" if factor > 1 else "a larger copy"
        ratio = f"1/{factor:g}" if factor > 1 else f"{1 / factor:g} times"
        fix = (
            f"They are {ratio} of the image in each direction, as if drawn on {smaller}: train on that copy, or resize the labels "
            "without smoothing (nearest neighbour)."
        )
    else:
        return finding
    return replace(finding, fix=fix)


def _channels(image: Stack, first: Stack) -> Finding:
    return Finding(
        "error",
        f"image {image.name!r}",
        f"Image {image.name!r} has {count(image.shape[3], 'channel')}, but {first.name!r} has {first.shape[3]}.",
        "All images of a training need as many: convert them, or train on those that agree.",
    )


def check_pixel_sizes(
    images: Sequence[Stack],
    labels: Sequence[Stack],
    sizes: Sequence[PixelSizes],
    unit: str,
    *,
    resampled: bool = False,
) -> Iterator[Finding]:
    """Find labels on another grid than their image, and images of different magnification.

    Parameters
    ----------
    images, labels : sequence of Stack
        Images and the labels of each.
    sizes : sequence of PixelSizes
        Of each pair; empty where nothing is known.
    unit : str
        Their unit.
    resampled : bool
        Whether training brings all images to one magnification.

    Yields
    ------
    Finding
        Warnings.
    """
    found = []
    widths: dict[str, float] = {}
    for image, stack, (ours, theirs) in zip(images, labels, sizes, strict=False):
        for axis in sorted(ours.keys() & theirs.keys()):
            if abs(ours[axis] - theirs[axis]) > _SAME_SIZE * abs(ours[axis]):
                found.append(
                    _other_grid(image, stack, axis, f"{ours[axis]:g} {unit}", f"{theirs[axis]:g} {unit}")
                )
                break
        if ours.get("X", 0) > 0:
            widths[image.name] = ours["X"]
    yield from limited(found)
    if widths and not resampled:
        small, large = min(widths, key=widths.__getitem__), max(widths, key=widths.__getitem__)
        if widths[large] > _OTHER_SCALE * widths[small]:
            yield Finding(
                "warning",
                "all images",
                f"The images differ in magnification: a pixel of {small!r} is {widths[small]:g} {unit} wide, one of {large!r} "
                f"{widths[large]:g} {unit}, so the same thing looks {widths[large] / widths[small]:.1f} times as large in {small!r}.",
                "Bring them to one pixel size, or train on images of one magnification.",
            )


def _other_grid(image: Stack, labels: Stack, axis: str, ours: str, theirs: str) -> Finding:
    return Finding(
        "warning",
        f"labels {labels.name!r}",
        f"A pixel of image {image.name!r} measures {ours} along {axis}, but a pixel of its labels {labels.name!r} {theirs}, though "
        "both have as many pixels.",
        "Check that they belong together; if they do, correct the pixel size of the one that is wrong.",
    )


def check_image(image: Stack, not_finite: NotFinite, *, stop: Stop = never_stop) -> Finding | None:
    """Find NaN pixels, and images or channels in which there is nothing to see.

    Whole numbers are read only until two differ. Of an image with decimals about the first 268
    million values are looked at, and more until two differ.

    Parameters
    ----------
    image : Stack
        The image.
    not_finite : {"refuse", "ignore"}
        What training does with NaN pixels.
    stop : callable
        Asked now and then; once it answers True, nothing is found.

    Returns
    -------
    Finding or None
        An error for NaN pixels that are refused, else a warning.
    """
    decimals = image.dtype.kind == "f"
    wrong, seen = 0, 0
    place: tuple[int, int, int, int] | None = None
    low = np.full(image.shape[3], np.inf)
    high = -low
    for n, y, x in blocks(image):
        if stop():
            return None
        pixels = image.read(n, y, x)
        smallest = largest = pixels
        if decimals and not (finite := np.isfinite(pixels)).all():
            row, column, channel = np.unravel_index(int(np.argmin(finite)), finite.shape)
            place = place or (n, y.start + int(row), x.start + int(column), int(channel))
            wrong += int(finite.size - np.count_nonzero(finite))
            smallest, largest = np.where(finite, pixels, np.inf), np.where(finite, pixels, -np.inf)
        low = np.minimum(low, smallest.min(axis=(0, 1)))
        high = np.maximum(high, largest.max(axis=(0, 1)))
        seen += pixels.size
        varied = bool((low < high).all())
        if varied and (not decimals or seen > _IMAGE_VALUES):
            break
    if place and not_finite == "refuse":
        return from_refusal(refuse_not_finite(image, wrong, place), f"image {image.name!r}")
    if place:
        return Finding(
            "hint",
            f"image {image.name!r}",
            f"{_not_finite(image, wrong, place)}. They are set to 0 and not trained on.",
        )
    return _constant(image, [str(c) for c in np.flatnonzero(~(low < high))])


def refuse_not_finite(image: Stack, wrong: int, place: tuple[int, int, int, int]) -> DataError:
    """Word the refusal of an image with NaN pixels.

    Parameters
    ----------
    image : Stack
        The image.
    wrong : int
        Values (pixels times channels) that are NaN or infinite.
    place : tuple of int
        Slice, row, column and channel of the first.
    """
    return DataError(
        f"{_not_finite(image, wrong, place)}. One such pixel silently ruins a training: repair the image, or choose "
        "'NaN pixels: ignore' (they become 0 and are not trained on)."
    )


def _not_finite(image: Stack, wrong: int, place: tuple[int, int, int, int]) -> str:
    n, y, x, channel = place
    where = f"slice {n}, y {y}, x {x}" + (f", channel {channel}" if image.shape[3] > 1 else "")
    verb = "is" if wrong == 1 else "are"
    return f"Image {image.name!r} has {count(wrong, 'value')} that {verb} no number (NaN or infinite), the first at {where}"


def _constant(image: Stack, channels: Sequence[str]) -> Finding | None:
    if not channels:
        return None
    if len(channels) == image.shape[3]:
        sentence = (
            f"Every pixel of image {image.name!r} has the same brightness, so there is nothing to see in it."
        )
        fix = "Choose the image that the labels were drawn on; this one may be empty or damaged."
    else:
        sentence = f"Image {image.name!r} is the same everywhere in channel {some(channels)} (counted from 0), so nothing can be learned from that."
        fix = "Leave the channel out, if it is empty in all images; else check the file."
    return Finding("warning", f"image {image.name!r}", sentence, fix)
