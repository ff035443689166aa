"""Refuse a TIFF that promises what is not there, before its pixels are read.

tifffile is lenient: a file cut short, or one with a damaged description, is read as a smaller
image. Here that is an error, because a stack that silently lost its slices is worse than none.
"""

from __future__ import annotations

import math
import struct
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tifffile import TiffFile, TiffPageSeries

from napari_unet.errors import FileError
from napari_unet.files.reading import check_dtype, check_size
from napari_unet.files.tiffmeta import promised_planes

__all__ = ["check_complete", "check_pages"]

_DESCRIPTION = 270
_CLASSIC_END = 2**32
_LARGEST_SEEK = 2**62
_MOST_TAGS = 4096


def check_pages(path: str | PathLike[str]) -> None:
    """Walk the chain of a TIFF's pages, which must end within the file.

    Parameters
    ----------
    path : str or os.PathLike
        A file with the first bytes of a TIFF.

    Raises
    ------
    FileError
        If the chain runs in a circle (a reader would follow it for ever), or a page or the
        description of the first one lies behind the end of the file.
    """
    with Path(path).open("rb") as file:
        header = file.read(16)
        size = file.seek(0, 2)
        big = b"+" in header[2:4]
        if not big and size >= _CLASSIC_END:
            return  # not a standard TIFF: some scanners stretch its offsets to 64 bits in their own way
        order = "<" if header.startswith(b"II") else ">"
        layout = _Layout(order + "Q", 20, order + "Q") if big else _Layout(order + "H", 12, order + "I")
        seen: set[int] = set()
        try:
            at = _number(file, layout.offset, 8 if big else 4)
            while at:
                if at in seen:
                    raise FileError(path, "is damaged: its pages run in a circle.")
                count = _number(file, layout.tags, at)
                if not seen:
                    _check_description(file, layout, at, count)
                seen.add(at)
                at = _number(file, layout.offset, at + struct.calcsize(layout.tags) + count * layout.entry)
        except struct.error:
            raise FileError(
                path,
                f"ends too early, after {size:,} bytes: it was cut short, so copy it again from its source.",
            ) from None


class _Layout(NamedTuple):
    """Formats of the number of tags of a page and of an offset, and the bytes of a tag."""

    tags: str
    entry: int
    offset: str


def _number(file: BinaryIO, form: str, at: int) -> int:
    """Read a number; struct.error if the file ends before it."""
    if at > _LARGEST_SEEK:
        raise struct.error
    file.seek(at)
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])


def _check_description(file: BinaryIO, layout: _Layout, at: int, count: int) -> None:
    """Read the last byte of the first page's description: OME-TIFF keeps it at the end of the file."""
    width = struct.calcsize(layout.offset)
    for i in range(min(count, _MOST_TAGS)):
        entry = at + struct.calcsize(layout.tags) + i * layout.entry
        if _number(file, layout.offset[0] + "H", entry) == _DESCRIPTION:
            length = _number(file, layout.offset, entry + 4)
            if length > width:
                _number(file, "B", _number(file, layout.offset, entry + 4 + width) + length - 1)


def check_complete(path: str | PathLike[str], tif: TiffFile, chosen: TiffPageSeries, index: int) -> None:
    """Refuse sizes that cannot be, and planes that are promised but not there.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    tif : TiffFile
        The same, open.
    chosen : TiffPageSeries
        The image that will be read, as tifffile found it.
    index : int
        Its number.

    Raises
    ------
    FileError
        If reading it would take more memory than it can be worth, or miss planes.
    """
    stored = {
        page.parent.filehandle.path: page.parent.filehandle.size
        for page in (chosen.keyframe, tif.pages.first)
    }
    if chosen.kind == "ome":
        planes = list(chosen.pages)
        missing = sum(page is None for page in planes)
        if missing:
            raise FileError(
                path,
                f"promises {len(planes)} planes, but {missing} of them are in other files that are not here; "
                "copy all files of the series into one folder.",
            )
        stored |= {
            page.parent.filehandle.path: page.parent.filehandle.size for page in planes if page is not None
        }
    for one in chosen.levels:
        dtype = check_dtype(path, "V1" if one.dtype is None else one.dtype)
        check_size(path, math.prod(one.shape) * dtype.itemsize, sum(stored.values()))
        pieces, found = math.prod(one.keyframe.chunked), len(one.keyframe.dataoffsets)
        # One offset for many strips is a habit of old writers; it means that they lie in a row.
        in_a_row = found == 1 and not one.keyframe.is_tiled and pieces <= sum(stored.values())
        if found < pieces and not in_a_row:
            raise FileError(
                path, f"is damaged: a page should have {pieces:,} pieces of pixel data, but it lists {found}."
            )
    # When planes are missing, tifffile falls back to reading the first page as the whole image.
    promised = promised_planes(tif, index)
    if promised > len(tif.pages) and chosen.kind not in ("ome", "imagej"):
        raise FileError(
            path,
            f"promises {promised} planes but holds {len(tif.pages)}: the file is incomplete, "
            "so copy it again from its source.",
        )
