"""Segmenting through jobs: every output, labels anew, estimates; and what is left when a run is killed or the disk is full."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_unet import load_model, opening, predict, prediction_run, relabel, run, save_model
from napari_unet.cli import main
from napari_unet.config import PredictConfig, TrainConfig
from napari_unet.data.instances import Window
from napari_unet.data.synthetic import cells
from napari_unet.errors import ConfigError, DataError, FileError, ModelError
from napari_unet.events import Event, PredictStarted, TileDone, Warned
from napari_unet.files.image import open_image, open_source
from napari_unet.files.lock import Holder
from napari_unet.files.results import create_result
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import job_to_yaml
from napari_unet.nn.engine import Engine
from napari_unet.nn.model import UNetModel
from napari_unet.pixel_size import chunks_of
from napari_unet.region_table import read_regions
from napari_unet.targets import all_have, begun

from .helpers import TILES, job_of, read
from .nn.segmenting import random_model

SHORT = TrainConfig(steps=3, patch=32, batch=1, warmup=2, patience=0)


def _before(function: Callable[..., Any], path: Path, content: Path) -> Callable[..., Any]:
    """The function, before which a file is written again."""
    data = content.read_bytes()

    def later(*args: Any) -> Any:
        path.write_bytes(data)
        return function(*args)

    return later


@pytest.mark.parametrize("ending", ["zarr", "ome.tif"])
def test_maps_of_where_the_network_is_unsure(
    model_file: Path, stack_file: Path, tmp_path: Path, ending: str
) -> None:
    config = TILES.replace(average=True, passes=2)
    kinds = ("entropy", "uncertainty")
    paths = {kind: tmp_path / f"{kind}.{ending}" for kind in kinds}
    report = run(job_of(model_file, stack_file, config, **paths))
    stack, model = read(stack_file), load_model(model_file)
    together = predict(model, stack, config, output=kinds)
    assert together.keys() == set(kinds)
    for kind in kinds:
        np.testing.assert_array_equal(together[kind], read(paths[kind]))
        image = open_image(paths[kind])
        assert (image.axes, image.unit, image.pixel_size["X"]) == ("ZYX", "micrometer", 0.25)
        np.testing.assert_array_equal(image.array, predict(model, stack, config, output=kind))
    regions = read_regions(report.outputs["regions"])
    assert report.outputs["regions"] == str(tmp_path / "uncertainty.regions.csv")
    unsure = [region[-1] for region in regions]
    assert unsure == sorted(unsure, reverse=True)
    (z,), y, x, value = regions[0]
    found = read(paths["uncertainty"])[z, slice(*y), slice(*x)].mean() / 255
    assert abs(found - value) < 1e-3


def test_no_table_of_regions_where_no_map_was_asked_for(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    report = run(job_of(model_file, stack_file, labels=tmp_path / "labels.zarr"))
    assert report.outputs.keys() == {"labels"}


@pytest.mark.parametrize("ending", ["zarr", "ome.tif"])
@pytest.mark.parametrize("objects", [False, True])
def test_labels_are_made_anew_without_the_network(
    model_file: Path,
    objects_file: Path,
    stack_file: Path,
    tmp_path: Path,
    ending: str,
    objects: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, stored = objects_file if objects else model_file, tmp_path / f"p.{ending}"
    run(job_of(file, stack_file, probabilities=stored))
    config = PredictConfig(threshold=0.45, seed_threshold=0.34, min_size=2)
    expected = predict(load_model(file), read(stack_file), config)
    monkeypatch.delattr(Engine, "begin")
    job = job_of(file, stored, config, labels=tmp_path / f"again.{ending}").replace(given="probabilities")
    run(job)
    found = open_image(tmp_path / f"again.{ending}")
    assert (found.axes, found.unit, found.pixel_size["Z"]) == ("ZYX", "micrometer", 2.0)
    assert found.array.dtype == expected.dtype
    # Probabilities are stored as bytes, so a pixel at the threshold may change sides.
    differ = np.mean((np.asarray(found.array[...]) > 0) != (expected > 0))
    assert differ == 0 if objects else differ < 0.02
    np.testing.assert_array_equal(
        relabel(load_model(file), read(stored), config), np.asarray(found.array[...])
    )
    assert np.mean(expected > 0) > 0


def test_only_labels_are_made_of_probabilities_and_only_of_the_models_own(
    model_file: Path, objects_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="only labels are made, but the job asks for entropy"):
        job_of(model_file, stack_file, entropy=tmp_path / "e.zarr").replace(given="probabilities")
    run(job_of(model_file, stack_file, probabilities=tmp_path / "p.zarr"))
    job = job_of(objects_file, tmp_path / "p.zarr", labels=tmp_path / "l.zarr").replace(given="probabilities")
    with pytest.raises(DataError, match="holds 1 maps a slice, but the probabilities of model 'unet' are 3"):
        run(job)


def test_objects_are_joined_through_slices_on_request(objects_file: Path, tmp_path: Path) -> None:
    image, _, _ = cells((70, 90), seed=4)
    write_tiff(tmp_path / "same.ome.tif", np.stack([image] * 3), "ZYX")
    config = TILES.replace(threshold=0.6, seed_threshold=0.35, min_size=3)
    apart, joined = (
        read(run(job_of(objects_file, tmp_path / "same.ome.tif", config.replace(link_slices=link), labels=out)).outputs["labels"])
        for link, out in ((False, tmp_path / "apart.zarr"), (True, tmp_path / "joined.zarr"))
    )  # fmt: skip
    np.testing.assert_array_equal(apart > 0, joined > 0)
    # The slices are equal, so each object goes through all of them.
    np.testing.assert_array_equal(joined[0], joined[2])
    assert apart.max() == 3 * joined.max() > 0


def test_an_estimate_writes_nothing(
    model_file: Path, objects_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    for file in (model_file, objects_file):
        job = job_of(file, stack_file, labels=tmp_path / "labels.zarr").replace(dry_run=True)
        report = run(job)
        assert report.message.startswith("This takes about ")
        assert re.search(r" GiB of memory and .*seconds?: | minutes?: ", report.message)
        assert report.metrics["tiles"] >= 3
        assert report.outputs == {}
    assert [path.name for path in tmp_path.iterdir()] == ["stack.ome.tif"]


def test_the_command_line_reaches_all_of_it(
    model_file: Path, stack_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [str(model_file), str(stack_file)]
    out = str(tmp_path / "r.ome.tif")
    assert main(["predict", *files, "--out", out, "--dry-run"]) == 0
    assert "GiB of memory" in capfd.readouterr().out
    flags = ["--output", "probabilities", "entropy", "uncertainty", "--average", "--passes", "2"]
    assert main(["predict", *files, "--out", out, *flags]) == 0
    assert (
        (tmp_path / "r.uncertainty.regions.csv")
        .read_text()
        .startswith("rank,z,y_start,y_stop,x_start,x_stop,unsure\n1,")
    )
    stored = str(tmp_path / "r.probabilities.ome.tif")
    labels = str(tmp_path / "l.ome.tif")
    assert main(["relabel", str(model_file), stored, "--out", labels, "--threshold", "0.2"]) == 0
    np.testing.assert_array_equal(read(labels) > 0, read(stored) / np.float32(255) >= np.float32(0.2))
    assert main(["relabel", str(model_file), str(stack_file), "--out", labels, "--overwrite"]) == 2
    assert "but probabilities are stored as uint8" in capfd.readouterr().err


_CHILD = """
import os, signal, sys
from pathlib import Path
from napari_unet.api import run
from napari_unet.events import TileDone
from napari_unet.jobs import job_from_yaml
left = int(sys.argv[2])
def notify(event):
    global left
    if isinstance(event, TileDone):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
