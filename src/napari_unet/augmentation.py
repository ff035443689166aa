"""How training patches are varied, as a setting."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from napari_unet.errors import ConfigError
from napari_unet.settings import Settings

__all__ = ["Augmentation", "AugmentationPreset"]

AugmentationPreset = Literal["none", "light", "full"]


class Augmentation(Settings):
    """How training patches are varied: image, labels and weights alike.

    The defaults are the preset "light".
    """

    flips: bool = Field(
        True,
        title="Flips and turns",
        description="Vary patches by flips and quarter turns (not for images with a fixed up).",
    )
    rotation: float = Field(
        15.0,
        ge=0.0,
        le=180.0,
        title="Rotation",
        description="Largest rotation of a patch in either direction, in degrees, on top of quarter turns; 180 for any angle.",
    )
    scaling: float = Field(
        0.16,
        ge=0.0,
        le=1.0,
        title="Scaling",
        description="Largest change of size, as a fraction: 0.25 for up to 1.25 times larger or smaller.",
    )
    deform: float = Field(
        0.04,
        ge=0.0,
        le=0.2,
        title="Deformation",
        description="Elastic deformation: standard deviation of the displacements on a coarse grid, as a fraction of the patch (0.04 is 10 pixels of 256).",
    )
    brightness: float = Field(
        0.1,
        ge=0.0,
        le=1.0,
        title="Brightness",
        description="Standard deviation of the change in brightness; black is 0, white is 1.",
    )
    contrast: float = Field(
        0.15,
        ge=0.0,
        le=1.0,
        title="Contrast",
        description="Standard deviation of the change in contrast, as a fraction (of its logarithm).",
    )
    gamma: float = Field(
        0.2,
        ge=0.0,
        le=1.0,
        title="Gamma",
        description="Standard deviation of the change in gamma, as a fraction (of its logarithm).",
    )
    noise: float = Field(
        0.04,
        ge=0.0,
        le=0.5,
        title="Noise",
        description="How noisy a patch becomes: standard deviation of the amplitude of its noise; black is 0, white is 1.",
    )
    blur: float = Field(
        0.0,
        ge=0.0,
        le=8.0,
        title="Blur",
        description="Largest standard deviation of a Gaussian blur, in pixels; a quarter of the patches is blurred.",
    )
    low_resolution: float = Field(
        1.0,
        ge=1.0,
        le=8.0,
        title="Low resolution",
        description="Largest factor by which resolution is lowered, in a quarter of the patches; 1 for none.",
    )

    @classmethod
    def preset(cls, name: AugmentationPreset = "light", **changes: Any) -> Augmentation:
        """Return named strengths, with `changes`.

        Parameters
        ----------
        name : {"none", "light", "full"}
            ``none``: patches as they are. ``light``: flips, small rotations and scalings, elastic deformation
            and varied light. ``full``: any angle, everything stronger, some patches blurred or of low resolution.
        **changes
            Fields to set otherwise.

        Raises
        ------
        ConfigError
            If the name or a change is unknown.
        """
        if name not in _AUGMENTATIONS:
            raise ConfigError(f"{name!r} is not a preset; choose one of {', '.join(_AUGMENTATIONS)}.")
        return cls(**{**_AUGMENTATIONS[name], **changes})


_AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {
        "flips": False,
        "rotation": 0.0,
        "scaling": 0.0,
        "deform": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "gamma": 0.0,
        "noise": 0.0,
    },
    "light": {},
    "full": {
        "rotation": 180.0,
        "scaling": 0.4,
        "deform": 0.06,
        "brightness": 0.15,
        "contrast": 0.25,
        "gamma": 0.3,
        "noise": 0.06,
        "blur": 1.5,
        "low_resolution": 2.0,
    },
}
