"""The demonstration, cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_unet import demo
from napari_unet.events import Event, StepDone
from napari_unet.files.image import open_image


def test_stopped_it_shows_what_was_learned_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_SHAPE", (128, 128))
    monkeypatch.setattr(demo, "_TRAINING_SEEDS", range(2))
    events: list[Event] = []
    result = demo.demonstrate(
        tmp_path, 0.1, events.append, lambda: sum(isinstance(event, StepDone) for event in events) >= 2
    )
    assert (
        sum(isinstance(event, StepDone) for event in events) < 20
    )  # told at once, as soon as a plan is made
    assert len(result.scores) == 3 and result.picture.is_file() and result.model.is_file()
    image, labels = (open_image(path).array for path in result.layers)
    assert image.shape == labels.shape
