"""Training that ends well: out of memory, early, from another model; the same after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage.measure import label

from napari_unet.config import UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, prepare
from napari_unet.data.decoding import Choice
from napari_unet.errors import ModelError
from napari_unet.events import StepDone, Validated
from napari_unet.nn import best, computing, training
from napari_unet.nn.learner import Learner
from napari_unet.nn.training import train_network
from napari_unet.spec import ClassInfo, ModelSpec, ObjectDecoding

from .conftest import squares
from .runs import SHORT, Run, digest


def limited(pixels: int, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> list[tuple[int, ...]]:
    """Let steps of more pixels fail as on a GPU whose memory is full, from step `after` on; list what was tried."""
    tried: list[tuple[int, ...]] = []
    step = keras.Model.train_on_batch

    def train_on_batch(self: Any, x: np.ndarray, *args: Any, **options: Any) -> Any:
        tried.append(x.shape[:2])
        if len(tried) > after and x.shape[0] * x.shape[1] ** 2 > pixels:
            # As after a real failure, something has run already.
            self.optimizer.iterations.assign_add(1)
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return step(self, x, *args, **options)

    monkeypatch.setattr(keras.Model, "train_on_batch", train_on_batch)
    return tried


def test_out_of_memory_means_smaller_batches_then_smaller_patches(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = limited(16**2, monkeypatch)
    run = Run(dataset, spec, SHORT.replace(batch=4, steps=4))
    assert tried == [(4, 32), (2, 32), (1, 32), *[(1, 16)] * 4]
    assert run.warnings == [
        "Memory ran out in step 1: training goes on with 2 patches in a step, not 4.",
        "Memory ran out in step 1: training goes on with 1 patch in a step, not 2.",
        "Memory ran out in step 1: training goes on with patches of 16 pixels, not 32.",
    ]
    assert run.result.steps == 4
    assert [event.step for event in run.of(StepDone)] == [1, 2, 3, 4]
    # nothing of the steps that failed is left: it is the run that was asked for small
    monkeypatch.undo()
    small = Run(dataset, spec, SHORT.replace(batch=1, patch=16, steps=4))
    assert digest(small.result.model) == digest(run.result.model)


def test_what_memory_allows_is_kept_for_the_next_session(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(32**2, monkeypatch, after=5)
    run = Run(dataset, spec, SHORT)
    monkeypatch.undo()
    assert run.warnings == ["Memory ran out in step 6: training goes on with 1 patch in a step, not 2."]
    first, _ = run.checkpoints
    assert (first[1]["step"], first[1]["patch"], first[1]["batch"]) == (5, 32, 1)
    resumed = Run(dataset, spec, SHORT, resume=first)
    assert digest(resumed.result.model) == digest(run.result.model)


def test_where_not_even_the_smallest_step_fits_it_is_said(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(0, monkeypatch)
    with pytest.raises(ModelError, match="Memory runs out even with one patch of 16 pixels in a step"):
        Run(dataset, spec)


def test_other_errors_of_the_backend_pass(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise tf.errors.InternalError(None, None, "broken")

    monkeypatch.setattr(keras.Model, "train_on_batch", fail)
    with pytest.raises(tf.errors.InternalError):
        Run(dataset, spec)


def on_forward(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, int], object]) -> list[int]:
    """Act before each answer that is asked of a network outside of steps, given its number from 1 and its pixels; count them."""
    trace, asked = computing.traced, [0]

    def traced(network: Any) -> Any:
        forward = trace(network)

        def counted(pixels: np.ndarray) -> np.ndarray:
            asked[0] += 1
            act(asked[0], pixels[0, ..., 0].size)
            return forward(pixels)

        return counted

    monkeypatch.setattr(computing, "traced", traced)
    return asked


def run_out(number: int, pixels: int) -> None:
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_out_of_memory_while_looking_for_a_dead_network_means_smaller_steps(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_forward(monkeypatch, lambda number, pixels: number == 1 and run_out(number, pixels))
    run = Run(dataset, spec, SHORT.replace(validation=0))
    assert run.warnings == ["Memory ran out in step 11: training goes on with 1 patch in a step, not 2."]
    assert [event.step for event in run.of(StepDone)] == list(range(1, 13))


def test_out_of_memory_while_quality_is_measured_means_smaller_tiles(
    dataset: Dataset, spec: ModelSpec, three: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def full(number: int, pixels: int) -> None:
        asked.append(pixels)
        if pixels > 2000:
            run_out(number, pixels)

    on_forward(monkeypatch, full)
    run = Run(dataset, spec, SHORT.replace(steps=3))
    assert run.warnings == []
    too_large = [pixels > 2000 for pixels in asked]
    assert too_large == sorted(too_large, reverse=True), "what does not fit once is not tried again"
    assert len(asked) > too_large.count(True) > 0
    assert run.result.score == pytest.approx(three.result.score)


def test_where_not_even_the_smallest_tile_fits_it_is_said(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_forward(monkeypatch, run_out)
    with pytest.raises(ModelError, match="Memory ran out while quality was measured: hold nothing out"):
        Run(dataset, spec, SHORT.replace(steps=0, minutes=0.1))


def test_stop_ends_the_measurement_whose_time_is_taken(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = on_forward(monkeypatch, lambda *_: None)
    states: list[Any] = []
    result = train_network(
        dataset,
        spec,
        SHORT.replace(steps=0, minutes=0.1),
        save_checkpoint=lambda arrays, state: states.append(state),
        stop=lambda: asked[0] > 0,
    )
    assert result.stopped
    assert states[-1]["steps"] == 0  # no plan was made of a measurement cut short
    assert result.score is not None  # the last weights are measured once, though
    assert asked[0] == 2


def test_a_dead_network_begins_anew_from_the_model_it_started_with(
    dataset: Dataset, spec: ModelSpec, three: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = three.result.model
    answers = iter([True])
    monkeypatch.setattr(training.Probe, "finds_dead", lambda *args: next(answers, False))
    config = SHORT.replace(learning_rate=1e-7, seed=5, validation=0)
    again = Run(dataset, spec, config, begin_with=model.arrays())
    assert again.warnings == [
        "The network gave the same answer everywhere, so it cannot learn: training begins anew from the model it started with, on other batches."
    ]
    assert again.result.steps == 12
    for name, array in again.result.model.arrays().items():
        np.testing.assert_allclose(array, model.arrays()[name], atol=1e-5)


def scored(*scores: float) -> Callable[..., Any]:
    """Make the measurements of a training come out as told."""
    measure = training.BestModel.measure
    told = iter(scores)

    def told_score(self: Any, *args: Any) -> Any:
        quality = measure(self, *args)
        return quality and replace(quality, score=next(told))

    return told_score


def test_it_ends_when_quality_no_longer_rises(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SHORT.replace(patience=3)
    monkeypatch.setattr(training.BestModel, "measure", scored(0.5, 0.4, 0.45, 0.7, 0.6, 0.7, 0.1))
    run = Run(dataset, spec, config)
    assert [event.best for event in run.of(Validated)] == [True, False, False, True, False, True, False]
    assert (run.result.steps, run.result.stopped, run.result.score) == (7, False, 0.7)
    assert run.result.message.startswith(
        "Ended after 7 of 12 steps, because the last 3 measurements were no better than those before. "
        "The model of step 6 is kept. Mean Dice 0.700 on the region held out."
    )
    again = Run(dataset, spec, config, resume=run.checkpoints[-1])
    assert again.of(StepDone) == []
    assert again.result.message == run.result.message


def test_the_last_of_networks_that_are_as_good_is_kept(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs by 0.01 from the best is as good; what drifts away from it little by little is not."""
    scores = (0.5, 0.8, 0.795, 0.788, 0.792, 0.785, *[0.7] * 6)
    monkeypatch.setattr(training.BestModel, "measure", scored(*scores))
    run = Run(dataset, spec, SHORT)
    kept = [event.step for event in run.of(Validated) if event.best]
    assert kept == [1, 2, 3, 5]
    card = run.result.model.spec.training
    assert (card.steps, card.score, run.result.score) == (5, 0.792, 0.792)
    assert run.checkpoints[-1][1]["top"] == 0.8


