"""Training: the same run each time, stopped, killed and gone on with, guarded and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate, count
from typing import Any

import keras
import numpy as np
import pytest

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, prepare
from napari_unet.data.sampling import Sampler
from napari_unet.errors import ModelError
from napari_unet.events import Noted, StepDone, TrainStarted, Validated
from napari_unet.nn import learner, progress, training
from napari_unet.nn.losses import SegmentationLoss
from napari_unet.nn.model import UNetModel, all_finite
from napari_unet.spec import ModelSpec

from .conftest import squares
from .runs import SHORT, Run, digest


def test_a_whole_run(dataset: Dataset, whole: Run) -> None:
    noted, started, *_ = whole.events
    assert isinstance(noted, Noted) and whole.result.message.endswith(noted.message)
    assert whole.warnings == []
    assert started == TrainStarted("folder", 0, 12, started.device)
    assert [event.step for event in whole.of(StepDone)] == list(range(1, 13))
    assert all(event.steps == 12 and np.isfinite(event.loss) for event in whole.of(StepDone))
    assert [event.step for event in whole.of(Validated)] == list(range(1, 13))
    kept = whole.kept
    result = whole.result
    assert (result.steps, result.stopped, result.score) == (12, False, kept.score)
    assert result.message.startswith(f"Trained 12 steps. Mean Dice {kept.score:.3f} on the region held out.")
    card = result.model.spec
    assert (card.training.steps, card.training.score) == (kept.step, kept.score)
    assert card.training.painted == dataset.painted
    assert "tensorflow" in card.training.versions
    assert card.normalization.low == dataset.range.low
    assert whole.models[-1][0].training.steps == card.training.steps
    for name, array in whole.models[-1][1].items():
        np.testing.assert_array_equal(array, result.model.arrays()[name])
    [(_, state)] = whole.checkpoints
    assert (state["step"], state["steps"]) == (12, 12)


def test_it_learns(dataset: Dataset, spec: ModelSpec) -> None:
    config = SHORT.replace(steps=80, warmup=5, learning_rate=0.01)
    run = Run(dataset, spec.replace(network=UNetConfig(filters=4, depth=1)), config)
    losses = [event.loss for event in run.of(StepDone)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert len(run.of(Validated)) == progress.VALIDATIONS
    assert run.result.score is not None
    assert run.result.score > 0.9


def test_stopped_and_resumed_is_bit_exact(dataset: Dataset, spec: ModelSpec, whole: Run, cut: Run) -> None:
    # Settings that are left open are those of the checkpoint.
    config = SHORT.replace(patch=None, batch=None, precision="auto")
    assert cut.checkpoints[-1][1]["network"] == spec.network.model_dump(mode="json")
    continues(cut, Run(dataset, spec, config, resume=cut.checkpoints[-1]), whole)


def test_stopped_and_resumed_is_bit_exact_in_bfloat16(dataset: Dataset, spec: ModelSpec) -> None:
    config = SHORT.replace(precision="bfloat16")
    first = Run(dataset, spec, config, until=5)
    second = Run(dataset, spec, config, resume=first.checkpoints[-1])
    continues(first, second, Run(dataset, spec, config))


def continues(first: Run, second: Run, whole: Run) -> None:
    """Assert that a run stopped after 5 steps, gone on with, ends as the same run left alone."""
    assert (first.result.steps, first.result.stopped) == (5, True)
    assert second.of(TrainStarted)[0].step == 5
    assert [event.step for event in second.of(StepDone)] == list(range(6, 13))
    assert digest(second.result.model) == digest(whole.result.model)
    assert second.result.score == whole.result.score
    # not only the best weights: averages, momentum and dropout's random state too
    for name, array in whole.checkpoints[-1][0].items():
        np.testing.assert_array_equal(second.checkpoints[-1][0][name], array, name)
    assert first.of(StepDone)[-1].loss == whole.of(StepDone)[4].loss
    assert second.of(StepDone)[-1].loss == whole.of(StepDone)[-1].loss


def test_every_checkpoint_is_one_to_go_on_from(dataset: Dataset, spec: ModelSpec) -> None:
    config = SHORT.replace(steps=6, checkpoint_seconds=0)
    whole = Run(dataset, spec, config)
    assert [state["step"] for _, state in whole.checkpoints] == [1, 2, 3, 4, 5, 6, 6]
    again = Run(dataset, spec, config, resume=whole.checkpoints[2])
    assert digest(again.result.model) == digest(whole.result.model)


def test_checkpoints_hold_plain_numbers(cut: Run) -> None:
    arrays, state = cut.checkpoints[-1]
    assert json.loads(json.dumps(state)) == state
    assert {array.dtype.kind for array in arrays.values()} <= set("fiu")


def test_a_checkpoint_of_another_network_is_refused(dataset: Dataset, spec: ModelSpec, cut: Run) -> None:
    checkpoint = cut.checkpoints[-1]
    other = spec.replace(network=UNetConfig(filters=3, depth=1))
    with pytest.raises(ModelError, match="belongs to another network"):
        Run(dataset, other, SHORT, resume=checkpoint)
    with pytest.raises(ModelError, match="written by another version"):
        Run(dataset, spec, SHORT, resume=(checkpoint[0], {"step": 1}))


def test_nothing_held_out_is_said_and_the_last_average_kept(dataset: Dataset, spec: ModelSpec) -> None:
    run = Run(dataset, spec, SHORT.replace(steps=3, validation=0, checkpoint_seconds=0))
    assert run.of(Validated) == []
    assert run.result.score is None
    assert run.result.model.spec.threshold == 0.5
    assert "Quality was not measured." in run.result.message
    assert [card.training.steps for card, _ in run.models] == [1, 2, 3, 3]


def test_stopped_after_the_first_step_it_leaves_a_model(dataset: Dataset, spec: ModelSpec) -> None:
    leaves_a_model(Run(dataset, spec, SHORT, until=1), 1)


def test_stopped_at_a_later_step_it_leaves_a_model(cut: Run) -> None:
    leaves_a_model(cut, 5)


def leaves_a_model(run: Run, step: int) -> None:
    """Assert that a run stopped after a step has a model, and says so."""
    assert (run.result.steps, run.result.stopped) == (step, True)
    assert run.result.message.startswith(f"Stopped after {step} of 12 steps; the best model so far is kept.")
    assert run.models
    assert all_finite(run.result.model.arrays())
    assert run.result.score == run.kept.score


def test_that_too_little_is_painted_is_said_before_the_first_step(spec: ModelSpec) -> None:
    image, labels = squares(32)
    dataset = prepare([Stack(image, "YX", "a")], [Stack(labels, "YX", "b")], unpainted="background")
    run = Run(dataset, spec, SHORT.replace(steps=1))
    first = run.events[0]
    assert isinstance(first, Noted)
    assert first.message.startswith("Too little is painted to hold a region out")


def test_stopped_before_the_first_step_nothing_is_learned(dataset: Dataset, spec: ModelSpec) -> None:
    run = Run(dataset, spec, SHORT, until=0)
    assert (run.result.steps, run.result.stopped, run.result.score) == (0, True, None)
    assert run.result.message == "Nothing learned yet: stopped before the first step was done."
    assert run.models == []
    assert run.checkpoints == []


def test_minutes_become_a_number_of_steps_by_the_first_ones(dataset: Dataset, spec: ModelSpec) -> None:
    config = SHORT.replace(steps=0, minutes=5, checkpoint_seconds=0)
    run = Run(dataset, spec, config, until=12)
    [started] = run.of(TrainStarted)
    assert run.events[1] is started
    assert started.steps > started.step == 0
    assert [event.step for event in run.of(StepDone)] == list(range(1, len(run.of(StepDone)) + 1))
    assert {event.steps for event in run.of(StepDone)} == {started.steps}
    planned = [state["steps"] for _, state in run.checkpoints]
    assert planned[0] == 0
    assert set(planned) == {0, started.steps}
    again = Run(dataset, spec, config.replace(minutes=500), resume=run.checkpoints[-1], until=1)
    assert again.of(TrainStarted)[0].steps == started.steps


@pytest.mark.parametrize(
    ("first", "later", "than"), [(0.5, 0.2, "less"), (0.2, 0.5, "more"), (0.3, 0.3, None)]
)
def test_a_plan_made_of_unusual_steps_is_made_anew(
    dataset: Dataset,
    spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    first: float,
    later: float,
    than: str | None,
) -> None:
    # The clock is read once before the first step, and three times in each: a step lasts from one reading to the next.
    ticks = accumulate(first if reading < 1 + 3 * 8 else later for reading in count())
    monkeypatch.setattr(training, "perf_counter", lambda: next(ticks))
    run = Run(dataset, spec, SHORT.replace(steps=0, minutes=0.5, validation=0), until=60)
    planned = list(dict.fromkeys(event.steps for event in run.of(StepDone)))
    # 8 first steps and those that fit into what was left of half a minute
    assert planned[0] == pytest.approx(8 + (30 - 8 * first) / first, abs=2)
    told = [note for note in run.of(Noted) if "time than the first ones did" in note.message]
    if than is None:
        assert len(planned) == 1 and not told
    else:
        assert planned[1:] == [pytest.approx(8 + (30 - 8 * first) / later, abs=8)]
        assert told[0].message == (
            f"Steps take {than} time than the first ones did: {planned[1]} steps, not {planned[0]}, fit in 0.5 minutes."
        )


def poisoned(after: int, times: int) -> Callable[..., Any]:
    """Make a sampler's batches carry a mark in `times` batches after `after`."""
    draw = Sampler.batch

    def batch(self: Sampler, n: int) -> Any:
        images, targets, weights = draw(self, n)
        if after <= n < after + times:
            images[0, 0, 0, 0] = 1e6
        return images, targets, weights

    return batch


