"""The engine: turns averaged, dropout that does not depend on the tiling, maps of entropy; tiled equals whole in each."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.dropout import kept
from napari_unet.data.normalize import survey
from napari_unet.data.tiling import Tile
from napari_unet.data.turns import TURNS
from napari_unet.errors import BackendError
from napari_unet.events import Event, Noted, Warned
from napari_unet.nn import backend, computing, engine, estimate
from napari_unet.nn.engine import Engine, needed_halo
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import halo
from napari_unet.nn.outputs import output_layout
from napari_unet.nn.plan import pixels_of
from napari_unet.nn.prediction import foresee, make_plan, segment
from napari_unet.nn.rewrite import for_prediction, halves

from .segmenting import FLOAT, image, random_model, run, whole

AVERAGE = FLOAT.replace(average=True)
_MODEL = random_model(1, depth=2, filters=3)
_CLASSES = random_model(2, depth=2, filters=2, classes=3)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Of (..., L), 0 to 1, as the textbook has it."""
    if probabilities.shape[-1] == 1:
        probabilities = np.concatenate([probabilities, 1 - probabilities], -1)
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return -(probabilities * logs).sum(-1) / np.log(probabilities.shape[-1])


def padded(model: UNetModel, stack: Stack, n: int = 0) -> np.ndarray:
    """Normalised pixels of a slice whose sides are multiples of the stride already."""
    pixels = survey(stack).range.apply(stack.read(n))
    assert all(side % model.spec.network.stride == 0 for side in pixels.shape[:2])
    return pixels


def answer(model: UNetModel, pixels: np.ndarray) -> np.ndarray:
    logits = model.network(np.ascontiguousarray(pixels)[None], training=False)
    head = keras.ops.sigmoid if logits.shape[-1] == 1 else keras.ops.softmax
    return np.asarray(head(logits))[0]


