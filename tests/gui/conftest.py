"""Docks in a real viewer, with a worker that speaks the protocol but knows no TensorFlow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import napari_unet
from napari_unet.config import UNetConfig
from napari_unet.files.model import save_model_file
from napari_unet.spec import ClassInfo, ModelSpec, TrainingRecord, weight_shapes

FAKE = Path(__file__).with_name("fake_worker.py")
TIMEOUT = 60_000
"""Milliseconds that a wait may take on a machine with other work; what succeeds takes less."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep runs in a folder of the test; let the fake worker find this package."""
    source = str(Path(napari_unet.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])))
    folder = tmp_path / "runs"
    monkeypatch.setenv("NAPARI_UNET_HOME", str(folder))
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, ...]]:
    """Choose how the workers of docks made from now on behave."""

    def choose(mode: str, file: Path | None = None) -> tuple[str, ...]:
        from napari_unet.gui import client, dock

        command = (sys.executable, str(FAKE), mode, *([str(file)] if file else []))
        monkeypatch.setattr(dock, "Workers", lambda: client.Workers(command))
        return command

    choose("run")
    return choose


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file of one channel and two classes, with a name and a colour."""
    network = UNetConfig(filters=1, depth=1)
    spec = ModelSpec(
        name="cells",
        network=network,
        classes=(ClassInfo(value=0, name="background"), ClassInfo(value=1, name="cell", color="#00ff00")),
        pixel_size=(0.5, 0.5),
        unit="micrometer",
        training=TrainingRecord(score=0.91),
    )
    path = tmp_path / "cells.unet"
    save_model_file(
        path, spec, {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(network).items()}
    )
    return path


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any], fake: Any) -> Any:
    """A viewer with a painted stack of five slices."""
    viewer = make_napari_viewer()
    rng = np.random.default_rng(0)
    viewer.add_image(
        rng.integers(0, 200, (5, 48, 40), dtype=np.uint8),
        name="raw",
        scale=(3, 0.5, 0.5),
        translate=(1, 2, 3),
    )
    paint = np.zeros((5, 48, 40), np.int32)
    paint[1, 5:20, 5:20] = 2
    viewer.add_labels(paint, name="paint", scale=(3, 0.5, 0.5), translate=(1, 2, 3))
    return viewer


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Whatever a test does, no worker outlives it and TensorFlow stays out."""
    yield
    children = psutil.Process().children(recursive=True)
    _, left = psutil.wait_procs(
        [child for child in children if "fake_worker" in " ".join(_command(child))], timeout=60
    )
    for child in left:
        child.kill()
    assert not left, "a worker outlived its viewer"
    assert not {"tensorflow", "keras"} & set(sys.modules)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
