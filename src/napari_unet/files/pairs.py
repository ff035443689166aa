"""Match images with their labels by name, in two folders or in one."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from napari_unet.errors import FileError
from napari_unet.words import some

__all__ = ["Pairs", "image_files", "match_pairs", "split_name"]

_ENDINGS = (
    ".ome.tiff", ".ome.tif", ".ome.zarr", ".zarr.zip", ".tiff", ".tif", ".png", ".zarr", ".jpg", ".jpeg", ".bmp",
    ".btf", ".lsm", ".svs",
)  # fmt: skip
_IMAGE_WORDS = frozenset({"image", "images", "img", "im", "raw"})
_LABEL_WORDS = frozenset(
    {"label", "labels", "mask", "masks", "cp", "seg", "segmentation", "gt", "groundtruth", "truth"}
    | {"annotation", "annotations", "prediction"}
)
_RESULT_WORDS = frozenset({"probabilities"})


@dataclass(frozen=True)
class Pairs:
    """Images with their labels, and what found no partner.

    Parameters
    ----------
    pairs : tuple of (Path, Path)
        Image and labels, in the order of the images' names.
    unmatched_images, unmatched_labels : tuple of Path
        Files without a partner.
    """

    pairs: tuple[tuple[Path, Path], ...]
    unmatched_images: tuple[Path, ...] = ()
    unmatched_labels: tuple[Path, ...] = ()

    def report(self) -> str:
        """Say in one sentence what matched and what did not."""
        count = len(self.pairs)
        text = "1 image has labels" if count == 1 else f"{count} images have labels"
        if self.unmatched_images:
            text += f"; without labels, so left out: {_listed(self.unmatched_images)}"
        if self.unmatched_labels:
            text += f"; labels without an image: {_listed(self.unmatched_labels)}"
        return f"{text}."


_Where = str | PathLike[str] | Sequence[str | PathLike[str]]


def match_pairs(images: _Where, labels: _Where) -> Pairs:
    """Match images with labels by name.

    One image and one labels file are a pair whatever their names. Otherwise names must be the
    same without their ending and without words for what they hold, at either end: ``a.tif`` with
    ``a.png``, ``a_mask.tif``, ``a_cp_masks.png`` or ``labels-a.tif``, ``a.image.ome.tif`` with
    ``a.labels.ome.tif``, and a segmentation ``a.labels.ome.tif`` or ``a.probabilities.ome.tif`` with its
    truth ``a.tif``. Labels left over then go to the image with the longest name that
    theirs goes on from with another word (``a_axonmyelin.png`` to ``a.png``), if only one does.

    Parameters
    ----------
    images, labels : path or sequence of paths
        A file, several files, or a folder of files. With the same folder twice, labels are told
        from images by a word like ``mask`` or ``labels`` in their names.

    Returns
    -------
    Pairs
        At least one pair, and what was left over.

    Raises
    ------
    FileError
        If a path is missing, a folder holds no image, two files claim the same partner, or
        nothing matches.
    """
    pictures, painted = image_files(images), image_files(labels)
    if set(pictures) & set(painted):
        both = sorted({*pictures, *painted})
        painted = [path for path in both if _is_label(path)]
        pictures = [path for path in both if not _is_label(path)]
    elif len(pictures) == len(painted) == 1:
        return Pairs(((pictures[0], painted[0]),))
    matched = _same_names(pictures, painted)
    matched |= _longer_names(
        [path for path in pictures if path not in matched],
        [path for path in painted if path not in set(matched.values())],
        pictures,
    )
    used = set(matched.values())
    if not matched:
        raise FileError(
            _first(labels),
            f"no labels match an image in {_first(images)} by name: images are {_listed(pictures)}, labels are "
            f"{_listed(painted)}. Give each pair the same name, or name the labels like NAME_mask.tif.",
        )
    return Pairs(
        tuple((path, matched[path]) for path in pictures if path in matched),
        tuple(path for path in pictures if path not in matched),
        tuple(path for path in painted if path not in used),
    )


def image_files(where: _Where) -> list[Path]:
    """List the images that a path means: itself, or a folder's files in natural order (2 before 10).

    Raises
    ------
    FileError
        If the path is missing, or a folder without images.
    """
    if not isinstance(where, str | PathLike):
        return [path for one in where for path in image_files(one)]
    path = Path(where)
    try:
        if not path.exists():
            raise FileError(path, "there is no such file or folder.")
        if not path.is_dir() or _ending(path) in (".zarr", ".ome.zarr") or (path / ".zattrs").exists():
            return [path]
        found = [
            entry
            for entry in path.iterdir()
            if _ending(entry)
            and not entry.name.startswith(".")
            and (entry.is_file() or _ending(entry).endswith("zarr"))
        ]
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror}).") from error
    if not found:
        raise FileError(path, f"is a folder without images (files that end in {', '.join(_ENDINGS)}).")
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[tuple[tuple[int, str], ...], str]:
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts), path.name


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((ending for ending in _ENDINGS if name.endswith(ending)), "")


def split_name(path: Path) -> tuple[str, str]:
    """Split a file's name into stem and ending, which may have two dots (``.ome.tif``)."""
    length = len(_ending(path) or path.suffix)
    return (path.name[:-length], path.name[-length:]) if length else (path.name, "")


