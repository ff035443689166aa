"""Prediction: tiles equal the whole, each pixel written once, any image, any outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.normalize import survey
from napari_unet.errors import ConfigError, DataError, ModelError
from napari_unet.events import Event, PredictStarted, TileDone, Warned
from napari_unet.nn import backend
from napari_unet.nn.model import UNetModel
from napari_unet.nn.outputs import output_layout
from napari_unet.nn.prediction import make_plan, segment
from napari_unet.spec import ClassInfo, Normalization

from .segmenting import FLOAT, image, random_model, run, whole


class Recorder:
    """An output that counts how often each pixel is written."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(shape, int)
        self.log: list[Any] = []

    def __setitem__(self, key: Any, value: np.ndarray) -> None:
        assert value.shape == self.count[key].shape
        self.count[key] += 1
        self.log.append(key)


_MODELS = {
    (depth, seed): random_model(seed, depth=depth, filters=1 + seed) for depth in (1, 2, 3) for seed in (0, 1)
}


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_tiles_equal_the_whole(data: st.DataObject) -> None:
    model = _MODELS[data.draw(st.integers(1, 3)), data.draw(st.integers(0, 1))]
    stride = model.spec.network.stride
    size = data.draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    chunk = tuple(stride * data.draw(st.integers(1, 8)) for _ in size)
    stack = image(size, "YX", seed=sum(size))
    found = run(model, stack, chunk=chunk)
    np.testing.assert_allclose(found, whole(model, stack)[..., 0], atol=1e-6)


_OPTIONS = [
    random_model(1, **options)
    for options in (
        {"normalization": "batch"},
        {"activation": "leaky_relu", "upsampling": "transposed"},
        {"normalization": "batch", "activation": "leaky_relu", "skips": "add", "upsampling": "transposed"},
    )
]


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(range(len(_OPTIONS))),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_tiles_equal_the_whole_with_options(
    index: int, size: tuple[int, int], blocks: tuple[int, int]
) -> None:
    model = _OPTIONS[index]
    stack = image(size, "YX", seed=sum(size))
    found = run(model, stack, chunk=(4 * blocks[0], 4 * blocks[1]))
    np.testing.assert_allclose(found, run(model, stack), atol=1e-6)
    np.testing.assert_allclose(found, whole(model, stack)[..., 0], atol=1e-5)


def test_tiles_equal_the_whole_at_depth_4() -> None:
    model = random_model(depth=4, filters=4)
    stack = image((500, 333), "YX")
    expected = whole(model, stack)[..., 0]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(run(model, stack, chunk=(128, 96)), expected, atol=1e-6)
    small = FLOAT.replace(tile_megapixels=0.09)
    np.testing.assert_allclose(run(model, stack, small), expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 3),
)
def test_every_pixel_is_written_once(size: tuple[int, int], blocks: tuple[int, int], slices: int) -> None:
    model = _MODELS[2, 0]
    stack = image((slices, *size), "ZYX")
    outputs = {kind: Recorder(stack.out_shape) for kind in ("probabilities", "labels")}
    events: list[Event] = []
    chunk = (4 * blocks[0], 4 * blocks[1])
    assert not segment(model, stack, FLOAT, outputs, chunk=chunk, notify=events.append)
    for output in outputs.values():
        assert (output.count == 1).all()
    done = [(event.done, event.total) for event in events if isinstance(event, TileDone)]
    assert done == [(i + 1, len(done)) for i in range(len(done))]
    assert len(done) == len(outputs["labels"].log)


def test_the_last_output_is_written_last() -> None:
    model, stack, order = _MODELS[1, 0], image((8, 8), "YX"), []

    class Log:
        def __init__(self, name: str) -> None:
            self.name = name

        def __setitem__(self, key: Any, value: Any) -> None:
            order.append(self.name)

    segment(model, stack, FLOAT, {"probabilities": Log("p"), "labels": Log("l")}, chunk=(4, 8))
    assert order == ["p", "l", "p", "l"]


