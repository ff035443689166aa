"""Small networks with random weights, noise, and both ways to segment it: ours, and one pass of Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from napari_unet.config import PredictConfig, UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.normalize import survey
from napari_unet.nn import backend
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import build_unet
from napari_unet.nn.outputs import output_layout
from napari_unet.nn.prediction import segment
from napari_unet.spec import ClassInfo, ModelSpec

FLOAT = PredictConfig(probability_type="float32", precision="float32", tile_megapixels=64)


def random_model(seed: int = 0, **changes: Any) -> UNetModel:
    """A network with random weights and biases, whose answer varies over the image."""
    backend.prepare("float32", seed)
    config = UNetConfig(**{"filters": 2, "depth": 2, **changes})
    classes = tuple(ClassInfo(value=value) for value in [0, *range(3, 3 + config.classes - 1)])
    network = build_unet(config)
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if len(variable.shape) == 1:
            positive = variable.name in ("gamma", "moving_variance")
            values = rng.uniform(0.8, 1.2, variable.shape) if positive else rng.normal(0, 0.2, variable.shape)
            variable.assign(values)
    return UNetModel(ModelSpec(network=config, classes=classes), network)


def whole(model: UNetModel, stack: Stack, n: int = 0) -> np.ndarray:
    """Probabilities (Y, X, L) of a slice, computed in one pass by Keras."""
    stride = model.spec.network.stride
    pixels = survey(stack).range.apply(stack.read(n))
    pads = [(0, -size % stride) for size in pixels.shape[:2]]
    for axis, pad in enumerate(pads):
        # reflect cannot pad further than the image is wide; numpy repeats it then, as the tiles do
        wide = [(0, 0)] * 3
        wide[axis] = pad
        pixels = np.pad(pixels, wide, mode="reflect" if pixels.shape[axis] > 1 else "edge")
    logits = model.network(pixels[None], training=False)
    head = keras.ops.sigmoid if logits.shape[-1] == 1 else keras.ops.softmax
    return np.asarray(head(logits))[0, : stack.shape[1], : stack.shape[2]]


def image(shape: tuple[int, ...], axes: str, seed: int = 0) -> Stack:
    rng = np.random.default_rng(seed)
    return Stack(rng.integers(0, 60_000, shape).astype(np.uint16), axes, "noise")


def run(model: UNetModel, stack: Stack, config: PredictConfig = FLOAT, **options: Any) -> np.ndarray:
    kind = options.pop("kind", "probabilities")
    layout = output_layout(model.spec, stack, kind, config)
    result = np.zeros(layout.shape, layout.dtype)
    assert segment(model, stack, config, {kind: result}, **options) is False
    return result
