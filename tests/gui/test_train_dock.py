"""The Train dock, driven by clicks, against the fake worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMainWindow
from superqt import QCollapsible

from napari_unet.events import StepDone, TrainStarted, Validated
from napari_unet.files.image import open_image, open_source
from napari_unet.gui.train_dock import TrainDock
from napari_unet.jobs import TrainJob

from .conftest import TIMEOUT


def _dock(viewer: Any) -> TrainDock:
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock, name="Train")
    return dock


def _click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def _start(qtbot: Any, dock: TrainDock) -> None:
    _click(qtbot, dock.panel.start_button)


def _wait_for(qtbot: Any, dock: TrainDock, text: str) -> None:
    qtbot.waitUntil(lambda: text in dock.panel.messages.text, timeout=TIMEOUT)


def _jobs(monkeypatch: pytest.MonkeyPatch) -> list[TrainJob]:
    """Collect the jobs that are sent."""
    from napari_unet.gui.client import WorkerClient

    sent: list[TrainJob] = []
    run = WorkerClient.run
    monkeypatch.setattr(WorkerClient, "run", lambda self, job: (sent.append(job), run(self, job))[1])
    return sent


def test_start_drives_bar_curves_and_messages(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setenv("FAKE_MODEL", str(model))
    jobs = _jobs(monkeypatch)
    dock = _dock(viewer)
    _start(qtbot, dock)
    assert not dock.panel.start_button.isEnabled()
    _wait_for(qtbot, dock, "Trained 40 steps.")
    dock.plot.redraw()
    steps, losses = dock.plot.losses
    assert steps[-1] == 40 and losses[0] == 1.0 and losses[-1] < 0.2
    assert dock.plot.scores[0] == [10, 20, 30, 40]
    assert "Training for 40 steps on CPU." in dock.panel.messages.text
    assert "Labels saved at" in dock.panel.messages.text
    assert str(model) in dock.panel.messages.text and not dock.segment_button.isHidden()
    assert dock.panel.start_button.isEnabled() and not dock.panel.stop_button.isEnabled()
    (job,) = jobs
    painted = open_image(job.labels[0].path)
    np.testing.assert_array_equal(np.asarray(painted.array), viewer.layers["paint"].data)
    assert (painted.pixel_size, painted.unit) == ({"Z": 3.0, "Y": 0.5, "X": 0.5}, "pixel")
    image = open_image(job.images[0].path, axes=job.images[0].axes)
    np.testing.assert_array_equal(np.asarray(image.array), viewer.layers["raw"].data)
    assert job.classes[0].value == 2 and job.train.steps == 0 and job.train.minutes == 10.0


def test_labels_are_on_disk_before_the_job_is_sent(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet.gui.client import WorkerClient

    seen: list[bool] = []
    run = WorkerClient.run
    monkeypatch.setattr(
        WorkerClient,
        "run",
        lambda self, job: (seen.append(Path(job.labels[0].path).is_file()), run(self, job))[1],
    )
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    assert seen == [True]


def test_the_model_is_offered_to_an_open_segment_dock(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    from napari_unet.gui.segment_dock import SegmentDock

    monkeypatch.setenv("FAKE_MODEL", str(model))
    segment = SegmentDock(viewer)
    viewer.window.add_dock_widget(segment, name="Segment (U-Net)")
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    assert segment.model.path == model
    assert dock.segment_button.isHidden()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v.layers["paint"].data.fill(0), "Labels 'paint' have no painted pixels."),
        (lambda v: v.layers["paint"].data.fill(7), "hold a single value, 7, on every pixel"),
        (lambda v: v.layers["paint"].data.__setitem__((0, 0, 0), -3), "hold negative values: -3"),
        (lambda v: setattr(v.layers["paint"], "data", np.ones((5, 48, 39), int)), "have shape (5, 48, 39) (ZYX) but image 'raw' has (5, 48, 40)"),
        (lambda v: setattr(v.layers["paint"], "data", v.layers["paint"].data.astype("i8") * 2**39), "hold 1,099,511,627,776, but labels are kept in files of values up to 4,294,967,295: number what you painted from 1 up."),
        (lambda v: v.layers.remove("paint"), "No labels layer is chosen."),
        (lambda v: v.layers.remove("raw"), "No image layer is chosen."),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_nothing_starts(
    viewer: Any, qtbot: Any, home: Path, monkeypatch: pytest.MonkeyPatch, change: Any, sentence: str
) -> None:
    jobs = _jobs(monkeypatch)
    dock = _dock(viewer)
    change(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, sentence)
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)
    assert not jobs and not home.exists()
    assert not psutil.Process().children() or all(
        "fake_worker" not in " ".join(c.cmdline()) for c in psutil.Process().children()
    )


def test_ignore_needs_a_painted_background(viewer: Any, qtbot: Any, home: Path) -> None:
    dock = _dock(viewer)
    assert dock.background.native.isHidden()
    dock.form["unpainted"].value = "ignore"
    assert not dock.background.native.isHidden()
    dock.background.value = 1
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "one of the painted values must mean background")
    assert not home.exists()


def test_a_run_folder_that_cannot_be_made_is_one_sentence(viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dock = _dock(viewer)
    dock.home.value = str(tmp_path / "file" / "below")
    _start(qtbot, dock)
    _wait_for(qtbot, dock, str(tmp_path / "file"))
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)


def test_start_while_running_is_refused(
    viewer: Any, qtbot: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("slow")
    jobs = _jobs(monkeypatch)
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Training for")
    _start(qtbot, dock)  # the button is off: the click does nothing
    dock.panel.start()
    assert dock.panel.messages.text.count("A training runs already") == 1
    assert len(jobs) == 1
    _click(qtbot, dock.panel.stop_button)
    _wait_for(qtbot, dock, "Trained")


def test_stop_keeps_the_result(viewer: Any, qtbot: Any, fake: Any) -> None:
    fake("slow")
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Training for")
    _click(qtbot, dock.panel.stop_button)
    assert dock.panel.stop_button.text() == "Stopping …"
    _wait_for(qtbot, dock, "Trained")
    assert dock.panel.progress.words.text() == "Stopped."
    assert not dock.panel.running


def test_kill_now_is_offered_and_kills(viewer: Any, qtbot: Any, fake: Any) -> None:
    fake("deaf")
    dock = _dock(viewer)
    dock.panel._grace.setInterval(50)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Training for")
    _click(qtbot, dock.panel.stop_button)
    qtbot.waitUntil(lambda: dock.panel.stop_button.text() == "Kill now", timeout=TIMEOUT)
    _click(qtbot, dock.panel.stop_button)
    _wait_for(qtbot, dock, "The worker was ended at once.")
    assert "killed by the system" not in dock.panel.messages.text
    assert not dock.panel.running


def test_killed_from_outside_is_one_sentence_and_the_viewer_lives(viewer: Any, qtbot: Any, fake: Any) -> None:
    fake("slow")
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Training for")
    os.kill(dock.panel._client.pid, signal.SIGKILL)
    _wait_for(qtbot, dock, "The worker process was killed by the system, most likely because memory ran out.")
    assert dock.panel.messages.text.count("worker process") == 1
    fake("run")
    dock._workers._clients[0]._command = fake("run")
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    assert len(viewer.layers) == 2


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("die", "was killed by the system"),
        ("exit", "exit code 3: a line for the log"),
        ("fail", "Something broke."),
    ],
)
def test_errors_are_shown_once_with_details(
    viewer: Any, qtbot: Any, fake: Any, mode: str, sentence: str
) -> None:
    fake(mode)
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, sentence)
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)
    assert dock.panel.messages.text.count(sentence) == 1
    assert not dock.panel.messages.copy_button.isHidden()
    _click(qtbot, dock.panel.messages.copy_button)
    from qtpy.QtGui import QGuiApplication

    copied = QGuiApplication.clipboard().text()
    assert sentence in copied and ("Traceback: line 1" if mode == "fail" else "a line for the log") in copied


def test_layers_may_go_while_training(viewer: Any, qtbot: Any, fake: Any) -> None:
    fake("slow")
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Training for")
    viewer.layers["paint"].name = "other"
    viewer.layers.remove("raw")
    viewer.layers.clear()
    _click(qtbot, dock.panel.stop_button)
    _wait_for(qtbot, dock, "Trained")


def test_closing_the_viewer_lets_the_worker_finish(
    viewer: Any, qtbot: Any, fake: Any, tmp_path: Path
) -> None:
    fake("slow", tmp_path / "checkpoint")
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Training for")
    pid = dock.panel._client.pid
    viewer.window._qt_window.close()
    del dock
    viewer.close()
    qtbot.waitUntil(lambda: (tmp_path / "checkpoint").exists(), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=TIMEOUT)


def test_closing_the_dock_stops_its_run(viewer: Any, qtbot: Any, fake: Any) -> None:
    fake("slow")
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Training for")
    pid = dock.panel._client.pid
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=TIMEOUT)
    dock.deleteLater()


def _seen(dock: TrainDock) -> bool:
    """Whether the messages are in view, all of them."""
    messages = dock.panel.messages._text
    top = messages.mapTo(dock, messages.rect().topLeft()).y()
    return top >= 0 and top + messages.height() <= dock.viewport().height()


@pytest.fixture
def shown(viewer: Any, qtbot: Any) -> Iterator[TrainDock]:
    """A dock in a window that is shown."""
    window, dock = QMainWindow(), TrainDock(viewer)
    qtbot.addWidget(window)
    window.setCentralWidget(dock)
    window.show()
    yield dock
    dock.setParent(None)


@pytest.mark.parametrize("advanced", [False, True])
def test_an_answer_comes_into_view_on_a_small_screen(
    viewer: Any, qtbot: Any, shown: TrainDock, advanced: bool
) -> None:
    dock = shown
    dock.parent().resize(430, 700)
    if advanced:
        dock.findChild(QCollapsible).expand(animate=False)
        dock.verticalScrollBar().setValue(0)
    paint = viewer.layers.pop(1)
    _start(qtbot, dock)
    assert "No labels layer is chosen." in dock.panel.messages.text
    qtbot.waitUntil(lambda: _seen(dock), timeout=TIMEOUT)
    viewer.add_layer(paint)
    dock.reset_choices()
    dock.verticalScrollBar().setValue(0)
    _click(qtbot, dock.check.check_button)
    _wait_for(qtbot, dock, "of the pixels are painted")
    qtbot.waitUntil(lambda: _seen(dock), timeout=TIMEOUT)
    assert not dock.plot.isVisible()
    dock.verticalScrollBar().setValue(0)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    assert dock.plot.isVisible()
    qtbot.waitUntil(lambda: _seen(dock), timeout=TIMEOUT)


def test_a_dock_that_can_show_all_does_not_scroll(qtbot: Any, shown: TrainDock) -> None:
    shown.plot.show()
    shown.parent().resize(430, 860)
    qtbot.waitUntil(lambda: shown.viewport().height() > 800, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: shown.verticalScrollBar().maximum() == 0, timeout=TIMEOUT)


def test_layers_at_another_place_are_warned_about(viewer: Any, qtbot: Any) -> None:
    viewer.layers["paint"].scale = (1, 1, 1)
    dock = _dock(viewer)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "lie at another place or scale")
    _wait_for(qtbot, dock, "Trained 40 steps.")


def test_axes_are_shown_and_can_be_chosen(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    assert dock.image.axes.value == "ZYX"
    assert dock.image.info.text() == "5 slices, 40 x 48 pixels, 1 channel, uint8"
    dock.image.axes.value = "CYX"
    assert dock.image.info.text() == "40 x 48 pixels, 5 channels, uint8"
    viewer.add_points(np.zeros((1, 3)))  # a new layer must not undo the choice
    assert dock.image.axes.value == "CYX"
    viewer.add_image(np.zeros((16, 20, 3), np.uint8), name="colour", rgb=True)
    dock.image.box.value = viewer.layers["colour"]
    assert dock.image.axes.value == "YXS" and "RGB" in dock.image.info.text()


def test_layer_lists_follow_the_viewer(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    viewer.add_labels(np.zeros((5, 48, 40), int), name="new")
    assert [layer.name for layer in dock.labels.choices] == ["paint", "new"]
    viewer.layers["new"].name = "renamed"
    assert "renamed" in [dock.labels.native.itemText(i) for i in range(dock.labels.native.count())]
    viewer.layers.remove("paint")
    assert dock.labels.value is viewer.layers["renamed"]


def test_settings_reach_the_job(viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = _jobs(monkeypatch)
    dock = _dock(viewer)
    dock.preset.value = "article"
    dock.unit.value = "steps"
    dock.steps.value = 123
    dock.more.write({"learning_rate": 3e-4})
    dock.more["not_finite"].value = "ignore"
    dock.form["name"].value = "Zellkerne ü / 漢"
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    (job,) = jobs
    assert job.network.filters == 64 and job.train.steps == 123 and job.train.learning_rate == 3e-4
    assert job.not_finite == "ignore" and job.name == "Zellkerne ü / 漢"
    assert Path(job.out).name.endswith("Zellkerne-ü-漢")


def test_what_is_left_open_is_open_in_the_job(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _jobs(monkeypatch)
    dock = _dock(viewer)
    assert dock.preset.native.itemText(0) == "automatic"
    assert dock.more["patch"].value == 256 and not dock.more["patch"].native.isEnabled()
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    (job,) = jobs
    assert job.network is None and job.start_from is None
    assert (job.train.patch, job.train.batch, job.train.precision) == (None, None, "auto")


def test_a_model_to_start_from_reaches_the_job(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    jobs = _jobs(monkeypatch)
    dock = _dock(viewer)
    dock.start_from.value = str(tmp_path / "gone.unet")
    _start(qtbot, dock)
    _wait_for(
        qtbot, dock, "gone.unet: does not exist: choose a model to start from, or leave Start from empty."
    )
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=TIMEOUT)
    assert not jobs
    dock.start_from.value = str(model)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    assert jobs[0].start_from == str(model)


def test_the_file_behind_a_layer_is_used_where_it_equals_it(
    viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _jobs(monkeypatch)
    path = tmp_path / "raw.tif"
    pixels = np.random.default_rng(1).integers(0, 99, (48, 40), np.uint8)
    tifffile.imwrite(
        path, pixels, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    )
    (layer,) = viewer.open(path, plugin="napari")
    paint = viewer.add_labels((pixels > 50).astype(int), name="on file")
    dock = _dock(viewer)
    dock.image.box.value, dock.labels.value = layer, paint
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    layer.data[0, 0] += 1  # now the layer is no longer the file
    _start(qtbot, dock)
    qtbot.waitUntil(lambda: dock.panel.messages.text.count("Trained 40 steps.") == 2, timeout=TIMEOUT)
    first, second = jobs
    assert first.images[0].path == str(path)
    assert Path(second.images[0].path).parent == Path(second.out) / "image"
    labels = open_image(first.labels[0].path)
    assert (labels.pixel_size, labels.unit) == ({"Y": 0.25, "X": 0.25}, "micrometer")


@pytest.fixture
def two(viewer: Any) -> Any:
    """A viewer with a second stack, of another size and pixel size, painted with a value of its own."""
    pixels = np.random.default_rng(2).integers(0, 200, (3, 30, 62), dtype=np.uint8)
    paint = np.zeros(pixels.shape, np.int32)
    paint[0, 4:9, 4:40] = 5
    viewer.add_image(pixels, name="raw 2", scale=(2, 0.25, 0.25))
    viewer.add_labels(paint, name="paint 2", scale=(2, 0.25, 0.25))
    return viewer


def _add(qtbot: Any, dock: TrainDock) -> Any:
    _click(qtbot, dock.pairs.add_button)
    return dock.pairs.rows[-1]


def test_two_images_of_different_sizes_are_trained_on(
    two: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _jobs(monkeypatch)
    dock = _dock(two)
    dock.image.box.value, dock.labels.value = two.layers["raw"], two.layers["paint"]
    dock.image.axes.value = "TYX"
    row = _add(qtbot, dock)
    assert (row.image.value, row.labels.value) == (two.layers["raw 2"], two.layers["paint 2"])
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    (job,) = jobs
    assert [source.name for source in (*job.images, *job.labels)] == ["raw", "raw 2", "paint", "paint 2"]
    assert [info.value for info in job.classes] == [2, 5]
    for source, name in zip((*job.images, *job.labels), ("raw", "raw 2", "paint", "paint 2"), strict=True):
        there = open_image(source.path, axes=source.axes)
        assert there.axes == "TYX"
        np.testing.assert_array_equal(np.asarray(there.array), two.layers[name].data)
    assert [open_image(source.path).pixel_size["X"] for source in job.images] == [0.5, 0.25]


def test_an_added_row_can_be_removed(two: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = _jobs(monkeypatch)
    dock = _dock(two)
    dock.image.box.value, dock.labels.value = two.layers["raw"], two.layers["paint"]
    row, empty = _add(qtbot, dock), _add(qtbot, dock)
    assert (empty.image.value, empty.labels.value) == (None, None)
    for gone in (empty, row):
        _click(qtbot, gone.remove_button)
    assert not dock.pairs.rows
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    assert [source.name for source in (*jobs[0].images, *jobs[0].labels)] == ["raw", "paint"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v, r: (setattr(r.image, "value", v.layers["raw"]), setattr(r.labels, "value", v.layers["paint"])), "Image 'raw' with labels 'paint' is chosen twice."),
        (lambda v, r: v.layers.remove("raw 2"), "No image layer is chosen in an added row."),
        (lambda v, r: v.layers.remove("paint 2"), "choose it for image 'raw 2'."),
        (lambda v, r: setattr(r.labels, "value", v.layers["paint"]), "Labels 'paint' have shape (5, 48, 40) (ZYX) but image 'raw 2' has (3, 30, 62) (ZYX)."),
        (lambda v, r: setattr(r.image, "value", v.add_image(np.zeros((3, 30, 62, 3), np.uint8), name="colour", rgb=True)), "Image 'colour' has 3 channels, but 'raw' has 1."),
    ],
)  # fmt: skip
def test_added_layers_that_do_not_fit_are_refused(
    two: Any, qtbot: Any, home: Path, monkeypatch: pytest.MonkeyPatch, change: Any, sentence: str
) -> None:
    jobs = _jobs(monkeypatch)
    dock = _dock(two)
    dock.image.box.value, dock.labels.value = two.layers["raw"], two.layers["paint"]
    change(two, _add(qtbot, dock))
    _start(qtbot, dock)
    assert sentence in dock.panel.messages.text
    assert not dock.panel.running and not jobs and not home.exists()


def _add_pixels(viewer: Any, shape: tuple[int, ...], painted: tuple[int, ...], **looks: Any) -> None:
    """Add an image and its labels, called "more" and "more paint"."""
    pixels = np.random.default_rng(3).integers(0, 200, shape, dtype=np.uint8)
    paint = np.zeros(painted, np.int32)
    paint[..., 4:9, 4:9] = 2
    viewer.add_image(pixels, name="more", **looks)
    viewer.add_labels(paint, name="more paint")


@pytest.mark.parametrize(
    ("first", "first_axes", "added", "looks", "axes", "painted"),
    [
        ((24, 20), "YX", (3, 24, 20), {}, "ZYX", (3, 24, 20)),  # a stack beside a picture
        ((3, 24, 20), "CYX", (4, 3, 24, 20), {}, "ZCYX", (4, 24, 20)),  # channels in a stack
        ((3, 24, 20), "CYX", (24, 20, 3), {}, "YXC", (24, 20)),  # channels last
        ((3, 24, 20), "CYX", (24, 20, 3), {"rgb": True}, "YXS", (24, 20)),  # colours as channels
        ((2, 3, 24, 20), "TCYX", (3, 24, 20), {}, "CYX", (24, 20)),  # one point in time
    ],
)
def test_an_added_image_is_read_with_the_channels_of_the_first(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch,
    first: tuple[int, ...], first_axes: str, added: tuple[int, ...], looks: Any, axes: str, painted: tuple[int, ...],
) -> None:  # fmt: skip
    jobs = _jobs(monkeypatch)
    pixels = np.random.default_rng(4).integers(0, 200, first, dtype=np.uint8)
    viewer.layers["raw"].data = pixels
    viewer.layers["paint"].data = np.ones(
        [n for n, a in zip(first, first_axes, strict=True) if a != "C"], int
    )
    viewer.layers["paint"].data[..., :9] = 2
    _add_pixels(viewer, added, painted, **looks)
    dock = _dock(viewer)
    dock.image.box.value, dock.labels.value = viewer.layers["raw"], viewer.layers["paint"]
    row = _add(qtbot, dock)
    dock.image.axes.value = first_axes
    assert row.image.value.name == "more" and row.axes.value == axes
    assert row.axes.native.isHidden() == (looks != {})
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    stacks = [open_source(source).stack for source in jobs[0].images]
    assert stacks[1].shape[3] == stacks[0].shape[3]
    assert stacks[1].out_shape == painted


def test_axes_of_an_added_image_can_be_chosen(
    viewer: Any, qtbot: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _jobs(monkeypatch)
    _add_pixels(viewer, (5, 5, 24, 20), (5, 24, 20))
    dock = _dock(viewer)
    dock.image.box.value, dock.labels.value = viewer.layers["raw"], viewer.layers["paint"]
    row = _add(qtbot, dock)
    assert row.axes.value == "TZYX"
    _start(qtbot, dock)
    assert "Labels 'more paint' have shape (5, 24, 20) (ZYX) but image 'more' has (5, 5, 24, 20) (TZYX)." in (
        dock.panel.messages.text
    )
    row.axes.value = "ZCYX"
    viewer.add_points(np.zeros((1, 3)))  # a new layer must not undo the choice
    _start(qtbot, dock)
    assert "Image 'more' has 5 channels, but 'raw' has 1." in dock.panel.messages.text
    assert not dock.panel.running and not jobs and not home.exists()
    row.image.value = viewer.layers["raw"]
    assert row.axes.value == "ZYX"


def test_chosen_layers_stay_chosen_under_another_name(two: Any, qtbot: Any) -> None:
    dock = _dock(two)
    dock.image.box.value, dock.labels.value = two.layers["raw 2"], two.layers["paint 2"]
    dock.image.axes.value = "TYX"
    row = _add(qtbot, dock)
    chosen = dock.pairs.layers()
    for layer in list(two.layers):
        layer.name = f"{layer.name} renamed"
    two.add_image(np.zeros((8, 8)), name="more")
    assert dock.pairs.layers() == chosen and dock.image.axes.value == "TYX"
    assert row.image.native.currentText() == "raw renamed"
    assert "more" in [layer.name for layer in row.image.choices if layer]


def test_a_training_that_begins_anew_draws_its_own_curve(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    for step in range(1, 31):
        dock._on_event(StepDone(step, 100, 1.0, 0.0))
    dock._on_event(Validated(30, 1.0, 0.5, True))
    dock._on_event(TrainStarted("run", 0, 100, "CPU"))
    dock._on_event(StepDone(1, 100, 0.7, 0.0))
    dock.plot.redraw()
    assert dock.plot.losses == ([1], [pytest.approx(0.7)]) and dock.plot.scores == ([], [])
    dock._on_event(TrainStarted("run", 1, 100, "CPU"))  # goes on
    dock.plot.redraw()
    assert dock.plot.losses[0] == [1]


def test_where_objects_are_learned_their_precision_is_drawn(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    axis = dock.plot._plot.getPlotItem().getAxis("right")
    dock._on_event(Validated(10, 1.0, 0.9, True, 0.4))
    dock._on_event(Validated(20, 0.9, 0.8, True, 0.6))
    dock.plot.redraw()
    assert dock.plot.scores == ([10, 20], [0.4, 0.6]) and axis.labelText == "AP at IoU 0.5"
    dock._on_event(TrainStarted("run", 0, 100, "CPU"))
    dock._on_event(Validated(10, 1.0, 0.9, True))
    dock.plot.redraw()
    assert dock.plot.scores == ([10], [0.9]) and axis.labelText == "score (mean Dice)"


def test_labels_are_all_saved_before_an_image_is_copied(
    two: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet.gui import requests

    seen: list[int] = []
    save = requests.readable
    monkeypatch.setattr(
        requests,
        "readable",
        lambda image, home, folder, *rest: (
            seen.append(len(list((folder / "labels").iterdir()))),
            save(image, home, folder, *rest),
        )[1],
    )
    dock = _dock(two)
    _add(qtbot, dock)
    _start(qtbot, dock)
    _wait_for(qtbot, dock, "Trained 40 steps.")
    assert seen == [2, 2]


def test_check_labels_looks_at_every_pair(two: Any, qtbot: Any) -> None:
    dock = _dock(two)
    _add(qtbot, dock)
    seen = dock._request().preview(lambda sentence, *, warning=False: None, lambda: False)
    assert {example.group for example in seen.dataset.examples} == {0, 1}
