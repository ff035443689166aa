"""Jobs end to end, in one process: files in, files out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_unet import load_model, predict, run, train
from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.errors import DataError, FileError, ModelError
from napari_unet.events import Event, PredictStarted, StepDone, TileDone, TrainStarted, Validated
from napari_unet.files.image import open_image
from napari_unet.files.model import read_card
from napari_unet.files.run import RunFolder
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, TrainJob

from .helpers import StopAfter, job_of, read


def test_a_training_leaves_all_that_the_run_folder_promises(tiny_job: TrainJob) -> None:
    events: list[Event] = []
    report = run(tiny_job, events.append)
    folder = RunFolder(tiny_job.out)
    assert report.outputs == {"model": str(folder.model_path), "run": str(folder.path)}
    assert folder.read_job() == tiny_job
    assert {"job.yaml", "history.jsonl", "checkpoint.npz", "model.unet", "log.txt"} <= {
        path.name for path in folder.path.iterdir()
    }
    history = folder.read_history()
    assert [record["step"] for record in history if record["event"] == "StepDone"] == list(range(1, 13))
    told = [event.score for event in events if isinstance(event, Validated)]
    assert [record["score"] for record in history if record["event"] == "Validated"] == told
    assert [event.run for event in events if isinstance(event, TrainStarted)] == [str(folder.path)]
    card = read_card(folder.model_path)
    assert card.pixel_size == (0.5, 0.5)
    assert card.unit == "micrometer"
    assert card.training.images == ("cells.image",)


def test_arrays_have_a_pixel_size_that_the_model_remembers() -> None:
    image, labels, _ = cells((64, 64), seed=1)
    image = image.astype(np.float32)
    image[0, 0] = np.nan
    model = train(
        [image],
        [labels],
        UNetConfig(filters=2, depth=2),
        TrainConfig(steps=2, patch=32, batch=1),
        pixel_size=(0.5, 0.25),
        unit="µm",
        not_finite="ignore",
    )
    assert (model.spec.pixel_size, model.spec.unit) == ((0.5, 0.25), "micrometer")
    image[0, 0] = 0
    shape = predict(model, image, PredictConfig(pixel_size="model"), pixel_size=(1.0, 0.5)).shape
    assert shape == (64, 64)


def test_arrays_that_cannot_be_used_are_said() -> None:
    image, labels, _ = cells((64, 64), seed=1)
    for painted in ([], [labels, labels]):
        with pytest.raises(
            DataError, match=r"Training needs labels for each image, but (has|there are) 1 image"
        ):
            train([image], painted)
    with pytest.raises(DataError, match="Training needs labels for each image"):
        train([], [])
    for size in ((0.5,), (0.5, 0.0)):
        with pytest.raises(DataError, match="A pixel size is two numbers above 0, along Y and X"):
            train([image], [labels], pixel_size=size)
    with pytest.raises(DataError, match="NaN"):
        train([np.where(labels > 0, np.nan, image)], [labels])


def test_a_training_that_learned_nothing_gives_no_model() -> None:
    image, labels, _ = cells((64, 64), seed=1)
    options = UNetConfig(filters=2, depth=2), TrainConfig(steps=2, patch=32, batch=1, warmup=1)
    with pytest.raises(ModelError, match="^Stopped before training began: nothing was learned yet"):
        train([image], [labels], *options, stop=lambda: True)
    asked = StopAfter(TrainStarted, 1)
    with pytest.raises(ModelError, match="^Nothing learned yet: stopped before the first step was done"):
        train([image], [labels], *options, notify=asked.notify, stop=asked.stop)
    asked = StopAfter(StepDone, 1)
    train([image], [labels], *options, notify=asked.notify, stop=asked.stop)
    assert asked.events[-1].message.startswith("Stopped after 1 of 2 steps; the best model so far is kept.")


def test_a_stopped_training_goes_on_to_the_same_weights(tiny_job: TrainJob, tmp_path: Path) -> None:
    whole = run(tiny_job.replace(out=str(tmp_path / "whole")))
    asked = StopAfter(StepDone, 5)
    assert run(tiny_job, asked.notify, asked.stop).stopped
    events: list[Event] = []
    rest = run(tiny_job, events.append)
    assert [event.step for event in events if isinstance(event, StepDone)] == list(range(6, 13))
    assert not rest.stopped
    first, second = (load_model(report.outputs["model"]).arrays() for report in (whole, rest))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert [r["step"] for r in RunFolder(tiny_job.out).read_history() if r["event"] == "StepDone"] == list(
        range(1, 13)
    )


def test_a_run_folder_with_another_job_is_refused(tiny_job: TrainJob) -> None:
    RunFolder(tiny_job.out).create(tiny_job).close()
    with pytest.raises(FileError, match="holds another run"):
        run(tiny_job.replace(train=tiny_job.train.replace(seed=5)))


def test_labels_of_another_size_are_refused_before_training(tiny_job: TrainJob, tmp_path: Path) -> None:
    path = tmp_path / "small.tif"
    write_tiff(path, np.ones((64, 95), np.uint8), "YX")
    events: list[Event] = []
    with pytest.raises(DataError, match=r"\(64, 95\).*\(64, 96\)"):
        run(tiny_job.replace(labels=(ArraySource(path=str(path)),)), events.append)
    assert not any(isinstance(event, TrainStarted | StepDone) for event in events)


def test_a_stack_is_segmented_with_values_scale_and_unit_kept(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    labels, probabilities = tmp_path / "labels.ome.tif", tmp_path / "probabilities.zarr"
    report = run(job_of(model_file, stack_file, labels=labels, probabilities=probabilities))
    assert report.outputs == {"labels": str(labels), "probabilities": str(probabilities)}
    for path in (labels, probabilities):
        image = open_image(path)
        assert image.axes == "ZYX"
        assert image.array.shape == (3, 70, 90)
        assert image.pixel_size == {"Z": 2.0, "Y": 0.5, "X": 0.25}
        assert image.unit == "micrometer"
    assert set(np.unique(read(labels))) <= {0, 7}
    whole = PredictConfig(precision="float32")
    direct = predict(load_model(model_file), read(stack_file), whole, output="probabilities")
    assert np.array_equal(read(probabilities), direct)
    assert not list(tmp_path.glob(".*")), "scratch files are gone"


@pytest.mark.parametrize("name", ["result.zarr", "result.ome.tif"])
def test_a_stopped_segmentation_goes_on_without_computing_twice(
    model_file: Path, stack_file: Path, tmp_path: Path, name: str
) -> None:
    run(job_of(model_file, stack_file, labels=tmp_path / f"whole-{name}"))
    job = job_of(model_file, stack_file, labels=tmp_path / name)
    first = StopAfter(TileDone, 2)
    assert run(job, first.notify, first.stop).stopped
    second: list[Event] = []
    assert not run(job, second.append).stopped
    started = next(event for event in second if isinstance(event, PredictStarted))
    assert started.done == 2
    assert sum(isinstance(event, TileDone) for event in second) == started.total - 2
    assert np.array_equal(read(tmp_path / name), read(tmp_path / f"whole-{name}"))


def test_another_result_is_only_replaced_when_asked(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    for name in ("result.zarr", "result.ome.tif"):
        job = job_of(model_file, stack_file, labels=tmp_path / name)
        run(job)
        other = job.replace(config=job.config.replace(threshold=0.9))
        with pytest.raises(FileError, match="exists already"):
            run(other)
        run(other.replace(overwrite=True))


def test_a_window_leaves_the_rest_at_zero_and_must_lie_inside(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    job = job_of(model_file, stack_file, labels=tmp_path / "result.zarr")
    config = job.config.replace(threshold=0.0)  # every pixel computed counts
    window = ((1, 2), (10, 41), (5, 60))
    run(job.replace(window=window, config=config))
    inside = np.zeros((3, 70, 90), bool)
    inside[1:2, 10:41, 5:60] = True
    assert np.array_equal(read(tmp_path / "result.zarr") == 7, inside)
    other = job_of(model_file, stack_file, labels=tmp_path / "other.zarr")
    with pytest.raises(DataError, match="ends at 71 along y, but image 'stack' has 70 there"):
        run(other.replace(window=((0, 1), (0, 71), (0, 5))))
    assert not (tmp_path / "other.zarr").exists()


def test_other_channels_than_the_model_reads_are_refused(model_file: Path, tmp_path: Path) -> None:
    write_tiff(tmp_path / "rgb.ome.tif", np.zeros((40, 40, 3), np.uint8), "YXS")
    with pytest.raises(DataError, match="reads 1 channel, but image 'rgb' has 3"):
        run(job_of(model_file, tmp_path / "rgb.ome.tif", labels=tmp_path / "result.zarr"))


def test_a_target_that_cannot_be_written_is_refused_before_computing(
    model_file: Path, stack_file: Path
) -> None:
    events: list[Event] = []
    with pytest.raises(FileError):
        run(job_of(model_file, stack_file, labels=Path("/proc/result.ome.tif")), events.append)
    assert events == []


def test_a_training_without_room_for_a_checkpoint_keeps_what_it_had(
    tiny_job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = StopAfter(StepDone, 4)
    run(tiny_job, asked.notify, asked.stop)
    folder = RunFolder(tiny_job.out)
    before = folder.model_path.read_bytes(), folder.checkpoint_path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(FileError, match="disk is full"):
        run(tiny_job)
    monkeypatch.undo()
    assert (folder.model_path.read_bytes(), folder.checkpoint_path.read_bytes()) == before
    assert not run(tiny_job).stopped


def test_a_run_folder_can_be_moved_and_replayed(tiny_job: TrainJob, tmp_path: Path) -> None:
    asked = StopAfter(StepDone, 4)
    run(tiny_job, asked.notify, asked.stop)
    moved = tmp_path / "elsewhere ü 漢"
    shutil.move(tiny_job.out, moved)
    report = run(tiny_job.replace(out=str(moved)))
    assert report.metrics["steps"] == 12
