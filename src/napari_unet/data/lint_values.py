"""What the label linter finds in painted values: numbers that are no labels, and what labels mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_unet.data.finding import Finding, from_refusal, limited, percent
from napari_unet.data.holdout import MIN_CLASS_PIXELS, MIN_VALIDATION_PIXELS
from napari_unet.data.labels import MAX_CLASSES, Unpainted, fit_class_map
from napari_unet.data.paint import Paint
from napari_unet.errors import DataError
from napari_unet.spec import TargetKind
from napari_unet.words import count, some

__all__ = ["Meaning", "check_classes", "check_emptiness", "check_numbers", "describe"]

_LARGE = 2**16 - 1
"""Value above which results take 4 bytes a pixel or more, for the sake of a class's number."""

_SMALL = 20
"""Numbers up to which people count classes; 255 beside such is seldom the next class."""

_MAIN = 0.95
"""Part of the paint from which a value is the only one that counts: some files have stray pixels."""

_SHOWN = 6


@dataclass(frozen=True)
class Meaning:
    """How training will understand the paint.

    Parameters
    ----------
    unpainted : {"background", "ignore"}
        What 0 means.
    background_value : int or None
        With ``unpainted="ignore"``: the painted value that means background.
    target : {"classes", "objects"}
        What each other value stands for.
    """

    unpainted: Unpainted
    background_value: int | None
    target: TargetKind


def check_numbers(paint: Paint) -> Finding | None:
    """Find what is no label: colours, decimals, NaN, negative and too large numbers."""
    name, wrong = paint.stack.name, paint.unusable
    about = f"labels {name!r}"
    if paint.stack.shape[3] != 1:
        return _colours(paint)
    if wrong.not_whole:
        probability = wrong.low >= 0 and wrong.high <= 1
        looks = "a probability map" if probability else "an image or a measurement"
        return Finding(
            "error",
            about,
            f"Labels {name!r} hold decimals, from {wrong.low:.3g} to {wrong.high:.3g}, on {percent(wrong.not_whole, paint.pixels)} "
            f"of the pixels. Labels are whole numbers, so this looks like {looks}.",
            "Turn it into labels with a threshold (above 0.5 becomes 1, the rest 0), or choose the labels."
            if probability
            else "Choose the labels layer or file that belongs to the image.",
        )
    if wrong.not_finite:
        return Finding(
            "error",
            about,
            f"Labels {name!r} hold no number at all (NaN or infinite) on {count(wrong.not_finite, 'pixel')}.",
            "Set these pixels to 0.",
        )
    if wrong.negative:
        only = wrong.low == -1
        return Finding(
            "error",
            about,
            f"Labels {name!r} hold negative values, down to {wrong.low:.0f}, on {count(wrong.negative, 'pixel')} "
            f"({percent(wrong.negative, paint.pixels)}). Labels are 0 or above.",
            "If -1 marks what nobody annotated, set it to 0 and choose 'Unpainted is: ignore'; else repaint these pixels."
            if only
            else "Repaint these pixels, or set them to 0.",
        )
    if wrong.too_large:
        return Finding(
            "error",
            about,
            f"Labels {name!r} hold values above the largest that can be stored ({2**63 - 1}), on {count(wrong.too_large, 'pixel')}.",
            "Number the classes from 1 up.",
        )
    return None


def _colours(paint: Paint) -> Finding:
    name, channels = paint.stack.name, paint.stack.shape[3]
    sentence = (
        f"Labels {name!r} are a colour picture: each pixel holds {channels} numbers, where labels have one."
    )
    if paint.grey:
        sentence += f" All {channels} are the same, so nothing is lost by keeping one."
        fix = "Keep one of the channels (in Fiji: Image > Type > 8-bit)."
    elif paint.colours <= MAX_CLASSES:
        sentence += f" It has {paint.colours} different colours, probably one for each class."
        fix = "Give each colour a number of its own (0 for background, then 1, 2, 3 …) and save the numbers as a grey picture."
    else:
        sentence += f" It has more than {MAX_CLASSES} different colours, so it is probably an image, or an image with labels drawn over it."
        fix = "Choose the file that holds the labels alone, or paint on a labels layer."
    return Finding("error", f"labels {name!r}", sentence, fix)


def check_emptiness(paints: Sequence[Paint], meaning: Meaning) -> Iterator[Finding]:
    """Find slices and images without paint, and say what becomes of them."""
    stacks = [p for p in paints if p.stack.shape[0] > 1 and p.empty and p.painted]
    yield from limited(_empty_slices(paint, meaning) for paint in stacks)
    blank = [paint for paint in paints if not paint.painted and paint.stack.shape[3] == 1]
    if not blank or len(blank) == len(paints):
        return
    names = some([repr(paint.stack.name) for paint in blank])
    one = len(blank) == 1
    found = f"{len(blank)} of the {len(paints)} labels {'has' if one else 'have'} no paint at all: {names}."
    these = "this image" if one else "these images"
    learned = meaning.unpainted == "background" and all(paint.stack.shape[0] == 1 for paint in blank)
    if learned:
        yield Finding(
            "warning",
            names,
            f"{found} As unpainted means background, every pixel of {these} will be learned as background.",
            "That is right if there is nothing to find there. What is not painted yet should be left out.",
        )
    else:
        yield Finding(
            "hint",
            names,
            f"{found} Nothing is learned from {these}.",
            "Paint there, or leave it out.",
        )


