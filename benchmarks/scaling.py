"""One segmentation with one and with two Dask workers, and what that says of many.

    python benchmarks/scaling.py [--filters 16] [--size 2048] [--slices 8] [--rounds 5] [--slices-meant 1000] [--size-meant 4096]

Each worker is a process with one thread of TensorFlow, whatever the number of workers; image and result are zarr.
The rounds are interleaved, the figures medians. Beside them stands the network alone, on tiles in memory, in the same workers: how much faster two
cores are when they share memory and clock. Then what a piece, a chunk, a task and a megapixel cost is measured, part by
part, and plain arithmetic says what a large stack would take with up to 1,000 workers; its assumptions are printed with it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from distributed import Client, LocalCluster

from napari_unet import (
    ArraySource,
    Output,
    PredictConfig,
    PredictJob,
    UNetConfig,
    load_model,
    run_on_cluster,
    save_model,
)
from napari_unet.data.axes import Stack
from napari_unet.data.instances import IDS, Blocks, find_objects
from napari_unet.data.normalize import survey
from napari_unet.data.synthetic import cells
from napari_unet.events import Event, Noted, PredictStarted, TileDone
from napari_unet.files.results import create_scratch
from napari_unet.nn import backend
from napari_unet.nn.model import UNetModel
from napari_unet.nn.network import build_unet
from napari_unet.spec import ModelSpec, ObjectDecoding

WORKERS = (1, 2)
MANY = (1, 10, 100, 1000)
PIECE = 20.0  # seconds, as napari_unet.handing_out means them to take
TASKS = 500
BARE = 8.0  # megapixels that the network alone computes in each worker


@dataclass(frozen=True)
class Costs:
    """Seconds: per chunk, per task, or per megapixel."""

    chunk: float
    task: float
    survey: float
    decode: float
    stitch: float


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("filters", 16), ("size", 2048), ("slices", 8), ("rounds", 5), ("size-meant", 4096), ("slices-meant", 1000)
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tile", type=float, default=0.5, help="largest tile, in megapixels")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name, ExitStack() as clusters:
        folder = Path(name)
        stack = _make_image(folder, options.size, options.slices)
        _make_model(folder, options.filters)
        address = {}
        for workers in WORKERS:
            cluster = clusters.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                )
            )
            address[workers] = cluster.scheduler_address
        for workers in WORKERS:  # imports TensorFlow and traces the network
            _segment(folder, address[workers], options.tile)
        found: dict[int, list[tuple[float, int]]] = {workers: [] for workers in WORKERS}
        bare: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        for _ in range(options.rounds):
            for workers in WORKERS:
                found[workers].append(_segment(folder, address[workers], options.tile))
                bare[workers].append(_bare(folder, address[workers], options.tile))
        medians = {workers: statistics.median(t for t, _ in times) for workers, times in found.items()}
        chunks = found[1][0][1]
        rates = {workers: statistics.median(each) for workers, each in bare.items()}
        _print_speed_up(options, medians, rates, chunks)
        costs = Costs(
            medians[1] / chunks, _per_task(address[1]), _survey(stack), *_objects(folder, options.size)
        )
        _print_parts(folder, stack, costs)
    _print_many(costs, chunks / stack_pixels(stack), options.slices_meant * options.size_meant**2 / 1e6)


def stack_pixels(stack: Stack) -> float:
    """Megapixels."""
    return float(np.prod(stack.out_shape)) / 1e6


def _make_image(folder: Path, size: int, slices: int) -> Stack:
    image = cells((size, size), seed=0)[0]
    array = zarr.create_array(
        folder / "image.zarr", shape=(slices, size, size), chunks=(1, 512, 512), dtype=image.dtype,
        dimension_names=("z", "y", "x"),
    )  # fmt: skip
    for n in range(slices):
        array[n] = np.roll(image, 37 * n, axis=(0, 1))
    return Stack(array, "ZYX")


def _make_model(folder: Path, filters: int) -> None:
    backend.prepare("float32", 0)
    network = UNetConfig(filters=filters)
    save_model(UNetModel(ModelSpec(network=network), build_unet(network)), folder / "model.unet")


def _segment(folder: Path, scheduler: str, tile: float) -> tuple[float, int]:
    """Seconds from the first piece handed out to the last chunk on disk, and how many chunks."""
    times: dict[type[Event], float] = {}
    total = 0

    def notify(event: Event) -> None:
        nonlocal total
        times[type(event)] = time.perf_counter()
        total = event.total if isinstance(event, PredictStarted) else total

    job = PredictJob(
        model=str(folder / "model.unet"),
        image=ArraySource(path=str(folder / "image.zarr"), axes="ZYX"),
        outputs=(Output(kind="probabilities", path=str(folder / f"{time.time_ns()}.zarr")),),
        config=PredictConfig(tile_megapixels=tile, precision="float32"),
    )
    run_on_cluster(job, notify, scheduler=scheduler)
    return times[TileDone] - times[Noted], total


def _bare(folder: Path, scheduler: str, tile: float) -> float:
    """Megapixels a second of the network alone, of all workers together, which compute at the same time."""
    side = int((1e6 * tile) ** 0.5) // 16 * 16
    with Client(scheduler, set_as_default=False) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        tasks = [
            client.submit(_passes, folder / "model.unet", side, workers=[worker], pure=False)
            for worker in workers
        ]
        return sum(client.gather(tasks))


def _passes(model: Path, side: int) -> float:
    """Megapixels a second of the network alone; this runs in a worker."""
    network = load_model(model)
    pixels = np.random.default_rng(0).random((1, side, side, 1), np.float32)
    network.probabilities(pixels)
    megapixels = pixels.size / 1e6
    count = round(BARE / megapixels)
    begun = time.perf_counter()
    for _ in range(count):
        network.probabilities(pixels)
    return count * megapixels / (time.perf_counter() - begun)


def _per_task(scheduler: str) -> float:
    """Seconds that the scheduler takes for a task that does nothing."""
    with Client(scheduler, set_as_default=False) as client:
        client.gather([client.submit(_nothing, n, pure=False) for n in range(50)])
        return (
            _median(lambda: client.gather([client.submit(_nothing, n, pure=False) for n in range(TASKS)]), 3)
            / TASKS
        )


def _nothing(n: int) -> int:
    return n


def _survey(stack: Stack) -> float:
    return _median(lambda: survey(stack), 3) / stack_pixels(stack)


def _objects(folder: Path, size: int) -> tuple[float, float]:
    """Seconds per megapixel of decoding, which workers do, and of joining and writing, which one process does."""
    image, ids, _ = cells((size, size), seed=0)
    inside = (np.asarray(ids) > 0).astype(np.uint8) * 255
    maps = create_scratch(folder / "maps", (3, *inside.shape), np.uint8)
    maps[...] = np.stack([255 - inside, inside, np.zeros_like(inside)])
    labels = create_scratch(folder / "objects", inside.shape, IDS)
    elsewhere = 0.0

    def run_all(function: Callable[[Any], Any], things: Iterable[Any]) -> Iterator[Any]:
        nonlocal elsewhere
        for thing in things:
            start = time.perf_counter()
            answer = function(thing)
            elsewhere += time.perf_counter() - start
            yield answer

    start = time.perf_counter()
    find_objects(
        maps, labels, ObjectDecoding(neck_depth=1.5), chunk=labels.chunks, blocks=Blocks(side=max(64, size // 2)),
        scratch=lambda shape, dtype: create_scratch(folder / "scratch", shape, dtype), run_all=run_all,
    )  # fmt: skip
    whole = time.perf_counter() - start
    return elsewhere / (image.size / 1e6), (whole - elsewhere) / (image.size / 1e6)


def _median(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _print_speed_up(
    options: argparse.Namespace, medians: dict[int, float], rates: dict[int, float], chunks: int
) -> None:
    print(
        f"{options.slices} x {options.size} x {options.size}, {options.filters} filters, float32, {chunks} chunks, "
        f"one TensorFlow thread a worker, median of {options.rounds}\n"
    )
    print(f"{'workers':>8} {'seconds':>9} {'speed-up':>9} {'network alone, Mpixel/s':>25} {'speed-up':>9}")
    for workers, seconds in medians.items():
        rate = rates[workers]
        print(f"{workers:8} {seconds:9.2f} {medians[1] / seconds:9.2f} {rate:25.3f} {rate / rates[1]:9.2f}")


def _print_parts(folder: Path, stack: Stack, costs: Costs) -> None:
    result = next(path for path in folder.iterdir() if path.name[0].isdigit())
    array = zarr.open_array(result / "0", mode="r+").with_config({"write_empty_chunks": True})
    height, width = array.chunks[-2:]
    block = np.asarray(array[0, :height, :width])

    def write() -> None:
        array[0, :height, :width] = block

    read = _median(lambda: stack.read(0, slice(0, height), slice(0, width)), 9)
    print(f"\n{'part':44} {'milliseconds':>13}")
    for name, seconds in {
        f"a chunk ({height} x {width}), all in all": costs.chunk,
        "of that, reading the image (without its halo)": read,
        "of that, writing the result": _median(write, 9),
        "a task that does nothing": costs.task,
        "brightness survey, a megapixel": costs.survey,
        "objects on workers, a megapixel": costs.decode,
        "objects joined and written, a megapixel": costs.stitch,
    }.items():
        print(f"{name:44} {1e3 * seconds:13.2f}")


def _print_many(costs: Costs, chunks_per_megapixel: float, megapixels: float) -> None:
    chunks = round(megapixels * chunks_per_megapixel)
    print(f"\nArithmetic for {megapixels:,.0f} megapixels, {chunks:,} chunks. It assumes that")
    for assumption in (
        "every worker is as fast as the one measured here, with one thread, and never waits for the disk;",
        f"a piece takes {PIECE:.0f} seconds, or less where there would be under 4 for each worker;",
        "the scheduler handles one task after the other, beside the workers;",
        "the survey, and the joining and writing of objects, are done by one process, before and after;",
        "starting the workers is not counted.",
    ):
        print(f"- {assumption}")
    print(
        f"\n{'workers':>8} {'pieces':>9} {'classes, hours':>15} {'speed-up':>9} {'objects, hours':>15} {'speed-up':>9}"
    )
    first: list[float] = []
    for workers in MANY:
        each = max(1, min(int(PIECE / costs.chunk), -(-chunks // (4 * workers))))
        pieces = -(-chunks // each)
        computing = -(-pieces // workers) * each * costs.chunk
        classes = costs.survey * megapixels + max(computing, pieces * costs.task)
        objects = classes + costs.decode * megapixels / workers + costs.stitch * megapixels
        first = first or [classes, objects]
        print(
            f"{workers:8,} {pieces:9,} {classes / 3600:15.2f} {first[0] / classes:9.1f} "
            f"{objects / 3600:15.2f} {first[1] / objects:9.1f}"
        )


if __name__ == "__main__":
    main()
