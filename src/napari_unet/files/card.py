"""The model card for people: the README inside a model file, written from its spec."""

from __future__ import annotations

import math
import re

from napari_unet.config import UNetConfig
from napari_unet.spec import ModelSpec, ObjectDecoding, weight_shapes
from napari_unet.words import listed, some

__all__ = ["model_card"]

_SHOWN = 20
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def model_card(spec: ModelSpec, file_name: str) -> str:
    """Describe a model for the person who is handed its file.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    file_name : str
        Name of its file, as the examples show it.

    Returns
    -------
    str
        Markdown: what it does, classes, the images it expects, how it was trained, how to use it.
    """
    sections = (
        _summary(spec),
        _classes(spec),
        _images(spec),
        _training(spec),
        _network(spec),
        _usage(spec, file_name),
    )
    return "\n\n".join(sections) + "\n"


def _summary(spec: ModelSpec) -> str:
    names = [_text(info.name) or f"value {info.value}" for info in spec.classes]
    if spec.objects:
        return (
            f"# {_text(spec.name)}\n\n"
            f"A U-Net that finds objects in {_image_kind(spec)} and tells apart those that touch. "
            "It was trained with napari-unet, from objects painted by hand or taken from files, each with a value of its own."
        )
    return (
        f"# {_text(spec.name)}\n\n"
        f"A U-Net that gives each pixel of {_image_kind(spec)} one of {len(names)} classes: {listed(names)}. "
        "It was trained with napari-unet, from labels painted by hand or taken from files."
    )


def _classes(spec: ModelSpec) -> str:
    if spec.objects:
        return _objects(spec.objects)
    rows = [
        f"| {info.value} | {_text(info.name) or '-'} | {info.color or '-'} |"
        for info in sorted(spec.classes, key=lambda info: info.value)
    ]
    meaning = "background" if spec.unpainted == "background" else "not annotated, and not trained on"
    text = [
        "## Classes",
        "\n".join(["| value in the result | class | colour |", "|---:|---|---|", *rows]),
        f"In the training labels, 0 meant {meaning}.",
    ]
    if len(spec.classes) == 2:
        text.append(
            f"A pixel belongs to value {max(info.value for info in spec.classes)} "
            f"where its probability is at least {spec.threshold:.3g}."
        )
    return "\n\n".join(text)


def _objects(how: ObjectDecoding) -> str:
    left_out = [
        *([f"of fewer than {how.min_size} pixels"] if how.min_size else []),
        *(
            [f"whose mean probability of not being background is below {how.min_confidence:.3g}"]
            if how.min_confidence
            else []
        ),
    ]
    return (
        "## Objects\n\n"
        "The network says of each pixel how likely it is background, inside of an object, or border of one. "
        "Connected pixels whose probability of inside is at least "
        f"{how.seed_threshold:.3g} start an object each"
        + (
            f", or several where their half width shrinks by more than {how.neck_depth:.3g} pixels at a neck"
            if how.neck_depth
            else ""
        )
        + "; these grow, by a watershed, over all pixels whose probability of not "
        f"being background is at least {how.foreground_threshold:.3g}. "
        + (f"Objects {' or '.join(left_out)} are left out. " if left_out else "")
        + "The result holds the number of each pixel's object, 1, 2, ..., and 0 for background."
    )


