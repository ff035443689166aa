"""The worker process, from outside: jobs in, events out, and what happens when things die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_unet.errors import BackendError, FileError
from napari_unet.events import Event, Failed, Finished, Ready, StepDone, TrainStarted, from_json
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


def test_any_character_may_be_in_a_path(worker: Worker, tiny_job: TrainJob, tmp_path: Path) -> None:
    worker.run(tiny_job.replace(images=({"path": str(tmp_path / "🧫 𠮷.tif")},)))
    assert worker.until(Failed)[-1] == Failed(
        f"{tmp_path / '🧫 𠮷.tif'}: there is no such file or folder.", "FileError"
    )


def test_a_job_ends_in_one_finished_and_the_worker_is_ready_again(worker: Worker, tiny_job: TrainJob) -> None:
    worker.run(tiny_job)
    first = worker.until(Finished)
    assert [type(e) for e in first[:1]] == [Ready]
    assert [e.step for e in first if isinstance(e, StepDone)] == list(range(1, 13))
    assert isinstance(worker.until(Ready)[-1], Ready)
    worker.run(tiny_job.replace(out=tiny_job.out + "2"))
    assert isinstance(worker.until(Finished)[-1], Finished)
    worker.say(do="quit")
    assert worker.process.wait(30) == 0


def test_bad_input_is_one_sentence_and_the_worker_lives(worker: Worker, tiny_job: TrainJob) -> None:
    worker.say(do="run", job={"kind": "train", "typo": 1})
    failed = worker.until(Failed)[-1]
    assert failed.kind == "ConfigError"
    assert "'typo' is not a setting of TrainJob" in failed.message
    worker.run(tiny_job.replace(images=({"path": "/nowhere/image.tif"},)))
    failed = worker.until(Failed)[-1]
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


def test_stop_keeps_the_best_model(worker: Worker, tiny_job: TrainJob) -> None:
    worker.run(tiny_job.replace(train=tiny_job.train.replace(steps=LONG)))
    worker.until(StepDone)
    worker.say(do="stop")
    worker.say(do="stop")  # twice is the same as once (fault 41)
    report = worker.until(Finished)[-1].report
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


def test_killed_while_training_leaves_whole_files_and_goes_on(tiny_job: TrainJob) -> None:
    job = tiny_job.replace(train=tiny_job.train.replace(steps=LONG))
    worker = Worker()
    worker.run(job)
    for _ in range(6):
        worker.until(StepDone)
    worker.process.send_signal(signal.SIGKILL)
    worker.close()
    model = Path(job.out) / "model.unet"
    if model.exists():
        read_model_file(model)
    worker = Worker()
    worker.run(job)
    started = worker.until(TrainStarted)[-1]
    assert started.step > 0
    worker.say(do="stop")
    worker.until(Finished)
    worker.close()


def test_run_in_worker_returns_the_report_and_raises_the_error(tiny_job: TrainJob) -> None:
    events: list[Event] = []
    report = run_in_worker(tiny_job, events.append)
    assert Path(report.outputs["model"]).is_file()
    assert any(isinstance(event, StepDone) for event in events)
    with pytest.raises(FileError, match="nowhere"):
        run_in_worker(tiny_job.replace(images=({"path": "/nowhere/image.tif"},), out=tiny_job.out + "2"))


def test_run_in_worker_says_that_the_worker_died(tiny_job: TrainJob) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, Ready):
            os.kill(event.pid, signal.SIGKILL)

    with pytest.raises(BackendError, match="worker process died"):
        run_in_worker(tiny_job, kill)


def test_run_in_worker_can_be_stopped(tiny_job: TrainJob) -> None:
    started = []
    job = tiny_job.replace(train=tiny_job.train.replace(steps=LONG))
    report = run_in_worker(job, lambda e: started.append(isinstance(e, StepDone)), lambda: any(started))
    assert report.stopped
