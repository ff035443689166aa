"""What a segmentation writes: how each output lies in memory, and how answers get there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.decoding import label_type
from napari_unet.data.instances import Window
from napari_unet.data.labels import class_map_of
from napari_unet.data.tiling import Tile
from napari_unet.nn.plan import Plan, Work
from napari_unet.spec import ModelSpec

__all__ = ["Layout", "Writable", "Writer", "output_layout"]


class Writable(Protocol):
    """What results are written to: a numpy or zarr array."""

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Write a block."""
        ...


class Layout(NamedTuple):
    """How an output lies in memory.

    Parameters
    ----------
    shape : tuple of int
        (T, Z, Y, X) as far as the image has these axes; C first with more than one map.
    axes : str
        Their letters.
    dtype : numpy.dtype
        Of the pixels.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]


def output_layout(spec: ModelSpec, stack: Stack, kind: str, config: PredictConfig | None = None) -> Layout:
    """Say how an output of `segment` lies in memory.

    Parameters
    ----------
    spec : ModelSpec
        The model's card.
    stack : Stack
        The image.
    kind : {"labels", "probabilities", "entropy", "uncertainty"}
        Labels hold the painted value of each pixel's class, in the smallest unsigned type; or the object
        of each pixel (`napari_unet.data.instances.IDS`) where the model knows objects.
        Probabilities hold one map for two classes (of the higher value), else one map a class,
        in the order of ``spec.classes``. Entropy and uncertainty are one map.
    config : PredictConfig, optional
        Says the type of probabilities and maps.

    Returns
    -------
    Layout
        Shape, axes and dtype.
    """
    if kind == "labels":
        return Layout(stack.out_shape, stack.out_axes, label_type(spec))
    dtype = np.dtype((config or PredictConfig()).probability_type)
    if kind != "probabilities" or spec.network.logits == 1:
        return Layout(stack.out_shape, stack.out_axes, dtype)
    return Layout((spec.network.classes, *stack.out_shape), "C" + stack.out_axes, dtype)


class Writer:
    """Writes the answers for a chunk to the outputs asked for.

    Parameters
    ----------
    plan : Plan
        Where chunks lie.
    spec : ModelSpec
        Says which value each class was painted with.
    outputs : mapping of str to array
        By kind; written in this order.
    window : tuple of (start, stop), optional
        Outside it, 0 is written.
    """

    def __init__(
        self, plan: Plan, spec: ModelSpec, outputs: Mapping[str, Writable], window: Window | None
    ) -> None:
        self._plan = plan
        self._outputs = outputs
        self._classes = class_map_of(spec)
        self._window = window

    def __call__(self, work: Work, answers: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write the chunk of `work`; answers are (y, x), or (y, x, L) for probabilities."""
        where = (*self._plan.slice_index(work.n), *work.tile.write)
        inside = None if self._window is None else _inside(work.tile, self._window)
        for kind, output in self._outputs.items():
            block, key = self._block(kind, answers[kind]), where
            if block.ndim == 3:  # the class axis first, where there is one
                block, key = np.moveaxis(block, -1, 0), (slice(None), *where)
            output[key] = block if inside is None else np.where(inside, block, block.dtype.type(0))

    def _block(self, kind: str, answer: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if kind == "labels":
            return self._classes.decode(answer)
        return answer[..., 0] if answer.ndim == 3 and answer.shape[-1] == 1 else answer


def _inside(tile: Tile, window: Window) -> npt.NDArray[np.bool_]:
    """Which pixels (y, x) of a tile's write lie in the window."""
    y, x = (
        (np.arange(side.start, side.stop) >= start) & (np.arange(side.start, side.stop) < stop)
        for side, (start, stop) in zip(tile.write, window[1:], strict=True)
    )
    return y[:, None] & x
