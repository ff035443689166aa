"""Layers that fill while a worker writes what is behind them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, QTimer

from napari_unet.spec import ModelSpec

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Layer

__all__ = ["LiveLayers", "labels_layer", "probabilities_layer"]

_REFRESH_MS = 400
_SHARE = 10
"""A refresh that takes long is done more seldom, so that it costs at most this part of the time."""

_PALETTE = (
    "#e6194b",
    "#3cb44b",
    "#ffe119",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#42d4f4",
    "#f032e6",
    "#bfef45",
    "#fabed4",
)


def labels_layer(array: Any, card: ModelSpec, name: str, place: dict[str, Any]) -> Labels:
    """Make a layer of labels: classes with the names and colours of the model card, or objects.

    Parameters
    ----------
    array : array-like of int, shape (..., Y, X)
        Painted values; may still be filling.
    card : ModelSpec
        The model.
    name : str
        Of the layer.
    place : dict
        From `placement`.
    """
    looks: dict[str, Any] = {}
    classes = card.classes if card.target == "classes" else ()
    if any(info.color for info in classes):
        colors: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
        for i, info in enumerate(classes[1:]):
            colors[info.value] = info.color or _PALETTE[i % len(_PALETTE)]
        looks["colormap"] = DirectLabelColormap(color_dict=colors)
    if any(info.name for info in classes):
        names = {info.value: info.name for info in classes}
        looks["features"] = {"index": list(names), "class": list(names.values())}
    layer = Labels(array, name=name, **place, **looks)
    # What is behind it belongs to the worker; napari's Duplicate makes a copy to paint on.
    layer.editable = False
    return layer


def probabilities_layer(array: Any, name: str, place: dict[str, Any]) -> Image:
    """Make a layer of probabilities, 0 to 1 or 0 to 255."""
    top = 255 if array.dtype == "uint8" else 1
    return Image(array, name=name, contrast_limits=(0, top), colormap="magma", blending="additive", **place)


class LiveLayers(QObject):
    """Redraws layers while tiles arrive, and stops when they are gone or done.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layers are.
    parent : QObject
        Qt parent.
    """

    def __init__(self, viewer: napari.viewer.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[Layer] = []
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.refresh)

    def follow(self, layers: list[Layer]) -> None:
        """Take over a new run's layers."""
        self._layers = list(layers)

    def touch(self) -> None:
        """Note that something new is on disk; it is drawn soon."""
        if self._layers and not self._timer.isActive():
            self._timer.start(max(_REFRESH_MS, self._timer.interval()))

    def finish(self) -> None:
        """Draw what came last, and let go."""
        self._timer.stop()
        self.refresh()
        self._layers = []

    def refresh(self) -> None:
        """Draw what is on disk now."""
        begin = time.perf_counter()
        for layer in self._layers:
            if layer in self._viewer.layers:
                layer.refresh()
        spent = 1000 * (time.perf_counter() - begin)
        self._timer.setInterval(int(max(_REFRESH_MS, _SHARE * spent)))
