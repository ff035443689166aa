"""Trainings in a run folder: settings chosen once, other models to start from, and what goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import napari_unet.nn.training
from napari_unet import load_model, run, save_model, train
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.errors import DataError, FileError, ModelError
from napari_unet.events import Event, Noted, StepDone, TrainStarted, Warned
from napari_unet.files.image import open_image
from napari_unet.files.run import RunFolder
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, TrainJob
from napari_unet.processor import has_bfloat16

TINY = TrainConfig(steps=2, patch=32, batch=1, patience=0)


def notes(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Noted)]


def open_settings(job: TrainJob) -> TrainJob:
    """Leave open what a computer can choose, in a training of two steps."""
    return job.replace(network=None, train=TrainConfig(steps=2))


@pytest.fixture
def small_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a computer without a GPU choose a network of one filter, so that it takes no time."""
    monkeypatch.setattr("napari_unet.data.advice._CPU_FILTERS", 1)
    monkeypatch.setattr("napari_unet.nn.backend.device_name", lambda: "CPU")


@pytest.mark.usefixtures("small_choice")
def test_what_is_left_open_is_chosen_told_and_kept(tiny_job: TrainJob) -> None:
    events: list[Event] = []
    run(open_settings(tiny_job), events.append)
    told = notes(events)
    assert [sentence.split()[0] for sentence in told[2:7]] == ["A", "Patches", "16", "Learning", "Computed"]
    assert told[0].endswith("% of the pixels are painted, all with the value 1.")
    assert told[1].startswith("Each painted value is taken for a class of pixels, because ")
    assert "Patches of 64 pixels: the shorter side of the images is about 64 pixels." in told
    folder = RunFolder(tiny_job.out)
    assert folder.read_job() == open_settings(tiny_job)
    _, state = folder.load_checkpoint() or ({}, {})
    precision = "bfloat16" if has_bfloat16() else "float32"
    assert (state["patch"], state["batch"], state["precision"]) == (64, 16, precision)
    assert state["network"]["filters"] == 1


def named(job: TrainJob, labels: np.ndarray, folder: Path) -> TrainJob:
    """Give the image and other labels of a job the names of layers."""
    path = folder / "0.ome.tif"
    write_tiff(path, labels, "YX", labels=True)
    (image,) = job.images
    source = ArraySource(path=str(path), name="paint")
    return job.replace(images=(image.replace(name="raw"),), labels=(source,))


def test_what_is_odd_in_the_labels_is_told_once_before_training(tiny_job: TrainJob, tmp_path: Path) -> None:
    events: list[Event] = []
    labels = cells((64, 96), seed=0)[1].astype(np.uint16)
    labels[labels > 0] = 65535
    report = run(named(tiny_job, labels, tmp_path), events.append, lambda: bool(events))
    assert report.stopped
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert warnings[0].startswith("The value 65535 is painted on ")
    assert len(notes(events)) == 2
    assert "are painted, all with the value 65535." in notes(events)[0]


def test_a_class_that_another_pixel_size_loses_is_told(tiny_job: TrainJob, tmp_path: Path) -> None:
    labels = cells((64, 96), seed=0)[1].astype(np.uint8)
    labels[8, 8:11] = 5  # of 4 x 4 pixels the one at (10, 10) is kept
    job = named(tiny_job, labels, tmp_path).replace(pixel_size=2.0, target="classes")
    told: list[str] = []

    def note(event: Event) -> None:
        told.extend([event.message] if isinstance(event, Warned) else [])

    assert run(job, note, lambda: "At pixels of" in "".join(told)).stopped
    assert told[-1] == (
        "At pixels of 2 x 2 micrometer no pixel is left of the value 5, so this class cannot be learned. "
        "Choose a smaller pixel size, or paint more of it."
    )


def test_stopped_before_the_first_step_it_leaves_no_model(tiny_job: TrainJob) -> None:
    events: list[Event] = []
    report = run(tiny_job, events.append, lambda: any(isinstance(event, TrainStarted) for event in events))
    assert report.stopped and report.outputs == {}
    assert report.message == "Nothing learned yet: stopped before the first step was done."
    assert not RunFolder(tiny_job.out).model_path.exists()
    assert run(tiny_job).metrics["steps"] == tiny_job.train.steps


