"""What both docks have in common: a scrolling column, layer rows, and a tidy end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from magicgui.widgets import ComboBox
from napari.layers import Image
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QFrame, QLabel, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from napari_unet.errors import DataError
from napari_unet.events import Report
from napari_unet.gui.client import Workers
from napari_unet.gui.form import Form
from napari_unet.gui.layers import axes_choices, describe, read_image
from napari_unet.gui.run_panel import RunPanel
from napari_unet.gui.snapshot import Snapshot

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["AxesBox", "Column", "ImageRows", "follow_layers", "layer_box", "workers_of"]

_WORKERS: WeakKeyDictionary[Any, Workers] = WeakKeyDictionary()


def workers_of(viewer: napari.viewer.Viewer) -> Workers:
    """Return the workers that the docks of a viewer share."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    return _WORKERS.setdefault(viewer, Workers())


def layer_box(
    viewer: napari.viewer.Viewer, kind: type, name: str, label: str, tooltip: str, *, nullable: bool = False
) -> ComboBox:
    """Make a list of the viewer's layers of one kind, newest last."""

    def choices(_widget: object) -> list[Any]:
        return [layer for layer in viewer.layers if isinstance(layer, kind)]

    box = ComboBox(choices=choices, name=name, label=label, tooltip=f"<p>{tooltip}</p>", nullable=nullable)
    box.native.setMinimumContentsLength(8)
    return box


def follow_layers(box: ComboBox) -> None:
    """List the viewer's layers anew; the chosen one stays, also under another name."""
    layer = box.value
    # For a moment magicgui chooses another layer, which nobody should hear of.
    with box.changed.blocked():
        box.reset_choices()
        if layer in box.choices:
            box.value = layer
    if box.value != layer:
        box.changed.emit(box.value)


class Column(QScrollArea):
    """A dock's column of widgets, which scrolls where the dock is too low.

    Closing the dock stops its run; closing the viewer lets its workers go.

    Parameters
    ----------
    workers : Workers
        Shared with the viewer's other docks.
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self._panel: RunPanel | None = None
        self._workers, self._seat = workers, object()
        workers.join(self._seat)
        # By the time this fires no Python of this dock can be relied on, so it holds none of it.
        self.destroyed.connect(partial(workers.leave, self._seat))
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(320)
        # napari pushes docks together with a stretch unless they say that they take the room.
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        inner = QWidget()
        self._column = QVBoxLayout(inner)
        self._column.setContentsMargins(8, 8, 8, 8)
        self._column.setSpacing(8)
        self.setWidget(inner)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._show_messages)

    def fill(self, panel: RunPanel, *widgets: QWidget) -> None:
        """Stack widgets from the top; the messages of `panel` take what is left below."""
        self._panel = panel
        for widget in widgets:
            self._column.addWidget(widget)
        self._column.addWidget(panel, 1)
        panel.pressed.connect(self.show_messages)
        panel.ended.connect(self.show_messages)

    def show_messages(self, _report: Report | None = None) -> None:
        """Bring the messages into view, for what the user has asked for is answered there."""
        self._soon.start()  # once the column has the size that it is about to get

    def _show_messages(self) -> None:
        if self._panel is not None:
            self.ensureWidgetVisible(self._panel)

    def event(self, event: QEvent) -> bool:
        """Notice that napari takes the dock out of its window, which is how it closes one."""
        if event.type() == QEvent.Type.ParentChange and hasattr(self, "_seat"):
            if self.parent() is not None:
                self._workers.join(self._seat)
            elif self._panel is not None:
                self._panel.stop()
                self._workers.leave(self._seat)
        return bool(super().event(event))

    def enterEvent(self, event: QEvent) -> None:
        """Warm a worker up as the mouse comes near: importing TensorFlow takes 5 to 16 seconds."""
        if self._panel is not None:
            self._panel.warm()
        super().enterEvent(event)


_WORDS = {
    "YX": "YX: one slice",
    "ZYX": "ZYX: stack in depth",
    "TYX": "TYX: time series",
    "CYX": "CYX: channels",
    "YXC": "YXC: channels last",
    "YXS": "YXS: RGB colour",
    "ZYXS": "ZYXS: stack, RGB colour",
    "TYXS": "TYXS: time series, RGB colour",
    "TZYX": "TZYX: stacks over time",
    "TZYXS": "TZYXS: stacks over time, RGB",
}


class _Lines(QLabel):
    """Words in as many lines as they need; a form that changes its height would cut them off."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)

    def setText(self, text: str) -> None:
        super().setText(text)
        self._claim()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._claim()

    def _claim(self) -> None:
        self.setMinimumHeight(self.heightForWidth(self.width()))


class AxesBox(ComboBox):
    """A list of what a layer's axes may be; a choice stays while the layer and its list do.

    Parameters
    ----------
    words : mapping of str to str, optional
        How to call axes; by their letters where it does not say.
    """

    def __init__(self, words: Mapping[str, str] | None = None) -> None:
        super().__init__(
            choices=[],
            name="axes",
            label="Axes",
            tooltip="<p>What each dimension is. Slices (Z or T) are treated one by one, channels (C) together.</p>",
        )
        self._words = words or {}
        self._offered: tuple[object, ...] = ()

    def offer(self, layer: Image | None, choices: Sequence[str]) -> None:
        """Offer what a layer's axes may be, the likeliest first."""
        offered = (id(layer), *choices)
        if offered != self._offered:
            self._offered = offered
            self.choices = [(self._words.get(axes, axes), axes) for axes in choices]
            if choices:
                self.value = choices[0]


class ImageRows:
    """The rows that choose an image layer and say what it is taken for.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    form : Form
        Gets the rows.
    """

    def __init__(self, viewer: napari.viewer.Viewer, form: Form) -> None:
        self._viewer = viewer
        self.box = layer_box(viewer, Image, "image", "Image", "The image layer.")
        self.axes = AxesBox(_WORDS)
        self.info = _Lines()
        form.add_widget(self.box)
        form.add_widget(self.axes)
        form.add_row("", self.info)
        active = viewer.layers.selection.active
        if isinstance(active, Image):
            self.box.value = active
        self.box.changed.connect(self.refresh)
        self.axes.changed.connect(self._describe)
        self.refresh()

    @property
    def layer(self) -> Image:
        """The chosen layer.

        Raises
        ------
        DataError
            If there is none.
        """
        layer = self.box.value
        if layer is None or layer not in self._viewer.layers:
            raise DataError("No image layer is chosen. Open an image, then choose it under Image.")
        return layer

    def snapshot(self) -> Snapshot:
        """Read the chosen layer with the chosen axes.

        Raises
        ------
        DataError
            If there is no layer, or it cannot be an image.
        """
        self.refresh()
        return read_image(self.layer, self.axes.value)

    def refresh(self) -> None:
        """Follow the chosen layer; a choice of axes stays while the layer's shape does."""
        try:
            self.axes.offer(self.layer, axes_choices(self.layer))
        except DataError as error:
            self.axes.offer(None, ())
            self.info.setText(str(error))
            return
        self._describe()

    def _describe(self) -> None:
        if self.axes.value is None:
            return
        try:
            self.info.setText(describe(read_image(self.layer, self.axes.value)))
        except DataError as error:
            self.info.setText(str(error))
