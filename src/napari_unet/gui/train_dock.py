"""The Train dock: from painted labels to a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, LineEdit
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_unet.config import TrainConfig, UNetPreset
from napari_unet.errors import ConfigError
from napari_unet.events import Event, Report, StepDone, TrainStarted, Validated
from napari_unet.gui.dock import Column, workers_of
from napari_unet.gui.form import Form, advanced, field_widget
from napari_unet.gui.label_check import LabelCheckRow
from napari_unet.gui.layers import mismatch
from napari_unet.gui.network_rows import NetworkRows
from napari_unet.gui.pair_rows import PairRows
from napari_unet.gui.plot import TrainingPlot
from napari_unet.gui.requests import TrainRequest
from napari_unet.gui.run_panel import RunPanel, Work
from napari_unet.gui.snapshot import runs_home
from napari_unet.gui.variation_rows import VariationRows
from napari_unet.jobs import TrainJob

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["TrainDock"]

_AUTOMATIC = "automatic"
_PRESETS: dict[UNetPreset, str] = {
    "quick": "quick: 16 filters",
    "quick-norm": "quick-norm: 16 filters, normalised",
    "article": "article: 64 filters",
    "linked-code": "linked-code: 64 filters",
}
_ADVANCED = (
    "patch",
    "batch",
    "learning_rate",
    "warmup",
    "border_weight",
    "validation",
    "patience",
    "seed",
    "precision",
    "checkpoint_seconds",
)


class TrainDock(Column):
    """Trains a U-Net on image layers and what was painted on them.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer whose layers are offered.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        workers = workers_of(napari_viewer)
        super().__init__(workers)
        self._viewer = napari_viewer
        self.form, self.more = Form(), Form()
        self._add_rows()
        self.more.add_fields(TrainConfig, _ADVANCED)
        self.variation.add_strengths(self.more)
        self.options = NetworkRows(self.more)
        self.more.add_fields(TrainJob, ["not_finite"])
        self.more.add_fields(TrainJob, ["pixel_size"], unset="As it is")
        self._add_start()
        self.plot = TrainingPlot()
        self.plot.hide()  # until there are curves: the room is for the messages
        self.panel = RunPanel(workers, "training", self._read)
        self.panel.started.connect(self.plot.clear)
        self.panel.started.connect(self.plot.show)
        self.panel.happened.connect(self._on_event)
        self.panel.ended.connect(self._on_end)
        self.segment_button = QPushButton("Segment with this model")
        self.segment_button.clicked.connect(self._offer)
        self.segment_button.hide()
        self.model_path: Path | None = None
        self.check = LabelCheckRow(self._request, self.panel.messages)
        self.check.told.connect(self.show_messages)
        self.fill(
            self.panel,
            self.pairs,
            self.form,
            self.check,
            advanced("Advanced", self.more),
            self.panel.top,
            self.segment_button,
            self.plot,
        )
        self.reset_choices()

    def _add_rows(self) -> None:
        self.pairs = PairRows(self._viewer)
        self.image, self.labels = self.pairs.image, self.pairs.labels
        self.form.add_fields(TrainJob, ["unpainted"])
        self.background = field_widget(TrainJob, "background_value")
        self.background.value = 1
        self.form.add_widget(self.background)
        self.form.add_fields(TrainJob, ["target"])
        self.form["unpainted"].changed.connect(self._show_background)
        self._show_background()
        self.preset = ComboBox(
            choices=[
                (_AUTOMATIC, _AUTOMATIC),
                *((label, name) for name, label in _PRESETS.items()),
            ],
            name="preset",
            label="Network",
            tooltip="<p>automatic: that of the model to start from, or the one that suits this computer. quick computes 16 times less a step; quick-norm adds batch normalisation; article is the published U-Net; "
            "linked-code is the program that the article links to.</p>",
        )
        self.form.add_widget(self.preset)
        self.variation = VariationRows(self.form)
        self._add_length()
        self.form.add_fields(TrainJob, ["name"])
        self._add_home()

    def _add_length(self) -> None:
        """Minutes or steps, one at a time."""
        self.minutes, self.steps = field_widget(TrainConfig, "minutes"), field_widget(TrainConfig, "steps")
        self.steps.min, self.steps.value = 1, 1000
        self.unit = ComboBox(choices=["minutes", "steps"], name="unit")
        self.unit.native.setMinimumWidth(96)
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget, share in ((self.minutes, 1), (self.steps, 1), (self.unit, 1)):
            layout.addWidget(widget.native, share)
        self.unit.changed.connect(self._show_length)
        self._show_length()
        tooltip = "<p>How long to train. Minutes become a number of steps after a short calibration; Stop ends earlier.</p>"
        self.form.add_row("Train for", row, tooltip)

    def _add_home(self) -> None:
        self.home = LineEdit(value=str(runs_home()), name="home")
        tooltip = "<p>Each run gets a folder of its own there: labels, curves, model.</p>"
        self.form.add_browse_row("Runs kept in", self.home.native, self._browse, tooltip)

    def _add_start(self) -> None:
        self.start_from = LineEdit(name="start_from")
        field = TrainJob.model_fields["start_from"]
        tooltip = f"<p>{field.description}</p>"
        self.more.add_browse_row(str(field.title), self.start_from.native, self._browse_start, tooltip)

    def reset_choices(self, event: Any = None) -> None:
        """Follow the viewer's layers; napari calls this when layers come, go or change their name."""
        self.pairs.reset_choices()

    def changeEvent(self, event: QEvent) -> None:
        """Give the curves the colours of the viewer's theme."""
        if event.type() == QEvent.Type.StyleChange and hasattr(self, "plot"):
            theme = get_theme(self._viewer.theme)
            self.plot.set_colors(theme.text.as_hex(format="long"), theme.background.as_hex(format="long"))
        super().changeEvent(event)

    def _read(self) -> Work:
        return self._request().prepare

    def _request(self) -> TrainRequest:
        """Freeze what the dock shows; nothing after this sees a layer or a widget."""
        pairs = self.pairs.read()
        if not self.form["name"].value.strip():
            raise ConfigError("The model has no name. Write one under Name.")
        ignore = self.form["unpainted"].value == "ignore"
        steps = self.steps.value if self.unit.value == "steps" else 0
        start = self.start_from.value.strip()
        request = TrainRequest(
            pairs=pairs,
            colors=self.labels.value.colormap.map,
            home=Path(self.home.value.strip() or runs_home()).expanduser(),
            network=self.options.read(None if self.preset.value == _AUTOMATIC else self.preset.value),
            train=self.more.read(
                TrainConfig, minutes=self.minutes.value, steps=steps, augmentation=self.variation.read()
            ),
            start_from=Path(start).expanduser().absolute() if start else None,
            unpainted=self.form["unpainted"].value,
            background_value=self.background.value if ignore else None,
            target=self.form["target"].value,
            not_finite=self.more["not_finite"].value,
            pixel_size=self.more.values()["pixel_size"],
            name=self.form["name"].value.strip(),
        )
        for pair, (image, labels) in zip(pairs, self.pairs.layers(), strict=True):
            axes = pair.image.stack.axes, pair.labels.stack.axes
            if warning := mismatch(image, labels, axes, self._viewer.dims):
                self.panel.messages.warn(warning)
        return request

    def _on_event(self, event: Event) -> None:
        match event:
            case TrainStarted(_, step, steps, device):
                if step == 0:  # of a network that could not learn, another one is begun
                    self.plot.clear()
                begun = (
                    f"Going on from step {step:,} of {steps:,}" if step else f"Training for {steps:,} steps"
                )
                self.panel.messages.say(f"{begun} on {device}.")
                self.panel.progress.show_step(step, steps, "Step", float("nan"))
            case StepDone(step, _, loss):
                self.plot.add_loss(step, loss)
            case Validated(step, _, score, _, ap50):
                self.plot.add_score(step, score, ap50)

    def _on_end(self, report: Report | None) -> None:
        if report is not None and "model" in report.outputs:
            from napari_unet.gui.segment_dock import find_segment_dock

            self.model_path = Path(report.outputs["model"])
            dock = find_segment_dock(self._viewer)
            if dock is not None:
                dock.choose_model(self.model_path)
            self.segment_button.setVisible(dock is None)

    def _offer(self) -> None:
        from napari_unet.gui.segment_dock import offer_model

        if self.model_path is not None:
            offer_model(self.model_path)
            self.segment_button.hide()

    def _show_background(self) -> None:
        self.form.show_row(self.background.native, self.form["unpainted"].value == "ignore")

    def _show_length(self) -> None:
        self.minutes.native.setVisible(self.unit.value == "minutes")
        self.steps.native.setVisible(self.unit.value == "steps")

    def _browse_start(self) -> None:
        start = self.start_from.value or self.home.value
        path, _ = QFileDialog.getOpenFileName(self, "Start from a model", start, "U-Net models (*.unet)")
        if path:
            self.start_from.value = path

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Where runs are kept", self.home.value)
        if folder:
            self.home.value = folder
