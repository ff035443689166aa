"""The rows that say which results are wanted."""

from __future__ import annotations

from magicgui.widgets import CheckBox
from qtpy.QtWidgets import QGridLayout, QWidget

from napari_unet.config import PredictConfig
from napari_unet.errors import DataError
from napari_unet.gui.form import Form
from napari_unet.jobs import OutputKind
from napari_unet.spec import ModelSpec

__all__ = ["ResultRows"]

_TOOLTIPS: dict[OutputKind, str] = {
    "labels": "The class of each pixel, or the object that it belongs to.",
    "probabilities": "How sure the network is of each class. With them, labels can be made anew in moments.",
    "entropy": (
        "How unsure the network is: dark where it is sure, bright where it could as well be another class. The regions "
        "most worth a look are marked."
    ),
    "uncertainty": (
        "The same by dropout: from several answers, each with other features of the network left out. Slower; "
        "the regions most worth a look are then taken from this map."
    ),
}
_NO_DROPOUT = "This model was trained without dropout, so that it would give the same answer each time."


class ResultRows:
    """Tick boxes for the results, and how carefully they are computed.

    Parameters
    ----------
    form : Form
        Gets the rows.
    """

    def __init__(self, form: Form) -> None:
        self._form = form
        self.boxes = {
            kind: CheckBox(text=kind, value=kind == "labels", tooltip=f"<p>{tooltip}</p>")
            for kind, tooltip in _TOOLTIPS.items()
        }
        row = QWidget()
        grid = QGridLayout(row)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(0)
        for i, box in enumerate(self.boxes.values()):
            grid.addWidget(box.native, *divmod(i, 2))
        form.add_row("Result", row)
        form.add_fields(PredictConfig, ["passes", "average"])
        self.boxes["uncertainty"].changed.connect(self._show_passes)
        self._show_passes()

    def show_for(self, card: ModelSpec | None) -> None:
        """Offer what a model can do."""
        box, able = self.boxes["uncertainty"], card is None or card.network.dropout > 0
        box.enabled = able
        box.tooltip = f"<p>{_TOOLTIPS['uncertainty'] if able else _NO_DROPOUT}</p>"
        self._show_passes()

    def kinds(self) -> tuple[OutputKind, ...]:
        """Return what is ticked.

        Raises
        ------
        DataError
            If nothing is.
        """
        found = tuple(kind for kind in _TOOLTIPS if self.boxes[kind].value and self.boxes[kind].enabled)
        if not found:
            raise DataError("No result is asked for. Tick at least one under Result.")
        return found

    def _show_passes(self) -> None:
        box = self.boxes["uncertainty"]
        self._form.show_field("passes", bool(box.value and box.enabled))
