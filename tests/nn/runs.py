"""Short trainings for the tests, whose events, models and checkpoints are kept."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from napari_unet.config import TrainConfig
from napari_unet.data.dataset import Dataset
from napari_unet.events import Event, StepDone, Validated, Warned
from napari_unet.nn.model import UNetModel
from napari_unet.nn.training import TrainResult, train_network
from napari_unet.spec import ModelSpec

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
        self.copies: list[dict[str, np.ndarray]] = []  # of these weights, as they were when handed out
        self.checkpoints: list[tuple[dict[str, np.ndarray], dict[str, Any]]] = []

        def stop() -> bool:
            return until is not None and len(self.of(StepDone)) >= until

        self.result: TrainResult = train_network(
            dataset,
            spec,
            config,
            save_model=self._keep,
            save_checkpoint=lambda arrays, state: self.checkpoints.append((dict(arrays), dict(state))),
            notify=self.events.append,
            stop=stop,
            **options,
        )

    def _keep(self, card: ModelSpec, arrays: dict[str, np.ndarray]) -> None:
        self.models.append((card, arrays))
        self.copies.append({name: array.copy() for name, array in arrays.items()})

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def kept(self) -> Validated:
        """The measurement whose weights are the model: the last that is as good as the best."""
        measured = self.of(Validated)
        top = max(event.score for event in measured)
        return next(event for event in reversed(measured) if event.score >= top - 0.01)

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.of(Warned)]
