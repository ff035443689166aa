"""What the Segment dock makes besides labels, and labels made anew, against the fake worker."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.layers._layer_actions import _duplicate_layer
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtCore import Qt

from napari_unet.config import PredictConfig, UNetConfig
from napari_unet.events import PredictStarted, TileDone
from napari_unet.files.image import open_image, open_source
from napari_unet.files.lock import Lock
from napari_unet.files.model import save_model_file
from napari_unet.files.run import RunFolder
from napari_unet.gui import results
from napari_unet.gui import snapshot as snapshots
from napari_unet.gui.client import WorkerClient
from napari_unet.gui.dock import workers_of
from napari_unet.gui.layers import read_labels
from napari_unet.gui.progress import Progress
from napari_unet.gui.results import Shown
from napari_unet.gui.segment_dock import SegmentDock
from napari_unet.jobs import PredictJob
from napari_unet.spec import OBJECT_CLASSES, ClassInfo, ModelSpec, ObjectDecoding, weight_shapes

from .conftest import TIMEOUT

AGAIN = "The system ended the worker; it is started again …"


def _dock(viewer: Any, model: Path) -> SegmentDock:
    dock = SegmentDock(viewer)
    viewer.window.add_dock_widget(dock, name="Segment (U-Net)")
    dock.choose_model(model)
    dock.label_rows.section.expand(animate=False)
    return dock


def _tick(dock: SegmentDock, *kinds: str) -> None:
    for kind, box in dock.results.boxes.items():
        box.value = kind in kinds


def _click(qtbot: Any, dock: SegmentDock, button: Any) -> None:
    """Press a button that begins work, and wait for the end of that."""
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert dock.panel.running, dock.panel.messages.text
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)


def _save(path: Path, network: UNetConfig, names: tuple[str, ...], **spec: Any) -> Path:
    classes = tuple(ClassInfo(value=i, name=name) for i, name in enumerate(names))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(network).items()}
    save_model_file(path, ModelSpec(network=network, classes=classes, **spec), arrays)
    return path


@pytest.fixture
def objects_model(tmp_path: Path) -> Path:
    network = UNetConfig(filters=1, depth=1, classes=3)
    return _save(
        tmp_path / "nuclei.unet",
        network,
        OBJECT_CLASSES,
        target="objects",
        objects=ObjectDecoding(min_size=30),
    )


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[PredictJob]:
    jobs: list[PredictJob] = []
    run = WorkerClient.run
    monkeypatch.setattr(WorkerClient, "run", lambda self, job: (jobs.append(job), run(self, job))[1])
    return jobs


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the progress bar said while the end could not be told."""
    words: list[str] = []
    wait = Progress.wait
    monkeypatch.setattr(Progress, "wait", lambda self, said: (words.append(said), wait(self, said))[1])
    return words


def test_each_result_has_a_layer_of_its_own(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    _tick(dock, "labels", "probabilities", "entropy", "uncertainty")
    _click(qtbot, dock, dock.panel.start_button)
    raw = viewer.layers["raw"]
    assert [layer.name for layer in viewer.layers] == [
        "raw",
        "paint",
        "raw probability",
        "raw entropy",
        "raw uncertainty",
        "raw segmented",
        "raw where to look",
    ]
    assert [layer.name for layer in viewer.layers if not layer.visible] == ["raw probability"]
    for name in ("raw entropy", "raw uncertainty"):
        layer = viewer.layers[name]
        assert (layer.colormap.name, layer.blending) == ("inferno", "additive")
        assert tuple(layer.contrast_limits) == (0, 255)
        np.testing.assert_array_equal(np.asarray(layer.data), raw.data)
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.scale, raw.scale)
        np.testing.assert_allclose(layer.translate, raw.translate)


