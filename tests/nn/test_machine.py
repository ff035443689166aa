"""What is found out about the computer."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from napari_unet.nn import backend, machine
from napari_unet.nn.machine import this_computer


def test_this_computer_is_described_the_same_each_time() -> None:
    computer = this_computer()
    assert computer == this_computer()
    assert computer.memory == psutil.virtual_memory().total
    assert computer.cores >= 1
    assert (computer.accelerator is None) == (backend.device_name() == "CPU")


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Processor: something else\n", False),
    ],
)
def test_bfloat16_is_where_the_processor_says_so(
    text: str, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: text)
    assert machine._processor_has_bfloat16() is has
    monkeypatch.setattr(machine.sys, "platform", "win32")
    assert machine._processor_has_bfloat16() is False
