"""Start, Stop, and everything between: the part that both docks share.

Start reads the dock into a piece of work (main thread, no waiting), the work runs beside
the viewer and makes a job (files are saved, inputs checked), the job goes to a worker, and
its events come back. Whatever goes wrong on the way ends in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_unet.errors import FileError, NapariUNetError
from napari_unet.events import (
    Event,
    Failed,
    Finished,
    Noted,
    PredictStarted,
    Report,
    StepDone,
    TileDone,
    TrainStarted,
    Warned,
)
from napari_unet.files.run import RunFolder
from napari_unet.gui.background import Background
from napari_unet.gui.client import WorkerClient, Workers
from napari_unet.gui.progress import Messages, Progress
from napari_unet.jobs import PredictJob, TrainJob
from napari_unet.retries import Retries
from napari_unet.targets import forget_end
from napari_unet.words import listed

__all__ = ["GRACE_MS", "RunPanel", "Work"]

Work = Callable[..., TrainJob | PredictJob]
"""Saves and checks what a run needs and returns its job: ``work(say, stop)``. Touches no layer."""

GRACE_MS = 5000
"""How long Stop may take before "Kill now" is offered, in milliseconds."""


class _State(Enum):
    IDLE = "idle"
    PREPARING = "preparing"
    RUNNING = "running"


class RunPanel(QWidget):
    """Start and Stop, progress, messages.

    Parameters
    ----------
    workers : Workers
        Where a worker comes from.
    noun : str
        What runs, e.g. ``"training"``.
    read : callable
        Turns the dock into `Work`; called in the main thread when Start is pressed. A
        `NapariUNetError` from it is shown and nothing starts.

    Attributes
    ----------
    pressed : Signal()
        A button was pressed: work begins, or a message says why not.
    started : Signal()
        A run was accepted; its inputs are being saved.
    happened : Signal(Event)
        What the worker says.
    ended : Signal(object)
        The run is over: its `Report`, or None if it left none.
    job : TrainJob, PredictJob or None
        What was sent last.
    """

    pressed = Signal()
    started = Signal()
    happened = Signal(object)
    ended = Signal(object)

    def __init__(self, workers: Workers, noun: str, read: Callable[[], Work]) -> None:
        super().__init__()
        self._workers, self._noun, self._read = workers, noun, read
        self._state = _State.IDLE
        self._client: WorkerClient | None = None
        self.job: TrainJob | PredictJob | None = None
        self._retries: Retries | None = None
        self._begun = False
        self._background = Background(self)
        self._background.done.connect(self._on_prepared)
        self._background.failed.connect(self._on_failure)
        self._background.stopped.connect(self._on_not_begun)
        self.messages = Messages()
        self._background.said.connect(self.messages.say)
        self.progress = Progress()
        self._grace = QTimer(self)
        self._grace.setSingleShot(True)
        self._grace.setInterval(GRACE_MS)
        self._grace.timeout.connect(self._offer_kill)
        self._lay_out()

    def _lay_out(self) -> None:
        self.start_button = QPushButton(f"Start {self._noun}")
        self.start_button.clicked.connect(self.start)
        self.stop_button = QPushButton("Stop")
        self.stop_button.clicked.connect(self.stop)
        self.stop_button.setEnabled(False)
        self._buttons = [self.start_button]
        self._row = QHBoxLayout()
        self._row.addWidget(self.start_button, 2)
        self._row.addWidget(self.stop_button, 1)
        self.top = QWidget()
        top = QVBoxLayout(self.top)
        top.setContentsMargins(0, 0, 0, 0)
        top.addLayout(self._row)
        top.addWidget(self.progress)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.messages)

    @property
    def running(self) -> bool:
        """True from Start until the run is over."""
        return self._state is not _State.IDLE

    def add_button(self, label: str, tooltip: str, read: Callable[[], Work]) -> QPushButton:
        """Add a button beside Start that begins other work."""
        button = QPushButton(label)
        button.setToolTip(f"<p>{tooltip}</p>")
        button.clicked.connect(lambda: self.begin(read))
        self._row.insertWidget(len(self._buttons), button, 1)
        self._buttons.append(button)
        return button

    def start(self) -> None:
        """Read the dock and begin, or say why not."""
        self.begin(self._read)

    def begin(self, read: Callable[[], Work]) -> None:
        """Begin the work that `read` makes of the dock, or say why not."""
        self._begin(read)
        self.pressed.emit()

    def _begin(self, read: Callable[[], Work]) -> None:
        if self.running:
            self.messages.error(
                f"A {self._noun} runs already: stop it or wait for its end, then start the next."
            )
            return
        try:
            work = read()
        except NapariUNetError as error:
            self.messages.error(str(error))
            return
        self._begun = False
        self.messages.forget_details()
        self._enter(_State.PREPARING)
        self.progress.wait("Saving what was painted …" if self._noun == "training" else "Reading the image …")
        self.started.emit()
        self._background.start(work)

    def stop(self) -> None:
        """Stop after the step in hand; pressed again after the grace time, kill."""
        if self._state is _State.PREPARING:
            self._background.stop()
        elif self._client is not None and self.stop_button.text() == "Kill now":
            self._client.kill()
        elif self._client is not None and not self._grace.isActive():
            self._client.stop()
            self._grace.start()
        if self.running:
            self.stop_button.setEnabled(False)
            self.stop_button.setText("Stopping …")
        if self._retries is not None:
            self._retries.give_up()

    def warm(self) -> None:
        """Let a worker import TensorFlow while the user still looks at the settings."""
        if not self.running:
            self._workers.warm()

    def _offer_kill(self) -> None:
        if self.running:
            self.stop_button.setText("Kill now")
            self.stop_button.setToolTip("<p>End the worker at once. What was saved so far is kept.</p>")
            self.stop_button.setEnabled(True)

    def _on_prepared(self, job: TrainJob | PredictJob) -> None:
        self.job, self._retries = job, Retries(job)
        self._client = self._workers.free()
        self._client.happened.connect(self._on_event)
        self._client.died.connect(self._on_death)
        self._client.killed.connect(self._on_kill)
        self._enter(_State.RUNNING)
        self._send("Starting TensorFlow (a few seconds the first time) …")

    def _send(self, words: str) -> None:
        assert self._client is not None
        assert self.job is not None
        self.progress.wait(words)
        self._client.run(self.job)

    def _on_event(self, event: Event) -> None:
        if self._retries is not None:
            self._retries.hear(event)
        self._begun = self._begun or isinstance(event, TrainStarted | PredictStarted)
        match event:
            case StepDone(step, steps, _, seconds_left):
                self.progress.show_step(step, steps, "Step", seconds_left)
            case TileDone(done, total, seconds_left):
                self.progress.show_step(done, total, "Tile", seconds_left)
            case Warned(message):
                self.messages.warn(message)
            case Noted(message):
                self.messages.say(message)
            case Finished(report):
                self.happened.emit(event)
                self._on_report(report)
                return
            case Failed(message, _, details):
                self._on_failure(message, f"{details}\n{self._log()}" if details else "")
                return
        self.happened.emit(event)

    def _on_report(self, report: Report) -> None:
        word = "Stopped." if report.stopped else "Done."
        self.messages.say(report.message or word)
        self._say_saved(report.outputs)
        self._end(word, report)

    def _say_saved(self, outputs: Mapping[str, str]) -> None:
        """Say where the outputs are; of several in one folder, the folder."""
        folders: dict[Path, list[str]] = {}
        for kind, path in outputs.items():
            folders.setdefault(Path(path).parent, []).append(kind)
        for folder, kinds in folders.items():
            place = folder if len(kinds) > 1 else outputs[kinds[0]]
            self.messages.say(f"Saved {listed(kinds)}:", place)

    def _say_how_to_go_on(self) -> None:
        """Name the file with which a run that has begun goes on where it is."""
        if not self._begun or self.job is None:
            return
        if isinstance(self.job, TrainJob):
            folder, way = RunFolder(self.job.out), ""
        else:
            folder, way = RunFolder(Path(self.job.outputs[0].path).parent), "press Start again, or "
        with suppress(FileError):  # no such file, and so nothing to go on with
            if folder.read_job() == self.job:
                self.messages.say(f"To go on with it: {way}napari-unet run", folder.job_path)

    def _on_failure(self, sentence: str, details: str) -> None:
        self.messages.error(sentence, details)
        self._end("Ended with an error.", None)

    def _on_death(self, sentence: str, crashed: bool) -> None:
        if crashed and self._retries is not None and self._retries.take():
            # The core says why, and what it does about it, once it has looked at what is there.
            self._send("The system ended the worker; it is started again …")
            return
        self.messages.error(sentence, self._log() or "The worker printed nothing.")
        self._end("Ended with an error.", None)

    def _on_kill(self) -> None:
        if isinstance(self.job, PredictJob):
            forget_end(self.job)
        self.messages.say("The worker was ended at once. What it had saved until then is kept.")
        self._end("Killed.", None)

    def _on_not_begun(self) -> None:
        self.messages.say("Stopped before it began.")
        self._end("Stopped.", None)

    def _log(self) -> str:
        return self._client.log if self._client is not None else ""

    def _enter(self, state: _State) -> None:
        self._state = state
        for button in self._buttons:
            button.setEnabled(state is _State.IDLE)
        self.stop_button.setEnabled(state is not _State.IDLE)
        self.stop_button.setText("Stop")
        self.stop_button.setToolTip("")

    def _end(self, words: str, report: Report | None) -> None:
        self._grace.stop()
        if self._client is not None:
            self._client.happened.disconnect(self._on_event)
            self._client.died.disconnect(self._on_death)
            self._client.killed.disconnect(self._on_kill)
            self._client = None
        self._enter(_State.IDLE)
        if report is None or report.stopped:
            self._say_how_to_go_on()
        self.progress.rest(words, full=report is not None and not report.stopped)
        self.ended.emit(report)
