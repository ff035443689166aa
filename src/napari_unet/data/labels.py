"""Painted values and classes: what each label means, and the labels that cannot be learned.

With ``unpainted="background"`` 0 is background and every other value a class. With
``unpainted="ignore"`` 0 is not annotated and carries no loss; one painted value is then named as
background. Results show background as 0 and every other class with the value it was painted with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.axes import Stack
from napari_unet.errors import DataError
from napari_unet.spec import ModelSpec
from napari_unet.words import some

__all__ = [
    "IGNORE",
    "MAX_CLASSES",
    "ClassMap",
    "Unpainted",
    "as_integers",
    "check_same_shape",
    "class_map_of",
    "distinct",
    "fit_class_map",
    "too_large",
]

IGNORE = 255
"""Class index of a pixel that carries no loss."""

MAX_CLASSES = 254
"""Most classes a network tells apart, background counted in."""

Unpainted = Literal["background", "ignore"]

_LARGEST = 2**63 - 1
_TABLE = 2**16
_SHOWN = 8


@dataclass(frozen=True)
class ClassMap:
    """Which painted value stands for which class.

    Parameters
    ----------
    values : tuple of int
        The value that class i is shown with; class 0 is background and shown as 0.
    unpainted : {"background", "ignore"}
        What 0 means where it is painted (or rather not painted).
    background_value : int, optional
        With ``unpainted="ignore"``: the painted value that means background.
    """

    values: tuple[int, ...]
    unpainted: Unpainted = "background"
    background_value: int | None = None

    def encode(self, painted: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn painted values into class indices.

        Parameters
        ----------
        painted : ndarray of int, any shape
            Painted values, as `as_integers` returns them.

        Returns
        -------
        ndarray of uint8, same shape
            Class index, or `IGNORE`.

        Raises
        ------
        DataError
            If a value belongs to no class.
        """
        pairs = self._painted_to_class()
        known = np.array(sorted(pairs), dtype=np.int64)
        classes = np.array([pairs[int(value)] for value in known], dtype=np.uint8)
        if painted.dtype.kind == "b" or painted.dtype.itemsize == 1:
            # a table is several times faster than a search, and 8-bit labels are the common case
            strange = [value for value in distinct(painted).tolist() if value not in pairs]
            table = np.full(256, IGNORE, np.uint8)
            table[known[known < 256]] = classes[known < 256]
            encoded = table[painted.astype(np.uint8, copy=False)]
        else:
            painted = painted.astype(np.int64, copy=False)  # uint64 would be searched as float64
            position = np.minimum(np.searchsorted(known, painted), len(known) - 1)
            wrong = known[position] != painted
            strange = np.unique(painted[wrong]).tolist() if wrong.any() else []
            encoded = classes[position]
        if strange:
            raise DataError(
                f"The labels hold {some(strange, _SHOWN)}, which no class was made for; the classes are painted {some(known.tolist(), _SHOWN)}."
            )
        return encoded

    def decode(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Turn class indices into the values that the classes were painted with.

        Parameters
        ----------
        indices : ndarray of int, any shape
            Class indices, without `IGNORE`.

        Returns
        -------
        ndarray of uint8, uint16, uint32 or uint64, same shape
            Values, in the smallest type that holds them all.
        """
        table = np.array(self.values, dtype=np.min_scalar_type(max(self.values)))
        values: NDArray[Any] = table[indices]
        return values

    def _painted_to_class(self) -> dict[int, int]:
        pairs = {value: index for index, value in enumerate(self.values)}
        if self.unpainted == "ignore":
            pairs[0] = IGNORE
            if self.background_value is not None:
                pairs[self.background_value] = 0
        return pairs


def as_integers(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return labels as whole numbers from 0 up.

    Parameters
    ----------
    labels : ndarray of bool, int, or float that holds whole numbers; any shape
        Painted values.
    name : str
        What the user knows the labels by.

    Returns
    -------
    ndarray of int, same shape
        The same values; uint8 for bool, int64 for float, else the type given.

    Raises
    ------
    DataError
        If a value is negative, not whole, not finite, or above 2**63 - 1.
    """
    if labels.dtype.kind == "b":
        return labels.astype(np.uint8)
    if labels.dtype.kind == "f":
        whole = np.isfinite(labels) & (np.floor(labels) == labels)
        if not whole.all():
            raise DataError(
                f"Labels {name!r} hold {some(_each(labels[~whole]), _SHOWN)}. Labels must be whole numbers: "
                "paint on a labels layer, or turn a probability map into labels with a threshold first."
            )
    elif labels.dtype.kind not in "ui":
        raise DataError(
            f"Labels {name!r} are of type {labels.dtype}. Labels must be whole numbers: choose a labels layer."
        )
    if labels.dtype.kind != "u" and (labels < 0).any():
        raise DataError(
            f"Labels {name!r} hold negative values: {some(_each(labels[labels < 0]), _SHOWN)}. "
            "Labels must be 0 or above: repaint these, or set them to 0."
        )
    if (large := too_large(labels)).any():
        raise DataError(
            f"Labels {name!r} hold {some(_each(labels[large]), _SHOWN)}, above the largest value, {_LARGEST}: "
            "number the classes from 1 up."
        )
    return labels.astype(np.int64) if labels.dtype.kind == "f" else labels


def too_large(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which values are above 2**63 - 1, the largest that a class can be painted with.

    Parameters
    ----------
    labels : ndarray of int or float, any shape
        Painted values.

    Returns
    -------
    ndarray of bool, same shape, or of a single False where the type holds no such value
        True where a value is too large.
    """
    if labels.dtype.kind == "f":
        return labels >= np.float32(2**63)  # 2**63 - 1 has no decimal of its own
    return labels > _LARGEST if labels.dtype == np.uint64 else np.zeros(1, np.bool_)


def distinct(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the different values of whole-number labels, ascending.

    Parameters
    ----------
    labels : ndarray of int, any shape
        Values from 0 to 2**63 - 1, as `as_integers` returns them.

    Returns
    -------
    ndarray of int64, shape (values,)
        Each value once.
    """
    if labels.size and int(labels.max()) < _TABLE:
        # counting needs no sorting, which is what makes np.unique slow on a whole image
        return np.flatnonzero(np.bincount(labels.ravel().astype(np.intp, copy=False))).astype(np.int64)
    return np.unique(labels).astype(np.int64)


def class_map_of(spec: ModelSpec) -> ClassMap:
    """Return how a model's classes are painted."""
    return ClassMap(tuple(c.value for c in spec.classes), "background")


def fit_class_map(
    painted: Iterable[NDArray[Any]],
    unpainted: Unpainted,
    background_value: int | None = None,
    name: str = "labels",
    most: int | None = MAX_CLASSES,
) -> ClassMap:
    """Find the classes that were painted.

    Parameters
    ----------
    painted : iterable of ndarray of int, any shape
        Painted values of all that is to be trained on, one array at a time.
    unpainted : {"background", "ignore"}
        What 0 means.
    background_value : int, optional
        With ``unpainted="ignore"``: the painted value that means background.
    name : str
        What the user knows the labels by.
    most : int, optional
        Classes allowed, background counted in; None for any number (values that are objects).

    Returns
    -------
    ClassMap
        Background first, then the other values in ascending order.

    Raises
    ------
    DataError
        If nothing or only one class is painted, if there are more classes than allowed, or if the
        background value is not among the painted ones.
    """
    found: set[int] = set()
    for part in painted:
        found.update(distinct(part).tolist())
    values = sorted(found - {0})
    if not values:
        raise DataError(
            f"Labels {name!r} have no painted pixels. Paint some pixels of each class, then start again."
        )
    if most is not None and len(values) + (unpainted == "background") > most:
        raise DataError(
            f"Labels {name!r} hold {len(values)} different values, but a network learns at most {most} classes, "
            "background counted in. This looks like one value for each object: train on objects, "
            "or give all objects of a kind the same value (labels > 0 becomes 1)."
        )
    if unpainted == "background":
        if len(values) == 1 and 0 not in found:
            raise DataError(
                f"Labels {name!r} hold a single value, {values[0]}, on every pixel. A network needs two classes to tell apart: "
                "leave background unpainted (0), or paint it with a value of its own."
            )
        return ClassMap((0, *values), unpainted)
    if background_value is None or background_value not in values:
        said = (
            "no background value was named"
            if background_value is None
            else f"{background_value} is named as background"
        )
        raise DataError(
            f"Labels {name!r} are painted with {some(values, _SHOWN)}, and {said}. Where unpainted pixels are ignored, "
            "one of the painted values must mean background: paint some background and name its value."
        )
    if len(values) == 1:
        raise DataError(
            f"Labels {name!r} are painted with a single value, {values[0]}, and that is background. "
            "A network needs two classes to tell apart: paint some of what is to be found with another value."
        )
    return ClassMap((0, *(v for v in values if v != background_value)), unpainted, background_value)


def check_same_shape(image: Stack, labels: Stack) -> None:
    """Refuse labels that were not drawn on this image.

    Axes of length 1 do not count, and T and Z may stand for each other, as a bare stack has no names.

    Parameters
    ----------
    image, labels : Stack
        An image and its labels; the labels have no channels.

    Raises
    ------
    DataError
        If the shapes differ, or the labels have channels.
    """
    if labels.shape[3] != 1:
        raise DataError(
            f"Labels {labels.name!r} have {labels.shape[3]} channels (axes {labels.axes}, shape {tuple(labels.array.shape)}). "
            "Labels have one value a pixel: choose a labels layer, or turn the colours into numbers."
        )
    if _sides(image) != _sides(labels):
        raise DataError(
            f"Labels {labels.name!r} have shape {labels.out_shape} ({labels.out_axes}) but image {image.name!r} has "
            f"{image.out_shape} ({image.out_axes}). They must match: pick the labels drawn on this image."
        )
    if sorted(image.slice_axes) == sorted(labels.slice_axes) and image.slice_axes != labels.slice_axes:
        raise DataError(
            f"The axes of labels {labels.name!r} are {labels.axes} but those of image {image.name!r} are {image.axes}. "
            "T and Z must come in the same order: transpose the labels."
        )


def _sides(stack: Stack) -> tuple[tuple[int, ...], tuple[int, int]]:
    return tuple(length for length in stack.slice_shape if length != 1), stack.shape[1:3]


def _each(values: NDArray[Any]) -> list[Any]:
    result: list[Any] = np.unique(values).tolist()
    return result
