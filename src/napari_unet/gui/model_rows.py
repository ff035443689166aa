"""The rows that choose a model and show its card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QFileDialog, QLabel

from napari_unet.errors import DataError, FileError
from napari_unet.files.model import read_card
from napari_unet.gui.form import Form
from napari_unet.gui.snapshot import runs_home
from napari_unet.spec import ModelSpec
from napari_unet.words import count, some

__all__ = ["ModelRows", "card_sentence"]

_REMEMBERED = 20


def card_sentence(card: ModelSpec) -> str:
    """Say what a model is: classes or objects, channels, pixel size, quality.

    Parameters
    ----------
    card : ModelSpec
        From `read_card`.
    """
    names = [
        info.name or ("background" if i == 0 else f"value {info.value}")
        for i, info in enumerate(card.classes)
    ]
    channels = "RGB" if card.axes == "YXS" else count(card.network.channels, "channel")
    size = "pixel size not known"
    if card.pixel_size is not None:
        y, x = card.pixel_size
        size = (
            f"pixels of {x:.4g} x {y:.4g} {card.unit}"
            if abs(x - y) > 1e-6 * x
            else f"pixels of {x:.4g} {card.unit}"
        )
    score = card.training.score
    quality = "quality not measured" if score is None else f"mean Dice {score:.2f} on held-out paint"
    if card.training.ap50 is not None:
        quality = f"AP {card.training.ap50:.2f} at IoU 0.5 on held-out paint"
    what = "Objects" if card.target == "objects" else f"{count(len(names), 'class')}: {some(names, 6)}"
    return f"{what}. {channels}, {size}. {count(card.network.filters, 'filter')}; {quality}."


class ModelRows:
    """A list of models, newest first, a file dialog and the card of the chosen one.

    Parameters
    ----------
    form : Form
        Gets the rows.
    refuse : callable
        Is given the sentence when a file cannot be used.
    """

    def __init__(self, form: Form, refuse: Callable[[str], None]) -> None:
        self._refuse = refuse
        self._offered: list[Path] = []
        self.box = ComboBox(choices=self._choices, name="model", label="Model", nullable=False)
        self.box.native.setMinimumContentsLength(8)
        tooltip = "<p>A .unet file: from a training here, or chosen with the button.</p>"
        form.add_browse_row("Model", self.box.native, self._browse, tooltip)
        self.info = QLabel()
        self.info.setWordWrap(True)
        form.add_row("", self.info)
        self.card: ModelSpec | None = None
        self.box.changed.connect(self._show_card)
        self._show_card()

    @property
    def path(self) -> Path:
        """The chosen model file.

        Raises
        ------
        DataError
            If there is none, or it cannot be used.
        """
        if self.box.value is None:
            raise DataError("No model is chosen. Train one in the Train dock, or open a .unet file.")
        if self.card is None:
            raise DataError(self.info.text())
        return Path(self.box.value)

    def choose(self, path: Path) -> None:
        """Offer a model and select it; say so if it cannot be read."""
        path = path.absolute()
        try:
            read_card(path)
        except FileError as error:
            self._refuse(str(error))
            return
        if path in self._offered:
            self._offered.remove(path)
        self._offered.insert(0, path)
        self.box.reset_choices()
        self.box.value = path
        self._show_card()

    def _choices(self, _widget: object) -> list[tuple[str, Path]]:
        paths = dict.fromkeys([*self._offered, *_models_in(runs_home())])
        often = Counter(map(_label, paths))
        # Of two items with one text only one could be chosen.
        return [
            (_label(path) if often[_label(path)] == 1 else f"{_label(path)} in {path.parent}", path)
            for path in paths
        ]

    def _show_card(self) -> None:
        self.card = None
        if self.box.value is None:
            self.info.setText("No model yet: train one, or open a .unet file.")
            return
        try:
            self.card = read_card(self.box.value)
            self.info.setText(card_sentence(self.card))
        except FileError as error:
            self.info.setText(str(error))
        self.box.native.setToolTip(f"<p>{self.box.value}</p>")

    def _browse(self) -> None:
        start = str(Path(self.box.value).parent if self.box.value else runs_home())
        path, _ = QFileDialog.getOpenFileName(self.box.native, "Open a model", start, "U-Net models (*.unet)")
        if path:
            self.choose(Path(path))


def _label(path: Path) -> str:
    return path.parent.name if path.name == "model.unet" else path.stem


def _models_in(home: Path) -> list[Path]:
    """Return the newest models of the runs folder; run folders begin with their date."""
    if not home.is_dir():
        return []
    runs = sorted(
        (folder for folder in home.iterdir() if folder.is_dir()), key=lambda folder: folder.name, reverse=True
    )
    models = (folder / "model.unet" for folder in runs)
    return [path.absolute() for path in models if path.is_file()][:_REMEMBERED]
