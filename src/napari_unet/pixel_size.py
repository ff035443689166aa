"""Images at another pixel size than their own: that of a model, or one for a whole training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from napari_unet.data.axes import Stack
from napari_unet.data.decoding import Window
from napari_unet.data.resample import matched_shape, resample
from napari_unet.errors import DataError
from napari_unet.events import Stop
from napari_unet.files.image import Image
from napari_unet.files.reading import length_in
from napari_unet.spec import ModelSpec

__all__ = ["as_trained", "at_pixel_size", "bring_back", "window_at"]


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
    """Return the window of a resampled stack that covers a window of the stack."""
    if window is None:
        return None
    slices, *sides = window
    covered = [
        (start * after // before, min(after, -(-stop * after // before)))
        for (start, stop), before, after in zip(sides, old.shape[1:3], new.shape[1:3], strict=True)
    ]
    return slices, covered[0], covered[1]


def bring_back(
    result: Any, axes: str, target: Any, window: Window | None, *, nearest: bool, stop: Stop
) -> bool:
    """Write a result that was computed on another grid on the image's own.

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
    stop : callable
        Asked before each slice.

    Returns
    -------
    bool
        True if stopped before the end.
    """
    rows, columns = target.shape[-2:]
    if len(axes) < len(target.shape):
        axes = f"C{axes}"
    stack = resample(Stack(result, axes), (rows, columns), nearest=nearest)
    slices, *sides = window or ((0, stack.shape[0]), (0, rows), (0, columns))
    y, x = (slice(*side) for side in sides)
    for n in range(*slices):
        if stop():
            return True
        pixels = stack.read(n, y, x)
        if not nearest and np.dtype(target.dtype).kind == "u":
            pixels = np.rint(pixels)
        which = np.unravel_index(n, stack.slice_shape) if stack.slice_shape else ()
        if "C" in axes:
            target[(slice(None), *which, y, x)] = np.moveaxis(pixels, -1, 0).astype(target.dtype)
        else:
            target[(*which, y, x)] = pixels[..., 0].astype(target.dtype)
    return False
