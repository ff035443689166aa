"""Reads layers into frozen values, and places results where their source lies.

Everything here runs in the main thread and touches no pixel but those of labels, which are
copied: once a `Snapshot` is taken, its layer may be painted on, renamed or removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine
from numpy.typing import NDArray
from pint import DimensionalityError

from napari_unet.data.axes import Stack, guess_axes
from napari_unet.data.instances import Window
from napari_unet.errors import DataError
from napari_unet.gui.snapshot import Snapshot
from napari_unet.words import count

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Image, Labels, Layer, Shapes

__all__ = [
    "Window",
    "axes_choices",
    "axes_choices_beside",
    "describe",
    "mismatch",
    "own_units",
    "placement",
    "read_image",
    "read_labels",
    "shape_window",
    "shown_axes",
    "visible_window",
]


def level0(layer: Layer) -> Any:
    """Return a layer's pixels at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


def axes_choices(layer: Image) -> list[str]:
    """List what a layer's axes may be, the likeliest first.

    Raises
    ------
    DataError
        If it has fewer than two or more than five axes.
    """
    shape = tuple(level0(layer).shape)
    likely = guess_axes(shape, rgb=layer.rgb, labels=layer.axis_labels)
    plain = {
        2: ["YX"],
        3: ["ZYX", "TYX", "CYX", "YXC"],
        4: ["TZYX", "CZYX", "ZCYX", "TCYX"],
        5: ["TZCYX", "TCZYX"],
    }
    coloured = {3: ["YXS"], 4: ["ZYXS", "TYXS"], 5: ["TZYXS"]}
    return list(dict.fromkeys([likely, *(coloured if layer.rgb else plain)[len(shape)]]))


def axes_choices_beside(layer: Image, first: Stack) -> list[str]:
    """List what a layer's axes may be beside another image: with as many channels and its axes before others.

    Parameters
    ----------
    layer : napari.layers.Image
        The layer.
    first : Stack
        The other image.

    Raises
    ------
    DataError
        If it cannot be an image.
    """
    own = axes_choices(layer)
    alike = len(own[0]) == len(first.axes) and ("S" in own[0]) == ("S" in first.axes)
    choices = dict.fromkeys([first.axes, *own] if alike else own)
    return sorted(choices, key=lambda axes: Stack(level0(layer), axes).shape[3] != first.shape[3])


def read_image(layer: Image, axes: str | None = None) -> Snapshot:
    """Take a snapshot of an image layer; pixels stay where they are.

    Of colours with alpha, the alpha is left out: it says how to draw, not what was seen.

    Parameters
    ----------
    layer : napari.layers.Image
        The layer.
    axes : str, optional
        Letters of its axes; guessed where left out.

    Raises
    ------
    DataError
        If it cannot be an image.
    """
    pixels = level0(layer)
    if layer.rgb and (isinstance(pixels, np.ndarray) or hasattr(pixels, "dask")):
        pixels = pixels[..., :3]
    return _snapshot(layer, pixels, axes or axes_choices(layer)[0])


def read_labels(layer: Labels, image_axes: str) -> Snapshot:
    """Copy what was painted on a labels layer.

    Parameters
    ----------
    layer : napari.layers.Labels
        The layer.
    image_axes : str
        Letters of the image it was painted on, which its own axes follow where they can.
    """
    pixels = np.array(level0(layer))
    plain = image_axes.replace("S", "")
    axes = plain.replace("C", "")
    if pixels.ndim == len(plain) > len(axes) and pixels.shape[c := plain.index("C")] == 1:
        snapshot = _snapshot(layer, pixels, plain)  # as results are shown
        return replace(snapshot, stack=replace(snapshot.stack, array=pixels.squeeze(c), axes=axes))
    if len(axes) != pixels.ndim:
        axes = guess_axes(pixels.shape, labels=layer.axis_labels)
    return _snapshot(layer, pixels, axes)


def _snapshot(layer: Layer, pixels: Any, axes: str) -> Snapshot:
    pixel_size, unit = _pixel_size(layer, axes)
    source = layer.source.path
    return Snapshot(
        Stack(pixels, axes, str(layer.name)),
        pixel_size,
        unit,
        Path(source) if source and "://" not in str(source) else None,
        int(layer.metadata.get("series", 0)),
    )


