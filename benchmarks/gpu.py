"""Segmenting on a GPU: our engine on Keras with JAX, MONAI on torch on the same card, and the card's matrix peak.

    python benchmarks/gpu.py [--size 4096] [--slices 8] [--filters 64] [--rounds 5] [--model FILE.unet]
    python benchmarks/gpu.py --cpu --size 512 --filters 4     # checks the script where there is no GPU

All in bfloat16, medians. The device rate is that of the network alone on pixels that lie on the card: ours on a tile
that our engine reads, torch's on a batch of MONAI's windows. End to end, ours goes from the image as it is, its percentiles included, to
bytes of probability in memory, and MONAI from normalised pixels to float32. Our engine uses the rewritten network.
Torch computes in a process of its own, after ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import numpy as np

if TYPE_CHECKING:
    from inference_peers import TorchPeers
    from inference_ways import Subject

    from napari_unet.config import UNetConfig
    from napari_unet.nn.model import UNetModel

_REPEATS = 5
_OVERLAPS = (0.25, 0.5)
_PATTERN = 512
"""Side of the synthetic cells that the image is made of, in pixels: making all of it anew would take minutes."""


class Part(NamedTuple):
    """Something timed.

    Parameters
    ----------
    computed : int
        Pixels that go through the network in a run.
    output : int
        Pixels of the result.
    run : callable
        Runs it, and returns seconds.
    device : str
        Name of the part that is its network alone on the device.
    """

    computed: int
    output: int
    run: Callable[[], float]
    device: str


Parts = dict[str, Part]


def main() -> None:
    """Run the benchmark and print its tables."""
    options = _options()
    _choose_jax(options.cpu)
    # Only now: Keras asks for its backend when it is loaded.
    from inference_measure import multiply_adds
    from inference_ways import Subject

    from napari_unet.nn import backend

    with ExitStack() as opened:
        if options.cpu:
            # So that tiles fly here as they do there.
            stand_in = mock.patch.object(
                backend, "device_name", return_value="GPU: none, the processor instead"
            )
            opened.enter_context(stand_in)
        backend.prepare("float32", seed=0)
        model = _model(options)
        subject = Subject(model, _image(options.size))
        work = multiply_adds(model.network)
        _say(
            f"{backend.device_name()}, {options.size} x {options.size}, {model.spec.network.filters} filters, bfloat16"
        )
        peak = _peak(512 if options.cpu else 8192)
        _say(f"matrix peak: {peak / 1e12:.3g} TFLOP/s, or {peak / 2e6 / work:.4g} Mpixel/s of this network")
        _measure_ours(subject, options, peak, work)
        _measure_torch(subject, options, peak, work)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096, help="side of the image, in pixels")
    parser.add_argument("--slices", type=int, default=8, help="of the stack")
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
            "JAX finds no GPU here: run this where there is one, or check the script with --cpu --size 512."
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


def _image(side: int) -> np.ndarray:
    """Make an image of bytes, (Y, X)."""
    from napari_unet.data.synthetic import cells

    pattern, _, _ = cells((_PATTERN, _PATTERN), seed=0)
    low, high = np.percentile(pattern, (0.1, 99.9))
    shades = np.clip((pattern - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    times = -(-side // _PATTERN)
    return np.tile(shades, (times, times))[:side, :side].copy()


def _measure_ours(subject: Subject, options: argparse.Namespace, peak: float, work: float) -> None:
    networks = _networks(subject)
    _warm(networks)
    wholes = _wholes(subject, options.slices, list(networks)[-1])
    _warm(wholes)
    parts = networks | wholes
    _print(parts, _medians(parts, options.rounds), peak, work)
    for name, part in wholes.items():
        _print_times(name, part)


def _measure_torch(subject: Subject, options: argparse.Namespace, peak: float, work: float) -> None:
    import jax
    from inference_peers import TorchPeers, why_no_torch

    reason = why_no_torch(subject.model.spec.network)
    if reason:
        _say(reason)
        return
    with TorchPeers(subject, options.roi, options.batch, "cpu" if options.cpu else "cuda") as peers:
        try:
            with jax.default_matmul_precision("highest"):  # by default, a GPU rounds float32 products
                difference = peers.check()
            _say(f"The network in torch is that in Keras: logits differ by {difference:.1e}, relative.")
        except SystemExit as error:
            _say(f"{error}")  # its times are of use all the same
        parts = _warm(_torch(peers, subject, options.slices))
        _print(parts, _medians(parts, options.rounds), peak, work)


def _networks(subject: Subject) -> Parts:
    """Our network on a tile that lies on the device: the original, then the rewritten."""
    from inference_ways import pixels_of

    from napari_unet.nn.rewrite import for_prediction

    model = subject.model.in_precision("bfloat16")
    largest = max(_tiles(subject), key=lambda tile: pixels_of([tile]))
    pixels = np.ascontiguousarray(subject.pixels[:, *largest.read])
    one = pixels_of([largest])
    networks = {"original": model.network, "rewritten": for_prediction(model.network)}
    names = {kind: f"ours: {kind} network on the device" for kind in networks}
    return {
        names[kind]: Part(one, one, _on_device(network, pixels), names[kind])
        for kind, network in networks.items()
    }


def _tiles(subject: Subject) -> list[Any]:
    """List the tiles of a slice, as our engine cuts it."""
    from napari_unet.data.axes import Stack
    from napari_unet.nn.prediction import make_plan

    model, config = subject.model.in_precision("bfloat16"), subject.config("bfloat16")
    plan = make_plan(model, Stack(subject.image, "YX"), config, ("probabilities",))
    return [part for tile in plan.tiles for part in plan.tiles_of(tile)]


def _wholes(subject: Subject, slices: int, device: str) -> Parts:
    """Our engine, from an image and from a stack to bytes of probability."""
    from inference_ways import pixels_of

    from napari_unet.data.axes import Stack
    from napari_unet.nn.prediction import segment

    tiles = _tiles(subject)
    shapes = {tuple(side.stop - side.start for side in tile.read) for tile in tiles}
    _say(f"{len(tiles)} tiles a slice, of {len(shapes)} shape(s): {sorted(shapes)}")
    model, config = subject.model.in_precision("bfloat16"), subject.config("bfloat16")
    logits = model.spec.network.logits
    volume = np.stack([np.roll(subject.image, 7 * n, 0) for n in range(slices)])

    def segmented(stack: Stack) -> Callable[[], float]:
        shape = stack.out_shape if logits == 1 else (logits, *stack.out_shape)
        result = np.zeros(shape, np.uint8)
        return lambda: _spent(lambda: segment(model, stack, config, {"probabilities": result}))

    computed, output = pixels_of(tiles), subject.image.size
    return {
        "ours: one image, end to end": Part(computed, output, segmented(Stack(subject.image, "YX")), device),
        f"ours: {slices} slices, end to end": Part(
            slices * computed, slices * output, segmented(Stack(volume, "ZYX")), device
        ),
    }


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


def _torch(peers: TorchPeers, subject: Subject, slices: int) -> Parts:
    device = "MONAI: network on the device"
    pixels = peers.ask("bare", precision="bfloat16")["pixels"]
    parts = {device: Part(pixels, pixels, lambda: peers.ask("bare", precision="bfloat16")["seconds"], device)}
    for overlap in _OVERLAPS:
        computed = peers.ask("count", overlap=overlap)["computed"]

        def image(overlap: float = overlap) -> float:
            return float(peers.ask("run", overlap=overlap, precision="bfloat16")["seconds"])

        name = f"MONAI: {peers.roi}, overlap {overlap}"
        parts[f"{name}, one image, end to end"] = Part(computed, subject.image.size, image, device)
        if overlap == min(_OVERLAPS):  # it takes slices one by one, so the other one tells nothing new

            def stack(image: Callable[[], float] = image) -> float:
                return sum(image() for _ in range(slices))

            total = slices * subject.image.size
            parts[f"{name}, {slices} slices, end to end"] = Part(slices * computed, total, stack, device)
    return parts


def _warm(parts: Parts) -> Parts:
    """Run each part once, which compiles it; say how long that took."""
    for name, part in parts.items():
        _say(f"{name}: {_spent(part.run):.1f} s the first time")
    return parts


def _medians(parts: Parts, rounds: int) -> dict[str, float]:
    """Run all in turn; medians in seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            seconds[name].append(part.run())
    return {name: statistics.median(times) for name, times in seconds.items()}


