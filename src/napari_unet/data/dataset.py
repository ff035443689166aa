"""Images and what was painted on them, made ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.axes import Stack
from napari_unet.data.labels import (
    IGNORE,
    MAX_CLASSES,
    ClassMap,
    Unpainted,
    as_integers,
    check_same_shape,
    distinct,
    fit_class_map,
)
from napari_unet.data.lint_pairs import NotFinite, check_pairs, refuse_not_finite
from napari_unet.data.normalize import Range, Survey, survey
from napari_unet.data.objects import learn_objects
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop
from napari_unet.spec import OBJECT_CLASSES, TargetKind
from napari_unet.words import count, listed

__all__ = ["Dataset", "Example", "NotFinite", "fingerprints", "prepare"]

_LOOKS = 16  # slices of an image that are compared, where many are painted


@dataclass(frozen=True, eq=False)
class Example:
    """One slice to train on.

    Parameters
    ----------
    image : ndarray of float32, shape (Y, X, C)
        Pixels in the brightness range of their own stack, all finite.
    target : ndarray of uint8, shape (Y, X)
        Class index of each pixel, or `napari_unet.data.labels.IGNORE`.
    group : int
        Which image it comes from.
    index : int
        Which slice of that image.
    weight : ndarray of float16, shape (Y, X), optional
        How much each pixel counts in the cross-entropy (`napari_unet.data.weights`); all the same
        without it.
    ids : ndarray of int32, shape (Y, X), optional
        Where objects are learned: the object 1, 2, ... of each pixel, 0 for none.
    """

    image: NDArray[np.float32]
    target: NDArray[np.uint8]
    group: int
    index: int
    weight: NDArray[np.float16] | None = None
    ids: NDArray[np.int32] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything that a training needs to know of its images.

    Parameters
    ----------
    examples : tuple of Example
        The slices to train on, by image and slice. Empty if the preparation was stopped.
    class_map : ClassMap
        What the class indices mean.
    range : Range
        The usual brightness of the images: the median of their ranges, for each channel.
    painted : int
        Pixels with a label other than 0.
    target : {"classes", "objects"}
        What each painted value was taken for. The classes of objects are background, inside
        and border (`napari_unet.data.objects`).
    left_out : int
        Slices that could be trained on and were not loaded, because fewer were asked for.
    warnings : tuple of str
        Plain sentences that say what cannot be learned, though it was painted.

    What is allowed but odd is the linter's to say (`napari_unet.data.lint`).
    """

    examples: tuple[Example, ...]
    class_map: ClassMap
    range: Range
    painted: int
    target: TargetKind = "classes"
    left_out: int = 0
    warnings: tuple[str, ...] = ()


