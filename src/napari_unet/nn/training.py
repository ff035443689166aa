"""Training a network: a plain loop over steps that can be stopped, killed and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.config import TrainConfig
from napari_unet.data.dataset import Dataset
from napari_unet.data.holdout import split
from napari_unet.data.labels import IGNORE
from napari_unet.data.sampling import Batch, Sampler
from napari_unet.data.weights import weigh_split
from napari_unet.errors import ModelError
from napari_unet.events import (
    Notify,
    StepDone,
    Stop,
    TrainStarted,
    Warned,
    ignore_events,
    never_stop,
)
from napari_unet.nn import backend
from napari_unet.nn.batches import Prefetcher
from napari_unet.nn.best import BestModel, SaveModel
from napari_unet.nn.learner import Learner
from napari_unet.nn.model import UNetModel, all_finite
from napari_unet.nn.progress import Pace, Progress, moments
from napari_unet.spec import ModelSpec

__all__ = ["Checkpoint", "SaveCheckpoint", "SaveModel", "TrainResult", "train_network"]

Checkpoint = tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, Any]]
"""Arrays by name, and JSON values."""

SaveCheckpoint = Callable[[Mapping[str, npt.NDArray[Any]], Mapping[str, Any]], None]

_FAULTS = 3
_PROBES = 16  # batches drawn at most to find two classes
_DEAD = 1e-3  # spread of probabilities under which a network's answer is the same everywhere
_FIRST_LOOK = 10  # steps before which an answer may well be the same everywhere
_NOTHING = "Nothing learned yet: stopped before the first step was done."
_SHORT = 2.0  # seconds: a stopped training is measured once more if that takes no longer


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind.

    Parameters
    ----------
    model : UNetModel
        The best network so far, or fresh weights where `steps` is 0.
    steps : int
        Steps done.
    seconds : float
        Time spent, in all sessions.
    stopped : bool
        True if the user stopped it. A stopped training is a result, not an error.
    score : float or None
        Mean Dice on the region held out; None if it was not measured.
    message : str
        What happened, in a sentence or two.
    """

    model: UNetModel
    steps: int
    seconds: float
    stopped: bool
    score: float | None
    message: str


