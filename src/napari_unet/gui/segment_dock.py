"""The Segment dock: from a model and an image to a layer of labels."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import napari
import numpy as np
from magicgui.widgets import CheckBox, ComboBox
from napari.layers import Image, Shapes
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_unet.config import PredictConfig
from napari_unet.errors import DataError
from napari_unet.events import Event, PredictStarted, Report, TileDone
from napari_unet.files.zarr import watch_result
from napari_unet.gui.background import Background
from napari_unet.gui.dock import Column, ImageRows, layer_box, workers_of
from napari_unet.gui.form import Form, advanced
from napari_unet.gui.layers import Window, level0, placement, shape_window, visible_window
from napari_unet.gui.model_rows import ModelRows
from napari_unet.gui.requests import PredictRequest
from napari_unet.gui.results import LiveLayers, labels_layer, probabilities_layer
from napari_unet.gui.run_panel import RunPanel, Work
from napari_unet.gui.snapshot import Snapshot, runs_home
from napari_unet.spec import ModelSpec
from napari_unet.words import count

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["SegmentDock", "find_segment_dock", "offer_model"]

_REGIONS = [("Whole image or stack", "all"), ("Visible slice", "slice"), ("Shape drawn", "shape")]


def offer_model(path: str | Path) -> None:
    """Select a model in the Segment dock of the current viewer, which is opened if need be.

    Parameters
    ----------
    path : str or Path
        A ``.unet`` file. If it cannot be read, the dock says why.
    """
    viewer = napari.current_viewer()
    if viewer is None:
        return
    dock = find_segment_dock(viewer)
    if dock is None:
        dock = SegmentDock(viewer)
        viewer.window.add_dock_widget(dock, name="Segment (U-Net)", area="right", tabify=True)
    dock.choose_model(Path(path))


def find_segment_dock(viewer: "napari.viewer.Viewer") -> "SegmentDock | None":
    """Return the viewer's Segment dock, if it is open."""
    docks = viewer.window.dock_widgets.values()
    return next((dock for dock in docks if isinstance(dock, SegmentDock)), None)


