"""Peak memory of prediction: per computed pixel of a tile, and over the slices of a stack.

    python benchmarks/memory.py [--filters 4 16 32 64] [--tiles 512 1024 2048] [--slices 10 100] [--only tiles slices]

Above a warm process (one that has segmented something small), each case in a fresh one. The first table is beside what the engine
counts with when it chooses its tiles: a ratio above 1 means that it takes more than it was allowed. The second says whether memory
grows with the length of a stack, from zarr to zarr; it should not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
from inference_measure import Precision, measured

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
_WARM = 64  # side of the image that warms up
_MEMORY = 0.6  # of what is available, for one case


def main() -> None:
    """Print the tables; or, as a child, measure one case and print its bytes."""
    options = _options()
    match options.case:
        case ["tile", precision, filters, side]:
            print(_tile(precision, int(filters), int(side)))
        case ["slices", count, side, filters]:
            print(_slices(int(count), int(side), int(filters)))
        case _:
            if "tiles" in options.only:
                _print_tiles(options)
            if "slices" in options.only:
                _print_slices(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--filters", type=int, nargs="+", default=[4, 16, 32, 64])
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 1024, 2048], help="sides, in pixels")
    parser.add_argument("--slices", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--slice-size", type=int, default=512, help="side of a slice, in pixels")
    parser.add_argument("--slice-filters", type=int, default=4)
    parser.add_argument(
        "--only", nargs="+", choices=("tiles", "slices"), default=["tiles", "slices"], help="tables to print"
    )
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def _print_tiles(options: argparse.Namespace) -> None:
    print(f"{'precision':10}{'filters':>8}{'tile':>7}{'MB':>9}{'bytes/pixel':>13}{'counted':>9}{'ratio':>7}")
    for precision in _PRECISIONS:
        for filters in options.filters:
            counted = _counted(precision, filters)
            for side in options.tiles:
                row = f"{precision:10}{filters:8}{side:7}"
                if counted * side**2 > _MEMORY * psutil.virtual_memory().available:
                    print(f"{row}  left out: it may not fit the memory")
                    continue
                peak = _in_child("tile", precision, filters, side)
                pixel = peak / side**2
                print(
                    f"{row}{peak / 1e6:9.0f}{pixel:13.0f}{counted:9.0f}{pixel / counted:7.2f}",
                    flush=True,
                )


def _print_slices(options: argparse.Namespace) -> None:
    side, filters = options.slice_size, options.slice_filters
    print(f"\n{'slices':>6} of {side}², {filters} filters, zarr to zarr: MB")
    for count in options.slices:
        print(f"{count:6}{_in_child('slices', count, side, filters) / 1e6:33.0f}", flush=True)


def _counted(precision: Precision, filters: int) -> float:
    """Bytes per pixel that the engine counts with."""
    from napari_unet.config import UNetConfig
    from napari_unet.nn.plan import bytes_per_pixel
    from napari_unet.spec import ModelSpec

    return bytes_per_pixel(ModelSpec(network=UNetConfig(filters=filters)), precision)


def _in_child(*case: object) -> int:
    command = [sys.executable, __file__, "--case", *map(str, case)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def _tile(precision: Precision, filters: int, side: int) -> int:
    """Peak bytes of one pass over a tile."""
    from napari_unet.config import UNetConfig
    from napari_unet.nn import backend
    from napari_unet.nn.model import UNetModel
    from napari_unet.nn.network import build_unet
    from napari_unet.spec import ModelSpec

    backend.prepare(precision, seed=0)
    shape = UNetConfig(filters=filters)
    forward = UNetModel(ModelSpec(network=shape), build_unet(shape)).probabilities
    pixels = np.random.default_rng(0).random((1, side, side, 1), np.float32)
    forward(pixels[:, :_WARM, :_WARM])
    return measured(lambda: forward(pixels)).peak


def _slices(count: int, side: int, filters: int) -> int:
    """Peak bytes of segmenting a stack, from zarr to zarr."""
    from inference_stack import StackSubject, make_stack
    from inference_ways import Subject

    from napari_unet import api
    from napari_unet.config import UNetConfig
    from napari_unet.nn import backend
    from napari_unet.nn.model import UNetModel
    from napari_unet.nn.network import build_unet
    from napari_unet.spec import ModelSpec

    backend.prepare("float32", seed=0)
    shape = UNetConfig(filters=filters)
    model = UNetModel(ModelSpec(network=shape), build_unet(shape))
    with tempfile.TemporaryDirectory() as folder:
        stacks = []
        for name, slices, size in (("warm", 2, _WARM), ("long", count, side)):
            place = Path(folder, name)
            place.mkdir()
            make_stack(place / "input.zarr", slices, size)
            api.save_model(model, place / "model.unet")
            stacks.append(StackSubject(place, Subject(model, np.zeros((size, size), np.uint16))))
        warm, long = stacks
        warm.segment("float32")
        return measured(lambda: long.segment("float32")).peak


if __name__ == "__main__":
    main()
