"""Training: the same run each time, stopped, killed and gone on with, guarded and measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import pytest

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, prepare
from napari_unet.data.sampling import Sampler
from napari_unet.errors import ModelError
from napari_unet.events import Event, Noted, StepDone, TrainStarted, Validated, Warned
from napari_unet.nn import learner, optimizer, progress
from napari_unet.nn.losses import SegmentationLoss
from napari_unet.nn.model import UNetModel, all_finite
from napari_unet.nn.training import TrainResult, train_network
from napari_unet.spec import ModelSpec

from .conftest import squares

SHORT = TrainConfig(
    steps=12,
    patch=32,
    batch=2,
    warmup=2,
    validation=0.3,
    patience=0,
    precision="float32",
    checkpoint_seconds=3600,
)


def digest(model: UNetModel) -> str:
    """The sha256 of all weights."""
    content = hashlib.sha256()
    for name, array in sorted(model.arrays().items()):
        content.update(name.encode() + array.tobytes())
    return content.hexdigest()


class Run:
    """A training whose events, models and checkpoints are kept."""

    def __init__(
        self,
        dataset: Dataset,
        spec: ModelSpec,
        config: TrainConfig = SHORT,
        *,
        until: int | None = None,
        **options: Any,
    ) -> None:
        self.events: list[Event] = []
        self.models: list[tuple[ModelSpec, dict[str, np.ndarray]]] = []
        self.checkpoints: list[tuple[dict[str, np.ndarray], dict[str, Any]]] = []

        def stop() -> bool:
            return until is not None and len(self.of(StepDone)) >= until

        self.result: TrainResult = train_network(
            dataset,
            spec,
            config,
            save_model=lambda card, arrays: self.models.append((card, arrays)),
            save_checkpoint=lambda arrays, state: self.checkpoints.append((dict(arrays), dict(state))),
            notify=self.events.append,
            stop=stop,
            **options,
        )

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.of(Warned)]


def test_a_whole_run(dataset: Dataset, spec: ModelSpec) -> None:
    run = Run(dataset, spec, run="folder")
    noted, started, *_ = run.events
    assert isinstance(noted, Noted) and run.result.message.endswith(noted.message)
    assert run.warnings == []
    assert started == TrainStarted("folder", 0, 12, started.device)
    assert [event.step for event in run.of(StepDone)] == list(range(1, 13))
    assert all(event.steps == 12 and np.isfinite(event.loss) for event in run.of(StepDone))
    assert [event.step for event in run.of(Validated)] == list(range(1, 13))
    best = max(event.score for event in run.of(Validated))
    result = run.result
    assert (result.steps, result.stopped, result.score) == (12, False, best)
    assert result.message.startswith(f"Trained 12 steps. Mean Dice {best:.3f} on the region held out.")
    card = result.model.spec
    assert card.training.score == best
    assert card.training.painted == dataset.painted
    assert "tensorflow" in card.training.versions
    assert card.normalization.low == dataset.range.low
    assert run.models[-1][0].training.steps == card.training.steps
    for name, array in run.models[-1][1].items():
        np.testing.assert_array_equal(array, result.model.arrays()[name])
    [(_, state)] = run.checkpoints
    assert (state["step"], state["steps"]) == (12, 12)


def test_it_learns(dataset: Dataset, spec: ModelSpec) -> None:
    config = SHORT.replace(steps=80, warmup=5, learning_rate=0.01)
    run = Run(dataset, spec.replace(network=UNetConfig(filters=4, depth=1)), config)
    losses = [event.loss for event in run.of(StepDone)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert len(run.of(Validated)) == progress.VALIDATIONS
    assert run.result.score is not None
    assert run.result.score > 0.9


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopped_and_resumed_is_bit_exact(
    dataset: Dataset, spec: ModelSpec, precision: Literal["float32", "bfloat16"]
) -> None:
    config = SHORT.replace(precision=precision)
    whole = Run(dataset, spec, config)
    first = Run(dataset, spec, config, until=5)
    assert (first.result.steps, first.result.stopped) == (5, True)
    second = Run(dataset, spec, config, resume=first.checkpoints[-1])
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


def test_checkpoints_hold_plain_numbers(dataset: Dataset, spec: ModelSpec) -> None:
    import json

    run = Run(dataset, spec, SHORT.replace(steps=2))
    arrays, state = run.checkpoints[-1]
    assert json.loads(json.dumps(state)) == state
    assert {array.dtype.kind for array in arrays.values()} <= set("fiu")


def test_a_checkpoint_of_another_network_is_refused(dataset: Dataset, spec: ModelSpec) -> None:
    checkpoint = Run(dataset, spec, SHORT.replace(steps=1)).checkpoints[-1]
    other = spec.replace(network=UNetConfig(filters=3, depth=1))
    with pytest.raises(ModelError, match="belongs to another network"):
        Run(dataset, other, SHORT, resume=checkpoint)
    with pytest.raises(ModelError, match="written by another version"):
        Run(dataset, spec, SHORT, resume=(checkpoint[0], {"step": 1}))


def test_the_same_seed_twice_gives_identical_weights(dataset: Dataset, spec: ModelSpec) -> None:
    config = SHORT.replace(steps=4)
    first, second = Run(dataset, spec, config), Run(dataset, spec, config)
    assert digest(first.result.model) == digest(second.result.model)


def test_nothing_held_out_is_said_and_the_last_average_kept(dataset: Dataset, spec: ModelSpec) -> None:
    run = Run(dataset, spec, SHORT.replace(steps=3, validation=0, checkpoint_seconds=0))
    assert run.of(Validated) == []
    assert run.result.score is None
    assert run.result.model.spec.threshold == 0.5
    assert "Quality was not measured." in run.result.message
    assert [card.training.steps for card, _ in run.models] == [1, 2, 3, 3]


@pytest.mark.parametrize("step", [1, 7])
def test_stopped_at_any_step_leaves_a_model(dataset: Dataset, spec: ModelSpec, step: int) -> None:
    run = Run(dataset, spec, SHORT, until=step)
    assert (run.result.steps, run.result.stopped) == (step, True)
    assert run.result.message.startswith(f"Stopped after {step} of 12 steps; the best model so far is kept.")
    assert run.models
    assert all_finite(run.result.model.arrays())
    assert run.result.score == max(event.score for event in run.of(Validated))


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


def test_minutes_become_a_number_of_steps_once(dataset: Dataset, spec: ModelSpec) -> None:
    config = SHORT.replace(steps=0, minutes=0.1, checkpoint_seconds=0)
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
    assert run.result.score == max(event.score for event in run.of(Validated))


def test_a_bad_gradient_moves_no_weight() -> None:
    adam = optimizer.GuardedAdam()
    variable = keras.Variable(np.ones(3, np.float32))
    adam.build([variable])
    adam.rate.assign(0.1)
    adam.apply([np.ones(3, np.float32)], [variable])
    moved = variable.numpy()
    assert (moved < 1).all()
    for bad in (np.nan, np.inf):
        adam.apply([np.array([1, bad, 1], np.float32)], [variable])
        np.testing.assert_array_equal(variable.numpy(), moved)
    assert int(adam.skipped.numpy()) == 2
    adam.apply([np.ones(3, np.float32)], [variable])
    assert (variable.numpy() < moved).all()
    assert all(np.isfinite(v.numpy()).all() for v in adam.variables)


def test_an_absurd_rate_never_leaves_bad_weights(
    dataset: Dataset, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "learning_rate", lambda *args: 1e6)
    run = Run(dataset, spec, SHORT)
    assert all_finite(run.result.model.arrays())
    for card, arrays in run.models:
        UNetModel.from_arrays(card, arrays)


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


def test_learning_rate_rises_and_falls_to_almost_nothing() -> None:
    rates = [optimizer.learning_rate(step, 1000, 1e-3, 50) for step in range(1000)]
    top = int(np.argmax(rates))
    assert top == 50
    assert rates[top] == 1e-3
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert 0 < rates[-1] < 1e-8
    # while the number of steps isn't known, the rise is the same
    assert [optimizer.learning_rate(step, 0, 1e-3, 50) for step in range(10)] == rates[:10]


def test_averages_forget_the_first_weights_soon() -> None:
    kept = np.prod([optimizer.average_momentum(step) for step in range(1, 30)])
    assert kept < 1e-5
    assert optimizer.average_momentum(100_000) == 0.99


def test_moments_are_spread_and_end_at_the_end() -> None:
    assert progress.moments(3, 20) == {1, 2, 3}
    spread = sorted(progress.moments(1000, 20))
    assert spread == list(range(50, 1001, 50))
    assert max(progress.moments(997, 20)) == 997
