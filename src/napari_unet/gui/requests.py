"""What was asked for when Start was pressed, frozen; and how it becomes a job.

`prepare` runs beside the viewer: it checks what only a look at the pixels can tell, saves
what was painted, makes the image readable for the worker and returns the job. It knows no
widget and no layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window
from napari_unet.data.labels import MAX_CLASSES, as_integers, fit_class_map
from napari_unet.errors import DataError, FileError
from napari_unet.files.atomic import write_text
from napari_unet.files.image import Image
from napari_unet.files.model import read_card
from napari_unet.files.run import RunFolder
from napari_unet.files.tiff import LARGEST_WHOLE
from napari_unet.gui.earlier import find_unfinished, readable
from napari_unet.gui.snapshot import (
    Snapshot,
    make_folder,
    removed_unless_done,
    stand_in,
    with_file_pixel_size,
)
from napari_unet.jobs import ArraySource, Output, OutputKind, PredictJob, TrainJob, job_to_yaml
from napari_unet.preview import Preview, preview
from napari_unet.spec import ClassInfo
from napari_unet.training_run import model_file
from napari_unet.words import listed

__all__ = ["Pair", "PredictRequest", "RelabelRequest", "TrainRequest"]


Say = Callable[[str], None]
Stop = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and what was painted on it.

    Parameters
    ----------
    image, labels : Snapshot
        The layers; labels copied.
    """

    image: Snapshot
    labels: Snapshot


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """A training, as the dock showed it.

    Parameters
    ----------
    pairs : tuple of Pair
        Images and the labels of each.
    colors : callable
        Gives the colour of painted values, shape (N,) to (N, 4), 0 to 1.
    home : Path
        Where runs are kept.
    network : UNetConfig or None
        Shape of the network; None to have it chosen.
    train : TrainConfig
        Settings.
    start_from : Path or None
        Model file or run folder with whose weights training begins.
    unpainted, background_value, target, not_finite, pixel_size, name
        As in `TrainJob`.
    """

    pairs: tuple[Pair, ...]
    colors: Callable[[Any], Any]
    home: Path
    network: UNetConfig | None
    train: TrainConfig
    start_from: Path | None
    unpainted: Literal["background", "ignore"]
    background_value: int | None
    target: Literal["auto", "classes", "objects"]
    not_finite: Literal["refuse", "ignore"]
    pixel_size: float | None
    name: str

    def prepare(self, say: Say, stop: Stop) -> TrainJob:
        """Save all labels, then the images. What the linter says of them is told by the worker.

        Raises
        ------
        DataError
            If there is nothing in the labels to train on, or they hold values that no file of labels can.
        FileError
            If the model to start from is missing, or the run folder cannot be written.
        Stopped
            If `stop` said so.
        """
        if self.start_from is not None and not self.start_from.exists():
            raise FileError(
                self.start_from, "does not exist: choose a model to start from, or leave Start from empty."
            )
        stacks = [pair.labels.stack for pair in self.pairs]
        painted = [_as_kept(stack) for stack in stacks]
        classes = self._classes(painted)
        images = [with_file_pixel_size(pair.image) for pair in self.pairs]
        folder = make_folder(self.home, self.name)
        paths = [
            RunFolder(folder).save_labels(number, values, stack.axes, image.pixel_size, image.unit)
            for number, (values, stack, image) in enumerate(zip(painted, stacks, images, strict=True))
        ]
        say(f"Labels saved at {listed([str(path) for path in paths])}.")
        return TrainJob(
            images=tuple(
                readable(image, self.home, folder, stop, number).replace(name=image.stack.name)
                for number, image in enumerate(images)
            ),
            labels=tuple(
                ArraySource(path=str(path), axes=stack.axes, name=stack.name)
                for path, stack in zip(paths, stacks, strict=True)
            ),
            out=str(folder),
            network=self.network,
            train=self.train,
            start_from=None if self.start_from is None else str(self.start_from),
            unpainted=self.unpainted,
            background_value=self.background_value,
            target=self.target,
            not_finite=self.not_finite,
            pixel_size=self.pixel_size,
            classes=classes,
            name=self.name,
        )

    def preview(self, say: Say, stop: Stop) -> Preview:
        """Look at what training would begin with: findings in the labels, and settings it would choose.

        Raises
        ------
        DataError
            If the images cannot be brought to one pixel size.
        FileError
            If the model to start from cannot be read.
        """
        network = self.network
        if network is None and self.start_from is not None:
            network = read_card(model_file(self.start_from)).network
        images = [with_file_pixel_size(pair.image) for pair in self.pairs]
        labels = [
            replace(image, stack=pair.labels.stack) for image, pair in zip(images, self.pairs, strict=True)
        ]
        return preview(
            [_as_image(image) for image in images],
            [_as_image(painted) for painted in labels],
            unpainted=self.unpainted,
            background_value=self.background_value,
            target=self.target,
            not_finite=self.not_finite,
            pixel_size=self.pixel_size,
            network=network,
            train=self.train,
            stop=stop,
        )

    def picture(self, say: Say, stop: Stop) -> NDArray[np.uint8]:
        """Show how training varies a patch.

        Raises
        ------
        DataError
            If the labels cannot be trained on.
        FileError
            If the model to start from cannot be read.
        """
        return self.preview(say, stop).picture(self.train.augmentation, self.colors)

    def _classes(self, painted: Sequence[np.ndarray]) -> tuple[ClassInfo, ...]:
        """Refuse paint that holds nothing to learn, and keep the colours of values that may be classes."""
        most = MAX_CLASSES if self.target == "classes" else None
        name = listed([pair.labels.stack.name for pair in self.pairs])
        found = fit_class_map(painted, self.unpainted, self.background_value, name, most)
        values = [value for value in found.values if value]
        if self.target == "objects" or len(found.values) > MAX_CLASSES:
            return ()
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
        What to write: labels, probabilities, entropy, uncertainty.
    config : PredictConfig
        Settings.
    home : Path
        Where runs are kept.
    """

    image: Snapshot
    model: Path
    window: Window | None
    kinds: tuple[OutputKind, ...]
    config: PredictConfig
    home: Path

    def prepare(self, say: Say, stop: Stop) -> PredictJob:
        """Make the image readable for the worker, and keep the job beside it, to go on with after an end that comes early.

        Where such an end came before, on the same image with the same model and settings, that run goes on.

        Raises
        ------
        FileError
            If the run folder cannot be written.
        Stopped
            If `stop` said so.
        """
        image = with_file_pixel_size(self.image)
        name = f"{image.stack.name}-segmented"
        if job := find_unfinished(self.home, name, image, self._job, stop):
            say(
                f"An earlier segmentation of {image.stack.name!r} with these settings was not finished: it goes on where it was."
            )
            # The size of tiles may be another now, which changes no pixel.
            write_text(RunFolder(Path(job.outputs[0].path).parent).job_path, job_to_yaml(job))
            return job
        folder = make_folder(self.home, name)
        with removed_unless_done(folder):
            job = self._job(readable(image, self.home, folder, stop), folder)
            write_text(RunFolder(folder).job_path, job_to_yaml(job))
        return job

    def estimate(self, folder: Path, say: Say, stop: Stop) -> PredictJob:
        """Make a job that only says what this would take; the worker needs no pixel for it.

        Parameters
        ----------
        folder : Path
            Takes a stand-in for the image while the job runs.
        say, stop : callable
            As for `prepare`.
        """
        return self._job(stand_in(with_file_pixel_size(self.image), folder), folder).replace(dry_run=True)

    def _job(self, image: ArraySource, folder: Path) -> PredictJob:
        return PredictJob(
            model=str(self.model),
            image=image,
            outputs=tuple(Output(kind=kind, path=str(folder / f"{kind}.zarr")) for kind in self.kinds),
            window=self.window,
            config=self.config,
        )


@dataclass(frozen=True, eq=False)
class RelabelRequest:
    """Labels anew, of the probabilities that a run has stored.

    Parameters
    ----------
    run : PredictJob
        The run.
    name : str
        Of its image.
    config : PredictConfig
        How labels are made now.
    """

    run: PredictJob
    name: str
    config: PredictConfig

    def prepare(self, say: Say, stop: Stop) -> PredictJob:
        """Make the job; its labels get a file of their own, beside the probabilities."""
        stored = Path(next(output.path for output in self.run.outputs if output.kind == "probabilities"))
        paths = (stored.with_name(f"labels-{number}.zarr") for number in count(2))
        return self.run.replace(
            image=ArraySource(path=str(stored), name=self.name),
            given="probabilities",
            outputs=(Output(kind="labels", path=str(next(path for path in paths if not path.exists()))),),
            config=self.config,
        )


def _as_kept(labels: Stack) -> NDArray[Any]:
    """Return labels as the run folder keeps them; refuse what it cannot before there is a folder."""
    values = as_integers(np.asarray(labels.array), labels.name)
    if (largest := int(values.max())) > LARGEST_WHOLE:
        raise DataError(
            f"Labels {labels.name!r} hold {largest:,}, but labels are kept in files of values up to {LARGEST_WHOLE:,}: "
            "number what you painted from 1 up."
        )
    return values


def _as_image(snapshot: Snapshot) -> Image:
    stack = snapshot.stack
    return Image(stack.array, stack.axes, stack.name, snapshot.pixel_size, snapshot.unit)