@pytest.mark.parametrize(
    ("kind", "config"), [("probabilities", FLOAT), ("probabilities", AVERAGE), ("uncertainty", FLOAT)]
)
def test_kernels_of_a_wide_network_with_much_to_do_are_prepared_and_answer_the_same(
    kind: str, config: PredictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, asked = computing.compiled, []

    def spy(network: Any, *, final: bool = False) -> Any:
        asked.append(final)
        return compiled(network, final=final)

    stack = image((40, 52), "YX")
    monkeypatch.setattr(computing, "compiled", spy)
    # The same weights, but not what an earlier engine made of them.
    plain = run(random_model(1, depth=2, filters=3), stack, config, kind=kind)
    assert not any(asked)
    monkeypatch.setattr(engine, "_WIDE", 3 * 4)
    monkeypatch.setattr(engine, "_MUCH", 40 * 52)
    prepared = run(random_model(1, depth=2, filters=3), stack, config, kind=kind)
    assert any(asked) == (backend.device_name() == "CPU")
    np.testing.assert_allclose(prepared, plain, atol=1e-6)


@pytest.mark.parametrize("model", [_MODEL, _CLASSES])
def test_the_average_is_that_of_the_eight_turned_images(model: UNetModel) -> None:
    stack = image((40, 52), "YX")
    pixels = padded(model, stack)
    expected = np.mean([turn.undo(answer(model, turn.apply(pixels))) for turn in TURNS], axis=0)
    found = run(model, stack, AVERAGE)
    found = found[..., None] if found.ndim == 2 else np.moveaxis(found, 0, -1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - answer(model, pixels)).max() > 1e-3


@pytest.mark.parametrize("model", [_MODEL, _CLASSES])
def test_entropy_is_shannons(model: UNetModel) -> None:
    stack = image((40, 52), "YX")
    expected = entropy(answer(model, padded(model, stack)))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(run(model, stack, kind="entropy"), expected, atol=1e-5)
    as_bytes = run(model, stack, PredictConfig(precision="float32"), kind="entropy")
    assert as_bytes.dtype == np.uint8
    np.testing.assert_allclose(as_bytes / 255, expected, atol=0.5 / 255 + 1e-5)


def sampled(model: UNetModel, stack: Stack, passes: int, n: int = 0) -> np.ndarray:
    """Mean probabilities over passes with dropout, over the whole slice at once."""
    contracting, expanding = halves(model.network)
    bottom, *skips = (np.asarray(t) for t in contracting(padded(model, stack, n)[None]))
    head = keras.ops.sigmoid if model.spec.network.logits == 1 else keras.ops.softmax
    answers = []
    for passage in range(passes):
        rows, columns = (range(side) for side in bottom.shape[1:3])
        mask = kept(model.spec.network.dropout, passage, n, rows, columns, bottom.shape[-1])
        thin = bottom * mask / (1 - model.spec.network.dropout)
        answers.append(np.asarray(head(expanding([thin.astype(np.float32), *skips])))[0])
    return np.mean(answers, axis=0)


@pytest.mark.parametrize("model", [_MODEL, _CLASSES])
def test_uncertainty_is_the_entropy_of_the_mean_over_passes(model: UNetModel) -> None:
    stack = image((2, 40, 52), "ZYX")
    config = FLOAT.replace(passes=3)
    found = run(model, stack, config, kind="uncertainty")
    for n in range(2):
        np.testing.assert_allclose(found[n], entropy(sampled(model, stack, 3, n)), atol=1e-5)
    assert np.abs(found - run(model, stack, kind="entropy")).max() > 1e-3


def test_the_halves_make_the_whole() -> None:
    for options in ({}, {"normalization": "batch", "skips": "add", "upsampling": "transposed"}):
        model = random_model(3, depth=3, **options)
        pixels = np.random.default_rng(0).random((1, 32, 40, 1), np.float32)
        contracting, expanding = halves(model.network)
        expected = np.asarray(for_prediction(model.network)(pixels))
        np.testing.assert_allclose(np.asarray(expanding(contracting(pixels))), expected, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([_MODEL, _CLASSES]),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.booleans(),
    st.sampled_from(["probabilities", "entropy", "uncertainty"]),
)
def test_tiles_equal_the_whole_whatever_is_asked(
    model: UNetModel, size: tuple[int, int], blocks: tuple[int, int], average: bool, kind: str
) -> None:
    stack = image((2, *size), "ZYX", seed=sum(size))
    config = FLOAT.replace(average=average, passes=2)
    found = run(model, stack, config, kind=kind, chunk=(4 * blocks[0], 4 * blocks[1]))
    np.testing.assert_allclose(found, run(model, stack, config, kind=kind), atol=2e-6)


def test_several_outputs_at_once_are_those_of_each_alone() -> None:
    stack, config = image((45, 50), "YX"), AVERAGE.replace(passes=2)
    kinds = ("uncertainty", "labels", "probabilities", "entropy")
    layouts = {kind: output_layout(_CLASSES.spec, stack, kind, config) for kind in kinds}
    results = {kind: np.zeros(layout.shape, layout.dtype) for kind, layout in layouts.items()}
    segment(_CLASSES, stack, config, results, chunk=(16, 20))
    for kind in kinds:
        np.testing.assert_allclose(results[kind], run(_CLASSES, stack, config, kind=kind), atol=2e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", ">u2", "bool"])
def test_pixels_of_every_type_are_normalised_alike(dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 250, (24, 28))
    stack = Stack((pixels > 100 if dtype == "bool" else pixels).astype(dtype), "YX")
    np.testing.assert_allclose(run(_MODEL, stack), whole(_MODEL, stack)[..., 0], atol=1e-6)


def test_what_is_dropped_depends_on_where_it_is_alone() -> None:
    full = kept(0.5, 1, 2, range(40), range(30), 64)
    np.testing.assert_array_equal(full[7:20, 11:30], kept(0.5, 1, 2, range(7, 20), range(11, 30), 64))
    others = kept(0.5, 0, 2, range(40), range(30), 64), kept(0.5, 1, 3, range(40), range(30), 64)
    for other in others:
        assert 0.48 < (full == other).mean() < 0.52
    for axis in range(3):
        assert 0.47 < (full == np.roll(full, 1, axis)).mean() < 0.53


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_as_much_is_dropped_as_was_asked_for(rate: float) -> None:
    assert abs(1 - kept(rate, 0, 0, range(100), range(100), 100).mean() - rate) < 0.005


def test_a_turned_image_needs_the_larger_halo_on_both_sides_and_a_fast_one_less() -> None:
    deep = random_model(depth=4, filters=1).network
    exact = halo(deep)
    assert exact.before < exact.after
    turned = needed_halo(deep, AVERAGE)
    assert turned.before == turned.after == exact.after
    fast = needed_halo(deep, FLOAT.replace(halo="fast"))
    assert fast.before == fast.after == 64


def test_a_fast_halo_computes_less_and_is_nearly_right() -> None:
    model, stack = random_model(0, depth=4, filters=2), image((400, 400), "YX")
    config = FLOAT.replace(tile_megapixels=0.1)
    plans = [
        make_plan(model, stack, config.replace(halo=way), ("labels",), (128, 128))
        for way in ("exact", "fast")
    ]
    exact, fast = (sum(map(pixels_of, plan.tiles)) for plan in plans)
    assert fast < 0.9 * exact
    expected = run(model, stack, config)
    found = run(model, stack, config.replace(halo="fast"), chunk=(128, 128))
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.abs(found - expected).max() > 1e-6


def test_reading_and_writing_beside_an_accelerator_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = image((3, 60, 50), "ZYX")
    expected = run(_MODEL, stack)
    monkeypatch.setattr(backend, "device_name", lambda: "GPU: made up")
    events: list[Event] = []
    found = run(_MODEL, stack, FLOAT.replace(precision="float32"), chunk=(16, 16), notify=events.append)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    plan = make_plan(_MODEL, stack, FLOAT.replace(precision="float32"), ("labels",), (16, 16))
    shapes = {tuple(side.stop - side.start for side in tile.read) for tile in plan.tiles}
    assert len(shapes) == 1


def test_an_error_while_writing_beside_an_accelerator_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __setitem__(self, key: Any, value: Any) -> None:
            raise OSError("disk full")

    monkeypatch.setattr(backend, "device_name", lambda: "GPU: made up")
    config = FLOAT.replace(precision="float32")
    with pytest.raises(OSError, match="disk full"):
        segment(_MODEL, image((40, 40), "YX"), config, {"probabilities": Full()}, chunk=(16, 16))


def test_where_memory_runs_out_tiles_become_smaller_and_the_answer_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = image((80, 90), "YX")
    expected = run(_MODEL, stack)
    compute = Engine.begin

    def small(self: Engine, pixels: np.ndarray, n: int, tile: Tile) -> Any:
        if pixels.shape[0] * pixels.shape[1] > 4000:
            raise MemoryError
        return compute(self, pixels, n, tile)

    events: list[Event] = []
    monkeypatch.setattr(Engine, "begin", small)
    found = run(_MODEL, stack, notify=events.append)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # 80 x 92 pixels with the padding
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "Memory ran out, so tiles have at most 0.0037 megapixels from now on."
    ]


@pytest.mark.parametrize("size", [(20, 20), (3, 3), (3, 90)])  # also narrower than the stride
def test_a_tile_that_cannot_be_made_smaller_ends_the_run(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Engine, pixels: np.ndarray, n: int, tile: Tile) -> Any:
        raise MemoryError

    monkeypatch.setattr(Engine, "begin", never)
    with pytest.raises(BackendError, match=r"not enough memory for a tile of \d+ pixels, the smallest"):
        run(_MODEL, image(size, "YX"))


def test_what_a_run_takes_is_said_before_it_begins() -> None:
    events: list[Event] = []
    run(_MODEL, image((90, 80), "YX"), chunk=(48, 80), notify=events.append)
    (note,) = [event.message for event in events if isinstance(event, Noted)]
    assert note.startswith("This takes about ")
    assert note.endswith(" GiB of memory: 2 tiles of up to 76 x 80 pixels.")


def test_of_a_single_small_tile_there_is_nothing_to_tell() -> None:
    events: list[Event] = []
    run(_MODEL, image((90, 80), "YX"), notify=events.append)
    assert not any(isinstance(event, Noted) for event in events)


@pytest.mark.parametrize(("holds", "known"), [(300 * 300, True), (0, False)])
def test_the_time_is_taken_with_what_the_memory_of_a_device_holds(
    monkeypatch: pytest.MonkeyPatch, holds: int, known: bool
) -> None:
    import tensorflow as tf

    compute = Engine.__call__

    def on_device(self: Engine, pixels: np.ndarray, *args: Any) -> Any:
        if pixels.shape[0] * pixels.shape[1] > holds:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return compute(self, pixels, *args)

    monkeypatch.setattr(Engine, "__call__", on_device)
    monkeypatch.setattr(backend, "device_name", lambda: "A GPU")
    window = ((0, 2), (0, 600), (0, 500))
    found = foresee(_MODEL, image((3, 600, 500), "ZYX"), FLOAT, ("labels",), window)
    assert (found.seconds is not None) == known
    assert ("GiB of memory and " in found.sentence) == known
    assert (found.longer(60).seconds is not None) == known


def test_an_estimate_says_memory_time_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_seconds", lambda *_: 0.01)  # so many tiles are less than ten seconds
    stack = image((3, 600, 500), "ZYX")
    found = foresee(
        _MODEL, stack, FLOAT.replace(tile_megapixels=0.1), ("labels",), ((0, 2), (0, 600), (0, 500))
    )
    assert found.tiles % 2 == 0
    assert found.tiles >= 6
    assert found.seconds is not None
    assert found.seconds > 0
    assert found.largest[0] * found.largest[1] <= 100_000
    assert 1 <= found.waste < 2
    assert "GiB of memory and a few seconds" in found.sentence
