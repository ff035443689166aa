"""A plugin manager that knows this plugin and napari's own, wherever they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest
from npe2 import PluginManager


@pytest.fixture
def plugins(npe2pm) -> Iterator[PluginManager]:
    """Plugin manager with napari-unet and napari's built-in readers and writers, nothing else."""
    manifest = str(files("napari_unet").joinpath("napari.yaml"))
    with npe2pm.tmp_plugin(package="napari"), npe2pm.tmp_plugin(manifest=manifest):
        yield npe2pm
