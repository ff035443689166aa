"""The regions that a network is least sure of, as a table beside its map of uncertainty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window
from napari_unet.data.regions import Region, rank_regions
from napari_unet.errors import FileError
from napari_unet.files.atomic import read_text, write_text
from napari_unet.files.pairs import split_name
from napari_unet.targets import Target

__all__ = ["read_regions", "write_regions"]

_MAPS = ("uncertainty", "entropy")
_SIDES = ("y_start", "y_stop", "x_start", "x_stop")


def write_regions(targets: Iterable[Target], image: Stack, window: Window | None) -> dict[str, str]:
    """Rank the regions of a run's map of uncertainty, or else of its entropy, and write them beside it.

    Returns
    -------
    dict of str to str
        ``"regions"`` and the path of the table, a CSV; empty if the run made no such map.

    Raises
    ------
    FileError
        If the table cannot be written.
    """
    maps = {target.kind: target for target in targets}
    target = next((maps[kind] for kind in _MAPS if kind in maps), None)
    if target is None:
        return {}
    first, last = window[0] if window else (0, image.shape[0])
    unsure = Stack(target.array, image.out_axes, target.kind)
    regions = rank_regions(unsure, range(first, min(last, image.shape[0])))
    path = Path(target.output.path)
    path = path.with_name(f"{split_name(path)[0]}.regions.csv")
    write_text(path, _table(regions, image))
    return {"regions": str(path)}


def _table(regions: Sequence[Region], image: Stack) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", *image.slice_axes.lower(), *_SIDES, "unsure"])
    for rank, region in enumerate(regions, 1):
        where = np.unravel_index(region.n, image.slice_shape) if image.slice_shape else ()
        writer.writerow([rank, *map(int, where), *region.y, *region.x, f"{region.unsure:.4f}"])
    return text.getvalue()


def read_regions(path: str | Path) -> list[tuple[tuple[int, ...], tuple[int, int], tuple[int, int], float]]:
    """Read a table back: slice indices, (start, stop) in y and x, and how unsure, best first.

    Raises
    ------
    FileError
        If it is no such table.
    """
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    try:
        return [
            (
                tuple(int(row[axis]) for axis in row if axis in ("t", "z")),
                (int(row["y_start"]), int(row["y_stop"])),
                (int(row["x_start"]), int(row["x_stop"])),
                float(row["unsure"]),
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError):
        raise FileError(path, "is no table of regions as napari-unet writes it.") from None
