"""Tiles in flight beside an accelerator, which the processor stands in for: the same chunks, in order, whatever runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_unet.data.tiling import Tile
from napari_unet.errors import BackendError
from napari_unet.events import Event, TileDone, Warned
from napari_unet.nn import backend
from napari_unet.nn.engine import Answers, Engine
from napari_unet.nn.prediction import segment

from .segmenting import FLOAT, image, random_model, run

_MODEL = random_model(1, depth=2, filters=2)
_begin = Engine.begin


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "device_name", lambda: "GPU: made up")


class Flights:
    """Notes when tiles begin ("+") and when their answers are there ("-"), each with its slice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self._changed = threading.Condition()

        def begin(engine: Engine, pixels: np.ndarray, n: int, tile: Tile) -> Callable[[], Answers]:
            self._note(f"+{n}")
            fetch = _begin(engine, pixels, n, tile)

            def fetched() -> Answers:
                self.before_fetching(n)
                answers = fetch()
                self._note(f"-{n}")
                return answers

            return fetched

        monkeypatch.setattr(Engine, "begin", begin)

    def before_fetching(self, n: int) -> None:
        """For a test to put something in its place."""

    def wait_for(self, entry: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: entry in self.log, timeout=60)

    def _note(self, entry: str) -> None:
        with self._changed:
            self.log.append(entry)
            self._changed.notify_all()


@pytest.mark.usefixtures("accelerated")
def test_the_next_tile_begins_before_the_answer_of_the_one_before_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flights = Flights(monkeypatch)
    # A device that is never done before it is told what comes next.
    monkeypatch.setattr(flights, "before_fetching", lambda n: flights.wait_for(f"+{min(n + 1, 3)}"))
    run(_MODEL, image((4, 40, 40), "ZYX"), FLOAT)
    assert flights.log == ["+0", "+1", "-0", "+2", "-1", "+3", "-2", "-3"]


def test_a_processor_computes_one_tile_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "device_name", lambda: "CPU")
    flights = Flights(monkeypatch)
    run(_MODEL, image((3, 40, 40), "ZYX"), FLOAT)
    assert flights.log == ["+0", "-0", "+1", "-1", "+2", "-2"]


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("kind", ["probabilities", "labels", "entropy"])
def test_chunks_of_several_tiles_are_those_of_a_processor(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stack, small = image((3, 240, 200), "ZYX"), FLOAT.replace(tile_megapixels=0.012)
    found = run(_MODEL, stack, small, kind=kind, chunk=(120, 200))
    monkeypatch.setattr(backend, "device_name", lambda: "CPU")
    np.testing.assert_allclose(found, run(_MODEL, stack, FLOAT, kind=kind), atol=1e-6)


def _out_of_memory(
    monkeypatch: pytest.MonkeyPatch, too_large: Callable[[np.ndarray], bool], when: str
) -> None:
    """Have memory run out when a tile that is too large begins, or when it is fetched."""

    def fail() -> Answers:
        raise MemoryError

    def begin(engine: Engine, pixels: np.ndarray, n: int, tile: Tile) -> Callable[[], Answers]:
        if not too_large(pixels):
            return _begin(engine, pixels, n, tile)
        return fail if when == "fetched" else fail()  # type: ignore[return-value]

    monkeypatch.setattr(Engine, "begin", begin)


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("when", ["begun", "fetched"])
def test_where_memory_runs_out_each_tile_in_flight_becomes_smaller(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = image((4, 80, 92), "ZYX")
    expected = run(_MODEL, stack, FLOAT)
    _out_of_memory(monkeypatch, lambda pixels: pixels.shape[0] * pixels.shape[1] > 4000, when)
    events: list[Event] = []
    found = run(_MODEL, stack, FLOAT, notify=events.append)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "Memory ran out, so tiles have at most 0.0037 megapixels from now on."
    ]
    assert [e.done for e in events if isinstance(e, TileDone)] == [1, 2, 3, 4]


@pytest.mark.usefixtures("accelerated")
def test_a_tile_is_computed_again_when_nothing_else_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = image((3, 80, 92), "ZYX")
    expected = run(_MODEL, stack, FLOAT)
    flights = Flights(monkeypatch)
    noted = Engine.begin
    failed: list[int] = []

    def begin(engine: Engine, pixels: np.ndarray, n: int, tile: Tile) -> Callable[[], Answers]:
        if n == 1 and not failed:
            failed.append(n)
            raise MemoryError
        return noted(engine, pixels, n, tile)

    monkeypatch.setattr(Engine, "begin", begin)
    np.testing.assert_allclose(run(_MODEL, stack, FLOAT), expected, atol=1e-6)
    assert sorted(flights.log[:4]) == ["+0", "+2", "-0", "-2"]
    again = flights.log[4:]
    assert again and again == ["+1", "-1"] * (len(again) // 2)


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("when", ["begun", "fetched"])
def test_a_tile_in_flight_that_cannot_be_made_smaller_ends_the_run(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _out_of_memory(monkeypatch, lambda pixels: True, when)
    with pytest.raises(BackendError, match=r"not enough memory for a tile of [\d,]+ pixels, the smallest"):
        run(_MODEL, image((3, 40, 40), "ZYX"), FLOAT)


@pytest.mark.usefixtures("accelerated")
def test_another_error_of_a_tile_in_flight_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: Any) -> Callable[[], Answers]:
        def fetch() -> Answers:
            raise ValueError("broken")

        return fetch

    monkeypatch.setattr(Engine, "begin", begin)
    with pytest.raises(ValueError, match="broken"):
        run(_MODEL, image((3, 40, 40), "ZYX"), FLOAT)


@pytest.mark.usefixtures("accelerated")
def test_after_stop_nothing_begins_and_the_rest_can_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = image((6, 40, 40), "ZYX")
    expected = run(_MODEL, stack, FLOAT)
    flights = Flights(monkeypatch)
    result, events = np.zeros_like(expected), []
    outputs = {"probabilities": result}
    stopped = segment(
        _MODEL, stack, FLOAT, outputs, notify=events.append, stop=lambda: flights.log.count("+2") > 0
    )
    assert stopped
    assert [entry for entry in flights.log if entry[0] == "+"] == ["+0", "+1", "+2"]
    done = [slice_.any() for slice_ in result]
    assert done == [True, True, False, False, False, False]  # chunks are whole, or not there
    assert sum(isinstance(event, TileDone) for event in events) == 2
    assert not segment(_MODEL, stack, FLOAT, outputs, is_done=lambda index: done[index[0]])
    np.testing.assert_array_equal(result, expected)