def broken_call(self: SegmentationLoss, y_true: Any, y_pred: Any) -> Any:
    """The loss, infinite for a batch that holds a mark."""
    marked = keras.ops.max(keras.ops.abs(y_pred)) > 1e3
    return _CALL(self, y_true, y_pred) * keras.ops.where(marked, np.inf, 1.0)


_CALL = SegmentationLoss.call


def test_a_step_that_is_not_finite_is_skipped_and_the_rate_halved(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sampler, "batch", poisoned(4, 1))
    monkeypatch.setattr(SegmentationLoss, "call", broken_call)
    run = Run(dataset, spec, SHORT)
    assert run.warnings == [
        "Step 5 gave numbers that are not finite: it was skipped, and the learning rate halved."
    ]
    assert run.result.steps == 12
    assert all_finite(run.result.model.arrays())
    _, state = run.checkpoints[-1]
    assert (state["faults"], state["factor"]) == (1, 0.5)


def test_the_fourth_such_step_ends_the_training_with_the_best_so_far(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sampler, "batch", poisoned(5, 100))
    monkeypatch.setattr(SegmentationLoss, "call", broken_call)
    run = Run(dataset, spec, SHORT)
    assert len(run.warnings) == 3
    assert (run.result.steps, run.result.stopped) == (9, False)
    assert "its numbers were not finite 4 times" in run.result.message
    assert "The best model so far is kept" in run.result.message
    assert all_finite(run.result.model.arrays())
    assert run.result.score == run.kept.score


