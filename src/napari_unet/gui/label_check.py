"""Before Start: what the linter says of the labels, what training would choose, and what varied patches look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_unet.errors import NapariUNetError
from napari_unet.gui.background import Background
from napari_unet.gui.progress import Messages
from napari_unet.gui.requests import TrainRequest
from napari_unet.preview import Preview

__all__ = ["LabelCheckRow", "PictureDialog", "tell"]


class LabelCheckRow(QWidget):
    """Buttons that look at what would be trained on, without training.

    Parameters
    ----------
    read : callable
        Turns the dock into a request; called in the main thread when a button is pressed. A
        `NapariUNetError` from it is shown and nothing happens.
    messages : Messages
        Where findings are told.

    Attributes
    ----------
    told : Signal()
        What was asked for is in the messages.
    """

    told = Signal()

    def __init__(self, read: Callable[[], TrainRequest], messages: Messages) -> None:
        super().__init__()
        self._read, self._messages = read, messages
        self.dialog: PictureDialog | None = None
        self.check_button = QPushButton("Check labels")
        self.check_button.setToolTip(
            "<p>Look for what is wrong or odd in the labels before training, and what training would choose.</p>"
        )
        self.check_button.clicked.connect(lambda: self._start(lambda request: request.preview))
        self.picture_button = QPushButton("Show variation")
        self.picture_button.setToolTip("<p>Show a painted patch, and how training varies it.</p>")
        self.picture_button.clicked.connect(lambda: self._start(lambda request: request.picture))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.check_button)
        layout.addWidget(self.picture_button)
        self._background = Background(self)
        self._background.done.connect(self._on_done)
        self._background.failed.connect(self._on_failure)
        self._background.stopped.connect(lambda: self._enable(True))
        self.destroyed.connect(self._background.stop)

    def _start(self, what: Callable[[TrainRequest], Callable[..., Any]]) -> None:
        try:
            work = what(self._read())
        except NapariUNetError as error:
            self._messages.error(str(error))
            self.told.emit()
            return
        self._enable(False)
        self._background.start(work)

    def _on_done(self, result: Preview | NDArray[np.uint8]) -> None:
        self._enable(True)
        if isinstance(result, Preview):
            tell(result, self._messages)
            self.told.emit()
        else:
            self.dialog = PictureDialog(result, self)
            self.dialog.show()

    def _on_failure(self, sentence: str, details: str) -> None:
        self._enable(True)
        self._messages.error(sentence, details)
        self.told.emit()

    def _enable(self, on: bool) -> None:
        self.check_button.setEnabled(on)
        self.picture_button.setEnabled(on)


def tell(seen: Preview, messages: Messages) -> None:
    """Say what a training would begin with, what matters most last and so in view."""
    check = seen.check
    for sentence in seen.sentences:
        messages.say(sentence)
    for finding in check.of("hint"):
        messages.say(str(finding))
    if check.reason:
        messages.say(check.reason)
    for warning in seen.advice.warnings if seen.advice else ():
        messages.warn(warning)
    for finding in check.of("warning"):
        messages.warn(str(finding))
    for finding in check.of("error"):
        messages.error(str(finding))
    if not check.of("error") and not check.of("warning"):
        messages.say("Nothing in the labels looks wrong.")


class PictureDialog(QDialog):
    """A window with the picture of `napari_unet.data.augment_picture`."""

    def __init__(self, picture: NDArray[np.uint8], parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("How training varies a patch")
        height, width, _ = picture.shape
        pixels = np.ascontiguousarray(picture)
        image = QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        self.picture = QLabel()
        self.picture.setPixmap(QPixmap.fromImage(image))  # a copy: the array may go
        scroll = QScrollArea()
        scroll.setWidget(self.picture)
        words = QLabel(
            "Framed: the patch as it is, with what was painted on it. The others: as the network sees it in eight steps."
        )
        words.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(words)
        layout.addWidget(scroll, 1)
        screen = self.screen().availableSize()
        self.resize(min(width + 40, screen.width() - 80), min(height + 90, screen.height() - 80))