@pytest.mark.parametrize(
    ("told", "kept", "patience"),
    [
        # The Dice of inside, border and background may fall while objects get better.
        ([(0.9, 0.2), (0.8, 0.6), (0.85, 0.5), *[(0.9, 0.3)] * 9], [1, 2], 0),
        # Before the first object is found, Dice tells how far it is.
        ([(0.4 + 0.02 * n, 0.0) for n in range(12)], list(range(1, 13)), 3),
        ([(0.7, 0.0), (0.6, 0.0), *[(0.3, 0.0)] * 10], [1], 0),
    ],
)
def test_where_objects_are_learned_those_found_count_too(
    told: list[tuple[float, float]], kept: list[int], patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, labels = squares()
    things = [Stack(image, "YX", "squares")], [Stack(label(labels), "YX", "paint")]
    dataset = prepare(*things, unpainted="background", target="objects")
    names = tuple(ClassInfo(value=value) for value in range(3))
    network = UNetConfig(filters=2, depth=1, classes=3)
    spec = ModelSpec(network=network, target="objects", classes=names, objects={})
    measure = training.BestModel.measure
    scores = iter(told)

    def told_objects(self: Any, *args: Any) -> Any:
        quality = measure(self, *args)
        dice, ap = next(scores)
        choice = Choice(ObjectDecoding(min_size=round(100 * ap)), ap, ap + 0.1)
        return quality and replace(quality, score=dice, choice=choice)

    monkeypatch.setattr(training.BestModel, "measure", told_objects)
    run = Run(dataset, spec, SHORT.replace(patience=patience))
    assert [event.step for event in run.of(Validated) if event.best] == kept
    assert run.result.steps == 12
    assert [event.ap50 for event in run.of(Validated)] == [
        ap + 0.1 for _, ap in told[: len(run.of(Validated))]
    ]
    card = run.result.model.spec
    dice, ap = told[kept[-1] - 1]
    assert (card.training.steps, card.training.score, card.training.ap50) == (kept[-1], dice, ap + 0.1)
    assert card.objects is not None and card.objects.min_size == round(100 * ap)


def test_a_network_that_collapses_after_it_had_learned_keeps_its_best(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.BestModel, "measure", scored(0.5, 0.5, 0.5, 0.9, *[0.8] * 6))
    answers = iter([False, True])  # asked after steps 10 and 11
    monkeypatch.setattr(training.Probe, "finds_dead", lambda *args: next(answers))
    run = Run(dataset, spec, SHORT)
    assert run.warnings == []
    assert run.result.message.startswith(
        "Training ended after 11 of 12 steps, because the network collapsed: it gave the same answer everywhere. "
        "The best model, that of step 4, is kept; for a better one, try a lower learning rate or another seed. Mean Dice 0.900"
    )
    again = Run(dataset, spec, SHORT, resume=run.checkpoints[-1])
    assert again.of(StepDone) == []
    assert again.result.message == run.result.message
    assert digest(again.result.model) == digest(run.result.model)


def test_a_measurement_that_was_stopped_is_not_begun_anew(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[float] = []
    whole = best.measure

    def slow(*args: Any, **options: Any) -> Any:
        """Take longer than what is made up for after Stop, save where it is stopped in the middle."""
        took.append(0.0 if len(took) == 1 else 0.4)
        time.sleep(took[-1])
        return whole(*args, **options) if took[-1] else None

    monkeypatch.setattr(best, "measure", slow)
    monkeypatch.setattr(training, "_SHORT", 0.2)
    first = Run(dataset, spec, SHORT)
    assert first.result.stopped and took == [0.4, 0.0]
    assert first.result.message.startswith("Stopped after ")
    monkeypatch.setattr(best, "measure", whole)
    asked = on_forward(monkeypatch, lambda *_: None)
    again = Run(dataset, spec, SHORT, until=0, resume=first.checkpoints[-1])
    assert again.result.stopped and asked == [0], "how long it takes is not known yet in this session"


def test_patience_is_counted_across_sessions(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SHORT.replace(patience=4)
    monkeypatch.setattr(training.BestModel, "measure", scored(0.9, *[0.1] * 3))
    # measured twice; the measurement after the checkpoint doesn't count
    first = Run(dataset, spec, config, until=3)
    monkeypatch.undo()
    monkeypatch.setattr(training.BestModel, "measure", scored(*[0.1] * 9))
    second = Run(dataset, spec, config, resume=first.checkpoints[-1])
    assert second.result.steps == 5


def test_first_weights_are_those_of_the_model_to_begin_with(
    dataset: Dataset, spec: ModelSpec, three: Run
) -> None:
    model = three.result.model
    config = SHORT.replace(steps=1, learning_rate=1e-7, seed=5, validation=0)
    again = Run(dataset, spec, config, begin_with=model.arrays())
    for name, array in again.result.model.arrays().items():
        np.testing.assert_allclose(array, model.arrays()[name], atol=1e-5)
    fresh = Run(dataset, spec, config)
    assert digest(fresh.result.model) != digest(again.result.model)


def test_a_layer_that_is_not_named_stays_fresh(spec: ModelSpec, three: Run) -> None:
    learner = Learner(spec.network, SHORT, 3)
    fresh = learner.network.get_layer("logits").kernel.numpy().copy()
    weights = {
        name: array for name, array in three.result.model.arrays().items() if not name.startswith("logits")
    }
    learner.begin_with(weights)
    np.testing.assert_array_equal(learner.network.get_layer("logits").kernel.numpy(), fresh)


def test_open_settings_are_refused(dataset: Dataset, spec: ModelSpec) -> None:
    with pytest.raises(ModelError, match="Patch, batch and precision of this training are left open"):
        train_network(dataset, spec, SHORT.replace(batch=None))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_step_leaves_no_bad_statistics(spec: ModelSpec, bad: float) -> None:
    learner = Learner(spec.network.replace(normalization="batch"), SHORT, 0)
    rng = np.random.default_rng(0)
    images = rng.random((2, 32, 32, 1), np.float32)
    truth = rng.integers(0, 2, (2, 32, 32)).astype(np.uint8)
    weights = np.ones((2, 32, 32), np.float32)
    assert learner.step((images, truth, weights), 0, 12, 1.0)[1]
    before = learner.state()
    images[0, 3, 3] = bad
    assert not learner.step((images, truth, weights), 1, 12, 1.0)[1]
    after = learner.state()
    floats = [name for name in before if name.startswith("network") and before[name].dtype.kind == "f"]
    assert len(floats) > 20
    for name in floats:
        np.testing.assert_array_equal(after[name], before[name], name)


def test_a_model_handed_out_is_not_changed_by_later_steps(whole: Run) -> None:
    assert len(whole.models) > 1
    for (_, now), then in zip(whole.models, whole.copies, strict=True):
        np.testing.assert_equal(now, then)


@pytest.mark.parametrize("asked", [1, 2, 3, 5])
def test_stop_at_any_question_leaves_a_model_or_says_that_nothing_was_learned(
    dataset: Dataset, spec: ModelSpec, asked: int
) -> None:
    questions = iter(range(1, 1000))
    models: list[Any] = []
    result = train_network(
        dataset,
        spec,
        SHORT,
        save_model=lambda card, arrays: models.append(card),
        stop=lambda: next(questions) >= asked,  # and again each time after
    )
    assert result.stopped
    if result.steps:
        assert models and result.message.startswith(f"Stopped after {result.steps} of 12 steps")
    else:
        assert not models and result.message == "Nothing learned yet: stopped before the first step was done."
