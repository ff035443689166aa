"""A real segmentation whose worker is ended by the system: it goes on, and comes to the same result."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unet import run, worker
from napari_unet.config import PredictConfig
from napari_unet.errors import BackendError
from napari_unet.events import Event, PredictStarted, Ready, TileDone, Warned
from napari_unet.files.image import open_image
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, Output, PredictJob

pytestmark = pytest.mark.timeout(600)  # processes that import TensorFlow, beside other work

SIZE = (3, 256, 320)
FAULTY = Path(__file__).with_name("dying_worker.py")


@pytest.fixture
def job(model_file: Path, tmp_path: Path) -> PredictJob:
    """Three slices, one tile each, segmented with a barely trained model."""
    path = tmp_path / "stack.ome.tif"
    write_tiff(path, np.random.default_rng(0).integers(0, 255, SIZE, np.uint8), "ZYX")
    kinds = ("probabilities", "labels")
    return PredictJob(
        model=str(model_file),
        image=ArraySource(path=str(path)),
        outputs=tuple(Output(kind=kind, path=str(tmp_path / f"{kind}.zarr")) for kind in kinds),
        config=PredictConfig(precision="float32", tile_megapixels=1, probability_type="float32"),
    )


def elsewhere(job: PredictJob, folder: Path) -> PredictJob:
    folder.mkdir()
    return job.replace(
        outputs=tuple(output.replace(path=str(folder / Path(output.path).name)) for output in job.outputs)
    )


def chunks(job: PredictJob) -> dict[Path, int]:
    """When each chunk on disk was written."""
    return {
        file: file.stat().st_mtime_ns
        for output in job.outputs
        for file in (Path(output.path) / "0" / "c").rglob("*")
        if file.is_file()
    }


def tells_of_a_death(event: Event) -> bool:
    return (
        isinstance(event, Warned)
        and event.message.startswith("The process that computed this segmentation ended abruptly")
        and "it goes on with tiles of at most" in event.message
    )


def test_it_goes_on_with_smaller_tiles_to_the_same_result(
    job: PredictJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = elsewhere(job, tmp_path / "undisturbed")
    run(undisturbed)
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, str(FAULTY), str(256 * 320 // 2)))
    events: list[Event] = []
    kept: list[dict[Path, int]] = []

    def notify(event: Event) -> None:
        events.append(event)
        if tells_of_a_death(event):
            kept.append(chunks(job))

    report = worker.run_in_worker(job, notify)
    assert not report.stopped
    assert sum(isinstance(event, Warned) for event in events) == len(kept) == 1, "one warning a death"
    assert all(len(one) == 2 for one in kept), "the first slice of both outputs, and nothing else"
    now = chunks(job)
    assert len(now) == 6
    assert all(now[file] == written for file, written in kept[0].items()), "what is done is not done again"
    assert [event.done for event in events if isinstance(event, PredictStarted)] == [0] + [1] * len(kept)
    assert [event.done for event in events if isinstance(event, TileDone)] == [1, 2, 3]
    for first, second in zip(job.outputs, undisturbed.outputs, strict=True):
        ours, theirs = (np.asarray(open_image(output.path).array) for output in (first, second))
        if first.kind == "labels":
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


DEADLY = """
import os, signal
from napari_unet.events import PredictStarted, Ready, to_json
for event in (Ready(os.getpid()), PredictStarted({}, 0, 3, "CPU")):
    print(to_json(event), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_gives_up_in_the_end(job: PredictJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", DEADLY))
    events: list[Event] = []
    with pytest.raises(BackendError, match=r"The worker process died \(exit code -9\)"):
        worker.run_in_worker(job, events.append)
    assert [type(event) for event in events] == [Ready, PredictStarted] * 4
