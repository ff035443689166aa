"""The Segment dock: from a model and an image to a layer of labels."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Shapes
from qtpy.QtWidgets import QPushButton

from napari_unet.config import PredictConfig
from napari_unet.data.instances import Window
from napari_unet.errors import DataError
from napari_unet.events import Event, PredictStarted, Report, TileDone
from napari_unet.gui.background import Background
from napari_unet.gui.dock import Column, ImageRows, follow_layers, layer_box, workers_of
from napari_unet.gui.form import Form, advanced
from napari_unet.gui.label_rows import LabelRows
from napari_unet.gui.layers import level0, placement, shape_window, visible_window
from napari_unet.gui.model_rows import ModelRows
from napari_unet.gui.regions import RegionRow
from napari_unet.gui.requests import PredictRequest
from napari_unet.gui.result_rows import ResultRows
from napari_unet.gui.results import LiveLayers, Results
from napari_unet.gui.run_panel import RunPanel, Work
from napari_unet.gui.snapshot import Snapshot, runs_home
from napari_unet.jobs import PredictJob
from napari_unet.spec import ModelSpec
from napari_unet.words import count

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["SegmentDock", "find_segment_dock", "offer_model"]

_REGIONS = [("Whole image or stack", "all"), ("Visible slice", "slice"), ("Shape drawn", "shape")]
_ADVANCED = ("normalize", "pixel_size", "halo", "tile_megapixels", "precision", "probability_type")
_ESTIMATE = "Say how much memory and time this takes. Nothing is written."


_Grey = tuple[np.ndarray, str, dict[str, Any]]
"""Pixels, name and place of a grey copy."""

_NAME = "Segment (U-Net)"
"""What napari calls the dock where it is opened by the menu, which then finds this one and opens no second."""


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
        viewer.window.add_dock_widget(dock, name=_NAME, area="right", tabify=True)
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
        self.estimate_button = self.panel.add_button("Estimate", _ESTIMATE, self._read_estimate)
        self._add_rows()
        self.label_rows = LabelRows(lambda: self.panel.begin(self._read_again))
        self.more.add_fields(PredictConfig, _ADVANCED, unset="Automatic")
        self.regions = RegionRow(napari_viewer)
        self._live = LiveLayers(napari_viewer, self)
        self._new: Results | None = None
        self._unfinished: Results | None = None
        self._scratch: TemporaryDirectory[str] | None = None
        self.panel.started.connect(self._on_start)
        self.panel.happened.connect(self._on_event)
        self.panel.ended.connect(self._on_end)
        self.fill(
            self.panel,
            self.form,
            self.grey_button,
            self.label_rows.section,
            advanced("Advanced", self.more),
            self.panel.top,
            self.regions,
        )
        for box in (self.model.box, self.image.box, self.image.axes):
            box.changed.connect(self._refresh)
        self.reset_choices()

    def _add_rows(self) -> None:
        self.model = ModelRows(self.form, self.panel.messages.error)
        self.image = ImageRows(self._viewer, self.form)
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
        self.results = ResultRows(self.form)
        self.grey_button = QPushButton("Convert the image to grey")
        self.grey_button.clicked.connect(self._convert_to_grey)
        self._grey = Background(self)
        self._grey.done.connect(self._add_grey)
        self._grey.failed.connect(self.panel.messages.error)
        self._grey.failed.connect(lambda *_: self.grey_button.setEnabled(True))

    def choose_model(self, path: Path) -> None:
        """Offer a model, select it and show its card."""
        self.model.choose(path)
        self._refresh()

    def reset_choices(self, event: Any = None) -> None:
        """Follow the viewer's layers; napari calls this when layers come, go or change their name."""
        follow_layers(self.image.box)
        follow_layers(self.shapes)
        self.image.refresh()
        self.regions.refresh()
        self._refresh()

    def _refresh(self) -> None:
        """Show what applies to the model and the image that are chosen."""
        card, layer = self.model.card, self.image.box.value
        self.results.show_for(card)
        self.label_rows.show_for(card, self.model.box.value, self.image.axes.value or "")
        self.grey_button.setVisible(
            layer is not None and bool(layer.rgb) and card is not None and card.network.channels == 1
        )

    def _read(self) -> Work:
        """Freeze what the dock shows; nothing after this sees a widget."""
        request, card = self._request(), self.model.card
        assert card is not None  # `_request` has looked
        self._new = Results(self._viewer, self.image.layer, request.image, card, request.window)
        return request.prepare

    def _read_estimate(self) -> Work:
        request = self._request()
        self._scratch = TemporaryDirectory(prefix="napari-unet-")
        return partial(request.estimate, Path(self._scratch.name))

    def _read_again(self) -> Work:
        return self.label_rows.request(self._config()).prepare

    def _request(self) -> PredictRequest:
        model, card = self.model.path, self.model.card
        image, layer = self.image.snapshot(), self.image.layer
        kinds = self.results.kinds()
        assert card is not None  # `path` has looked
        _check_channels(image, card)
        return PredictRequest(
            image=image,
            model=model,
            window=self._window(layer, image),
            kinds=kinds,
            config=self._config(),
            home=runs_home(),
        )

    def _config(self) -> PredictConfig:
        above = {**self.form.values(), **self.label_rows.form.values()}
        return self.more.read(
            PredictConfig, **{name: above[name] for name in PredictConfig.model_fields if name in above}
        )

    def _window(self, layer: Image, image: Snapshot) -> Window | None:
        match self.region.value:
            case "slice":
                return visible_window(layer, image, self._viewer.dims)
            case "shape":
                if self.shapes.value is None:
                    raise DataError(
                        "No shapes layer is chosen. Add a shapes layer and draw a rectangle around what to segment."
                    )
                return shape_window(layer, image, self.shapes.value, self._viewer.dims)
        return None

    def _on_start(self) -> None:
        self.label_rows.refresh(running=True)

    def _on_event(self, event: Event) -> None:
        match event:
            case PredictStarted(outputs, done, total, device):
                self.panel.progress.show_step(done, total, "Tile", float("nan"))
                if self._new is not None and self._new.empty:
                    self.panel.messages.say(f"Segmenting on {device}.")
                    self._live.follow(self._new.begin(outputs, self._unfinished))
                    if self._new.hidden:
                        self.panel.messages.warn(_too_large(self._new.name, outputs))
            case TileDone():
                self._live.touch()

    def _on_end(self, report: Report | None) -> None:
        self._live.finish()
        new, self._new = self._new, None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
        done = report is not None and not report.stopped
        if new is not None and not new.empty:
            self._unfinished = None if done else new
        if report is not None and done:
            self._show_report(report, new)
        self.label_rows.refresh(running=False)

    def _show_report(self, report: Report, new: Results | None) -> None:
        job = self.panel.job
        assert isinstance(job, PredictJob)
        if job.given == "probabilities":
            self.label_rows.show(report)
        elif new is not None:
            self.label_rows.keep(job, new)
            if "regions" in report.outputs and (layer := new.add_regions(report.outputs["regions"])):
                self.regions.follow(layer)

    def _show_shapes(self) -> None:
        self.form.show_row(self.shapes.native, self.region.value == "shape")

    def _convert_to_grey(self) -> None:
        """Add a grey copy of an RGB layer; the weights are those of ITU-R BT.601."""
        layer, axes = self.image.layer, self.image.axes.value
        pixels, name = level0(layer), f"{layer.name} grey"
        place = placement(layer, axes, axes.replace("S", ""))

        def work(say: Callable[[str], None], stop: Callable[[], bool]) -> _Grey:
            grey = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
            return np.asarray(grey).astype(pixels.dtype), name, place

        self.grey_button.setEnabled(False)
        self._grey.start(work)

    def _add_grey(self, found: "_Grey") -> None:
        grey, name, place = found
        self.image.box.value = self._viewer.add_image(grey, name=name, **place)
        self.grey_button.setEnabled(True)


def _too_large(name: str, outputs: Mapping[str, str]) -> str:
    place = Path(next(iter(outputs.values()))).parent
    return (
        f"Image {name!r} is too large for its result to be shown as a layer, which would stop the viewer while it reads: "
        f"it is written to {place}. To see a part here, draw a shape around it and segment that."
    )


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
