"""A run as a value: what to read, which settings, where to write.

The viewer, the command line and a cluster all make the same jobs, so every result can be
replayed from its file: ``napari-unet run JOB.yaml``.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.errors import ConfigError
from napari_unet.settings import Settings
from napari_unet.spec import ClassInfo

__all__ = [
    "ArraySource",
    "Job",
    "Output",
    "OutputKind",
    "PredictJob",
    "TrainJob",
    "job_from_content",
    "job_from_yaml",
    "job_to_yaml",
]


OutputKind = Literal["labels", "probabilities", "entropy", "uncertainty"]
"""What a segmentation can write."""


class ArraySource(Settings):
    """Where an image or its labels lie, for another process to open."""

    path: str = Field(
        min_length=1, description="A TIFF, PNG or zarr; absolute, or relative to where the run starts."
    )
    series: int = Field(0, ge=0, description="Which image of a file that holds several.")
    level: int = Field(0, ge=0, description="Which level of a pyramid; 0 is full resolution.")
    axes: str | None = Field(
        None,
        pattern="^[TZCYXS]*$",
        description="Letters of its axes, where the file does not say or the user said otherwise.",
    )
    pixel_size: dict[Literal["Z", "Y", "X"], Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="Size of a pixel along Z, Y and X, where the file does not say or the user said otherwise; "
        "then nothing that the file says of it counts.",
    )
    unit: str = Field("pixel", description="Of the pixel size, such as micrometer.")
    name: str = Field("", description="What the user calls it, where that is not the name of the file.")


class TrainJob(Settings):
    """Train a network on images and what was painted on them."""

    kind: Literal["train"] = "train"
    images: tuple[ArraySource, ...] = Field(min_length=1, description="Images.")
    labels: tuple[ArraySource, ...] = Field(
        min_length=1, description="Labels, one for each image, in the same order."
    )
    out: str = Field(min_length=1, description="The run folder.")
    network: UNetConfig | None = Field(
        None,
        description="Shape of the network; its channels and classes are set from the data. None: that of the model to "
        "start from, or chosen by the computer.",
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        title="Start from",
        description="A .unet file, or the folder of a run: its weights are where training begins. Empty for fresh weights.",
    )
    train: TrainConfig = Field(default_factory=TrainConfig)
    unpainted: Literal["background", "ignore"] = Field(
        "background",
        title="Unpainted is",
        description="What 0 means in the labels: background, or not annotated.",
    )
    background_value: int | None = Field(
        None,
        ge=1,
        title="Background value",
        description="With unpainted = ignore: the painted value that means background.",
    )
    target: Literal["auto", "classes", "objects"] = Field(
        "auto",
        title="Painted values are",
        description="classes: each value is a class of pixels. objects: each value is one object, told apart where they touch. "
        "auto: proposed from the labels.",
    )
    not_finite: Literal["refuse", "ignore"] = Field(
        "refuse",
        title="NaN pixels",
        description="Refuse an image with NaN or infinite pixels, or set them to 0 and not train on them.",
    )
    pixel_size: float | None = Field(
        None,
        ge=0.0001,
        le=1_000_000.0,
        title="Pixel size",
        description="Size of a pixel to which all images are brought before training, in the unit of the first; empty to take them as they are.",
        examples=[1.0],
    )
    classes: tuple[ClassInfo, ...] = Field(
        (), description="Names and colours of painted values, where the user gave some."
    )
    name: str = Field(
        "unet", min_length=1, max_length=200, title="Name", description="What to call the model."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.images) != len(self.labels):
            raise ConfigError(
                f"A job needs one labels source for each image, but has {len(self.labels)} for {len(self.images)}."
            )
        if self.unpainted == "background" and self.background_value is not None:
            raise ConfigError(
                "A background value is only used where unpainted pixels are ignored: "
                "set unpainted to ignore, or leave the background value out."
            )
        return self


class Output(Settings):
    """One thing a segmentation writes."""

    kind: OutputKind = Field(
        "labels",
        title="Output",
        description="labels: the class or object of each pixel. probabilities: of each class. entropy: how unsure the network is. "
        "uncertainty: the same over several passes with dropout.",
    )
    path: str = Field(min_length=1, description="A .zarr folder or an .ome.tif file.")


class PredictJob(Settings):
    """Apply a model to an image."""

    kind: Literal["predict"] = "predict"
    model: str = Field(min_length=1, description="A .unet file.")
    image: ArraySource
    given: Literal["image", "probabilities"] = Field(
        "image",
        description="What `image` holds: an image, or probabilities that this model computed of one before. "
        "From these, labels are made anew without the network.",
    )
    outputs: tuple[Output, ...] = Field(min_length=1, description="What to write, and where.")
    window: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = Field(
        None,
        description="(start, stop) in slices, y and x of the part to segment; the rest of the output is 0. None for all.",
    )
    config: PredictConfig = Field(default_factory=PredictConfig)
    overwrite: bool = Field(False, title="Overwrite", description="Replace an output that another run made.")
    dry_run: bool = Field(
        False,
        title="Estimate only",
        description="Say how much memory and time it takes, and write nothing.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kinds = [output.kind for output in self.outputs]
        paths = [output.path for output in self.outputs]
        if len(set(kinds)) != len(kinds) or len(set(paths)) != len(paths):
            raise ConfigError(
                f"Each output is written once, to a path of its own, but the job asks for {kinds} at {paths}."
            )
        if self.given == "probabilities" and kinds != ["labels"]:
            raise ConfigError(
                f"From stored probabilities only labels are made, but the job asks for {' and '.join(kinds)}: "
                "ask for labels, or give the image."
            )
        if self.given == "probabilities" and self.dry_run:
            raise ConfigError(
                "Labels are made anew in moments, without the network: there is nothing to estimate."
            )
        for output in self.outputs:
            if not output.path.lower().endswith((".zarr", ".ome.tif", ".ome.tiff")):
                raise ConfigError(
                    f"{output.path}: an output is a .zarr folder or an .ome.tif file; give it one of these endings."
                )
            if _is_within(self.image.path, output.path):
                raise ConfigError(
                    f"{output.path} is what is read, and would be replaced by the result: "
                    "write the result to another name or folder."
                )
        for axis, (start, stop) in zip(("slice", "y", "x"), self.window or (), strict=False):
            if not 0 <= start < stop:
                raise ConfigError(
                    f"The window's {axis} range {start} to {stop} is empty: its stop must be above its start, from 0 up."
                )
        return self


def _is_within(path: str, place: str) -> bool:
    """Whether a path is a place, or lies in it, by whatever names."""
    inner, outer = Path(os.path.realpath(path)), Path(os.path.realpath(place))
    if outer == inner or outer in inner.parents:
        return True
    with suppress(OSError):  # one of them isn't there
        # Only the file system knows whether upper and lower case are the same to it.
        return inner.samefile(outer)
    return False


Job = Annotated[TrainJob | PredictJob, Field(discriminator="kind")]


def job_to_yaml(job: TrainJob | PredictJob) -> str:
    """Write a job as YAML, every setting spelled out."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def job_from_yaml(text: str) -> TrainJob | PredictJob:
    """Read a job from YAML (or JSON, which is YAML too).

    Raises
    ------
    ConfigError
        If the text is not YAML, or not a job.
    """
    content: Any
    try:
        content = json.loads(text)  # of "\ud83d\ude00" YAML would read each half alone
    except ValueError:
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"This is not YAML: {' '.join(str(error).split())}.") from None
    return job_from_content(content)


def job_from_content(content: Any) -> TrainJob | PredictJob:
    """Read a job from what YAML or JSON gave.

    Raises
    ------
    ConfigError
        If it is not a job.
    """
    if not isinstance(content, dict) or content.get("kind") not in ("train", "predict"):
        raise ConfigError("This is not a job: it needs 'kind: train' or 'kind: predict'.")
    cls = TrainJob if content["kind"] == "train" else PredictJob
    return cls(**{str(key): value for key, value in content.items()})
