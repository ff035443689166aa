"""What every reader shares: the value it returns and the boundary around its parser.

Files come from strangers, and a broken one makes a parser raise anything. All parsing
happens inside `parsing`, and every later read of a lazy image inside `lazy.FileArray`, so the
rest of the program sees one error, `FileError`, which names the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.data.axes import ArrayLike, Stack
from napari_unet.errors import FileError, NapariUNetError
from napari_unet.words import count

__all__ = [
    "HARMLESS_BYTES",
    "LAZY_BYTES",
    "MOST_EXPANSION",
    "Image",
    "check_axes",
    "check_dtype",
    "check_series",
    "check_size",
    "first_bytes",
    "in_words",
    "length_in",
    "parsing",
    "unit_name",
]

LAZY_BYTES = 256 * 2**20
"""Images above this many bytes stay on disk and are read piece by piece."""

MOST_EXPANSION = 1_100
"""A file never holds more than this many times its own bytes (deflate's best is 1,032)."""

HARMLESS_BYTES = 64 * 2**20
"""Sizes up to this are read whatever the file's size: an empty mask compresses without limit."""

_LFS = b"version https://git-lfs.github.com/spec/"
_UNITS: dict[str, tuple[float, tuple[str, ...]]] = {
    "angstrom": (1e-10, ("ångström", "å", "a")),
    "nanometer": (1e-9, ("nanometre", "nm")),
    "micrometer": (1e-6, ("micrometre", "micron", "um", "µm")),
    "millimeter": (1e-3, ("millimetre", "mm")),
    "centimeter": (1e-2, ("centimetre", "cm")),
    "meter": (1.0, ("metre", "m")),
    "inch": (0.0254, ("inches", "in", '"')),
}
_UNIT_NAMES = {spelling: name for name, (_, others) in _UNITS.items() for spelling in (name, *others)}


@dataclass(frozen=True)
class Image:
    """One image of a file, with what the file says about it.

    Parameters
    ----------
    array : array-like
        Its pixels: a numpy array, or a `lazy.FileArray` that reads when it is sliced.
    axes : str
        One letter of ``TZCYXS`` for each dimension of `array`.
    name : str
        The file's name without its ending.
    pixel_size : dict of str to float
        Size of a pixel along ``"Z"``, ``"Y"`` and ``"X"``, as far as the file says.
    unit : str
        Of `pixel_size`, spelled out (``"micrometer"``); ``"pixel"`` where the file says nothing.
    channel_names : tuple of str
        One for each channel, or empty.
    levels : tuple of array-like
        The pyramid from `array` on, each next one smaller; ``levels[0]`` is `array`.
    labels : bool
        Whether the file says that its values are labels.
    missing : (int, int)
        Chunks of `array` that the file does not hold, and of how many; they read as its fill value.
    """

    array: ArrayLike
    axes: str
    name: str
    pixel_size: dict[str, float] = field(default_factory=dict)
    unit: str = "pixel"
    channel_names: tuple[str, ...] = ()
    levels: tuple[ArrayLike, ...] = ()
    labels: bool = False
    missing: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.levels:
            object.__setattr__(self, "levels", (self.array,))

    @property
    def stack(self) -> Stack:
        """The image as slices with channels, for everything that computes."""
        return Stack(self.array, self.axes, self.name)

    @property
    def gaps(self) -> tuple[str, str]:
        """What to say of chunks that the file does not hold, and what to do; empty where it holds all."""
        missing, total = self.missing
        if not missing:
            return "", ""
        return (
            f"Image {self.name!r} has {total - missing:,} of its {count(total, 'chunk')}; the rest is read as one value, mostly black.",
            "Some programs leave out chunks that hold nothing else: then all is well. If not, it was not copied to its end: copy it again.",
        )

    def summary(self) -> dict[str, Any]:
        """Return what there is to know without reading pixels, in values that JSON can hold."""
        return {
            "name": self.name,
            "axes": self.axes,
            "shape": [int(size) for size in self.array.shape],
            "type": str(np.dtype(self.array.dtype)),
            "pixel_size": {letter: float(size) for letter, size in self.pixel_size.items()},
            "unit": self.unit,
            "channels": list(self.channel_names),
            "pyramid_levels": len(self.levels),
        }


@contextmanager
def parsing(path: str | PathLike[str], kind: str) -> Iterator[None]:
    """Turn whatever a parser raises into one `FileError`.

    This is the one place (with `lazy.FileArray`) where every exception is caught: third-party
    parsers of untrusted bytes raise dozens of types.

    Parameters
    ----------
    path : str or os.PathLike
        The file that is parsed.
    kind : str
        What it is read as, with its article: ``"a TIFF"``.

    Raises
    ------
    FileError
        In place of any exception that is not one of ours.
    """
    try:
        yield
    except NapariUNetError:
        raise
    except MemoryError as error:
        raise FileError(path, "needs more memory than this computer has free.") from error
    except OSError as error:
        if error.errno is None:
            raise FileError(path, _broken(kind, error)) from error
        raise FileError(path, f"cannot be opened ({error.strerror}).") from error
    except Exception as error:
        raise FileError(path, _broken(kind, error)) from error


def _broken(kind: str, error: Exception) -> str:
    return (
        f"cannot be read as {kind} ({in_words(error)}); it is damaged, incomplete or of a rare kind: "
        "copy it again from its source, or save it anew as TIFF, in Fiji for example."
    )


def in_words(error: BaseException) -> str:
    """Say in at most 160 characters of one line what a library complained about."""
    text = " ".join(str(error).split()).rstrip(".")
    text = text if len(text) <= 120 else f"{text[:120]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_bytes(path: str | PathLike[str], count: int = 1024) -> bytes:
    """Read the start of a file, after checking that there is a file with an image in it.

    Raises
    ------
    FileError
        If `path` is missing, unreadable, empty, not a plain file, or a Git LFS pointer.
    """
    try:
        if not Path(path).exists():
            raise FileError(path, "there is no such file or folder.")
        if not Path(path).is_file():
            raise FileError(path, "is neither a file nor a folder.")
        with Path(path).open("rb") as file:
            start = file.read(count)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(path, f"cannot be opened ({reason}).") from error
    if not start:
        raise FileError(path, "is empty (0 bytes); copy it again from its source.")
    if start.startswith(_LFS):
        size = next(
            (line[5:] for line in start.decode("ascii", "replace").splitlines() if line[:5] == "size "), "?"
        )
        raise FileError(
            path,
            f"is a Git LFS pointer, a short text that stands for the image of {size} bytes; "
            "fetch the image itself with 'git lfs pull'.",
        )
    return start


def check_size(path: str | PathLike[str], promised: int, stored: int) -> None:
    """Refuse a header that promises more pixels than the file can hold, before any is read.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    promised, stored : int
        Bytes that the header says the image has, and bytes that the file has.

    Raises
    ------
    FileError
        If `promised` is above `HARMLESS_BYTES` and more than `MOST_EXPANSION` times `stored`.
    """
    if promised > HARMLESS_BYTES and promised > MOST_EXPANSION * stored:
        raise FileError(
            path,
            f"promises {promised:,} bytes of pixels but has only {stored:,} bytes "
            f"(at most {MOST_EXPANSION:,} times as many can be true); it is damaged or not a real image.",
        )


def check_series(path: str | PathLike[str], what: str, asked: int, found: int) -> None:
    """Refuse a series or level that the file doesn't have.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    what : {"image", "pyramid level"}
        What is counted.
    asked, found : int
        Which is asked for, from 0, and how many there are.
    """
    if found < 1:
        raise FileError(path, f"has no {what}.")
    if not 0 <= asked < found:
        plural = "" if found == 1 else "s"
        raise FileError(
            path, f"has {found} {what}{plural}, so number {asked} (counted from 0) cannot be opened."
        )


def check_dtype(path: str | PathLike[str], dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return `dtype`, or refuse one whose values are no pixels (text, records, objects)."""
    found = np.dtype(dtype)
    if found.kind not in "biufc":
        raise FileError(path, f"holds values of type {found}, but pixels are numbers.")
    return found


def check_axes(path: str | PathLike[str], axes: str, shape: tuple[int, ...]) -> str:
    """Return `axes`, or refuse letters that don't fit an image of `shape`."""
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or not set("YX") <= set(axes) <= set("TZCYXS"):
        raise FileError(
            path,
            f"the axes {axes!r} do not fit its shape {shape}: give one letter of T, Z, C, Y, X, S for each "
            f"of its {len(shape)} dimensions, each once, Y and X among them.",
        )
    return axes


def unit_name(text: object) -> str:
    """Spell out a unit of length: ``"µm"``, ``"um"``, ``"micron"`` are ``"micrometer"``.

    Returns
    -------
    str
        ``"pixel"`` for anything that is not a unit of length.
    """
    # Two characters look like µ: the micro sign (kept) and the Greek letter. ImageJ writes an escape.
    spelled = str(text).strip().replace("\\u00B5", "µ").replace("μ", "µ").replace("\\u00b5", "µ").lower()
    return _UNIT_NAMES.get(spelled) or _UNIT_NAMES.get(spelled.removesuffix("s"), "pixel")


def length_in(unit: str, length: float, own: str) -> float:
    """Convert a length from its own unit to another; a unit of "pixel" on either side changes nothing."""
    if unit not in _UNITS or own not in _UNITS:
        return length
    return length * (_UNITS[own][0] / _UNITS[unit][0])
