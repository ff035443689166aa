"""The label linter: what a user should know of images and labels before training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from napari_unet.data.axes import Stack
from napari_unet.data.finding import Finding, Severity, limited
from napari_unet.data.labels import Unpainted
from napari_unet.data.lint_pairs import (
    NotFinite,
    PixelSizes,
    check_image,
    check_pairs,
    check_pixel_sizes,
    fits,
)
from napari_unet.data.lint_shapes import (
    check_kind,
    check_objects,
    check_outlines,
    check_shades,
    check_specks,
    check_strokes,
)
from napari_unet.data.lint_values import Meaning, check_classes, check_emptiness, check_numbers, describe
from napari_unet.data.paint import Paint, survey_paint
from napari_unet.data.target_kind import judge_target
from napari_unet.events import Stop, never_stop
from napari_unet.spec import TargetKind

__all__ = ["Finding", "LabelCheck", "PixelSizes", "Severity", "lint"]

_ORDER: tuple[Severity, ...] = ("error", "warning", "hint")


@dataclass(frozen=True)
class LabelCheck:
    """What the linter has to say.

    Parameters
    ----------
    findings : tuple of Finding
        Errors first, then warnings, then hints. The last hint says what is painted.
    target : {"classes", "objects"}
        What painted values are taken for: as asked, or as proposed.
    reason : str
        Why, where it was proposed; else empty.
    """

    findings: tuple[Finding, ...]
    target: TargetKind
    reason: str = ""

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def with_more(self, findings: Iterable[Finding]) -> LabelCheck:
        """Return the check with more findings, in its order."""
        found = (*self.findings, *findings)
        return replace(
            self, findings=tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity)))
        )


def lint(
    images: Sequence[Stack],
    labels: Sequence[Stack],
    *,
    unpainted: Unpainted,
    background_value: int | None = None,
    target: Literal["auto", "classes", "objects"] = "auto",
    not_finite: NotFinite = "refuse",
    pixel_sizes: Sequence[PixelSizes] = (),
    unit: str = "pixel",
    resampled: bool = False,
    stop: Stop = never_stop,
) -> LabelCheck:
    """Look at images and labels before training, and report all that is wrong or odd.

    Nothing is raised, whatever the labels hold. Labels are read once, slice by slice, so memory does not
    grow with them; shapes (strokes, pieces, outlines) are looked at on about 16 megapixels of painted
    slices, spread over all labels, and a hint says so where that is not all.

    Parameters
    ----------
    images : sequence of Stack
        Images.
    labels : sequence of Stack
        The labels of each, in the same order.
    unpainted : {"background", "ignore"}
        What 0 means in the labels.
    background_value : int, optional
        With ``unpainted="ignore"``: the painted value that means background.
    target : {"auto", "classes", "objects"}
        What each other value stands for: a class of pixels, or one object. ``"auto"`` proposes.
    not_finite : {"refuse", "ignore"}
        What training does with NaN pixels of an image.
    pixel_sizes : sequence of (mapping, mapping), optional
        Pixel size of each image and of its labels, by axis letter; an empty mapping where it is unknown.
    unit : str
        Unit of all pixel sizes.
    resampled : bool
        Whether training brings all images to one pixel size, so that they may differ.
    stop : callable
        Asked now and then. Once it answers True, findings on what was read so far are returned.

    Returns
    -------
    LabelCheck
        Findings, and what painted values are taken for.
    """
    findings = list(check_pairs(images, labels))
    findings += check_pixel_sizes(images, labels, pixel_sizes, unit, resampled=resampled)
    findings += limited(found for image in images if (found := check_image(image, not_finite, stop=stop)))
    partners = [
        images[i] if i < len(images) and fits(images[i], stack) else None for i, stack in enumerate(labels)
    ]
    paints = survey_paint(labels, partners, stop=stop)
    proposal, reason = judge_target([look for p in paints for look in p.looks], background_value)
    meaning = Meaning(unpainted, background_value, proposal if target == "auto" else target)
    if not stop():
        findings += _check_paint(paints, meaning, proposal, reason)
    return LabelCheck((), meaning.target, reason if target == "auto" else "").with_more(findings)


def _check_paint(
    paints: Sequence[Paint], meaning: Meaning, proposal: TargetKind, reason: str
) -> Iterator[Finding]:
    """Find what is wrong or odd in the paint; labels that are no labels are left out of all that follows."""
    yield from limited(found for paint in paints if (found := check_numbers(paint)))
    usable = [paint for paint in paints if paint.stack.shape[3] == 1 and not paint.unusable.any()]
    shades = list(check_shades(usable))
    yield from shades
    if not usable or shades:
        return
    yield from check_emptiness(usable, meaning)
    classes = list(check_classes(usable, meaning))
    yield from classes
    if any(finding.severity == "error" for finding in classes):
        return
    if kind := check_kind(usable, meaning, proposal, reason):
        yield kind
    else:
        yield from check_objects(usable, meaning)
        yield from check_specks(usable, meaning)
    yield from check_strokes(usable, meaning)
    yield from check_outlines(usable, meaning)
    seen, looked = sum(len(paint.looks) for paint in usable), sum(paint.looked for paint in usable)
    if seen < looked:
        slices = sum(paint.stack.shape[0] - len(paint.empty) for paint in usable)
        what = "painted slices" if looked == slices else "parts of the painted slices"
        yield Finding(
            "hint",
            "all labels",
            f"Pixels were counted on all slices. Shapes were looked at on {seen:,} of {looked:,} {what}, spread evenly.",
        )
    yield describe(usable, meaning)