class SegmentDock(Column):
    """Applies a model to an image layer.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer whose layers are offered and which gets the results.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        workers = workers_of(napari_viewer)
        super().__init__(workers)
        self._viewer = napari_viewer
        self.form, self.more = Form(), Form()
        self.panel = RunPanel(workers, "segmentation", self._read)
        self._add_rows()
        self.more.add_fields(PredictConfig, PredictConfig.model_fields, unset="Automatic")
        self._show: Callable[[PredictStarted], None] | None = None
        self._live = LiveLayers(napari_viewer, self)
        self.panel.happened.connect(self._on_event)
        self.panel.ended.connect(self._on_end)
        self.fill(self.panel, self.form, self.grey_button, advanced("Advanced", self.more), self.panel.top)
        self.reset_choices()

    def _add_rows(self) -> None:
        self.model = ModelRows(self.form, self.panel.messages.error)
        self.model.box.changed.connect(self._offer_grey)
        self.image = ImageRows(self._viewer, self.form)
        self.image.box.changed.connect(self._offer_grey)
        self.region = ComboBox(
            choices=_REGIONS, name="region", label="Region", tooltip="<p>What to segment.</p>"
        )
        self.form.add_widget(self.region)
        self.shapes = layer_box(
            self._viewer,
            Shapes,
            "shapes",
            "Drawn in",
            "The box around the selected shapes, or around all, is segmented.",
        )
        self.form.add_widget(self.shapes)
        self.region.changed.connect(self._show_shapes)
        self._show_shapes()
        self.labels, self.probabilities = CheckBox(text="labels", value=True), CheckBox(text="probabilities")
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.labels.native)
        layout.addWidget(self.probabilities.native)
        self.form.add_row(
            "Result", row, "<p>The class (or object) of each pixel, how sure the network is, or both.</p>"
        )
        self.grey_button = QPushButton("Convert the image to grey")
        self.grey_button.clicked.connect(self._convert_to_grey)
        self._grey = Background(self)
        self._grey.failed.connect(self.panel.messages.error)

    def choose_model(self, path: Path) -> None:
        """Offer a model, select it and show its card."""
        self.model.choose(path)
        self._offer_grey()

    def reset_choices(self, event: Any = None) -> None:
        """Follow the viewer's layers; napari calls this when layers come, go or change their name."""
        self.image.box.reset_choices()
        self.shapes.reset_choices()
        self.image.refresh()
        self._offer_grey()

    def _read(self) -> Work:
        """Freeze what the dock shows; nothing after this sees a widget."""
        model, card = self.model.path, self.model.card
        image, layer = self.image.snapshot(), self.image.layer
        kinds = self._kinds()
        assert card is not None  # `path` has looked
        _check_channels(image, card)
        request = PredictRequest(
            image=image,
            model=model,
            window=self._window(layer, image),
            kinds=kinds,
            config=self.more.read(PredictConfig),
            home=runs_home(),
        )
        self._show = _shower(self._viewer, self._live, layer, image, card)
        return request.prepare

    def _kinds(self) -> tuple[Literal["labels", "probabilities"], ...]:
        kinds: list[Literal["labels", "probabilities"]] = []
        if self.labels.value:
            kinds.append("labels")
        if self.probabilities.value:
            kinds.append("probabilities")
        if not kinds:
            raise DataError("No result is asked for. Tick labels, probabilities or both.")
        return tuple(kinds)

    def _window(self, layer: Image, image: Snapshot) -> Window | None:
        match self.region.value:
            case "slice":
                return visible_window(layer, image, self._viewer.dims)
            case "shape":
                if self.shapes.value is None:
                    raise DataError(
                        "No shapes layer is chosen. Add a shapes layer and draw a rectangle around what to segment."
                    )
                return shape_window(layer, image, self.shapes.value)
        return None

    def _on_event(self, event: Event) -> None:
        match event:
            case PredictStarted(_, done, total, device):
                self.panel.messages.say(f"Segmenting on {device}.")
                self.panel.progress.show_step(done, total, "Tile", float("nan"))
                if self._show is not None:
                    self._show(event)
            case TileDone():
                self._live.touch()

    def _on_end(self, report: Report | None) -> None:
        self._live.finish()
        self._show = None

    def _show_shapes(self) -> None:
        self.form.show_row(self.shapes.native, self.region.value == "shape")

    def _offer_grey(self) -> None:
        layer, card = self.image.box.value, self.model.card
        self.grey_button.setVisible(
            layer is not None and bool(layer.rgb) and card is not None and card.network.channels == 1
        )

    def _convert_to_grey(self) -> None:
        """Add a grey copy of an RGB layer; the weights are those of ITU-R BT.601."""
        layer = self.image.layer
        pixels, name, viewer = level0(layer), f"{layer.name} grey", self._viewer
        axes = self.image.axes.value
        place = placement(layer, axes, axes.replace("S", ""))

        def work(say: Callable[[str], None], stop: Callable[[], bool]) -> np.ndarray:
            return np.asarray(pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)).astype(
                pixels.dtype
            )

        def show(grey: np.ndarray) -> None:
            self._grey.done.disconnect(show)
            self.image.box.value = viewer.add_image(grey, name=name, **place)

        self._grey.done.connect(show)
        self._grey.start(work)


def _check_channels(image: Snapshot, card: ModelSpec) -> None:
    found, wanted = image.stack.shape[3], card.network.channels
    if found == wanted:
        return
    way_out = "choose an image like those it was trained on, or correct its axes"
    if wanted == 1 and "S" in image.stack.axes:
        way_out = 'press "Convert the image to grey"'
    raise DataError(
        f"Model {card.name!r} was trained on images of {count(wanted, 'channel')}, but image {image.stack.name!r} "
        f"has {found}: {way_out}."
    )


def _shower(
    viewer: "napari.viewer.Viewer", live: LiveLayers, layer: Image, image: Snapshot, card: ModelSpec
) -> Callable[[PredictStarted], None]:
    """Return what adds the result layers once their files exist; the source may be gone by then."""
    axes, out_axes, name = image.stack.axes, image.stack.out_axes, image.stack.name
    flat = placement(layer, axes, out_axes)
    deep = placement(layer, axes, out_axes, classes=True)

    def show(event: PredictStarted) -> None:
        layers: list[Any] = []
        for kind, path in event.outputs.items():
            array = watch_result(path)
            if kind == "labels":
                layers.append(labels_layer(array, card, f"{name} segmented", flat))
            else:
                place = deep if array.ndim > len(out_axes) else flat
                layers.append(probabilities_layer(array, f"{name} probability", place))
        live.follow([viewer.add_layer(each) for each in layers])

    return show
