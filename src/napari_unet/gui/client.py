"""Talks to the worker process: jobs go in, events come out.

A `WorkerClient` is one worker, kept warm between jobs. The docks of one viewer share a
`Workers`, which hands out an idle client or starts another one, so that segmenting while
training needs no second thought. Nothing here waits: lines arrive as Qt signals.
"""

from __future__ import annotations

import atexit
import json
import sys
from collections import deque
from collections.abc import Sequence
from weakref import WeakSet

from qtpy.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal

from napari_unet.errors import NapariUNetError
from napari_unet.events import Event, Failed, Finished, from_json
from napari_unet.jobs import PredictJob, TrainJob

__all__ = ["COMMAND", "WorkerClient", "Workers"]

COMMAND = (sys.executable, "-P", "-m", "napari_unet.worker")
"""Starts a worker. ``-P``: a file in the working directory cannot shadow a module."""

_LONGEST_LINE = 1 << 20
"""Bytes without a line break beyond which it is not an event but noise for the log."""

_LONGEST_LOGGED = 400
"""Characters of a line that the log keeps."""


class _Process(QProcess):
    """A child that may outlive the viewer by the step it has in hand."""

    def let_go(self) -> None:
        """Close its stdin and forget it; it stops by itself.

        The destructor of a ``QProcess`` kills and waits, which would cost the checkpoint and
        hang the viewer while it closes. With this documented, protected call it does neither.
        """
        self.closeWriteChannel()
        self.setProcessState(QProcess.ProcessState.NotRunning)


_LEAVING: set[_Process] = set()
"""Children whose viewer has closed and which finish their step; kept so that Qt can reap them."""

_CLIENTS: WeakSet[WorkerClient] = WeakSet()
"""Every client alive, for the end of the program."""


def _bury(process: _Process) -> None:
    """Forget a child that has ended, once Qt has left its signal: earlier would crash."""
    _LEAVING.add(process)
    QTimer.singleShot(0, lambda: _LEAVING.discard(process))


@atexit.register
def _let_all_go() -> None:
    # Registered after Qt's own exit handler and so called before it, while processes can be let go.
    for client in list(_CLIENTS):
        client.close()
    for process in list(_LEAVING):
        process.let_go()


class _Lines:
    """Cuts what a pipe brings, in parts of any length, into lines."""

    def __init__(self) -> None:
        self._begun = b""

    def take(self, part: bytes) -> list[str]:
        """Return the lines that `part` ends, without those that are empty."""
        *lines, self._begun = (self._begun + part).split(b"\n")
        if len(self._begun) > _LONGEST_LINE:
            lines, self._begun = [*lines, self._begun[:_LONGEST_LOGGED]], b""
        return self._texts(lines)

    def end(self) -> list[str]:
        """Return what came after the last line break: nothing more will."""
        rest, self._begun = self._begun, b""
        return self._texts([rest])

    @staticmethod
    def _texts(lines: list[bytes]) -> list[str]:
        return [text for line in lines if (text := line.decode("utf-8", "replace").rstrip())]


