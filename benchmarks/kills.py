"""Kill a training worker at random moments, many times, and count what was lost.

    python benchmarks/kills.py [--kills 20] [--seed 0]

After each kill the model file under its final name must load whenever one had been saved,
no half-written file may stand under a final name, and the next run must go on.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.errors import BackendError, FileError
from napari_unet.events import Event, Ready, TrainStarted
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
    options = parser.parse_args()
    rng = random.Random(options.seed)
    lost_models = lost_checkpoints = went_on = saved = 0
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder))
        run = Path(job.out)
        for _ in range(options.kills):
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
        f"{options.kills} kills: {saved} times a model had been saved, {lost_models} models lost, "
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
                deadline = time.monotonic() + seconds
        if time.monotonic() > deadline:
            os.kill(worker, signal.SIGKILL)

    try:
        run_in_worker(job, watch)
    except BackendError:
        return first
    raise AssertionError("the run ended before it was killed")


def _loads(path: Path) -> bool:
    try:
        read_model_file(path)
    except FileError:
        return False
    return True


if __name__ == "__main__":
    main()
