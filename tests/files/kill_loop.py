"""Kill a process that saves without pause, many times, and look at what it leaves.

``python kill_loop.py WHAT KILLS SEED FOLDER`` with WHAT one of file, model, checkpoint.
Prints one JSON line; ``lost`` counts the kills after which the file was missing or not whole.
A thousand kills take about a minute: ``python kill_loop.py model 1000 1 /tmp/kills``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_unet.config import UNetConfig
from napari_unet.errors import FileError
from napari_unet.files.atomic import remove_leftovers, write_atomically
from napari_unet.files.model import read_model_file, save_model_file
from napari_unet.files.run import RunFolder
from napari_unet.spec import ModelSpec, weight_shapes

SIZE = 2_000_000
NETWORK = UNetConfig(depth=2, filters=16)


def save_file(folder: Path, number: int) -> None:
    def write(file):
        for _ in range(20):
            file.write(bytes([number]) * (SIZE // 20))

    write_atomically(folder / "file", write)


def load_file(folder: Path) -> set[float]:
    content = (folder / "file").read_bytes()
    return set(content) if len(content) == SIZE else set()


def save_model(folder: Path, number: int) -> None:
    arrays = {name: np.full(shape, number, "f4") for name, shape in weight_shapes(NETWORK).items()}
    save_model_file(folder / "model.unet", ModelSpec(name=f"model {number}", network=NETWORK), arrays)


def load_model(folder: Path) -> set[float]:
    spec, arrays = read_model_file(folder / "model.unet")
    return {float(spec.name.split()[1])} | {
        float(value) for array in arrays.values() for value in (array.min(), array.max())
    }


def save_checkpoint(folder: Path, number: int) -> None:
    RunFolder(folder).save_checkpoint(
        {"a/b": np.full((700, 700), number, "f4"), "c": np.array(number)}, {"step": number}
    )


def load_checkpoint(folder: Path) -> set[float]:
    arrays, state = RunFolder(folder).load_checkpoint()
    return {float(state["step"])} | {
        float(value) for array in arrays.values() for value in (array.min(), array.max())
    }


CASES: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], set[float]]]] = {
    "file": (save_file, load_file),
    "model": (save_model, load_model),
    "checkpoint": (save_checkpoint, load_checkpoint),
}


def save_for_ever(save: Callable[[Path, int], None], folder: Path) -> None:
    number = 0
    while True:
        number = (number + 1) % 200
        save(folder, number)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a fork of this process, which never comes back."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return child


def wait_for_a_half_written_file(folder: Path) -> None:
    give_up = time.monotonic() + 20
    while not any(folder.glob(".*.part")) and time.monotonic() < give_up:
        time.sleep(0.0001)


def main(what: str, kills: int, seed: int, folder: Path) -> dict[str, int]:
    save, load = CASES[what]
    rng = random.Random(seed)
    save(folder, 0)
    lost = half_written = 0
    seen = set()
    for kill in range(kills):
        child = in_child(lambda: save_for_ever(save, folder))
        wait_for_a_half_written_file(folder)  # on a loaded machine the child may begin late
        time.sleep(rng.uniform(0, 0.05))
        if kill % 2:  # every other one while a file is written, however short that is beside the rest
            wait_for_a_half_written_file(folder)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            numbers = load(folder)
        except (FileError, OSError):
            numbers = set()
        lost += len(numbers) != 1
        seen |= numbers
        half_written += remove_leftovers(folder)
    left = sorted(path.name for path in folder.iterdir())
    return {"kills": kills, "lost": lost, "half_written": half_written, "different": len(seen), "left": left}


def kill_at_replace(folder: Path, when: str) -> None:
    """Save, and kill this process right before or right after the file takes its name."""
    replace = os.replace

    def killing(source, target):
        if when == "after":
            replace(source, target)
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = killing
    save_file(folder, 1)


if __name__ == "__main__":
    what, kills, seed, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    folder.mkdir(parents=True, exist_ok=True)
    if what in ("before", "after"):
        save_file(folder, 0)
        os.waitpid(in_child(lambda: kill_at_replace(folder, what)), 0)
        numbers = load_file(folder)
        result = {"numbers": sorted(numbers), "removed": remove_leftovers(folder)}
    else:
        result = main(what, kills, seed, folder)
    sys.stdout.write(json.dumps(result) + "\n")