def _empty_slices(paint: Paint, meaning: Meaning) -> Finding:
    slices = paint.stack.shape[0]
    painted = slices - len(paint.empty)
    outcome = (
        "They are left out, and do not count as background, though unpainted means background on the others."
        if meaning.unpainted == "background"
        else "Nothing is learned from them."
    )
    return Finding(
        "hint",
        f"labels {paint.stack.name!r}",
        f"{len(paint.empty)} of the {slices} slices of labels {paint.stack.name!r} have no paint. {outcome} "
        f"Training uses the other {painted}.".replace("the other 1.", "the other one."),
    )


def check_classes(paints: Sequence[Paint], meaning: Meaning) -> Iterator[Finding]:
    """Find what painted values make of classes: none, one, too many, too little of one."""
    pool = _pool(paints)
    trained = _trained(paints)
    try:
        fit_class_map(
            [np.array(sorted(trained), np.int64)],
            meaning.unpainted,
            meaning.background_value,
            some([paint.stack.name for paint in paints], 1),
            MAX_CLASSES if meaning.target == "classes" else None,
        )
    except DataError as refusal:
        yield _refused(refusal, pool, paints, meaning)
        return
    strange = list(_two_ways(paints)) if meaning.target == "classes" else []
    yield from strange or _strange_numbers(paints, pool, meaning)
    if meaning.target == "classes":
        yield from _too_little(trained, meaning)
        if meaning.unpainted == "background" and 0 not in trained:
            yield Finding(
                "hint",
                "all labels",
                f"Every pixel is painted, with {_values(sorted(trained))}, so nothing is learned as background.",
                "That is right if each pixel belongs to one of these classes. If one of the values means background, choose "
                "'Unpainted is: ignore' and name that value.",
            )


def _refused(refusal: DataError, pool: dict[int, int], paints: Sequence[Paint], meaning: Meaning) -> Finding:
    """Say what training would refuse with, and more of the way out where the paint tells."""
    finding = from_refusal(refusal, "all labels" if len(paints) > 1 else f"labels {paints[0].stack.name!r}")
    painted = sorted(pool.keys() - {0})
    total = sum(pool.values())
    if meaning.unpainted == "ignore" and len(painted) == 1 and meaning.background_value is None:
        share = percent(total - pool.get(0, 0), total)
        return Finding(
            "error",
            finding.about,
            f"Only one value, {painted[0]}, is painted, on {share} of the pixels, and what is unpainted is to be ignored: then there is "
            "nothing to tell it apart from.",
            "If all that is unpainted is background, choose 'Unpainted is: background'. Else paint some background with another "
            "value, and name that value.",
        )
    if meaning.unpainted == "background" and len(painted) == 1 and 0 in pool:
        return replace(
            finding, sentence=finding.sentence.replace("pixel.", "pixel of the slices with paint.")
        )
    return finding


def _strange_numbers(paints: Sequence[Paint], pool: dict[int, int], meaning: Meaning) -> Iterator[Finding]:
    """Find numbers that usually stand for something else than a class or an object."""
    painted = [value for value in sorted(pool) if value]
    total = sum(pool.values())
    for paint in paints:
        bits = 8 * paint.stack.dtype.itemsize
        without_sign = 2**bits - 1
        if paint.stack.dtype.kind == "u" and bits in (16, 32) and without_sign in pool:
            yield Finding(
                "warning",
                f"labels {paint.stack.name!r}",
                f"The value {without_sign} is painted on {percent(pool[without_sign], total)} of the pixels. That is how files store -1, which "
                "often marks what nobody annotated.",
                "If so, set these pixels to 0 and choose 'Unpainted is: ignore'. Else nothing is wrong.",
            )
            break
    if meaning.target == "objects":
        return
    if painted == [255] and meaning.unpainted == "background":
        yield Finding(
            "hint",
            "all labels",
            f"The labels hold 0 and 255, as many programs save masks. That is fine: 255 ({percent(pool[255], total)} of the "
            "pixels) is the one class, and results show it as 255 again.",
        )
    elif (
        255 in painted
        and meaning.background_value != 255
        and max([v for v in painted if v != 255], default=255) <= _SMALL
    ):
        yield Finding(
            "hint",
            "all labels",
            f"255 is painted on {percent(pool[255], total)} of the pixels, beside {_values([v for v in painted if v != 255])}. It will be learned as a "
            "class of its own, but many data sets use 255 for what nobody annotated.",
            "If that is so here, set these pixels to 0 and choose 'Unpainted is: ignore'.",
        )
    if painted and painted[-1] > _LARGE and painted[-1] not in (2**16 - 1, 2**32 - 1):
        yield Finding(
            "hint",
            "all labels",
            f"The largest painted value is {painted[-1]:,}. That works, but results then need {np.min_scalar_type(painted[-1]).itemsize} bytes for each pixel.",
            "Number the classes 1, 2, 3 … to save space.",
        )


