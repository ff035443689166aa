"""What the label linter finds in the shapes of paint: strokes, specks, objects, another image's labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_unet.data.finding import Finding, limited, percent
from napari_unet.data.lint_values import Meaning
from napari_unet.data.paint import MAX_SPECK, Look, Paint
from napari_unet.spec import TargetKind
from napari_unet.words import count, some

__all__ = ["check_kind", "check_objects", "check_outlines", "check_shades", "check_specks", "check_strokes"]

_GRAIN = 8
"""Mean pixels of a piece up to which values look like the noise of an image: labels have dozens and more."""

_SHADES = 32
"""Values from which that is looked at: people paint fewer."""

_CROWDED = 0.9
"""Part of the values that touch another in an image; labels of small spots are apart."""

_SMOOTHED = 8
"""Values between two main ones from which a mask's edges look smoothed: resizing and JPEG make dozens."""

_SMOOTHED_SHARE = 0.5
"""Part of the paint that in-between values of a smoothed mask cover at most: only its edges."""

_EVEN = 0.15
"""`Look.spread` up to which paint looks like strokes: those of one brush have 0 to 0.1, outlined things 0.2 to 4."""

_EVEN_ALONE = 0.12
"""The same where one value alone is painted, and strokes are therefore less sure."""

_LONG = 0.4
"""`Look.elongated` from which uneven paint looks like strokes too: they have 0.4 to 1, outlined nuclei 0 to 0.1."""

_LONG_ALONE = 0.2
"""The same where one value alone is painted, in addition to an even width."""

_UNRELATED = 1.5
"""`Outline.weakest` of strokes is below: 0.3 to 1.4 for strokes of several values, 1.5 to 20 for what was outlined."""

_STRAY = 1.05
"""`Outline.sharpness` up to which outlines ignore the image: labels of another image, or mirrored ones, have
0.95 to 1.05; labels of nine data sets that were outlined on their image have 1.15 to 40, fuzzy synapses 1.06."""

_STRAY_LEAD = 3.0
"""`Outline.lead` from which outlines fit better than the same moved elsewhere, however faint the edges are."""

_STRAY_PIXELS = 3000
"""Pixels of outline from which that can be told: in fewer, chance makes up to 10 %."""

_WHOLE_SHARE = 0.9
"""Painted share from which labels are outlines of things, though unpainted pixels are ignored."""

_SPLIT_SHARE = 0.05
"""Part of the objects of 2D images that may be in several pieces: in good data 0 to 2 % are."""

_CLICKS = 20
"""Specks up to which they may be stray clicks; more come from a threshold."""


def check_shades(paints: Sequence[Paint]) -> Iterator[Finding]:
    """Find images chosen as labels, and masks whose edges were smoothed.

    Parameters
    ----------
    paints : sequence of Paint
        What is painted.

    Yields
    ------
    Finding
        An error for an image, a warning for a mask.
    """
    yield from limited(finding for paint in paints if (finding := _shades(paint)))


def _shades(paint: Paint) -> Finding | None:
    values, counts = paint.values[paint.values != 0], paint.counts[paint.values != 0]
    looks = [look for look in paint.looks if len(look.values) >= _SMOOTHED]
    if not looks:
        return None
    name, about = paint.stack.name, f"labels {paint.stack.name!r}"
    grain = sum(int(look.sizes.sum()) for look in looks) / sum(int(look.pieces.sum()) for look in looks)
    if _smoothed(values, counts, looks):
        edges = percent(int(counts[:-1].sum()), paint.painted)
        return Finding(
            "warning",
            about,
            f"Labels {name!r} hold 0, {values[-1]} and {len(values) - 1} values between them, on {edges} of the paint, in specks. That is "
            "what resizing or JPEG makes of the edges of a mask; each value would be learned as a class or an object.",
            f"Make two values of them again: {(int(values[-1]) + 1) // 2} and above becomes {values[-1]}, the rest 0.",
        )
    touching = np.concatenate([look.touching for look in looks])
    if len(values) >= _SHADES and grain <= _GRAIN and touching.mean() >= _CROWDED:
        return Finding(
            "error",
            about,
            f"Labels {name!r} hold {len(values):,} different values in patches of {grain:.1f} pixels on average. That is what an image "
            "looks like, not labels.",
            "Choose the labels that belong to the image.",
        )
    return None


