"""The regions that a network is least sure of: rectangles over the image, and a way from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Shapes
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from napari_unet.gui.layers import own_units

if TYPE_CHECKING:
    import napari.viewer
    from numpy.typing import NDArray

__all__ = ["RegionRow", "Regions", "look_at", "regions_layer"]

Regions = Sequence[tuple[tuple[int, ...], tuple[int, int], tuple[int, int], float]]
"""Slice indices, (start, stop) in y and x, and how unsure; as `napari_unet.region_table.read_regions` returns them."""

_SHOWN = 20


def regions_layer(regions: Regions, name: str, place: dict[str, Any], gap: int | None = None) -> Shapes:
    """Make a layer of rectangles, numbered from the least sure one.

    Parameters
    ----------
    regions : sequence
        At least one, the least sure first; the first 20 are shown.
    name : str
        Of the layer.
    place : dict
        From `placement`.
    gap : int, optional
        Which axis of the layer is that of channels, if it has one.
    """
    shown = regions[:_SHOWN]
    unsure = [value for *_, value in shown]
    corners = [_corners(index, y, x) for index, y, x, _ in shown]
    return Shapes(
        corners if gap is None else [np.insert(one, gap, 0, axis=1) for one in corners],
        shape_type="rectangle",
        name=name,
        features={"rank": np.arange(1, len(shown) + 1), "unsure": unsure},
        face_color="transparent",
        edge_width=1.5,
        edge_color="unsure",
        edge_colormap="autumn",
        edge_contrast_limits=(0, max(unsure)),
        text={
            "string": "{rank}",
            "color": "yellow",
            "size": 11,
            "anchor": "upper_left",
        },
        opacity=1,
        **place,
    )


def _corners(index: tuple[int, ...], y: tuple[int, int], x: tuple[int, int]) -> NDArray[np.float64]:
    """Corners (4, D) around pixels: pixel i reaches from i - 0.5 to i + 0.5."""
    (top, bottom), (left, right) = ((start - 0.5, stop - 0.5) for start, stop in (y, x))
    sides = [(top, left), (top, right), (bottom, right), (bottom, left)]
    return np.array([(*index, *corner) for corner in sides], dtype=float)


def look_at(viewer: napari.viewer.Viewer, point: Sequence[float]) -> None:
    """Bring a point into view: its slice, and the middle of the canvas.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    point : sequence of float
        World coordinates along the viewer's last axes, in its units.
    """
    dims = viewer.dims
    whole = np.array(dims.point, dtype=float)
    whole[dims.ndim - len(point) :] = point
    hidden = [axis for axis in range(dims.ndim) if axis not in dims.displayed]
    dims.set_point(hidden, [whole[axis] for axis in hidden])
    viewer.scene.camera.center = tuple(float(whole[axis]) for axis in dims.displayed)


class RegionRow(QWidget):
    """The words "Least sure: 3 of 20", with buttons that bring the region before and the next into view.

    Hidden while there is no layer of regions.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: ref[Shapes] | None = None
        self._at: int | None = None
        self.words = QLabel()
        self.previous_button = self._button("◀", "The region before", -1)
        self.next_button = self._button("▶", "The next region", 1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.words, 1)
        layout.addWidget(self.previous_button)
        layout.addWidget(self.next_button)
        self.setToolTip(
            "<p>Regions of which the network is least sure: look there first, or paint more there.</p>"
        )
        self.refresh()

    def _button(self, sign: str, tooltip: str, step: int) -> QPushButton:
        button = QPushButton(sign)
        button.setFixedWidth(36)
        button.setToolTip(tooltip)
        button.clicked.connect(lambda: self.go(step))
        return button

    @property
    def layer(self) -> Shapes | None:
        """The layer of regions, as long as the viewer has it and there is something in it."""
        layer = self._layer() if self._layer is not None else None
        return layer if layer is not None and layer in self._viewer.layers and layer.nshapes else None

    def follow(self, layer: Shapes) -> None:
        """Take over the regions of a new run."""
        self._layer, self._at = ref(layer), None
        self.refresh()

    def refresh(self) -> None:
        """Say where we are; hide once the layer is gone."""
        layer = self.layer
        self.setVisible(layer is not None)
        if layer is not None:
            at = "" if self._at is None else f"{self._at + 1} of "
            self.words.setText(f"Least sure: {at}{layer.nshapes}")

    def go(self, step: int) -> None:
        """Look at a region `step` further on; at first, at the least sure one."""
        layer = self.layer
        if layer is not None:
            self._at = 0 if self._at is None else (self._at + step) % layer.nshapes
            own, dims = own_units(layer, self._viewer.dims), self._viewer.dims
            middle = layer.data[self._at].mean(axis=0)
            here = layer.world_to_data(np.array(dims.point)[-layer.ndim :] * own)
            # A slice that is in view stays: the one channel of regions lies over all of the image's.
            middle = np.where(np.round(here) == np.round(middle), here, middle)
            look_at(self._viewer, (np.array(layer.data_to_world(middle)) / own).tolist())
        self.refresh()
