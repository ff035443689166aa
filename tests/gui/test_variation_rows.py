"""A preset fills the strengths, and what the rows show is what is read."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from napari_unet.augmentation import Augmentation, AugmentationPreset
from napari_unet.gui.form import Form
from napari_unet.gui.variation_rows import VariationRows


@pytest.fixture
def forms(qtbot: Any) -> tuple[Form, Form]:
    forms = Form(), Form()
    for form in forms:
        qtbot.addWidget(form)
    return forms


def test_a_preset_fills_its_strengths(forms: tuple[Form, Form]) -> None:
    rows = VariationRows(forms[0])
    assert rows.read() == Augmentation()
    rows.add_strengths(forms[1])
    assert rows.preset.value == "light" and rows.read() == Augmentation()
    for name in (*get_args(AugmentationPreset), "light"):
        rows.preset.value = name
        assert rows.read() == Augmentation.preset(name)
        assert rows.preset.value == name
    assert forms[1]["rotation"].value == 15.0


def test_a_strength_of_ones_own_is_kept_and_named(forms: tuple[Form, Form]) -> None:
    rows = VariationRows(forms[0])
    rows.add_strengths(forms[1])
    rows.preset.value = "full"
    forms[1]["rotation"].value = 90.0
    assert rows.preset.value == "own"
    assert rows.read() == Augmentation.preset("full", rotation=90.0)
    rows.preset.value = "own"
    assert rows.read() == Augmentation.preset("full", rotation=90.0)
    forms[1]["rotation"].value = 180.0
    assert rows.preset.value == "full"


def test_the_train_dock_trains_with_what_it_shows(viewer: Any, qtbot: Any) -> None:
    from napari_unet.gui.train_dock import TrainDock

    dock = TrainDock(viewer)
    qtbot.addWidget(dock)
    dock.form["augmentation"].value = "none"
    dock.more["blur"].value = 2.5
    read = dock._read()
    request = getattr(read, "__self__", read)  # what would be sent
    assert request.train.augmentation == Augmentation.preset("none", blur=2.5)
