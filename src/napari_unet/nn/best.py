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
from napari_unet.nn.validation import Quality, measure, tile_limits
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


_AS_GOOD = 0.01
"""Of the rank: what differs by no more is as good, since what is held out is a small sample."""


class BestModel:
    """The last weights that are as good as the best on the region held out; where nothing is, the last averaged ones.

    Of two that are as good, the later ones have learned longer, and at a lower rate.

    Parameters
    ----------
    dataset : Dataset
        For the card.
    spec : ModelSpec
        The card to fill in.
    parts : Split
        What is held out.
    save : callable, optional
        Given the card and the weights whenever there are others to keep.
    """

    def __init__(self, dataset: Dataset, spec: ModelSpec, parts: Split, save: SaveModel | None) -> None:
        self._dataset, self._spec, self._parts, self._save = dataset, spec, parts, save
        self._prior = Prior(dataset, parts.train, spec.network.stride)
        self.weights: Arrays | None = None
        self._handed_out: tuple[ModelSpec, Arrays] | None = None
        self._limits: list[int] = []  # of the pixels in a tile; the first is the one that fits into memory
        self.seconds = 0.0  # of the last whole measurement; 0 before the first

    def measure(self, learner: Learner, stop: Stop = never_stop) -> Quality | None:
        """Measure the averaged weights on the region held out; None if stopped.

        Raises
        ------
        ModelError
            If memory ran out even with the smallest tiles.
        """
        started = perf_counter()
        with _telling_of_memory(), learner.averaged():
            quality = self._measure_in_tiles(learner, stop)
        if quality is not None:
            self.seconds = perf_counter() - started
        return quality

    def _measure_in_tiles(self, learner: Learner, stop: Stop) -> Quality | None:
        """Measure in the largest tiles that memory allows, and keep to these."""
        network, reach = self._spec.network, halo(learner.network)
        self._limits = self._limits or tile_limits(reach, network.stride)
        while True:
            try:
                with computing.memory_errors():
                    return measure(
                        learner.forward,
                        self._parts.validation,
                        network.classes,
                        reach,
                        network.stride,
                        stop,
                        whole=self._dataset.class_map.unpainted == "background",
                        max_pixels=self._limits[0],
                    )
            except MemoryError:
                if len(self._limits) == 1:
                    raise
                del self._limits[0]

    def update(self, learner: Learner, progress: Progress, stop: Stop = never_stop) -> Validated | None:
        """Measure the averaged weights, and keep them if they are as good as the best; None if stopped."""
        quality = self.measure(learner, stop)
        if quality is None:
            return None
        kept = progress.top is None or quality.rank >= progress.top - _AS_GOOD
        if kept:
            weights = self._weights(learner)
            kept = all_finite(weights)
        progress.stale += 1
        if kept:
            self.weights = weights
            if progress.top is None or quality.rank > progress.top:
                progress.top, progress.stale = quality.rank, 0
            progress.score, progress.threshold = quality.score, quality.threshold
            if quality.choice is not None:
                progress.ap50, progress.objects = quality.choice.ap50, quality.choice.decoding.model_dump()
            progress.best_step = progress.step
            self._hand_out(progress, weights)
        ap50 = None if quality.choice is None else quality.choice.ap50
        return Validated(progress.step, quality.loss, quality.score, kept, ap50)

    def save_last(self, learner: Learner, progress: Progress) -> None:
        """Save the averaged weights where nothing has been measured yet."""
        if self.weights is None:
            weights = self._weights(learner)
            if all_finite(weights):
                self._hand_out(progress, weights)

    def model(self, learner: Learner, progress: Progress) -> UNetModel:
        """Build the best model so far; where the last weights are not finite, the one handed out before.

        Raises
        ------
        ModelError
            If there is none.
        """
        weights = self.weights or self._weights(learner)
        if all_finite(weights):
            return UNetModel.from_arrays(self._card(progress), weights)
        if self._handed_out is None:
            raise ModelError(
                "Training gave weights that are not finite, so there is no model: "
                "train again with a lower learning rate, and look for unusual values in the images."
            )
        return UNetModel.from_arrays(*self._handed_out)

    def _weights(self, learner: Learner) -> Arrays:
        """Copy the averaged weights, as a model is to have them."""
        with _telling_of_memory(), learner.averaged():
            return self._prior.correct(learner.forward, read_weights(learner.network))

    def _hand_out(self, progress: Progress, weights: Arrays) -> None:
        self._handed_out = self._card(progress), weights
        if self._save is not None:
            self._save(*self._handed_out)

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