def _two_ways(paints: Sequence[Paint]) -> Iterator[Finding]:
    """Find the same mask saved as 0/1 in some files and as 0/255 in others."""
    main: dict[int, list[str]] = {}
    for paint in paints:
        values, counts = paint.values[paint.values != 0], paint.counts[paint.values != 0]
        if not len(values):
            continue
        if counts.max() < _MAIN * counts.sum():
            return
        main.setdefault(int(values[counts.argmax()]), []).append(paint.stack.name)
    if len(main) == 2:
        (a, with_a), (b, with_b) = sorted(main.items())
        yield Finding(
            "warning",
            "all labels",
            f"The paint has the value {a} in {len(with_a)} of the labels ({some(with_a)}) and {b} in {len(with_b)} ({some(with_b)}), hardly ever both "
            "in one. They would be learned as two classes.",
            f"If {a} and {b} mean the same, save all labels with one of them.",
        )


def _too_little(pool: dict[int, int], meaning: Meaning) -> Iterator[Finding]:
    """Find classes with too few pixels to learn, or to measure quality on."""
    classes = {v: n for v, n in pool.items() if v or meaning.unpainted == "background"}
    few = {value: pixels for value, pixels in sorted(classes.items()) if pixels < 2 * MIN_CLASS_PIXELS}
    if few:
        each = some([f"{value} ({count(pixels, 'pixel')})" for value, pixels in few.items()], _SHOWN)
        which = "the value" if len(few) == 1 else f"{len(few)} values:"
        yield Finding(
            "warning",
            "all labels",
            f"Too little is painted of {which} {each}.",
            f"Paint more. A class needs {2 * MIN_CLASS_PIXELS} pixels before part of it can be held out to measure quality. Set stray "
            "clicks to 0.",
        )
    total = sum(classes.values())
    if total < 2 * MIN_VALIDATION_PIXELS and not few:
        yield Finding(
            "hint",
            "all labels",
            f"Only {count(total, 'pixel')} count for training, so none can be held out to measure quality.",
            f"Paint more, in more than one place: {2 * MIN_VALIDATION_PIXELS} pixels or so are enough.",
        )


def describe(paints: Sequence[Paint], meaning: Meaning) -> Finding:
    """Say what is painted, in numbers."""
    share = percent(sum(paint.painted for paint in paints), sum(paint.pixels for paint in paints))
    of_what = _of_objects(paints, meaning) if meaning.target == "objects" else _of_classes(paints)
    sentence = f"{share} of the pixels are painted, {of_what}."
    return Finding("hint", "all labels", f"{sentence[0].upper()}{sentence[1:]}")


def _of_objects(paints: Sequence[Paint], meaning: Meaning) -> str:
    drop = [0, meaning.background_value or 0]
    values = [paint.values[~np.isin(paint.values, drop)] for paint in paints]
    looks = [(look, ~np.isin(look.values, drop)) for paint in paints for look in paint.looks]
    most = max((int((look.pieces - look.specks)[kept].sum()) for look, kept in looks), default=0)
    if most > 1 and len(np.unique(np.concatenate(values))) == 1:
        return f"with one value in up to {most:,} pieces a slice, each of which is taken for one object"
    sentence = f"with {count(sum(map(len, values)), 'object')}"
    sizes = np.concatenate([np.zeros(0), *(look.sizes[kept] for look, kept in looks)])
    if sizes.size > 1:
        sentence += f"; half of them have more than {count(int(np.median(sizes)), 'pixel')} in a slice"
    return sentence


def _of_classes(paints: Sequence[Paint]) -> str:
    pool = _pool(paints)
    pixels = sum(paint.pixels for paint in paints)
    values = [value for value in sorted(pool) if value]
    if len(values) == 1:
        return f"all with the value {values[0]}"
    most = sorted(sorted(values, key=pool.__getitem__)[-_SHOWN:])
    each = ", ".join(f"{value} ({percent(pool[value], pixels)})" for value in most)
    usual = f", the most common being {each}" if len(values) > _SHOWN else f": {each}"
    return f"with {count(len(values), 'value')}{usual}"


def _pool(paints: Sequence[Paint]) -> dict[int, int]:
    """Add up the pixels of each value over all labels."""
    pool: dict[int, int] = {}
    for paint in paints:
        for value, pixels in zip(paint.values.tolist(), paint.counts.tolist(), strict=True):
            pool[value] = pool.get(value, 0) + pixels
    return pool


def _trained(paints: Sequence[Paint]) -> dict[int, int]:
    """Add up the pixels of each value that training sees: slices of a stack without paint are left out."""
    pool = _pool(paints)
    left_out = sum(
        len(paint.empty) * paint.pixels // paint.stack.shape[0]
        for paint in paints
        if paint.stack.shape[0] > 1
    )
    if left_out:
        pool[0] -= left_out
    return {value: pixels for value, pixels in pool.items() if pixels}


def _values(values: Sequence[int]) -> str:
    return f"{'the value' if len(values) == 1 else 'the values'} {some(values, _SHOWN)}"
