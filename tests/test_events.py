"""Events survive the trip through a line of JSON."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet import events
from napari_unet.events import Event, Finished, PredictStarted, Report, StepDone, from_json, to_json

_CLASSES = [getattr(events, name) for name in events.__all__ if isinstance(getattr(events, name), type)]
_EVENTS = [cls for cls in _CLASSES if issubclass(cls, Event) and cls is not Event]


_REPORTS = st.builds(
    Report,
    outputs=st.dictionaries(st.text(), st.text()),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    seconds=st.floats(0, 1e9),
    stopped=st.booleans(),
    message=st.text(),
)
_OUTPUTS = st.dictionaries(st.text(), st.text())


@given(
    st.one_of(
        st.builds(Finished, _REPORTS),
        st.builds(PredictStarted, _OUTPUTS),
        *(st.builds(cls) for cls in _EVENTS if cls not in (Finished, PredictStarted)),
    )
)
def test_every_event_comes_back_from_one_line(event: Event) -> None:
    line = to_json(event)
    assert "\n" not in line
    again = from_json(line)
    assert type(again) is type(event)
    for field in dataclasses.fields(event):
        before, after = getattr(event, field.name), getattr(again, field.name)
        if isinstance(before, float) and not math.isfinite(before):
            assert math.isnan(after)  # strict JSON has neither NaN nor infinity
        else:
            assert after == before


def test_a_loss_that_is_not_a_number_is_strict_json() -> None:
    assert json.loads(to_json(StepDone(1, 2, math.nan, 1.0)), parse_constant=pytest.fail)["loss"] is None


@pytest.mark.parametrize(
    "line", ["", "{}", "[1]", '{"event": "Event"}', '{"event": "Ready", "pid": 1, "more": 2}']
)
def test_a_line_that_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  json's own error is one too
        from_json(line)