class WorkerClient(QObject):
    """One worker process, seen from the viewer.

    Parameters
    ----------
    command : sequence of str
        Program and arguments that start the worker.

    Attributes
    ----------
    happened : Signal(Event)
        What the worker says about its job.
    died : Signal(str, bool)
        The worker ended while it had a job, and not because of `kill`: one sentence, and whether the system ended
        it (a signal) rather than the worker itself (an exit code).
    killed : Signal()
        The worker ended because of `kill`.
    """

    happened = Signal(object)
    died = Signal(str, bool)
    killed = Signal()

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        super().__init__()
        self._command = tuple(command)
        self._process: _Process | None = None
        self._job: TrainJob | PredictJob | None = None
        self._answered = False
        self._killing = False
        self._output, self._errors = _Lines(), _Lines()
        self._log: deque[str] = deque(maxlen=400)
        self._last_words = ""
        _CLIENTS.add(self)

    @property
    def busy(self) -> bool:
        """True from `run` until the job's `Finished`, `Failed` or the end of the process."""
        return self._job is not None

    @property
    def pid(self) -> int:
        """Process id of the worker; 0 if none runs."""
        return int(self._process.processId()) if self._process is not None else 0

    @property
    def log(self) -> str:
        """The last lines the worker printed, for "copy details"."""
        return "\n".join(self._log)

    def warm(self) -> None:
        """Start the worker, if none runs, and let it import TensorFlow ahead of the first job."""
        if self._process is None:
            self._start()
            self._send({"do": "warm"})

    def run(self, job: TrainJob | PredictJob) -> None:
        """Send a job; events follow.

        Raises
        ------
        NapariUNetError
            If the worker has a job in hand.
        """
        if self.busy:
            raise NapariUNetError("This worker has a job in hand: wait for it to end, or press Stop.")
        self._job, self._answered, self._killing = job, False, False
        if self._process is None:
            self._start()
        self._send({"do": "run", "job": job.model_dump(mode="json")})

    def stop(self) -> None:
        """Ask the worker to stop after the step in hand; its job still ends in a `Finished`."""
        if self.busy:
            self._send({"do": "stop"})

    def kill(self) -> None:
        """End the worker at once; `killed` follows."""
        if self._process is not None:
            self._killing = True
            self._process.kill()

    def close(self) -> None:
        """Close the worker's stdin: it stops its job, keeps the best and exits by itself."""
        process, self._process, self._job = self._process, None, None
        if process is None:
            return
        _LEAVING.add(process)
        process.finished.connect(lambda *_: _bury(process))
        process.closeWriteChannel()

    def _start(self) -> None:
        self._output, self._errors = _Lines(), _Lines()
        self._log.clear()
        self._last_words = ""
        process = self._process = _Process()
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        process.setProcessEnvironment(environment)
        process.readyReadStandardOutput.connect(self._on_output)
        process.readyReadStandardError.connect(self._on_log)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        process.start(self._command[0], list(self._command[1:]))

    def _send(self, command: dict[str, object]) -> None:
        if self._process is not None:
            self._process.write(json.dumps(command).encode() + b"\n")

    def _on_output(self) -> None:
        if self._process is None:
            return
        for line in self._output.take(bytes(self._process.readAllStandardOutput())):
            self._on_line(line)

    def _on_line(self, line: str) -> None:
        try:
            event: Event = from_json(line)
        except (ValueError, TypeError, KeyError, RecursionError):
            self._log.append(line[:_LONGEST_LOGGED])
            return
        if isinstance(event, Finished | Failed):
            self._job = None
        if self.busy or isinstance(event, Finished | Failed):
            self._answered = self._answered or type(event).__name__ != "Ready"
            self.happened.emit(event)

    def _on_log(self) -> None:
        if self._process is not None:
            self._hear(self._errors.take(bytes(self._process.readAllStandardError())))

    def _hear(self, lines: list[str]) -> None:
        """Log what was printed to stderr; its last line is kept apart, for the log mixes both pipes as Qt reads them."""
        self._log += [line[:_LONGEST_LOGGED] for line in lines]
        if lines:
            self._last_words = self._log[-1]

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            _bury(self._process)
            self._process, waited, self._job = None, self.busy, None
            if waited:
                self.died.emit(
                    f"The worker could not be started: {self._command[0]} is not there or may not be run.",
                    False,
                )

    def _on_finished(self, code: int, status: QProcess.ExitStatus) -> None:
        self._on_output()
        self._on_log()
        self._hear(self._errors.end())
        if self._process is not None:
            _bury(self._process)
        self._process, job, self._job = None, self._job, None
        crashed = status == QProcess.ExitStatus.CrashExit
        if self._killing:
            self._killing = False
            self.killed.emit()
        elif job is not None and code == 0 and not crashed and not self._answered:
            # An idle worker exits to give memory back; this job crossed its way out.
            self.run(job)
            self._answered = True
        elif job is not None:
            self.died.emit(_obituary(code, crashed, self._last_words), crashed)


def _obituary(code: int, crashed: bool, last_words: str) -> str:
    """Say how a worker ended that should not have, and what to do."""
    kept = "What it had saved until then is kept"
    if crashed:
        how = "was killed by the system" if code == 9 else f"crashed (signal {code})"
        return (
            f"The worker process {how}, most likely because memory ran out. {kept}; "
            "start again with a smaller patch, batch or tile, or the quick network."
        )
    said = f": {last_words}" if last_words else ""
    return f"The worker process ended in the middle of its job (exit code {code}{said}). {kept}."


class Workers:
    """The workers of one viewer, shared by its docks.

    Parameters
    ----------
    command : sequence of str
        Program and arguments that start a worker.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._clients: list[WorkerClient] = []
        self._users: set[object] = set()

    def free(self) -> WorkerClient:
        """Return a client without a job: a warm one if there is one, else a new one."""
        idle = [client for client in self._clients if not client.busy]
        if not idle:
            idle = [WorkerClient(self._command)]
            self._clients += idle
        return max(idle, key=lambda client: client.pid != 0)

    def warm(self) -> None:
        """Let a worker import TensorFlow ahead of its job; not beside one that computes, which needs the memory."""
        if not any(client.busy for client in self._clients):
            self.free().warm()

    def join(self, user: object) -> None:
        """Note that a dock uses these workers."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """Note that a dock is gone; with the last one, every worker is let go and stops by itself."""
        self._users.discard(user)
        if not self._users:
            for client in self._clients:
                client.close()
            self._clients.clear()
