"""Paint labels in napari, train a U-Net on them, segment whole stacks.

Importing this package costs nothing: each public name is imported where it is first used, so
that a reader or a dock never waits for TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unet.api import load_model, predict, relabel, run, save_model, train
    from napari_unet.augmentation import Augmentation
    from napari_unet.cluster import run_on_cluster
    from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
    from napari_unet.errors import (
        BackendError,
        ConfigError,
        DataError,
        FileError,
        ModelError,
        NapariUNetError,
    )
    from napari_unet.evaluation import evaluate
    from napari_unet.events import Report
    from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob
    from napari_unet.label_check import check
    from napari_unet.nn.model import UNetModel
    from napari_unet.nn.network import build_unet
    from napari_unet.spec import ModelSpec
    from napari_unet.worker import run_in_worker

__all__ = [
    "ArraySource",
    "Augmentation",
    "BackendError",
    "ConfigError",
    "DataError",
    "FileError",
    "ModelError",
    "ModelSpec",
    "NapariUNetError",
    "Output",
    "PredictConfig",
    "PredictJob",
    "Report",
    "TrainConfig",
    "TrainJob",
    "UNetConfig",
    "UNetModel",
    "build_unet",
    "check",
    "evaluate",
    "load_model",
    "predict",
    "relabel",
    "run",
    "run_in_worker",
    "run_on_cluster",
    "save_model",
    "train",
]
__version__ = "0.1.0"

_HOMES = {
    "api": ("load_model", "predict", "relabel", "run", "save_model", "train"),
    "cluster": ("run_on_cluster",),
    "augmentation": ("Augmentation",),
    "config": ("PredictConfig", "TrainConfig", "UNetConfig"),
    "errors": ("BackendError", "ConfigError", "DataError", "FileError", "ModelError", "NapariUNetError"),
    "evaluation": ("evaluate",),
    "events": ("Report",),
    "jobs": ("ArraySource", "Output", "PredictJob", "TrainJob"),
    "label_check": ("check",),
    "nn.model": ("UNetModel",),
    "nn.network": ("build_unet",),
    "spec": ("ModelSpec",),
    "worker": ("run_in_worker",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name where it is first used (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