def _peak(side: int) -> float:
    """Measure the product of two square matrices in bfloat16: operations per second."""
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    multiply = jax.jit(jnp.matmul)

    def products() -> None:
        for _ in range(_REPEATS):
            result = multiply(matrix, matrix)
        result.block_until_ready()

    products()
    return max(2 * side**3 * _REPEATS / _spent(products) for _ in range(5))


def _spent(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _print(parts: Parts, seconds: dict[str, float], peak: float, work: float) -> None:
    """Print a row a part; "of device" is the rate of the result over that of the network alone."""
    rates = {name: part.output / seconds[name] for name, part in parts.items()}
    _say(f"\n{'':48}{'ms':>10}{'Mpixel/s':>10}{'computed':>10}{'of peak':>10}{'of device':>10}")
    for name, part in parts.items():
        share = 2 * work * part.computed / seconds[name] / peak
        _say(
            f"{name:48}{1e3 * seconds[name]:10.2f}{rates[name] / 1e6:10.4g}{part.computed / part.output:10.2f}"
            f"{share:10.1%}{rates[name] / rates[part.device]:10.1%}"
        )
    _say("")


def _print_times(name: str, part: Part) -> None:
    """Print where the time of our engine goes, of one more run."""
    with _clocks() as times:
        total = part.run()
    beside = ("reading", "fetching", "writing")
    rest = total - sum(spent for step, spent in times.items() if step not in beside)
    steps = ", ".join(f"{step} {1e3 * spent:.1f}" for step, spent in times.items() if step not in beside)
    threads = ", ".join(f"{step} {1e3 * times[step]:.1f}" for step in beside)
    _say(f"{name}, ms: {steps}, rest {1e3 * rest:.1f}; in threads beside: {threads}")


@contextmanager
def _clocks() -> Iterator[Counter[str]]:
    """Time the steps of a segmentation within this context, in seconds."""
    from napari_unet.nn import inputs, pipeline, prediction
    from napari_unet.nn.engine import Engine
    from napari_unet.nn.outputs import Writer

    times: Counter[str] = Counter()

    def timed(step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*args, **options)
            finally:
                times[step] += time.perf_counter() - start

        return clocked

    begin = timed("upload and dispatch", Engine.begin)

    def begun(*args: Any) -> Callable[[], Any]:
        return timed("fetching", begin(*args))

    with ExitStack() as patched:
        for owner, name, instead in (
            (prediction, "make_plan", timed("plan", prediction.make_plan)),
            (inputs, "survey", timed("survey", inputs.survey)),
            (Engine, "begin", begun),
            (pipeline._Computing, "wait", timed("waiting for answers", pipeline._Computing.wait)),
            (pipeline, "read_tile", timed("reading", pipeline.read_tile)),
            (Writer, "__call__", timed("writing", Writer.__call__)),
        ):
            patched.enter_context(mock.patch.object(owner, name, instead))
        yield times


def _say(sentence: str) -> None:
    """Print at once: who rents a GPU sees how far it is."""
    print(sentence, flush=True)


if __name__ == "__main__":
    main()
