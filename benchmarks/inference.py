"""Segmenting one image or a stack: our engine, its parts, and others.

    python benchmarks/inference.py [--size 2048] [--filters 16] [--rounds 5] [--model FILE.unet] [--bfloat16]
    python benchmarks/inference.py --stack 30x512 [--filters 16] [--rounds 5]

"Rewritten" is the network as we predict with it (`napari_unet.nn.rewrite`). Ours reads the image as it is, surveys its brightness,
normalises, and writes float32. The others are given normalised pixels and only compute: whole or tiled `model.predict`, tiles as
CSBDeep and StarDist have them, and MONAI's sliding window on torch, which runs in a process of its own and takes turns with this
one.

Everything is interleaved and the tables show medians. "Over bare" divides by the time of the traced network alone on the same reads: our
rewritten one for ours, the original for others (one read of each shape stands for the rest, except for ours). "Of peak" is nominal
work of the original network on the computed pixels over that of the fastest 3x3 convolution measured in this run in the same precision; a
rewritten network does less, so it may pass 100 %. Differences are from one pass of the rewritten float32 network over the whole image. Memory is above
the process at the start of each way.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from inference_measure import ConvolutionPeak, Precision, Way, multiply_adds
from inference_peers import TorchPeers, monai_ways, why_no_torch
from inference_stack import StackSubject, make_stack, stack_ways
from inference_table import Results, print_shares, print_ways
from inference_ways import Subject, image_ways

from napari_unet import api
from napari_unet.config import UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.nn import backend
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import build_unet
from napari_unet.processor import has_bfloat16
from napari_unet.spec import ModelSpec


def main() -> None:
    """Run the benchmark and print its tables."""
    options = _options()
    backend.prepare("float32", seed=0)
    model = _model(options)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if options.bfloat16 else ("float32",)
    with ExitStack() as opened:
        if options.stack:
            ways, pixels = _stack_workload(options, model, precisions, opened)
        else:
            ways, pixels = _image_workload(options, model, precisions, opened)
        ways = _chosen(ways, options.only)
        peaks = {precision: ConvolutionPeak(precision) for precision in precisions}
        results = _measure(ways, peaks, options.rounds)
    shape = model.spec.network
    print(f"\n{shape.filters} filters, depth {shape.depth}, {_weights(options)}, median of {options.rounds}")
    work = multiply_adds(model.network)
    speeds = {precision: peak.best for precision, peak in peaks.items()}
    for precision, speed in speeds.items():
        print(
            f"convolution peak, {precision}: {speed / 1e9:.0f} GFLOP/s, or {speed / 2e6 / work:.3f} Mpixel/s"
        )
    print()
    print_ways(ways, results, pixels, work, speeds)
    if not options.stack:
        print_shares(results, precisions)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2048, help="side of the image, in pixels")
    parser.add_argument(
        "--stack", type=_stack_shape, help="slices x side, such as 30x512, instead of one image"
    )
    parser.add_argument(
        "--model", type=Path, help="a trained model; random weights differ less or more than real ones"
    )
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--normalization", default="none")
    parser.add_argument("--upsampling", default="nearest")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=has_bfloat16())
    parser.add_argument("--tile-megapixels", type=float, help="our largest tile; by default the engine's own")
    parser.add_argument("--roi", type=int, default=512, help="side of MONAI's windows")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="ways whose names hold one of these"
    )
    return parser.parse_args()


def _stack_shape(text: str) -> tuple[int, int]:
    count, size = text.split("x")
    return int(count), int(size)


def _model(options: argparse.Namespace) -> UNetModel:
    if options.model is None:
        shape = UNetConfig(
            filters=options.filters, normalization=options.normalization, upsampling=options.upsampling
        )
        spec = ModelSpec(network=shape)
        return UNetModel(spec, build_unet(spec.network))
    model = api.load_model(options.model)
    if model.spec.network.channels != 1:
        raise SystemExit(
            f"{options.model} reads {model.spec.network.channels} channels: give a model that reads one."
        )
    return model


def _weights(options: argparse.Namespace) -> str:
    if options.model is None:
        return "random weights (seed 0, so differences say little of a trained network)"
    return f"weights of {options.model.name}"


def _image_workload(
    options: argparse.Namespace, model: UNetModel, precisions: Sequence[Precision], opened: ExitStack
) -> tuple[list[Way], int]:
    image, _, _ = cells((options.size, options.size), seed=0)
    subject = Subject(model, image, options.tile_megapixels)
    print(f"{options.size} x {options.size} pixels, {image.dtype}")
    if not subject.fits:
        print(
            "A pass over the whole image does not fit the memory: differences are from our tiles in float32."
        )
    ways = image_ways(subject, precisions)
    reason = why_no_torch(model.spec.network)
    if reason:
        print(reason)
        return ways, image.size
    peers = opened.enter_context(TorchPeers(subject, options.roi))
    print(
        f"The network in torch is that in Keras: logits of a corner differ by {peers.check():.1e}, relative."
    )
    return [*ways, *monai_ways(peers, subject, precisions, ways[1].against)], image.size


def _stack_workload(
    options: argparse.Namespace, model: UNetModel, precisions: Sequence[Precision], opened: ExitStack
) -> tuple[list[Way], int]:
    count, size = options.stack
    if size % model.spec.network.stride:
        raise SystemExit(
            f"Slices of {size} pixels are no multiple of {model.spec.network.stride}: by hand needs that."
        )
    print(f"{count} x {size} x {size} pixels, uint16, zarr")
    folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
    make_stack(folder / "input.zarr", count, size)
    api.save_model(model, folder / "model.unet")
    subject = Subject(model, cells((size, size), seed=0)[0], options.tile_megapixels)
    return stack_ways(StackSubject(folder, subject), precisions), count * size**2


def _chosen(ways: list[Way], words: Sequence[str]) -> list[Way]:
    """Keep the ways asked for, and what they are compared with."""
    if not words:
        return ways
    asked = [way for way in ways if way.shown and any(word in way.name for word in words)]
    needed = {name for way in asked for name in (way.name, way.over, way.against)}
    return [way for way in ways if way.name in needed]


def _measure(ways: Sequence[Way], peaks: dict[Precision, ConvolutionPeak], rounds: int) -> Results:
    """Run each way once for its answer, then all in turn."""
    results = Results()
    right: dict[str, Any] = {way.against: None for way in ways if way.against}
    for way in sorted(ways, key=lambda way: way.name not in right):  # the right answers first
        answer = way.answer()
        if way.name in right:
            right[way.name] = answer
        if way.against:
            results.compare(way, np.asarray(answer), right[way.against])
        del answer
        gc.collect()
    right.clear()
    for _ in range(rounds):
        for peak in peaks.values():
            peak.measure()
        for way in ways:
            if way.over:
                run = way.run()
                results.add(way, run.seconds, run.peak)
    return results


if __name__ == "__main__":
    main()