def _smoothed(values: NDArray[np.int64], counts: NDArray[np.int64], looks: Sequence[Look]) -> bool:
    if len(values) <= _SMOOTHED or counts[:-1].sum() > _SMOOTHED_SHARE * counts.sum():
        return False
    sizes = sum(int(look.sizes[look.values != values[-1]].sum()) for look in looks)
    pieces = sum(int(look.pieces[look.values != values[-1]].sum()) for look in looks)
    return sizes <= _GRAIN * pieces


def check_kind(
    paints: Sequence[Paint], meaning: Meaning, proposal: TargetKind, reason: str
) -> Finding | None:
    """Find objects where classes were meant, and the reverse.

    Parameters
    ----------
    paints : sequence of Paint
        What is painted.
    meaning : Meaning
        What was asked for.
    proposal : {"classes", "objects"}
        What the paint looks like.
    reason : str
        Why.

    Returns
    -------
    Finding or None
        A warning.
    """
    found = reason.partition(" because ")[2].partition(". ")[0].rstrip(".")
    if meaning.target == "classes":
        if proposal == "classes":
            return None
        return Finding(
            "warning",
            "all labels",
            f"Each value is to be learned as a class, but looks like one object: {found}.",
            "Choose 'Painted values are: objects', or give all objects of a kind the same value.",
        )
    drop = [0, meaning.background_value or 0]
    values = {int(v) for paint in paints for v in paint.values[~np.isin(paint.values, drop)]}
    looks = [(look, ~np.isin(look.values, drop)) for paint in paints for look in paint.looks]
    most = max((int((look.pieces - look.specks)[kept].sum()) for look, kept in looks), default=0)
    if len(values) == 1 and most > 1:
        return Finding(
            "warning",
            "all labels",
            f"All objects are painted with one value, {values.pop()}, in up to {count(most, 'separate piece')} a slice. Each piece is taken for "
            "one object, so objects that touch are learned as one.",
            "To tell touching objects apart, paint each with a value of its own. If they need not be told apart, choose 'Painted values are: "
            "classes'.",
        )
    if len(values) > 1 and proposal == "classes" and most > 2 * len(values):
        return Finding(
            "warning",
            "all labels",
            f"Each value is to be learned as one object, but looks like a class: {found}.",
            "Choose 'Painted values are: classes', or paint each object with a value of its own.",
        )
    return None


def check_objects(paints: Sequence[Paint], meaning: Meaning) -> Iterator[Finding]:
    """Find objects in several pieces, and objects that are specks."""
    if meaning.target != "objects":
        return
    drop = [0, meaning.background_value or 0]
    objects, split, small, worst = 0, 0, 0, (1, "")
    for paint in paints:
        for look in paint.looks:
            kept = ~np.isin(look.values, drop)
            pieces = np.where(kept, look.pieces - look.specks, 0)
            objects += int(np.count_nonzero(kept))
            split += int(np.count_nonzero(pieces > 1))
            small += int(np.count_nonzero(kept & (pieces == 0)))
            if pieces.size and pieces.max() > worst[0]:
                worst = int(pieces.max()), f"{look.values[pieces.argmax()]} of {paint.stack.name!r}"
    if len({int(v) for paint in paints for v in paint.values[~np.isin(paint.values, drop)]}) < 2:
        return
    if split:
        flat = all(paint.stack.shape[0] == 1 for paint in paints)
        usual = "" if flat else " In slices of a stack that is usual: one object may branch above or below."
        yield Finding(
            "warning" if flat and split > _SPLIT_SHARE * objects else "hint",
            "all labels",
            f"{split:,} of {count(objects, 'object')} ({percent(split, objects)}) {'is' if split == 1 else 'are'} in more than one piece; value {worst[1]} is in {worst[0]}.{usual}",
            "If two things have one value by mistake, give one of them another." if flat else "",
        )
    if small:
        yield Finding(
            "hint",
            "all labels",
            f"{small:,} of {count(objects, 'object')} {'has' if small == 1 else 'have'} no piece of more than {MAX_SPECK} pixels.",
            "If these are stray clicks, set them to 0.",
        )


