"""The worker process: jobs come in, events go out, one JSON line each.

``python -P -m napari_unet.worker`` is started by the docks (over ``QProcess``) and by
`run_in_worker`. TensorFlow lives and dies here, never in the viewer.

In, on stdin::

    {"do": "run", "job": {...}}     run a job; one at a time, more wait in line
    {"do": "stop"}                  stop the jobs sent so far: after this step, keeping the best
    {"do": "warm"}                  import TensorFlow ahead of the first job
    {"do": "quit"}                  exit when idle

Out, on stdout: events (`napari_unet.events`). ``Ready`` says the worker waits; each job
ends in exactly one ``Finished`` or ``Failed``. Whatever else prints, also from C code,
goes to stderr. End of stdin means that whoever started the worker is gone: stop,
checkpoint, exit.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO

import psutil

import napari_unet.errors as errors
from napari_unet.errors import BackendError, ConfigError, NapariUNetError
from napari_unet.events import (
    Event,
    Failed,
    Finished,
    Notify,
    Ready,
    Report,
    Stop,
    from_json,
    ignore_events,
    never_stop,
    to_json,
)
from napari_unet.jobs import PredictJob, TrainJob, job_from_content
from napari_unet.retries import Retries

__all__ = ["COMMAND", "main", "run_in_worker"]

COMMAND = (sys.executable, "-P", "-m", "napari_unet.worker")
"""Starts a worker. ``-P``: a file in the working directory cannot shadow a module."""

_GPU_IDLE_SECONDS = 60.0
"""An idle worker on a GPU gives all of its memory back by exiting after this long."""

_IDLE_MEMORY_FRACTION = 0.25
"""An idle worker that holds more than this much of the machine's memory exits too."""

_ORPHAN_SECONDS = 50.0
"""A step that takes longer than this after the viewer is gone is cut off."""


class _Inbox:
    """Reads commands in a thread; each job comes with the flag that stops it."""

    def __init__(self, stream: TextIO) -> None:
        self.commands: queue.Queue[tuple[dict[str, Any], threading.Event]] = queue.Queue()
        self._stream = stream
        self._stops: list[threading.Event] = []
        self.in_hand: Any = None  # the job that runs, or ran last
        threading.Thread(target=self._listen, name="inbox", daemon=True).start()

    def _listen(self) -> None:
        for line in self._stream:
            try:
                command = json.loads(line)
                what = command["do"]
            except (ValueError, TypeError, KeyError):
                print(f"not a command: {line[:200]!r}", file=sys.stderr)
                continue
            if what == "stop":
                self._stop_all()
            else:
                self._put(command)
        self._stop_all()
        self._put({"do": "quit"})
        # Every file is written atomically, so cutting a very long step off loses only that step.
        watchdog = threading.Timer(_ORPHAN_SECONDS, self._cut_off)
        watchdog.daemon = True
        watchdog.start()

    def _cut_off(self) -> None:
        """End in the middle of a step; that says nothing of memory, so it must not make the tiles of the next run smaller."""
        from napari_unet.targets import forget_end

        try:
            job = job_from_content(self.in_hand)
            if isinstance(job, PredictJob):
                forget_end(job)
        finally:
            os._exit(1)

    def _put(self, command: dict[str, Any]) -> None:
        stop = threading.Event()
        self._stops.append(stop)
        self.commands.put((command, stop))

    def _stop_all(self) -> None:
        """Stop the job in hand and those that wait, but none that comes later."""
        for stop in self._stops:
            stop.set()
        self._stops.clear()


def main() -> int:
    """Serve jobs until told to quit; return the exit code."""
    _yield_to_the_viewer()
    with _own_stdout() as protocol:
        lock = threading.Lock()

        def notify(event: Event) -> None:
            # Nobody may listen any more; the inbox has seen that or will in a moment.
            with lock, suppress(OSError):
                print(to_json(event), file=protocol, flush=True)

        inbox = _Inbox(sys.stdin)
        while True:
            notify(Ready(os.getpid()))
            try:
                command, stop = inbox.commands.get(timeout=_idle_seconds())
            except queue.Empty:
                return 0
            match command:
                case {"do": "run", "job": job}:
                    inbox.in_hand = job
                    _run(job, notify, stop.is_set)
                case {"do": "warm"}:
                    _warm()
                case {"do": "quit"}:
                    return 0
                case _:
                    print(f"unknown command: {command!r}", file=sys.stderr)


def _yield_to_the_viewer() -> None:
    """Compute on what the viewer leaves: it needs little, but at once."""
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(process.nice() + 10)


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Keep the real stdout for the protocol; send everything else that prints to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as protocol:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        yield protocol


