"""Kill a training worker at random moments, many times, and count what was lost.

    python benchmarks/kills.py [--kills 20] [--seed 0] [--exact]

After each kill the model file under its final name must load whenever one had been saved,
no half-written file may stand under a final name, and the next run must go on. With --exact the
run has a number of steps and is gone on with after each kill, to its end: its last weights
must be those of the same run without a kill, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.errors import BackendError, FileError
from napari_unet.events import Event, Ready, StepDone, TrainStarted
from napari_unet.files.model import read_model_file
from napari_unet.files.run import RunFolder
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, TrainJob
from napari_unet.worker import run_in_worker


def main() -> None:
    """Run the kills and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    if options.exact:
        compare(options.kills, rng)
    else:
        count_losses(options.kills, rng)


def compare(kills: int, rng: random.Random) -> None:
    """Kill a run of so many steps again and again, and compare its end with that of one left alone."""
    steps = 20 * kills
    with tempfile.TemporaryDirectory() as folder:
        train = TrainConfig(steps=steps, patch=32, batch=1, precision="float32", checkpoint_seconds=0.5)
        job = _job(Path(folder)).replace(network=UNetConfig(filters=2, depth=2), train=train)
        alone = job.replace(out=str(Path(folder) / "alone"))
        run_in_worker(alone)
        again = sum(_kill_at(job, rng.randint(1, 12), rng.uniform(0.0, 0.05)) for _ in range(kills))
        last = run_in_worker(job)
        digests = [_digest(Path(each.out)) for each in (alone, job)]
    print(
        f"{kills} kills in a run of {steps} steps, {again} of them done twice, {last.metrics['steps']:.0f} steps in the end: "
        f"model {'equal' if digests[0][0] == digests[1][0] else 'DIFFERENT'} ({digests[1][0][:16]}), "
        f"checkpoint {'equal' if digests[0][1] == digests[1][1] else 'DIFFERENT'} ({digests[1][1][:16]}) to those of the run left alone"
    )


def count_losses(kills: int, rng: random.Random) -> None:
    """Kill a run without an end again and again, and look for what is lost."""
    lost_models = lost_checkpoints = went_on = saved = 0
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder))
        run = Path(job.out)
        for _ in range(kills):
            first = _kill_after(job, rng.uniform(0.0, 4.0))
            went_on += first > 0
            if (run / "model.unet").exists():
                saved += 1
                lost_models += not _loads(run / "model.unet")
            with RunFolder(run) as opened:
                try:
                    opened.load_checkpoint()
                except FileError:
                    lost_checkpoints += 1
    print(
        f"{kills} kills: {saved} times a model had been saved, {lost_models} models lost, "
        f"{lost_checkpoints} checkpoints damaged, {went_on} runs went on from a checkpoint"
    )


def _job(folder: Path) -> TrainJob:
    image, labels, _ = cells((128, 128), seed=0)
    write_tiff(folder / "image.ome.tif", image, "YX")
    write_tiff(folder / "labels.ome.tif", labels, "YX")
    return TrainJob(
        images=(ArraySource(path=str(folder / "image.ome.tif")),),
        labels=(ArraySource(path=str(folder / "labels.ome.tif")),),
        out=str(folder / "run"),
        network=UNetConfig(filters=8),
        train=TrainConfig(steps=1_000_000, patch=64, batch=1, checkpoint_seconds=0),
    )


def _kill_after(job: TrainJob, seconds: float) -> int:
    """Start the run, kill its worker so long after its first step; return the step it began at."""
    worker = 0
    first = -1
    deadline = float("inf")

    def watch(event: Event) -> None:
        nonlocal worker, first, deadline
        match event:
            case Ready(pid):
                worker = pid
            case TrainStarted(step=step):
                first = step
            case StepDone():
                deadline = min(deadline, time.monotonic() + seconds)
        if time.monotonic() > deadline:
            os.kill(worker, signal.SIGKILL)

    try:
        run_in_worker(job, watch)
    except BackendError:
        return first
    raise AssertionError("the run ended before it was killed")


def _kill_at(job: TrainJob, steps: int, delay: float) -> int:
    """Kill the worker of a run some steps and a moment after it began or went on; return how many of them are lost."""
    worker = first = 0

    def watch(event: Event) -> None:
        nonlocal worker, first
        match event:
            case Ready(pid):
                worker = pid
            case TrainStarted(step=step):
                first = step
            case StepDone(step=step):
                if step >= first + steps:
                    time.sleep(delay)
                    os.kill(worker, signal.SIGKILL)

    try:
        run_in_worker(job, watch)
    except BackendError:
        with RunFolder(job.out) as opened:
            checkpoint = opened.load_checkpoint()
            done = max(record["step"] for record in opened.read_history())
        return int(done) - (checkpoint[1]["step"] if checkpoint else 0)
    raise AssertionError("the run ended before it was killed")


def _digest(run: Path) -> tuple[str, str]:
    """Return the sha256 of the weights of a run's model, and of all arrays of its checkpoint."""
    _, weights = read_model_file(run / "model.unet")
    with RunFolder(run) as opened:
        arrays, _ = opened.load_checkpoint() or ({}, {})
    digests = []
    for content in (weights, arrays):
        digest = hashlib.sha256()
        for name, array in sorted(content.items()):
            digest.update(name.encode() + array.tobytes())
        digests.append(digest.hexdigest())
    return digests[0], digests[1]


def _loads(path: Path) -> bool:
    try:
        read_model_file(path)
    except FileError:
        return False
    return True


if __name__ == "__main__":
    main()
