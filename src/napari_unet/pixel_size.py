"""Images at another pixel size than their own: that of a model, or one for a whole training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window, slices_of
from napari_unet.data.resample import matched_shape, needed_for, resample
from napari_unet.errors import DataError
from napari_unet.events import Stop
from napari_unet.files.image import Image
from napari_unet.files.reading import length_in
from napari_unet.spec import ModelSpec

__all__ = ["as_trained", "at_one_pixel_size", "at_pixel_size", "bring_back", "chunks_of", "window_at"]

_SIDE = 1024  # pixels of a rectangle where the result has no chunks


def at_pixel_size(image: Image, size: tuple[float, float], unit: str, *, nearest: bool = False) -> Image:
    """Show an image with pixels of another size.

    Parameters
    ----------
    image : Image
        With its pixel size along Y and X.
    size : tuple of float
        Wanted pixel size along Y and X.
    unit : str
        Of `size`.
    nearest : bool
        For labels: take the nearest pixel rather than interpolating.

    Returns
    -------
    Image
        Reads from `image` where asked; itself where the pixels have that size already.

    Raises
    ------
    DataError
        If the pixel size of the image is not known, or in a unit that cannot be compared.
    """
    if not {"Y", "X"} <= image.pixel_size.keys() or (image.unit == "pixel") != (unit == "pixel"):
        known = (
            f"its pixels are {image.pixel_size['Y']:g} x {image.pixel_size['X']:g} {image.unit}"
            if {"Y", "X"} <= image.pixel_size.keys()
            else "its pixel size is not known"
        )
        raise DataError(
            f"Image {image.name!r} was to be brought to pixels of {size[0]:g} x {size[1]:g} {unit}, but {known}. "
            "Give the image its pixel size (as a layer's scale and units, or in the file), or use it as it is."
        )
    own = tuple(length_in(unit, image.pixel_size[axis], image.unit) for axis in "YX")
    stack = image.stack
    shape = matched_shape((stack.shape[1], stack.shape[2]), (own[0], own[1]), size)
    seen = resample(stack, shape, nearest=nearest)
    if seen is stack:
        return image
    lengths = dict(zip("YX", (length_in(image.unit, side, unit) for side in size), strict=True))
    return replace(
        image, array=seen.array, axes=seen.axes, levels=(), pixel_size={**image.pixel_size, **lengths}
    )


def at_one_pixel_size(
    images: Sequence[Image], labels: Sequence[Image], size: float
) -> tuple[list[Image], list[Image]]:
    """Bring images and labels to one pixel size, given in the unit of the first image.

    Raises
    ------
    DataError
        If a pixel size is not known, or in a unit that cannot be compared.
    """
    unit = images[0].unit
    # Labels lie on the grid of their image, whatever their own file says of it.
    placed = [
        replace(painted, pixel_size=image.pixel_size, unit=image.unit)
        for image, painted in zip(images, labels, strict=True)
    ]
    return (
        [at_pixel_size(image, (size, size), unit) for image in images],
        [at_pixel_size(painted, (size, size), unit, nearest=True) for painted in placed],
    )


def as_trained(image: Image, spec: ModelSpec) -> Image:
    """Show an image at the pixel size of a model's training images.

    Raises
    ------
    DataError
        If either pixel size is not known.
    """
    if spec.pixel_size is None:
        raise DataError(
            f"Model {spec.name!r} does not know the pixel size of its training images, so no image can be brought to it: "
            "segment at the image's own pixel size."
        )
    return at_pixel_size(image, spec.pixel_size, spec.unit)


def window_at(window: Window | None, old: Stack, new: Stack) -> Window | None:
    """Return the window of a resampled stack that a window of the stack is brought back from."""
    if window is None:
        return None
    slices, *sides = window
    y, x = (
        needed_for(side, before, after)
        for side, before, after in zip(sides, old.shape[1:3], new.shape[1:3], strict=True)
    )
    return slices, y, x


def chunks_of(
    stack: Stack, target: Any, window: Window | None
) -> Iterator[tuple[tuple[int, ...], slice, slice]]:
    """Walk over a result chunk by chunk.

    Parameters
    ----------
    stack : Stack
        Of the result's slices, rows and columns.
    target : array-like
        The result, of shape (..., Y, X).
    window : tuple of (start, stop), optional
        Part to walk over, in slices, y and x.

    Yields
    ------
    index : tuple of int
        Of the slice in time and depth, then row and column of the chunk.
    y, x : slice
        Pixels of the chunk that lie in the window.
    """
    height, width = getattr(target, "chunks", (_SIDE, _SIDE))[-2:]
    _, y, x = window or (None, (0, stack.shape[1]), (0, stack.shape[2]))
    places = range(y[0] // height, -(-y[1] // height)), range(x[0] // width, -(-x[1] // width))
    for which, row, column in product(slices_of(stack, window), *places):
        yield (
            (*which, row, column),
            slice(max(y[0], row * height), min(y[1], (row + 1) * height)),
            slice(max(x[0], column * width), min(x[1], (column + 1) * width)),
        )


def bring_back(
    result: Any,
    axes: str,
    target: Any,
    window: Window | None,
    *,
    nearest: bool,
    is_done: Callable[[tuple[int, ...]], bool] | None = None,
    stop: Stop,
) -> bool:
    """Write a result that was computed on another grid on the image's own, chunk by chunk.

    Parameters
    ----------
    result : array-like
        Labels, or probabilities (decimals or uint8), which may have an axis of classes before the others.
    axes : str
        Letters of its axes without the classes.
    target : array-like
        Of the image's rows and columns; of the type of `result`.
    window : tuple of (start, stop), optional
        Part to write, in slices, y and x.
    nearest : bool
        For labels: take the nearest pixel rather than interpolating.
    is_done : callable, optional
        Asked for each chunk of `target`, by its index as `chunks_of` has it, whether an earlier run has written it.
    stop : callable
        Asked before each chunk.

    Returns
    -------
    bool
        True if stopped before the end.
    """
    rows, columns = target.shape[-2:]
    if len(axes) < len(target.shape):
        axes = f"C{axes}"
    stack = resample(Stack(result, axes), (rows, columns), nearest=nearest)
    for index, y, x in chunks_of(stack, target, window):
        if is_done is not None and is_done(index):
            continue
        if stop():
            return True
        which = index[:-2]
        n = int(np.ravel_multi_index(which, stack.slice_shape)) if which else 0
        pixels = stack.read(n, y, x)
        if not nearest and np.dtype(target.dtype).kind == "u":
            pixels = np.rint(pixels)
        if "C" in axes:
            target[(slice(None), *which, y, x)] = np.moveaxis(pixels, -1, 0).astype(target.dtype)
        else:
            target[(*which, y, x)] = pixels[..., 0].astype(target.dtype)
    return False
