"""Objects in the docks: chosen, proposed, shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unet.config import UNetConfig
from napari_unet.gui.model_rows import card_sentence
from napari_unet.gui.results import labels_layer
from napari_unet.gui.train_dock import TrainDock
from napari_unet.jobs import TrainJob
from napari_unet.spec import OBJECT_CLASSES, ClassInfo, ModelSpec, ObjectDecoding, TrainingRecord

from .conftest import TIMEOUT

CARD = ModelSpec(
    network=UNetConfig(filters=1, depth=1, classes=3),
    classes=tuple(ClassInfo(value=i, name=name) for i, name in enumerate(OBJECT_CLASSES)),
    target="objects",
    objects=ObjectDecoding(),
    training=TrainingRecord(score=0.7, ap50=0.83),
)


def _train(viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, target: str) -> TrainJob:
    from napari_unet.gui.client import WorkerClient

    sent: list[TrainJob] = []
    start = WorkerClient.run
    monkeypatch.setattr(WorkerClient, "run", lambda self, job: (sent.append(job), start(self, job))[1])
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock, name="Train")
    assert dock.form["target"].value == "auto"
    dock.form["target"].value = target
    qtbot.mouseClick(dock.panel.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "Trained 40 steps." in dock.panel.messages.text, timeout=TIMEOUT)
    (job,) = sent
    return job


def test_the_choice_reaches_the_job_and_objects_have_no_colours(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _train(viewer, qtbot, monkeypatch, "objects")
    assert job.target == "objects"
    assert job.classes == ()


def test_many_objects_are_not_refused_as_too_many_classes(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.kron(np.arange(1, 301).reshape(5, 12, 5)[:, :, :5], np.ones((1, 4, 8), int))
    ids[:, ::4] = ids[:, :, ::8] = 0
    viewer.layers["paint"].data = ids
    job = _train(viewer, qtbot, monkeypatch, "auto")
    assert job.target == "auto"
    assert job.classes == ()


def test_found_objects_are_shown_without_the_colours_of_classes() -> None:
    layer = labels_layer(np.arange(12, dtype=np.uint32).reshape(3, 4), CARD, "found", {})
    assert "class" not in layer.features
    assert len({tuple(layer.get_color(i)) for i in range(1, 12)}) > 5


def test_the_card_says_objects_and_how_good_they_are() -> None:
    assert card_sentence(CARD) == (
        "Objects. 1 channel, pixel size not known. 1 filter; AP 0.83 at IoU 0.5 on held-out paint."
    )
