"""TensorFlow and Keras never enter the viewer's process.

Each check runs in a process of its own, so it says what that one thing imports. The docks
need a display, so this file runs with the viewer tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("tensorflow", "keras", "jax", "torch")


def imported_by(code: str, *arguments: Path, also: tuple[str, ...] = ()) -> set[str]:
    """Run code in a fresh interpreter; return which heavy packages it imported."""
    report = f"\nimport sys; print('imported:', *(name for name in {(*HEAVY, *also)} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code + report, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NAPARI_CONFIG": ""},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported:")[2].split())


def test_importing_the_package_imports_nothing_heavy():
    light = ("numpy", "scipy", "skimage", "zarr", "tifffile", "pydantic", "yaml", "napari", "qtpy", "dask")
    assert imported_by("import napari_unet; dir(napari_unet)", also=light) == set()


def test_the_values_need_no_arrays_and_no_files():
    code = "from napari_unet import TrainJob, PredictConfig, ModelSpec, FileError"
    assert imported_by(code, also=("numpy", "zarr", "tifffile", "napari", "qtpy")) == set()


def test_importing_the_edges_imports_no_backend_and_no_viewer():
    modules = ", ".join(
        f"napari_unet.{name}" for name in ("api", "cli", "cluster", "demo", "evaluation", "worker")
    )
    assert imported_by(f"import {modules}", also=("napari", "qtpy", "dask", "distributed")) == set()


def test_samples_readers_and_writers_import_no_backend(cells_files, tmp_path):
    code = """
import sys
from napari_unet.plugin.reader import ome_tiff_reader
from napari_unet.plugin.samples import cells, membranes
from napari_unet.plugin.writer import write_image, write_labels, write_pair
(image,) = ome_tiff_reader(sys.argv[1])(sys.argv[1])
(labels,) = ome_tiff_reader(sys.argv[2])(sys.argv[2])
write_image(sys.argv[3] + "/i.ome.tif", *image[:2])
write_labels(sys.argv[3] + "/l.ome.tif", *labels[:2])
write_pair(sys.argv[3] + "/p.ome.tif", [image, labels])
cells()
membranes()
"""
    assert imported_by(code, *cells_files, tmp_path) == set()
    assert len(list(tmp_path.glob("*.ome.tif"))) >= 4


@pytest.mark.skipif(
    sys.platform == "linux" and not os.environ.get("DISPLAY"),
    reason="a viewer needs a display: run under xvfb-run",
)
def test_opening_both_docks_and_a_model_imports_no_backend(tmp_path):
    code = """
import sys
import napari
import numpy as np
from napari_unet import ModelSpec
from napari_unet.files.model import save_model_file
from napari_unet.gui.segment_dock import SegmentDock
from napari_unet.gui.train_dock import TrainDock
from napari_unet.plugin.reader import model_reader
from napari_unet.spec import weight_shapes
viewer = napari.Viewer(show=False)
viewer.window.add_dock_widget(TrainDock(viewer))
viewer.window.add_dock_widget(SegmentDock(viewer))
spec = ModelSpec(network={"filters": 1, "depth": 1})
arrays = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(spec.network).items()}
save_model_file(sys.argv[1], spec, arrays)
assert model_reader(sys.argv[1])(sys.argv[1]) == [(None,)]
viewer.close()
"""
    assert imported_by(code, tmp_path / "small.unet") == set()
