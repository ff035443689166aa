"""The options of the network in the Train dock: a preset stays what it is, save for what is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from napari_unet.config import UNetConfig
from napari_unet.errors import ConfigError
from napari_unet.gui.form import Form
from napari_unet.gui.network_rows import NetworkRows


def test_an_untouched_row_leaves_the_preset_as_it_is(qtbot: Any) -> None:
    form = Form()
    qtbot.addWidget(form)
    rows = NetworkRows(form)
    assert rows.read("quick") == UNetConfig.preset("quick")
    assert rows.read("linked-code") == UNetConfig.preset("linked-code")
    assert rows.read(None) is None


def test_a_choice_outlives_a_change_of_preset(qtbot: Any) -> None:
    form = Form()
    qtbot.addWidget(form)
    rows = NetworkRows(form)
    form["normalization"].value = "batch"
    form["skips"].value = "add"
    for preset in ("quick", "article"):
        assert rows.read(preset) == UNetConfig.preset(preset, normalization="batch", skips="add")


def test_depth_filters_and_dropout_are_the_network_s_own_until_set(qtbot: Any) -> None:
    form = Form()
    qtbot.addWidget(form)
    rows = NetworkRows(form)
    form.write({"depth": 5, "dropout": 0.25})
    assert rows.read("quick") == UNetConfig.preset("quick", depth=5, dropout=0.25)
    with pytest.raises(ConfigError, match=r"Depth and Dropout \(under Advanced\) changes .* or set Filters"):
        rows.read(None)
    form.write({"filters": 24})
    assert rows.read(None) == UNetConfig(filters=24, depth=5, dropout=0.25)
    form.write({"depth": None, "dropout": None, "filters": None})
    assert rows.read("article") == UNetConfig.preset("article")


def test_what_cannot_be_is_said(qtbot: Any) -> None:
    form = Form()
    qtbot.addWidget(form)
    rows = NetworkRows(form)
    form["activation"].value = "leaky_relu"
    with pytest.raises(
        ConfigError, match=r"rebuilt exactly, so it takes no other activation: choose the article"
    ):
        rows.read("linked-code")
    with pytest.raises(
        ConfigError, match=r"Activation \(under Advanced\) changes a network that isn't named"
    ):
        rows.read(None)