def test_a_result_must_be_asked_for(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    _tick(dock)
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    assert "No result is asked for. Tick at least one under Result." in dock.panel.messages.text
    assert not dock.panel.running


def test_the_regions_that_are_least_sure_are_marked(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    assert dock.regions.isHidden()
    _tick(dock, "entropy")
    _click(qtbot, dock, dock.panel.start_button)
    layer, raw = viewer.layers["raw where to look"], viewer.layers["raw"]
    assert viewer.layers[-1] is layer
    assert layer.nshapes == 20
    assert layer.features["rank"].tolist() == list(range(1, 21))
    np.testing.assert_allclose(layer.features["unsure"], 1 - np.arange(1, 21) / 100)
    np.testing.assert_array_equal(
        layer.data[5], [(1, 5.5, 3.5), (1, 5.5, 11.5), (1, 13.5, 11.5), (1, 13.5, 3.5)]
    )
    np.testing.assert_allclose(layer.scale, raw.scale)
    assert str(layer.text.values[2]) == "3"
    colors = layer.edge_color
    assert colors[0][1] > colors[19][1] > 0, "less sure is more yellow"


def test_the_buttons_bring_a_region_into_view(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    _tick(dock, "entropy")
    _click(qtbot, dock, dock.panel.start_button)
    row = dock.regions
    assert row.words.text() == "Least sure: 20"
    for button, words, (z, y, x) in (
        (row.next_button, "Least sure: 1 of 20", (1, 4.5, 7.5)),
        (row.next_button, "Least sure: 2 of 20", (2, 5.5, 7.5)),
        (row.next_button, "Least sure: 3 of 20", (3, 6.5, 7.5)),
        (row.previous_button, "Least sure: 2 of 20", (2, 5.5, 7.5)),
        (row.previous_button, "Least sure: 1 of 20", (1, 4.5, 7.5)),
        (row.previous_button, "Least sure: 20 of 20", (0, 23.5, 7.5)),
    ):
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        assert row.words.text() == words
        assert viewer.dims.current_step[0] == z
        assert viewer.dims.point[0] == 1 + 3 * z
        np.testing.assert_allclose(viewer.camera.center[-2:], (2 + 0.5 * y, 3 + 0.5 * x))
    viewer.layers.remove("raw where to look")
    assert row.isHidden()


def test_the_buttons_are_there_in_the_viewer_that_plugins_get(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(PublicOnlyProxy(viewer), model)
    _tick(dock, "entropy")
    _click(qtbot, dock, dock.panel.start_button)
    assert not dock.regions.isHidden()
    qtbot.mouseClick(dock.regions.next_button, Qt.MouseButton.LeftButton)
    assert dock.regions.words.text() == "Least sure: 1 of 20"


def test_regions_are_found_where_another_layer_has_smaller_units(
    viewer: Any, qtbot: Any, model: Path
) -> None:
    viewer.layers["raw"].units = viewer.layers["paint"].units = ("um",) * 3
    fine = {"scale": (3000, 500, 500), "translate": (1000, 0, 0), "units": ("nm",) * 3}
    viewer.add_image(np.zeros((5, 48, 40)), name="fine", **fine)
    dock = _dock(viewer, model)
    dock.image.box.value = viewer.layers["raw"]
    _tick(dock, "entropy")
    _click(qtbot, dock, dock.panel.start_button)
    qtbot.mouseClick(dock.regions.next_button, Qt.MouseButton.LeftButton)
    np.testing.assert_allclose(viewer.dims.point[0], 1000 * (1 + 3 * 1))
    np.testing.assert_allclose(viewer.camera.center[-2:], (1000 * (2 + 0.5 * 4.5), 1000 * (3 + 0.5 * 7.5)))


def test_regions_of_stacks_over_time_lie_in_their_slices(viewer: Any, qtbot: Any, model: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (2, 3, 40, 32), dtype=np.uint8)
    viewer.add_image(pixels, name="film", scale=(1, 4, 0.5, 0.25), translate=(0, 8, 0, 0))
    viewer.add_image(np.zeros((2, 2, 3, 40, 32), np.uint8), name="one more axis before it")
    dock = _dock(viewer, model)
    dock.image.box.value = viewer.layers["film"]
    dock.image.axes.value = "TZYX"
    _tick(dock, "entropy")
    _click(qtbot, dock, dock.panel.start_button)
    layer = viewer.layers["film where to look"]
    np.testing.assert_array_equal(layer.data[0][0], (1, 2, 0.5, 3.5))
    np.testing.assert_array_equal(layer.data[2][2], (1, 0, 10.5, 11.5))
    for _ in range(3):
        qtbot.mouseClick(dock.regions.next_button, Qt.MouseButton.LeftButton)
    assert dock.regions.words.text() == "Least sure: 3 of 20"
    np.testing.assert_allclose(viewer.dims.point[1:3], (1, 8))
    np.testing.assert_allclose(viewer.camera.center[-2:], (0.5 * 6.5, 0.25 * 7.5))


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("ZCYX", (4, 3, 40, 32)),
        ("TZCYX", (2, 3, 3, 40, 32)),
        ("TCZYX", (2, 3, 4, 40, 32)),
        ("YXC", (6, 32, 3)),
    ],
)
def test_results_follow_the_sliders_where_channels_lie_between(
    viewer: Any, qtbot: Any, tmp_path: Path, axes: str, shape: tuple[int, ...]
) -> None:
    viewer.layers.clear()
    pixels = np.random.default_rng(0).integers(0, 200, shape, dtype=np.uint8)
    scale = [{"T": 1, "Z": 4, "C": 2}.get(letter, 0.5) for letter in axes]
    film = viewer.add_image(pixels, name="film", rgb=False, scale=scale, translate=[3] * len(axes))
    network = UNetConfig(filters=1, depth=1, channels=3)
    dock = _dock(viewer, _save(tmp_path / "three.unet", network, ("background", "cell"), axes="YXC"))
    dock.image.axes.value = axes
    _tick(dock, "labels", "probabilities", "entropy")
    _click(qtbot, dock, dock.panel.start_button)
    assert "Segmented." in dock.panel.messages.text
    c = axes.index("C")
    wanted = pixels.take(0, c)  # what the fake worker looks at
    viewer.layers["film probability"].visible = True
    for name, values in (("film segmented", wanted > 100), ("film probability", wanted)):
        layer = viewer.layers[name]
        np.testing.assert_array_equal(np.asarray(layer.data), np.expand_dims(values, c))
        np.testing.assert_allclose(layer._extent_world_augmented, film._extent_world_augmented)
        for step in np.ndindex(*shape[:-2]):
            viewer.dims.set_current_step(range(len(step)), step)
            here = tuple(0 if axis == c else n for axis, n in enumerate(step))
            np.testing.assert_array_equal(layer._slice.image.raw, np.expand_dims(values, c)[here])
    if axes == "YXC":
        return
    viewer.dims.set_current_step(c, 2)
    for _ in range(3):
        qtbot.mouseClick(dock.regions.next_button, Qt.MouseButton.LeftButton)
    slices = [letter for letter in axes if letter in "TZ"]
    lengths = [shape[axes.index(letter)] for letter in slices]
    found = dict(zip(slices, [3 * (i + 1) % length for i, length in enumerate(lengths)], strict=True))
    assert [viewer.dims.current_step[i] for i in range(len(shape) - 2)] == [
        found.get(letter, 2) for letter in axes[:-2]
    ]
    assert np.any(viewer.layers["film where to look"]._data_view._displayed)


def test_of_a_plane_too_large_to_show_the_part_that_is_segmented_has_layers(
    viewer: Any, qtbot: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_LARGEST", 48 * 40 - 1)
    raw = viewer.layers["raw"]
    box = [(0, 10, 8), (0, 10, 30), (0, 40, 30), (0, 40, 8)]
    viewer.add_shapes([box], name="drawn", scale=raw.scale, translate=raw.translate)
    dock = _dock(viewer, model)
    _tick(dock, "labels", "probabilities", "entropy")
    dock.region.value = "shape"
    viewer.dims.set_current_step(0, 0)
    _click(qtbot, dock, dock.panel.start_button)
    assert "Segmented." in dock.panel.messages.text, dock.panel.messages.text
    for name, values in (("raw segmented", raw.data > 100), ("raw entropy", raw.data)):
        layer = viewer.layers[name]
        (top, left), (bottom, right) = (10, 8), (41, 31)
        assert layer.data.shape == (5, bottom - top, right - left)
        np.testing.assert_array_equal(np.asarray(layer.data)[0], values[0, top:bottom, left:right])
        np.testing.assert_allclose(layer.data_to_world((2, 0, 0)), raw.data_to_world((2, top, left)))
    regions = viewer.layers["raw where to look"]
    np.testing.assert_allclose(regions.data_to_world((0, 0, 0)), raw.data_to_world((0, 0, 0)))


def test_of_a_plane_too_large_to_show_it_is_said_where_the_result_lies(
    viewer: Any, qtbot: Any, home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_LARGEST", 48 * 40 - 1)
    dock = _dock(viewer, model)
    _tick(dock, "labels", "probabilities")
    before = list(viewer.layers)
    _click(qtbot, dock, dock.panel.start_button)
    (run,) = home.iterdir()
    assert list(viewer.layers) == before
    assert "Image 'raw' is too large for its result to be shown as a layer" in dock.panel.messages.text
    assert f"it is written to {run}. To see a part here, draw a shape" in dock.panel.messages.text
    labels = np.asarray(open_image(run / "labels.zarr").array[...])
    np.testing.assert_array_equal(labels, viewer.layers["raw"].data > 100)
    _click(qtbot, dock, dock.label_rows.button)
    assert list(viewer.layers) == before


def test_a_part_of_an_array_is_indexed_as_numpy_does() -> None:
    values = np.arange(240).reshape(2, 3, 5, 8)
    part = slice(1, 4), slice(2, 7)
    for axis, whole in (
        (None, values[..., *part]),
        (1, values[:, None][..., *part]),
        (4, values[..., *part][..., None]),
    ):
        view = Shown(values, axis, part)
        assert (view.shape, view.ndim, view.size) == (whole.shape, whole.ndim, whole.size)
        np.testing.assert_array_equal(np.asarray(view), whole)
        for key in (
            0,
            ...,
            (..., 0),
            (..., -1, slice(1, 3)),
            (0, ..., slice(0, 99), slice(3, 3)),
            (0,) * whole.ndim,
        ):
            np.testing.assert_array_equal(view[key], whole[key])


def test_a_copy_of_a_result_can_be_painted_on(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    _click(qtbot, dock, dock.panel.start_button)
    result = next(layer for layer in viewer.layers if layer.name.endswith("segmented"))
    assert not result.editable
    viewer.layers.selection = {result}
    _duplicate_layer(viewer.layers)
    (copy,) = [layer for layer in viewer.layers if layer.name.endswith("segmented copy")]
    before = np.array(result.data)
    copy.paint((0,) * copy.ndim, 7)
    assert copy.editable and 7 in np.asarray(copy.data)
    np.testing.assert_array_equal(np.asarray(result.data), before)


def test_labels_shown_over_channels_can_be_trained_on(tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4)
    layer = Labels(values[:, None], scale=(5, 3, 1, 1), axis_labels=("z", "c", "y", "x"))
    snapshot = read_labels(layer, "ZCYX")
    assert snapshot.stack.axes == "ZYX" and snapshot.pixel_size == {"Z": 5.0, "Y": 1.0, "X": 1.0}
    np.testing.assert_array_equal(snapshot.stack.array, values)


def test_one_more_axis_is_indexed_as_numpy_does() -> None:
    values = np.arange(120).reshape(2, 3, 4, 5)
    for axis in range(5):
        view, whole = Shown(values, axis), np.expand_dims(values, axis)
        assert (view.shape, view.ndim, view.size) == (whole.shape, whole.ndim, whole.size)
        np.testing.assert_array_equal(np.asarray(view), whole)
        for key in (
            0,
            ...,
            slice(None),
            (..., 0),
            (0, ..., slice(0, 1)),
            (slice(0, 1),) * 5,
            (0,) * 5,
            (0, slice(None), 0),
        ):
            np.testing.assert_array_equal(view[key], whole[key])


def test_an_estimate_says_a_sentence_and_writes_nothing(
    viewer: Any, qtbot: Any, home: Path, model: Path, sent: list[PredictJob]
) -> None:
    dock = _dock(viewer, model)
    _tick(dock, "labels", "entropy")
    qtbot.mouseClick(dock.estimate_button, Qt.MouseButton.LeftButton)
    assert not dock.panel.start_button.isEnabled() and not dock.estimate_button.isEnabled()
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)
    assert "This takes nothing: 5 x 48 x 40 x 1 of uint8." in dock.panel.messages.text
    assert dock.panel.start_button.isEnabled()
    assert [layer.name for layer in viewer.layers] == ["raw", "paint"]
    (job,) = sent
    assert job.dry_run and [output.kind for output in job.outputs] == ["labels", "entropy"]
    assert not home.exists() and not Path(job.image.path).parent.exists()


def test_an_estimate_of_a_huge_image_copies_no_pixel(tmp_path: Path) -> None:
    from napari_unet.data.axes import Stack
    from napari_unet.files.image import open_source
    from napari_unet.gui.snapshot import Snapshot, stand_in

    huge = np.broadcast_to(np.zeros((), np.uint16), (3, 2, 100_000, 100_000))
    source = stand_in(
        Snapshot(Stack(huge, "ZCYX"), {"Z": 5.0, "Y": 2.0, "X": 2.0}, "micrometer", None), tmp_path
    )
    image = open_source(source)
    assert image.stack.shape == (3, 100_000, 100_000, 2) and image.stack.dtype == np.uint16
    assert image.pixel_size == {"Z": 5.0, "Y": 2.0, "X": 2.0}
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 10_000


def test_labels_are_made_anew_of_stored_probabilities(
    viewer: Any, qtbot: Any, model: Path, sent: list[PredictJob]
) -> None:
    dock = _dock(viewer, model)
    button = dock.label_rows.button
    assert not button.isEnabled() and "Tick probabilities and segment" in button.toolTip()
    _click(qtbot, dock, dock.panel.start_button)
    assert not button.isEnabled() and "Tick probabilities and segment" in button.toolTip()
    viewer.layers.remove("raw segmented")
    _tick(dock, "labels", "probabilities")
    _click(qtbot, dock, dock.panel.start_button)
    assert button.isEnabled() and "Make the labels of 'raw' anew" in button.toolTip()
    raw, layer = viewer.layers["raw"], viewer.layers["raw segmented"]
    layer.name = "mine"
    dock.label_rows.form.write({"threshold": 0.5})
    _click(qtbot, dock, button)
    job = sent[-1]
    assert job.given == "probabilities" and job.config.threshold == 0.5
    assert [output.kind for output in job.outputs] == ["labels"]
    assert viewer.layers["mine"] is layer and not layer.editable
    np.testing.assert_array_equal(np.asarray(layer.data), raw.data > 127)
    np.testing.assert_allclose(layer.scale, raw.scale)
    layers = list(viewer.layers)
    dock.label_rows.form.write({"threshold": 0.7})
    _click(qtbot, dock, button)
    assert list(viewer.layers) == layers
    np.testing.assert_array_equal(np.asarray(layer.data), raw.data > 178)
    assert len({output.path for job in sent for output in job.outputs if output.kind == "labels"}) == 4


def test_labels_made_anew_get_a_layer_where_none_is_left(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    _tick(dock, "probabilities")
    _click(qtbot, dock, dock.panel.start_button)
    assert "raw segmented" not in viewer.layers
    _click(qtbot, dock, dock.label_rows.button)
    first = viewer.layers["raw segmented"]
    np.testing.assert_allclose(first.scale, viewer.layers["raw"].scale)
    viewer.layers.remove(first)
    _click(qtbot, dock, dock.label_rows.button)
    assert viewer.layers["raw segmented"] is not first


def test_labels_are_not_made_anew_with_another_model(
    viewer: Any, qtbot: Any, model: Path, objects_model: Path
) -> None:
    dock = _dock(viewer, model)
    _tick(dock, "labels", "probabilities")
    _click(qtbot, dock, dock.panel.start_button)
    dock.choose_model(objects_model)
    assert not dock.label_rows.button.isEnabled()
    assert "The last probabilities are of another model." in dock.label_rows.button.toolTip()
    dock.choose_model(model)
    assert dock.label_rows.button.isEnabled()


def test_objects_are_made_anew_with_the_rows_of_objects(
    viewer: Any, qtbot: Any, objects_model: Path, sent: list[PredictJob]
) -> None:
    dock = _dock(viewer, objects_model)
    _tick(dock, "labels", "probabilities")
    _click(qtbot, dock, dock.panel.start_button)
    assert viewer.layers["raw probability"].data.shape == (3, 5, 48, 40)
    dock.label_rows.form.write({"seed_threshold": 0.8, "min_size": 12, "link_slices": True})
    _click(qtbot, dock, dock.label_rows.button)
    config = sent[-1].config
    assert (config.seed_threshold, config.min_size, config.link_slices) == (0.8, 12, True)


def test_rows_are_shown_where_they_apply(
    viewer: Any, model: Path, objects_model: Path, tmp_path: Path
) -> None:
    dock = _dock(viewer, model)
    rows = dock.label_rows
    assert rows.form["threshold"].value == 0.5, "the model's own, in grey"

    def shown() -> list[str]:
        return [name for name in LABELS if not rows.form._fields[name].isHidden()]

    assert rows.section.text() == "Threshold" and shown() == ["threshold"]
    dock.choose_model(objects_model)
    assert rows.section.text() == "Objects" and shown() == list(LABELS)
    assert rows.form["min_size"].value == 30 and rows.form.values()["min_size"] is None
    dock.image.axes.value = "TYX"
    assert shown() == list(LABELS[:-1])
    three = UNetConfig(filters=1, depth=1, classes=3, dropout=0.0)
    dock.choose_model(_save(tmp_path / "three.unet", three, ("background", "a", "b")))
    assert rows.section.isHidden()
    assert not dock.results.boxes["uncertainty"].enabled
    assert "trained without dropout" in dock.results.boxes["uncertainty"].tooltip


LABELS = ("threshold", "seed_threshold", "neck_depth", "min_size", "min_confidence", "link_slices")


def test_passes_are_shown_with_uncertainty(viewer: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    assert dock.form._fields["passes"].isHidden()
    _tick(dock, "uncertainty")
    assert not dock.form._fields["passes"].isHidden()


def test_every_setting_has_one_row_and_reaches_the_job(
    viewer: Any, qtbot: Any, objects_model: Path, sent: list[PredictJob]
) -> None:
    dock = _dock(viewer, objects_model)
    wanted = PredictConfig(
        normalize="model",
        pixel_size="model",
        threshold=0.3,
        seed_threshold=0.6,
        neck_depth=1.5,
        min_size=7,
        min_confidence=0.8,
        link_slices=True,
        average=True,
        passes=5,
        halo="fast",
        tile_megapixels=0.5,
        precision="float32",
        probability_type="float32",
    )
    for name, value in wanted:
        (form,) = (form for form in (dock.form, dock.label_rows.form, dock.more) if name in form)
        form.write({name: value})
    _click(qtbot, dock, dock.panel.start_button)
    assert sent[-1].config == wanted


def test_a_segmentation_whose_worker_is_ended_by_the_system_goes_on(
    viewer: Any, qtbot: Any, fake: Any, model: Path, tmp_path: Path, waits: list[str]
) -> None:
    fake("mortal", tmp_path / "deaths")
    dock = _dock(viewer, model)
    _click(qtbot, dock, dock.panel.start_button)
    text = dock.panel.messages.text
    assert (tmp_path / "deaths").read_text() == "xxx"
    assert waits.count(AGAIN) == 3 and AGAIN not in text
    assert "Segmented." in text and dock.panel.progress.words.text() == "Done."
    assert [layer.name for layer in viewer.layers] == ["raw", "paint", "raw segmented"]
    np.testing.assert_array_equal(
        np.asarray(viewer.layers["raw segmented"].data), viewer.layers["raw"].data > 100
    )
    viewer.window.remove_dock_widget("all")


GOES_ON = "An earlier segmentation of 'raw' with these settings was not finished: it goes on where it was."


@pytest.fixture
def stopped(viewer: Any, qtbot: Any, fake: Any, model: Path) -> SegmentDock:
    """A dock whose segmentation was stopped after its first slice."""
    fake("half")
    dock = _dock(viewer, model)
    _tick(dock, "labels", "probabilities")

    def halt(event: object) -> None:
        if isinstance(event, TileDone):
            dock.panel.stop()

    dock.panel.happened.connect(halt)
    _click(qtbot, dock, dock.panel.start_button)
    dock.panel.happened.disconnect(halt)
    assert dock.panel.progress.words.text() == "Stopped."
    return dock


def test_a_stopped_segmentation_says_how_to_go_on(
    qtbot: Any, home: Path, sent: list[PredictJob], stopped: SegmentDock
) -> None:
    (run,) = home.iterdir()
    assert RunFolder(run).read_job() == sent[-1]
    sentence = "To go on with it: press Start again, or napari-unet run"
    assert stopped.panel.messages.text.endswith(f"{sentence} {run / 'job.yaml'}")
    _click(qtbot, stopped, stopped.panel.start_button)
    _click(qtbot, stopped, stopped.label_rows.button)
    assert stopped.panel.messages.text.count(sentence) == 1, "what is done has nothing to go on with"


def test_start_goes_on_with_a_segmentation_that_was_stopped(
    viewer: Any, qtbot: Any, home: Path, stopped: SegmentDock, sent: list[PredictJob]
) -> None:
    (run,) = home.iterdir()
    before = [layer.name for layer in viewer.layers]
    started: list[int] = []
    stopped.panel.happened.connect(
        lambda event: started.append(event.done) if isinstance(event, PredictStarted) else None
    )
    stopped.more.write({"tile_megapixels": 0.5})  # changes no pixel
    _click(qtbot, stopped, stopped.panel.start_button)
    assert GOES_ON in stopped.panel.messages.text and started == [1]
    assert list(home.iterdir()) == [run] and RunFolder(run).read_job() == sent[-1]
    assert [layer.name for layer in viewer.layers] == before
    np.testing.assert_array_equal(
        np.asarray(viewer.layers["raw segmented"].data), viewer.layers["raw"].data > 100
    )
    _click(qtbot, stopped, stopped.panel.start_button)
    assert stopped.panel.messages.text.count(GOES_ON) == 1, "what is done is not gone on with"
    assert len(list(home.iterdir())) == 2


def test_a_new_viewer_goes_on_with_a_run_whose_worker_died(
    viewer: Any, qtbot: Any, fake: Any, home: Path, model: Path
) -> None:
    fake("exit")
    _click(qtbot, dock := _dock(viewer, model), dock.panel.start_button)
    fake("run")
    viewer.window.remove_dock_widget(dock)
    workers_of(viewer)._command = fake("run")
    _click(qtbot, other := _dock(viewer, model), other.panel.start_button)
    assert GOES_ON in other.panel.messages.text and "Segmented." in other.panel.messages.text
    assert len(list(home.iterdir())) == 1


def test_kill_now_does_not_count_as_a_lack_of_memory(
    viewer: Any, qtbot: Any, fake: Any, model: Path, sent: list[PredictJob]
) -> None:
    fake("deaf")
    dock = _dock(viewer, model)
    dock.panel._grace.setInterval(50)
    notes: list[Path] = []

    def stop(event: object) -> None:
        if isinstance(event, TileDone) and not notes:
            notes.append(Path(sent[0].outputs[0].path).with_name(".labels.zarr.tile.json"))
            notes[0].write_text('{"megapixels": 1}')
            dock.panel.stop()

    dock.panel.happened.connect(stop)
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: dock.panel.stop_button.text() == "Kill now", timeout=TIMEOUT)
    qtbot.mouseClick(dock.panel.stop_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)
    assert "The worker was ended at once." in dock.panel.messages.text
    assert not notes[0].exists()


def _lock(run: Path) -> None:
    Lock(run / ".labels.zarr.lock").acquire()


def _chunk(job: PredictJob) -> Path:
    return min(Path(job.image.path).rglob("0/c/*/*/*"))


def test_an_image_is_copied_once_for_all_runs(
    viewer: Any, qtbot: Any, model: Path, sent: list[PredictJob]
) -> None:
    dock = _dock(viewer, model)
    _click(qtbot, dock, dock.panel.start_button)
    viewer.layers["raw"].name = "renamed"
    _click(qtbot, dock, dock.panel.start_button)
    viewer.layers["renamed"].data[0, 7, 7] += 1
    _click(qtbot, dock, dock.panel.start_button)
    for job, name in zip(sent, ("raw", "renamed", "renamed"), strict=True):
        assert Path(job.image.path) == Path(job.outputs[0].path).parent / "image" / f"{name}.zarr"
    first, second, third = (_chunk(job).stat().st_ino for job in sent)
    assert first == second != third
    np.testing.assert_array_equal(
        np.asarray(open_source(sent[2].image).array[...]), viewer.layers["renamed"].data
    )
    _chunk(sent[2]).touch()  # somebody may have changed it
    _click(qtbot, dock, dock.panel.start_button)
    assert _chunk(sent[3]).stat().st_ino != third
    shutil.rmtree(Path(sent[0].image.path))
    assert open_source(sent[1].image).array.shape == (5, 48, 40)


def test_where_a_disk_knows_no_links_a_copy_is_copied(
    viewer: Any, qtbot: Any, model: Path, sent: list[PredictJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    copy = shutil.copytree
    monkeypatch.setattr(
        snapshots.shutil,
        "copytree",
        lambda *args, **options: (monkeypatch.setattr(os, "link", refuse), copy(*args, **options))[1],
    )
    dock = _dock(viewer, model)
    for _ in range(2):
        _click(qtbot, dock, dock.panel.start_button)
    first, second = (_chunk(job) for job in sent)
    assert first.read_bytes() == second.read_bytes() and first.stat().st_ino != second.stat().st_ino


@pytest.mark.parametrize(
    "change",
    [
        lambda dock, run: dock.image.layer.data.__setitem__((4, 7, 7), 201),
        lambda dock, run: setattr(dock.image.layer, "scale", (3, 0.7, 0.7)),
        lambda dock, run: setattr(dock.image.axes, "value", "TYX"),
        lambda dock, run: dock.form.write({"average": True}),
        lambda dock, run: setattr(dock.region, "value", "slice"),
        lambda dock, run: _tick(dock, "labels"),
        lambda dock, run: dock.model.path.touch(),
        lambda dock, run: _lock(run),
        lambda dock, run: (run / "job.yaml").write_text("kind: nonsense"),
        lambda dock, run: shutil.rmtree(run / "image"),
        lambda dock, run: next((run / "image").rglob("0/c/*/*/*")).touch(),
    ],
    ids=["pixel", "scale", "axes", "setting", "region", "results", "model", "in use", "damaged", "no image", "image touched"],
)  # fmt: skip
def test_start_begins_anew_where_anything_is_different(
    qtbot: Any, home: Path, stopped: SegmentDock, change: Any
) -> None:
    (run,) = home.iterdir()
    change(stopped, run)
    _click(qtbot, stopped, stopped.panel.start_button)
    assert GOES_ON not in stopped.panel.messages.text
    assert stopped.panel.progress.words.text() == "Done." and len(list(home.iterdir())) == 2


@pytest.mark.parametrize(
    ("mode", "again", "sentence"),
    [("die", 3, "was killed by the system"), ("exit", 0, "exit code 3: a line for the log")],
)
def test_it_does_not_go_on_for_ever(
    viewer: Any, qtbot: Any, fake: Any, model: Path, mode: str, again: int, sentence: str, waits: list[str]
) -> None:
    fake(mode)
    dock = _dock(viewer, model)
    _click(qtbot, dock, dock.panel.start_button)
    assert waits.count(AGAIN) == again
    assert sentence in dock.panel.messages.text
    assert "To go on with it: press Start again, or napari-unet run" in dock.panel.messages.text
    assert dock.panel.progress.words.text() == "Ended with an error."