def train_network(
    dataset: Dataset,
    spec: ModelSpec,
    config: TrainConfig,
    *,
    run: str = "",
    save_model: SaveModel | None = None,
    save_checkpoint: SaveCheckpoint | None = None,
    resume: Checkpoint | None = None,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> TrainResult:
    """Train a network on a dataset.

    With a region held out, the averaged weights that score best on it are kept; without one,
    the last averaged weights. A run given in steps that is stopped or killed, and resumed, ends in the
    same weights, bit for bit, on the same processor.

    Parameters
    ----------
    dataset : Dataset
        Examples, classes and brightness.
    spec : ModelSpec
        The card; its network has the channels and classes of the dataset. Threshold, brightness range
        and training record are filled in.
    config : TrainConfig
        Settings.
    run : str
        Name of the run, for `TrainStarted`.
    save_model : callable, optional
        Given the card and the weights of the best model so far, whenever there is a better one.
    save_checkpoint : callable, optional
        Given all that is needed to go on, every ``config.checkpoint_seconds`` and at the end.
    resume : tuple of (arrays, state), optional
        What `save_checkpoint` was given. The number of steps planned then stays.
    notify : callable
        Receives `TrainStarted`, `StepDone`, `Validated`, `Warned`.
    stop : callable
        Asked before each step.

    Returns
    -------
    TrainResult
        The best model and how it came to be.

    Raises
    ------
    ModelError
        If network, dataset and settings do not fit together, or the checkpoint is of another network.
    """
    _check(dataset, spec, config)
    training = _Training(dataset, spec, config, run, save_model, save_checkpoint, notify, stop)
    if resume is not None:
        training.resume(*resume)
    return training.run()


class _End(Enum):
    """How a training, or a part of it, ended."""

    DONE = auto()
    STOPPED = auto()
    DEAD = auto()
    DIVERGED = auto()


class _Training:
    """One training and its state."""

    def __init__(
        self,
        dataset: Dataset,
        spec: ModelSpec,
        config: TrainConfig,
        run: str,
        save_model: SaveModel | None,
        save_checkpoint: SaveCheckpoint | None,
        notify: Notify,
        stop: Stop,
    ) -> None:
        self.dataset, self.spec, self.config = dataset, spec, config
        self.run_name, self.save_checkpoint, self.notify, self.stop = run, save_checkpoint, notify, stop
        # Gaps between strokes mean nothing; gaps between regions painted whole do.
        border = config.border_weight if dataset.class_map.unpainted == "background" else 0.0
        self.parts = weigh_split(split(dataset, config.validation, config.seed), spec.network.classes, border)
        self.progress = Progress(seed=config.seed, steps=config.steps)
        self.learner = Learner(spec.network, config, config.seed)
        self.best = BestModel(dataset, spec, self.parts, save_model)
        self.pace = Pace()
        self.held_back: list[StepDone] = []
        self.saved_at = perf_counter()

    def resume(self, arrays: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.progress = Progress.of(state)
        best = {name.removeprefix("best/"): a for name, a in arrays.items() if name.startswith("best/")}
        self.best.weights = best or None
        self.learner.restore({name: a for name, a in arrays.items() if not name.startswith("best/")})

    def run(self) -> TrainResult:
        """Train to the end, or until stopped."""
        if self.progress.steps:
            self._announce(self.progress.steps)
        end = self._steps()
        if end is _End.DEAD and self.progress.deaths == 1:
            self._restart()
            end = self._steps()
        if self.held_back:
            self._announce(self.progress.step)
        if self.progress.step:
            self._checkpoint()
        return self._result(end)

    def _steps(self) -> _End:
        """Do steps until the plan is fulfilled or something ends it."""
        progress = self.progress
        if progress.deaths > 1:  # an earlier session ended so
            return _End.DEAD
        sampler = self._sampler()
        probe = _probe(sampler)
        with Prefetcher(sampler, progress.step) as batches:
            while progress.faults <= _FAULTS:
                started = perf_counter()
                if self._is_due() and not self._validate(self.stop):
                    return _End.STOPPED
                if progress.steps and progress.step >= progress.steps:
                    return _End.DONE
                if self.stop():
                    return _End.STOPPED
                self._step(batches.take())
                if self._is_dead(probe):
                    progress.deaths += 1
                    return _End.DEAD
                self._note(perf_counter() - started)
                if perf_counter() - self.saved_at >= self.config.checkpoint_seconds:
                    self._checkpoint()
        return _End.DIVERGED

    def _sampler(self) -> Sampler:
        config = self.config
        classes = self.spec.network.classes
        return Sampler(
            self.parts.train,
            classes,
            config.patch,
            config.batch,
            self.progress.seed,
            config.flips,
            config.deform,
            config.intensity,
        )

    def _step(self, batch: Batch) -> None:
        """Do one step, and look after the learning rate if it went wrong."""
        progress = self.progress
        loss, sound = self.learner.step(batch, progress.step, progress.steps, progress.factor)
        progress.step += 1
        left = self.pace.seconds_left(progress.steps - progress.step)
        self._tell(StepDone(progress.step, progress.steps, loss, left))
        if sound:
            return
        progress.faults += 1
        if progress.faults <= _FAULTS:
            progress.factor /= 2
            self.notify(
                Warned(
                    f"Step {progress.step} gave numbers that are not finite: it was skipped, and the learning rate halved."
                )
            )

    def _tell(self, event: StepDone) -> None:
        # The number of steps comes first: what happens before it is known is told right after.
        if event.steps:
            self.notify(event)
        else:
            self.held_back.append(event)

    def _announce(self, steps: int) -> None:
        """Say that training begins, and what happened before the number of steps was known."""
        first = self.progress.step - len(self.held_back)
        self.notify(TrainStarted(self.run_name, first, steps, backend.device_name()))
        for event in self.held_back:
            left = self.pace.seconds_left(steps - event.step)
            self.notify(StepDone(event.step, steps, event.loss, left))
        self.held_back.clear()

    def _note(self, seconds: float) -> None:
        """Note the time of a step, and make the plan once enough is known."""
        progress = self.progress
        progress.seconds += seconds
        self.pace.add(seconds)
        if progress.steps or not self.pace.is_known(self.config.minutes):
            return
        if self.parts.validation:
            self.best.measure(self.learner)  # the first time is slow: the backend prepares the network
            progress.seconds += self.best.seconds
            self.best.measure(self.learner)
            progress.seconds += self.best.seconds
        left = 60 * self.config.minutes - progress.seconds
        more, progress.validations = self.pace.plan(left, self.best.seconds)
        progress.steps = progress.step + more
        self._announce(progress.steps)

    def _moments(self) -> frozenset[int]:
        progress = self.progress
        return moments(progress.steps, progress.validations) if progress.steps else frozenset()

    def _is_due(self) -> bool:
        """Whether this is a moment to measure the network, and it hasn't been."""
        progress = self.progress
        return bool(self.parts.validation) and progress.measured < progress.step in self._moments()

    def _validate(self, stop: Stop) -> bool:
        """Measure the network and keep it if it is the best so far; False if stopped."""
        event = self.best.update(self.learner, self.progress, stop)
        if event is None:
            return False
        self.progress.measured = self.progress.step
        self.notify(event)
        return True

    def _is_dead(self, probe: npt.NDArray[np.float32] | None) -> bool:
        """Whether the network, after the warm-up, gives the same answer everywhere."""
        step, steps = self.progress.step, self.progress.steps
        first = max(self.config.warmup, _FIRST_LOOK)
        if probe is None or (step not in (first, steps) and (step < first or step not in self._moments())):
            return False
        logits = self.learner.forward(probe).astype(np.float64)
        if logits.shape[-1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], -1)
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        return bool((odds / odds.sum(-1, keepdims=True)).std((0, 1, 2)).max() < _DEAD)

    def _restart(self) -> None:
        """Begin anew with another seed."""
        self.notify(
            Warned(
                "The network gave the same answer everywhere, so it cannot learn: training begins anew with other first weights."
            )
        )
        self.progress = self.progress.restarted()
        self.best.weights = None
        self.held_back.clear()
        self.learner = Learner(self.spec.network, self.config, self.progress.seed)
        if self.progress.steps:
            self._announce(self.progress.steps)

    def _checkpoint(self) -> None:
        """Hand out all that is needed to go on; and the model, where no better one was."""
        self.saved_at = perf_counter()
        self.best.save_last(self.learner, self.progress)
        if self.save_checkpoint is None:
            return
        arrays = self.learner.state()
        if not all_finite(arrays):
            return  # the last sound checkpoint is worth more
        arrays.update({f"best/{name}": array for name, array in (self.best.weights or {}).items()})
        self.save_checkpoint(arrays, self.progress.state())

    def _result(self, end: _End) -> TrainResult:
        progress = self.progress
        if self.parts.validation and end in (_End.STOPPED, _End.DIVERGED) and self._worth_measuring():
            # After the checkpoint: an uninterrupted run would not measure here, and must choose the same weights.
            self._validate(never_stop)
        model = self.best.model(self.learner, progress)
        message = self._message(end) if progress.step else _NOTHING
        stopped = end is _End.STOPPED
        return TrainResult(model, progress.step, progress.seconds, stopped, progress.score, message)

    def _worth_measuring(self) -> bool:
        """Whether to measure a training that ended early once more, for its last weights."""
        if self.progress.measured == self.progress.step:
            return False
        return self.best.weights is None or self.best.seconds <= _SHORT

    def _message(self, end: _End) -> str:
        """Say what happened and how good the model is."""
        progress = self.progress
        did = (
            f"{progress.step:,} of {progress.steps:,} steps" if progress.steps else f"{progress.step:,} steps"
        )
        head = {
            _End.DONE: f"Trained {progress.step:,} steps.",
            _End.STOPPED: f"Stopped after {did}; the best model so far is kept.",
            _End.DIVERGED: f"Training ended after {did}: its numbers were not finite {_FAULTS + 1} times, though the learning rate "
            "was halved. The best model so far is kept; train again with a lower learning rate.",
            _End.DEAD: f"Training ended after {did}: with two different first weights the network gave the same answer everywhere. "
            "Its model is of no use: try another seed or preset, and check that the labels lie on what they mark.",
        }[end]
        if progress.score is not None:
            return f"{head} Mean Dice {progress.score:.3f} on the region held out. {self.parts.message}"
        reason = self.parts.message if not self.parts.validation else "It ended before quality was measured."
        return f"{head} Quality was not measured. {reason}"


def _probe(sampler: Sampler) -> npt.NDArray[np.float32] | None:
    """Draw a few patches with more than one class, to see whether a network tells them apart."""
    images: list[npt.NDArray[np.float32]] = []
    classes: set[int] = set()
    for n in range(_PROBES):
        batch, targets, _ = sampler.batch(n)
        images.append(batch)
        classes.update(np.unique(targets[targets != IGNORE]).tolist())
        if len(classes) > 1:
            return np.concatenate(images)
    return None


def _check(dataset: Dataset, spec: ModelSpec, config: TrainConfig) -> None:
    """Refuse what does not fit together, before anything is built."""
    network = spec.network
    if not dataset.examples:
        raise ModelError("There is nothing to train on: preparing the images was stopped.")
    channels, classes = dataset.examples[0].image.shape[-1], len(dataset.class_map.values)
    if (channels, classes) != (network.channels, network.classes):
        raise ModelError(
            f"The network reads {network.channels} channels and knows {network.classes} classes, but the images have {channels} and "
            f"the labels {classes}: set channels and classes of the network to these."
        )
    if config.patch % network.stride:
        raise ModelError(
            f"A patch of {config.patch} pixels does not fit a network of depth {network.depth}: "
            f"choose a multiple of {network.stride}."
        )
