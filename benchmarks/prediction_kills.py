"""Kills a segmentation at random moments, goes on, and compares the result with that of a run left alone.

A chunk on disk must never be computed again, so at most the one in hand is lost at a kill.

python benchmarks/prediction_kills.py [--kills 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_unet.config import PredictConfig, UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.files.image import open_image
from napari_unet.files.model import save_model_file
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, Output, PredictJob
from napari_unet.spec import ModelSpec, weight_shapes
from napari_unet.worker import COMMAND


def main() -> int:
    """Run it and print the counts; 1 if anything was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(prefix="napari-unet-kills-") as name:
        job = _job(Path(name), rng)
        whole, result = Path(name) / "whole.zarr", Path(name) / "result.zarr"
        total, length = _run(job.replace(outputs=(Output(kind="labels", path=str(whole)),)), None)
        found: list[int] = []
        changed = 0
        for _ in range(options.kills):
            before = _chunks(result)
            # Short enough that something is left to do at the last kill.
            _run(job, float(rng.uniform(0, 1.6 * length / options.kills)))
            after = _chunks(result)
            changed += sum(after.get(path) != written for path, written in before.items())
            found.append(len(after))
        computed, _ = _run(job, None)
        same = np.array_equal(_read(whole), _read(result))
    print(
        f"{options.kills} kills in a run of {total} chunks, which found {', '.join(map(str, found))} on disk.\n"
        f"Chunks written twice or lost: {changed}; one at most was in hand at each kill. The last run computed the {computed} "
        f"that were missing.\nResult {'equal to' if same else 'DIFFERENT FROM'} that of the run left alone."
    )
    return 0 if same and not changed and computed == total - found[-1] else 1


def _job(folder: Path, rng: np.random.Generator) -> PredictJob:
    """A stack, a network of random weights, and a job that takes some seconds."""
    spec = ModelSpec(network=UNetConfig.preset("quick"))
    arrays = {
        name: rng.normal(0, np.sqrt(2 / max(1, np.prod(shape[:-1]))), shape).astype(np.float32)
        for name, shape in weight_shapes(spec.network).items()
    }
    save_model_file(folder / "model.unet", spec, arrays)
    write_tiff(folder / "stack.ome.tif", np.stack([cells((768, 768), seed=i)[0] for i in range(12)]), "ZYX")
    return PredictJob(
        model=str(folder / "model.unet"),
        image=ArraySource(path=str(folder / "stack.ome.tif")),
        outputs=(Output(kind="labels", path=str(folder / "result.zarr")),),
        config=PredictConfig(tile_megapixels=0.2),
    )


def _run(job: PredictJob, kill_after: float | None) -> tuple[int, float]:
    """Run a job in a worker; return chunks computed, and seconds from its first chunk to its end."""
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    print(json.dumps({"do": "run", "job": job.model_dump(mode="json")}), file=process.stdin, flush=True)
    computed, begun = 0, time.monotonic()
    for line in process.stdout:
        event = json.loads(line)
        computed += event["event"] == "TileDone"
        if computed == 1 and event["event"] == "TileDone":
            begun = time.monotonic()
            if kill_after is not None:
                time.sleep(kill_after)
                process.kill()
                break
        if event["event"] in ("Finished", "Failed"):
            break
    process.kill()
    process.wait()
    return computed, time.monotonic() - begun


def _chunks(result: Path) -> dict[Path, int]:
    """Chunks on disk, and when each was written."""
    files = (result / "0" / "c").rglob("*")
    return {path: path.stat().st_mtime_ns for path in files if path.is_file() and path.suffix != ".partial"}


def _read(path: Path) -> np.ndarray:
    return np.asarray(open_image(path).array[...])


if __name__ == "__main__":
    sys.exit(main())
