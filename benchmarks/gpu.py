"""Segmenting on a GPU: our engine on Keras with JAX, MONAI on torch on the same card, and the card's matrix peak.

    python benchmarks/gpu.py [--size 4096] [--filters 64] [--rounds 5] [--model FILE.unet]
    python benchmarks/gpu.py --cpu --size 256 --filters 4     # checks the script where there is no GPU

All in bfloat16, interleaved, medians. The device rate is that of the network alone on pixels that lie on the card: ours on a tile
that our engine reads, torch's on a batch of MONAI's windows. End to end, ours goes from the image as it is to bytes
of probability in memory, and MONAI from normalised pixels to float32. Torch computes in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from inference_peers import TorchPeers
    from inference_ways import Subject

    from napari_unet.config import UNetConfig
    from napari_unet.nn.model import UNetModel

_REPEATS = 10
_OVERLAPS = (0.25, 0.5)


class Part(NamedTuple):
    """Something timed: pixels that a run computes and puts out, and how to run it, for its seconds."""

    computed: int
    output: int
    run: Callable[[], float]


def main() -> None:
    """Run the benchmark and print its table."""
    options = _options()
    _choose_jax(options.cpu)
    # Only now: Keras asks for its backend when it is loaded.
    import jax
    from inference_measure import multiply_adds
    from inference_peers import TorchPeers, why_no_torch
    from inference_ways import Subject

    from napari_unet.data.synthetic import cells
    from napari_unet.nn import backend

    backend.prepare("float32", seed=0)
    model = _model(options)
    image, _, _ = cells((options.size, options.size), seed=0)
    subject = Subject(model, image)
    with ExitStack() as opened:
        parts = _ours(subject)
        reason = why_no_torch(model.spec.network)
        if reason:
            print(reason)
        else:
            device = "cpu" if options.cpu else "cuda"
            peers = opened.enter_context(TorchPeers(subject, options.roi, options.batch, device))
            with jax.default_matmul_precision("highest"):  # by default, a GPU rounds float32 products
                difference = peers.check()
            print(f"The network in torch is that in Keras: logits differ by {difference:.1e}, relative.")
            parts |= _torch(peers, subject)
        peak, seconds = _measure(parts, options.rounds, 512 if options.cpu else 8192)
    print(
        f"\n{backend.device_name()}, {options.size} x {options.size}, {model.spec.network.filters} filters, bfloat16"
    )
    _print(parts, seconds, peak, multiply_adds(model.network))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096, help="side of the image, in pixels")
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a trained model instead of random weights")
    parser.add_argument("--roi", type=int, default=512, help="side of MONAI's windows")
    parser.add_argument("--batch", type=int, default=4, help="MONAI's windows in a batch")
    parser.add_argument("--cpu", action="store_true", help="run on the processor, to check the script")
    return parser.parse_args()


def _choose_jax(cpu: bool) -> None:
    """Load JAX as Keras's backend, or say why not."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs memory of the same card
    if cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    if importlib.util.find_spec("jax") is None:
        raise SystemExit('JAX is not installed: install it with python -m pip install "jax[cuda12]".')
    import jax

    if not cpu and all(device.platform == "cpu" for device in jax.devices()):
        raise SystemExit(
            "JAX finds no GPU here: run this where there is one, or check the script with --cpu --size 256."
        )


def _model(options: argparse.Namespace) -> UNetModel:
    from napari_unet import api
    from napari_unet.config import UNetConfig
    from napari_unet.nn.model import UNetModel
    from napari_unet.nn.network import build_unet
    from napari_unet.spec import ModelSpec

    if options.model is not None:
        return api.load_model(options.model)
    shape: UNetConfig = UNetConfig(filters=options.filters)
    return UNetModel(ModelSpec(network=shape), build_unet(shape))