def test_stopped_before_it_went_on_it_says_what_is_there(tiny_job: TrainJob) -> None:
    events: list[Event] = []
    run(tiny_job, events.append, lambda: sum(isinstance(event, StepDone) for event in events) >= 3)
    report = run(tiny_job, stop=lambda: True)
    assert report.stopped
    assert report.message == "Stopped before training went on: the same job goes on from where it was."
    folder = RunFolder(tiny_job.out)
    assert report.outputs == {"model": str(folder.model_path), "run": str(folder.path)}


def test_a_training_that_begins_anew_has_its_own_history(
    tiny_job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet.nn.probe import Probe

    answers = iter([True])
    monkeypatch.setattr(Probe, "finds_dead", lambda *args: next(answers, False))
    events: list[Event] = []
    run(tiny_job, events.append)
    assert [event.step for event in events if isinstance(event, TrainStarted)] == [0, 0]
    records = RunFolder(tiny_job.out).read_history()
    steps = [record["step"] for record in records if record["event"] == "StepDone"]
    assert steps == list(range(1, tiny_job.train.steps + 1))


def test_labels_with_errors_are_refused_by_the_names_of_layers(tiny_job: TrainJob, tmp_path: Path) -> None:
    job = named(tiny_job, np.random.default_rng(0).integers(1, 200, (64, 96)).astype(np.uint8), tmp_path)
    events: list[Event] = []
    with pytest.raises(
        DataError, match="^Labels 'paint' hold 199 different values in patches of .* not labels"
    ):
        run(job, events.append)
    assert events == []
    image = cells((64, 64), seed=0)[0] * 1.0
    image[0, 0] = np.nan
    with pytest.raises(
        DataError, match=r"^Image 'image 0' has 1 value .* And 1 more error: check the labels"
    ):
        train([image, image], [image > 0, image > 0])


@pytest.mark.usefixtures("small_choice")
def test_a_run_that_goes_on_keeps_its_settings_on_another_computer(
    tiny_job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = open_settings(tiny_job)
    first: list[Event] = []
    run(job, first.append, lambda: any(isinstance(event, StepDone) for event in first))
    monkeypatch.setattr("napari_unet.data.advice._CPU_FILTERS", 2)
    events: list[Event] = []
    report = run(job, events.append)
    assert report.metrics["steps"] == 2
    assert load_model(report.outputs["model"]).spec.network.filters == 1
    assert not any("filter" in sentence for sentence in notes(events))


def test_training_starts_from_the_model_of_a_run(tiny_job: TrainJob, tmp_path: Path) -> None:
    first = run(tiny_job.replace(train=TINY))
    old = load_model(first.outputs["model"]).arrays()
    for place in (first.outputs["run"], first.outputs["model"]):
        job = tiny_job.replace(
            network=None,
            start_from=place,
            out=str(tmp_path / Path(place).name / "next"),
            train=TINY.replace(steps=1, learning_rate=1e-7, seed=4),
        )
        events: list[Event] = []
        report = run(job, events.append)
        assert "Training begins with model 'unet' (2 filters, depth 2): all weights are kept." in notes(
            events
        )
        new = load_model(report.outputs["model"]).arrays()
        assert all(np.allclose(new[name], old[name], atol=1e-5) for name in old)
        # the model it began with isn't needed to go on
        assert run(job).metrics["steps"] == 1


def test_a_run_that_goes_on_knows_the_model_it_began_with(
    tiny_job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_with: list[object] = []
    train_network = napari_unet.nn.training.train_network

    def noting(*args: object, begin_with: object = None, **options: object) -> object:
        begun_with.append(begin_with)
        return train_network(*args, begin_with=begin_with, **options)

    monkeypatch.setattr(napari_unet.nn.training, "train_network", noting)
    first = Path(run(tiny_job.replace(train=TINY)).outputs["model"])
    job = tiny_job.replace(start_from=str(first), out=str(tmp_path / "next"), train=TINY)
    run(job)
    events: list[Event] = []
    run(job, events.append)
    np.testing.assert_equal(begun_with[1:], [dict(load_model(first).arrays())] * 2)
    assert not any(sentence.startswith("Training begins with") for sentence in notes(events))
    save_model(train([np.eye(32)], [np.eye(32, dtype=int)], UNetConfig(filters=1, depth=1), TINY), first)
    assert run(job).metrics["steps"] == 2
    first.unlink()
    assert run(job).metrics["steps"] == 2
    assert begun_with[-2:] == [None, None]


def test_a_model_of_another_shape_is_refused(tiny_job: TrainJob, model_file: Path) -> None:
    other = tiny_job.replace(start_from=str(model_file), network=UNetConfig(filters=3, depth=2))
    with pytest.raises(
        ModelError, match="has a network of filters 2, but this training asks for one of filters 3"
    ):
        run(other)


def test_a_folder_without_a_model_is_refused(tiny_job: TrainJob, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no model to start from"):
        run(tiny_job.replace(start_from=str(tmp_path)))
    with pytest.raises(FileError, match=r"nowhere\.unet"):
        run(tiny_job.replace(start_from=str(tmp_path / "nowhere.unet")))


def test_a_run_cannot_be_made_longer_and_the_way_out_is_said(tiny_job: TrainJob) -> None:
    run(tiny_job.replace(train=TINY))
    with pytest.raises(FileError, match="another length: train.steps") as caught:
        run(tiny_job.replace(train=TINY.replace(steps=5)))
    assert "(2 there, 5 here)" in str(caught.value)
    assert "start a new run in another folder that starts from this one" in str(caught.value)
    events: list[Event] = []
    assert run(tiny_job.replace(train=TINY), events.append).metrics["steps"] == 2
    assert not any(isinstance(event, StepDone) for event in events)


def test_a_run_does_not_go_on_with_other_paint(tiny_job: TrainJob) -> None:
    job = tiny_job.replace(train=TINY)
    run(job)
    image, labels = (Path(source.path) for source in (*job.images, *job.labels))
    for changed in (labels, image):
        old = changed.read_bytes()
        pixels = np.array(open_image(changed).array)
        pixels[:8] = 0
        write_tiff(changed, pixels, "YX")
        with pytest.raises(FileError, match="has changed since this run learned from it") as caught:
            run(job)
        assert caught.value.path == str(changed)
        assert "start a new run in another folder that starts from this one" in str(caught.value)
        changed.write_bytes(old)  # at another time than before
    run(job)


def test_the_same_paint_in_another_type_or_of_an_old_run_goes_on(tiny_job: TrainJob) -> None:
    job = tiny_job.replace(train=TINY)
    run(job)
    labels = job.labels[0].path
    write_tiff(labels, np.array(open_image(labels).array, np.uint16), "YX")
    assert run(job).metrics["steps"] == 2
    RunFolder(job.out).inputs_path.unlink()
    assert run(job).metrics["steps"] == 2


def test_what_was_repainted_before_the_first_step_counts(tiny_job: TrainJob) -> None:
    job = tiny_job.replace(train=TINY)
    run(job, lambda _: None, lambda: RunFolder(job.out).inputs_path.exists())
    write_tiff(job.labels[0].path, np.eye(64, 96, dtype=np.uint8), "YX")
    assert run(job).metrics["steps"] == 2


def test_arrays_start_from_a_model_with_other_channels_and_classes() -> None:
    image, labels, _ = cells((64, 64), seed=1)
    model = train([image], [labels], UNetConfig(filters=2, depth=2), TINY)
    events: list[Event] = []
    three = labels.copy()
    three[:, 40:] *= 2
    colour = np.stack([image] * 3)
    config = TINY.replace(steps=1)
    again = train([colour], [three], config=config, axes="CYX", start_from=model, notify=events.append)
    assert (again.spec.network.channels, again.spec.network.classes) == (3, 3)
    assert notes(events)[-1].startswith("Trained 1 step.")
    assert notes(events)[-3] == (
        "Training begins with model 'unet' (2 filters, depth 2): all weights are kept, but those of the first layer are spread over "
        "3 channels instead of 1 and the last layer is new, because there are 3 classes instead of 2."
    )
    assert not any(isinstance(event, Warned) and "memory" in event.message for event in events)