def test_a_chunk_larger_than_a_tile_is_assembled() -> None:
    model, stack = _MODELS[2, 1], image((230, 190), "YX")
    output = Recorder((230, 190))
    small = FLOAT.replace(tile_megapixels=0.012)
    segment(model, stack, small, {"labels": output}, chunk=(120, 190))
    assert len(output.log) == 2
    assert (output.count == 1).all()
    np.testing.assert_allclose(
        run(model, stack, small, chunk=(120, 190)), whole(model, stack)[..., 0], atol=1e-6
    )


def test_a_tile_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Allow tiles of 0\.06 megapixels or more"):
        run(random_model(depth=4, filters=1), image((400, 400), "YX"), PredictConfig(tile_megapixels=0.01))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (17, 5)])
def test_small_images(size: tuple[int, int]) -> None:
    model = random_model(depth=4, filters=1)
    found = run(model, image(size, "YX"))
    assert found.shape == size
    assert np.isfinite(found).all()


def test_several_classes_with_their_painted_values() -> None:
    model, stack = random_model(classes=4), image((2, 3, 30, 41), "TZYX")
    probabilities = run(model, stack, chunk=(8, 12))
    assert probabilities.shape == (4, 2, 3, 30, 41)
    expected = np.moveaxis(whole(model, stack, n=4), -1, 0)
    np.testing.assert_allclose(probabilities[:, 1, 1], expected, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    labels = run(model, stack, kind="labels")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.array([0, 3, 4, 5])[probabilities.argmax(0)])


def test_layouts() -> None:
    stack = image((2, 3, 30, 41), "TZYX")
    two, many = random_model().spec, random_model(classes=3).spec
    assert output_layout(two, stack, "labels") == ((2, 3, 30, 41), "TZYX", np.uint8)
    assert output_layout(two, stack, "probabilities") == ((2, 3, 30, 41), "TZYX", np.uint8)
    assert output_layout(many, stack, "probabilities", FLOAT) == ((3, 2, 3, 30, 41), "CTZYX", np.float32)
    huge = two.replace(classes=(ClassInfo(value=0), ClassInfo(value=2**40)))
    assert output_layout(huge, stack, "labels").dtype == np.uint64


def test_threshold_is_the_models_own_or_the_one_given() -> None:
    model, stack = _MODELS[2, 1], image((40, 40), "YX")
    p = run(model, stack)
    own = float(np.quantile(p, 0.3))
    model = UNetModel(model.spec.replace(threshold=own), model.network)
    np.testing.assert_array_equal(run(model, stack, kind="labels") > 0, p >= np.float32(own))
    given_ = FLOAT.replace(threshold=float(np.quantile(p, 0.8)))
    np.testing.assert_array_equal(
        run(model, stack, given_, kind="labels") > 0, p >= np.float32(given_.threshold)
    )


def test_bytes_stand_for_0_to_1() -> None:
    model, stack = _MODELS[1, 1], image((20, 20), "YX")
    found = run(model, stack, PredictConfig(precision="float32"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(run(model, stack) * 255))


def test_low_precision_is_close() -> None:
    model, stack = _MODELS[2, 0], image((40, 40), "YX")
    low = run(model, stack, FLOAT.replace(precision="bfloat16"))
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, run(model, stack), atol=0.1)


def test_brightness_range_of_the_model_or_of_the_image() -> None:
    model, stack = _MODELS[1, 0], image((20, 20), "YX")
    with pytest.raises(ModelError, match="take the brightness range from the image"):
        run(model, stack, FLOAT.replace(normalize="model"))
    own = survey(stack).range
    normalization = Normalization(low=own.low, high=own.high)
    model = UNetModel(model.spec.replace(normalization=normalization), model.network)
    brighter = Stack(stack.array // 2, "YX")
    same = run(model, stack, FLOAT.replace(normalize="model"))
    np.testing.assert_array_equal(same, run(model, stack))
    assert not np.allclose(run(model, brighter, FLOAT.replace(normalize="model")), same, atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "shape", "axes", "sentence"),
    [
        (
            1,
            (8, 8, 3),
            "YXS",
            r"reads 1 channel, but image 'noise' has 3 \(axes YXS\): convert the image to grey",
        ),
        (
            3,
            (8, 8),
            "YX",
            r"reads 3 channels, but image 'noise' has 1 \(axes YX\): give an image of 3 channels",
        ),
    ],
)
def test_wrong_channels_are_refused(channels: int, shape: tuple[int, ...], axes: str, sentence: str) -> None:
    events: list[Event] = []
    with pytest.raises(DataError, match=sentence):
        run(random_model(channels=channels, depth=1), image(shape, axes), notify=events.append)
    assert events == []


