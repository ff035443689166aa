"""A user's first session, in a real viewer with the real worker: paint with the mouse, train, segment, save, reopen.

Set NAPARI_UNET_SCREENSHOTS to a folder to keep a picture of each step.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from scipy import ndimage
from skimage.morphology import skeletonize

SECOND = 1000
PAINTED_SLICE = 3
MEMBRANE, CELL = 1, 2


class Painter:
    """A hand with a mouse over a labels layer."""

    def __init__(self, viewer: Any, layer: Any) -> None:
        canvas = viewer.window._qt_viewer.canvas
        self._native = canvas.native
        self._transform = canvas.layer_to_visual[layer].node.get_transform("visual", "canvas")

    def stroke(self, points: np.ndarray) -> None:
        """Drag the left button along (y, x) pixels."""
        self._send(QEvent.Type.MouseMove, points[0], Qt.MouseButton.NoButton)
        self._send(QEvent.Type.MouseButtonPress, points[0], Qt.MouseButton.LeftButton)
        for point in points[5::5]:  # between two places the brush goes straight
            self._send(QEvent.Type.MouseMove, point, Qt.MouseButton.LeftButton)
        self._send(QEvent.Type.MouseButtonRelease, points[-1], Qt.MouseButton.LeftButton)

    def _send(self, kind: QEvent.Type, point: np.ndarray, held: Qt.MouseButton) -> None:
        QTest.qWait(15)  # vispy passes on at most 100 moves a second
        x, y = self._transform.map([point[1], point[0]])[:2]
        changed = Qt.MouseButton.NoButton if kind == QEvent.Type.MouseMove else Qt.MouseButton.LeftButton
        if kind == QEvent.Type.MouseButtonRelease:
            held = Qt.MouseButton.NoButton
        at = QPointF(x, y)
        event = QMouseEvent(
            kind, at, self._native.mapToGlobal(at), changed, held, Qt.KeyboardModifier.NoModifier
        )
        QApplication.sendEvent(self._native, event)


def strokes_along(mask: np.ndarray, count: int, length: int, seed: int) -> Iterator[np.ndarray]:
    """Short walks along the middle of a mask, as a hand would follow it."""
    line = skeletonize(mask)
    rng = np.random.default_rng(seed)
    starts = np.argwhere(line)
    for start in rng.permutation(starts)[:count]:
        walk, here = [start], tuple(start)
        seen = {here}
        while len(walk) < length:
            y, x = here
            around = [
                (y + dy, x + dx)
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if (y + dy, x + dx) not in seen
                and 0 <= y + dy < line.shape[0]
                and 0 <= x + dx < line.shape[1]
                and line[y + dy, x + dx]
            ]
            if not around:
                break
            here = around[rng.integers(len(around))]
            seen.add(here)
            walk.append(np.array(here))
        yield np.array(walk)


def iou(ours: np.ndarray, truth: np.ndarray) -> float:
    return float((ours & truth).sum() / (ours | truth).sum())


@pytest.fixture
def plugin(npe2pm: Any) -> Iterator[None]:
    manifest = str(files("napari_unet").joinpath("napari.yaml"))
    with npe2pm.tmp_plugin(package="napari"), npe2pm.tmp_plugin(manifest=manifest):
        yield


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("plugin")
def test_a_first_session(make_napari_viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("NAPARI_UNET_SCREENSHOTS", tmp_path))

    def picture(name: str) -> None:
        for _ in range(5):
            QApplication.processEvents()
        viewer.screenshot(str(pictures / f"{name}.png"), canvas_only=False, flash=False)

    def click(button: Any) -> None:
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    # Open the sample and the docks.
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1500, 950)
    viewer.open_sample("napari-unet", "membranes")
    image, truth_layer = viewer.layers
    truth = np.asarray(truth_layer.data)
    truth_layer.visible = False
    for layer in (image, truth_layer):
        layer.scale, layer.units = (50, 4, 4), ("nm", "nm", "nm")
    train = viewer.window.add_plugin_dock_widget("napari-unet", "Train")[1]
    segment = viewer.window.add_plugin_dock_widget("napari-unet", "Segment", tabify=True)[1]
    train = getattr(train, "native", train)
    segment = getattr(segment, "native", segment)

    # Paint some strokes of each class on one slice.
    labels = viewer.add_labels(
        np.zeros(image.data.shape, np.uint8), name="painted", scale=image.scale, units=image.units
    )
    viewer.dims.set_current_step(0, PAINTED_SLICE)
    viewer.reset_view()
    for _ in range(10):
        QApplication.processEvents()
    labels.mode = "paint"
    painter = Painter(viewer, labels)
    here = truth[PAINTED_SLICE]
    cell = here == CELL
    rim = ndimage.binary_erosion(cell, iterations=2) & ~ndimage.binary_erosion(cell, iterations=5)
    inside = ndimage.binary_erosion(cell, iterations=8)
    for value, size, mask, count in (
        (MEMBRANE, 3, here == MEMBRANE, 45),
        (CELL, 3, rim, 40),
        (CELL, 6, inside, 30),
    ):
        labels.selected_label, labels.brush_size = value, size
        for walk in strokes_along(mask, count, 24, seed=size):
            painter.stroke(walk)
    picture("1-painted")
    painted = np.asarray(labels.data)
    assert np.unique(np.nonzero(painted)[0]).tolist() == [PAINTED_SLICE], viewer.dims
    assert np.count_nonzero(painted) / painted.size <= 0.03

    # Train, watch the curve, stop.
    train.parent().raise_()
    train.image.box.value = image
    train.labels.value = labels
    train.form["unpainted"].value = "ignore"
    train.background.value = CELL
    train.unit.value = "steps"
    train.steps.value = 5000
    steps: list[int] = []
    train.panel.happened.connect(lambda event: steps.append(getattr(event, "step", 0)))
    click(train.panel.start_button)
    qtbot.waitUntil(lambda: bool(steps) and steps[-1] >= 30, timeout=120 * SECOND)
    picture("2-training")
    qtbot.waitUntil(lambda: steps[-1] >= 140, timeout=400 * SECOND)
    click(train.panel.stop_button)
    qtbot.waitUntil(lambda: not train.panel.running, timeout=60 * SECOND)
    assert train.model_path is not None
    picture("3-stopped")

    # Segment the whole stack with the model that Train has offered.
    segment.parent().raise_()
    assert segment.model.path == train.model_path
    segment.image.box.value = image
    click(segment.panel.start_button)
    qtbot.waitUntil(lambda: not segment.panel.running, timeout=120 * SECOND)
    result = viewer.layers[-1]
    assert np.array_equal(result.scale, image.scale)
    assert result.units == image.units
    picture("4-segmented")
    unpainted = np.arange(len(truth)) != PAINTED_SLICE
    found = np.asarray(result.data)
    score = iou(found[unpainted] == MEMBRANE, truth[unpainted] == MEMBRANE)

    # Save it and open it again.
    path = tmp_path / "membranes.ome.tif"
    result.save(str(path), plugin="napari-unet")
    (again,) = viewer.open(str(path), plugin="napari-unet")
    assert type(again).__name__ == "Labels"
    assert np.array_equal(again.data, found)
    assert np.allclose(again.scale, image.scale)
    assert [str(unit) for unit in again.units] == ["nanometer"] * 3
    picture("5-reopened")

    assert "tensorflow" not in sys.modules
    assert "keras" not in sys.modules
    assert score >= 0.80, f"IoU {score:.3f} on the unpainted slices"
