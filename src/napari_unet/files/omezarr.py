"""The metadata of OME-Zarr: what its groups say, and what ours say.

Follows the OME-NGFF specification, versions 0.1 to 0.5 (https://ngff.openmicroscopy.org).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import zarr

from napari_unet.errors import FileError
from napari_unet.files.reading import length_in, unit_name

__all__ = ["Multiscale", "ome_attributes", "ome_images"]

_LETTERS = {"t": "T", "time": "T", "z": "Z", "c": "C", "channel": "C", "y": "Y", "x": "X", "s": "S"}
_TYPES = {"T": "time", "C": "channel", "S": "channel"}
_LISTED = 8


@dataclass(frozen=True)
class Multiscale:
    """An image of a zarr: its pyramid, and what is known of it.

    `pixel_size` is that of the first array.
    """

    arrays: tuple[zarr.Array[Any], ...]
    axes: str
    pixel_size: dict[str, float] = field(default_factory=dict)
    unit: str = "pixel"
    channel_names: tuple[str, ...] = ()


def ome_images(path: str | PathLike[str], group: zarr.Group) -> list[Multiscale]:
    """List the images of a group.

    Parameters
    ----------
    path : str or os.PathLike
        The file, to be named in errors.
    group : zarr.Group
        An OME-Zarr image, or a bioformats2raw collection of them.

    Raises
    ------
    FileError
        If the group is neither; its contents are then listed.
    """
    notes = _notes(group)
    if "multiscales" in notes:
        return [_multiscale(path, group, entry, notes) for entry in notes["multiscales"]]
    if "bioformats2raw.layout" in notes:
        images = []
        for name in _series_names(group):
            member = group[name]
            if isinstance(member, zarr.Group):
                images += ome_images(path, member)
        return images
    if "plate" in notes or "well" in notes:
        raise FileError(path, f"is a plate or a well of images; open one field of it: {_contents(group)}.")
    raise FileError(
        path,
        f"is a zarr group without an image of its own; open one of the arrays in it. It holds {_contents(group)}.",
    )


def _notes(group: zarr.Group) -> dict[str, Any]:
    """Return the OME metadata: under "ome" since 0.5, at the top before."""
    attributes = dict(group.attrs)
    inner = attributes.get("ome")
    return dict(inner) if isinstance(inner, dict) else attributes


def _series_names(group: zarr.Group) -> list[str]:
    """Names of the images of a bioformats2raw collection: listed in OME, else 0, 1, 2 ..."""
    if "OME" in group:
        inner = group["OME"]
        listed = _notes(inner).get("series") if isinstance(inner, zarr.Group) else None
        if listed:
            return [str(name) for name in listed]
    names: list[str] = []
    while str(len(names)) in group:
        names.append(str(len(names)))
    return names


def _contents(group: zarr.Group) -> str:
    members = sorted(group.members())
    listed = []
    for name, member in members[:_LISTED]:
        if isinstance(member, zarr.Array):
            listed.append(f"{name} (array {tuple(member.shape)} of {member.dtype})")
        else:
            listed.append(f"{name} (group)")
    more = [f"{len(members) - _LISTED} more"] if len(members) > _LISTED else []
    return ", ".join(listed + more) or "nothing"


def _multiscale(
    path: str | PathLike[str], group: zarr.Group, entry: dict[str, Any], notes: dict[str, Any]
) -> Multiscale:
    arrays = []
    for dataset in entry["datasets"]:
        array = group[str(dataset["path"])]
        if not isinstance(array, zarr.Array):
            raise FileError(
                path, f"names {dataset['path']!r} as a level of its pyramid, but that is a group."
            )
        arrays.append(array)
    if not arrays:
        raise FileError(path, "names no array in its multiscales metadata, so there is nothing to open.")
    letters, units = _axes(path, entry, arrays[0].ndim)
    scale = np.ones(arrays[0].ndim)
    for step in [
        *entry["datasets"][0].get("coordinateTransformations", ()),
        *entry.get("coordinateTransformations", ()),
    ]:
        if step.get("type") == "scale" and "scale" in step:
            scale = scale * np.asarray(step["scale"], dtype=float).reshape(scale.shape)
    lengths = {
        letter: (float(size), units.get(letter, "pixel"))
        for letter, size in zip(letters, scale, strict=True)
        if letter in "ZYX" and math.isfinite(size) and size > 0
    }
    unit = next(
        (lengths[letter][1] for letter in "XYZ" if letter in lengths and lengths[letter][1] != "pixel"),
        "pixel",
    )
    if unit != "pixel" or all(size == 1.0 for size, _ in lengths.values()):
        # A scale must have a number for each axis: 1 without a unit says that nobody measured it.
        lengths = {letter: known for letter, known in lengths.items() if known != (1.0, "pixel")}
    sizes = {letter: length_in(unit, size, own) for letter, (size, own) in lengths.items()}
    channels = arrays[0].shape[letters.index("C")] if "C" in letters else 0
    return Multiscale(tuple(arrays), letters, sizes, unit, _channel_names(notes, channels))


def _axes(path: str | PathLike[str], entry: dict[str, Any], ndim: int) -> tuple[str, dict[str, str]]:
    """Read the axes as letters, and the unit of each: a list of dicts, of names (0.3), or nothing (0.1)."""
    listed = entry.get("axes") or [{"name": letter} for letter in "tczyx"[-ndim:]]
    letters, units = "", {}
    for axis in listed:
        axis = {"name": axis} if isinstance(axis, str) else axis
        name = str(axis.get("name", "")).lower()
        letter = _LETTERS.get(name) or {"time": "T", "channel": "C"}.get(str(axis.get("type")), "")
        if not letter or letter in letters:
            raise FileError(path, f"has an axis {name!r}, but only t, c, z, y and x can be read.")
        letters += letter
        if axis.get("unit"):
            units[letter] = unit_name(axis["unit"])
    return letters, units


def _channel_names(notes: dict[str, Any], channels: int) -> tuple[str, ...]:
    omero = notes.get("omero")
    listed = omero.get("channels", ()) if isinstance(omero, dict) else ()
    names = tuple(str(channel.get("label") or "") for channel in listed)
    return names if len(names) == channels and any(names) else ()


def ome_attributes(
    axes: str,
    pixel_size: Mapping[str, float],
    unit: str,
    *,
    channel_names: Sequence[str],
    colors: Mapping[int, str],
    dtype: np.dtype[Any],
) -> dict[str, Any]:
    """Write the attributes of an OME-Zarr 0.5 group with one level, ``0``.

    Parameters
    ----------
    axes : str
        One letter of ``TZCYX`` for each axis.
    pixel_size : mapping of str to float
        Along ``"Z"``, ``"Y"`` and ``"X"``.
    unit : str
        Of `pixel_size`.
    channel_names : sequence of str
        One for each channel.
    colors : mapping of int to str
        ``#RRGGBB`` for each channel if there is an axis C, else for each label value.
    dtype : numpy dtype
        Of the pixels.
    """
    listed = []
    for letter in axes:
        axis = {"name": letter.lower(), "type": _TYPES.get(letter, "space")}
        if letter in pixel_size and unit_name(unit) != "pixel":
            axis["unit"] = unit_name(unit)
        listed.append(axis)
    scale = [float(pixel_size.get(letter, 1.0)) for letter in axes]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [{"axes": listed, "datasets": [level]}]}
    if "C" in axes and channel_names:
        top = float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
        window = {"min": 0.0, "max": top, "start": 0.0, "end": top}
        ome["omero"] = {
            "channels": [
                {
                    "label": name,
                    "color": colors.get(i, "#FFFFFF").lstrip("#")[:6],
                    "window": window,
                    "active": True,
                }
                for i, name in enumerate(channel_names)
            ]
        }
    elif "C" not in axes and colors:
        ome["image-label"] = {
            "version": "0.5",
            "colors": [
                {"label-value": value, "rgba": _rgba(color)} for value, color in sorted(colors.items())
            ],
        }
    return {"ome": ome}


def _rgba(color: str) -> list[int]:
    return [*bytes.fromhex(color.lstrip("#"))[:4], 255][:4]
