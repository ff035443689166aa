"""Readers: a model file for the Segment dock, and OME-TIFF with everything it says about its pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from napari_unet.data.axes import ArrayLike
from napari_unet.files.image import Image, count_series, open_image

__all__ = ["LayerData", "ReaderFunction", "model_reader", "ome_tiff_reader"]

LayerData = tuple[Any, ...]
"""What napari makes a layer of: (data, keyword arguments, layer type)."""

ReaderFunction = Callable[[str], list[LayerData]]


def model_reader(path: str | list[str]) -> ReaderFunction | None:
    """Offer to open a ``NAME.unet`` file.

    Parameters
    ----------
    path : str or list of str
        The file; a list means that napari wants them stacked, which models cannot be.

    Returns
    -------
    callable or None
        Shows the model and hands it to the Segment dock. It adds no layer.
    """
    return _open_model if isinstance(path, str) and path.lower().endswith(".unet") else None


def ome_tiff_reader(path: str | list[str]) -> ReaderFunction | None:
    """Offer to open an OME-TIFF.

    Parameters
    ----------
    path : str or list of str
        The file; a list means that napari wants them stacked, which is left to napari's own reader.

    Returns
    -------
    callable or None
        Returns one layer for each image and channel of the file, with scale, units and axis labels.
        Large images are read as they are looked at, pyramids are multiscale layers.
    """
    is_ours = isinstance(path, str) and path.lower().endswith((".ome.tif", ".ome.tiff"))
    return _open_ome_tiff if is_ours else None


def _open_model(path: str) -> list[LayerData]:
    from napari.utils.notifications import show_info

    from napari_unet.files.model import read_card
    from napari_unet.gui.model_rows import card_sentence
    from napari_unet.gui.segment_dock import offer_model

    card = read_card(path)
    offer_model(path)
    show_info(f"Model {card.name!r} is in the Segment dock. {card_sentence(card)}")
    return [(None,)]


def _open_ome_tiff(path: str) -> list[LayerData]:
    return [_layer(path, series) for series in range(count_series(path))]


def _layer(path: str, series: int) -> LayerData:
    image = open_image(path, series=series)
    levels, axes = _napari_order(image)
    spatial = [letter for letter in axes if letter in "TZYX"]
    known: dict[str, Any] = {
        "name": image.name,
        "scale": [image.pixel_size.get(letter, 1.0) for letter in spatial],
        "units": [image.unit if letter in image.pixel_size else "pixel" for letter in spatial],
        "axis_labels": [letter.lower() for letter in spatial],
        "metadata": {"series": series},
        "multiscale": len(levels) > 1,
    }
    data = levels if len(levels) > 1 else levels[0]
    if image.labels:
        return data, known, "labels"
    if "C" in axes:
        at = axes.index("C")
        known |= {"channel_axis": at, "name": _channel_names(image, levels[0].shape[at])}
    elif axes.endswith("S"):
        known["rgb"] = True
    return data, known, "image"


def _napari_order(image: Image) -> tuple[list[Any], str]:
    """Return all levels as napari takes them: lazy ones through dask, colour samples last.

    Samples that are no colour (2 or more than 4) become channels.
    """
    levels, axes = [_lazy(level) for level in image.levels], image.axes
    if "S" not in axes:
        return levels, axes
    at = axes.index("S")
    if image.array.shape[at] not in (3, 4):
        return levels, axes.replace("S", "C")
    return [np.moveaxis(level, at, -1) for level in levels], axes.replace("S", "") + "S"


def _lazy(array: ArrayLike) -> Any:
    if isinstance(array, np.ndarray):
        return array
    import dask.array

    # napari splits channels with numpy.take, which would read any other lazy array whole.
    return dask.array.from_array(array, chunks=getattr(array, "chunks", "auto"), name=False)


def _channel_names(image: Image, channels: int) -> list[str]:
    if len(image.channel_names) == channels:
        return [f"{image.name}: {channel}" for channel in image.channel_names]
    return [image.name] if channels == 1 else [f"{image.name}: channel {i}" for i in range(channels)]
