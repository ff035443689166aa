"""Check labels before training: files or arrays in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Literal, cast

from napari_unet.data.axes import ArrayLike, Stack, guess_axes
from napari_unet.data.dataset import NotFinite
from napari_unet.data.labels import Unpainted
from napari_unet.data.lint import LabelCheck, lint
from napari_unet.errors import DataError
from napari_unet.events import Stop, never_stop
from napari_unet.files.image import Image, open_image
from napari_unet.files.pairs import match_pairs

__all__ = ["check"]

_Path = str | PathLike[str]
_Where = _Path | Sequence[_Path]


def check(
    images: _Where | Sequence[ArrayLike],
    labels: _Where | Sequence[ArrayLike],
    *,
    unpainted: Unpainted = "background",
    background_value: int | None = None,
    target: Literal["auto", "classes", "objects"] = "auto",
    not_finite: NotFinite = "refuse",
    axes: str | None = None,
    stop: Stop = never_stop,
) -> LabelCheck:
    """Look at images and labels before training, and report all that is wrong or odd.

    Parameters
    ----------
    images, labels : path, sequence of paths, or sequence of array-like
        Files or folders, matched by name as ``napari-unet train`` does; or arrays, as for `train`.
    unpainted : {"background", "ignore"}
        What 0 means in the labels.
    background_value : int, optional
        With ``unpainted="ignore"``: the painted value that means background.
    target : {"auto", "classes", "objects"}
        What each other value stands for: a class of pixels, or one object. ``"auto"`` proposes.
    not_finite : {"refuse", "ignore"}
        What training does with NaN pixels of an image.
    axes : str, optional
        Letters of the axes of arrays, as for `train`; files say it themselves.
    stop : callable
        Asked now and then; True ends the check with what was found so far.

    Returns
    -------
    LabelCheck
        Findings (errors, warnings, hints), each a sentence and a way out; and what painted values are
        taken for.

    Raises
    ------
    FileError
        If a file cannot be read, or nothing matches.
    DataError
        If an array has no Y and X, or its pixels are no numbers.
    """
    sizes: list[tuple[Mapping[str, float], Mapping[str, float]]] = []
    unit = "pixel"
    if _are_files(images) and _are_files(labels):
        pairs = match_pairs(cast(_Where, images), cast(_Where, labels)).pairs
        opened = [(open_image(picture), open_image(painted)) for picture, painted in pairs]
        pictures, paint = [a.stack for a, _ in opened], [b.stack for _, b in opened]
        unit = opened[0][0].unit
        sizes = [(_size(a, unit), _size(b, unit)) for a, b in opened]
    elif _are_files(images) or _are_files(labels):
        raise DataError(
            "Images are given as files and labels as arrays, or the reverse. Give both as one or the other."
        )
    else:
        pictures = _stacks(cast(Sequence[ArrayLike], images), axes, "image")
        plain = axes and axes.replace("C", "").replace("S", "")
        paint = _stacks(cast(Sequence[ArrayLike], labels), plain, "labels")
    return lint(
        pictures,
        paint,
        unpainted=unpainted,
        background_value=background_value,
        target=target,
        not_finite=not_finite,
        pixel_sizes=sizes,
        unit=unit,
        stop=stop,
    )


def _are_files(what: object) -> bool:
    if isinstance(what, str | PathLike):
        return True
    return isinstance(what, Sequence) and bool(what) and isinstance(what[0], str | PathLike)


def _size(image: Image, unit: str) -> Mapping[str, float]:
    """Return the pixel size, where it is in the unit of the others."""
    return image.pixel_size if image.unit == unit else {}


def _stacks(arrays: Sequence[ArrayLike], axes: str | None, what: str) -> list[Stack]:
    """Name the axes of arrays; of those that `axes` does not fit, by their number."""
    return [
        Stack(
            array,
            axes if axes and len(axes) == len(array.shape) else guess_axes(array.shape),
            f"{what} {i}",
        )
        for i, array in enumerate(arrays)
    ]
