"""The Segment dock, driven by clicks, against the fake worker."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import dask.array
import imagecodecs
import numpy as np
import pytest
from napari.layers import Image
from napari.layers._source import layer_source
from napari.plugins import menu_item_template
from npe2 import PluginManifest
from qtpy.QtCore import Qt

from napari_unet.files.image import open_source
from napari_unet.gui import segment_dock, snapshot
from napari_unet.gui.segment_dock import SegmentDock, find_segment_dock, offer_model
from napari_unet.gui.snapshot import Stopped

from .conftest import TIMEOUT


def _dock(viewer: Any, model: Path | None = None) -> SegmentDock:
    dock = SegmentDock(viewer)
    viewer.window.add_dock_widget(dock, name="Segment (U-Net)")
    if model is not None:
        dock.choose_model(model)
    return dock


def _run(qtbot: Any, dock: SegmentDock) -> None:
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(
        lambda: "Segmented." in dock.panel.messages.text and not dock.panel.running, timeout=TIMEOUT
    )


def _refused(qtbot: Any, dock: SegmentDock, sentence: str, home: Path) -> None:
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: sentence in dock.panel.messages.text, timeout=TIMEOUT)
    assert not dock.panel.running and not home.exists()


def test_the_result_lies_where_its_source_does(viewer: Any, qtbot: Any, model: Path) -> None:
    raw = viewer.layers["raw"]
    raw.rotate = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
    raw.affine = np.array([[1, 0, 0, 5], [0, 1, 0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    raw.units, raw.axis_labels = ("um", "um", "um"), ("z", "y", "x")
    dock = _dock(viewer, model)
    dock.results.boxes["probabilities"].value = True
    _run(qtbot, dock)
    for name in ("raw segmented", "raw probability"):
        result = viewer.layers[name]
        for attribute in ("scale", "translate", "rotate", "shear"):
            np.testing.assert_allclose(getattr(result, attribute), getattr(raw, attribute), atol=1e-12)
        np.testing.assert_allclose(result.affine.affine_matrix, raw.affine.affine_matrix)
        assert result.units == raw.units and result.axis_labels == raw.axis_labels
    np.testing.assert_array_equal(np.asarray(viewer.layers["raw segmented"].data), raw.data > 100)


def test_an_image_may_be_called_as_a_result_is(viewer: Any, qtbot: Any, model: Path) -> None:
    viewer.layers["raw"].name = "labels"
    dock = _dock(viewer, model)
    _run(qtbot, dock)
    assert "labels segmented" in viewer.layers


def test_names_and_colours_come_from_the_card(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    _run(qtbot, dock)
    result = viewer.layers["raw segmented"]
    assert result.features["class"].tolist() == ["background", "cell"]
    np.testing.assert_allclose(result.get_color(1), (0, 1, 0, 1))
    assert not result.editable


def _filling(viewer: Any, qtbot: Any, dock: SegmentDock) -> Any:
    """Begin a segmentation whose worker waits after its first slice; return the layer once that slice is drawn."""
    viewer.dims.set_current_step(0, 0)
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    wanted = viewer.layers["raw"].data[0] > 100

    def drawn() -> bool:
        return "raw segmented" in viewer.layers and np.array_equal(
            np.asarray(viewer.layers["raw segmented"]._slice.image.raw), wanted
        )

    qtbot.waitUntil(drawn, timeout=TIMEOUT)
    assert dock.panel.running
    return viewer.layers["raw segmented"]


def test_what_is_there_is_drawn_while_the_rest_is_computed(
    viewer: Any, qtbot: Any, fake: Any, model: Path
) -> None:
    fake("half")
    dock = _dock(viewer, model)
    result = _filling(viewer, qtbot, dock)
    assert not np.asarray(result.data)[1:].any()
    dock.panel.stop()
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)


def test_what_is_seen_fills_in_and_can_be_saved(viewer: Any, qtbot: Any, model: Path, tmp_path: Path) -> None:
    dock = _dock(viewer, model)
    _run(qtbot, dock)
    viewer.dims.set_current_step(0, 2)
    result = viewer.layers["raw segmented"]
    shown = result._slice.image.raw  # what napari draws
    np.testing.assert_array_equal(np.asarray(shown), viewer.layers["raw"].data[2] > 100)
    (saved,) = result.save(str(tmp_path / "out.tif"), plugin="napari")
    assert Path(saved).exists()


def test_visible_slice_and_drawn_shape_limit_the_window(
    viewer: Any, qtbot: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet.gui.client import WorkerClient

    jobs: list[Any] = []
    run = WorkerClient.run
    monkeypatch.setattr(WorkerClient, "run", lambda self, job: (jobs.append(job), run(self, job))[1])
    dock = _dock(viewer, model)
    dock.region.value = "slice"
    assert dock.shapes.native.isHidden()
    viewer.dims.set_current_step(0, 3)
    _run(qtbot, dock)
    raw = viewer.layers["raw"]
    viewer.add_shapes(
        [np.array([[1.0, 4, 6], [1, 4, 20], [1, 30, 20], [1, 30, 6]])],
        shape_type="polygon",
        scale=raw.scale,
        translate=raw.translate,
    )
    dock.region.value = "shape"
    assert not dock.shapes.native.isHidden()
    dock.panel.messages._text.clear()
    _run(qtbot, dock)
    assert jobs[0].window == ((3, 4), (0, 48), (0, 40))
    assert jobs[1].window == ((1, 2), (4, 31), (6, 21))


def test_bad_requests_are_refused(viewer: Any, qtbot: Any, home: Path, model: Path) -> None:
    dock = _dock(viewer)
    _refused(qtbot, dock, "No model is chosen.", home)
    dock.choose_model(model)
    dock.results.boxes["labels"].value = False
    _refused(qtbot, dock, "No result is asked for.", home)
    dock.results.boxes["labels"].value = True
    dock.region.value = "shape"
    _refused(qtbot, dock, "No shapes layer is chosen.", home)
    viewer.add_shapes(name="drawn", ndim=3)
    _refused(qtbot, dock, "Shapes layer 'drawn' is empty.", home)
    dock.region.value = "all"
    dock.image.axes.value = "CYX"
    _refused(qtbot, dock, "trained on images of 1 channel, but image 'raw' has 5", home)
    viewer.layers.remove("raw")
    _refused(qtbot, dock, "No image layer is chosen.", home)


def test_chosen_layers_stay_chosen_under_another_name(viewer: Any, model: Path) -> None:
    image = viewer.add_image(np.zeros((5, 48, 40), np.uint8), name="second")
    viewer.add_shapes(name="drawn", ndim=3)
    shapes = viewer.add_shapes(name="drawn too", ndim=3)
    dock = _dock(viewer, model)
    dock.image.box.value, dock.shapes.value = image, shapes
    dock.image.axes.value = "TYX"
    for layer in list(viewer.layers):
        layer.name = f"{layer.name} renamed"
    assert (dock.image.layer, dock.shapes.value) == (image, shapes)
    assert dock.image.axes.value == "TYX"
    assert dock.image.box.native.currentText() == "second renamed"
    viewer.layers.remove(image)
    assert dock.image.layer is viewer.layers["raw renamed"]
    assert dock.image.axes.value == "ZYX"


def test_a_colour_image_is_refused_with_a_way_out(viewer: Any, qtbot: Any, home: Path, model: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (32, 24, 3), np.uint8)
    viewer.add_image(pixels, name="colour", scale=(2, 2), rgb=True)
    dock = _dock(viewer, model)
    dock.image.box.value = viewer.layers["raw"]
    assert dock.grey_button.isHidden()
    dock.image.box.value = viewer.layers["colour"]
    assert not dock.grey_button.isHidden()
    _refused(qtbot, dock, 'press "Convert the image to grey"', home)
    qtbot.mouseClick(dock.grey_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "colour grey" in viewer.layers, timeout=TIMEOUT)
    grey = viewer.layers["colour grey"]
    assert grey.data.shape == (32, 24) and dock.image.layer is grey
    np.testing.assert_allclose(grey.scale, (2, 2))
    np.testing.assert_allclose(grey.data, pixels @ [0.299, 0.587, 0.114], atol=1)
    assert dock.grey_button.isHidden()
    _run(qtbot, dock)


def test_a_colour_image_reaches_the_worker_whole(tmp_path: Path) -> None:
    from napari_unet.data.axes import Stack
    from napari_unet.gui.snapshot import Snapshot, save_copy

    for axes, shape in (
        ("YXS", (9, 700, 3)),
        ("TYXS", (2, 9, 7, 3)),
        ("TZCYX", (2, 3, 2, 9, 7)),
        ("ZYX", (2, 9, 7)),
        ("CYX", (3, 9, 7)),
    ):
        pixels = np.random.default_rng(0).integers(0, 60_000, shape, np.uint16).astype(">u2")
        folder = tmp_path / axes
        folder.mkdir()
        before = Stack(pixels, axes)
        source = save_copy(Snapshot(before, {"Y": 2.0, "X": 2.0}, "micrometer", None), folder, lambda: False)
        after = open_source(source).stack
        assert after.shape == before.shape and after.slice_shape == before.slice_shape
        for n in range(before.shape[0]):
            np.testing.assert_array_equal(after.read(n), before.read(n))


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "was not written, because the disk is full"),
        (Stopped(), "Stopped before it began."),
    ],
)
def test_a_copy_that_does_not_come_to_its_end_is_removed(
    viewer: Any, qtbot: Any, home: Path, model: Path, monkeypatch: pytest.MonkeyPatch,
    refusal: Exception, sentence: str,
) -> None:  # fmt: skip
    class Target:
        """Takes one chunk of two."""

        def __init__(self, array: Any) -> None:
            self.array, self.left = array, 1

        def __setitem__(self, key: Any, value: Any) -> None:
            self.left -= 1
            if self.left < 0:
                raise refusal
            self.array[key] = value

    create = snapshot._create
    monkeypatch.setattr(snapshot, "_create", lambda *a: (Target((made := create(*a))[0]), made[1]))
    dock = _dock(viewer, model)
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)
    assert sentence in dock.panel.messages.text
    assert "unexpected" not in dock.panel.messages.text
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("layer", "file", "worker"),
    [
        (({"Y": 0.5, "X": 0.5}, "micrometer"), ({}, "pixel"), ({"Y": 0.5, "X": 0.5}, "micrometer")),
        (
            ({"Y": 0.5, "X": 0.5}, "micrometer"),
            ({"Y": 9, "X": 9}, "meter"),
            ({"Y": 0.5, "X": 0.5}, "micrometer"),
        ),
        (({}, "pixel"), ({"Y": 9, "X": 9}, "meter"), ({"Y": 9, "X": 9}, "meter")),
        (({"Y": 4, "X": 1}, "pixel"), ({"Y": 9, "X": 9}, "meter"), ({"Y": 9, "X": 9}, "meter")),
        (({"Y": 4, "X": 1}, "pixel"), ({}, "pixel"), ({"Y": 4, "X": 1}, "pixel")),
    ],
)
def test_the_worker_knows_the_pixel_size_of_the_layer(
    tmp_path: Path, layer: tuple[dict, str], file: tuple[dict, str], worker: tuple[dict, str]
) -> None:
    from napari_unet.data.axes import Stack
    from napari_unet.files.tiff import write_tiff
    from napari_unet.gui.snapshot import Snapshot, own_file, with_file_pixel_size

    path, pixels = tmp_path / "cells.ome.tif", np.zeros((9, 7), np.uint8)
    write_tiff(path, pixels, "YX", pixel_size=file[0], unit=file[1])
    snapshot = with_file_pixel_size(Snapshot(Stack(pixels, "YX"), *layer, path))
    source = own_file(snapshot, lambda: False)
    assert source is not None
    image = open_source(source)
    assert source.path == str(path)
    assert (image.pixel_size, image.unit) == (pytest.approx(worker[0]), worker[1])


def test_a_model_that_cannot_be_read_says_why(viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.unet").write_bytes(b"no model")
    dock = _dock(viewer, tmp_path / "broken.unet")
    assert "broken.unet" in dock.panel.messages.text
    assert dock.model.box.value is None


def test_the_card_is_shown(viewer: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    assert dock.model.info.text() == (
        "2 classes: background, cell. 1 channel, pixels of 0.5 micrometer. 1 filter; mean Dice 0.91 on held-out paint."
    )


def test_models_of_former_runs_are_remembered(viewer: Any, home: Path, model: Path) -> None:
    for name in ("2026-01-01-120000-old", "2026-02-01-120000-new"):
        (home / name).mkdir(parents=True)
        (home / name / "model.unet").write_bytes(model.read_bytes())
    dock = _dock(viewer)
    assert [path.parent.name for path in dock.model.box.choices] == [
        "2026-02-01-120000-new",
        "2026-01-01-120000-old",
    ]
    assert dock.model.card is not None


def test_of_two_models_with_one_name_each_can_be_chosen(viewer: Any, model: Path) -> None:
    other = model.parent / "other" / model.name
    other.parent.mkdir()
    other.write_bytes(model.read_bytes())
    dock = _dock(viewer, model)
    assert dock.model.box.current_choice == "cells"
    dock.choose_model(other)
    assert dock.model.path == other
    assert dock.model.box.current_choice == f"cells in {other.parent}"
    dock.model.box.value = model
    assert dock.model.path == model
    dock.choose_model(other)
    assert dock.model.path == other and len(dock.model.box.choices) == 2


def test_offer_model_opens_or_finds_the_dock(viewer: Any, qtbot: Any, model: Path) -> None:
    assert find_segment_dock(viewer) is None
    offer_model(model)
    dock = find_segment_dock(viewer)
    assert dock is not None and dock.model.path == model
    manifest = PluginManifest.from_file(Path(__file__).parents[2] / "napari.yaml")
    (name,) = [w.display_name for w in manifest.contributions.widgets if w.command == "napari-unet.segment"]
    by_menu = menu_item_template.format(manifest.display_name, name)
    assert by_menu in viewer.window.dock_widgets, "napari's menu would open another"
    offer_model(str(model))
    assert find_segment_dock(viewer) is dock
    assert dock.model.box.choices.count(model) == 1


def test_the_source_may_go_while_segmenting(viewer: Any, qtbot: Any, model: Path) -> None:
    dock = _dock(viewer, model)
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: "Segmented." in dock.panel.messages.text, timeout=TIMEOUT)
    assert [layer.name for layer in viewer.layers] == ["raw segmented"]
    np.testing.assert_allclose(viewer.layers[0].scale, (3, 0.5, 0.5))


def test_the_result_layer_may_go_while_it_fills(viewer: Any, qtbot: Any, fake: Any, model: Path) -> None:
    fake("half")
    dock = _dock(viewer, model)
    viewer.layers.remove(_filling(viewer, qtbot, dock))
    dock.panel.stop()
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)
    _run(qtbot, dock)  # goes on


def test_segmenting_while_training_takes_a_second_worker(
    viewer: Any, qtbot: Any, fake: Any, model: Path
) -> None:
    from napari_unet.gui.train_dock import TrainDock

    fake("slow")
    train = TrainDock(viewer)
    viewer.window.add_dock_widget(train, name="Train")
    train.panel.start()
    qtbot.waitUntil(lambda: "Training for" in train.panel.messages.text, timeout=TIMEOUT)
    dock = _dock(viewer, model)
    _run(qtbot, dock)
    assert train.panel.running
    train.panel.stop()
    qtbot.waitUntil(lambda: not train.panel.running, timeout=TIMEOUT)


@pytest.mark.parametrize("name", ["TrainDock", "SegmentDock"])
def test_a_dock_opens_in_the_viewer_that_plugins_get(
    make_napari_viewer_proxy: Any, fake: Any, name: str, qtbot: Any
) -> None:
    from napari_unet.gui import segment_dock, train_dock

    viewer = make_napari_viewer_proxy()
    cls = {"TrainDock": train_dock.TrainDock, "SegmentDock": segment_dock.SegmentDock}[name]
    dock = cls(viewer)
    viewer.window.add_dock_widget(dock, name=name)
    viewer.add_image(np.zeros((9, 8)), name="late")
    assert dock.image.layer.name == "late"
    assert dock.image.info.text() == "8 x 9 pixels, 1 channel, float64"


def test_a_grey_copy_is_made_once_and_of_the_image_that_was_chosen(
    viewer: Any, qtbot: Any, model: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (32, 24, 3), np.uint8)
    one = viewer.add_image(pixels, name="one", rgb=True)
    other = viewer.add_image(255 - pixels, name="other", rgb=True)
    dock = _dock(viewer, model)
    dock.image.box.value = one
    qtbot.mouseClick(dock.grey_button, Qt.MouseButton.LeftButton)
    dock.image.box.value = other
    qtbot.mouseClick(dock.grey_button, Qt.MouseButton.LeftButton)  # not before the first is there
    qtbot.waitUntil(lambda: "one grey" in viewer.layers, timeout=TIMEOUT)
    dock.image.box.value = other
    qtbot.mouseClick(dock.grey_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "other grey" in viewer.layers, timeout=TIMEOUT)
    weights = [0.299, 0.587, 0.114]
    np.testing.assert_allclose(viewer.layers["one grey"].data, pixels @ weights, atol=1)
    np.testing.assert_allclose(viewer.layers["other grey"].data, (255 - pixels) @ weights, atol=1)
    assert [layer.name for layer in viewer.layers if "grey" in layer.name] == ["one grey", "other grey"]


def test_a_grey_copy_that_fails_can_be_tried_again(
    viewer: Any, qtbot: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        shape, dtype, ndim = (32, 24, 3), np.dtype(np.uint8), 3

        def __getitem__(self, key: object) -> np.ndarray:
            raise OSError("the drive is gone")

    layer = viewer.add_image(np.zeros((32, 24, 3), np.uint8), name="colour", rgb=True)
    dock = _dock(viewer, model)
    dock.image.box.value = layer
    monkeypatch.setattr(segment_dock, "level0", lambda layer: Broken())
    qtbot.mouseClick(dock.grey_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "the drive is gone" in dock.panel.messages.text, timeout=TIMEOUT)
    assert dock.grey_button.isEnabled()


@pytest.mark.parametrize("lazy", [False, True])
def test_alpha_is_left_out(tmp_path: Path, lazy: bool) -> None:
    from napari_unet.gui.layers import describe, read_image
    from napari_unet.gui.snapshot import own_file

    pixels = np.random.default_rng(0).integers(0, 200, (32, 24, 4), np.uint8)
    pixels[..., 3] = 255
    path = tmp_path / "colour.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    with layer_source(path=str(path)):
        layer = Image(dask.array.from_array(pixels) if lazy else pixels, rgb=True)
    snapshot = read_image(layer)
    assert snapshot.stack.shape == (1, 32, 24, 3) and "RGB" in describe(snapshot)
    source = own_file(snapshot, lambda: False)
    assert source is not None and source.path == str(path)
    assert open_source(source).stack.shape == snapshot.stack.shape
    layer.data = np.dstack([pixels[..., :3], pixels[..., 0]])
    assert read_image(layer).stack.shape == (1, 32, 24, 3)


def test_runs_are_kept_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for said, meant in (("", "napari-unet"), ("~/here", "here"), ("there", "there")):
        monkeypatch.setenv("NAPARI_UNET_HOME", said)
        assert snapshot.runs_home() == tmp_path / meant


def test_a_chunk_is_read_once_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_unet.data.axes import Stack

    class Pages:
        """An array that is stored in pages of a slice, as TIFF is."""

        def __init__(self, pixels: np.ndarray) -> None:
            self.pixels, self.shape, self.dtype, self.ndim = pixels, pixels.shape, pixels.dtype, pixels.ndim
            self.chunks, self.reads = (1, *pixels.shape[1:]), 0

        def __getitem__(self, key: Any) -> np.ndarray:
            self.reads += 1
            return self.pixels[key]

    pages = Pages(np.random.default_rng(0).integers(0, 99, (2, 1100, 700), np.uint8))
    image = snapshot.Snapshot(Stack(pages, "ZYX"), {}, "pixel", None)
    source = snapshot.save_copy(image, tmp_path, lambda: False)
    assert pages.reads == 2
    np.testing.assert_array_equal(np.asarray(open_source(source).array[...]), pages.pixels)
    monkeypatch.setattr(snapshot, "_PIECE", 512 * 1024)  # of what is too large, a part
    snapshot.save_copy(image, tmp_path, lambda: False, number=1)
    assert pages.reads == 2 + 2 * 3
