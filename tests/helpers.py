"""What tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_unet.config import PredictConfig
from napari_unet.events import Event
from napari_unet.files.image import open_image
from napari_unet.jobs import ArraySource, Output, PredictJob

TILES = PredictConfig(tile_megapixels=0.01, precision="float32")
"""Several tiles an image, however small."""


class StopAfter:
    """Ask a run to stop once it has told so many events of a class."""

    def __init__(self, cls: type[Event], count: int) -> None:
        self.cls, self.left, self.events = cls, count, []

    def notify(self, event: Event) -> None:
        self.events.append(event)
        self.left -= isinstance(event, self.cls)

    def stop(self) -> bool:
        return self.left <= 0


def job_of(model: Path, image: Path, config: PredictConfig = TILES, **outputs: Path) -> PredictJob:
    """A segmentation with a path for each kind of output."""
    wanted = tuple(Output(kind=kind, path=str(path)) for kind, path in outputs.items())
    return PredictJob(model=str(model), image=ArraySource(path=str(image)), outputs=wanted, config=config)


def read(path: Path | str) -> np.ndarray:
    """All pixels of a file."""
    return np.asarray(open_image(path).array[...])