def test_outside_the_window_is_zero() -> None:
    model, stack = random_model(classes=3), image((3, 50, 60), "ZYX")
    full = run(model, stack, chunk=(16, 16))
    window = ((1, 2), (10, 21), (33, 60))
    events: list[Event] = []
    found = run(model, stack, chunk=(16, 16), window=window, notify=events.append)
    inside = np.zeros(stack.out_shape, bool)
    inside[1, 10:21, 33:60] = True
    np.testing.assert_array_equal(found, np.where(inside, full, 0))
    assert sum(isinstance(event, TileDone) for event in events) == 2 * 2


def test_stop_and_go_on_computes_only_what_is_missing() -> None:
    model, stack = _MODELS[1, 1], image((2, 20, 20), "ZYX")
    expected = run(model, stack, chunk=(8, 8))
    result, done = np.zeros_like(expected), 0

    def count(event: Event) -> None:
        nonlocal done
        done += isinstance(event, TileDone)

    stopped = segment(
        model, stack, FLOAT, {"probabilities": result}, chunk=(8, 8), notify=count, stop=lambda: done >= 7
    )
    assert stopped
    assert done == 7
    asked: list[tuple[int, ...]] = []

    def is_done(index: tuple[int, ...]) -> bool:
        asked.append(index)
        z, y, x = index
        return bool(result[z, 8 * y, 8 * x])

    events: list[Event] = []
    rest = {"probabilities": result}
    assert not segment(model, stack, FLOAT, rest, chunk=(8, 8), is_done=is_done, notify=events.append)
    assert asked == [(z, y, x) for z in range(2) for y in range(3) for x in range(3)]
    assert events[0] == PredictStarted({}, 7, 18, backend.device_name())
    assert [e.done for e in events if isinstance(e, TileDone)] == list(range(8, 19))
    np.testing.assert_array_equal(result, expected)


def test_all_done_computes_nothing() -> None:
    events: list[Event] = []
    output = Recorder((8, 8))
    options = {"is_done": lambda index: True, "notify": events.append}
    assert not segment(_MODELS[1, 0], image((8, 8), "YX"), FLOAT, {"labels": output}, **options)
    assert output.log == []
    assert [type(event) for event in events] == [PredictStarted]


def test_odd_pixels_are_told_and_harmless() -> None:
    pixels = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    pixels[3, 4], pixels[5, 6] = np.nan, np.inf
    events: list[Event] = []
    assert np.isfinite(run(_MODELS[1, 0], Stack(pixels, "YX", "raw"), notify=events.append)).all()
    assert Warned("Image 'raw' has 2 values that are NaN or infinite; they count as 0.") in events
    events.clear()
    run(_MODELS[1, 0], Stack(np.full((16, 16), 7), "YX", "flat"), notify=events.append)
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "Image 'flat' has the same value everywhere, so there is nothing to tell apart."
    ]


def test_one_trace_serves_all_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    made: list[Any] = []
    function = tf.function

    def recording(*args: Any, **options: Any) -> Any:
        made.append(function(*args, **options))
        return made[-1]

    monkeypatch.setattr(tf, "function", recording)
    model = random_model(depth=3)
    for size in ((100, 77), (30, 64)):
        run(model, image(size, "YX"), chunk=(24, 16))
    counts = [
        f.experimental_get_tracing_count() for f in made if hasattr(f, "experimental_get_tracing_count")
    ]
    assert counts == [1]


def test_best_chunk_keeps_the_limit() -> None:
    model, stack = random_model(depth=3, filters=1), image((600, 800), "YX")
    assert make_plan(model, stack, PredictConfig(), ("labels",)).chunk == (600, 800)
    chunk = make_plan(model, stack, PredictConfig(tile_megapixels=0.1), ("labels",)).chunk
    assert all(side % 8 == 0 for side in chunk)
