"""Run a job, or do the same with arrays.

The docks (through the worker), the command line and scripts all come through here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.data.axes import ArrayLike, Stack, guess_axes
from napari_unet.data.dataset import prepare
from napari_unet.data.decoding import label_type
from napari_unet.data.instances import Window, check_window
from napari_unet.data.lint import lint
from napari_unet.errors import DataError, ModelError
from napari_unet.events import Noted, Notify, Report, Stop, ignore_events, never_stop
from napari_unet.files.image import Image
from napari_unet.files.model import read_model_file, save_model_file
from napari_unet.files.reading import unit_name
from napari_unet.jobs import OutputKind, PredictJob, TrainJob
from napari_unet.label_check import settle_target, stacks_of
from napari_unet.object_run import segment_objects
from napari_unet.pixel_size import as_trained, bring_back, window_at
from napari_unet.prediction_run import run_prediction
from napari_unet.relabel_run import make_labels, without_classes
from napari_unet.spec import ModelSpec
from napari_unet.training_run import (
    NOTHING_YET,
    Start,
    make_card,
    read_start,
    run_training,
    settle,
    train_on,
)

if TYPE_CHECKING:
    from napari_unet.nn.model import UNetModel

__all__ = ["load_model", "predict", "relabel", "run", "save_model", "train"]


def run(job: TrainJob | PredictJob, notify: Notify = ignore_events, stop: Stop = never_stop) -> Report:
    """Run a job to its end, or until `stop` says so.

    A job whose run folder or output holds an interrupted run of the same job goes on from
    there.

    Parameters
    ----------
    job : TrainJob or PredictJob
        What to read, which settings, where to write.
    notify : callable
        Is given each event.
    stop : callable
        Is asked after each step or tile; True ends the run with what it has.

    Returns
    -------
    Report
        What the run left behind.

    Raises
    ------
    NapariUNetError
        If an input cannot be used or an output cannot be written.
    """
    match job:
        case TrainJob():
            return run_training(job, notify, stop)
        case PredictJob():
            return run_prediction(job, notify, stop)


def load_model(path: str | PathLike[str]) -> UNetModel:
    """Load a model from a ``.unet`` file.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    UNetModel
        The card and the network.

    Raises
    ------
    FileError
        If the file is damaged, too new, or not a napari-unet model.
    BackendError
        If TensorFlow cannot be used in this process.
    """
    spec, arrays = read_model_file(path)
    from napari_unet.nn import backend
    from napari_unet.nn.model import UNetModel

    backend.prepare("float32", seed=0)
    return UNetModel.from_arrays(spec, arrays)


def save_model(model: UNetModel, path: str | PathLike[str]) -> None:
    """Save a model as a ``.unet`` file, whole or not at all.

    Raises
    ------
    FileError
        If the file cannot be written; an older file of that name is then still there.
    """
    save_model_file(path, model.spec, model.arrays())


def train(
    images: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    network: UNetConfig | None = None,
    config: TrainConfig | None = None,
    *,
    start_from: UNetModel | str | PathLike[str] | None = None,
    unpainted: Literal["background", "ignore"] = "background",
    background_value: int | None = None,
    target: Literal["auto", "classes", "objects"] = "auto",
    not_finite: Literal["refuse", "ignore"] = "refuse",
    axes: str | None = None,
    pixel_size: tuple[float, float] | None = None,
    unit: str = "pixel",
    name: str = "unet",
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> UNetModel:
    """Train a U-Net on arrays, in this process.

    Parameters
    ----------
    images : sequence of array-like
        Images; ``(Y, X)``, or more axes as named by `axes`.
    labels : sequence of array-like of int
        What was painted on each, of the same shape without channels.
    network : UNetConfig, optional
        Shape of the network; channels and classes are set from the data. By default that of the model
        to start from, or one chosen by the computer.
    config : TrainConfig, optional
        How to train; what it leaves open is chosen.
    start_from : UNetModel, str or os.PathLike, optional
        A model, a ``.unet`` file or a run folder, with whose weights training begins.
    unpainted : {"background", "ignore"}
        What 0 means in the labels.
    background_value : int, optional
        With ``unpainted="ignore"``: the painted value that means background.
    target : {"auto", "classes", "objects"}
        Whether each painted value is a class of pixels or one object; ``"auto"`` is proposed from the labels,
        and said as `napari_unet.events.Noted`.
    not_finite : {"refuse", "ignore"}
        Whether an image with NaN or infinite pixels is refused, or those pixels become 0 and are not trained on.
    axes : str, optional
        Letters of the images' axes, of T, Z, C, Y, X and S (colour samples), e.g. ``"CYX"``.
        Guessed from the number of dimensions where it is left out: YX, ZYX, TZYX.
    pixel_size : tuple of float, optional
        Size of the images' pixels along Y and X, the same for all images. The model remembers it, so that other images can be
        segmented at that size.
    unit : str
        Of `pixel_size`, e.g. ``"micrometer"``.
    name : str
        What to call the model.
    notify, stop : callable
        Progress out, and the wish to stop in.

    Returns
    -------
    UNetModel
        The last model that is as good as the best on the held-out part of the labels.

    Raises
    ------
    DataError
        If the images or labels cannot be used.
    FileError
        If the model to start from cannot be read.
    ModelError
        If training fails, is stopped before it learned anything, or cannot start from that model.
    """
    sizes = _sizes(pixel_size)
    pictures, paint = stacks_of(images, labels, axes)
    found = lint(
        pictures,
        paint,
        unpainted=unpainted,
        background_value=background_value,
        target=target,
        not_finite=not_finite,
        stop=stop,
    )
    dataset = prepare(
        pictures,
        paint,
        unpainted=unpainted,
        background_value=background_value,
        target=settle_target(found, notify),
        not_finite=not_finite,
        stop=stop,
    )
    if stop():
        raise ModelError(NOTHING_YET)
    start = None if start_from is None else _start(start_from)
    network, config = settle(dataset, network, config or TrainConfig(), start, None, notify)
    first = Image(images[0], pictures[0].axes, name, sizes, unit_name(unit))
    spec = make_card(dataset, network, pictures, name=name, image=first)
    result = train_on(dataset, spec, config, start=start, notify=notify, stop=stop)
    if not result.steps:  # an untrained network is no model
        raise ModelError(result.message)
    notify(Noted(result.message))
    return result.model


@overload
def predict(
    model: UNetModel,
    image: ArrayLike,
    config: PredictConfig | None = ...,
    *,
    output: OutputKind = ...,
    axes: str | None = ...,
    pixel_size: tuple[float, float] | None = ...,
    window: Window | None = ...,
    notify: Notify = ...,
    stop: Stop = ...,
) -> npt.NDArray[Any]: ...


@overload
def predict(
    model: UNetModel,
    image: ArrayLike,
    config: PredictConfig | None = ...,
    *,
    output: list[OutputKind] | tuple[OutputKind, ...],
    axes: str | None = ...,
    pixel_size: tuple[float, float] | None = ...,
    window: Window | None = ...,
    notify: Notify = ...,
    stop: Stop = ...,
) -> dict[str, npt.NDArray[Any]]: ...


def predict(
    model: UNetModel,
    image: ArrayLike,
    config: PredictConfig | None = None,
    *,
    output: OutputKind | list[OutputKind] | tuple[OutputKind, ...] = "labels",
    axes: str | None = None,
    pixel_size: tuple[float, float] | None = None,
    window: Window | None = None,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> npt.NDArray[Any] | dict[str, npt.NDArray[Any]]:
    """Segment an array, in this process.

    Parameters
    ----------
    model : UNetModel
        From `train` or `load_model`.
    image : array-like
        Of any size; read tile by tile.
    config : PredictConfig, optional
        How to apply the model.
    output : {"labels", "probabilities", "entropy", "uncertainty"} or list of them
        Class labels with the values that were painted, or the number of each pixel's object;
        probabilities; how unsure the network is (0 to 1), or how unsure over several passes with dropout.
        Several are computed together.
    axes : str, optional
        Letters of the image's axes, as for `train`.
    pixel_size : tuple of float, optional
        Size of the image's pixels along Y and X, in the unit of the model card; needed where the image is to be
        segmented at the model's pixel size.
    window : tuple of (start, stop), optional
        Part to segment, in slices, y and x; the rest of the result is 0.
    notify, stop : callable
        Progress out, and the wish to stop in. What was not computed is 0.

    Returns
    -------
    ndarray, or dict of str to ndarray where several were asked for
        Labels and maps of shape ``(..., Y, X)``, the image's without channels; probabilities of that
        shape for two classes, with the classes as first axis for more.

    Raises
    ------
    DataError
        If the image has other channels than the model, if a pixel size is needed and not known, or if the window does
        not lie in the image.
    """
    from napari_unet.nn.outputs import output_layout
    from napari_unet.nn.prediction import segment

    kinds: tuple[OutputKind, ...] = (output,) if isinstance(output, str) else tuple(output)
    config = config or PredictConfig()
    stack = Stack(image, axes or guess_axes(image.shape))
    check_window(window, stack)

    def room(kind: OutputKind, config: PredictConfig) -> npt.NDArray[Any]:
        layout = output_layout(model.spec, stack, kind, config)
        return np.zeros(layout.shape, layout.dtype)

    results: dict[str, npt.NDArray[Any]] = {kind: room(kind, config) for kind in kinds}
    if config.pixel_size == "model":
        seen = as_trained(
            Image(image, stack.axes, stack.name, _sizes(pixel_size), model.spec.unit), model.spec
        )
        own, inner = config.replace(pixel_size="image"), window_at(window, stack, seen.stack)
        parts = predict(
            model, seen.array, own, output=kinds, axes=seen.axes, window=inner, notify=notify, stop=stop
        )
        for kind, part in parts.items():
            bring_back(part, stack.out_axes, results[kind], window, nearest=kind == "labels", stop=stop)
    elif model.spec.objects and "labels" in kinds:
        maps = {kind: result for kind, result in results.items() if kind != "labels"}
        if not maps:
            config = config.replace(probability_type="uint8")
        maps.setdefault("probabilities", room("probabilities", config))
        segment_objects(
            model, stack, config, maps, results["labels"], window=window, notify=notify, stop=stop
        )
    else:
        segment(model, stack, config, results, window=window, notify=notify, stop=stop)
    return results[output] if isinstance(output, str) else results


def relabel(
    model: UNetModel | ModelSpec,
    probabilities: ArrayLike,
    config: PredictConfig | None = None,
    *,
    axes: str | None = None,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> npt.NDArray[Any]:
    """Make labels anew of probabilities, with another threshold or watershed; the network does not run.

    Parameters
    ----------
    model : UNetModel or ModelSpec
        That computed the probabilities, or its card.
    probabilities : array-like
        As `predict` returns them: ``(..., Y, X)`` for two classes, with the classes as first axis for more.
    config : PredictConfig, optional
        Its threshold, how objects are parted and which are left out, and whether slices are joined.
    axes : str, optional
        Letters of the axes, such as ``"CZYX"``; guessed where they are left out.
    notify, stop : callable
        Progress out, and the wish to stop in.

    Returns
    -------
    ndarray
        As `predict` returns labels.

    Raises
    ------
    DataError
        If these are no probabilities of this model.
    """
    spec = model if isinstance(model, ModelSpec) else model.spec
    several = spec.network.logits > 1
    letters = axes or ("C" if several else "") + guess_axes(probabilities.shape[int(several) :])
    stack = without_classes(spec, Stack(probabilities, letters, "probabilities"))
    result = np.zeros(stack.out_shape, label_type(spec))
    make_labels(spec, config or PredictConfig(), stack, result, notify=notify, stop=stop)
    return result


def _start(model: UNetModel | str | PathLike[str]) -> Start:
    if isinstance(model, str | PathLike):
        return read_start(model)
    return model.spec, model.arrays()


def _sizes(pixel_size: Sequence[float] | None) -> dict[str, float]:
    """Pixel size by axis letter; empty where it is not known."""
    if pixel_size is None:
        return {}
    if len(pixel_size) != 2 or not all(0 < side < math.inf for side in pixel_size):
        raise DataError(
            f"A pixel size is two numbers above 0, along Y and X, but {pixel_size!r} was given: "
            "write it as (0.5, 0.5), or leave it out."
        )
    return dict(zip("YX", map(float, pixel_size), strict=True))
