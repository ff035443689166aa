"""What must hold when a process dies, a layer goes or the viewer closes, with the real worker.

Each test starts TensorFlow in a worker; ``benchmarks/viewer_kills.py`` does it many times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from qtpy.QtCore import Qt

from napari_unet.data.synthetic import cells
from napari_unet.events import StepDone
from napari_unet.files.image import open_image
from napari_unet.files.model import read_model_file
from napari_unet.files.run import RunFolder
from napari_unet.gui.client import COMMAND
from napari_unet.gui.train_dock import TrainDock

MINUTE = 60_000
LONG = 100_000  # steps of a training that only ends because somebody ends it
SCRIPT = Path(__file__).with_name("viewer_to_kill.py")

pytestmark = pytest.mark.timeout(300)


class Session:
    """A viewer with painted cells and a Train dock whose steps take a few hundredths of a second."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        image, truth, _ = cells((64, 96), seed=1)
        viewer.add_image(image, name="cells")
        self.layer = viewer.add_labels(truth.astype(np.int32), name="painted")
        self.dock = TrainDock(viewer)
        viewer.window.add_dock_widget(self.dock, name="Train")
        self.panel = self.dock.panel
        self.dock.unit.value = "steps"
        # patience 0: to the end, whether that helps or not
        self.dock.more.write({"patch": 32, "batch": 1, "warmup": 0, "patience": 0})
        self.steps: list[int] = []
        self.panel.happened.connect(self._count)

    def _count(self, event: Any) -> None:
        if isinstance(event, StepDone):
            self.steps.append(event.step)

    def start(self, steps: int, save_every: float = 60) -> int:
        """Press Start, wait for the third step, return the worker's process id."""
        self.steps.clear()
        self.dock.steps.value = steps
        self.dock.more["checkpoint_seconds"].value = save_every
        self.qtbot.mouseClick(self.panel.start_button, Qt.MouseButton.LeftButton)
        self.qtbot.waitUntil(lambda: len(self.steps) >= 3 or not self.panel.running, timeout=2 * MINUTE)
        assert self.panel.running, self.panel.messages.text
        return self.panel._client.pid

    def wait_for_end(self) -> None:
        self.qtbot.waitUntil(lambda: not self.panel.running, timeout=2 * MINUTE)


@pytest.fixture
def session(make_napari_viewer: Any, qtbot: Any) -> Session:
    return Session(make_napari_viewer(), qtbot)


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[1:] == list(COMMAND[1:])
    except psutil.Error:
        return False


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one whose new parent has not yet asked for its exit code has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_all_files_are_whole(run: Path) -> None:
    """Every file of a run that stands under its final name can be read."""
    folder = RunFolder(run)
    folder.read_job()
    folder.read_history()
    np.asarray(open_image(folder.labels_path(0)).array)
    if folder.model_path.exists():
        read_model_file(folder.model_path)
    if folder.checkpoint_path.exists():
        folder.load_checkpoint()


def the_run(home: Path) -> Path:
    (run,) = home.iterdir()
    return run


def test_a_killed_worker_costs_no_file_and_start_works_again(session: Session, home: Path) -> None:
    os.kill(session.start(LONG, save_every=0), signal.SIGKILL)
    session.wait_for_end()
    run = the_run(home)
    assert (run / "model.unet").is_file()  # saved after each step
    assert_all_files_are_whole(run)
    text = session.panel.messages.text
    assert text.count("The worker process was killed by the system") == 1
    assert text.count("Saved model:") == 0
    assert len(session.viewer.layers) == 2
    session.start(10)
    session.wait_for_end()
    assert "Trained 10 steps." in session.panel.messages.text


def test_a_killed_viewer_leaves_a_checkpoint_the_model_and_the_labels(tmp_path: Path, home: Path) -> None:
    expected = tmp_path / "painted.npy"
    viewer = subprocess.Popen([sys.executable, SCRIPT, expected], stdout=subprocess.PIPE, text=True)
    assert viewer.stdout
    worker = 0
    for line in viewer.stdout:
        word, number = line.split()[:2]
        worker = int(number) if word == "worker" else worker
        if word == "step" and int(number) >= 3:
            break
    assert worker and not is_gone(worker), "the viewer ended by itself"
    viewer.send_signal(signal.SIGKILL)
    with viewer:  # closes the pipe and waits
        pass
    assert viewer.returncode == -signal.SIGKILL
    try:
        psutil.Process(worker).wait(60)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        assert is_gone(worker), "the worker outlived its viewer by a minute"
    run = the_run(home)
    assert_all_files_are_whole(run)
    with RunFolder(run).open() as folder:  # not locked by a ghost either
        checkpoint = folder.load_checkpoint()
        assert checkpoint is not None and checkpoint[1]["step"] >= 3
        read_model_file(folder.model_path)
        painted = np.asarray(open_image(folder.labels_path(0)).array)
    np.testing.assert_array_equal(painted, np.load(expected))


def test_layers_may_change_and_go_and_the_viewer_may_close_while_training(
    session: Session, home: Path
) -> None:
    viewer, layer = session.viewer, session.layer
    painted = layer.data.copy()
    session.start(60)
    layer.data_setitem((np.array([0, 1]), np.array([0, 1])), 7)
    layer.name = "another name"
    layer.data = np.zeros((5, 5), np.uint8)
    viewer.layers["cells"].data = np.zeros((8, 8))
    viewer.layers.remove(layer)
    viewer.layers.clear()
    session.wait_for_end()
    assert "Trained 60 steps." in session.panel.messages.text
    assert session.steps == list(range(1, 61))
    run = the_run(home)
    np.testing.assert_array_equal(np.asarray(open_image(run / "labels" / "0.ome.tif").array), painted)
    read_model_file(run / "model.unet")

    image, truth, _ = cells((64, 96), seed=2)
    viewer.add_image(image)
    viewer.add_labels(truth)
    pid = session.start(LONG)
    assert [child.pid for child in workers()] == [pid]
    viewer.window._qt_window.close()
    viewer.close()
    session.qtbot.waitUntil(lambda: not workers(), timeout=MINUTE)
    (second,) = set(home.iterdir()) - {run}
    assert_all_files_are_whole(second)
    with RunFolder(second).open() as folder:
        assert folder.load_checkpoint() is not None
        read_model_file(folder.model_path)
