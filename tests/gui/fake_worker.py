"""Speaks the worker's protocol without TensorFlow, so that docks are tested in seconds.

``python fake_worker.py MODE [FILE]``. Modes: ``run`` (a few steps or tiles, then finished),
``slow`` (steps until told to stop, each taking a while), ``deaf`` (as slow, but does not hear Stop), ``fail``,
``die`` (kills itself), ``mortal`` (kills itself after its first tile, and so do its next processes, three in all, counted in
FILE), ``half`` (waits in its first segmentation, after one tile, until it is told to stop), ``exit`` (leaves in the middle of a job), ``shy`` (its first process
leaves as the job arrives, as an idle worker may). At the end of stdin, FILE is written:
that stands for the checkpoint.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_unet.events import (
    Failed,
    Finished,
    PredictStarted,
    Ready,
    Report,
    StepDone,
    TileDone,
    TrainStarted,
    Validated,
)
from napari_unet.events import to_json as _json
from napari_unet.jobs import PredictJob, TrainJob, job_from_yaml

STEPS = 40


class Fake:
    """One fake worker."""

    def __init__(self, mode: str, file: Path | None) -> None:
        self.mode, self.file = mode, file
        self.inbox: queue.Queue[tuple[dict, threading.Event]] = queue.Queue()
        self.stop = threading.Event()
        self.stops: list[threading.Event] = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] != "stop":
                self.put(command)
            elif self.mode != "deaf":
                self.stop_all()
        self.stop_all()
        self.put({"do": "quit"})

    def put(self, command: dict) -> None:
        stop = threading.Event()
        self.stops.append(stop)
        self.inbox.put((command, stop))

    def stop_all(self) -> None:
        for stop in self.stops:
            stop.set()
        self.stops.clear()

    def say(self, event: object) -> None:
        with suppress(OSError):
            print(_json(event), flush=True)

    def serve(self) -> None:
        while True:
            self.say(Ready(os.getpid()))
            command, self.stop = self.inbox.get()
            if command["do"] == "quit":
                break
            if command["do"] == "run":
                if self.mode == "shy" and not self.file.exists():
                    self.file.write_text("left")
                    os._exit(0)
                job = job_from_yaml(json.dumps(command["job"]))
                self.train(job) if isinstance(job, TrainJob) else self.predict(job)
        if self.file is not None:
            time.sleep(0.3)
            self.file.write_text("checkpoint")

    def take_a_while(self, seconds: float) -> None:
        if self.mode in ("slow", "deaf"):
            time.sleep(seconds)

    def end_badly(self) -> None:
        print("a line for the log", file=sys.stderr, flush=True)
        if self.mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "exit":
            os._exit(3)

    def die_three_times(self) -> None:
        deaths = len(self.file.read_text()) if self.file.exists() else 0
        if deaths < 3:
            self.file.write_text("x" * (deaths + 1))
            os.kill(os.getpid(), signal.SIGKILL)

    def train(self, job: TrainJob) -> None:
        self.say(TrainStarted(job.out, 0, STEPS, "CPU"))
        print("not an event")
        print('{"event": "NoSuchEvent"}', flush=True)
        step = 0
        while not self.stop.is_set() and (step < STEPS or self.mode in ("slow", "deaf")):
            step += 1
            self.take_a_while(0.01)
            self.say(StepDone(step, max(STEPS, step), 1.0 / step, 0.01 * max(0, STEPS - step)))
            if step % 10 == 0:
                self.say(Validated(step, 1.0 / step, 1 - 1.0 / step, True))
            if step == 5:
                self.end_badly()
                if self.mode == "fail":
                    self.say(Failed("Something broke.", "RuntimeError", "Traceback: line 1"))
                    return
        model = os.environ.get("FAKE_MODEL", "")
        outputs = {"model": model} if model else {}
        self.say(Finished(Report("train", outputs, {}, 1.0, self.stop.is_set(), f"Trained {step} steps.")))

    def predict(self, job: PredictJob) -> None:
        import numpy as np

        from napari_unet.files.image import open_source
        from napari_unet.files.model import read_card

        image = open_source(job.image)
        stack = image.stack
        if job.dry_run:
            shape = " x ".join(map(str, stack.shape))
            self.say(Finished(Report("predict", message=f"This takes nothing: {shape} of {stack.dtype}.")))
            return
        card = read_card(job.model)
        maps = card.network.logits
        paths = {output.kind: output.path for output in job.outputs}
        targets = [opened(job, output, card, image) for output in job.outputs]
        arrays = {target.kind: target.array for target in targets}
        window = job.window or ((0, stack.shape[0]), (0, stack.shape[1]), (0, stack.shape[2]))
        indices = list(np.ndindex(*stack.slice_shape))
        done = {n for n in range(*window[0]) if all(target.has_slice(indices[n]) for target in targets)}
        self.say(PredictStarted(paths, len(done), stack.shape[0], "CPU"))
        region = (slice(*window[1]), slice(*window[2]))
        threshold = 100 if job.config.threshold is None else 255 * job.config.threshold
        for n in range(*window[0]):
            if n in done:
                continue
            self.end_badly()
            self.take_a_while(0.05)
            pixels = stack.read(n, *region)[..., 0]
            for kind, array in arrays.items():
                values = pixels > threshold if kind == "labels" else pixels
                key = (*indices[n], *region)
                if array.ndim > len(stack.out_shape):
                    array[(slice(None), *key)] = np.stack([values] * maps)
                else:
                    array[key] = values.astype(np.uint8)
            self.say(TileDone(n + 1, stack.shape[0], 0.1))
            if self.mode in ("half", "deaf"):  # the deaf one waits until it is killed
                self.stop.wait(60)
                self.mode = "run"
            if self.mode == "mortal":
                self.die_three_times()
            if self.stop.is_set():
                break
        if "entropy" in paths:
            paths["regions"] = ranked(paths["entropy"], stack)
        self.say(Finished(Report("predict", paths, {}, 1.0, self.stop.is_set(), "Segmented.")))


def opened(job: PredictJob, output: Any, card: Any, image: Any) -> Any:
    """Open a result that a process which died has left, or make one."""
    from napari_unet.opening import Inputs
    from napari_unet.targets import open_target

    stack = image.stack
    shape, axes, maps = stack.out_shape, stack.out_axes, card.network.logits
    if maps > 1 and output.kind == "probabilities":
        shape, axes = (maps, *shape), f"C{axes}"
    return open_target(job, output, Inputs.of(job), card, image, (shape, axes, "uint8"), stack.shape[1:3])


def ranked(path: str, stack: Any) -> str:
    """Write a table of 25 regions, each in another slice than the one before."""
    table = Path(path).with_name("entropy.regions.csv")
    lines = [
        ",".join(["rank", *stack.slice_axes.lower(), "y_start", "y_stop", "x_start", "x_stop", "unsure"])
    ]
    for rank in range(1, 26):
        where = [rank * (axis + 1) % length for axis, length in enumerate(stack.slice_shape)]
        lines.append(",".join(map(str, [rank, *where, rank, rank + 8, 4, 12, 1 - rank / 100])))
    table.write_text("\n".join(lines) + "\n")
    return str(table)


if __name__ == "__main__":
    Fake(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None).serve()
