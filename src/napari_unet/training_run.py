"""Run a training job: open images and labels, train, keep everything in the run folder."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.advice import advise
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, fingerprints, prepare
from napari_unet.data.sights import look
from napari_unet.errors import FileError, ModelError
from napari_unet.events import (
    Event,
    Noted,
    Notify,
    Report,
    StepDone,
    Stop,
    TrainStarted,
    Validated,
    Warned,
)
from napari_unet.files.image import Image, open_source
from napari_unet.files.model import read_model_file, save_model_file
from napari_unet.files.run import RunFolder
from napari_unet.jobs import TrainJob
from napari_unet.label_check import check_opened, check_resampled, settle_target
from napari_unet.pixel_size import at_one_pixel_size
from napari_unet.spec import (
    OBJECT_CLASSES,
    ClassInfo,
    ModelSpec,
    Normalization,
    ObjectDecoding,
    TrainingRecord,
)

if TYPE_CHECKING:
    from napari_unet.nn.training import Checkpoint, TrainResult

__all__ = ["Start", "make_card", "model_file", "read_start", "run_training", "settle", "train_on"]

Start = tuple[ModelSpec, Mapping[str, npt.NDArray[Any]]]
"""A model to begin with: its card and its weights."""

_log = logging.getLogger(__name__)


def run_training(job: TrainJob, notify: Notify, stop: Stop) -> Report:
    """Run a `TrainJob`; see `napari_unet.api.run`."""
    started = time.monotonic()
    with RunFolder(job.out).create(job) as folder, _logging_to(folder.log_path, job):
        images = [open_source(source) for source in job.images]
        labels = [open_source(source) for source in job.labels]
        opened = images, labels
        found = check_opened(
            images,
            labels,
            unpainted=job.unpainted,
            background_value=job.background_value,
            target=job.target,
            not_finite=job.not_finite,
            resampled=job.pixel_size is not None,
            stop=stop,
        )
        if stop():
            return _stopped_before(folder, started)
        target = settle_target(found, notify)
        if job.pixel_size is not None:
            images, labels = at_one_pixel_size(images, labels, job.pixel_size)
            if target == "classes":
                for finding in check_resampled(opened[1], labels, job.pixel_size, stop):
                    notify(Warned(str(finding)))
        dataset = prepare(
            [image.stack for image in images],
            [painted.stack for painted in labels],
            unpainted=job.unpainted,
            background_value=job.background_value,
            target=target,
            not_finite=job.not_finite,
            stop=stop,
        )
        if stop():
            return _stopped_before(folder, started)
        resume = _resume(folder, job, *opened, dataset)
        start = _read_start(job.start_from, resume) if job.start_from else None
        network, config = settle(dataset, job.network, job.train, start, resume, notify)
        spec = make_card(
            dataset,
            network,
            [i.stack for i in images],
            name=job.name,
            classes=job.classes,
            image=images[0],
        )
        result = train_on(
            dataset, spec, config, start=start, resume=resume, folder=folder, notify=notify, stop=stop
        )
        if not result.steps:  # an untrained network is no model
            return Report(
                "train",
                seconds=time.monotonic() - started,
                stopped=result.stopped,
                message=result.message,
            )
        save_model_file(folder.model_path, result.model.spec, result.model.arrays())
        metrics = {"steps": float(result.steps)}
        if result.score is not None:
            metrics["held_out_dice"] = result.score
        if (ap50 := result.model.spec.training.ap50) is not None:
            metrics["held_out_ap50"] = ap50
        return Report(
            "train",
            outputs={"model": str(folder.model_path), "run": str(folder.path)},
            metrics=metrics,
            seconds=time.monotonic() - started,
            stopped=result.stopped,
            message=result.message,
        )


NOTHING_YET = "Stopped before training began: nothing was learned yet, and nothing was lost."
_GOES_ON = "Stopped before training went on: the same job goes on from where it was."


def _stopped_before(folder: RunFolder, started: float) -> Report:
    """Report a run that was stopped while its images and labels were read."""
    report = Report("train", seconds=time.monotonic() - started, stopped=True, message=NOTHING_YET)
    if not folder.checkpoint_path.exists():
        return report
    outputs = {"model": str(folder.model_path)} if folder.model_path.exists() else {}
    return replace(report, message=_GOES_ON, outputs={**outputs, "run": str(folder.path)})


def _resume(
    folder: RunFolder, job: TrainJob, images: Sequence[Image], labels: Sequence[Image], dataset: Dataset
) -> Checkpoint | None:
    """Read where a run stands; refuse to go on with images or labels that it has not learned from."""
    resume = folder.load_checkpoint()
    prints = fingerprints([image.stack for image in images], [painted.stack for painted in labels], dataset)
    if resume is not None:
        before = folder.load_inputs() or prints
        for source, old, new in zip((*job.labels, *job.images), before, prints, strict=False):
            if old != new:
                raise FileError(
                    source.path,
                    "has changed since this run learned from it, so the run cannot go on: start a new run in another folder "
                    "that starts from this one, or put the old file back.",
                )
    folder.save_inputs(prints)
    return resume


def read_start(path: str | os.PathLike[str]) -> Start:
    """Read a model to begin with: a ``.unet`` file, or the best model of a run folder.

    Raises
    ------
    FileError
        If there is none, or it cannot be read.
    """
    return read_model_file(model_file(path))


def _read_start(path: str, resume: Checkpoint | None) -> Start | None:
    """Read the model to begin with; a run that goes on needs it only to begin anew, and it may be gone by then."""
    try:
        return read_start(path)
    except FileError:
        if resume is None:
            raise
        return None


def model_file(path: str | os.PathLike[str]) -> Path:
    """Return the ``.unet`` file itself, or the best model of a run folder.

    Raises
    ------
    FileError
        If a folder holds none.
    """
    place = Path(path)
    if not place.is_dir():
        return place
    model = RunFolder(place).model_path
    if not model.is_file():
        raise FileError(
            place,
            "holds no model to start from: choose the folder of a run that has a model.unet, or a .unet file.",
        )
    return model


def settle(
    dataset: Dataset,
    network: UNetConfig | None,
    config: TrainConfig,
    start: Start | None,
    resume: Checkpoint | None,
    notify: Notify,
) -> tuple[UNetConfig, TrainConfig]:
    """Choose the settings that are left open, and say why; a run that goes on keeps its own.

    Parameters
    ----------
    dataset : Dataset
        What to train on.
    network : UNetConfig or None
        Shape of the network; None for that of the model to begin with, or for one chosen.
    config : TrainConfig
        Settings.
    start : tuple of (card, weights) or None
        The model to begin with.
    resume : tuple of (arrays, state) or None
        Checkpoint of a run that goes on.
    notify : callable
        Is given the reasons, as `Noted`, and what these settings will find hard, as `Warned`.
    """
    from napari_unet.nn.machine import this_computer

    if resume is not None:
        from napari_unet.nn.progress import Progress

        return UNetConfig(**Progress.of(resume[1]).network), config
    if network is None and start is not None:
        network = start[0].network
    advice = advise(look(dataset.examples), this_computer(), network, config)
    for reason in advice.reasons:
        notify(Noted(reason))
    for warning in advice.warnings:
        notify(Warned(warning))
    return advice.network, advice.train


def train_on(
    dataset: Dataset,
    spec: ModelSpec,
    config: TrainConfig,
    *,
    start: Start | None = None,
    resume: Checkpoint | None = None,
    folder: RunFolder | None = None,
    notify: Notify,
    stop: Stop,
) -> TrainResult:
    """Train on a dataset, from a model or a checkpoint if given; with a run folder, keep everything there."""
    for warning in dataset.warnings:
        notify(Warned(warning))
    if folder:
        folder.truncate_history(resume[1]["step"] if resume else 0)

    def tell(event: Event) -> None:
        if folder and isinstance(event, StepDone | Validated):
            folder.append_history({"event": type(event).__name__, **asdict(event)})
        elif folder and isinstance(event, TrainStarted):
            if event.step == 0:  # perhaps not for the first time, as after a network that could not learn
                folder.truncate_history(0)
            event = replace(event, run=str(folder.path))
        notify(event)

    from napari_unet.nn.training import train_network

    weights = _first_weights(start, spec, resume, notify) if start else None
    return train_network(
        dataset,
        spec,
        config,
        begin_with=weights,
        save_model=(lambda spec, arrays: save_model_file(folder.model_path, spec, arrays))
        if folder
        else None,
        save_checkpoint=folder.save_checkpoint if folder else None,
        resume=resume,
        notify=tell,
        stop=stop,
    )


def _first_weights(
    start: Start, spec: ModelSpec, resume: Checkpoint | None, notify: Notify
) -> Mapping[str, npt.NDArray[Any]] | None:
    """Choose the weights to begin with, and say which; where a run goes on, another model may be in the place of its own."""
    from napari_unet.nn.transfer import carry_over

    try:
        weights, sentence = carry_over(*start, spec)
    except ModelError:
        if resume is None:
            raise
        return None
    if resume is None:
        notify(Noted(sentence))
    return weights


def make_card(
    dataset: Dataset,
    network: UNetConfig,
    stacks: Sequence[Stack],
    *,
    name: str,
    classes: Sequence[ClassInfo] = (),
    image: Image | None = None,
) -> ModelSpec:
    """Fill in the model card as far as it is known before training."""
    values = dataset.class_map.values
    if dataset.target == "objects":
        names = dict(zip(values, OBJECT_CLASSES, strict=True))
    else:
        names = {value: f"class {value}" for value in values} | {values[0]: "background"}
    given = {value: ClassInfo(value=value, name=name) for value, name in names.items()}
    given |= {info.value: info for info in classes if dataset.target == "classes"}
    channels = int(stacks[0].shape[3])
    size = image.pixel_size if image else {}
    return ModelSpec(
        name=name,
        network=network.replace(channels=channels, classes=len(values)),
        axes="YXS" if "S" in stacks[0].axes else "YX" if channels == 1 else "YXC",
        normalization=Normalization(low=dataset.range.low, high=dataset.range.high),
        pixel_size=(size["Y"], size["X"]) if "Y" in size and "X" in size else None,
        unit=image.unit if image else "pixel",
        classes=tuple(given[value] for value in values),
        target=dataset.target,
        objects=ObjectDecoding() if dataset.target == "objects" else None,
        unpainted=dataset.class_map.unpainted,
        training=TrainingRecord(images=tuple(stack.name for stack in stacks), painted=dataset.painted),
    )


@contextmanager
def _logging_to(path: Path, job: TrainJob) -> Iterator[None]:
    """Write warnings of libraries and our own notes to the run's log while a job runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        _log.warning("run begins in process %d: %s", os.getpid(), job.name)
        yield
        _log.warning("run ends")
    except BaseException:
        _log.exception("run ends with an error")
        raise
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()