def prepare(
    images: Sequence[Stack],
    labels: Sequence[Stack],
    *,
    unpainted: Unpainted,
    background_value: int | None = None,
    target: TargetKind = "classes",
    not_finite: NotFinite = "refuse",
    lower: float = 1.0,
    upper: float = 99.8,
    most: int | None = None,
    stop: Stop = never_stop,
) -> Dataset:
    """Check images and labels, and load the slices that can be trained on.

    Of a stack only slices with paint are loaded. A single image without paint is loaded where
    unpainted means background: it shows that there is nothing to find.

    Parameters
    ----------
    images : sequence of Stack
        Images with the same number of channels.
    labels : sequence of Stack
        The labels of each, in the same order, of the same size, without channels.
    unpainted : {"background", "ignore"}
        What 0 means in the labels.
    background_value : int, optional
        With ``unpainted="ignore"``: the painted value that means background.
    target : {"classes", "objects"}
        What each painted value stands for: a class of pixels, or one object.
    not_finite : {"refuse", "ignore"}
        Whether an image with NaN or infinite pixels is refused, or those pixels become 0 and are
        not trained on.
    lower, upper : float
        Percentiles that become 0 and 1, from the whole of each image.
    most : int, optional
        Pixels to load, about; of more, slices are left out at even distances. For a look at the data.
    stop : callable
        Asked now and then. Once it answers True, a dataset without examples is returned.

    Returns
    -------
    Dataset
        The examples and what they mean.

    Raises
    ------
    DataError
        If the images and labels do not belong together, there is nothing to learn from them, or they do not fit into memory.
    """
    _check_pairs(images, labels)
    paint = [_find_paint(stack, unpainted, stop) for stack in labels]
    if stop():
        return _stopped(images[0].shape[3], unpainted)
    meaning = _find_meaning(labels, paint, unpainted, background_value, target)
    looks = [survey(image, lower, upper, stop) for image in images]
    if stop():
        return _stopped(images[0].shape[3], unpainted)
    if not_finite == "refuse":
        _refuse_not_finite(looks, images)
    examples: list[Example] = []
    painted: set[int] = set()
    slices = [(group, index) for group, p in enumerate(paint) for index in p.slices]
    pixels = sum(prod(labels[group].shape[1:3]) for group, _ in slices)
    for group, index in slices[:: ceil(pixels / most) if most and pixels else 1]:
        if stop():
            return _stopped(images[0].shape[3], unpainted)
        try:
            loaded, at_risk = _load(images[group], labels[group], looks[group], meaning, group, index)
        except MemoryError:
            raise _too_many(len(examples), len(slices)) from None
        examples.append(loaded)
        painted |= at_risk
    left_out = len(slices) - len(examples)
    hidden = _find_hidden(examples, painted, meaning, _common_name(labels), left_out) if painted else []
    return Dataset(
        tuple(examples),
        meaning.class_map,
        _usual(looks),
        sum(p.painted for p in paint),
        meaning.target,
        left_out,
        tuple(
            f"Every pixel of {name} lies on a NaN or infinite pixel, so it cannot be learned. "
            "Paint it on pixels that have a value, or repair the image."
            for name in hidden
        ),
    )


def fingerprints(images: Sequence[Stack], labels: Sequence[Stack], dataset: Dataset) -> list[str]:
    """Return what tells whether images and labels still hold what a dataset was made of.

    Parameters
    ----------
    images, labels : sequence of Stack
        As they were opened; on which grid they were loaded makes no difference.
    dataset : Dataset
        What was made of them.

    Returns
    -------
    list of str
        First of all labels, then of all images. Equal pixels give equal ones, whatever became of the file.
    """
    slices = [[e.index for e in dataset.examples if e.group == group] for group in range(len(labels))]
    some = [found[:: ceil(len(found) / _LOOKS) or 1] for found in slices]
    return [
        *(_fingerprint(stack, found, np.int64) for stack, found in zip(labels, slices, strict=True)),
        *(_fingerprint(stack, found) for stack, found in zip(images, some, strict=True)),
    ]


def _fingerprint(stack: Stack, slices: Sequence[int], dtype: type[np.int64] | None = None) -> str:
    found = hashlib.blake2b(repr((stack.shape, slices)).encode(), digest_size=16)
    for n in slices:
        found.update(np.ascontiguousarray(stack.read(n), dtype).data)
    return found.hexdigest()


@dataclass
class _Paint:
    """What is painted on one image: slices to train on, their values, painted pixels."""

    slices: list[int] = field(default_factory=list)
    values: list[NDArray[np.int64]] = field(default_factory=list)
    painted: int = 0


