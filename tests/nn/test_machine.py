"""What is found out about the computer."""

from __future__ import annotations

import psutil

from napari_unet.nn import backend
from napari_unet.nn.machine import this_computer


def test_this_computer_is_described_the_same_each_time() -> None:
    computer = this_computer()
    assert computer == this_computer()
    assert computer.memory == psutil.virtual_memory().total
    assert computer.cores >= 1
    assert (computer.accelerator is None) == (backend.device_name() == "CPU")
