"""Objects out of core: the same for every block and chunk, in little memory.

What a network would say is made of true labels (the targets of training, blurred), so no network is needed: the real volume fibsem_neurons_3d
joined through its slices, a mosaic of dsb2018_fluo, and a made-up volume. Each is decoded in several ways; each way in a process of its own, whose
peak memory is read.

python benchmarks/objects.py [--size 8192]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy import ndimage

from napari_unet.data.instances import IDS, Blocks, find_objects
from napari_unet.data.objects import object_targets
from napari_unet.data.synthetic import cells
from napari_unet.files.image import open_image
from napari_unet.spec import ObjectDecoding

DATA = Path(os.environ.get("NAPARI_UNET_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

WAYS = {
    "slices": ((2**16, 2**40), (2048, 2048)),  # one block, however large the slice
    "blocks of 2048": ((2048, 2**23), (1024, 1024)),
    "blocks of 512": ((512, 2**23), (256, 768)),
    "blocks of 64": ((64, 2**23), (64, 64)),
}
"""Side of a block and the size from which a region is cut; chunks of the result."""


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(json.loads(options.one))
        return
    print(f"{'volume':24}{'way':18}{'objects':>9}{'seconds':>9}{'peak GB':>9}  answer")
    with tempfile.TemporaryDirectory(prefix="napari-unet-objects-") as folder:
        for name, labels, link in _volumes(options.size):
            path = Path(folder) / "p.zarr"
            _store(labels, path)
            for way, (blocks, chunk) in WAYS.items():
                if way == "blocks of 64" and labels[0].size > 2**22:
                    continue
                task = {"folder": folder, "blocks": blocks, "chunk": chunk, "link": link}
                command = [sys.executable, __file__, "--one", json.dumps(task)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{name:24}{way:18}{found['objects']:9,}{found['seconds']:9.1f}{found['gb']:9.2f}  {found['hash']}",
                    flush=True,
                )


def _volumes(size: int) -> Any:
    """Name, labels (Z, Y, X) and whether slices are joined."""
    if DATA.is_dir():
        yield (
            "fibsem_neurons_3d",
            np.asarray(open_image(DATA / "fibsem_neurons_3d" / "labels.tif").array[...]),
            True,
        )
        yield f"dsb mosaic {size}²", _mosaic(size)[None], False
    else:
        print(f"no data at {DATA}: set NAPARI_UNET_DATA for the real volumes", file=sys.stderr)
    yield "made-up 4 x 1024²", np.stack([cells((1024, 1024), seed=seed // 2)[2] for seed in range(4)]), True


def _mosaic(size: int) -> np.ndarray:
    """Labels of dsb2018_fluo side by side, each object with an id of its own."""
    files = sorted((DATA / "dsb2018_fluo" / "train" / "masks").iterdir())
    mosaic, top, used, which = np.zeros((size, size), np.int64), 0, 0, 0
    while top < size:
        left, height = 0, 0
        while left < size:
            part = np.asarray(open_image(files[which % len(files)]).array[...])[: size - top, : size - left]
            mosaic[top : top + part.shape[0], left : left + part.shape[1]] = np.where(part, part + used, 0)
            used, which = used + int(part.max()), which + 1
            left, height = left + part.shape[1], max(height, part.shape[0])
        top += height
    return mosaic


def _store(labels: np.ndarray, path: Path) -> None:
    """Write probabilities (3, Z, Y, X) as a network might give them, a slice and a band at a time."""
    shape = (3, *labels.shape)
    side = tuple(min(1024, n) for n in labels.shape[1:])
    array = zarr.create_array(path, shape=shape, dtype="u1", chunks=(3, 1, *side), overwrite=True)
    for z, ids in enumerate(labels):
        for top in range(0, ids.shape[0], 2048):
            low, high = max(0, top - 32), min(ids.shape[0], top + 2048 + 32)
            sure = np.eye(3, dtype=np.float32)[object_targets(ids[low:high])]
            soft = ndimage.gaussian_filter(sure, (1, 1, 0))[top - low : top - low + 2048]
            array[:, z, top : top + 2048] = np.rint(255 * np.moveaxis(soft, -1, 0)).astype(np.uint8)


def _one(task: dict[str, Any]) -> None:
    """Decode in one way, in this process."""
    folder = Path(task["folder"])
    probabilities = zarr.open_array(folder / "p.zarr", mode="r")
    shape = probabilities.shape[1:]
    chunk = tuple(min(part, n) for part, n in zip(task["chunk"], shape[1:], strict=True))
    side, limit = task["blocks"]
    labels = zarr.create_array(folder / "l.zarr", shape=shape, dtype=IDS, chunks=(1, *chunk), overwrite=True)

    def scratch(shape: tuple[int, ...], dtype: Any) -> Any:
        room = (*(1 for _ in shape[:-2]), *(min(side, 1024, n) for n in shape[-2:]))
        return zarr.create_array(folder / "s.zarr", shape=shape, dtype=dtype, chunks=room, overwrite=True)

    begun = time.perf_counter()
    find_objects(
        probabilities, labels, ObjectDecoding(min_size=5, neck_depth=1.5, min_confidence=0.8), slice_axes="Z", link=task["link"], chunk=chunk,
        blocks=Blocks(side=side, limit=limit), scratch=scratch,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    status = Path("/proc/self/status").read_text()  # getrusage would tell of the parent as well
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20
    digest, most = hashlib.sha256(), 0
    for ids in (labels[z, top : top + 1024] for z in range(shape[0]) for top in range(0, shape[1], 1024)):
        digest.update(np.ascontiguousarray(ids).tobytes())
        most = max(most, int(ids.max()))
    print(json.dumps({"objects": most, "seconds": seconds, "gb": peak, "hash": digest.hexdigest()[:12]}))


if __name__ == "__main__":
    main()
