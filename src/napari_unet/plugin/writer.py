"""Writers: layers to OME-TIFF with scale and units, and an image with its labels as a training pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.axes import ArrayLike, Stack, guess_axes
from napari_unet.data.labels import check_same_shape
from napari_unet.errors import FileError
from napari_unet.files.tiff import write_tiff

__all__ = ["write_image", "write_labels", "write_pair"]

_ENDINGS = (".ome.tiff", ".ome.tif")


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write an image layer as OME-TIFF.

    Parameters
    ----------
    path : str
        ``NAME.ome.tif``.
    data : array-like, or list of array-like
        Its pixels; of a pyramid the full resolution is written.
    meta : dict
        The layer's settings, as napari hands them over.

    Returns
    -------
    list of str
        The file that was written.

    Raises
    ------
    FileError
        If the file cannot be written, or OME-TIFF has no room for such pixels.
    DataError
        If the layer has axes beyond T, Z, C, Y, X.
    """
    array = _full_resolution(data, meta)
    axes = guess_axes(array.shape, rgb=bool(meta.get("rgb")), labels=meta.get("axis_labels"))
    _write(path, array, axes, meta)
    return [path]


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as OME-TIFF, in a type that keeps each value.

    Parameters
    ----------
    path : str
        ``NAME.ome.tif``.
    data : array-like, or list of array-like
        Labels; of a pyramid the full resolution is written.
    meta : dict
        The layer's settings, as napari hands them over.

    Returns
    -------
    list of str
        The file that was written.

    Raises
    ------
    FileError
        If the file cannot be written, or a value needs more than 32 bits.
    DataError
        If the layer has axes beyond T, Z, C, Y, X.
    """
    array = _full_resolution(data, meta)
    _write(path, array, guess_axes(array.shape, labels=meta.get("axis_labels")), meta, labels=True)
    return [path]


def write_pair(path: str, layers: list[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Write an image layer and its labels layer as a pair to train on.

    Parameters
    ----------
    path : str
        ``NAME.ome.tif``; the files become ``NAME.image.ome.tif`` and ``NAME.labels.ome.tif``,
        which `napari_unet.files.pairs.match_pairs` finds again.
    layers : list of (data, meta, type)
        One image and one labels layer, in any order.

    Returns
    -------
    list of str
        The two files, image first.

    Raises
    ------
    DataError
        If the two differ in shape.
    FileError
        If a file of the pair is there already and was not the one chosen, or cannot be written.
    """
    by_type = {kind: (data, meta) for data, meta, kind in layers}
    image, labels = (_full_resolution(*by_type[kind]) for kind in ("image", "labels"))
    image_meta, labels_meta = by_type["image"][1], by_type["labels"][1]
    image_axes = guess_axes(
        image.shape, rgb=bool(image_meta.get("rgb")), labels=image_meta.get("axis_labels")
    )
    labels_axes = guess_axes(labels.shape, labels=labels_meta.get("axis_labels"))
    check_same_shape(
        Stack(image, image_axes, str(image_meta.get("name", "image"))),
        Stack(labels, labels_axes, str(labels_meta.get("name", "labels"))),
    )
    image_path, labels_path = _pair_paths(path)
    # Labels first: of the two they are what nobody can record again.
    _write(labels_path, labels, labels_axes, labels_meta, labels=True)
    _write(image_path, image, image_axes, image_meta)
    return [image_path, labels_path]


def _pair_paths(path: str) -> tuple[str, str]:
    """Return the paths of image and labels; never over a file that the user didn't point at."""
    ending = next((ending for ending in _ENDINGS if path.lower().endswith(ending)), "")
    base = path[: len(path) - len(ending)]
    base = base.removesuffix(".image").removesuffix(".labels")
    ending = ending or ".ome.tif"
    pair = (f"{base}.image{ending}", f"{base}.labels{ending}")
    if path not in pair:
        for member in pair:
            if Path(member).exists():
                raise FileError(
                    member, "is there already; choose another name, or choose this file to replace the pair."
                )
    return pair


def _full_resolution(data: Any, meta: dict[str, Any]) -> Any:
    """Return the array of a layer, or the first level of its pyramid."""
    return data[0] if meta.get("multiscale") or isinstance(data, list) else data


def _write(path: str, array: ArrayLike, axes: str, meta: dict[str, Any], *, labels: bool = False) -> None:
    if lost := _left_out(meta):
        warn(f"{path} keeps scale and units of layer {meta.get('name')!r}, but not its {lost}.", stacklevel=3)
    pixel_size, unit = _pixel_size(axes, meta)
    name = str(meta.get("name", ""))
    write_tiff(path, array, axes, pixel_size=pixel_size, unit=unit, name=name, labels=labels)


def _pixel_size(axes: str, meta: dict[str, Any]) -> tuple[dict[str, float], str]:
    """Return the size of a pixel along z, y and x, all in the unit of x.

    A file has one unit, a layer one an axis: lengths are converted, and an axis that cannot be
    converted counts as not known. A scale of 1 pixel says nothing, so nothing is written.
    """
    import pint

    registry: Any = pint.application_registry
    letters = axes.removesuffix("S")
    units = meta.get("units") or ["pixel"] * len(letters)
    scale = meta.get("scale", [1.0] * len(letters))
    layer = {
        letter: registry.Quantity(float(size), str(unit))
        for letter, size, unit in zip(letters, scale, units, strict=True)
    }
    unit = layer["X"].units
    known = {
        letter: layer[letter]
        for letter in "ZYX"
        if letter in layer and layer[letter].is_compatible_with(unit)
    }
    sizes = {letter: float(size.to(unit).magnitude) for letter, size in known.items()}
    return ({} if str(unit) == "pixel" and set(sizes.values()) == {1.0} else sizes), str(unit)


def _left_out(meta: dict[str, Any]) -> str:
    """Name what a layer has and OME-TIFF has no place for."""
    moved = np.any(np.asarray(meta.get("translate", 0.0), float) != 0)
    turned = any(
        not _is_identity(np.asarray(meta.get(key, np.eye(1)), float)) for key in ("rotate", "affine")
    )
    sheared = np.any(np.asarray(meta.get("shear", 0.0), float) != 0)
    lost = {"translation": moved, "rotation or affine transform": turned, "shear": sheared}
    return " and ".join(name for name, found in lost.items() if found)


def _is_identity(matrix: NDArray[Any]) -> bool:
    return matrix.ndim != 2 or bool(np.allclose(matrix, np.eye(*matrix.shape)))