def _run(content: Any, notify: Notify, stop: Stop) -> None:
    from napari_unet.api import run

    try:
        report = run(job_from_content(content), notify, stop)
    except NapariUNetError as error:
        notify(Failed(str(error), type(error).__name__))
    except Exception as error:  # noqa: BLE001  the edge: a bug must reach the user as a sentence, not as silence
        details = traceback.format_exc()
        print(details, file=sys.stderr)
        notify(Failed(_unexpected(error), type(error).__name__, details))
    else:
        notify(Finished(report))


def _unexpected(error: Exception) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "There was not enough memory. Take a smaller patch, batch or tile, or the quick preset, and start again."
    return f"An unexpected {type(error).__name__} ended the run: {error}. What was saved so far is kept."


def _warm() -> None:
    """Import the slow libraries while the user still paints."""
    from napari_unet.nn import backend

    try:
        backend.prepare("float32", 0)
    except NapariUNetError as error:
        # The first job meets the same problem and reports it to somebody who waits for an answer.
        print(error, file=sys.stderr)


def _idle_seconds() -> float | None:
    """How long to wait for the next job: None for ever, 0 to exit when none waits already."""
    if "keras" not in sys.modules:
        return None
    from napari_unet.nn import backend

    if backend.device_name() != "CPU":
        return _GPU_IDLE_SECONDS
    held = psutil.Process().memory_info().rss
    return 0.01 if held > _IDLE_MEMORY_FRACTION * psutil.virtual_memory().total else None


def run_in_worker(
    job: TrainJob | PredictJob, notify: Notify = ignore_events, stop: Stop = never_stop
) -> Report:
    """Run a job in a worker process and wait for it.

    For scripts and notebooks that share their process with a viewer, where TensorFlow must
    not be loaded. A segmentation whose worker is ended by the system, as happens where memory
    runs out, goes on with smaller tiles, up to three times.

    Parameters
    ----------
    job : TrainJob or PredictJob
        What to run.
    notify : callable
        Is given each event.
    stop : callable
        Is asked often; True stops the job, which still returns its report.

    Returns
    -------
    Report
        What the run left behind.

    Raises
    ------
    NapariUNetError
        The error that ended the run, of the class it had there.
    BackendError
        If the worker process died.
    """
    retries = Retries(job)

    def hear(event: Event) -> None:
        retries.hear(event)
        notify(event)

    while isinstance(end := _run_once(job, hear, stop), int):
        if stop() or not _crashed(end) or not retries.take():
            raise BackendError(
                f"The worker process died (exit code {end}). What was saved so far is kept: "
                "run the job again to go on from there, with a smaller tile or patch if memory ran out."
            )
    return end


def _run_once(job: TrainJob | PredictJob, notify: Notify, stop: Stop) -> Report | int:
    """Run a job in a worker; the exit code instead of the report if that died."""
    process = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        _say(process.stdin, {"do": "run", "job": job.model_dump(mode="json")})
        return _wait(process, lines, notify, stop)
    finally:
        with suppress(OSError):  # what could not be sent
            process.stdin.close()
        process.wait()
        reader.join()
        process.stdout.close()


def _say(stream: IO[str] | None, command: dict[str, Any]) -> None:
    """Send a command to a worker; if that is gone, its exit code says so in a moment."""
    with suppress(OSError):
        print(json.dumps(command), file=stream, flush=True)


def _forward(stream: TextIO, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _wait(
    process: subprocess.Popen[str], lines: queue.Queue[str | None], notify: Notify, stop: Stop
) -> Report | int:
    asked = False
    while True:
        if not asked and stop():
            asked = True
            _say(process.stdin, {"do": "stop"})
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if line is None:
            return process.wait()
        event = from_json(line)
        notify(event)
        match event:
            case Finished(report):
                return report
            case Failed(message, kind):
                raise _error(message, kind)


def _crashed(code: int) -> bool:
    """Whether an exit code says that the system ended the process: a signal, or on Windows an exception."""
    return code < 0 or code >= 0xC0000000


def _error(message: str, kind: str) -> NapariUNetError:
    if kind == "FileError":
        path, _, reason = message.partition(": ")
        return errors.FileError(path, reason)
    cls = getattr(errors, kind, NapariUNetError)
    return cls(message) if issubclass(cls, NapariUNetError) else ConfigError(message)


if __name__ == "__main__":
    # Leave without running exit handlers of half-finished libraries: everything is on disk already.
    code = main()
    sys.stderr.flush()
    os._exit(code)
