"""Words, curves, background work and windows: the small parts by themselves."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import Dims, ViewerModel
from napari.layers import Image, Shapes

from napari_unet.errors import DataError
from napari_unet.gui.background import Background
from napari_unet.gui.layers import (
    axes_choices,
    mismatch,
    placement,
    read_image,
    shape_window,
    visible_window,
)
from napari_unet.gui.plot import TrainingPlot
from napari_unet.gui.progress import REDRAW_MS, Messages, Progress
from napari_unet.gui.snapshot import Stopped
from napari_unet.words import count, listed, time_left

from .conftest import TIMEOUT


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (math.nan, "time left not known yet"),
        (-1, "time left not known yet"),
        (3, "a few seconds left"),
        (31, "about 30 seconds left"),
        (60, "about a minute left"),
        (200, "about 3 minutes left"),
        (3700, "about an hour left"),
        (3 * 3600, "about 3 hours left"),
        (90 * 3600, "about 4 days left"),
    ],
)
def test_time_left_in_words(seconds: float, words: str) -> None:
    assert time_left(seconds) == words


@given(st.floats())
def test_any_estimate_has_words(seconds: float) -> None:
    assert time_left(seconds).endswith(("left", "yet"))


def test_counts_agree_with_their_noun() -> None:
    assert [count(1, "slice"), count(1200, "slice"), count(2, "class")] == [
        "1 slice",
        "1,200 slices",
        "2 classes",
    ]


def test_words_are_listed() -> None:
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_the_plot_stays_small_and_skips_gaps(qtbot: Any) -> None:
    plot = TrainingPlot()
    qtbot.addWidget(plot)
    for step in range(1, 30_001):
        plot.add_loss(step, math.nan if step % 7 == 0 else 1.0)
    plot.add_score(5, math.nan)
    plot.add_score(10, 0.5)
    plot.redraw()
    steps, losses = plot.losses
    assert len(steps) <= 8001 and steps[-1] > 29_900
    np.testing.assert_allclose(losses, 1.0)
    assert plot.scores == ([10.0], [0.5])
    plot.clear()
    assert plot.losses == ([], [])


def test_the_plot_is_not_drawn_for_each_step(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = TrainingPlot()
    qtbot.addWidget(plot)
    assert plot._timer.interval() >= 200
    for step in range(100):
        plot.add_loss(step, 1.0)
    assert plot.losses == ([], [])  # nothing yet: the timer has not come round
    qtbot.waitUntil(lambda: len(plot.losses[0]) == 100, timeout=TIMEOUT)


def test_progress_holds_large_numbers(qtbot: Any) -> None:
    progress = Progress()
    qtbot.addWidget(progress)
    progress.show_step(3 * 10**9, 4 * 10**9, "Tile", 200.0)
    qtbot.waitUntil(lambda: progress.bar.value() == 750, timeout=TIMEOUT)
    assert progress.words.text() == "Tile 3,000,000,000 of 4,000,000,000 · about 3 minutes left"


def test_a_late_step_does_not_overwrite_the_end(qtbot: Any) -> None:
    progress = Progress()
    qtbot.addWidget(progress)
    progress.show_step(9, 10, "Step", 1.0)
    progress.rest("Done.", full=True)
    qtbot.wait(2 * REDRAW_MS)
    assert progress.words.text() == "Done."
    assert progress.bar.value() == progress.bar.maximum()


def test_messages_show_text_as_it_is_and_the_newest(qtbot: Any) -> None:
    messages = Messages()
    qtbot.addWidget(messages)
    messages.show()
    messages.say("<b>not bold</b> & so on")
    for number in range(200):
        messages.say(f"line {number}")
    assert messages.text.startswith("<b>not bold</b> & so on")
    bar = messages._text.verticalScrollBar()
    assert bar.value() == bar.maximum() > 0
    messages.error("It broke.")
    assert messages.copy_button.isHidden()
    messages.error("It broke.", "Traceback")
    assert not messages.copy_button.isHidden() and messages.details == "It broke.\n\nTraceback"


def test_background_work_ends_in_one_signal(qtbot: Any) -> None:
    background = Background()
    with qtbot.waitSignal(background.done) as done:
        background.start(lambda say, stop: 7)
    assert done.args == [7]

    def refuse(say: Any, stop: Any) -> None:
        raise DataError("No.")

    with qtbot.waitSignal(background.failed) as failed:
        background.start(refuse)
    assert failed.args == ["No.", ""]

    def break_(say: Any, stop: Any) -> None:
        raise ZeroDivisionError("oops")

    with qtbot.waitSignal(background.failed) as failed:
        background.start(break_)
    assert "ZeroDivisionError" in failed.args[0] and "Traceback" in failed.args[1]

    def wait(say: Any, stop: Any) -> None:
        while not stop():
            pass
        raise Stopped

    with qtbot.waitSignal(background.stopped):
        background.start(wait)
        background.stop()


def test_stop_between_the_end_of_the_work_and_its_news_holds(qtbot: Any) -> None:
    background = Background()
    heard: list[object] = []
    background.done.connect(heard.append)
    background.start(lambda say, stop: 7)
    background._thread.join()  # done, but no event loop has told of it
    with qtbot.waitSignal(background.stopped):
        background.stop()
    assert heard == []


def test_axes_of_layers() -> None:
    assert axes_choices(Image(np.zeros((5, 6, 7))))[0] == "ZYX"
    assert axes_choices(Image(np.zeros((5, 6, 7)), axis_labels=("t", "y", "x")))[0] == "TYX"
    assert axes_choices(Image(np.zeros((5, 6, 3), np.uint8), rgb=True)) == ["YXS"]
    assert axes_choices(Image(np.zeros((2, 3, 4, 6, 7))))[0] == "TZCYX"
    with pytest.raises(DataError, match="6 axes"):
        axes_choices(Image(np.zeros((1, 1, 1, 1, 6, 7))))


def test_pixel_size_in_one_unit() -> None:
    layer = Image(np.zeros((5, 6, 7)), scale=(2, 100, 100), units=("um", "nm", "nm"))
    snapshot = read_image(layer)
    assert snapshot.unit == "nanometer"
    assert snapshot.pixel_size == pytest.approx({"Z": 2000.0, "Y": 100.0, "X": 100.0})
    assert read_image(Image(np.zeros((6, 7)))).pixel_size == {}


def test_the_channel_axis_is_left_out_of_a_place() -> None:
    layer = Image(
        np.zeros((3, 5, 6, 7)),
        scale=(1, 4, 2, 2),
        translate=(0, 7, 8, 9),
        rotate=np.eye(4),
        units=("pixel", "um", "um", "um"),
    )
    place = placement(layer, "CZYX", "ZYX")
    np.testing.assert_allclose(place["scale"], (4, 2, 2))
    np.testing.assert_allclose(place["translate"], (7, 8, 9))
    assert [str(unit) for unit in place["units"]] == ["micrometer"] * 3
    deep = placement(layer, "CZYX", "ZYX", classes=True)
    np.testing.assert_allclose(deep["scale"], (1, 4, 2, 2))
    assert deep["axis_labels"][0] == "class"
    Image(np.zeros((2, 5, 6, 7)), **deep)


@settings(deadline=None, max_examples=50)
@given(
    low=st.tuples(*[st.floats(-20, 60)] * 2),
    size=st.tuples(*[st.floats(0.1, 50)] * 2),
    scale=st.floats(0.1, 10),
    z=st.integers(0, 4),
)
def test_a_shapes_window_lies_in_the_image_and_holds_the_shape(
    low: tuple[float, float], size: tuple[float, float], scale: float, z: int
) -> None:
    layer = Image(np.zeros((5, 40, 30)), scale=(1, scale, scale))
    (y, x), (h, w) = low, size
    box = np.array([[z, y, x], [z, y, x + w], [z, y + h, x + w], [z, y + h, x]], float)
    shapes = Shapes([box], shape_type="polygon", scale=(1, scale, scale))
    try:
        window = shape_window(layer, read_image(layer), shapes, Dims(ndim=3))
    except DataError:
        assert y > 39 or x > 29 or y + h < 0.5 or x + w < 0.5
        return
    assert window[0] == (z, z + 1)
    for (start, stop), begin, length, side in zip(window[1:], (y, x), (h, w), (40, 30), strict=True):
        assert 0 <= start < stop <= side
        assert start == 0 or start <= begin + 0.5 + 1e-6
        assert stop == side or stop >= begin + length - 0.5 - 1e-6


def test_a_flat_shape_chooses_every_slice() -> None:
    layer = Image(np.zeros((5, 40, 30)))
    shapes = Shapes([np.array([[2, 3], [2, 9], [8, 9], [8, 3]], float)], shape_type="polygon")
    assert shape_window(layer, read_image(layer), shapes, Dims(ndim=3))[0] == (0, 5)


def test_windows_and_places_are_told_in_the_units_of_the_viewer() -> None:
    """napari measures in the smallest unit among its layers."""
    model = ViewerModel()
    raw = model.add_image(np.zeros((20, 40, 30)), scale=(0.3, 0.5, 0.5), units=("um",) * 3)
    paint = model.add_labels(np.zeros((20, 40, 30), int), scale=(300, 500, 500), units=("nm",) * 3)
    box = np.array([[7, 2, 3], [7, 2, 9], [7, 8, 9], [7, 8, 3]], float)
    drawn = model.add_shapes([box], shape_type="polygon", scale=(300, 500, 500), units=("nm",) * 3)
    model.dims.set_point(0, 300 * 11)
    snapshot = read_image(raw)
    assert visible_window(raw, snapshot, model.dims)[0] == (11, 12)
    assert shape_window(raw, snapshot, drawn, model.dims) == ((7, 8), (2, 9), (3, 10))
    assert mismatch(raw, paint, ("ZYX", "ZYX"), model.dims) == ""
    paint.scale = (0.3, 0.5, 0.5)
    assert "lie at another place or scale" in mismatch(raw, paint, ("ZYX", "ZYX"), model.dims)
    raw.units = ("pixel",) * 3  # none in common: bare numbers
    assert mismatch(raw, paint, ("ZYX", "ZYX"), model.dims) == ""


@pytest.mark.parametrize(
    ("shape", "axes", "multiscale"),
    [((3, 40, 30), "CYX", False), ((40, 30, 3), "YXC", False), ((40, 30), "YX", True)],
)
def test_labels_of_all_channels_or_of_a_pyramid_are_told_to_lie_elsewhere(
    shape: tuple[int, ...], axes: str, multiscale: bool
) -> None:
    model = ViewerModel()
    scale = [{"C": 1.0}.get(letter, 0.5) for letter in axes]
    pixels = np.zeros(shape)
    raw = model.add_image(
        [pixels, pixels[::2, ::2]] if multiscale else pixels, multiscale=multiscale, scale=scale, name="raw"
    )
    paint = model.add_labels(np.zeros((40, 30), int), scale=(0.5, 0.5))
    assert mismatch(raw, paint, (axes, "YX"), model.dims) == ""
    paint.translate = (0, 4)
    assert mismatch(raw, paint, (axes, "YX"), model.dims) == (
        "Labels 'Labels' fit the shape of image 'raw', but lie at another place or scale in the viewer. "
        "They are matched pixel by pixel."
    )
    paint.translate, paint.scale = (0, 0), (1, 1)
    assert "another place or scale" in mismatch(raw, paint, (axes, "YX"), model.dims)


def test_the_visible_slice_counts_over_t_and_z() -> None:
    layer = Image(np.zeros((2, 3, 5, 6)), scale=(1, 10, 1, 1))
    dims = SimpleNamespace(point=(1, 20, 0, 0), units=None)
    assert visible_window(layer, read_image(layer), dims)[0] == (5, 6)
