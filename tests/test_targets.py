"""The outputs of a segmentation: who holds them, what a run that died leaves, and what is refused before anything is computed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from napari_unet import worker
from napari_unet.errors import FileError
from napari_unet.files.atomic import part_of
from napari_unet.files.lock import Holder
from napari_unet.files.results import create_result, open_result
from napari_unet.jobs import ArraySource, Output, PredictJob
from napari_unet.targets import forget_end, held


@pytest.fixture
def job(tmp_path: Path) -> PredictJob:
    outputs = [Output(kind=kind, path=str(tmp_path / f"{kind}.zarr")) for kind in ("labels", "entropy")]
    return PredictJob(model="model.unet", image=ArraySource(path="image.tif"), outputs=tuple(outputs))


@pytest.fixture
def dead(job: PredictJob) -> Holder:
    """The process that died on the outputs of the job, on tiles of 1.5 megapixels."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    holder = replace(Holder.this_process(), pid=done.pid, start=psutil.boot_time())
    leave(job, holder)
    return holder


def leave(job: PredictJob, holder: Holder) -> None:
    folder = Path(job.outputs[0].path).parent
    (folder / ".labels.zarr.tile.json").write_text(json.dumps({"megapixels": 1.5}))
    for output in job.outputs:
        (folder / f".{Path(output.path).name}.lock").write_text(json.dumps(asdict(holder)))


def died_with(job: PredictJob) -> float | None:
    with held(job) as attempt:
        return attempt.died_with


@pytest.mark.usefixtures("dead")
def test_a_run_that_died_leaves_word_of_its_tiles_once(job: PredictJob) -> None:
    assert died_with(job) == 1.5
    assert died_with(job) is None


@pytest.mark.usefixtures("dead")
def test_a_run_that_was_killed_on_purpose_did_not_lack_memory(job: PredictJob) -> None:
    forget_end(job)
    assert died_with(job) is None


def test_a_run_that_ended_with_its_computer_did_not_lack_memory(job: PredictJob, dead: Holder) -> None:
    leave(job, replace(dead, start=dead.start - 3600, boot=dead.boot - 3600))
    assert died_with(job) is None


def test_a_folder_that_may_not_be_written_is_told_by_the_output_not_by_its_hidden_lock(
    job: PredictJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root may write everywhere
    with pytest.raises(FileError) as caught, held(job):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'entropy.zarr'}: may not be written: {tmp_path} is read-only for you. Choose another folder."
    )


@pytest.mark.parametrize("name", ["labels.ome.tif", f"{'long' * 20}.ome.tif"])
def test_what_a_killed_run_left_half_written_is_removed(job: PredictJob, tmp_path: Path, name: str) -> None:
    tiff, other = tmp_path / name, tmp_path / f"{name[:50]}-of-another-run.ome.tif"
    job = job.replace(outputs=(job.outputs[0].replace(path=str(tiff)),))
    create_result(tmp_path / f".{name}.zarr", (4, 4), (4, 4), "uint8", "YX")
    group = part_of(tmp_path / f".{name}.zarr")
    (group / "0").mkdir(parents=True)
    mine, others = part_of(tiff), part_of(other)
    for path in (mine, others):
        path.write_bytes(b"half")
    with held(job):
        assert not mine.exists() and not group.exists()
        assert others.exists() and (tmp_path / f".{name}.zarr").is_dir()


def test_a_result_that_had_stepped_aside_for_one_that_was_never_made_comes_back(
    job: PredictJob, tmp_path: Path
) -> None:
    path = Path(job.outputs[0].path)
    create_result(path, (4, 4), (4, 4), "uint8", "YX")[...] = 7
    path.rename(part_of(path))
    half_made = part_of(path)
    (half_made / "0").mkdir(parents=True)
    with held(job):
        assert (open_result(path)[...] == 7).all()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.usefixtures("dead")
def test_a_worker_that_is_cut_off_did_not_lack_memory(
    job: PredictJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    monkeypatch.setattr(worker, "_ORPHAN_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())

    def viewer_that_dies() -> Iterator[str]:
        begun.wait()
        yield from ()

    inbox = worker._Inbox(viewer_that_dies())  # type: ignore[arg-type]
    inbox.in_hand = job.model_dump(mode="json")
    begun.set()
    assert ended.wait(60)
    assert died_with(job) is None