@pytest.mark.parametrize("validation", [0.3, 0])
def test_an_absurd_rate_never_leaves_bad_weights(
    dataset: Dataset, spec: ModelSpec, validation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "learning_rate", lambda *args: 1e6)
    run = Run(dataset, spec, SHORT.replace(validation=validation))
    assert all_finite(run.result.model.arrays())
    for card, arrays in run.models:
        UNetModel.from_arrays(card, arrays)


def lost_after(step: int) -> Callable[..., Any]:
    """Make a learner whose last layer is NaN from the end of a step on."""
    do = learner.Learner.step

    def one_step(self: learner.Learner, batch: Any, n: int, *rest: Any) -> Any:
        done = do(self, batch, n, *rest)
        if n + 1 == step:
            kernel = self.network.get_layer("logits").kernel
            kernel.assign(np.full(kernel.shape, np.nan))
        return done

    return one_step


def test_where_nothing_is_held_out_the_last_finite_weights_are_kept(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner.Learner, "step", lost_after(3))
    config = SHORT.replace(validation=0, checkpoint_seconds=0)
    first = Run(dataset, spec, config)
    assert [state["step"] for _, state in first.checkpoints] == [1, 2]
    assert [card.training.steps for card, _ in first.models] == [1, 2, 3]  # the average of step 3 is sound
    later = Run(dataset, spec, config.replace(checkpoint_seconds=3600), resume=first.checkpoints[-1])
    for run, kept in ((first, 3), (later, 2)):
        assert all(all_finite(arrays) for arrays, _ in run.checkpoints)
        assert all(all_finite(arrays) for _, arrays in run.models)
        assert run.result.model.spec.training.steps == kept
        np.testing.assert_equal(run.result.model.arrays(), run.models[-1][1])
        assert run.result.message.startswith(
            "Training ended after 7 of 12 steps: its numbers were not finite 4 times, though the learning rate was halved."
        )
        assert (
            f"The model is that of step {kept}, the last one saved with finite weights." in run.result.message
        )


