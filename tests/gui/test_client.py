"""The client against a fake worker: events, noise, deaths, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from napari_unet.errors import NapariUNetError
from napari_unet.events import Finished, StepDone
from napari_unet.gui.client import COMMAND, WorkerClient, Workers
from napari_unet.jobs import ArraySource, TrainJob

from .conftest import TIMEOUT

JOB = TrainJob(images=(ArraySource(path="a"),), labels=(ArraySource(path="b"),), out="run")
FAKE = str(Path(__file__).with_name("fake_worker.py"))


def _client(mode: str, *args: str) -> tuple[WorkerClient, list[Any]]:
    client = WorkerClient([sys.executable, FAKE, mode, *args])
    events: list[Any] = []
    client.happened.connect(events.append)
    return client, events


def _finished(events: list[Any]) -> bool:
    return any(isinstance(event, Finished) for event in events)


def test_the_worker_cannot_be_shadowed() -> None:
    assert COMMAND[1:] == ("-P", "-m", "napari_unet.worker")


def test_a_warm_worker_runs_job_after_job(qtbot: Any) -> None:
    client, events = _client("run")
    client.run(JOB)
    assert client.busy
    qtbot.waitUntil(lambda: _finished(events), timeout=TIMEOUT)
    pid = client.pid
    assert not client.busy and "not an event" in client.log
    assert [event.step for event in events if isinstance(event, StepDone)] == list(range(1, 41))
    events.clear()
    client.run(JOB)
    qtbot.waitUntil(lambda: _finished(events), timeout=TIMEOUT)
    assert client.pid == pid
    client.close()


def test_a_busy_worker_refuses_a_second_job(qtbot: Any) -> None:
    client, events = _client("slow")
    client.run(JOB)
    with pytest.raises(NapariUNetError, match="a job in hand"):
        client.run(JOB)
    client.stop()
    qtbot.waitUntil(lambda: _finished(events), timeout=TIMEOUT)
    client.close()


def test_a_line_may_come_in_parts_and_noise_is_logged(qtbot: Any) -> None:
    code = (
        "import sys,time\n"
        'for part in (b\'garbage\\n\\xff\\xfe\\n{"event": "Rea\', b\'dy", "pid": 1}\\n\', b\'{"event": "StepDone", "step": 1, "ste\','
        ' b\'ps": 2, "loss": null, "seconds_left": 1.0}\\n[]\\n{}\\n\'):\n'
        "    sys.stdout.buffer.write(part); sys.stdout.flush(); time.sleep(0.1)\n"
        "sys.stdin.read()\n"
    )
    client = WorkerClient([sys.executable, "-c", code])
    events: list[Any] = []
    client.happened.connect(events.append)
    client.run(JOB)
    qtbot.waitUntil(lambda: any(isinstance(event, StepDone) for event in events), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: "garbage" in client.log and "[]" in client.log, timeout=TIMEOUT)
    client.close()


def test_endless_noise_does_not_fill_the_memory(qtbot: Any) -> None:
    code = "import sys; sys.stdout.write('x' * (1 << 23)); sys.stdout.flush(); sys.stdin.read()"
    client = WorkerClient([sys.executable, "-c", code])
    client.run(JOB)
    qtbot.waitUntil(lambda: "xxx" in client.log, timeout=TIMEOUT)
    assert len(client._output._begun) <= 1 << 20
    client.close()


def test_only_a_death_that_nobody_asked_for_is_reported(qtbot: Any) -> None:
    client, events = _client("slow")
    deaths: list[tuple[str, bool]] = []
    client.died.connect(lambda *death: deaths.append(death))
    client.run(JOB)
    qtbot.waitUntil(lambda: len(events) > 3, timeout=TIMEOUT)
    with qtbot.waitSignal(client.killed, timeout=TIMEOUT):
        client.kill()
    assert not deaths and not client.busy
    events.clear()
    client.run(JOB)
    qtbot.waitUntil(lambda: len(events) > 3, timeout=TIMEOUT)
    with qtbot.waitSignal(client.died, timeout=TIMEOUT):
        os.kill(client.pid, signal.SIGKILL)
    assert len(deaths) == 1 and "killed by the system" in deaths[0][0] and deaths[0][1]
    client.close()


def test_the_last_words_are_those_on_stderr_whenever_stdout_is_read(qtbot: Any) -> None:
    code = (
        "import os, sys, time\n"
        "for pipe, text in ((sys.stderr, '  before\\nthe rea'), (sys.stderr, 'son'), (sys.stdout, 'noise\\n')):\n"
        "    pipe.write(text); pipe.flush(); time.sleep(0.3)\n"
        "os._exit(3)\n"
    )
    client = WorkerClient([sys.executable, "-c", code])
    with qtbot.waitSignal(client.died, timeout=TIMEOUT) as signal_:
        client.run(JOB)
    sentence, crashed = signal_.args
    assert "exit code 3: the reason)" in sentence and not crashed
    assert set(client.log.splitlines()) == {
        "noise",
        "  before",
        "the reason",
    }  # a traceback keeps its indentation


def test_an_idle_death_is_nobodys_business(qtbot: Any) -> None:
    client, events = _client("run")
    deaths: list[tuple[str, bool]] = []
    client.died.connect(lambda *death: deaths.append(death))
    client.run(JOB)
    qtbot.waitUntil(lambda: _finished(events), timeout=TIMEOUT)
    os.kill(client.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: client.pid == 0, timeout=TIMEOUT)
    assert not deaths


def test_a_job_that_meets_a_leaving_worker_starts_another(qtbot: Any, tmp_path: Path) -> None:
    client, events = _client("shy", str(tmp_path / "left"))
    client.run(JOB)
    qtbot.waitUntil(lambda: _finished(events), timeout=TIMEOUT)
    assert (tmp_path / "left").read_text() == "left"
    client.close()


def test_a_worker_that_cannot_start_says_so(qtbot: Any, tmp_path: Path) -> None:
    client = WorkerClient([str(tmp_path / "nothing")])
    with qtbot.waitSignal(client.died, timeout=TIMEOUT) as signal_:
        client.run(JOB)
    assert "could not be started" in signal_.args[0] and not signal_.args[1] and not client.busy


def test_workers_hands_out_the_warm_one_and_makes_more(qtbot: Any) -> None:
    workers = Workers([sys.executable, FAKE, "slow"])
    first = workers.free()
    assert workers.free() is first
    first.run(JOB)
    second = workers.free()
    assert second is not first and not second.busy
    first_pid = first.pid
    dock = object()
    workers.join(dock)
    workers.leave(dock)
    qtbot.waitUntil(lambda: not psutil.pid_exists(first_pid), timeout=TIMEOUT)


def test_no_worker_is_warmed_beside_one_that_computes(qtbot: Any) -> None:
    workers = Workers([sys.executable, FAKE, "slow"])
    dock = object()
    workers.join(dock)
    workers.warm()
    client = workers.free()
    pid = client.pid
    assert pid
    client.run(JOB)
    workers.warm()
    assert workers.free().pid == 0
    workers.leave(dock)
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=TIMEOUT)


def test_the_end_of_the_program_neither_kills_nor_hangs(tmp_path: Path) -> None:
    """The worker outlives its parent by the step in hand, and writes its checkpoint."""
    code = f"""
import sys
from qtpy.QtCore import QCoreApplication, QTimer
from napari_unet.gui.client import WorkerClient
from napari_unet.jobs import ArraySource, TrainJob
app = QCoreApplication([])
client = WorkerClient([sys.executable, {FAKE!r}, "slow", {str(tmp_path / "checkpoint")!r}])
job = TrainJob(images=(ArraySource(path="a"),), labels=(ArraySource(path="b"),), out="run")
client.happened.connect(lambda event: app.quit() if type(event).__name__ == "Validated" else None)
client.run(job)
app.exec_() if hasattr(app, "exec_") else app.exec()
print(client.pid)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Destroyed while process" not in done.stderr
    pid = int(done.stdout.split()[-1])
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(15)
    assert (tmp_path / "checkpoint").read_text() == "checkpoint"
