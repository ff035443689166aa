"""What is found out about the computer."""

from __future__ import annotations

import psutil
import pytest

from napari_unet.nn import backend, machine
from napari_unet.nn.machine import memory_of_tiles, this_computer


def test_this_computer_is_described_the_same_each_time() -> None:
    computer = this_computer()
    assert computer == this_computer()
    assert computer.memory == psutil.virtual_memory().total
    assert computer.cores >= 1
    assert (computer.accelerator is None) == (backend.device_name() == "CPU")


def test_tiles_take_the_memory_of_the_accelerator_where_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    monkeypatch.setattr(machine, "_free_on_gpu", lambda: 10)
    monkeypatch.setattr(backend, "device_name", lambda: "CPU")
    assert memory_of_tiles() == 1000
    monkeypatch.setattr(backend, "device_name", lambda: "GPU: made up")
    assert memory_of_tiles() == 10
    monkeypatch.setattr(machine, "_free_on_gpu", lambda: None)
    assert memory_of_tiles() == 1000
