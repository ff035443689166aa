"""Beginning with the weights of another model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.config import UNetConfig
from napari_unet.errors import ModelError
from napari_unet.nn.model import Arrays
from napari_unet.spec import ClassInfo, ModelSpec, weight_shapes
from napari_unet.words import count

__all__ = ["carry_over"]

_FIRST = "down0_conv0/kernel"
_LAST = ("logits/kernel", "logits/bias")


def carry_over(
    card: ModelSpec, weights: Mapping[str, npt.NDArray[Any]], spec: ModelSpec
) -> tuple[Arrays, str]:
    """Choose the weights of a model with which another network can begin.

    Weights of equal name and shape are kept. For another number of channels each channel of the first layer gets
    the sum of its weights over the old channels, divided by the number of new ones: an image that is the same in all
    channels then gives what a grey one gave, or the reverse. For other classes, or objects instead of classes, the last
    layer stays fresh.

    Parameters
    ----------
    card : ModelSpec
        Of the model to begin with.
    weights : mapping of str to ndarray
        Its weights, by name.
    spec : ModelSpec
        Card of the network to train; it may differ in channels, classes, target and dropout.

    Returns
    -------
    weights : dict of str to ndarray of float32
        Those that are kept, by name and of the shapes of the network to train.
    sentence : str
        What is kept and what is new.

    Raises
    ------
    ModelError
        If the networks differ in more than channels, classes and dropout.
    """
    network = spec.network
    shapes = weight_shapes(network)
    old = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    names = (shapes.keys() | old.keys()) - {_FIRST, *_LAST}
    other_shapes = any(_shape(old, name) != shapes.get(name) for name in names)
    if other_shapes or card.network.activation != network.activation:
        raise ModelError(
            f"Model {card.name!r} has a network of {_described(card.network, network)}, but this training asks for one of "
            f"{_described(network, card.network)}: leave the network to be chosen (automatic), or begin with a model of that shape."
        )
    kept = {name: array for name, array in old.items() if array.shape == shapes.get(name)}
    new = []
    channels = card.network.channels, network.channels
    if channels[0] != channels[1]:
        mixed = old[_FIRST].sum(axis=2, keepdims=True) / channels[1]
        kept[_FIRST] = np.repeat(mixed, channels[1], axis=2)
        new.append(
            f"those of the first layer are spread over {count(channels[1], 'channel')} instead of {channels[0]}"
        )
    other = _other_classes(card, spec)
    if other is not None:
        kept = {name: array for name, array in kept.items() if name not in _LAST}
        new.append(f"the last layer is new, because {other}")
    what = f"all weights are kept, but {' and '.join(new)}" if new else "all weights are kept"
    shape = f"{count(network.filters, 'filter')}, depth {network.depth}"
    return kept, f"Training begins with model {card.name!r} ({shape}): {what}."


def _shape(arrays: Arrays, name: str) -> tuple[int, ...] | None:
    return tuple(arrays[name].shape) if name in arrays else None


def _other_classes(card: ModelSpec, spec: ModelSpec) -> str | None:
    """Say in which way two networks tell apart different things; None if their outputs mean the same."""
    if card.target != spec.target:
        return f"it learns {spec.target} instead of {card.target}"
    if len(card.classes) != len(spec.classes):
        return f"there are {len(spec.classes)} classes instead of {len(card.classes)}"
    # The first is background, whatever it was painted with.
    pairs = list(zip(card.classes[1:], spec.classes[1:], strict=True))
    if all(old.value == new.value and _may_be_one(old, new) for old, new in pairs):
        return None
    before, now = (", ".join(_named(info) for info in side) for side in zip(*pairs, strict=True))
    return f"it learns {now} instead of {before}"


def _may_be_one(one: ClassInfo, other: ClassInfo) -> bool:
    """Whether two classes of one value can be the same: not where both were given names that differ."""
    names = {info.name for info in (one, other)} - {"", f"class {one.value}"}
    return len(names) < 2


def _named(info: ClassInfo) -> str:
    return info.name or f"class {info.value}"


def _described(network: UNetConfig, other: UNetConfig) -> str:
    """Name the settings of a network that it doesn't share with another."""
    free = {"channels", "classes", "dropout"}
    pairs = [
        f"{name} {value}"
        for name, value in network.model_dump().items()
        if name not in free and value != getattr(other, name)
    ]
    return " and ".join(pairs) or f"{count(network.filters, 'filter')}"
