"""How labels are made of probabilities, and a button that makes those of the last result anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QPushButton

from napari_unet.config import OBJECT_FIELDS, PredictConfig
from napari_unet.errors import DataError
from napari_unet.events import Report
from napari_unet.gui.form import Form, advanced
from napari_unet.gui.requests import RelabelRequest
from napari_unet.gui.results import Results
from napari_unet.jobs import PredictJob
from napari_unet.spec import ModelSpec

__all__ = ["LABEL_FIELDS", "LabelRows"]

LABEL_FIELDS = ("threshold", *OBJECT_FIELDS, "link_slices")
"""Settings that act on probabilities, after the network."""

_TICK = (
    "Tick probabilities and segment: then labels can be made anew from them in moments, without the network."
)
_OTHER = "The last probabilities are of another model. Choose that one again, or segment with this one."


class LabelRows:
    """A folded section of the settings that act on probabilities.

    Parameters
    ----------
    begin : callable
        Is called when the button is pressed.

    Attributes
    ----------
    section : QCollapsible
        For the dock.
    results : Results or None
        The layers of the last run that has left probabilities.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self.form = Form()
        self.form.add_fields(PredictConfig, LABEL_FIELDS, unset="Model's own")
        self.button = QPushButton("Apply to the result")
        self.button.clicked.connect(begin)
        self.form.add_row("", self.button)
        self.section = advanced("Threshold", self.form)
        self.results: Results | None = None
        self._run: PredictJob | None = None
        self._model: Path | None = None
        self._running = False

    def show_for(self, card: ModelSpec | None, model: Path | None, axes: str) -> None:
        """Show what applies to a model, and to an image of some axes."""
        self._model = model
        objects = card is not None and card.objects is not None
        self.section.setText("Objects" if objects else "Threshold")
        for name in OBJECT_FIELDS:
            self.form.show_field(name, objects)
        self.form.show_field("link_slices", objects and "Z" in axes)
        if card is not None:
            self.form.show_unset(_own(card))
        # Of several classes the likeliest counts: there is nothing to set.
        self.section.setVisible(card is None or objects or card.network.logits == 1)
        self.refresh()

    def keep(self, run: PredictJob, results: Results) -> None:
        """Remember a run that is done, or that it has left no probabilities."""
        stored = any(output.kind == "probabilities" for output in run.outputs)
        self._run, self.results = (run, results) if stored else (None, None)

    def refresh(self, running: bool | None = None) -> None:
        """Say whether the button can do anything, and what."""
        self._running = self._running if running is None else running
        fits = self._run is not None and self._run.model == str(self._model)
        self.button.setEnabled(fits and not self._running)
        words = _TICK if self._run is None or self.results is None else _OTHER
        if fits and self.results is not None:
            words = f"Make the labels of {self.results.name!r} anew from its probabilities; the network does not run."
        self.button.setToolTip(f"<p>{words}</p>")

    def request(self, config: PredictConfig) -> RelabelRequest:
        """Return what is to be made anew.

        Raises
        ------
        DataError
            If there are no probabilities.
        """
        if self._run is None or self.results is None:
            raise DataError(_TICK)
        return RelabelRequest(self._run, self.results.name, config)

    def show(self, report: Report) -> None:
        """Show labels that were made anew."""
        if self.results is not None:
            self.results.put_labels(report.outputs["labels"])


def _own(card: ModelSpec) -> dict[str, float]:
    """Return a model's own settings."""
    if card.objects is None:
        return {"threshold": card.threshold}
    own = {name: getattr(card.objects, name) for name in OBJECT_FIELDS}
    return {"threshold": card.objects.foreground_threshold, **own}
