"""Labels made anew of stored probabilities: another threshold, or another watershed, without the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.blockwise import RunAll
from napari_unet.data.decoding import threshold_of
from napari_unet.data.instances import Scratch, Window, slices_of
from napari_unet.data.labels import class_map_of
from napari_unet.errors import DataError
from napari_unet.events import Notify, PredictStarted, Stop
from napari_unet.object_run import countdown, find
from napari_unet.pixel_size import chunks_of
from napari_unet.spec import ModelSpec

__all__ = ["make_labels", "without_classes"]


def without_classes(spec: ModelSpec, probabilities: Stack) -> Stack:
    """Show stored probabilities as slices whose channels are the classes, after a look whether they are that of a model.

    Raises
    ------
    DataError
        If they have another number of maps than the model makes, or are no probabilities.
    """
    wanted, found = spec.network.logits, probabilities.shape[3]
    if found != wanted:
        raise DataError(
            f"{probabilities.name!r} holds {found} maps a slice, but the probabilities of model {spec.name!r} are {wanted}: "
            "give probabilities that this model computed."
        )
    if np.dtype(probabilities.array.dtype) != np.uint8 and np.dtype(probabilities.array.dtype).kind != "f":
        raise DataError(
            f"{probabilities.name!r} holds values of type {probabilities.array.dtype}, but probabilities are stored as uint8 or "
            "decimals: give probabilities that this model computed."
        )
    return probabilities


def make_labels(
    spec: ModelSpec,
    config: PredictConfig,
    probabilities: Stack,
    labels: Any,
    *,
    window: Window | None = None,
    chunk_done: Callable[[tuple[int, ...]], bool] | None = None,
    slice_done: Callable[[tuple[int, ...]], bool] | None = None,
    scratch: Scratch = np.zeros,
    run_all: RunAll = map,
    notify: Notify,
    stop: Stop,
) -> bool:
    """Make labels of stored probabilities.

    Parameters
    ----------
    spec : ModelSpec
        The card of the model that computed them.
    config : PredictConfig
        Threshold, how objects are parted and which are left out, whether slices are joined.
    probabilities : Stack
        Maps as channels; uint8 (255 stands for 1) or decimals.
    labels : array-like
        Of the shape of a label image of `probabilities`, full of zeros; of `napari_unet.data.decoding.label_type`.
    window : tuple of (start, stop), optional
        Part to make, in slices, y and x.
    chunk_done, slice_done : callable, optional
        Asked whether an earlier run has written a chunk of classes, or the objects of a slice.
    scratch : callable
        Makes arrays for intermediate results.
    run_all : callable
        As for `napari_unet.data.instances.find_objects`.
    notify, stop : callable
        Progress out, and the wish to stop in.

    Returns
    -------
    bool
        True if stopped before the end.
    """
    if spec.objects is None:
        return _make_classes(spec, config, probabilities, labels, window, chunk_done, notify, stop)
    total = len(slices_of(probabilities, window))
    notify(PredictStarted({}, 0, total, "CPU"))
    return find(
        spec, config, _maps_first(probabilities), labels, probabilities.slice_axes,
        window=window, is_done=slice_done, scratch=scratch, run_all=run_all,
        tell=countdown(0, total, notify), stop=stop,
    )  # fmt: skip


def _make_classes(
    spec: ModelSpec,
    config: PredictConfig,
    probabilities: Stack,
    labels: Any,
    window: Window | None,
    is_done: Callable[[tuple[int, ...]], bool] | None,
    notify: Notify,
    stop: Stop,
) -> bool:
    threshold = threshold_of(spec, config)
    chunks = list(chunks_of(probabilities, labels, window))
    notify(PredictStarted({}, 0, len(chunks), "CPU"))
    tell = countdown(0, len(chunks), notify)
    for done, (index, y, x) in enumerate(chunks, 1):
        if stop():
            return True
        if is_done is None or not is_done(index):
            which = index[:-2]
            n = int(np.ravel_multi_index(which, probabilities.slice_shape)) if which else 0
            classes = _classified(probabilities.read(n, y, x), threshold)
            labels[(*which, y, x)] = class_map_of(spec).decode(classes)
        tell(done, len(chunks))
    return False


def _classified(maps: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.uint8]:
    """Class of each pixel, from (y, x, L) probabilities."""
    if maps.shape[-1] > 1:
        best: npt.NDArray[np.intp] = maps.argmax(-1)
        return best.astype(np.uint8)
    values = maps[..., 0] / np.float32(255) if maps.dtype == np.uint8 else maps[..., 0]
    above: npt.NDArray[np.bool_] = values >= np.float32(threshold)
    return above.astype(np.uint8)


def _maps_first(probabilities: Stack) -> Any:
    """Return the stored array, whose first axis must be that of the maps."""
    if probabilities.axes[0] != "C":
        raise DataError(
            f"The axes of {probabilities.name!r} are {probabilities.axes}, but the axis of the maps, C, comes first: "
            "give probabilities as they were written."
        )
    return probabilities.array
