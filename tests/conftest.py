"""Fixtures that several rooms use; no TensorFlow, no viewer."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.synthetic import cells
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, TrainJob
from napari_unet.spec import ObjectDecoding

ROOT = Path(__file__).resolve().parents[1]

# The clock of a shared machine proves nothing.
settings.register_profile("any clock", deadline=None)
settings.load_profile("any clock")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real labelled data; tests that need it are extra."""
    folder = Path(os.environ.get("NAPARI_UNET_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set NAPARI_UNET_DATA to run this extra test")
    return folder


@pytest.fixture
def cells_files(tmp_path: Path) -> tuple[Path, Path]:
    """Image and labels of a few cells, 64 x 96 pixels, as OME-TIFF."""
    image, labels, _ = cells((64, 96), seed=1)
    paths = tmp_path / "cells.image.ome.tif", tmp_path / "cells.labels.ome.tif"
    for path, array in zip(paths, (image, labels), strict=True):
        write_tiff(
            path, array, "YX", pixel_size={"Y": 0.5, "X": 0.5}, unit="micrometer", labels=array is labels
        )
    return paths


@pytest.fixture
def tiny_job(cells_files: tuple[Path, Path], tmp_path: Path) -> TrainJob:
    """A training that takes a second or two once TensorFlow is there."""
    image, labels = cells_files
    return TrainJob(
        images=(ArraySource(path=str(image)),),
        labels=(ArraySource(path=str(labels)),),
        out=str(tmp_path / "run"),
        network=UNetConfig(filters=2, depth=2),
        train=TrainConfig(steps=12, patch=32, batch=2, warmup=2, patience=0, checkpoint_seconds=3600),
    )


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A barely trained model of two classes, 0 and 7."""
    image, labels, _ = cells((64, 64), seed=1)
    return _barely_trained(tmp_path_factory.mktemp("model") / "tiny.unet", image, labels * 7)


@pytest.fixture(scope="session")
def objects_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A barely trained model of objects: nearly every pixel is foreground, and nothing is left out for being doubtful."""
    image, _, ids = cells((64, 64), seed=1)
    return _barely_trained(tmp_path_factory.mktemp("model") / "objects.unet", image, ids, target="objects")


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    """Three slices of cells, 70 x 90 pixels, as OME-TIFF."""
    stack = np.stack([cells((70, 90), seed=seed)[0] for seed in range(3)])
    path = tmp_path / "stack.ome.tif"
    write_tiff(path, stack, "ZYX", pixel_size={"Z": 2.0, "Y": 0.5, "X": 0.25}, unit="micrometer")
    return path


def _barely_trained(path: Path, image: np.ndarray, labels: np.ndarray, **options: str) -> Path:
    from napari_unet import save_model, train

    config = TrainConfig(steps=3, patch=32, batch=1, warmup=2, patience=0, precision="float32")
    model = train([image], [labels], UNetConfig(filters=2, depth=2), config, **options)
    if model.spec.objects is not None:
        model = replace(model, spec=model.spec.replace(objects=ObjectDecoding()))
    save_model(model, path)
    return path
