"""Forms from settings: what is shown is what the field says, and it comes back exactly."""

from __future__ import annotations

from typing import Any, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_unet.augmentation import Augmentation
from napari_unet.config import PredictConfig, TrainConfig
from napari_unet.gui.form import Form, advanced, field_widget
from napari_unet.settings import Settings

from .conftest import TIMEOUT


def _all(qtbot: Any, cls: type[Settings]) -> Form:
    form = Form()
    qtbot.addWidget(form)
    form.add_fields(cls, [name for name in cls.model_fields if name != "augmentation"], unset="Automatic")
    return form


@pytest.mark.parametrize("cls", [TrainConfig, Augmentation, PredictConfig])
def test_an_untouched_form_gives_the_defaults(qtbot: Any, cls: type[Settings]) -> None:
    assert _all(qtbot, cls).read(cls) == cls()


def test_titles_descriptions_and_bounds_come_from_the_field(qtbot: Any) -> None:
    widget = field_widget(TrainConfig, "batch")
    field = TrainConfig.model_fields["batch"]
    assert widget.label == field.title and field.description in widget.tooltip
    assert (widget.min, widget.max, widget.value) == (1, 256, 2)
    assert field_widget(TrainConfig, "patch").native.singleStep() == 16


def test_small_numbers_come_back_exactly(qtbot: Any) -> None:
    form = _all(qtbot, TrainConfig)
    assert form["learning_rate"].value == 1e-3
    form.write({"learning_rate": 2.5e-6})
    assert form.read(TrainConfig).learning_rate == 2.5e-6
    assert form["learning_rate"].min == 1e-7


def test_an_optional_field_is_none_until_its_box_is_cleared(qtbot: Any) -> None:
    form = _all(qtbot, PredictConfig)
    assert form.read(PredictConfig).threshold is None
    form.write({"threshold": 0.25})
    assert form.read(PredictConfig).threshold == 0.25
    form.write({"threshold": None})
    assert form.read(PredictConfig).threshold is None


def test_choices_are_a_list(qtbot: Any) -> None:
    assert field_widget(PredictConfig, "normalize").choices == ("image", "model")


_numbers = {
    "minutes": st.integers(1, 99_999).map(lambda n: n / 10),
    "batch": st.integers(1, 256),
    "steps": st.integers(0, 10_000_000),
    "learning_rate": st.integers(1, 10**7).map(lambda n: n / 10**7),
    "seed": st.integers(0, 2**31 - 1),
    "validation": st.integers(0, 50).map(lambda n: n / 100),
    "precision": st.sampled_from(["float32", "bfloat16"]),
}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.fixed_dictionaries(_numbers))
def test_what_is_written_is_read(qtbot: Any, values: dict[str, Any]) -> None:
    form = _all(qtbot, TrainConfig)
    form.write(values)
    assert form.read(TrainConfig) == TrainConfig(**values)


def test_bounds_can_be_reached(qtbot: Any) -> None:
    form = _all(qtbot, TrainConfig)
    for name, field in TrainConfig.model_fields.items():
        for rule in field.metadata:
            for bound in (getattr(rule, "ge", None), getattr(rule, "le", None)):
                if bound is not None and get_origin(field.annotation) is None:
                    form.write({name: bound})
                    assert form.values()[name] == bound, name


def test_advanced_is_folded(qtbot: Any) -> None:
    form = _all(qtbot, TrainConfig)
    section = advanced("Advanced", form)
    qtbot.addWidget(section)
    section.show()
    assert not section.isExpanded() and form.visibleRegion().isEmpty()
    section.expand(animate=False)
    qtbot.waitUntil(lambda: not form.visibleRegion().isEmpty(), timeout=TIMEOUT)
