"""Layers that fill while a worker writes what is behind them, and those that a run leaves at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, QTimer

from napari_unet.files.results import watch_result
from napari_unet.gui.layers import Window, placement, shown_axes
from napari_unet.gui.regions import regions_layer
from napari_unet.gui.snapshot import Snapshot
from napari_unet.region_table import read_regions
from napari_unet.spec import ModelSpec

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Layer, Shapes
    from numpy.typing import NDArray

__all__ = ["LiveLayers", "Results", "Shown", "labels_layer", "map_layer"]

_REFRESH_MS = 400
_SHARE = 10
"""A refresh that takes long is done more seldom, so that it costs at most this part of the time."""

_MAPS = {
    "probabilities": ("probability", "magma"),
    "entropy": ("entropy", "inferno"),
    "uncertainty": ("uncertainty", "inferno"),
}
"""What the layer of a map is called after its image, and its colours."""

_LARGEST = 2**27
"""Pixels of a plane that is shown: napari reads the whole plane of a layer, at once, whenever it is drawn anew."""

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


def map_layer(kind: str, array: Any, name: str, place: dict[str, Any]) -> Image:
    """Make a layer of a map, 0 to 1 or 0 to 255: probabilities, entropy or uncertainty.

    Parameters
    ----------
    kind : {"probabilities", "entropy", "uncertainty"}
        What it holds.
    array : array-like, shape (..., Y, X)
        May still be filling.
    name : str
        Of its image.
    place : dict
        From `placement`.
    """
    word, colormap = _MAPS[kind]
    top = 255 if array.dtype == "uint8" else 1
    return Image(
        array,
        name=f"{name} {word}",
        contrast_limits=(0, top),
        colormap=colormap,
        blending="additive",
        **place,
    )


class Shown:
    """A result as a layer shows it: reads what is asked for, when it is; copied, it is an array to paint on.

    Parameters
    ----------
    array : array-like
        May still be filling.
    axis : int, optional
        Where there is one more axis, of length 1.
    part : (y, x) of slice, optional
        Rows and columns that are shown; all without it.
    """

    def __init__(self, array: Any, axis: int | None = None, part: tuple[slice, slice] | None = None) -> None:
        self._array, self._axis, self._part = array, axis, part
        self.dtype = np.dtype(array.dtype)
        shape = tuple(array.shape)
        if part is not None:
            shape = (*shape[:-2], *(side.stop - side.start for side in part))
        self.shape = shape if axis is None else (*shape[:axis], 1, *shape[axis:])
        self.ndim, self.size = len(self.shape), prod(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a part; as numpy, for integers, slices and an ellipsis."""
        keys = list(key) if isinstance(key, tuple) else [key]
        missing = [slice(None)] * (self.ndim - sum(one is not Ellipsis for one in keys))
        at = next((i for i, one in enumerate(keys) if one is Ellipsis), len(keys))
        keys[at : at + 1] = missing
        mine = keys.pop(self._axis) if self._axis is not None else None
        if self._part is not None:
            keys[-2:] = map(_within, keys[-2:], self._part)
        pixels = np.asarray(self._array[tuple(keys)])
        if self._axis is None:
            return pixels
        before = sum(isinstance(one, slice) for one in keys[: self._axis])
        return np.expand_dims(pixels, before)[(slice(None),) * before + (mine,)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it."""
        return np.asarray(self[...], dtype=dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> NDArray[Any]:
        """Read all of it, for napari's Duplicate: what is stored belongs to the worker, the copy to the user."""
        return np.array(self)


def _within(key: Any, side: slice) -> Any:
    """Turn an integer or a slice of a part of an axis into that of the whole axis."""
    inside = range(side.start, side.stop)[key]
    return inside if isinstance(inside, int) else slice(inside.start, inside.stop, inside.step)


class Results:
    """The layers of one run, placed as its source lay when it was asked for; that may be gone by now.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Gets the layers.
    layer : napari.layers.Image
        The source.
    image : Snapshot
        Taken of it.
    card : ModelSpec
        The model.
    window : tuple of (start, stop), optional
        Part that is segmented, in slices, y and x.

    Attributes
    ----------
    hidden : bool
        Whether planes are too large to be shown, and no layers are made. Of such a plane a window is shown by itself.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        layer: Image,
        image: Snapshot,
        card: ModelSpec,
        window: Window | None = None,
    ) -> None:
        axes, shown = image.stack.axes, shown_axes(image.stack)
        y, x = window[1:] if window else ((0, image.stack.shape[1]), (0, image.stack.shape[2]))
        self._part = None if prod(image.stack.shape[1:3]) <= _LARGEST else (slice(*y), slice(*x))
        self.hidden = self._part is not None and (y[1] - y[0]) * (x[1] - x[0]) > _LARGEST
        corner = (0, 0) if self._part is None else (y[0], x[0])
        self.name = image.stack.name
        self._viewer, self._card, self._ndim = viewer, card, len(image.stack.out_axes)
        self._gap = shown.index("C") if "C" in shown else None
        self._flat = placement(layer, axes, shown, corner=corner)
        self._deep = placement(layer, axes, shown, classes=True, corner=corner)
        self._whole = placement(layer, axes, shown)
        self._labels: ref[Labels] | None = None
        self._made: dict[str, ref[Layer]] = {}
        self.empty = True

    def begin(self, outputs: Mapping[str, str], before: Results | None = None) -> list[Layer]:
        """Add layers of what is being written; labels above the maps, and instead of the probabilities.

        Parameters
        ----------
        outputs : mapping of str to str
            The path of each kind of result.
        before : Results, optional
            Those of a run that was not finished: where this run goes on with it, its layers are taken.
        """
        self.empty = False
        if self.hidden:
            return []
        kinds = sorted(outputs, key=lambda kind: kind == "labels")
        for kind in kinds:
            path = outputs[kind]
            layer = before.layer_of(path) if before is not None else None
            if layer is None:
                layer = self._add(kind, watch_result(path))
                layer.visible = kind != "probabilities" or "labels" not in kinds
            elif kind == "labels":
                self._labels = ref(layer)
            self._made[path] = ref(layer)
        return [layer for path in self._made if (layer := self.layer_of(path)) is not None]

    def layer_of(self, path: str) -> Layer | None:
        """Return the layer of a result, if it is still in the viewer."""
        layer = self._made[path]() if path in self._made else None
        return layer if layer in self._viewer.layers else None

    def put_labels(self, path: str) -> None:
        """Show labels that were made anew, in the layer of the former ones if it is still there."""
        if self.hidden:
            return
        array = watch_result(path)
        layer = self._labels() if self._labels is not None else None
        if layer is None or layer not in self._viewer.layers:
            self._add("labels", array)
            return
        layer.data = self._shown(array)
        layer.editable = False  # napari lets any new data be edited

    def add_regions(self, path: str) -> Shapes | None:
        """Add a layer of the regions of a table; None if it lists none."""
        regions = read_regions(path)
        if not regions:
            return None
        layer = regions_layer(regions, f"{self.name} where to look", self._whole, self._gap)
        # What it returns may be napari's proxy for plugins, which nobody else holds.
        self._viewer.add_layer(layer)
        return layer

    def _add(self, kind: str, array: Any) -> Layer:
        layer: Layer
        if kind == "labels":
            layer = labels_layer(self._shown(array), self._card, f"{self.name} segmented", self._flat)
            self._labels = ref(layer)
        else:
            place = self._deep if array.ndim > self._ndim else self._flat
            as_is = self._gap is None and self._part is None
            layer = map_layer(kind, array if as_is else self._shown(array), self.name, place)
        self._viewer.add_layer(layer)
        return layer

    def _shown(self, array: Any) -> Any:
        """Give a result the axis of channels that it needs to lie on the sliders of its source."""
        axis = None if self._gap is None else self._gap + array.ndim - self._ndim
        return Shown(array, axis, self._part)


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
