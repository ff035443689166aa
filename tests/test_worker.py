"""The worker process, from outside: jobs in, events out, and what happens when things die."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_unet.errors import BackendError, FileError
from napari_unet.events import Event, Failed, Finished, Ready, StepDone, TrainStarted, from_json, to_json
from napari_unet.files.model import read_model_file
from napari_unet.files.run import RunFolder
from napari_unet.jobs import TrainJob
from napari_unet.worker import COMMAND, run_in_worker

pytestmark = pytest.mark.timeout(600)  # processes that import TensorFlow, beside other work

LONG = 100_000  # steps of a training that only ends because somebody ends it


class Worker:
    """A worker process and its conversation."""

    def __init__(self, **environment: str) -> None:
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
        )

    def say(self, **command: object) -> None:
        assert self.process.stdin
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def run(self, job: TrainJob) -> None:
        self.say(do="run", job=job.model_dump(mode="json"))

    def events(self) -> Iterator[Event]:
        assert self.process.stdout
        for line in self.process.stdout:
            yield from_json(line)  # anything else on stdout fails here

    def until(self, cls: type[Event]) -> list[Event]:
        """Events up to and including the first of a class."""
        seen: list[Event] = []
        for event in self.events():
            seen.append(event)
            if isinstance(event, cls):
                return seen
        raise AssertionError(f"the worker ended before {cls.__name__}: {seen}, {self.process.stderr.read()}")

    def close(self) -> None:
        with self.process:  # closes the pipes and waits
            self.process.kill()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def warm() -> Iterator[Worker]:
    """A worker that does one job after the other, each to its end."""
    worker = Worker()
    yield worker
    worker.close()


def test_any_character_may_be_in_a_path(warm: Worker, tiny_job: TrainJob, tmp_path: Path) -> None:
    warm.run(tiny_job.replace(images=({"path": str(tmp_path / "🧫 𠮷.tif")},)))
    assert warm.until(Failed)[-1] == Failed(
        f"{tmp_path / '🧫 𠮷.tif'}: there is no such file or folder.", "FileError"
    )


def test_a_job_ends_in_one_finished_and_the_worker_is_ready_again(warm: Worker, tiny_job: TrainJob) -> None:
    warm.run(tiny_job)
    first = warm.until(Finished)
    assert [type(e) for e in first[:1]] == [Ready]
    assert [e.step for e in first if isinstance(e, StepDone)] == list(range(1, 13))
    assert isinstance(warm.until(Ready)[-1], Ready)
    warm.run(tiny_job.replace(out=tiny_job.out + "2"))
    assert isinstance(warm.until(Finished)[-1], Finished)


def test_bad_input_is_one_sentence_and_the_worker_lives(warm: Worker, tiny_job: TrainJob) -> None:
    warm.say(do="run", job={"kind": "train", "typo": 1})
    failed = warm.until(Failed)[-1]
    assert failed.kind == "ConfigError"
    assert "'typo' is not a setting of TrainJob" in failed.message
    warm.run(tiny_job.replace(images=({"path": "/nowhere/image.tif"},)))
    failed = warm.until(Failed)[-1]
    assert failed.kind == "FileError"
    assert failed.message.startswith("/nowhere/image.tif: ")
    assert failed.details == ""


def test_lines_that_are_no_commands_are_ignored(worker: Worker) -> None:
    worker.until(Ready)
    worker.process.stdin.write("hello\n[1]\n{}\n")
    worker.say(do="quit")
    _, log = worker.process.communicate(timeout=30)
    assert log.count("not a command") == 3
    assert worker.process.returncode == 0


def test_stop_keeps_the_best_model(warm: Worker, tiny_job: TrainJob) -> None:
    warm.run(tiny_job.replace(train=tiny_job.train.replace(steps=LONG)))
    warm.until(StepDone)
    warm.say(do="stop")
    warm.say(do="stop")  # twice is the same as once (fault 41)
    report = warm.until(Finished)[-1].report
    assert report.stopped
    read_model_file(report.outputs["model"])


def test_end_of_stdin_means_stop_checkpoint_exit(worker: Worker, tiny_job: TrainJob) -> None:
    worker.run(tiny_job.replace(train=tiny_job.train.replace(steps=LONG)))
    worker.until(StepDone)
    worker.process.stdin.close()
    worker.process.stdout.read()
    assert worker.process.wait(60) == 0
    with RunFolder(Path(tiny_job.out)) as folder:
        assert folder.load_checkpoint() is not None
    read_model_file(Path(tiny_job.out) / "model.unet")


def test_tensorflow_that_cannot_be_imported_is_one_sentence(tiny_job: TrainJob, tmp_path: Path) -> None:
    # A package of that name that fails on import, first on the path (fault 45).
    (tmp_path / "broken" / "tensorflow").mkdir(parents=True)
    (tmp_path / "broken" / "tensorflow" / "__init__.py").write_text("raise ImportError('no AVX here')")
    worker = Worker(PYTHONPATH=f"{tmp_path / 'broken'}:{os.environ.get('PYTHONPATH', '')}")
    worker.run(tiny_job)
    failed = worker.until(Failed)[-1]
    worker.close()
    assert failed.kind == "BackendError"
    assert "TensorFlow" in failed.message
    assert failed.details == ""


def test_killed_while_training_it_goes_on_to_the_same_weights(worker: Worker, tiny_job: TrainJob) -> None:
    job = tiny_job.replace(train=tiny_job.train.replace(steps=24, checkpoint_seconds=0))
    killed = Worker()
    killed.run(job)
    for _ in range(random.Random(7).randint(2, 6)):
        killed.until(StepDone)
    killed.process.send_signal(signal.SIGKILL)
    killed.close()
    model = Path(job.out) / "model.unet"
    if model.exists():
        read_model_file(model)
    alone = job.replace(out=job.out + "-alone")
    for each, first in ((job, range(1, 25)), (alone, range(1))):
        worker.run(each)
        assert worker.until(TrainStarted)[-1].step in first
        worker.until(Finished)
    assert digest(job) == digest(alone)


def digest(job: TrainJob) -> str:
    """The sha256 of all that the next step of a run would depend on, and of its best weights."""
    checkpoint = RunFolder(job.out).load_checkpoint()
    assert checkpoint
    arrays, _ = checkpoint
    content = hashlib.sha256()
    for name in sorted(arrays):
        content.update(name.encode() + arrays[name].tobytes())
    return content.hexdigest()


def test_run_in_worker_raises_the_error(tiny_job: TrainJob) -> None:
    with pytest.raises(FileError, match="nowhere"):
        run_in_worker(tiny_job.replace(images=({"path": "/nowhere/image.tif"},)))


def test_run_in_worker_says_that_the_worker_died(tiny_job: TrainJob) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, Ready):
            os.kill(event.pid, signal.SIGKILL)

    with pytest.raises(BackendError, match="worker process died"):
        run_in_worker(tiny_job, kill)


def test_a_worker_that_is_gone_when_it_is_to_stop_is_told_by_its_exit_code(
    tiny_job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = (
        f"import os, time; os.close(0); print({to_json(Ready(1))!r}, flush=True); time.sleep(1); os._exit(3)"
    )
    monkeypatch.setattr("napari_unet.worker.COMMAND", (sys.executable, "-c", deaf))
    heard: list[Event] = []
    with pytest.raises(BackendError, match=r"The worker process died \(exit code 3\)"):
        run_in_worker(tiny_job, heard.append, lambda: bool(heard))


def test_run_in_worker_can_be_stopped_and_returns_the_report(tiny_job: TrainJob) -> None:
    started = []
    job = tiny_job.replace(train=tiny_job.train.replace(steps=LONG))
    report = run_in_worker(job, lambda e: started.append(isinstance(e, StepDone)), lambda: any(started))
    assert report.stopped
    read_model_file(report.outputs["model"])
