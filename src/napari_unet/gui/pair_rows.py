"""The rows that choose what to train on: an image and its labels, and others beside them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_unet.data.axes import Stack
from napari_unet.data.labels import check_same_shape
from napari_unet.data.lint_pairs import check_pairs
from napari_unet.errors import DataError
from napari_unet.gui.dock import AxesBox, ImageRows, follow_layers, layer_box
from napari_unet.gui.form import Form
from napari_unet.gui.layers import axes_choices, axes_choices_beside, read_image, read_labels
from napari_unet.gui.requests import Pair

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["PairRow", "PairRows"]


class PairRow(QWidget):
    """One more image, its labels, its axes where they are not plain, and a button that removes the row.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    remove : callable
        Is called with the row when its button is pressed.
    """

    def __init__(self, viewer: napari.viewer.Viewer, remove: Callable[[PairRow], None]) -> None:
        super().__init__()
        # Where a layer goes, its box is left empty: another layer in its place would be trained on unseen.
        self.image = layer_box(viewer, Image, "image", "Image", "Another image layer.", nullable=True)
        self.labels = layer_box(
            viewer, Labels, "labels", "Labels", "What you painted on the image beside it.", nullable=True
        )
        self.axes = AxesBox()
        self.remove_button = QToolButton()
        self.remove_button.setText("✕")
        self.remove_button.setToolTip("<p>Train without this image.</p>")
        self.remove_button.clicked.connect(lambda: remove(self))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for box in (self.image, self.labels):
            box.native.setMinimumWidth(60)
            box.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            box.native.setToolTip(box.tooltip)
            layout.addWidget(box.native, 1)
        layout.addWidget(self.axes.native)
        layout.addWidget(self.remove_button)

    def offer_axes(self, first: Stack | None) -> None:
        """Offer what the chosen image's axes may be beside the first image; out of sight where there is one way only."""
        layer = self.image.value
        choices: list[str] = []
        with suppress(DataError):  # what is wrong with the layer is told when it is read
            if layer is not None:
                choices = axes_choices(layer) if first is None else axes_choices_beside(layer, first)
        self.axes.offer(layer, choices)
        self.axes.native.setVisible(len(choices) > 1)


class PairRows(QWidget):
    """The rows that choose an image and its labels, and a button that adds a row for another image and its labels.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.

    Attributes
    ----------
    image, labels
        The first pair.
    rows : list of PairRow
        The others.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        first, below = Form(), Form()
        self.image = ImageRows(viewer, first)
        self.labels = layer_box(
            viewer, Labels, "labels", "Labels", "The layer you painted on, made for this image."
        )
        first.add_widget(self.labels)
        self.rows: list[PairRow] = []
        self.add_button = QPushButton("Add another image")
        self.add_button.clicked.connect(self._add)
        below.add_row(
            "",
            self.add_button,
            "<p>Train on several images, each with its labels. They may differ in size.</p>",
        )
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(4)
        self._column.addWidget(first)
        self._column.addWidget(below)
        for box in (self.image.box, self.image.axes):
            box.changed.connect(self._offer_axes)

    def reset_choices(self) -> None:
        """Follow the viewer's layers."""
        for image, labels in self._boxes():
            follow_layers(image)
            follow_layers(labels)
        self.image.refresh()
        self._offer_axes()

    def layers(self) -> list[tuple[Image, Labels]]:
        """Return each chosen image with its labels.

        Raises
        ------
        DataError
            If a layer is missing, or the same two are chosen twice.
        """
        chosen = [(self.image.layer, self.labels.value)]
        chosen += [(row.image.value, row.labels.value) for row in self.rows]
        pairs: list[tuple[Image, Labels]] = []
        for image, labels in chosen:
            if image not in self._viewer.layers:
                raise DataError(
                    "No image layer is chosen in an added row. Open an image, then choose it there, or remove the row."
                )
            if labels not in self._viewer.layers:
                raise DataError(
                    f"No labels layer is chosen. Add a labels layer, paint some pixels, then choose it for image {image.name!r}."
                )
            if (image, labels) in pairs:
                raise DataError(
                    f"Image {image.name!r} with labels {labels.name!r} is chosen twice. Choose others in one of the rows, or remove it."
                )
            pairs.append((image, labels))
        return pairs

    def read(self) -> tuple[Pair, ...]:
        """Take snapshots of what is chosen: images as they are, labels copied.

        Raises
        ------
        DataError
            If a layer is missing, or layers do not fit together.
        """
        layers = self.layers()
        self._offer_axes()
        images = [self.image.snapshot(), *(read_image(row.image.value, row.axes.value) for row in self.rows)]
        pairs = tuple(
            Pair(image, read_labels(layer, image.stack.axes))
            for image, (_, layer) in zip(images, layers, strict=True)
        )
        for pair in pairs:
            check_same_shape(pair.image.stack, pair.labels.stack)
        for finding in check_pairs([p.image.stack for p in pairs], [p.labels.stack for p in pairs]):
            raise DataError(str(finding))
        return pairs

    def _boxes(self) -> list[tuple[ComboBox, ComboBox]]:
        return [(self.image.box, self.labels), *((row.image, row.labels) for row in self.rows)]

    def _offer_axes(self) -> None:
        """Let the added rows follow what the first image is taken for."""
        first: Stack | None = None
        with suppress(DataError):  # said below its box
            first = self.image.snapshot().stack
        for row in self.rows:
            row.offer_axes(first)

    def _add(self) -> None:
        """Add a row; it begins with layers that are in no other."""
        row = PairRow(self._viewer, self._remove)
        taken = [None, *(box.value for boxes in self._boxes() for box in boxes)]
        for box in (row.image, row.labels):
            box.value = next((layer for layer in box.choices if layer not in taken), None)
        row.image.changed.connect(self._offer_axes)
        self.rows.append(row)
        self._offer_axes()
        self._column.insertWidget(len(self.rows), row)

    def _remove(self, row: PairRow) -> None:
        self.rows.remove(row)
        row.hide()
        row.deleteLater()
