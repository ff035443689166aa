"""Kill the worker of one living viewer at random moments, many times, and count what was lost.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer_kills.py [--kills 20] [--seed 0]

The run saves after every step. Every second kill comes at a random moment of training, the
others at a random moment while a file is being written. After each, the dock must say so in
one sentence, the viewer must draw and start again, the model must load if one had been
saved, and no half-written file may stand under a final name.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtTest import QTest

from napari_unet.data.synthetic import cells
from napari_unet.errors import FileError
from napari_unet.events import StepDone
from napari_unet.files.image import open_image
from napari_unet.files.model import read_model_file
from napari_unet.files.run import RunFolder

SENTENCE = "The worker process was killed by the system"


@dataclass
class Counts:
    """What the kills left behind."""

    alive: int = 0
    sentences: int = 0
    while_writing: int = 0
    saved: int = 0
    lost: int = 0
    half_written: int = 0


def main() -> None:
    """Run the kills and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    os.environ["NAPARI_CONFIG"] = ""
    counts = Counts()
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_UNET_HOME"] = home
        session = Session()
        for number in range(options.kills):
            counts.alive += session.start()
            run = next(Path(home).iterdir())
            session.kill(
                run, rng.uniform(0, 4), while_writing=number % 2 == 1, wait_more=rng.uniform(0, 0.05)
            )
            look_at(session, run, counts)
            shutil.rmtree(run)
        session.viewer.close()
    assert "tensorflow" not in sys.modules
    print(
        f"{options.kills} kills: viewer alive {counts.alive}, said in one sentence {counts.sentences}, "
        f"killed while a file was written {counts.while_writing}, a model had been saved {counts.saved}, "
        f"models lost {counts.lost}, half-written files {counts.half_written}"
    )


class Session:
    """One viewer with painted cells and the Train dock."""

    def __init__(self) -> None:
        import napari

        from napari_unet.gui.train_dock import TrainDock

        self.viewer = napari.Viewer()
        image, truth, _ = cells((128, 128), seed=0)
        self.viewer.add_image(image, name="cells")
        self.viewer.add_labels(truth, name="painted")
        dock = TrainDock(self.viewer)
        self.viewer.window.add_dock_widget(dock, name="Train")
        dock.unit.value, dock.steps.value = "steps", 1_000_000
        dock.more["patch"].value, dock.more["batch"].value = 32, 1
        dock.more["checkpoint_seconds"].value = 0
        self.panel = dock.panel
        self.steps = 0
        self.saved = False
        self.panel.happened.connect(self._count)

    def _count(self, event: Any) -> None:
        self.steps += isinstance(event, StepDone)

    def start(self) -> bool:
        """Press Start; return whether the viewer draws and the training begins."""
        self.steps = 0
        QTest.mouseClick(self.panel.start_button, Qt.MouseButton.LeftButton)
        wait(lambda: self.steps > 0 or not self.panel.running, 300)
        picture = self.viewer.screenshot(canvas_only=False, flash=False)
        return self.panel.running and bool(np.any(picture[..., :3]))

    def kill(self, run: Path, seconds: float, *, while_writing: bool, wait_more: float) -> None:
        """Let it train for a while, kill the worker, and wait until the dock knows."""
        wait(lambda: False, seconds)
        if while_writing:
            give_up = time.perf_counter() + 30
            while not parts(run) and time.perf_counter() < give_up:
                time.sleep(0.0005)
            time.sleep(wait_more)
        pid = self.panel._client.pid
        self.saved = (run / "model.unet").exists()
        os.kill(pid, signal.SIGKILL)
        wait(lambda: not self.panel.running, 60)


def look_at(session: Session, run: Path, counts: Counts) -> None:
    """Count what a kill left: in the dock, and on disk."""
    text = session.panel.messages.text
    # The messages are kept, so there is one sentence more than after the kill before.
    counts.sentences = text.count(SENTENCE)
    counts.while_writing += bool(parts(run))
    counts.saved += session.saved
    folder = RunFolder(run)
    loads = not folder.model_path.exists() or whole(lambda: read_model_file(folder.model_path))
    counts.lost += session.saved and not (folder.model_path.exists() and loads)
    counts.half_written += not loads
    counts.half_written += not whole(folder.load_checkpoint)
    counts.half_written += not whole(folder.read_job)
    counts.half_written += not whole(folder.read_history)
    counts.half_written += not whole(lambda: np.asarray(open_image(folder.labels_path(0)).array))


def parts(run: Path) -> list[Path]:
    """Files being written under their temporary names."""
    return list(run.glob(".*.part"))


def whole(read: Callable[[], object]) -> bool:
    """Whether something can be read."""
    try:
        read()
    except FileError as error:
        print(error, file=sys.stderr)
        return False
    return True


def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Let the event loop run until a condition holds or the time is over."""
    loop, timer = QEventLoop(), QTimer()
    deadline = time.perf_counter() + seconds
    timer.timeout.connect(lambda: loop.quit() if condition() or time.perf_counter() > deadline else None)
    timer.start(20)
    loop.exec()
    timer.stop()


if __name__ == "__main__":
    main()
