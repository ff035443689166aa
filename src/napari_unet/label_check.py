"""Check labels before training: files or arrays in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Literal, cast

from napari_unet.data.axes import ArrayLike, Stack, guess_axes
from napari_unet.data.finding import Finding, limited
from napari_unet.data.labels import Unpainted, as_integers, distinct
from napari_unet.data.lint import LabelCheck, lint
from napari_unet.data.lint_pairs import NotFinite
from napari_unet.errors import DataError
from napari_unet.events import Noted, Notify, Stop, Warned, never_stop
from napari_unet.files.image import Image, open_image
from napari_unet.files.pairs import match_pairs
from napari_unet.spec import TargetKind
from napari_unet.words import count

__all__ = ["check", "check_opened", "check_resampled", "settle_target", "stacks_of"]

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
        If `axes` do not fit an array, it has no Y and X, or its pixels are no numbers.
    """
    if _are_files(images) and _are_files(labels):
        pairs = match_pairs(cast(_Where, images), cast(_Where, labels)).pairs
        return check_opened(
            [open_image(picture) for picture, _ in pairs],
            [open_image(painted) for _, painted in pairs],
            unpainted=unpainted,
            background_value=background_value,
            target=target,
            not_finite=not_finite,
            stop=stop,
        )
    if _are_files(images) or _are_files(labels):
        raise DataError(
            "Images are given as files and labels as arrays, or the reverse. Give both as one or the other."
        )
    return lint(
        *stacks_of(cast(Sequence[ArrayLike], images), cast(Sequence[ArrayLike], labels), axes),
        unpainted=unpainted,
        background_value=background_value,
        target=target,
        not_finite=not_finite,
        stop=stop,
    )


def stacks_of(
    images: Sequence[ArrayLike], labels: Sequence[ArrayLike], axes: str | None
) -> tuple[list[Stack], list[Stack]]:
    """Name the axes of images and labels that are arrays.

    Parameters
    ----------
    images, labels : sequence of array-like
        Images and the labels of each.
    axes : str or None
        Letters of the images' axes, which those of the labels follow, without channels; guessed without.

    Raises
    ------
    DataError
        If the letters do not fit an array, or its pixels are no numbers.
    """
    plain = axes and axes.replace("C", "").replace("S", "")
    return (
        [Stack(array, axes or guess_axes(array.shape), f"image {i}") for i, array in enumerate(images)],
        [Stack(array, plain or guess_axes(array.shape), f"labels {i}") for i, array in enumerate(labels)],
    )


def check_opened(
    images: Sequence[Image],
    labels: Sequence[Image],
    *,
    unpainted: Unpainted = "background",
    background_value: int | None = None,
    target: Literal["auto", "classes", "objects"] = "auto",
    not_finite: NotFinite = "refuse",
    resampled: bool = False,
    stop: Stop = never_stop,
) -> LabelCheck:
    """Check opened images and the labels of each, in the same order; pixel sizes are compared, and missing chunks told too.

    Parameters
    ----------
    images, labels : sequence of Image
        Images and the labels of each.
    resampled : bool
        Whether training brings all images to one pixel size, so that they may differ.
    unpainted, background_value, target, not_finite, stop
        As for `check`.
    """
    unit = images[0].unit if images else "pixel"
    found = lint(
        [image.stack for image in images],
        [painted.stack for painted in labels],
        unpainted=unpainted,
        background_value=background_value,
        target=target,
        not_finite=not_finite,
        pixel_sizes=[(_size(a, unit), _size(b, unit)) for a, b in zip(images, labels, strict=False)],
        unit=unit,
        resampled=resampled,
        stop=stop,
    )
    return found.with_more(
        limited(
            Finding("warning", f"image {image.name!r}", *image.gaps) for image in images if image.missing[0]
        )
    )


def check_resampled(
    labels: Sequence[Image], resampled: Sequence[Image], size: float, stop: Stop = never_stop
) -> Iterator[Finding]:
    """Find the classes that labels lose where they are brought to another pixel size.

    Parameters
    ----------
    labels, resampled : sequence of Image
        Labels without errors, and the same at that pixel size.
    size : float
        Of their pixels, in the unit of `resampled`.
    stop : callable
        Asked now and then; True ends the look without a finding.

    Yields
    ------
    Finding
        One for each painted value that is lost.
    """
    before, after = _values(labels, stop), _values(resampled, stop)
    if stop():
        return
    for value in sorted(before - after):
        yield Finding(
            "warning",
            "all labels",
            f"At pixels of {size:g} x {size:g} {resampled[0].unit} no pixel is left of the value {value}, so this class cannot be learned.",
            "Choose a smaller pixel size, or paint more of it.",
        )


def settle_target(found: LabelCheck, notify: Notify) -> TargetKind:
    """Tell what the linter found before a training, and what painted values are taken for.

    Parameters
    ----------
    found : LabelCheck
        What it found.
    notify : callable
        Is given warnings as `Warned`; hints, and why the target was proposed, as `Noted`.

    Returns
    -------
    {"classes", "objects"}
        What painted values are taken for.

    Raises
    ------
    DataError
        If there are errors: the first, and how many more.
    """
    if errors := found.of("error"):
        more = (
            f" And {count(len(errors) - 1, 'more error')}: check the labels to see all." if errors[1:] else ""
        )
        raise DataError(f"{errors[0]}{more}")
    for finding in found.of("warning"):
        notify(Warned(str(finding)))
    for finding in found.of("hint"):
        notify(Noted(str(finding)))
    if found.reason:
        notify(Noted(found.reason))
    return found.target


def _are_files(what: object) -> bool:
    if isinstance(what, str | PathLike):
        return True
    return isinstance(what, Sequence) and bool(what) and isinstance(what[0], str | PathLike)


def _values(labels: Sequence[Image], stop: Stop) -> set[int]:
    """Return the values that are painted."""
    values: set[int] = set()
    for stack in (painted.stack for painted in labels):
        for n in range(stack.shape[0]):
            if stop():
                return values
            values.update(distinct(as_integers(stack.read(n), stack.name)).tolist())
    return values - {0}


def _size(image: Image, unit: str) -> Mapping[str, float]:
    """Return the pixel size, where it is in the unit of the others."""
    return image.pixel_size if image.unit == unit else {}
