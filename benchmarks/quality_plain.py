"""The plain recipe: what the article's linked program does.

Flips, cross-entropy of the painted pixels, Adam at 1e-4, no weights, no schedule, the last weights,
threshold 0.5; objects are connected components. Images, brightness range, size of patches, tiles and time are those of
our recipe's default; so is the network, but for batch normalisation, which ours had when these runs began (plain-bare is without).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_cells import Cell
from quality_data import DataSet
from quality_trial import MARKS, Meter, Paint, marks_of, network_of, score_model

from napari_unet.config import UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, Example, prepare
from napari_unet.data.labels import IGNORE
from napari_unet.data.sampling import Batch
from napari_unet.spec import ModelSpec
from napari_unet.training_run import make_card

__all__ = ["BATCH", "PATCH", "PlainSampler", "run"]

PATCH, BATCH, RATE = 256, 2, 1e-4


def run(data: DataSet, paint: Paint, cell: Cell, folder: Path) -> dict[str, Any]:  # noqa: ARG001
    """Train and score; see `quality.one`."""
    from napari_unet.nn.model import UNetModel

    paint = paint.as_regions() if data.kind == "objects" else paint
    dataset, spec = _prepare(data, paint, network_of(cell))
    kept, result = _train(dataset, spec, cell)

    def scores(arrays: dict[str, npt.NDArray[np.float32]]) -> dict[str, float]:
        return score_model(UNetModel.from_arrays(spec, arrays), data, paint)

    return {"scores": scores(kept[-1][1]), "marks": marks_of(kept, scores), **result}


def _prepare(data: DataSet, paint: Paint, network: UNetConfig) -> tuple[Dataset, ModelSpec]:
    images = [Stack(picture.image, data.axes, picture.name) for picture in data.train]
    labels = [
        Stack(painted, "YX", picture.name) for painted, picture in zip(paint.labels, data.train, strict=True)
    ]
    dataset = prepare(images, labels, unpainted=paint.unpainted, background_value=paint.background_value)
    return dataset, make_card(dataset, network, images, name="plain")


def _train(dataset: Dataset, spec: ModelSpec, cell: Cell) -> tuple[list[tuple[float, Any]], dict[str, Any]]:
    """Train; return the weights at the marks and at the end, and what it took."""
    from napari_unet.nn import backend
    from napari_unet.nn.batches import Prefetcher
    from napari_unet.nn.model import read_weights
    from napari_unet.nn.network import build_unet

    backend.prepare("float32", cell.seed)
    network = build_unet(spec.network)
    _compile(network)
    due = list(MARKS)
    kept: list[tuple[float, Any]] = []
    meter, step, part = Meter(), 0, 0.0
    with Prefetcher(PlainSampler(dataset.examples, cell.seed)) as batches:
        while part < 1:
            images, targets, _ = batches.take()
            network.train_on_batch(images, targets[..., None])
            step += 1
            part = step / cell.steps if cell.steps else meter.seconds / (60 * cell.minutes)
            if due and part >= due[0]:
                kept.append((due.pop(0), read_weights(network)))
        use = {"steps_done": step, "train_seconds": round(meter.seconds, 1), **meter.read()}
    return [*kept, (1.0, read_weights(network))], use


def _compile(network: Any) -> None:
    import keras
    from keras import ops

    from napari_unet.nn import computing

    def cross_entropy(truth: Any, logits: Any) -> Any:
        target = ops.cast(truth[..., 0], "int32")
        painted = ops.cast(ops.not_equal(target, IGNORE), "float32")
        target = ops.where(ops.equal(target, IGNORE), 0, target)
        logits = ops.cast(logits, "float32")
        if logits.shape[-1] == 1:
            entropy = ops.binary_crossentropy(ops.cast(target, "float32"), logits[..., 0], from_logits=True)
        else:
            entropy = ops.sparse_categorical_crossentropy(target, logits, from_logits=True)
        return ops.sum(entropy * painted) / ops.maximum(ops.sum(painted), 1.0)

    network.compile(
        optimizer=keras.optimizers.Adam(RATE), loss=cross_entropy, jit_compile=computing.compile_ahead()
    )


class PlainSampler:
    """Draws patches anywhere in any image, flipped at random; each holds a painted pixel.

    Parameters
    ----------
    examples : sequence of Example
        What to train on; larger images are drawn more often.
    seed : int
        Batch n comes from ``default_rng([seed, n])``.
    """

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self._examples = [example for example in examples if (example.target != IGNORE).any()]
        sizes = np.array([example.target.size for example in self._examples], float)
        self._chance = sizes / sizes.sum()
        self._seed = seed

    def batch(self, n: int) -> Batch:
        """Draw batch n: images, targets, and weights of 1."""
        rng = np.random.default_rng([self._seed, n])
        patches = [self._patch(rng) for _ in range(BATCH)]
        targets = np.stack([target for _, target in patches])
        return np.stack([image for image, _ in patches]), targets, np.ones(targets.shape, np.float32)

    def _patch(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        while True:
            example = self._examples[int(rng.choice(len(self._examples), p=self._chance))]
            image, target = _padded(example.image, example.target)
            y, x = (int(rng.integers(size - PATCH + 1)) for size in target.shape)
            window = slice(y, y + PATCH), slice(x, x + PATCH)
            if (target[window] != IGNORE).any():
                break
        ways = slice(None, None, int(rng.choice((-1, 1)))), slice(None, None, int(rng.choice((-1, 1))))
        return image[window][ways], target[window][ways]


def _padded(
    image: npt.NDArray[np.float32], target: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Reflect an image that is smaller than a patch, without labels in what is added."""
    missing = [(0, max(0, PATCH - size)) for size in target.shape]
    if not any(after for _, after in missing):
        return image, target
    return (
        np.pad(image, (*missing, (0, 0)), mode="reflect"),
        np.pad(target, missing, constant_values=IGNORE),
    )
