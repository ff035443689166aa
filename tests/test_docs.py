"""The docs tell the truth: their examples run, and the settings table is that of the classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from napari_unet.augmentation import Augmentation
from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.settings import settings_table

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("page", ["python.md"])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)  # noqa: S102  our own documentation


@pytest.mark.parametrize("cls", [UNetConfig, TrainConfig, Augmentation, PredictConfig])
def test_the_settings_page_shows_the_settings(cls: type) -> None:
    assert settings_table(cls) in (DOCS / "settings.md").read_text(encoding="utf-8")