def check_specks(paints: Sequence[Paint], meaning: Meaning) -> Iterator[Finding]:
    """Find stray clicks."""
    if meaning.target != "classes":
        return
    specks: dict[int, int] = {}
    for paint in paints:
        for look in paint.looks:
            for value, number in zip(look.values.tolist(), look.specks.tolist(), strict=True):
                if number:
                    specks[value] = specks.get(value, 0) + number
    total = sum(specks.values())
    if not total:
        return
    each = some([f"{n:,} of value {value}" for value, n in sorted(specks.items())], 6)
    if len(specks) == 1:
        each = f"of value {next(iter(specks))}"
    few = total <= _CLICKS
    yield Finding(
        "hint",
        "all labels",
        f"The labels have {count(total, 'speck')} of at most {MAX_SPECK} pixels: {each}."
        + ("" if few else " So many are usual where labels come from a threshold, and do little harm."),
        "If they are stray clicks, set them to 0." if few else "",
    )


def check_strokes(paints: Sequence[Paint], meaning: Meaning) -> Iterator[Finding]:
    """Find strokes, where all that is unpainted is to be learned as background."""
    looks = [look for paint in paints for look in paint.looks]
    if meaning.unpainted != "background" or not looks:
        return
    strokes = [look for look in looks if _looks_like_strokes(look)]
    if 2 * len(strokes) <= len(looks):
        return
    painted = sum(int(look.sizes.sum()) for look in strokes)
    area = sum(look.area for look in strokes)
    pieces = int(np.median([int(look.pieces.sum()) for look in strokes]))
    values = sorted({value for look in strokes for value in look.values.tolist()})
    if len(values) > 1:
        which = " or ".join(map(str, values)) if len(values) < 4 else f"one of {some(values)}"
        fix = f"choose 'Unpainted is: ignore' and name the value that you painted background with ({which})."
    else:
        fix = "paint some background too, with another value; then choose 'Unpainted is: ignore' and name that value."
    yield Finding(
        "warning",
        "all labels",
        f"Only {percent(painted, area)} of the pixels are painted, in {count(pieces, 'piece')} on a usual slice that look like strokes of a "
        f"brush. The other {percent(area - painted, area)} will all be learned as background.",
        f"If the strokes are examples, {fix} If all that is unpainted really is background, go on.",
    )


def _looks_like_strokes(look: Look) -> bool:
    if look.spread is None or look.elongated is None or look.outline is None:
        return False
    if look.outline.weakest >= _UNRELATED:
        return False
    if len(look.values) == 1:
        return look.spread <= _EVEN_ALONE and look.elongated >= _LONG_ALONE
    return look.spread <= _EVEN or look.elongated >= _LONG


def check_outlines(paints: Sequence[Paint], meaning: Meaning) -> Iterator[Finding]:
    """Find labels whose outlines have nothing to do with their image."""
    yield from limited(finding for paint in paints if (finding := _stray(paint, meaning)) is not None)


def _stray(paint: Paint, meaning: Meaning) -> Finding | None:
    looks = [look for look in paint.looks if look.outline and not _looks_like_strokes(look)]
    whole = meaning.unpainted == "background" or paint.painted > _WHOLE_SHARE * paint.pixels
    pixels = sum(look.outline.pixels for look in looks if look.outline)
    if not whole or pixels < _STRAY_PIXELS or 2 * len(looks) <= len(paint.looks):
        return None
    weights = [look.outline.pixels for look in looks if look.outline]
    sharpness = float(np.average([look.outline.sharpness for look in looks if look.outline], weights=weights))
    lead = float(np.average([look.outline.lead for look in looks if look.outline], weights=weights))
    if sharpness > _STRAY or lead > _STRAY_LEAD:
        return None
    return Finding(
        "warning",
        f"labels {paint.stack.name!r}",
        f"The outlines of labels {paint.stack.name!r} do not follow the image: its brightness changes as much on them as a few pixels beside them "
        f"({sharpness:.2f} times as much), and as much as it would if they lay elsewhere.",
        "Check that the labels belong to this image and are not mirrored, turned or shifted. Where classes differ by texture alone, this is normal.",
    )