def _images(spec: ModelSpec) -> str:
    norm = spec.normalization
    lines = [
        "## Images it expects",
        f"- {_image_kind(spec).capitalize()}. Stacks (Z or time) are segmented slice by slice, images of any size.",
    ]
    if spec.pixel_size is None:
        lines.append(
            "- The pixel size of the training images is not known. Objects should be about as large, in pixels."
        )
    else:
        y, x = spec.pixel_size
        lines.append(
            f"- Pixels of {y:.6g} x {x:.6g} {_text(spec.unit)} (y, x) in the training images. "
            "Rescale images whose pixels differ much."
        )
    lines.append(
        f"- Any brightness: the percentiles {norm.lower:g} and {norm.upper:g} of each image and channel become 0 and 1."
    )
    if norm.low and norm.high:
        ranges = [f"{low:.6g} to {high:.6g}" for low, high in zip(norm.low, norm.high, strict=False)]
        lines.append(
            f"- In the training images that was {listed(ranges)}{' (by channel)' if len(ranges) > 1 else ''}."
        )
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _training(spec: ModelSpec) -> str:
    record = spec.training
    score = (
        "not measured, because nothing was held out from training"
        if record.score is None
        else f"mean Dice {record.score:.3f}"
        + ("" if record.ap50 is None else f", and average precision of objects {record.ap50:.3f} at IoU 0.5,")
        + " on a part of the painted region that was held out from training"
    )
    if not record.steps:
        return "## Training\n\nHow it was trained is not recorded."
    lines = [
        f"- Quality: {score}.",
        f"- Trained for {record.steps:,} steps ({_duration(record.seconds)}) on images with {record.painted:,} painted pixels"
        + (f", until {_text(record.date)}." if record.date else "."),
    ]
    if record.images:
        lines.append(f"- Images: {some([_text(name) for name in record.images], _SHOWN)}.")
    if record.versions:
        lines.append(
            f"- Made with {', '.join(f'{_text(k)} {_text(v)}' for k, v in record.versions.items())}."
        )
    return "## Training\n\n" + "\n".join(lines)


def _network(spec: ModelSpec) -> str:
    network = spec.network
    shapes = weight_shapes(network)
    count = sum(math.prod(shape) for shape in shapes.values())
    kind = (
        "The U-Net of Ronneberger et al. (2015, doi:10.1007/978-3-319-24574-4_28) with padded convolutions"
        if network.architecture == "article"
        else "The U-Net of the program that the article links to"
    )
    return (
        f"## Network\n\n{kind}{_options(network)}: depth {network.depth}, {network.filters} filters in the first module, "
        f"{network.channels} {'channel' if network.channels == 1 else 'channels'} in, "
        f"{network.logits} {'map' if network.logits == 1 else 'maps'} out, {count:,} parameters.\n\n"
        "This file is a ZIP: `model.json` is this card for programs, `weights.safetensors` holds the parameters "
        "(float32, one array a layer) for any safetensors reader. Opening it runs no code from it."
    )


def _options(network: UNetConfig) -> str:
    """Say in which options a network differs from the published one."""
    words = {
        "batch normalisation": network.normalization == "batch",
        "leaky ReLU": network.activation == "leaky_relu",
        "added skips": network.skips == "add",
        "transposed up-convolutions": network.upsampling == "transposed",
    }
    chosen = [word for word, there in words.items() if there]
    return f", with {listed(chosen)}" if chosen else ""


def _usage(spec: ModelSpec, file_name: str) -> str:
    name = re.sub(r"[^\w.\- ]", "_", file_name)
    shape = {"YX": "(Y, X)", "YXC": "(Y, X, C)", "YXS": "(Y, X, 3)"}[spec.axes]
    return (
        "## How to use it\n\n"
        "In napari, with the plugin napari-unet: open Layers > Segment > U-Net > Segment (U-Net), "
        f"choose `{name}` and an image layer, press Start. Dropping the file on the viewer works too.\n\n"
        "On the command line:\n\n"
        f'```sh\nnapari-unet predict "{name}" IMAGE.tif --out LABELS.ome.tif\n```\n\n'
        "In Python:\n\n"
        "```python\n"
        "from napari_unet import load_model, predict\n\n"
        f'model = load_model("{name}")\n'
        f"labels = predict(model, image)  # image : ndarray of shape {shape}\n"
        "```"
    )


def _image_kind(spec: ModelSpec) -> str:
    channels = spec.network.channels
    if spec.axes == "YXS":
        return "colour (RGB) images"
    return "grey images with one channel" if channels == 1 else f"images with {channels} channels"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _text(text: str) -> str:
    """Return a name as plain text in Markdown: one line, nothing in it is markup."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return _SPECIAL.sub(r"\\\1", line)
