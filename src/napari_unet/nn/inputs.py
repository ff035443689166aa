"""An image before it is segmented: whether it fits the model, and what is black and white in it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.normalize import Range, survey
from napari_unet.errors import DataError, ModelError
from napari_unet.events import Notify, Stop, Warned, ignore_events, never_stop
from napari_unet.nn import backend
from napari_unet.spec import ModelSpec

__all__ = ["check_channels", "check_dropout", "measure_range"]

_COUNTERS = 4
"""Threads that count pixels beside an accelerator, which segments so fast that one would take a fifth of the time."""


def measure_range(
    spec: ModelSpec,
    stack: Stack,
    config: PredictConfig,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
) -> Range:
    """Return black and white of each channel, from the whole image or as the training images had them.

    Raises
    ------
    ModelError
        If they are to be those of the training images, and the model does not know them.
    """
    given = spec.normalization
    if config.normalize == "model":
        if not given.low or not given.high:
            raise ModelError(
                f"Model {spec.name!r} does not say which brightness its training images had: "
                "take the brightness range from the image."
            )
        return Range(given.low, given.high)
    if backend.device_name() == "CPU":
        found = survey(stack, given.lower, given.upper, stop)
    else:
        with ThreadPoolExecutor(_COUNTERS) as pool:
            found = survey(stack, given.lower, given.upper, stop, pool.map)
    if found.not_finite:
        notify(
            Warned(
                f"Image {stack.name!r} has {found.not_finite:,} values that are NaN or infinite; they count as 0."
            )
        )
    if any(found.constant) and not stop():
        notify(
            Warned(f"Image {stack.name!r} has the same value everywhere, so there is nothing to tell apart.")
            if all(found.constant)
            else Warned(f"A channel of image {stack.name!r} has the same value everywhere.")
        )
    return found.range


def check_dropout(spec: ModelSpec) -> None:
    """Raise a ModelError unless a model has dropout to sample its uncertainty with."""
    if not spec.network.dropout:
        raise ModelError(
            f"Model {spec.name!r} was trained without dropout, so its uncertainty cannot be sampled: ask for entropy."
        )


def check_channels(spec: ModelSpec, stack: Stack) -> None:
    """Raise a DataError unless an image has as many channels as a model reads."""
    wanted, found = spec.network.channels, stack.shape[3]
    if wanted == found:
        return
    way_out = (
        "convert the image to grey (one channel)" if wanted == 1 else f"give an image of {wanted} channels"
    )
    raise DataError(
        f"Model {spec.name!r} reads {wanted} channel{'s' * (wanted > 1)}, but image {stack.name!r} has {found} "
        f"(axes {stack.axes}): {way_out}, or use a model trained on images like this."
    )
