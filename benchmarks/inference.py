"""Segmenting one image: our tiles against `model.predict` and against a pass over the whole image.

"Rewritten" is the network as we predict with it (`napari_unet.nn.rewrite`), so the rows above and below it show the
engine's and the tiler's share apart.

python benchmarks/inference.py [--size 2048] [--filters 16] [--rounds 5] [--normalization batch] [--upsampling transposed]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from napari_unet.config import PredictConfig, UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.normalize import survey
from napari_unet.data.synthetic import cells
from napari_unet.nn import backend
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import build_unet
from napari_unet.nn.prediction import segment
from napari_unet.spec import ModelSpec


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--normalization", default="none")
    parser.add_argument("--upsampling", default="nearest")
    options = parser.parse_args()

    backend.prepare("float32", seed=0)
    shape = UNetConfig(
        filters=options.filters, normalization=options.normalization, upsampling=options.upsampling
    )
    spec = ModelSpec(network=shape)
    network = build_unet(spec.network)
    model = UNetModel(spec, network)
    image, _, _ = cells((options.size, options.size), seed=0)
    stack = Stack(image, "YX")
    whole = backend.traced(network)
    pixels = survey(stack).range.apply(image[..., None])[None]

    def tiled() -> np.ndarray:
        result = np.zeros(image.shape, np.float32)
        segment(model, stack, PredictConfig(probability_type="float32"), {"probabilities": result})
        return result

    def sigmoid(logits: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-logits[0, ..., 0]))

    ways: dict[str, Callable[[], np.ndarray]] = {
        "whole image, traced": lambda: sigmoid(whole(pixels)),
        "whole image, traced, rewritten": lambda: model.probabilities(pixels)[0, ..., 0],
        "whole image, model.predict": lambda: sigmoid(network.predict(pixels, verbose=0)),
        "ours: tiles, survey and normalisation included": tiled,
    }
    results = {name: way() for name, way in ways.items()}  # traces, and keeps the answers
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    bare = medians["whole image, traced"]
    reference = results["whole image, traced"]
    print(
        f"{options.size} x {options.size}, {options.filters} filters, float32, median of {options.rounds}\n"
    )
    print(f"{'way':48} {'seconds':>8} {'Mpixel/s':>9} {'over whole':>10} {'largest difference':>19}")
    for name, median in medians.items():
        difference = float(np.abs(results[name] - reference).max())
        rate = image.size / median / 1e6
        print(f"{name:48} {median:8.2f} {rate:9.2f} {median / bare:10.2f} {difference:19.1e}")


if __name__ == "__main__":
    main()