def test_weights_that_were_never_finite_are_no_model(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner.Learner, "step", lost_after(1))
    with pytest.raises(ModelError, match="not finite, so there is no model: train again with a lower"):
        Run(dataset, spec, SHORT.replace(validation=0))


def dead_from_the_start(seeds_alive: set[int]) -> Callable[..., Any]:
    """Make a learner whose weights are all zero, save with some seeds."""
    start = learner.Learner.__init__

    def init(
        self: learner.Learner, network: UNetConfig, config: TrainConfig, seed: int, precision: str
    ) -> None:
        start(self, network, config, seed, precision)
        if seed not in seeds_alive:
            for variable in self.network.trainable_variables:
                variable.assign(np.zeros(variable.shape))

    return init


def test_a_dead_network_begins_anew_once(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = progress.Progress(0, 12, 32, 2).restarted().seed
    monkeypatch.setattr(learner.Learner, "__init__", dead_from_the_start({other}))
    run = Run(dataset, spec, SHORT)
    assert run.warnings == [
        "The network gave the same answer everywhere, so it cannot learn: training begins anew with other first weights."
    ]
    assert [event.step for event in run.of(TrainStarted)] == [0, 0]
    assert run.result.message.startswith("Trained 12 steps.")
    assert run.checkpoints[-1][1]["deaths"] == 1
    resumed = Run(dataset, spec, SHORT, resume=run.checkpoints[-1])
    assert digest(resumed.result.model) == digest(run.result.model)


def test_a_network_dead_twice_is_reported(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner.Learner, "__init__", dead_from_the_start(set()))
    run = Run(dataset, spec, SHORT)
    assert len(run.warnings) == 1
    assert "the network gave the same answer everywhere. Its model is of no use" in run.result.message
    again = Run(dataset, spec, SHORT, resume=run.checkpoints[-1])
    assert again.result.message == run.result.message


def test_three_classes_channels_and_low_precision() -> None:
    image, labels = squares(classes=3)
    stack = Stack(np.stack([image, image // 2]), "CYX", "two channels")
    dataset = prepare([stack], [Stack(labels, "YX", "paint")], unpainted="background")
    spec = ModelSpec(
        network=UNetConfig(filters=2, depth=1, classes=3, channels=2),
        classes=tuple({"value": value} for value in range(3)),
    )
    run = Run(dataset, spec, SHORT.replace(steps=3, precision="bfloat16"))
    assert run.result.score is not None
    assert run.result.model.spec.threshold == 0.5
    assert all(array.dtype == np.float32 for array in run.result.model.arrays().values())


def test_what_does_not_fit_is_refused_before_anything_is_built(dataset: Dataset, spec: ModelSpec) -> None:
    rgb = spec.replace(network=UNetConfig(filters=1, depth=1, channels=3))
    with pytest.raises(
        ModelError, match="reads 3 channels and knows 2 classes, but the images have 1 and the labels 2"
    ):
        Run(dataset, rgb)
    deep = spec.replace(network=UNetConfig(filters=1, depth=5))
    with pytest.raises(
        ModelError, match="A patch of 48 pixels does not fit a network of depth 5: choose a multiple of 32"
    ):
        Run(dataset, deep, SHORT.replace(patch=48))
    empty = Dataset((), dataset.class_map, dataset.range, 0)
    with pytest.raises(ModelError, match="nothing to train on"):
        Run(empty, spec)


def test_moments_are_spread_and_end_at_the_end() -> None:
    assert progress.moments(3, 20) == {1, 2, 3}
    spread = sorted(progress.moments(1000, 20))
    assert spread == list(range(50, 1001, 50))
    assert max(progress.moments(997, 20)) == 997
