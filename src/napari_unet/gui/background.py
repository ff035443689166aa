"""A short-lived thread for file work that the viewer must not wait for."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_unet.errors import NapariUNetError
from napari_unet.gui.snapshot import Stopped

__all__ = ["Background"]


class Background(QObject):
    """Runs one function at a time beside the viewer and reports in the main thread.

    The function may not touch layers or widgets.

    Attributes
    ----------
    done : Signal(object)
        What the function returned.
    said : Signal(str)
        A sentence the function passed to its `say`.
    failed : Signal(str, str)
        One sentence and, for errors that are not ours, the traceback.
    stopped : Signal()
        The function gave up because `stop` was called.
    """

    done = Signal(object)
    said = Signal(str)
    failed = Signal(str, str)
    stopped = Signal()
    _returned = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._returned.connect(self._on_return)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[..., Any]) -> None:
        """Call ``work(say, stop)`` in a thread; `stop()` is True once somebody wants it to end."""
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(work, self._stop), name="napari-unet", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask the function to end soon."""
        self._stop.set()

    def _run(self, work: Callable[..., Any], stop: threading.Event) -> None:
        try:
            result = work(self._say, stop.is_set)
        except Stopped:
            self._emit(self.stopped)
        except NapariUNetError as error:
            self._emit(self.failed, str(error), "")
        except Exception as error:  # noqa: BLE001 - a layer may be backed by anyone's array, which may raise anything
            sentence = f"An unexpected {type(error).__name__} while reading the layers: {error}."
            self._emit(self.failed, sentence, traceback.format_exc())
        else:
            self._emit(self._returned, result)

    def _on_return(self, result: object) -> None:
        # Stop may come too late for the work to notice, and before anyone heard of its end; what the user pressed still holds.
        self.stopped.emit() if self._stop.is_set() else self.done.emit(result)

    def _say(self, sentence: str) -> None:
        self._emit(self.said, sentence)

    @staticmethod
    def _emit(signal: Any, *values: Any) -> None:
        with suppress(RuntimeError):  # the dock is gone; nobody waits for the answer
            signal.emit(*values)
