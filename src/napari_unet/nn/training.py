"""Training a network: a plain loop over steps that can be stopped, killed and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy.typing as npt

from napari_unet.config import TrainConfig
from napari_unet.data.advice import smaller
from napari_unet.data.dataset import Dataset
from napari_unet.data.holdout import split
from napari_unet.data.sampling import Batch, Sampler
from napari_unet.data.weights import weigh_split
from napari_unet.errors import ModelError
from napari_unet.events import (
    Noted,
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
from napari_unet.nn.ending import MAX_FAULTS, End, TrainResult, closing_words
from napari_unet.nn.learner import Learner
from napari_unet.nn.model import all_finite
from napari_unet.nn.probe import Probe
from napari_unet.nn.progress import Pace, Progress, moments
from napari_unet.spec import ModelSpec
from napari_unet.words import count

__all__ = ["Checkpoint", "SaveCheckpoint", "SaveModel", "TrainResult", "train_network"]

Checkpoint = tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, Any]]
"""Arrays by name, and JSON values."""

SaveCheckpoint = Callable[[Mapping[str, npt.NDArray[Any]], Mapping[str, Any]], None]

_FIRST_LOOK = 10  # steps before which a network's answer may well be the same everywhere
_AGAIN = 0.25  # of the minutes, after which a plan is looked at again
_CLOSE = 0.1  # of the planned steps: so many more or fewer change nothing
_SHORT = 2.0  # seconds: a stopped training is measured once more if that takes no longer


def train_network(
    dataset: Dataset,
    spec: ModelSpec,
    config: TrainConfig,
    *,
    run: str = "",
    begin_with: Mapping[str, npt.NDArray[Any]] | None = None,
    save_model: SaveModel | None = None,
    save_checkpoint: SaveCheckpoint | None = None,
    resume: Checkpoint | None = None,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> TrainResult:
    """Train a network on a dataset.

    With a region held out, the last averaged weights that are as good as the best on it are kept, and training ends early once
    ``config.patience`` measurements were no better; without one, the last averaged weights. Where memory runs
    out, training goes on with a smaller batch, then with smaller patches. A run given in steps that is stopped or killed, and resumed, ends in the
    same weights, bit for bit, on the same processor.

    Parameters
    ----------
    dataset : Dataset
        Examples, classes and brightness.
    spec : ModelSpec
        The card; its network has the channels and classes of the dataset. Threshold, brightness range
        and training record are filled in.
    config : TrainConfig
        Settings, with patch, batch and precision set (`napari_unet.data.advice.advise` sets them).
    run : str
        Name of the run, for `TrainStarted`.
    begin_with : mapping of str to ndarray, optional
        First weights (`napari_unet.nn.transfer.carry_over`); those that aren't named are drawn. With `resume`
        they are used only if the training must begin anew.
    save_model : callable, optional
        Given the card and the weights of the model that is kept, whenever it is another one.
    save_checkpoint : callable, optional
        Given all that is needed to go on, every ``config.checkpoint_seconds`` and at the end.
    resume : tuple of (arrays, state), optional
        What `save_checkpoint` was given. Its number of steps, patch, batch and precision then hold.
    notify : callable
        Receives `TrainStarted`, `StepDone`, `Validated`, `Warned`, `Noted`.
    stop : callable
        Asked before each step.

    Returns
    -------
    TrainResult
        The best model and how it came to be.

    Raises
    ------
    ModelError
        If network, dataset and settings do not fit together, if the checkpoint is of another network, or if
        not even the smallest step, or measuring quality, fits into memory.
    """
    progress = Progress.start(config, spec.network) if resume is None else Progress.of(resume[1])
    _check(dataset, spec, progress)
    training = _Training(
        dataset, spec, config, progress, run, begin_with, save_model, save_checkpoint, notify, stop
    )
    if resume is not None:
        training.restore(resume[0])
    elif begin_with is not None:
        training.learner.begin_with(begin_with)
    return training.run()


class _Training:
    """One training and its state."""

    def __init__(
        self,
        dataset: Dataset,
        spec: ModelSpec,
        config: TrainConfig,
        progress: Progress,
        run: str,
        begin_with: Mapping[str, npt.NDArray[Any]] | None,
        save_model: SaveModel | None,
        save_checkpoint: SaveCheckpoint | None,
        notify: Notify,
        stop: Stop,
    ) -> None:
        self.dataset, self.spec, self.config, self.progress = dataset, spec, config, progress
        self.begin_with = begin_with
        self.run_name, self.save_checkpoint, self.notify, self.stop = run, save_checkpoint, notify, stop
        # Gaps between strokes mean nothing; gaps between regions painted whole, and between objects, do.
        whole = dataset.class_map.unpainted == "background" or dataset.target == "objects"
        border = config.border_weight if whole else 0.0
        self.parts = weigh_split(split(dataset, config.validation, config.seed), spec.network.classes, border)
        self.learner = Learner(spec.network, config, progress.seed, progress.precision)
        self.best = BestModel(dataset, spec, self.parts, save_model)
        self.pace = Pace()
        self.held_back: list[StepDone] = []
        self.saved_at = perf_counter()

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from the arrays of a checkpoint."""
        best = {name.removeprefix("best/"): a for name, a in arrays.items() if name.startswith("best/")}
        self.best.weights = best or None
        self.learner.restore({name: a for name, a in arrays.items() if not name.startswith("best/")})
        self.best.save_last(self.learner, self.progress)  # what is left if the next steps are not finite

    def run(self) -> TrainResult:
        """Train to the end, or until stopped."""
        self.notify(Noted(self.parts.message))
        if self.progress.steps:
            self._announce(self.progress.steps)
        end = self._steps()
        if end is End.DEAD and self.progress.deaths == 1:
            self._restart()
            end = self._steps()
        if self.held_back:
            self._announce(self.progress.step)
        if self.progress.step:
            self._checkpoint()
        return self._result(end)

    def _steps(self) -> End:
        """Do steps until the plan is fulfilled or something ends it."""
        if self.progress.deaths > 1:  # an earlier session ended so
            return End.DEAD
        while True:
            sampler = self._sampler()
            probe = Probe(sampler)
            with Prefetcher(sampler, self.progress.step) as batches:
                end = self._steps_of_one_size(batches, probe)
            if end is not End.TOO_LARGE:
                return end
            self._shrink()

    def _steps_of_one_size(self, batches: Prefetcher, probe: Probe) -> End:
        progress = self.progress
        while progress.faults <= MAX_FAULTS:
            started = perf_counter()
            if self._is_due() and not self._validate(self.stop):
                return End.STOPPED
            if progress.steps and progress.step >= progress.steps:
                return End.DONE
            if 0 < self.config.patience <= progress.stale:
                return End.SETTLED
            if self.stop():
                return End.STOPPED
            try:
                self._step(batches.take())
                dead = self._is_time_to_look() and probe.finds_dead(self.learner, progress.batch)
            except MemoryError:
                return End.TOO_LARGE
            if dead:
                # Begun anew, a training would give up what it had learned.
                progress.deaths = 2 if progress.has_learned else progress.deaths + 1
                return End.DEAD
            self._note(perf_counter() - started)
            if perf_counter() - self.saved_at >= self.config.checkpoint_seconds:
                self._checkpoint()
        return End.DIVERGED

    def _shrink(self) -> None:
        """Take smaller steps from here on, and keep that, because a step did not fit into memory."""
        progress = self.progress
        patch, batch = progress.patch, progress.batch
        less = smaller(patch, batch, self.spec.network.stride)
        if less is None:
            raise ModelError(
                f"Memory runs out even with one patch of {patch} pixels in a step: choose fewer filters (the quick preset "
                "has 16), or close other programs that use this device. What was saved so far is kept."
            )
        progress.patch, progress.batch = less
        what = (
            f"{count(less[1], 'patch')} in a step, not {batch}"
            if less[1] < batch
            else f"patches of {less[0]} pixels, not {patch}"
        )
        self.notify(Warned(f"Memory ran out in step {progress.step + 1:,}: training goes on with {what}."))
        self.pace = Pace()  # other steps take another time
        if progress.step:
            self._checkpoint()

    def _sampler(self) -> Sampler:
        config = self.config
        classes = self.spec.network.classes
        return Sampler(
            self.parts.train,
            classes,
            self.progress.patch,
            self.progress.batch,
            self.progress.seed,
            config.augmentation,
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
        if progress.faults <= MAX_FAULTS:
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
        if not self.pace.is_known(self.config.minutes):
            return
        if progress.steps:
            self._look_again()
            return
        # The first measurement is slow, as the backend prepares the network: the second one counts.
        for _ in range(2 if self.parts.validation else 0):
            if self.best.measure(self.learner, self.stop) is None:
                return  # stopped, which the loop will ask next
            progress.seconds += self.best.seconds
        left = 60 * self.config.minutes - progress.seconds
        more, progress.validations = self.pace.plan(left, self.best.seconds)
        progress.steps = progress.step + more
        self._announce(progress.steps)

    def _look_again(self) -> None:
        """Plan anew, once, at a quarter of the minutes: other work may have slowed the first steps, or those that came then."""
        progress, whole = self.progress, 60 * self.config.minutes
        early = progress.seconds < _AGAIN * whole and progress.step < progress.steps / 2
        if progress.settled or early:
            return
        progress.settled = True
        more, validations = self.pace.plan(whole - progress.seconds, self.best.seconds)
        steps, before = progress.step + more, progress.steps
        if abs(steps - before) > _CLOSE * before:
            progress.steps, progress.validations = steps, validations
            than = "less" if steps > before else "more"
            self.notify(
                Noted(
                    f"Steps take {than} time than the first ones did: {count(steps, 'step')}, not {before:,}, fit in "
                    f"{self.config.minutes:g} minutes."
                )
            )

    def _moments(self) -> frozenset[int]:
        progress = self.progress
        return moments(progress.steps, progress.validations) if progress.steps else frozenset()

    def _is_due(self) -> bool:
        """Whether this is a moment to measure the network, and it hasn't been."""
        progress = self.progress
        return bool(self.parts.validation) and progress.measured < progress.step in self._moments()

    def _validate(self, stop: Stop) -> bool:
        """Measure the network and keep it if it is as good as the best; False if stopped."""
        event = self.best.update(self.learner, self.progress, stop)
        if event is None:
            return False
        self.progress.measured = self.progress.step
        self.notify(event)
        return True

    def _is_time_to_look(self) -> bool:
        """Whether a network that gives the same answer everywhere would be dead by now, and is to be asked."""
        step, steps = self.progress.step, self.progress.steps
        first = max(self.config.warmup, _FIRST_LOOK)
        return step in (first, steps) or (step > first and step in self._moments())

    def _restart(self) -> None:
        """Begin anew with another seed."""
        model = self.begin_with
        how = "with other first weights"
        if model is not None:
            how = "from the model it started with, on other batches"
        self.notify(
            Warned(
                f"The network gave the same answer everywhere, so it cannot learn: training begins anew {how}."
            )
        )
        self.progress = self.progress.restarted()
        self.best.weights = None
        self.held_back.clear()
        self.learner = Learner(self.spec.network, self.config, self.progress.seed, self.progress.precision)
        if model is not None:
            self.learner.begin_with(model)
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

    def _result(self, end: End) -> TrainResult:
        progress = self.progress
        if self.parts.validation and end in (End.STOPPED, End.DIVERGED) and self._worth_measuring():
            # After the checkpoint: an uninterrupted run would not measure here, and must choose the same weights.
            self._validate(never_stop)
        model = self.best.model(self.learner, progress)
        kept = model.spec.training.steps
        message = closing_words(end, progress, self.parts.message, bool(self.parts.validation), kept)
        stopped = end is End.STOPPED
        return TrainResult(model, progress.step, progress.seconds, stopped, progress.score, message)

    def _worth_measuring(self) -> bool:
        """Whether to measure a training that ended early once more, for its last weights."""
        if self.progress.measured == self.progress.step:
            return False
        return self.best.weights is None or 0 < self.best.seconds <= _SHORT


def _check(dataset: Dataset, spec: ModelSpec, progress: Progress) -> None:
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
    if progress.patch % network.stride:
        raise ModelError(
            f"A patch of {progress.patch} pixels does not fit a network of depth {network.depth}: "
            f"choose a multiple of {network.stride}."
        )
