"""What a TIFF says about its pixels: their size, unit and channel names."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tifffile import TiffFile

from napari_unet.files.reading import length_in, unit_name

__all__ = ["LABELS_NOTE", "Notes", "describe", "physical_sizes", "promised_planes"]

LABELS_NOTE = "Labels: each value is a class or an object."
"""OME's description of an image by which labels are known as such when they are opened again."""

_SYMBOLS = {
    "angstrom": "Å",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "inch": "in",
}


@dataclass(frozen=True)
class Notes:
    """Pixel size along Z, Y and X, its unit, the channels' names, and whether the pixels are labels."""

    pixel_size: dict[str, float] = field(default_factory=dict)
    unit: str = "pixel"
    channel_names: tuple[str, ...] = ()
    labels: bool = False


def describe(tif: TiffFile, series: int, channels: int) -> Notes:
    """Read the notes of one image from OME, ImageJ, LSM or Aperio metadata.

    The resolution tags of a plain TIFF are left alone: programs fill them with the dots per
    inch of a screen or printer.

    Parameters
    ----------
    tif : TiffFile
        The open file.
    series : int
        Which of its images.
    channels : int
        How many channels it has; names are kept if there are as many.
    """
    if tif.is_ome:
        notes = _ome_notes(tif, series)
    elif tif.is_imagej:
        notes = _imagej_notes(tif)
    elif tif.is_lsm:
        notes = _lsm_notes(tif)
    elif tif.is_svs:
        notes = _svs_notes(tif, series)
    else:
        notes = Notes()
    sizes = {letter: size for letter, size in notes.pixel_size.items() if math.isfinite(size) and size > 0}
    names = notes.channel_names if len(notes.channel_names) == channels and any(notes.channel_names) else ()
    return Notes(sizes, notes.unit if sizes else "pixel", names, notes.labels)


def promised_planes(tif: TiffFile, series: int) -> int:
    """Count the planes that ImageJ's or OME's description says an image has; 0 if there is none."""
    if tif.is_imagej and tif.imagej_metadata:
        counts = [tif.imagej_metadata.get(key, 1) for key in ("channels", "slices", "frames")]
        planes = math.prod(counts)
        # ImageJ counts the samples of a colour page as channels.
        return int(planes // counts[0] if tif.pages.first.samplesperpixel > 1 else planes)
    if tif.is_ome:
        pixels = _ome_image(tif, series).find("{*}Pixels")
        if pixels is not None:
            samples = sum(
                int(channel.get("SamplesPerPixel", 1)) - 1 for channel in pixels.findall("{*}Channel")
            )
            return (
                (int(pixels.get("SizeC", 1)) - samples)
                * int(pixels.get("SizeZ", 1))
                * int(pixels.get("SizeT", 1))
            )
    return 0


def physical_sizes(pixel_size: Mapping[str, float], unit: str) -> dict[str, Any]:
    """Write a pixel size as the attributes of OME's ``Pixels``."""
    sizes: dict[str, Any] = {}
    for letter in "XYZ":
        if letter in pixel_size:
            sizes[f"PhysicalSize{letter}"] = float(pixel_size[letter])
            sizes[f"PhysicalSize{letter}Unit"] = _SYMBOLS.get(unit_name(unit), "pixel")
    return sizes


def _ome_image(tif: TiffFile, series: int) -> ET.Element:
    """Find the description of an image; an empty element if there is none."""
    try:
        images = ET.fromstring(tif.ome_metadata or "<OME/>").findall("{*}Image")
    except ET.ParseError:
        images = []
    return images[series] if series < len(images) else ET.Element("Image")


def _ome_notes(tif: TiffFile, series: int) -> Notes:
    image = _ome_image(tif, series)
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return Notes()
    found = {}
    for letter in "XYZ":
        if size := pixels.get(f"PhysicalSize{letter}"):
            found[letter] = (float(size), unit_name(pixels.get(f"PhysicalSize{letter}Unit", "µm")))
    unit = next((name for _, name in found.values()), "pixel")
    sizes = {letter: length_in(unit, size, name) for letter, (size, name) in found.items()}
    names = tuple(channel.get("Name", "") for channel in pixels.findall("{*}Channel"))
    return Notes(sizes, unit, names, image.findtext("{*}Description") == LABELS_NOTE)


def _imagej_notes(tif: TiffFile) -> Notes:
    notes: dict[str, Any] = tif.imagej_metadata or {}
    unit = unit_name(notes.get("unit", "pixel"))
    sizes = {}
    for letter, tag in (("X", "XResolution"), ("Y", "YResolution")):
        if tag in tif.pages.first.tags:
            pixels, units = tif.pages.first.tags[tag].value
            if pixels and units:
                sizes[letter] = units / pixels
    if "spacing" in notes:
        sizes["Z"] = abs(float(notes["spacing"]))
    if unit == "pixel" and set(sizes.values()) <= {1.0}:
        sizes = {}
    labels = notes.get("Labels") or ()
    names = tuple(str(label).splitlines()[0] if label else "" for label in labels)
    return Notes(sizes, unit, names)


def _lsm_notes(tif: TiffFile) -> Notes:
    notes: dict[str, Any] = tif.lsm_metadata or {}
    sizes = {letter: float(notes.get(f"VoxelSize{letter}") or 0) * 1e6 for letter in "XYZ"}
    return Notes(sizes, "micrometer")


def _svs_notes(tif: TiffFile, series: int) -> Notes:
    """Read ``MPP = 0.4990``, Aperio's micrometres a pixel; the photo of the slide's label has none."""
    found = re.search(r"\bMPP\s*=\s*([0-9.]+)", str(tif.series[series].keyframe.description))
    return Notes({"Y": float(found[1]), "X": float(found[1])}, "micrometer") if found else Notes()