@dataclass(frozen=True)
class _Meaning:
    """What painted values stand for, and how a slice of them is learned."""

    target: TargetKind
    class_map: ClassMap
    objects: int = 0  # different values, where objects are learned

    def name(self, index: int) -> str:
        """Name a class for a sentence."""
        if self.target == "objects":
            return OBJECT_CLASSES[index]
        return f"class {self.class_map.values[index]}" if index else "background"

    def encode(self, painted: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Class indices of a slice, and objects where these are learned."""
        if self.target == "classes":
            return self.class_map.encode(painted), None
        background = self.class_map.background_value or 0
        objects = np.where(painted == background, 0, painted)
        known = None if self.class_map.unpainted == "background" else painted != 0
        target, ids = learn_objects(objects, known, pieces=self.objects == 1)
        if known is not None:
            target[~known] = IGNORE
        return target, ids


def _find_meaning(
    labels: Sequence[Stack],
    paint: Sequence[_Paint],
    unpainted: Unpainted,
    background_value: int | None,
    target: TargetKind,
) -> _Meaning:
    """Say which classes or objects were painted, and refuse what can be neither."""
    found = (values for p in paint for values in p.values)
    most = MAX_CLASSES if target == "classes" else None
    class_map = fit_class_map(found, unpainted, background_value, _common_name(labels), most)
    if target == "classes":
        return _Meaning(target, class_map)
    indices = tuple(range(len(OBJECT_CLASSES)))
    return _Meaning(target, ClassMap(indices, unpainted, background_value), len(class_map.values) - 1)


def _check_pairs(images: Sequence[Stack], labels: Sequence[Stack]) -> None:
    for image, stack in zip(images, labels, strict=False):
        check_same_shape(image, stack)
    for finding in islice(check_pairs(images, labels), 1):
        raise DataError(str(finding))


def _find_paint(labels: Stack, unpainted: Unpainted, stop: Stop) -> _Paint:
    paint = _Paint()
    for n in range(labels.shape[0]):
        if stop():
            break
        painted = as_integers(labels.read(n)[..., 0], labels.name)
        pixels = int(np.count_nonzero(painted))
        if pixels or (unpainted == "background" and labels.shape[0] == 1):
            paint.slices.append(n)
            paint.values.append(distinct(painted))
            paint.painted += pixels
    return paint


def _refuse_not_finite(looks: Sequence[Survey], images: Sequence[Stack]) -> None:
    for look, image in zip(looks, images, strict=True):
        if look.first_not_finite is not None:
            raise refuse_not_finite(image, look.not_finite, look.first_not_finite)


def _load(
    image: Stack, labels: Stack, look: Survey, meaning: _Meaning, group: int, index: int
) -> tuple[Example, set[int]]:
    """Load a slice; tell which classes it had where pixels without a value are ignored."""
    pixels = image.read(index)
    target, ids = meaning.encode(as_integers(labels.read(index)[..., 0], labels.name))
    painted: set[int] = set()
    if look.not_finite:
        painted = set(distinct(target).tolist()) - {IGNORE}
        target[~np.isfinite(pixels).all(axis=-1)] = IGNORE
    return Example(look.range.apply(pixels), target, group, index, ids=ids), painted


def _find_hidden(
    examples: Sequence[Example], painted: set[int], meaning: _Meaning, name: str, left_out: int
) -> list[str]:
    """Name the classes that lie on pixels without a value alone; refuse where no two others are left."""
    kept = {kind for example in examples for kind in distinct(example.target).tolist()} - {IGNORE}
    if not kept:
        raise DataError(
            f"Every painted pixel of labels {name!r} lies on a NaN or infinite pixel, so nothing can be trained on. "
            "Paint on pixels that have a value, or repair the image."
        )
    if left_out:  # what is hidden here may be in sight on another slice
        return []
    hidden = [meaning.name(kind) for kind in sorted(painted - kept)]
    if hidden and len(kept) == 1:
        raise DataError(
            f"Of labels {name!r} only {meaning.name(*kept)} is left to train on: every pixel of {listed(hidden)} lies on a NaN or infinite "
            "pixel. A network needs two classes to tell apart: paint on pixels that have a value, or repair the image."
        )
    return hidden


def _too_many(loaded: int, slices: int) -> DataError:
    return DataError(
        f"Memory ran out when {loaded} of {count(slices, 'painted slice')} had been loaded, all of which are kept in memory to train on: "
        "erase the labels of some slices, give fewer or smaller images, or close other programs."
    )


def _usual(looks: Sequence[Survey]) -> Range:
    """Take the median of the images' ranges: each image is normalised by its own, so a pooled histogram would mean less."""
    low = np.median([look.range.low for look in looks], axis=0)
    high = np.median([look.range.high for look in looks], axis=0)
    return Range(tuple(low.tolist()), tuple(high.tolist()))


def _common_name(labels: Sequence[Stack]) -> str:
    return labels[0].name if len(labels) == 1 else f"{labels[0].name} and {len(labels) - 1} more"


def _stopped(channels: int, unpainted: Unpainted) -> Dataset:
    nothing = (0.0,) * channels
    return Dataset((), ClassMap((0,), unpainted), Range(nothing, nothing), 0)
