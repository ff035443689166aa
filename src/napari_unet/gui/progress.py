"""What a run says to the person who waits: a bar, the time left, and plain sentences."""

from __future__ import annotations

from html import escape
from pathlib import Path

from qtpy.QtCore import QSize, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QGuiApplication, QTextCursor
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_unet.words import time_left

__all__ = ["REDRAW_MS", "Messages", "Progress"]

REDRAW_MS = 250
"""Milliseconds between two pictures of a run under way.

Each change of a widget composes napari's whole window anew, so what steps change is drawn together.
"""

_COLORS = {"error": "#e5484d", "warning": "#d98a00", "link": "#4c9be8"}
"""Readable on napari's dark and on its light background."""


class Progress(QWidget):
    """A progress bar with a line of words above it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = QLabel("Nothing runs.")
        self.words.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(10)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.words)
        layout.addWidget(self.bar)
        self._step = (0, 1, "Step", float("nan"))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self._draw_step)
        self.rest()

    def rest(self, words: str = "Nothing runs.", *, full: bool = False) -> None:
        """Show that nothing is under way; with `full`, that it came to its end."""
        self._timer.stop()
        self.bar.setRange(0, 1)
        self.bar.setValue(int(full))
        self.words.setText(words)

    def wait(self, words: str) -> None:
        """Show that something is under way whose end cannot be told."""
        self._timer.stop()
        self.bar.setRange(0, 0)
        self.words.setText(words)

    def show_step(self, done: int, total: int, noun: str, seconds_left: float) -> None:
        """Show how far a run is, within `REDRAW_MS`.

        Parameters
        ----------
        done, total : int
            Steps or tiles.
        noun : str
            What is counted, e.g. ``"Step"``.
        seconds_left : float
            Estimate; NaN where nothing is known.
        """
        self._step = done, total, noun, seconds_left
        if not self._timer.isActive():
            self._timer.start()

    def _draw_step(self) -> None:
        done, total, noun, seconds_left = self._step
        # Thousandths, because Qt's bar holds 32-bit numbers.
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * done / max(total, 1)))
        self.words.setText(f"{noun} {done:,} of {total:,} · {time_left(seconds_left)}")


class _Sentences(QTextBrowser):
    """Takes the room that is left in a dock, and asks for little."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(96)

    def sizeHint(self) -> QSize:
        # A column of wrapped words is as high as its parts wish, not as they need: a wish for more would have the
        # last sentences below the edge of a dock that could show all.
        return QSize(super().sizeHint().width(), self.minimumHeight())


class Messages(QWidget):
    """Sentences, newest last and always in view; errors with their details to copy."""

    def __init__(self) -> None:
        super().__init__()
        self._text = _Sentences()
        self._text.setOpenLinks(False)
        self._text.anchorClicked.connect(_open_folder)
        self._text.document().setMaximumBlockCount(500)
        self._details = ""
        self.copy_button = QPushButton("Copy details")
        self.copy_button.setToolTip(
            "<p>Copy the error and the last lines of the worker's log, for a bug report.</p>"
        )
        self.copy_button.clicked.connect(self.copy_details)
        self.copy_button.hide()
        row = QHBoxLayout()
        row.addStretch()
        row.addWidget(self.copy_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self._text, 1)
        layout.addLayout(row)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    @property
    def text(self) -> str:
        """All sentences, one a line."""
        return self._text.toPlainText()

    @property
    def details(self) -> str:
        """What "Copy details" copies; empty if there was no error."""
        return self._details

    def say(self, sentence: str, path: str | Path | None = None) -> None:
        """Add a sentence, with a path after it that opens its folder."""
        self._add(sentence, path=path)

    def warn(self, sentence: str) -> None:
        """Add a sentence that the user should not miss."""
        self._add(sentence, "warning")

    def error(self, sentence: str, details: str = "") -> None:
        """Add the sentence of an error.

        Parameters
        ----------
        sentence : str
            What went wrong and the way out.
        details : str
            Traceback and log; with them the button "Copy details" appears.
        """
        self._add(sentence, "error")
        self._details = f"{sentence}\n\n{details}" if details else ""
        self.copy_button.setVisible(bool(details))

    def copy_details(self) -> None:
        """Put the details of the last error on the clipboard."""
        QGuiApplication.clipboard().setText(self._details)

    def forget_details(self) -> None:
        """Hide the details of an error that a new run has made old."""
        self._details = ""
        self.copy_button.hide()

    def _add(self, sentence: str, kind: str = "", path: str | Path | None = None) -> None:
        html = escape(sentence)
        if path is not None:
            address = QUrl.fromLocalFile(str(path)).toString()
            html += f' <a href="{address}" style="color:{_COLORS["link"]}">{escape(str(path))}</a>'
        style = f' style="color:{_COLORS[kind]}; font-weight:600"' if kind else ""
        self._text.append(f"<span{style}>{html}</span>")
        self._text.moveCursor(QTextCursor.MoveOperation.End)
        self._text.ensureCursorVisible()


def _open_folder(url: QUrl) -> None:
    path = Path(url.toLocalFile())
    QDesktopServices.openUrl(
        QUrl.fromLocalFile(str(path if path.is_dir() and path.suffix.lower() != ".zarr" else path.parent))
    )