def _ours(subject: Subject) -> dict[str, Part]:
    """Our network on a tile that lies on the device, the same with its way there and back, and our engine."""
    from inference_ways import pixels_of, tiles_of_segment

    from napari_unet.data.axes import Stack
    from napari_unet.nn.prediction import segment

    model = subject.model.in_precision("bfloat16")
    tiles = tiles_of_segment(subject, model, "bfloat16")
    largest = max(tiles, key=lambda tile: pixels_of([tile]))
    pixels = np.ascontiguousarray(subject.pixels[:, *largest.read])
    stack, config = Stack(subject.image, "YX"), subject.config("bfloat16")
    logits = model.spec.network.logits
    shape = subject.image.shape if logits == 1 else (logits, *subject.image.shape)

    def whole() -> None:
        segment(model, stack, config, {"probabilities": np.zeros(shape, np.uint8)})

    one = pixels_of([largest])
    return {
        "ours: network, original, on the device": Part(one, one, _on_device(model.network, pixels)),
        "ours: network, rewritten, on the device": Part(one, one, _on_device(_rewritten(model), pixels)),
        "ours: the same from and to main memory": Part(one, one, lambda: _spent(lambda: model.probabilities(pixels))),
        "ours: end to end": Part(pixels_of(tiles), subject.image.size, lambda: _spent(whole)),
    }  # fmt: skip


def _rewritten(model: UNetModel) -> Any:
    from napari_unet.nn.rewrite import for_prediction

    return for_prediction(model.network)


def _on_device(network: Any, pixels: np.ndarray) -> Callable[[], float]:
    """Make a measurement of a network alone: seconds a pass, of several that queue up."""
    import jax

    function = jax.jit(
        lambda weights, others, x: network.stateless_call(weights, others, x, training=False)[0]
    )
    weights = [variable.value for variable in network.trainable_variables]
    others = [variable.value for variable in network.non_trainable_variables]
    there = jax.device_put(pixels)

    def run() -> float:
        def passes() -> None:
            for _ in range(_REPEATS):
                result = function(weights, others, there)
            result.block_until_ready()

        return _spent(passes) / _REPEATS

    return run


def _torch(peers: TorchPeers, subject: Subject) -> dict[str, Part]:
    pixels = peers.ask("bare", precision="bfloat16")["pixels"]
    parts = {
        "torch: network on the device": Part(
            pixels, pixels, lambda: peers.ask("bare", precision="bfloat16")["seconds"]
        )
    }
    for overlap in _OVERLAPS:
        request: dict[str, Any] = {"overlap": overlap, "precision": "bfloat16"}
        computed = peers.ask("count", overlap=overlap)["computed"]
        parts[f"torch: MONAI {peers.roi}, overlap {overlap}, end to end"] = Part(
            computed, subject.image.size, lambda request=request: peers.ask("run", **request)["seconds"]
        )
    return parts


def _measure(parts: dict[str, Part], rounds: int, side: int) -> tuple[float, dict[str, float]]:
    """Run all in turn; the matrix peak in operations per second, and medians in seconds."""
    multiply = _matrix_product(side)
    for work in (multiply, *(part.run for part in parts.values())):
        work()  # compiles
    peak, seconds = 0.0, {name: [] for name in parts}
    for _ in range(rounds):
        peak = max(peak, 2 * side**3 / multiply())
        for name, part in parts.items():
            seconds[name].append(part.run())
    return peak, {name: statistics.median(times) for name, times in seconds.items()}


def _matrix_product(side: int) -> Callable[[], float]:
    """Make a measurement of a product of two square matrices in bfloat16: seconds."""
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    multiply = jax.jit(jnp.matmul)

    def run() -> float:
        def products() -> None:
            for _ in range(_REPEATS):
                result = multiply(matrix, matrix)
            result.block_until_ready()

        return _spent(products) / _REPEATS

    return run


def _spent(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _print(parts: dict[str, Part], seconds: dict[str, float], peak: float, work: float) -> None:
    print(f"matrix peak: {peak / 1e12:.3g} TFLOP/s, or {peak / 2e6 / work:.4g} Mpixel/s of this network\n")
    print(f"{'':48}{'ms':>10}{'Mpixel/s':>10}{'computed':>10}{'of peak':>10}")
    for name, part in parts.items():
        spent = seconds[name]
        share = 2 * work * part.computed / spent / peak
        print(
            f"{name:48}{1e3 * spent:10.2f}{part.output / spent / 1e6:10.3g}"
            f"{part.computed / part.output:10.2f}{share:10.1%}"
        )


if __name__ == "__main__":
    main()
