"""Flags of the command line, made from the settings classes."""

from __future__ import annotations

from typing import Any, Literal

from cyclopts import Parameter
from pydantic import create_model

from napari_unet.augmentation import Augmentation
from napari_unet.config import OBJECT_FIELDS, PredictConfig, TrainConfig, UNetConfig, UNetPreset
from napari_unet.errors import ConfigError
from napari_unet.jobs import TrainJob
from napari_unet.settings import Settings

__all__ = [
    "AugmentationFlags",
    "CheckFlags",
    "LabelFlags",
    "NetworkFlags",
    "PaintFlags",
    "Several",
    "StepFlags",
    "Switch",
    "TrainFlags",
    "network_of",
]

Several = Parameter(consume_multiple=True, negative=())
Switch = Parameter(negative=())


def _part_of(cls: type[Settings], *names: str) -> type[Settings]:
    """Make a settings class with only some fields of `cls`, to turn into flags."""
    fields: dict[str, Any] = {
        name: (cls.model_fields[name].annotation, cls.model_fields[name]) for name in names
    }
    return create_model(f"{cls.__name__}Flags", __base__=Settings, **fields)


NetworkFlags = _part_of(
    UNetConfig, "depth", "filters", "dropout", "normalization", "activation", "skips", "upsampling"
)
TrainFlags = _part_of(TrainConfig, *(name for name in TrainConfig.model_fields if name != "augmentation"))
AugmentationFlags = _part_of(Augmentation, *Augmentation.model_fields)
PaintFlags = _part_of(TrainJob, "unpainted", "background_value", "target", "not_finite", "pixel_size", "name")
CheckFlags = _part_of(TrainJob, "unpainted", "background_value", "target", "not_finite", "pixel_size")
LabelFlags = _part_of(PredictConfig, "threshold", *OBJECT_FIELDS, "link_slices")
StepFlags = _part_of(TrainConfig, "patch", "batch", "precision")


def network_of(preset: Literal["auto", UNetPreset], changes: dict[str, Any]) -> UNetConfig | None:
    """Return the network that was asked for; None where it is to be chosen."""
    if preset != "auto":
        return UNetConfig.preset(preset, **changes)
    if changes and "filters" not in changes:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in changes)
        raise ConfigError(
            f"{given} changes a network that isn't named: add --preset quick (16 filters), --preset article (64) or --filters."
        )
    return UNetConfig(**changes) if changes else None
