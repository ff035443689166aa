"""Segmenting into objects: probabilities first, then the objects in them, out of core."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.blockwise import RunAll
from napari_unet.data.decoding import decoding_of
from napari_unet.data.instances import Scratch, Window, find_objects, slices_of
from napari_unet.events import Event, Notify, PredictStarted, Stop, TileDone
from napari_unet.files.results import create_scratch
from napari_unet.spec import ModelSpec

if TYPE_CHECKING:
    from napari_unet.nn.model import UNetModel

__all__ = ["countdown", "find", "scratch_in", "segment_objects"]

_IN_MEMORY = 2**28
"""Bytes up to which an intermediate result stays in memory."""


@contextmanager
def scratch_in(folder: Path, most: int = _IN_MEMORY) -> Iterator[Scratch]:
    """Give what makes intermediate results, in a folder that is removed in the end.

    Parameters
    ----------
    folder : Path
        Where those go that take more than `most` bytes; the others stay in memory, where no other process sees them.
    most : int
        0 for all of them in the folder.
    """
    made = 0

    def scratch(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        nonlocal made
        if prod(shape) * np.dtype(dtype).itemsize <= most:
            return np.zeros(shape, dtype)
        made += 1
        return create_scratch(folder / str(made), shape, dtype, str(folder))

    try:
        yield scratch
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def segment_objects(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    outputs: Mapping[str, Any],
    labels: Any,
    *,
    window: Window | None = None,
    tile_done: Callable[[tuple[int, ...]], bool] | None = None,
    slice_done: Callable[[tuple[int, ...]], bool] | None = None,
    scratch: Scratch = np.zeros,
    segment: Callable[..., bool] | None = None,
    run_all: RunAll = map,
    notify: Notify,
    stop: Stop,
) -> bool:
    """Segment an image into objects: all probabilities first, then the objects of each slice.

    Parameters
    ----------
    model : UNetModel
        One that knows objects.
    stack : Stack
        The image.
    config : PredictConfig
        Settings.
    outputs : mapping of str to array-like
        What the network writes, as for `napari_unet.nn.prediction.segment`; ``"probabilities"`` among it.
    labels : array-like
        Receives the objects.
    window : tuple of (start, stop), optional
        Part to segment, in slices, y and x.
    tile_done, slice_done : callable, optional
        Asked whether an earlier run has written a chunk of the outputs, or the objects of a slice.
    scratch : callable
        Makes arrays for intermediate results.
    segment : callable, optional
        Writes the outputs in place of `napari_unet.nn.prediction.segment`.
    run_all : callable
        As for `napari_unet.data.instances.find_objects`.
    notify, stop : callable
        Progress out, and the wish to stop in. A slice counts as one more tile.

    Returns
    -------
    bool
        True if stopped before the end.
    """
    if segment is None:
        from napari_unet.nn.prediction import segment as segment_here

        segment = segment_here
    slices, tiles = len(slices_of(stack, window)), 0

    def tell(event: Event) -> None:
        nonlocal tiles
        if isinstance(event, PredictStarted | TileDone):
            tiles = event.total
            event = replace(event, total=tiles + slices)
        notify(event)

    if segment(model, stack, config, outputs, window=window, is_done=tile_done, notify=tell, stop=stop):
        return True

    return find(
        model.spec, config, outputs["probabilities"], labels, stack.slice_axes,
        window=window, is_done=slice_done, scratch=scratch, run_all=run_all,
        tell=countdown(tiles, tiles + slices, notify), stop=stop,
    )  # fmt: skip


def countdown(before: int, total: int, notify: Notify) -> Callable[[int, int], None]:
    """Make a function that is called after each slice or chunk, and tells how long the rest takes at the pace so far.

    Parameters
    ----------
    before, total : int
        How many were done before now, and how many there are.
    notify : callable
        Receives a `TileDone` for each.

    Returns
    -------
    callable
        Takes how many were done since now; what else it is given does not count.
    """
    begun = perf_counter()

    def tell(done: int, _: int) -> None:
        left = total - before - done
        notify(TileDone(before + done, total, (perf_counter() - begun) / done * left))

    return tell


def find(
    spec: ModelSpec,
    config: PredictConfig,
    probabilities: Any,
    labels: Any,
    slice_axes: str,
    **options: Any,
) -> bool:
    """Make objects of probabilities as a model and the settings say; see `napari_unet.data.instances.find_objects`."""
    chunk = getattr(labels, "chunks", labels.shape)[-2:]
    return find_objects(
        probabilities,
        labels,
        decoding_of(spec, config),
        slice_axes=slice_axes,
        link=config.link_slices,
        chunk=chunk,
        **options,
    )
