"""PNG and other pictures in: one 2-D image, grey or colour.

Palette pictures keep their indices, because label images are stored so. Sixteen bits are
kept in PNG. An alpha channel is left out where it says nothing (the same everywhere) and
where it comes with grey.
"""

from __future__ import annotations

import struct
from os import PathLike
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import PIL.Image

from napari_unet.data.axes import has_idle_alpha
from napari_unet.errors import FileError
from napari_unet.files.atomic import write_atomically
from napari_unet.files.reading import Image, check_axes, check_series, check_size, first_bytes, parsing

__all__ = ["open_picture", "write_png"]

_PNG = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3


def open_picture(
    path: str | PathLike[str],
    *,
    series: int = 0,
    level: int = 0,
    axes: str | None = None,
    name: str = "image",
) -> Image:
    """Open a PNG, JPEG, BMP or another picture that Pillow reads.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    series, level : int
        0: a picture is one image without a pyramid (of an animation, the first frame).
    axes : str, optional
        Letters of its axes, in place of ``YX`` or ``YXS``.
    name : str
        Name of the image.

    Raises
    ------
    FileError
        If the file is damaged, is no picture, or promises more than it can hold.
    """
    check_series(path, "image", series, 1)
    check_series(path, "pyramid level", level, 1)
    start = first_bytes(path, 64)
    if start.startswith(_PNG):
        with parsing(path, "a PNG"):
            pixels = _png(path, start)
    else:
        with parsing(path, "a TIFF, PNG, zarr or another picture"):
            pixels = _pillow(path)
    pixels = _without_alpha(pixels)
    found = "YXS" if pixels.ndim == 3 else "YX"
    return Image(pixels, check_axes(path, axes or found, pixels.shape), name)


def _png(path: str | PathLike[str], start: bytes) -> npt.NDArray[Any]:
    # The first chunk is the header, by the standard: width, height, bits, kind of colour.
    if len(start) < 26 or start[12:16] != b"IHDR":
        raise FileError(path, "is no whole PNG: its header is damaged or missing.")
    width, height, bits, colour = struct.unpack(">IIBB", start[16:26])
    samples = _SAMPLES.get(colour, 4)
    check_size(path, width * height * samples * max(bits, 8) // 8, Path(path).stat().st_size)
    if colour == _PALETTE or bits == 1:
        return _pillow(path)
    # Pillow would cut 16-bit colour down to 8 bits.
    return np.asarray(imagecodecs.png_decode(Path(path).read_bytes()))


def _pillow(path: str | PathLike[str]) -> npt.NDArray[Any]:
    with PIL.Image.open(path) as picture:
        values = picture.width * picture.height * len(picture.getbands())
        check_size(path, values, Path(path).stat().st_size)
        other = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(picture.mode, "RGB")
        plain = picture.mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I", "F") or picture.mode.startswith(
            "I;"
        )
        pixels = np.asarray(picture if plain else picture.convert(other))
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "biuf":
        raise FileError(path, "holds no picture of rows and columns.")
    return pixels


def write_png(path: str | PathLike[str], pixels: npt.NDArray[np.uint8]) -> None:
    """Write a picture as PNG, whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike
        The file to make or to replace.
    pixels : ndarray of uint8, shape (Y, X) or (Y, X, 3)
        Grey or colour.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    write_atomically(path, lambda file: PIL.Image.fromarray(pixels).save(file, "PNG"))


def _without_alpha(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    if samples in (1, 2) and pixels.ndim == 3:
        return pixels[..., 0]
    return pixels[..., :3] if samples == 4 and has_idle_alpha(pixels) else pixels
