"""The model card: everything that is needed to use a trained network, in one value."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from napari_unet.config import UNetConfig
from napari_unet.errors import ConfigError
from napari_unet.settings import Settings

__all__ = [
    "OBJECT_CLASSES",
    "SCHEMA",
    "ClassInfo",
    "ModelSpec",
    "Normalization",
    "ObjectDecoding",
    "TargetKind",
    "TrainingRecord",
    "weight_shapes",
]

SCHEMA = 1
"""Version of the model card that this program writes, and the newest it reads."""


OBJECT_CLASSES = ("background", "inside", "border")
"""What a network of objects tells apart, in the order of its outputs."""

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")

TargetKind = Literal["classes", "objects"]
"""What each painted value stands for: a class of pixels, or one object."""


class ClassInfo(Settings):
    """One class of a semantic segmentation."""

    value: int = Field(
        ge=0, le=2**63 - 1, title="Value", description="The value it is painted with; 0 is background."
    )
    name: str = Field("", max_length=200, title="Name", description="What it is called.")
    color: str | None = Field(
        None, pattern="^#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?$", title="Colour", description="As #RRGGBB."
    )


class Normalization(Settings):
    """Percentile normalisation: ``(pixel - low) / (high - low)``, per channel."""

    lower: float = Field(1.0, ge=0.0, le=49.0, title="Lower percentile", description="Becomes 0.")
    upper: float = Field(99.8, ge=51.0, le=100.0, title="Upper percentile", description="Becomes 1.")
    low: tuple[float, ...] = Field(
        (), max_length=64, title="Low", description="Lower percentile of the training images, one a channel."
    )
    high: tuple[float, ...] = Field(
        (), max_length=64, title="High", description="Upper percentile of the training images, one a channel."
    )


class ObjectDecoding(Settings):
    """How probabilities of background, inside and border become objects: a seeded watershed."""

    foreground_threshold: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        title="Foreground threshold",
        description="Probability of not being background from which a pixel belongs to an object.",
    )
    seed_threshold: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        title="Seed threshold",
        description="Probability of inside from which a pixel starts an object; higher parts more objects.",
    )
    neck_depth: float = Field(
        0.0,
        ge=0.0,
        le=1000.0,
        title="Part at necks",
        description="Objects are parted where the half width of a neck is below that of both sides by more than this many pixels; 0 parts none by shape.",
    )
    min_size: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        title="Smallest object",
        description="Objects of fewer pixels are left out.",
    )
    min_confidence: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        title="Least confidence",
        description="Objects are left out whose mean probability of not being background is lower.",
    )


class TrainingRecord(Settings):
    """How a model came to be."""

    date: str = Field("", max_length=40, description="When training ended, ISO 8601, UTC.")
    steps: int = Field(0, ge=0, description="Steps whose weights these are.")
    seconds: float = Field(0.0, ge=0.0, description="Time spent training.")
    images: tuple[str, ...] = Field((), max_length=100_000, description="Names of the training images.")
    painted: int = Field(0, ge=0, description="Painted pixels of the training images.")
    score: float | None = Field(
        None, ge=0.0, le=1.0, description="Mean Dice on the region held out; none if it was not measured."
    )
    ap50: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Objects: average precision at IoU 0.5 on the region held out; none if it was not measured.",
    )
    versions: dict[str, str] = Field(default_factory=dict, description="Of the libraries used.")


class ModelSpec(Settings):
    """The model card."""

    schema_version: int = Field(SCHEMA, ge=1, description="Version of this card.")
    min_reader: int = Field(1, ge=1, description="Oldest card version a reader must know.")
    name: str = Field("unet", min_length=1, max_length=200, description="What the model is called.")
    network: UNetConfig = Field(default_factory=UNetConfig, description="Shape of the network.")
    axes: Literal["YX", "YXC", "YXS"] = Field(
        "YX", description="Axes of one slice: C channels, S colour samples (RGB)."
    )
    normalization: Normalization = Field(default_factory=Normalization)
    pixel_size: tuple[float, float] | None = Field(None, description="Of the training images, (y, x).")
    unit: str = Field("pixel", max_length=40, description="Of the pixel size.")
    classes: tuple[ClassInfo, ...] = Field(
        (ClassInfo(value=0, name="background"), ClassInfo(value=1, name="foreground")),
        min_length=2,
        max_length=254,
        description="In the order of the network's outputs; the first is background.",
    )
    unpainted: Literal["background", "ignore"] = Field(
        "background", description="What 0 meant in the training labels."
    )
    threshold: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Two classes: probability from which a pixel belongs to the higher one.",
    )
    target: TargetKind = Field(
        "classes",
        description="What the network tells apart: classes of pixels, or background, inside and border of objects.",
    )
    objects: ObjectDecoding | None = Field(
        None, description="For objects: how probabilities become objects; chosen on what was held out."
    )
    training: TrainingRecord = Field(default_factory=TrainingRecord)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.classes) != self.network.classes:
            raise ConfigError(
                f"The card names {len(self.classes)} classes but its network has {self.network.classes}."
            )
        if (self.target == "objects") != (self.objects is not None):
            raise ConfigError(
                f"The card says target {self.target!r} and {'has' if self.objects else 'lacks'} the settings that make objects: "
                "it has them where the target is objects, and only there."
            )
        if self.target == "objects" and len(self.classes) != len(OBJECT_CLASSES):
            raise ConfigError(
                f"A network of objects knows {', '.join(OBJECT_CLASSES)}, but the card names {len(self.classes)} classes."
            )
        values = [c.value for c in self.classes]
        if len(set(values)) != len(values):
            raise ConfigError(f"The card gives two classes the same value: {values}.")
        for side in (self.normalization.low, self.normalization.high):
            if side and len(side) != self.network.channels:
                raise ConfigError(
                    f"The card has a brightness range for {len(side)} channels but its network has {self.network.channels}."
                )
        return self


def weight_shapes(network: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a network, without building it.

    A model file is checked against this before anything is allocated, so a card that promises
    an absurd network costs nothing.

    Parameters
    ----------
    network : UNetConfig
        Shape of the network.

    Returns
    -------
    dict of str to tuple of int
        ``"LAYER/kernel"`` of shape (ky, kx, in, out), or (ky, kx, out, in) of a transposed convolution,
        ``"LAYER/bias"``, and with batch normalisation instead of it ``"LAYER_norm/gamma"``, ``beta``,
        ``moving_mean`` and ``moving_variance`` of shape (out,),
        in the order in which `napari_unet.nn.network.build_unet` makes them.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    norm = network.normalization == "batch"

    def conv(name: str, size: int, inputs: int, outputs: int) -> int:
        shapes[f"{name}/kernel"] = (size, size, inputs, outputs)
        if norm:
            shapes.update((f"{name}_norm/{part}", (outputs,)) for part in _NORM)
        else:
            shapes[f"{name}/bias"] = (outputs,)
        return outputs

    features = network.channels
    for level in range(network.depth):
        width = network.filters * 2**level
        features = conv(f"down{level}_conv0", 3, features, width)
        features = conv(f"down{level}_conv1", 3, features, width)
    width = network.filters * 2**network.depth
    features = conv("bottom_conv0", 3, features, width)
    features = conv("bottom_conv1", 3, features, width)
    for level in reversed(range(network.depth)):
        width = network.filters * 2**level
        conv(f"up{level}_upconv", 2, features, width)
        if network.upsampling == "transposed":
            shapes[f"up{level}_upconv/kernel"] = (2, 2, width, features)
        joined = 2 * width if network.skips == "concatenate" else width
        features = conv(f"up{level}_conv0", 3, joined, width)
        features = conv(f"up{level}_conv1", 3, width, width)
    if network.architecture == "linked-code":
        features = conv("head_conv", 3, features, 2)
    shapes["logits/kernel"] = (1, 1, features, network.logits)
    shapes["logits/bias"] = (network.logits,)
    return shapes
