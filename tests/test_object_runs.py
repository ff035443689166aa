"""Objects end to end: trained from ids, found again as ids, however often a run is cut off."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from napari_unet import load_model, predict, relabel, run, train
from napari_unet.cli import main
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.errors import NapariUNetError
from napari_unet.events import Event, Noted, PredictStarted, StepDone, TileDone
from napari_unet.files.image import open_image
from napari_unet.files.model import read_card
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, TrainJob
from napari_unet.spec import OBJECT_CLASSES

from .helpers import TILES, StopAfter, job_of, read

SHORT = TrainConfig(steps=3, patch=32, batch=1, warmup=2, patience=0)


LOOSE = TILES.replace(threshold=0.6, seed_threshold=0.35, min_size=3)
"""Thresholds with which a barely trained model finds something."""


def test_the_card_says_that_objects_were_learned(objects_file: Path) -> None:
    card = read_card(objects_file)
    assert card.target == "objects"
    assert card.objects is not None
    assert tuple(info.name for info in card.classes) == OBJECT_CLASSES
    assert card.network.classes == 3


def test_more_ids_than_classes_are_taken_for_objects_and_said(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (80, 80), np.uint8)
    ids = np.kron(np.arange(1, 401, dtype=np.uint16).reshape(20, 20), np.ones((4, 4), np.uint16))
    ids[::4] = ids[:, ::4] = 0
    events: list[Event] = []
    model = train([image], [ids], UNetConfig(filters=2, depth=1), SHORT, notify=events.append)
    assert model.spec.target == "objects"
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert any(note.startswith("Each painted value is taken for one object, because ") for note in notes)
    with pytest.raises(NapariUNetError, match="a network learns at most 254 classes"):
        train([image], [ids], UNetConfig(filters=2, depth=1), SHORT, target="classes")


def test_a_stopped_training_goes_on_to_the_same_model(tmp_path: Path) -> None:
    image, _, ids = cells((64, 96), seed=1)
    for name, array in (("image", image), ("labels", ids)):
        write_tiff(tmp_path / f"{name}.ome.tif", array, "YX", labels=name == "labels")
    job = TrainJob(
        images=(ArraySource(path=str(tmp_path / "image.ome.tif")),),
        labels=(ArraySource(path=str(tmp_path / "labels.ome.tif")),),
        out=str(tmp_path / "whole"),
        network=UNetConfig(filters=2, depth=1),
        train=SHORT.replace(steps=8, validation=0.4, checkpoint_seconds=0),
        target="objects",
    )
    whole = run(job)
    assert "held_out_ap50" in whole.metrics
    assert "AP of objects" in whole.message
    job = job.replace(out=str(tmp_path / "cut"))
    asked = StopAfter(StepDone, 5)
    assert run(job, asked.notify, asked.stop).stopped
    rest = run(job)
    models = [load_model(report.outputs["model"]) for report in (whole, rest)]
    first, second = (model.arrays() for model in models)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert models[0].spec.objects == models[1].spec.objects
    assert models[0].spec.training.ap50 == models[1].spec.training.ap50


@pytest.mark.parametrize("name", ["result.zarr", "result.ome.tif"])
def test_a_stack_becomes_objects_with_scale_and_unit_kept(
    objects_file: Path, stack_file: Path, tmp_path: Path, name: str
) -> None:
    events: list[Event] = []
    report = run(job_of(objects_file, stack_file, LOOSE, labels=tmp_path / name), events.append)
    assert report.outputs == {"labels": str(tmp_path / name)}
    image = open_image(tmp_path / name)
    assert (image.axes, image.unit, image.pixel_size) == (
        "ZYX",
        "micrometer",
        {"Z": 2.0, "Y": 0.5, "X": 0.25},
    )
    found = read(tmp_path / name)
    np.testing.assert_array_equal(found, predict(load_model(objects_file), read(stack_file), LOOSE))
    assert found.max() > 1
    for earlier, later in pairwise(found):
        assert not set(np.unique(earlier[earlier > 0])) & set(np.unique(later[later > 0]))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    started = next(event for event in events if isinstance(event, PredictStarted))
    tiles = [event for event in events if isinstance(event, TileDone)]
    assert [event.done for event in tiles] == list(range(1, started.total + 1))
    assert tiles[-2].seconds_left > 0 == tiles[-1].seconds_left, "also while objects are looked for"
    assert set(started.outputs) == {"labels"}


@pytest.mark.parametrize("type_", ["uint8", "float32"])
def test_labels_made_anew_hold_nothing_where_nothing_was_computed(
    objects_file: Path, stack_file: Path, type_: str
) -> None:
    model, stack = load_model(objects_file), read(stack_file)
    config = LOOSE.replace(probability_type=type_)
    window = ((1, 2), (10, 50), (20, 70))
    found = predict(model, stack, config, output=("labels", "probabilities"), window=window)
    assert found["labels"].any()
    again = relabel(model, found["probabilities"], config, axes="CZYX")
    np.testing.assert_array_equal(again, found["labels"])


@pytest.mark.parametrize("name", ["result.zarr", "result.ome.tif"])
@pytest.mark.parametrize("after", [2, -2])
def test_a_stopped_segmentation_goes_on_without_computing_twice(
    objects_file: Path, stack_file: Path, tmp_path: Path, name: str, after: int
) -> None:
    whole: list[Event] = []
    run(job_of(objects_file, stack_file, LOOSE, labels=tmp_path / f"whole-{name}"), whole.append)
    (total,) = (event.total for event in whole if isinstance(event, PredictStarted))
    job = job_of(objects_file, stack_file, LOOSE, labels=tmp_path / name)
    first = StopAfter(TileDone, after % total)  # among the tiles, or among the slices
    assert run(job, first.notify, first.stop).stopped
    second: list[Event] = []
    assert not run(job, second.append).stopped
    started = next(event for event in second if isinstance(event, PredictStarted))
    assert started.done == min(after % total, total - 3)
    np.testing.assert_array_equal(read(tmp_path / name), read(tmp_path / f"whole-{name}"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_finished_result_is_not_computed_again(
    objects_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    job = job_of(objects_file, stack_file, LOOSE, labels=tmp_path / "result.zarr")
    run(job)
    events: list[Event] = []
    run(job, events.append)
    assert [type(event) for event in events] == [PredictStarted]
    assert events[0].done == events[0].total == 3


def test_both_outputs_belong_together(objects_file: Path, stack_file: Path, tmp_path: Path) -> None:
    labels, probabilities = tmp_path / "labels.ome.tif", tmp_path / "probabilities.zarr"
    job = job_of(objects_file, stack_file, LOOSE, labels=labels, probabilities=probabilities)
    run(job.replace(config=job.config.replace(probability_type="float32")))
    answers = read(probabilities)
    assert answers.shape == (3, 3, 70, 90)
    np.testing.assert_allclose(answers.sum(0), 1, atol=1e-5)
    run(job_of(objects_file, stack_file, LOOSE, labels=tmp_path / "alone.zarr"))
    np.testing.assert_array_equal(read(labels), read(tmp_path / "alone.zarr"))


def test_a_window_leaves_the_rest_at_zero(objects_file: Path, stack_file: Path, tmp_path: Path) -> None:
    window = ((1, 2), (10, 41), (5, 60))
    run(job_of(objects_file, stack_file, LOOSE, labels=tmp_path / "part.zarr").replace(window=window))
    found = read(tmp_path / "part.zarr")
    inside = found[1:2, 10:41, 5:60].copy()
    assert inside.any()
    found[1:2, 10:41, 5:60] = 0
    assert not found.any()


def test_instances_are_evaluated_from_files(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    truth = np.zeros((2, 20, 20), np.uint16)
    truth[:, 2:8, 2:8], truth[0, 10:16, 3:9] = 7, 300
    found = truth.copy()
    found[0, 10:13] = 0  # half of it: IoU 0.5
    found[1, 15:18, 15:18] = 5
    write_tiff(tmp_path / "found.ome.tif", found, "ZYX", labels=True)
    write_tiff(tmp_path / "truth.ome.tif", truth, "ZYX", labels=True)
    paths = [str(tmp_path / "found.ome.tif"), str(tmp_path / "truth.ome.tif")]
    assert main(["evaluate", *paths, "--task", "instances", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["columns"] == ["all objects", "mean of images"]
    rows = {name: tuple(figures) for name, figures in result["rows"].items()}
    assert rows["AP 0.50"] == (pytest.approx(3 / 4), pytest.approx(0.75))
    assert rows["AP 0.55"] == (pytest.approx(2 / 5), pytest.approx((1 / 3 + 1 / 2) / 2))
    assert rows["AP 0.90"] == rows["AP 0.55"]
    assert rows["recall 0.50"] == (1, 1)
    assert rows["SEG"] == (pytest.approx(2 / 3), pytest.approx(0.75))
    assert rows["objects (found)"] == (4, 2)
    assert rows["objects (truth)"] == (3, 1.5)
    assert main(["evaluate", *paths, "--task", "instances"]) == 0
    table = capfd.readouterr().out
    assert "AP 0.50" in table and "0.7500" in table
