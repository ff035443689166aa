"""The settings of a network, of its training and of its use."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from napari_unet.augmentation import Augmentation
from napari_unet.errors import ConfigError
from napari_unet.settings import Settings

__all__ = ["OBJECT_FIELDS", "PredictConfig", "TrainConfig", "UNetConfig", "UNetPreset"]

OBJECT_FIELDS = ("seed_threshold", "neck_depth", "min_size", "min_confidence")
"""What `PredictConfig` may overrule of a model's `napari_unet.spec.ObjectDecoding`, by the same name."""

UNetPreset = Literal["article", "quick", "quick-norm", "linked-code"]


class UNetConfig(Settings):
    """The shape of a U-Net.

    The default is the network of Ronneberger et al. 2015 with "same" padding: contracting
    modules of two 3x3 convolutions and a 2x2 pooling, a bottleneck of two 3x3 convolutions
    with dropout, expanding modules with concatenated skips, and a 1x1 convolution to logits.
    """

    ndim: int = Field(
        2,
        ge=2,
        le=3,
        title="Dimensions",
        description="Spatial dimensions: 2 (slice by slice); 3 is not built yet.",
    )
    channels: int = Field(
        1, ge=1, le=64, title="Channels", description="Channels of the image: 1 for grey, 3 for RGB."
    )
    classes: int = Field(2, ge=2, le=254, title="Classes", description="Classes, background counted in.")
    depth: int = Field(
        4, ge=1, le=6, title="Depth", description="Contracting modules; each halves the resolution."
    )
    filters: int = Field(
        64,
        ge=1,
        le=256,
        title="Filters",
        description="Filters of the first module; each next one doubles them.",
    )
    dropout: float = Field(
        0.5,
        ge=0.0,
        le=0.9,
        title="Dropout",
        description="Fraction of features dropped at the bottom while training.",
    )
    architecture: Literal["article", "linked-code"] = Field(
        "article",
        title="Architecture",
        description="The published network, or the program it links to, rebuilt exactly.",
    )
    normalization: Literal["none", "batch"] = Field(
        "none",
        title="Normalisation",
        description="Of features after each convolution: none, as published, or batch normalisation.",
    )
    activation: Literal["relu", "leaky_relu"] = Field(
        "relu",
        title="Activation",
        description="After each convolution: ReLU, as published, or leaky ReLU (slope 0.01 below 0).",
    )
    skips: Literal["concatenate", "add"] = Field(
        "concatenate",
        title="Skips",
        description="How features of the contracting side join the expanding side: concatenated, as published, or added.",
    )
    upsampling: Literal["nearest", "transposed"] = Field(
        "nearest",
        title="Upsampling",
        description="Nearest-neighbour upsampling and a 2x2 convolution, or a 2x2 transposed convolution of stride 2.",
    )

    @model_validator(mode="after")
    def _built(self) -> Self:
        if self.ndim == 3:
            raise ConfigError(
                "A network of 3 dimensions is not built yet: set ndim to 2 (a stack is then segmented slice by slice)."
            )
        if self.architecture == "linked-code" and self.classes != 2:
            raise ConfigError(
                f"The linked-code network ends in a single sigmoid, so it knows 2 classes, not {self.classes}: "
                "choose the article or quick preset for more."
            )
        changed = [
            name
            for name in ("normalization", "activation", "skips", "upsampling")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if self.architecture == "linked-code" and changed:
            raise ConfigError(
                f"The linked-code network is rebuilt exactly, so it takes no other {' and '.join(changed)}: "
                "choose the article or quick preset for that."
            )
        return self

    @classmethod
    def preset(cls, name: UNetPreset = "article", **changes: Any) -> UNetConfig:
        """Return a named network, with `changes`.

        Parameters
        ----------
        name : {"article", "quick", "quick-norm", "linked-code"}
            ``article``: 64 filters, 31,030,593 parameters. ``quick``: the same with 16 filters.
            ``quick-norm``: quick with batch normalisation.
            ``linked-code``: the article's linked program, 31,031,685 parameters.
        **changes
            Fields to set otherwise.

        Raises
        ------
        ConfigError
            If the name or a change is unknown.
        """
        presets: dict[str, dict[str, Any]] = {
            "article": {},
            "quick": {"filters": 16},
            "quick-norm": {"filters": 16, "normalization": "batch"},
            "linked-code": {"architecture": "linked-code"},
        }
        if name not in presets:
            raise ConfigError(f"{name!r} is not a preset; choose one of {', '.join(presets)}.")
        return cls(**{**presets[name], **changes})

    @property
    def stride(self) -> int:
        """Pixels between two positions at the bottom: sizes are padded to a multiple of it."""
        return int(2**self.depth)

    @property
    def logits(self) -> int:
        """Channels of the output: 1 for two classes (sigmoid), else one a class (softmax)."""
        return 1 if self.classes == 2 else self.classes


class TrainConfig(Settings):
    """How a network is trained."""

    minutes: float = Field(
        10.0,
        ge=0.1,
        le=10_000.0,
        title="Minutes",
        description="Time to train, in minutes; used when steps is 0.",
    )
    steps: int = Field(
        0,
        ge=0,
        le=10_000_000,
        title="Steps",
        description="Steps to train; 0 means as many as fit in the minutes.",
    )
    patch: int | None = Field(
        None,
        ge=16,
        le=2048,
        multiple_of=16,
        title="Patch",
        description="Side of a training patch, in pixels; empty to choose it by the objects and images.",
        examples=[256],
    )
    batch: int | None = Field(
        None,
        ge=1,
        le=256,
        title="Batch",
        description="Patches in one step; empty to choose by patch, computer and memory.",
        examples=[2],
    )
    learning_rate: float | None = Field(
        None,
        ge=1e-7,
        le=1.0,
        title="Learning rate",
        description="Peak learning rate, after the warm-up; empty to choose by the network.",
        examples=[1e-3],
    )
    warmup: int = Field(
        50, ge=0, le=10_000, title="Warm-up", description="Steps in which the learning rate rises."
    )
    augmentation: Augmentation = Field(
        default_factory=Augmentation,
        title="Augmentation",
        description="How patches are varied.",
    )
    border_weight: float = Field(
        10.0,
        ge=0.0,
        le=100.0,
        title="Border weight",
        description="How much more a pixel in a narrow gap between two regions counts (membranes, touching cells); 0 for no more. Used where unpainted is background, and for objects.",
    )
    validation: float = Field(
        0.15,
        ge=0.0,
        le=0.5,
        title="Held out",
        description="Fraction of the painted region held out to measure quality (of whole images and slices as many as it takes to reach about 2 megapixels of paint, at most); 0 for none.",
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, title="Seed", description="The same seed gives the same training."
    )
    patience: int = Field(
        10,
        ge=0,
        le=1000,
        title="Patience",
        description="Measurements on the held-out region without a better one after which training ends (it is measured 20 times at most); 0 to always train to the end.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        title="Precision",
        description="auto: bfloat16 on a GPU or processor that computes with it, else float32. Steps are faster with it, and as many of them end almost as well.",
    )
    checkpoint_seconds: float = Field(
        60.0,
        ge=0.0,
        le=3600.0,
        title="Checkpoint every",
        description="Seconds between two checkpoints; at most this much is lost when the computer dies.",
    )


class PredictConfig(Settings):
    """How a trained network is applied."""

    normalize: Literal["image", "model"] = Field(
        "image",
        title="Brightness range",
        description="Take black and white from this image (percentiles of the whole of it), or as the training images had them.",
    )
    pixel_size: Literal["image", "model"] = Field(
        "image",
        title="Pixel size",
        description="Segment the image as it is, or brought to the pixel size of the training images; the result has the image's own pixels in both.",
    )
    threshold: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        title="Threshold",
        description="Two classes: probability from which a pixel counts. Objects: that of not being background. Empty for the model's own.",
    )
    seed_threshold: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        title="Seed threshold",
        description="Objects: probability of inside from which a pixel starts an object, so that a higher one parts more of them; empty for the model's own.",
    )
    neck_depth: float | None = Field(
        None,
        ge=0.0,
        le=1000.0,
        title="Part at necks",
        description="Objects: parted where the half width of a neck is below that of both sides by more than this many pixels; 0 parts none by shape; empty for the model's own.",
    )
    min_size: int | None = Field(
        None,
        ge=0,
        le=1_000_000_000,
        title="Smallest object",
        description="Objects: those of fewer pixels are left out; empty for the model's own.",
    )
    min_confidence: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        title="Least confidence",
        description="Objects: left out where the mean probability of not being background is lower; empty for the model's own.",
    )
    link_slices: bool = Field(
        False,
        title="Join slices",
        description="Objects: join what overlaps in neighbouring slices along Z, so that an object has one number through the stack.",
    )
    average: bool = Field(
        False,
        title="Average turns",
        description="Test-time averaging of the answers for the eight flips and quarter turns of the image: a little better, eight times the work.",
    )
    passes: int = Field(
        8,
        ge=2,
        le=64,
        title="Dropout passes",
        description="Uncertainty: how often the network answers with another part of its features dropped.",
    )
    halo: Literal["exact", "fast"] = Field(
        "exact",
        title="Halo",
        description="How far tiles overlap: as far as the network looks, so that no seam is possible, or 64 pixels, which is faster and off by up to about 0.01.",
    )
    tile_megapixels: float | None = Field(
        None,
        ge=0.01,
        le=64.0,
        title="Tile",
        description="Largest tile computed at once, in megapixels; empty for what fits into half of the free memory, and 6.75 at most, on a GPU 9.",
        examples=[6.75],
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        title="Precision",
        description="auto: bfloat16 on a GPU or processor that computes with it, else float32. bfloat16 is faster there, and a little less exact.",
    )
    probability_type: Literal["uint8", "float32"] = Field(
        "uint8",
        title="Maps as",
        description="Probabilities and maps of uncertainty as uint8 (0 to 255 stands for 0 to 1) or float32.",
    )

    def with_tile(self, megapixels: float) -> Self:
        """Copy these settings with another largest tile, or the nearest that is possible."""
        return self.replace(tile_megapixels=min(max(megapixels, 0.01), 64.0))
