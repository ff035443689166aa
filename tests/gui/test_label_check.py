"""The buttons that look at labels before training, in a real viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt

from napari_unet.files.image import open_source
from napari_unet.gui.train_dock import TrainDock
from napari_unet.label_check import check_opened

from .conftest import TIMEOUT


def _dock(viewer: Any) -> TrainDock:
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock, name="Train")
    return dock


def _press(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(button.isEnabled, timeout=TIMEOUT)


def _paint(viewer: Any, values: dict[int, tuple[slice, slice]]) -> None:
    labels = viewer.layers["paint"]
    data = np.zeros_like(labels.data)
    for value, where in values.items():
        data[(0, *where)] = value
    labels.data = data


def test_check_says_what_is_wrong_with_its_numbers(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    _paint(viewer, {})
    _press(qtbot, dock.check.check_button)
    assert "no painted pixels" in dock.panel.messages.text
    assert not dock.panel.running


def test_check_passes_good_labels(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    _paint(viewer, {1: (slice(4, 60), slice(4, 30)), 2: (slice(4, 60), slice(34, 60))})
    dock.form["unpainted"].value = "ignore"
    dock.background.value = 1
    dock.form["target"].value = "classes"
    _press(qtbot, dock.check.check_button)
    assert "Nothing in the labels looks wrong." in dock.panel.messages.text
    assert "A network of 16 filters: without a GPU" in dock.panel.messages.text
    assert "a GPU is looked for when training begins" in dock.panel.messages.text


def test_start_leaves_it_to_the_worker_to_speak_of_layers_by_their_names(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    _paint(viewer, {1: (slice(4, 60), slice(30, 33))})  # a thin stroke, the rest taken for background
    _press(qtbot, dock.check.check_button)
    (warning,) = [line for line in dock.panel.messages.text.splitlines() if "stroke" in line]
    sentences: list[str] = []
    job = dock._request().prepare(
        lambda sentence, *, warning=False: sentences.append(sentence), lambda: False
    )
    assert [sentence.split()[:2] for sentence in sentences] == [["Labels", "saved"]]
    found = check_opened([open_source(job.images[0])], [open_source(job.labels[0])])
    assert str(found.of("warning")[0]) in warning
    assert [open_source(source).name for source in (*job.images, *job.labels)] == ["raw", "paint"]


def test_the_variation_is_shown(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    _press(qtbot, dock.check.picture_button)
    pixmap = dock.check.dialog.picture.pixmap()
    assert dock.check.dialog.isVisible()
    assert pixmap.width() == 3 * 48 + 4 * 6  # the patch that would be chosen: the image is 48 pixels high
    assert not dock.check.dialog.grab().isNull()
    dock.check.dialog.close()


def test_no_labels_layer_is_said(viewer: Any, qtbot: Any) -> None:
    dock = _dock(viewer)
    viewer.layers.remove("paint")
    qtbot.mouseClick(dock.check.picture_button, Qt.MouseButton.LeftButton)
    assert "No labels layer is chosen." in dock.panel.messages.text
