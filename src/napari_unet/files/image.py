"""Open any image: the one door to TIFF, PNG, zarr and pictures.

What a file is, its first bytes say, not its name.
"""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from napari_unet.files.lazy import FileArray
from napari_unet.files.png import open_picture
from napari_unet.files.reading import LAZY_BYTES, Image, first_bytes, unit_name
from napari_unet.files.tiff import count_tiff_series, open_tiff
from napari_unet.files.zarr import count_zarr_series, open_zarr
from napari_unet.jobs import ArraySource

__all__ = ["FileArray", "Image", "count_series", "image_name", "open_image", "open_source"]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ZIP = b"PK\x03\x04"
_ENDINGS = (".ome.tiff", ".ome.tif", ".ome.zarr", ".zarr.zip")


def open_image(
    path: str | PathLike[str],
    *,
    series: int = 0,
    level: int = 0,
    axes: str | None = None,
    lazy_above: int = LAZY_BYTES,
) -> Image:
    """Open one image of a file.

    Parameters
    ----------
    path : str or os.PathLike
        A TIFF (OME, ImageJ, plain, BigTIFF), a PNG or another picture, a zarr folder or a zipped one.
    series : int
        Which of its images, from 0; see `count_series`.
    level : int
        Which level of its pyramid; 0 is full resolution.
    axes : str, optional
        Letters of its axes (of ``TZCYXS``), where the file doesn't say or is wrong.
    lazy_above : int
        Above this many bytes pixels are not read now, but when they are sliced. A picture
        (PNG, JPEG) is always read whole.

    Returns
    -------
    Image
        Pixels with axes, pixel size, unit and channel names, as far as the file has them. Pages
        of a TIFF that names no axis for them are Z. Colour with an alpha channel that is the same
        everywhere is RGB; the alpha channel of a grey image is left out.

    Raises
    ------
    FileError
        If the file is missing, damaged, incomplete, no image, or promises more than it can hold.
    DataError
        If a zarr array has more dimensions than an image.
    """
    name = image_name(path) if series == 0 else f"{image_name(path)}-{series}"
    match _kind(path):
        case "zarr":
            return open_zarr(path, series=series, level=level, axes=axes, lazy_above=lazy_above, name=name)
        case "tiff":
            return open_tiff(path, series=series, level=level, axes=axes, lazy_above=lazy_above, name=name)
    return open_picture(path, series=series, level=level, axes=axes, name=name)


def open_source(source: ArraySource) -> Image:
    """Open what a job reads; a name and a pixel size that the job gives count instead of the file's.

    Raises
    ------
    FileError
        As `open_image`.
    """
    image = open_image(source.path, series=source.series, level=source.level, axes=source.axes)
    image = replace(image, name=source.name or image.name)
    if not source.pixel_size:
        return image
    return replace(
        image,
        pixel_size={str(axis): size for axis, size in source.pixel_size.items()},
        unit=unit_name(source.unit),
    )


def count_series(path: str | PathLike[str]) -> int:
    """Count the images of a file.

    Raises
    ------
    FileError
        As `open_image`.
    """
    match _kind(path):
        case "zarr":
            return count_zarr_series(path)
        case "tiff":
            return count_tiff_series(path)
    return 1


def image_name(path: str | PathLike[str]) -> str:
    """Name an image after its file, without the ending: ``cells`` for ``cells.ome.tif``."""
    name = Path(path).name
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return Path(name).stem or name


def _kind(path: str | PathLike[str]) -> str:
    if Path(path).is_dir():
        return "zarr"
    start = first_bytes(path)
    if start.startswith(_TIFF):
        return "tiff"
    return "zarr" if start.startswith(_ZIP) else "picture"
