"""A network that is being trained: its weights, averages and optimizer, as one thing to step, save and restore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.advice import peak_rate
from napari_unet.data.sampling import Batch
from napari_unet.errors import ModelError
from napari_unet.nn import backend, computing
from napari_unet.nn.losses import SegmentationLoss
from napari_unet.nn.model import read_weights, write_weights
from napari_unet.nn.network import build_unet
from napari_unet.nn.optimizer import GuardedMuon, average_momentum, learning_rate
from napari_unet.nn.statistics import Statistics

if TYPE_CHECKING:
    import keras
else:
    keras = backend.load_keras()

__all__ = ["Learner"]


class Learner:
    """A network with fresh weights and its optimizer.

    Parameters
    ----------
    network : UNetConfig
        Shape of the network.
    config : TrainConfig
        Learning rate and warm-up.
    seed : int
        Of the first weights and of dropout.
    precision : {"float32", "bfloat16"}
        Of the computation.
    """

    def __init__(
        self, network: UNetConfig, config: TrainConfig, seed: int, precision: backend.Precision = "float32"
    ) -> None:
        backend.prepare(precision, seed)
        self._warmup = config.warmup
        self._peak = peak_rate(network) if config.learning_rate is None else config.learning_rate
        self.network = build_unet(network)
        self._statistics = Statistics(self.network)
        self.forward = computing.traced(self.network)
        self._optimizer = GuardedMuon()
        self._optimizer.build(self.network.trainable_variables)
        self.network.compile(
            optimizer=self._optimizer, loss=SegmentationLoss(), jit_compile=computing.compile_ahead()
        )
        # Steps, skipped steps and dropout's random state: what a step may have changed by the time it fails.
        self._counters = [v for v in self._variables().values() if "int" in str(v.dtype)]

    def step(self, batch: Batch, step: int, steps: int, factor: float) -> tuple[float, bool]:
        """Do one training step.

        Parameters
        ----------
        batch : tuple of ndarray
            Images (B, P, P, C), targets (B, P, P) and weights (B, P, P).
        step, steps : int
            Steps done, and planned in all (0 if not known yet).
        factor : float
            Of the learning rate.

        Returns
        -------
        loss : float
            Of this batch.
        sound : bool
            False if the loss or a gradient wasn't finite; then no weight has changed or will harm.

        Raises
        ------
        MemoryError
            If memory ran out. The step then has not been done.
        """
        optimizer = self._optimizer
        optimizer.rate.assign(factor * learning_rate(step, steps, self._peak, self._warmup))
        optimizer.momentum.assign(average_momentum(step))
        before = int(optimizer.skipped.numpy())
        images, targets, weights = batch
        truth = np.stack([targets, weights], axis=-1)
        counters = [np.array(variable.numpy()) for variable in self._counters]
        statistics = self._statistics.copy()
        try:
            with computing.memory_errors():
                loss = float(self.network.train_on_batch(images, truth, return_dict=True)["loss"])
        except MemoryError:
            for variable, value in zip(self._counters, counters, strict=True):
                variable.assign(value)
            self._statistics.restore(statistics)
            raise
        sound = bool(np.isfinite(loss)) and int(optimizer.skipped.numpy()) == before
        if sound:
            self._statistics.follow(statistics, average_momentum(step))
        else:
            self._statistics.restore(statistics)
        return loss, sound

    def begin_with(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take weights over from another model; those that aren't named stay fresh.

        Parameters
        ----------
        weights : mapping of str to ndarray
            By name, of this network's shapes (`napari_unet.nn.transfer.carry_over`).
        """
        write_weights(self.network, {**read_weights(self.network), **weights})

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the network has its averaged weights."""
        variables = self.network.trainable_variables
        if int(self._optimizer.iterations.numpy()) == 0:  # no average yet
            yield
            return
        raw = [np.array(variable.numpy()) for variable in variables]
        self._optimizer.finalize_variable_values(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, raw, strict=True):
                variable.assign(value)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copy all that the next steps depend on: weights, optimizer, averages, dropout's random state."""
        return {name: np.array(variable.numpy()) for name, variable in self._variables().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned.

        Raises
        ------
        ModelError
            If it is of another network.
        """
        variables = self._variables()
        if {name: tuple(v.shape) for name, v in variables.items()} != {k: v.shape for k, v in state.items()}:
            raise ModelError(
                "The checkpoint belongs to another network than this job asks for, or was written by another version "
                "of napari-unet: start in a new run folder, or restore the job's settings."
            )
        for name, variable in variables.items():
            variable.assign(state[name])

    def _variables(self) -> dict[str, Any]:
        # Numbered: the paths that Keras gives change for the second network of a process.
        parts = {"network": self.network.variables, "optimizer": self._optimizer.variables}
        return {f"{part}/{i:04d}": v for part, variables in parts.items() for i, v in enumerate(variables)}
