"""What was asked for when Start was pressed, frozen; and how it becomes a job.

`prepare` runs beside the viewer: it checks what only a look at the pixels can tell, saves
what was painted, makes the image readable for the worker and returns the job. It knows no
widget and no layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.data.labels import ClassMap, as_integers, fit_class_map
from napari_unet.files.run import RunFolder
from napari_unet.gui.layers import Window
from napari_unet.gui.snapshot import Snapshot, make_folder, save_image, with_file_pixel_size
from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob
from napari_unet.spec import ClassInfo

__all__ = ["PredictRequest", "TrainRequest"]

Say = Callable[[str], None]
Stop = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """A training, as the dock showed it.

    Parameters
    ----------
    image, labels : Snapshot
        The layers; labels copied.
    colors : callable
        Gives the colour of painted values, shape (N,) to (N, 4), 0 to 1.
    home : Path
        Where runs are kept.
    network, train : UNetConfig, TrainConfig
        Settings.
    unpainted, background_value, not_finite, name
        As in `TrainJob`.
    """

    image: Snapshot
    labels: Snapshot
    colors: Callable[[Any], Any]
    home: Path
    network: UNetConfig
    train: TrainConfig
    unpainted: Literal["background", "ignore"]
    background_value: int | None
    not_finite: Literal["refuse", "ignore"]
    name: str

    def prepare(self, say: Say, stop: Stop) -> TrainJob:
        """Check and save the labels, then the image.

        Raises
        ------
        DataError
            If the labels cannot be trained on.
        FileError
            If the run folder cannot be written.
        Stopped
            If `stop` said so.
        """
        stack = self.labels.stack
        painted = as_integers(np.asarray(stack.array), stack.name)
        classes = fit_class_map([painted], self.unpainted, self.background_value, stack.name)
        image = with_file_pixel_size(self.image)
        folder = make_folder(self.home, self.name)
        path = RunFolder(folder).save_labels(0, painted, stack.axes, image.pixel_size, image.unit)
        say(f"Labels saved at {path}.")
        return TrainJob(
            images=(save_image(image, folder, stop),),
            labels=(ArraySource(path=str(path), axes=stack.axes),),
            out=str(folder),
            network=self.network,
            train=self.train,
            unpainted=self.unpainted,
            background_value=self.background_value,
            not_finite=self.not_finite,
            classes=self._classes(classes),
            name=self.name,
        )

    def _classes(self, classes: ClassMap) -> tuple[ClassInfo, ...]:
        """Keep the colours the user painted with."""
        values = [value for value in classes.values if value]
        colors = np.clip(np.asarray(self.colors(np.array(values))), 0, 1).reshape(len(values), -1)[:, :3]
        hexes = ["#" + "".join(f"{round(255 * float(part)):02x}" for part in color) for color in colors]
        return tuple(ClassInfo(value=value, color=color) for value, color in zip(values, hexes, strict=True))


@dataclass(frozen=True, eq=False)
class PredictRequest:
    """A segmentation, as the dock showed it.

    Parameters
    ----------
    image : Snapshot
        The layer.
    model : Path
        The model file.
    window : tuple or None
        Part to segment, in slices, y and x.
    kinds : tuple of str
        What to write: labels, probabilities.
    config : PredictConfig
        Settings.
    home : Path
        Where runs are kept.
    """

    image: Snapshot
    model: Path
    window: Window | None
    kinds: tuple[Literal["labels", "probabilities"], ...]
    config: PredictConfig
    home: Path

    def prepare(self, say: Say, stop: Stop) -> PredictJob:
        """Make the image readable for the worker.

        Raises
        ------
        FileError
            If the run folder cannot be written.
        Stopped
            If `stop` said so.
        """
        image = with_file_pixel_size(self.image)
        folder = make_folder(self.home, f"{image.stack.name}-segmented")
        return PredictJob(
            model=str(self.model),
            image=save_image(image, folder, stop),
            outputs=tuple(Output(kind=kind, path=str(folder / f"{kind}.zarr")) for kind in self.kinds),
            window=self.window,
            config=self.config,
        )