def _pixel_size(layer: Layer, axes: str) -> tuple[dict[str, float], str]:
    """Return the pixel size along Z, Y and X in the unit of X; empty where the layer knows none."""
    letters = axes.replace("S", "")
    scale = dict(zip(letters, map(float, layer.scale), strict=False))
    units = dict(zip(letters, layer.units, strict=False))
    unit = units["X"]
    sizes: dict[str, float] = {}
    for letter in "ZYX":
        if letter in scale:
            try:
                sizes[letter] = abs(scale[letter]) * float((1 * units[letter]).to(unit).magnitude)
            except DimensionalityError:
                continue  # a stack with known z steps but bare pixels: one unit cannot say both
    if str(unit) == "pixel" and all(size == 1 for size in sizes.values()):
        return {}, "pixel"
    return sizes, str(unit)


def describe(snapshot: Snapshot) -> str:
    """Say in a few words what an image is taken for, e.g. ``"20 slices, 512 x 512, 1 channel, uint8"``."""
    slices, height, width, channels = snapshot.stack.shape
    sort = "RGB" if "S" in snapshot.stack.axes and channels in (3, 4) else count(channels, "channel")
    parts = [f"{width} x {height} pixels", sort, str(np.dtype(snapshot.stack.array.dtype))]
    if snapshot.stack.slice_axes:
        parts.insert(0, count(slices, "slice"))
    return ", ".join(parts)


def own_units(layer: Layer, dims: Dims) -> NDArray[np.float64]:
    """Return how many of a layer's units one of the viewer's is, along the axes of the layer.

    The viewer measures in units that its layers share, the smallest of theirs; a layer by itself
    knows only its own. Where they have none in common, the viewer takes bare numbers.

    Parameters
    ----------
    layer : napari.layers.Layer
        A layer of the viewer.
    dims : napari.components.Dims
        The viewer's sliders.
    """
    if dims.units is None:
        return np.ones(layer.ndim)
    shared = dims.units[-layer.ndim :]
    return np.array(
        [float((1 * unit).to(own).magnitude) for unit, own in zip(shared, layer.units, strict=True)]
    )


def mismatch(image: Image, labels: Labels, axes: tuple[str, str], dims: Dims) -> str:
    """Say that labels do not lie on their image, though their shapes match; empty if they do.

    Shapes decide what trains; places in the viewer tell the user that two layers may not belong
    together.

    Parameters
    ----------
    image, labels : napari layers
        Layers whose shapes match.
    axes : (str, str)
        Letters of the axes of either.
    dims : napari.components.Dims
        The viewer's sliders.
    """
    here, there = (layer.extent.world / own_units(layer, dims) for layer in (image, labels))
    if image.ndim != labels.ndim:  # as of channels and the labels of all of them
        own, other = (letters.replace("S", "") for letters in axes)
        both = [letter for letter in own if letter in other]
        here = here[:, [own.index(letter) for letter in both]]
        there = there[:, [other.index(letter) for letter in both]]
    if np.allclose(here, there, rtol=1e-3, atol=1e-9):
        return ""
    return (
        f"Labels {labels.name!r} fit the shape of image {image.name!r}, but lie at another place or scale "
        "in the viewer. They are matched pixel by pixel."
    )


def shown_axes(stack: Stack) -> str:
    """Return the letters of a result's axes as it is shown over its source.

    napari aligns layers by their last axes. So channels before all other axes are left out, but an
    axis of channels behind slices stays, with one channel that lies over all of the source's.
    """
    axes = stack.axes.replace("S", "")
    if axes.find("C") > 0 and axes.replace("C", "") == stack.out_axes:
        return axes
    return stack.out_axes