def _stem(path: Path) -> str:
    return split_name(path)[0]


def _words(path: Path) -> list[str]:
    return re.split(r"[\s._-]+", _stem(path).lower())


def _is_label(path: Path) -> bool:
    words = _words(path)
    return words[0] in _LABEL_WORDS or words[-1] in _LABEL_WORDS


def _key(path: Path, words: frozenset[str]) -> str:
    """Return the name without words for what the file holds at its ends; whole if nothing is left."""
    parts = _words(path)
    start, stop = 0, len(parts)
    while stop > start and parts[stop - 1] in words:
        stop -= 1
    while start < stop and parts[start] in words:
        start += 1
    return "_".join(parts[start:stop]) or "_".join(parts)


def _same_names(images: Iterable[Path], labels: Iterable[Path]) -> dict[Path, Path]:
    """Match equal stems first, then stems that are equal without words for images and labels, then for results."""
    matched: dict[Path, Path] = {}
    results = _IMAGE_WORDS | _LABEL_WORDS | _RESULT_WORDS
    for image_key, label_key in (
        (_stem, _stem),
        (lambda path: _key(path, _IMAGE_WORDS), lambda path: _key(path, _LABEL_WORDS)),
        (lambda path: _key(path, results), lambda path: _key(path, _LABEL_WORDS)),
    ):
        used = set(matched.values())
        by_name: dict[str, list[Path]] = defaultdict(list)
        for label in labels:
            if label not in used:
                by_name[label_key(label)].append(label)
        claims: dict[Path, Path] = {}
        for image in images:
            candidates = by_name.get(image_key(image), []) if image not in matched else []
            if len(candidates) > 1:
                raise FileError(
                    image, f"has more than one labels file: {_listed(candidates)}. Keep one of them there."
                )
            if candidates and candidates[0] in claims:
                other = claims[candidates[0]]
                raise FileError(
                    candidates[0], f"has the name of two images, {other.name} and {image.name}. Keep one."
                )
            if candidates:
                claims[candidates[0]] = image
        matched |= {image: label for label, image in claims.items()}
    return matched


def _longer_names(images: list[Path], labels: list[Path], all_images: list[Path]) -> dict[Path, Path]:
    """Match labels whose name is an image's name and one more word, where that is beyond doubt."""
    claims: dict[Path, list[Path]] = defaultdict(list)
    for label in labels:
        stem = _stem(label)
        starts = [
            image for image in all_images if re.match(re.escape(_stem(image)) + r"[\s._-]+[^\W\d]", stem)
        ]
        if starts:
            claims[max(starts, key=lambda image: len(_stem(image)))].append(label)
    return {image: found[0] for image, found in claims.items() if len(found) == 1 and image in images}


def _listed(paths: Iterable[Path]) -> str:
    return some([path.name for path in paths]) or "none"


def _first(where: _Where) -> str:
    if isinstance(where, str | PathLike):
        return os.fspath(where)
    return os.fspath(where[0]) if where else "nothing"
