"""The best model so far: measured on what was held out, kept, and described by its card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter

from napari_unet.data.dataset import Dataset
from napari_unet.data.holdout import Split
from napari_unet.errors import ModelError
from napari_unet.events import Stop, Validated, never_stop
from napari_unet.nn import backend, computing
from napari_unet.nn.learner import Learner
from napari_unet.nn.model import Arrays, UNetModel, all_finite, read_weights
from napari_unet.nn.network import halo
from napari_unet.nn.prior import Prior
from napari_unet.nn.progress import Progress
from napari_unet.nn.validation import Quality, measure
from napari_unet.spec import ModelSpec, ObjectDecoding

__all__ = ["BestModel", "SaveModel"]

SaveModel = Callable[[ModelSpec, Arrays], None]


@contextmanager
def _telling_of_memory() -> Iterator[None]:
    """Say what to do where memory runs out within this context."""
    try:
        with computing.memory_errors():
            yield
    except MemoryError:
        raise ModelError(
            "Memory ran out while quality was measured: hold nothing out (its fraction is 0), choose fewer filters, or close "
            "other programs that use this device. What was saved so far is kept."
        ) from None


class BestModel:
    """The weights that score best on the region held out; where nothing is, the last averaged ones.

    Parameters
    ----------
    dataset : Dataset
        For the card.
    spec : ModelSpec
        The card to fill in.
    parts : Split
        What is held out.
    save : callable, optional
        Given the card and the weights whenever there are better ones.
    """

    def __init__(self, dataset: Dataset, spec: ModelSpec, parts: Split, save: SaveModel | None) -> None:
        self._dataset, self._spec, self._parts, self._save = dataset, spec, parts, save
        self._prior = Prior(dataset, parts.train, spec.network.stride)
        self.weights: Arrays | None = None
        self.seconds = 0.0  # of the last whole measurement; 0 before the first

    def measure(self, learner: Learner, stop: Stop = never_stop) -> Quality | None:
        """Measure the averaged weights on the region held out; None if stopped.

        Raises
        ------
        ModelError
            If memory ran out.
        """
        started = perf_counter()
        network = self._spec.network
        with _telling_of_memory(), learner.averaged():
            quality = measure(
                learner.forward,
                self._parts.validation,
                network.classes,
                halo(learner.network),
                network.stride,
                stop,
                whole=self._dataset.class_map.unpainted == "background",
            )
        if quality is not None:
            self.seconds = perf_counter() - started
        return quality

    def update(self, learner: Learner, progress: Progress, stop: Stop = never_stop) -> Validated | None:
        """Measure the averaged weights, and keep them if they are the best; None if stopped."""
        quality = self.measure(learner, stop)
        if quality is None:
            return None
        better = progress.score is None or quality.score > progress.score
        if better:
            weights = self._weights(learner)
            better = all_finite(weights)
        if better:
            self.weights = weights
            progress.score, progress.threshold = quality.score, quality.threshold
            if quality.choice is not None:
                progress.ap50, progress.objects = quality.choice.ap50, quality.choice.decoding.model_dump()
            progress.best_step = progress.step
            self._hand_out(progress, weights)
        return Validated(progress.step, quality.loss, quality.score, better)

    def save_last(self, learner: Learner, progress: Progress) -> None:
        """Save the averaged weights where nothing has been measured yet."""
        if self.weights is None:
            weights = self._weights(learner)
            if all_finite(weights):
                self._hand_out(progress, weights)

    def model(self, learner: Learner, progress: Progress) -> UNetModel:
        """Build the best model so far.

        Raises
        ------
        ModelError
            If there is none, because its weights are not finite.
        """
        weights = self.weights or self._weights(learner)
        if not all_finite(weights):
            raise ModelError(
                "Training gave weights that are not finite, so there is no model: "
                "train again with a lower learning rate, and look for unusual values in the images."
            )
        return UNetModel.from_arrays(self._card(progress), weights)

    def _weights(self, learner: Learner) -> Arrays:
        """Copy the averaged weights, as a model is to have them."""
        with _telling_of_memory(), learner.averaged():
            return self._prior.correct(learner.forward, read_weights(learner.network))

    def _hand_out(self, progress: Progress, weights: Arrays) -> None:
        if self._save is not None:
            self._save(self._card(progress), weights)

    def _card(self, progress: Progress) -> ModelSpec:
        """Fill in the card of the best weights so far, or of the last."""
        pixels = self._dataset.range
        record = self._spec.training.replace(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            steps=progress.step if progress.score is None else progress.best_step,
            seconds=progress.seconds,
            painted=self._dataset.painted,
            score=progress.score,
            ap50=progress.ap50,
            versions=backend.versions(),
        )
        return self._spec.replace(
            normalization=self._spec.normalization.replace(low=pixels.low, high=pixels.high),
            threshold=progress.threshold,
            objects=ObjectDecoding(**progress.objects) if progress.objects else self._spec.objects,
            training=record,
        )
