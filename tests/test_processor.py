"""What the system says of its memory."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from napari_unet import processor


def test_free_memory_is_that_of_the_system_or_of_its_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(processor, "_GROUPS", ((tmp_path, "memory.max", "memory.current"),))
    free = processor.free_memory()
    assert abs(free - psutil.virtual_memory().available) < 2**30
    (tmp_path / "memory.max").write_text("9000\n")
    assert processor.free_memory() == 8000
    (tmp_path / "memory.current").write_text("9500\n")
    assert processor.free_memory() == 0