run(job_from_yaml(Path(sys.argv[1]).read_text()), notify)
"""


def test_a_killed_run_goes_on_with_smaller_tiles_and_keeps_what_it_had(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    config = TILES.replace(tile_megapixels=0.1, threshold=1.0)  # nothing reaches it: every chunk is 0
    job = job_of(model_file, stack_file, config, labels=tmp_path / "labels.zarr")
    (tmp_path / "job.yaml").write_text(job_to_yaml(job))
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "job.yaml"), "2"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    events: list[Event] = []
    assert not run(job, events.append).stopped
    (started,) = [event for event in events if isinstance(event, PredictStarted)]
    assert started.done == 2
    assert sum(isinstance(event, TileDone) for event in events) == started.total - 2
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert warning.startswith("The process that computed this segmentation ended abruptly")
    assert "tiles of at most 0.013 megapixels" in warning
    assert not read(tmp_path / "labels.zarr").any()
    assert sorted(path.name for path in (tmp_path / "labels.zarr").iterdir()) == ["0", "zarr.json"]


def test_a_result_that_another_process_fills_is_left_to_it(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    job = job_of(model_file, stack_file, labels=tmp_path / "labels.zarr")
    run(job)
    (tmp_path / ".labels.zarr.lock").write_text(json.dumps(asdict(Holder.this_process())))
    with pytest.raises(FileError, match="the result 'labels.zarr' is in use by this program"):
        run(job)


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [
        (
            OSError(28, "No space left on device"),
            (
                r"was not written, because the disk is full: up to [\d.]+ kB more are needed, .* are free in {}\. Make room and run the "
                "same job again: the 2 chunks written so far are kept"
            ),
        ),
        (
            OSError(5, "Input/output error"),
            (
                r"could not be written \(Input/output error\)\. Check that the disk is connected and works, then run the same job again: "
                "the 2 chunks written so far are kept"
            ),
        ),
    ],
)
@pytest.mark.parametrize("ending", ["zarr", "ome.tif"])
def test_a_disk_that_refuses_keeps_the_chunks_and_the_same_job_goes_on(
    model_file: Path,
    stack_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: OSError,
    sentence: str,
    ending: str,
) -> None:
    whole, job = (
        job_of(
            model_file, stack_file, entropy=tmp_path / f"{name}-e.zarr", labels=tmp_path / f"{name}.{ending}"
        )
        for name in ("whole", "labels")
    )
    run(whole)
    from zarr.storage import LocalStore

    put, written = LocalStore.set, 0

    async def fills_up(self: Any, key: str, value: Any) -> None:
        nonlocal written
        written += "/c/" in key
        if written > 5:  # the second output's third chunk
            raise refused
        await put(self, key, value)

    monkeypatch.setattr(LocalStore, "set", fills_up)
    with pytest.raises(FileError, match=rf"/labels\.{ending}: {sentence.format(tmp_path)}"):
        run(job)
    monkeypatch.undo()
    events: list[Event] = []
    run(job, events.append)
    assert next(event.done for event in events if isinstance(event, PredictStarted)) == 2
    for ours, theirs in zip(job.outputs, whole.outputs, strict=True):
        np.testing.assert_array_equal(read(ours.path), read(theirs.path))


@pytest.mark.parametrize(
    ("ending", "what"),
    [("zarr", "labels.zarr"), ("ome.tif", ".labels.ome.tif.zarr"), ("zarr", "labels.zarr/0/c")],
)
@pytest.mark.parametrize("objects", [False, True])
def test_a_result_that_is_removed_while_it_is_written_is_not_called_done(
    model_file: Path,
    objects_file: Path,
    stack_file: Path,
    tmp_path: Path,
    objects: bool,
    ending: str,
    what: str,
) -> None:
    job = job_of(
        objects_file if objects else model_file,
        stack_file,
        labels=tmp_path / f"labels.{ending}",
        entropy=tmp_path / "e.zarr",
    )
    removed: list[Path] = []

    def remove(event: Event) -> None:
        if isinstance(event, TileDone) and not removed:
            shutil.rmtree(tmp_path / what, ignore_errors=objects)  # objects come last
            removed.append(tmp_path / what)

    sentence = rf"labels\.{ending}: .*was removed while it was being written; run it again"
    if objects and what.endswith("c"):
        run(job, remove)  # nothing of them was written yet
    else:
        with pytest.raises(FileError, match=sentence):
            run(job, remove)
    assert removed and not (tmp_path / "labels.ome.tif").exists()
    run(job)
    expected = predict(load_model(Path(job.model)), read(stack_file), TILES)
    np.testing.assert_array_equal(read(job.outputs[0].path), expected)


def test_objects_are_not_made_of_probabilities_that_were_removed(
    objects_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    job = job_of(objects_file, stack_file, labels=tmp_path / "labels.zarr")
    chunks = tmp_path / ".labels.zarr.probabilities.zarr" / "0" / "c"

    def remove(event: Event) -> None:
        if isinstance(event, TileDone):
            shutil.rmtree(chunks, ignore_errors=True)

    with pytest.raises(FileError, match="was removed while it was being written"):
        run(job, remove)


@pytest.mark.parametrize("window", [None, ((0, 2), (5, 30), (3, 20))])
@pytest.mark.parametrize("objects", [False, True])
def test_a_run_that_was_stopped_is_told_from_one_that_is_done(
    model_file: Path,
    objects_file: Path,
    stack_file: Path,
    tmp_path: Path,
    objects: bool,
    window: Window | None,
) -> None:
    file, stack = objects_file if objects else model_file, open_image(stack_file).stack
    job = job_of(file, stack_file, labels=tmp_path / "l.zarr", entropy=tmp_path / "e.zarr")
    job = job.replace(window=window)

    def missing() -> list[tuple[int, ...]]:
        return [
            index
            for array in begun(job)
            for index, *_ in chunks_of(stack, array, window)
            if not all_have([array], index)
        ]

    assert begun(job) == []
    seen: list[Event] = []
    assert run(job, seen.append, lambda: any(isinstance(event, TileDone) for event in seen)).stopped
    assert len(begun(job)) == 2 and missing()
    run(job)
    assert len(begun(job)) == 2 and not missing()
    assert begun(job.replace(config=TILES.replace(average=True))) == []


def test_a_model_that_is_replaced_while_it_segments_does_not_change_the_result(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.unet"
    model.write_bytes(model_file.read_bytes())
    stack, config = read(stack_file), TILES
    expected = predict(load_model(model), stack, config, output="probabilities")

    def retrain(event: Event) -> None:
        if isinstance(event, PredictStarted):
            other = load_model(model_file)
            other.network.get_layer("logits").set_weights([np.ones((1, 1, 2, 1)), np.ones(1)])
            save_model(other, model)

    run(job_of(model, stack_file, config, probabilities=tmp_path / "p.zarr"), retrain)
    np.testing.assert_array_equal(read(tmp_path / "p.zarr"), expected)


def test_a_result_says_which_model_was_read_not_which_is_there_since(
    model_file: Path, stack_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.unet"
    model.write_bytes(model_file.read_bytes())
    job = job_of(model, stack_file, labels=tmp_path / "labels.zarr")
    # As another run does while TensorFlow is imported.
    monkeypatch.setattr(prediction_run, "load", _before(prediction_run.load, model, model_file))
    run(job)
    monkeypatch.undo()
    with pytest.raises(FileError, match="exists already"):
        run(job)


def test_what_changes_while_it_is_read_is_not_segmented(
    model_file: Path, stack_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "open_source", _before(open_source, stack_file, stack_file))
    with pytest.raises(
        DataError, match=r"The image .*stack\.ome\.tif was replaced or changed .*run it again"
    ):
        run(job_of(model_file, stack_file, labels=tmp_path / "labels.zarr"))
    assert not (tmp_path / "labels.zarr").exists()


def test_a_result_beside_the_pixels_does_not_change_the_image(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    image = create_result(tmp_path / "image.zarr", (2, 40, 50), (1, 40, 50), "uint8", "ZYX")
    image[...] = 7
    job = job_of(model_file, tmp_path / "image.zarr", labels=tmp_path / "image.zarr" / "labels.zarr")
    run(job)
    events: list[Event] = []
    run(job, events.append)
    assert not any(isinstance(event, TileDone) for event in events), "nothing is computed again"


@pytest.mark.parametrize("ending", ["zarr", "ome.tif"])
@pytest.mark.parametrize("objects", [False, True])
def test_an_output_that_is_asked_for_later_is_computed_too(
    model_file: Path, objects_file: Path, stack_file: Path, tmp_path: Path, ending: str, objects: bool
) -> None:
    model = objects_file if objects else model_file
    paths = {kind: tmp_path / f"{kind}.{ending}" for kind in ("labels", "entropy", "probabilities")}
    kept = {kind: paths[kind] for kind in ("labels", "probabilities")}
    config = TILES.replace(threshold=0.6, seed_threshold=0.35)
    run(job_of(model, stack_file, config, **kept))
    before = {kind: read(path) for kind, path in kept.items()}
    run(job_of(model, stack_file, config, **paths).replace(overwrite=True))
    expected = predict(load_model(model), read(stack_file), config, output="entropy")
    assert expected.any()
    np.testing.assert_array_equal(read(paths["entropy"]), expected)
    for kind, array in before.items():
        np.testing.assert_array_equal(read(kept[kind]), array)


def test_a_run_cut_off_between_two_tiffs_goes_on_with_both(
    model_file: Path, stack_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {kind: tmp_path / f"{kind}.ome.tif" for kind in ("labels", "probabilities")}
    job = job_of(model_file, stack_file, **paths)
    written: list[Any] = []

    def second_fails(path: Any, *args: Any, **options: Any) -> None:
        written.append(path)
        if len(written) == 2:
            raise FileError(path, "the disk is full.")
        write_tiff(path, *args, **options)

    monkeypatch.setattr("napari_unet.targets.write_tiff", second_fails)
    with pytest.raises(FileError, match="the disk is full"):
        run(job)
    assert [path.exists() for path in paths.values()] == [True, False]
    monkeypatch.undo()
    events: list[Event] = []
    run(job, events.append)
    assert not any(isinstance(event, TileDone) for event in events), "nothing is computed again"
    for kind, path in paths.items():
        expected = predict(load_model(model_file), read(stack_file), TILES, output=kind)
        np.testing.assert_array_equal(read(path), expected)
    assert not list(tmp_path.glob(".*"))


def test_a_second_run_on_a_result_in_work_changes_nothing(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    job = job_of(model_file, stack_file, labels=tmp_path / "labels.ome.tif")
    other = job.replace(config=TILES.replace(threshold=0.1), overwrite=True)
    refused: list[str] = []

    def meddle(event: Event) -> None:
        if isinstance(event, TileDone) and not refused:
            with pytest.raises(FileError, match="is in use by this program") as caught:
                run(other)
            refused.append(str(caught.value))

    run(job, meddle)
    assert refused
    expected = predict(load_model(model_file), read(stack_file), TILES)
    np.testing.assert_array_equal(read(tmp_path / "labels.ome.tif"), expected)


def test_a_linked_result_that_is_there_is_not_computed_again(
    objects_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    config = TILES.replace(threshold=0.6, seed_threshold=0.35, link_slices=True)
    job = job_of(objects_file, stack_file, config, labels=tmp_path / "labels.zarr")
    run(job)
    events: list[Event] = []
    run(job, events.append)
    assert not any(isinstance(event, TileDone) for event in events)


def test_what_cannot_be_asked_for_is_said(model_file: Path, stack_file: Path, tmp_path: Path) -> None:
    certain, image = random_model(depth=1, dropout=0), cells((64, 64), seed=1)[0]
    with pytest.raises(ModelError, match="trained without dropout, so its uncertainty cannot be sampled"):
        predict(certain, image, output="uncertainty")
    for window, sentence in (
        (((0, 1), (60, 70), (0, 5)), "ends at 70 along y"),
        (((0, 1), (5, 5), (0, 5)), "range 5 to 5 along y is empty"),
        (((0, 2), (0, 5), (0, 5)), "ends at 2 along slices"),
    ):
        with pytest.raises(DataError, match=sentence):
            predict(certain, image, window=window)
    job = job_of(model_file, stack_file, labels=tmp_path / "l.zarr")
    with pytest.raises(ConfigError, match="there is nothing to estimate"):
        job.replace(given="probabilities", dry_run=True)


def test_a_folder_of_images_goes_on_where_it_was(
    model_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("cells.001", "cells.002"):
        write_tiff(images / f"{name}.tif", cells((40, 40), seed=len(name))[0], "YX")
    command = ["predict", str(model_file), str(images), "--out", str(tmp_path / "out"), "--output", "entropy"]
    assert main(command) == 0
    names = [f"cells.00{i}{ending}" for i in (1, 2) for ending in (".ome.tif", ".regions.csv")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    (tmp_path / "out" / names[2]).unlink()
    capfd.readouterr()
    assert main(command) == 0
    assert "Already there and left as is: 1 result." in capfd.readouterr().err
    assert (tmp_path / "out" / names[2]).exists()
    (images / "cells.001.png").write_bytes((images / "cells.001.tif").read_bytes())
    assert main(command) == 2
    assert "would both be written to" in capfd.readouterr().err


@pytest.mark.parametrize("ending", ["zarr", "ome.tif"])
@pytest.mark.parametrize("pixel_size", ["image", "model"])
def test_an_image_that_does_not_fit_leaves_nothing_in_the_way_of_one_that_does(
    model_file: Path, tmp_path: Path, ending: str, pixel_size: str
) -> None:
    model = load_model(model_file)
    sized = UNetModel(model.spec.replace(pixel_size=(1.0, 1.0), unit="micrometer"), model.network)
    save_model(sized, tmp_path / "model.unet")
    places, out = {"Y": 0.5, "X": 0.5}, tmp_path / "out"
    out.mkdir()
    pixels = np.random.default_rng(0).integers(0, 200, (3, 64, 96), np.uint8)
    write_tiff(tmp_path / "two.ome.tif", pixels[:2], "CYX", pixel_size=places, unit="micrometer")
    write_tiff(tmp_path / "one.ome.tif", pixels[2], "YX", pixel_size=places, unit="micrometer")
    config = TILES.replace(pixel_size=pixel_size)
    jobs = [
        job_of(tmp_path / "model.unet", tmp_path / f"{name}.ome.tif", config, labels=out / f"labels.{ending}")
        for name in ("two", "one")
    ]
    with pytest.raises(DataError, match="reads 1 channel, but image 'two' has 2"):
        run(jobs[0])
    assert list(out.iterdir()) == []
    assert read(run(jobs[1]).outputs["labels"]).shape == (64, 96)


def test_labels_that_no_tiff_holds_are_refused_before_anything_is_computed(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    model = load_model(model_file)
    classes = (model.spec.classes[0], model.spec.classes[1].replace(value=2**40))
    save_model(UNetModel(model.spec.replace(classes=classes), model.network), tmp_path / "model.unet")
    events: list[Event] = []
    with pytest.raises(
        FileError, match=r"labels\.ome\.tif: .* go up to 1099511627776, .*Write a \.zarr instead"
    ):
        run(job_of(tmp_path / "model.unet", stack_file, labels=tmp_path / "labels.ome.tif"), events.append)
    assert not any(isinstance(event, PredictStarted) for event in events)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.unet", "stack.ome.tif"]
    found = run(job_of(tmp_path / "model.unet", stack_file, labels=tmp_path / "labels.zarr")).outputs[
        "labels"
    ]
    assert set(np.unique(read(found))) <= {0, 2**40}


def test_the_ending_of_a_result_may_be_written_large(
    model_file: Path, stack_file: Path, tmp_path: Path
) -> None:
    run(job_of(model_file, stack_file, labels=tmp_path / "labels.ZARR"))
    assert (tmp_path / "labels.ZARR" / "zarr.json").is_file()
    assert read(tmp_path / "labels.ZARR").shape == read(stack_file).shape


def test_an_image_that_changed_since_is_noticed(model_file: Path, stack_file: Path, tmp_path: Path) -> None:
    job = job_of(model_file, stack_file, labels=tmp_path / "labels.zarr")
    events: list[Event] = []
    assert run(job, events.append, lambda: any(isinstance(event, TileDone) for event in events)).stopped
    write_tiff(stack_file, read(stack_file) + 1, "ZYX")
    with pytest.raises(FileError, match="exists already"):
        run(job)


def test_missing_chunks_of_an_image_are_told(model_file: Path, tmp_path: Path) -> None:
    image, _, _ = cells((96, 128), seed=0)
    path = tmp_path / "raw.zarr"
    zarr.create_array(path, shape=image.shape, dtype=image.dtype, chunks=(64, 64))[...] = image
    events: list[Event] = []
    run(job_of(model_file, path, labels=tmp_path / "whole.zarr"), events.append)
    assert not [event for event in events if isinstance(event, Warned)]
    (path / "c" / "1" / "0").unlink()
    run(job_of(model_file, path, labels=tmp_path / "labels.zarr"), events.append)
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.message.startswith("Image 'raw' has 3 of its 4 chunks; the rest is read as one value")
