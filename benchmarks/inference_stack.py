"""Ways to segment a stack that lies in a zarr: our job, zarr to zarr, and what one writes by hand.

Both load the model from its file each time. The job takes black and white from the whole stack and writes bytes; by hand
each slice is normalised by its own percentiles, and probabilities stay in memory as float32. So each is compared with
whole slices normalised as its own are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from inference_measure import Precision, Way, local
from inference_ways import Subject, pixels_of, sampled

from napari_unet import api
from napari_unet.data.axes import Stack
from napari_unet.data.normalize import Range, survey
from napari_unet.data.synthetic import cells
from napari_unet.data.tiling import Tile, plan
from napari_unet.jobs import ArraySource, Output, PredictJob
from napari_unet.nn import computing
from napari_unet.nn.network import halo

__all__ = ["StackSubject", "make_stack", "stack_ways"]

_COMPARED = 4  # slices
_DIFFERENT = 4  # slices, which repeat


def make_stack(path: Path, count: int, size: int) -> None:
    """Write a stack of cells, uint16, (Z, Y, X), a slice a chunk."""
    array = zarr.create_array(
        store=str(path), shape=(count, size, size), chunks=(1, size, size), dtype="uint16"
    )
    slices = [cells((size, size), seed=seed)[0].astype(np.uint16) for seed in range(min(_DIFFERENT, count))]
    for n in range(count):
        array[n] = slices[n % len(slices)]


@dataclass(frozen=True)
class StackSubject:
    """A stack and a model, in a folder that holds input.zarr and model.unet."""

    folder: Path
    subject: Subject  # the model, and the first slice

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        return zarr.open_array(self.folder / "input.zarr", mode="r").shape

    def segment(self, precision: Precision) -> Path:
        """Run the job; return the array that it wrote."""
        out = self.folder / f"{precision}.zarr"
        if out.exists():
            shutil.rmtree(out)
        job = PredictJob(
            model=str(self.folder / "model.unet"),
            image=ArraySource(path=str(self.folder / "input.zarr"), axes="ZYX"),
            outputs=(Output(kind="probabilities", path=str(out)),),
            config=self.subject.config(precision),
        )
        return Path(api.run(job).outputs["probabilities"])

    def by_hand(self) -> np.ndarray:
        """Segment slice by slice with `model.predict`; (Z, Y, X, L)."""
        network = api.load_model(self.folder / "model.unet").network
        stack = zarr.open_array(self.folder / "input.zarr", mode="r")
        given = self.subject.model.spec.normalization
        result = np.empty((*self.shape, self.subject.model.spec.network.logits), np.float32)
        for n in range(len(result)):
            pixels = _normalized_by_hand(stack[n], given.lower, given.upper)
            result[n] = self.subject.probabilities(network.predict(pixels, verbose=0)[0])
        return result


def stack_ways(stack: StackSubject, precisions: Sequence[Precision]) -> list[Way]:
    """List the ways."""
    ways = list(_right_answers(stack))
    for precision in precisions:
        ways += _jobs(stack, precision)
    network = stack.subject.model.network
    whole = (slice(0, stack.shape[1]), slice(0, stack.shape[2]))
    tiles = [Tile(whole, whole, whole)] * stack.shape[0]
    bare = sampled("by hand, bare", "float32", computing.traced(network), tiles)
    name = "predict a slice, np.percentile, float32"
    ways += [
        bare,
        local(
            name, "float32", pixels_of(tiles), stack.by_hand, over=bare.name, against="slices, each its range"
        ),
    ]
    return ways


def _jobs(stack: StackSubject, precision: Precision) -> Iterator[Way]:
    model = stack.subject.model.in_precision(precision)
    group = zarr.open(stack.segment(precision), mode="r")
    written: Any = group if isinstance(group, zarr.Array) else group["0"]
    size, stride = stack.shape[1:], model.spec.network.stride
    tiles = plan(size, written.chunks[-2:], halo(model.network), stride) * stack.shape[0]
    bare = sampled(f"our tiles, bare, {precision}", precision, model.probabilities, tiles)

    def answer() -> np.ndarray:
        # Of the run above: the job is the same each time.
        maps = np.asarray(written[..., :_COMPARED, :, :], np.float32) / 255
        return maps[..., None] if maps.ndim == 3 else np.moveaxis(maps, 0, -1)

    def run() -> None:
        stack.segment(precision)

    way = local(
        f"our job, zarr to zarr, {precision}",
        precision,
        pixels_of(tiles),
        run,
        over=bare.name,
        against="slices, one range",
    )
    yield bare
    yield replace(way, answer=answer)


def _right_answers(stack: StackSubject) -> Iterator[Way]:
    """The first slices by our network, whole, normalised in the two ways; they are not timed."""
    images = zarr.open_array(stack.folder / "input.zarr", mode="r")
    given = stack.subject.model.spec.normalization
    one = survey(Stack(images, "ZYX"), given.lower, given.upper).range
    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "slices, one range": lambda image: _applied(one, image),
        "slices, each its range": lambda image: _normalized_by_hand(image, given.lower, given.upper),
    }
    for name, normalize in kinds.items():

        def answer(normalize: Callable[[np.ndarray], np.ndarray] = normalize) -> np.ndarray:
            forward = stack.subject.model.probabilities
            return np.stack([forward(normalize(image))[0] for image in images[:_COMPARED]])

        yield local(name, "float32", 0, answer, against=name, shown=False, over="")


def _applied(one: Range, image: np.ndarray) -> np.ndarray:
    return one.apply(image[..., None])[None]


def _normalized_by_hand(image: np.ndarray, lower: float, upper: float) -> np.ndarray:
    low, high = np.percentile(image, (lower, upper))
    return ((image.astype(np.float32) - low) / (high - low)).astype(np.float32)[None, ..., None]