def placement(
    layer: Layer, axes: str, out_axes: str, *, classes: bool = False, corner: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Return the keyword arguments that place a result over its source layer.

    Parameters
    ----------
    layer : napari.layers.Layer
        The source.
    axes : str
        Letters of the source's axes.
    out_axes : str
        Letters of the result's, a part of the source's; with C, its one channel lies over all of the source's.
    classes : bool
        True if the result has one more axis in front, for classes.
    corner : (y, x)
        Pixel of the source at which the result begins.

    Returns
    -------
    dict
        scale, translate, rotate, shear, affine, units and axis_labels, as far as they are needed.
    """
    kept = [axes.replace("S", "").index(letter) for letter in out_axes]
    units, labels = [layer.units[i] for i in kept], [layer.axis_labels[i] for i in kept]
    if kept == list(range(layer.ndim)) and not classes and "C" not in out_axes and not any(corner):
        own = {name: getattr(layer, name) for name in ("scale", "translate", "rotate", "shear")}
        return {**own, "affine": layer.affine.affine_matrix, "units": units, "axis_labels": labels}
    inner = Affine(scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear)
    matrix, outer = _select(inner.affine_matrix, kept), _select(layer.affine.affine_matrix, kept)
    matrix = _moved(matrix, out_axes, corner)
    if "C" in out_axes:
        matrix = _over_all(matrix, out_axes.index("C"), level0(layer).shape[axes.index("C")])
        labels = list(out_axes.lower())
    if classes:
        matrix, outer = _with_axis(matrix), _with_axis(outer)
        units, labels = ["pixel", *units], ["class", *labels]
    names = {"units": units, "axis_labels": labels}
    linear = matrix[:-1, :-1]
    if np.allclose(linear, np.diag(np.diag(linear))):
        return {"scale": np.diag(linear), "translate": matrix[:-1, -1], "affine": outer, **names}
    return {"affine": outer @ matrix, **names}


def _select(matrix: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """Keep some axes of a homogeneous matrix."""
    rows = [*kept, len(matrix) - 1]
    return matrix[np.ix_(rows, rows)]


def _moved(matrix: np.ndarray, axes: str, corner: tuple[int, int]) -> np.ndarray:
    """Let a grid begin at another of its pixels."""
    away = np.eye(len(matrix))
    for letter, start in zip("YX", corner, strict=True):
        away[axes.index(letter), -1] = start
    return matrix @ away


def _over_all(matrix: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Let one pixel along an axis cover what `length` pixels did."""
    wide = np.eye(len(matrix))
    wide[axis, axis], wide[axis, -1] = length, (length - 1) / 2
    return matrix @ wide


def _with_axis(matrix: np.ndarray) -> np.ndarray:
    """Put one more axis before those of a homogeneous matrix."""
    larger = np.eye(len(matrix) + 1)
    larger[1:, 1:] = matrix
    return larger


def visible_window(layer: Image, snapshot: Snapshot, dims: Dims) -> Window:
    """Return the slice of a stack that the viewer shows.

    Parameters
    ----------
    layer : napari.layers.Image
        The stack.
    snapshot : Snapshot
        Taken of it.
    dims : napari.components.Dims
        The viewer's sliders.
    """
    point = np.array(dims.point)[-layer.ndim :] * own_units(layer, dims)
    at = dict(zip(snapshot.stack.axes, layer.world_to_data(point), strict=False))
    n = _slice_number(snapshot.stack, [at[letter] for letter in snapshot.stack.slice_axes])
    _, height, width, _ = snapshot.stack.shape
    return (n, n + 1), (0, height), (0, width)


def shape_window(layer: Image, snapshot: Snapshot, shapes: Shapes, dims: Dims) -> Window:
    """Return the box around drawn shapes: the selected ones, or all.

    Shapes drawn on one slice choose that slice; shapes without slices choose the whole stack.

    Raises
    ------
    DataError
        If nothing is drawn, or it lies outside the image.
    """
    chosen = [shapes.data[i] for i in sorted(shapes.selected_data)] or list(shapes.data)
    if not chosen:
        raise DataError(
            f"Shapes layer {shapes.name!r} is empty. Draw a rectangle around what to segment, or choose the whole stack."
        )
    points = [shapes.data_to_world(point) / own_units(shapes, dims) for point in np.concatenate(chosen)]
    n = min(layer.ndim, shapes.ndim)
    corners = np.array([layer.world_to_data(point[-n:] * own_units(layer, dims)[-n:]) for point in points])
    low = dict(zip(snapshot.stack.axes, corners.min(axis=0), strict=False))
    high = dict(zip(snapshot.stack.axes, corners.max(axis=0), strict=False))
    slices, height, width, _ = snapshot.stack.shape
    stack, flat = snapshot.stack, shapes.ndim < layer.ndim
    first = 0 if flat else _slice_number(stack, [low[letter] for letter in stack.slice_axes])
    last = slices - 1 if flat else _slice_number(stack, [high[letter] for letter in stack.slice_axes])
    # Pixel i reaches from i - 0.5 to i + 0.5: every pixel that the box touches is in.
    rows = max(0, int(np.floor(low["Y"] + 0.5))), min(height, int(np.ceil(high["Y"] + 0.5)))
    columns = max(0, int(np.floor(low["X"] + 0.5))), min(width, int(np.ceil(high["X"] + 0.5)))
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        raise DataError(
            f"What is drawn in {shapes.name!r} lies outside image {layer.name!r}. Draw it on the image."
        )
    return (first, last + 1), rows, columns


def _slice_number(stack: Stack, at: Sequence[float]) -> int:
    if not at:
        return 0
    index = [
        int(np.clip(round(float(x)), 0, length - 1)) for x, length in zip(at, stack.slice_shape, strict=True)
    ]
    return int(np.ravel_multi_index(index, stack.slice_shape))
