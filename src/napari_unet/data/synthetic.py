"""Sample images with known truth, drawn so that no threshold solves them.

Both are made from a seed alone: the same seed gives the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from napari_unet.errors import DataError

__all__ = ["cells", "membranes"]

Floats = npt.NDArray[np.float64]

_BEND = 22  # pixels; tissue is displaced by less
_SMALLEST = 32  # pixels a side: below it there is no room for a cell and something around it


def cells(
    shape: tuple[int, int] = (512, 512), seed: int = 0
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Draw touching cells as a fluorescence camera sees them.

    Cells of different brightness lie in clusters; their nuclei take up less stain. The light
    falls off across the field, scattered light and cells out of focus glow between them, and
    debris shines brighter than any cell. Then come the blur of the optics, photon noise and
    camera noise.

    Parameters
    ----------
    shape : tuple of int
        (Y, X), in pixels; at least 32 each. Cells are some 45 pixels wide.
    seed : int
        The same seed gives the same image.

    Returns
    -------
    image : ndarray of uint16, shape (Y, X)
        Camera counts.
    labels : ndarray of uint8, shape (Y, X)
        1 in cells, 0 around them.
    instances : ndarray of uint16, shape (Y, X)
        1, 2, ... for each cell, 0 around them. Touching cells have no gap between them.

    Raises
    ------
    DataError
        If the shape is too small.
    """
    _check(shape, "cells")
    rng = np.random.default_rng([seed, 1])
    instances, depth, nucleus = _touching_cells(shape, rng)
    stain = _stain(instances, depth, nucleus, rng)
    # Light scattered by the cells themselves, and the dish's own glow.
    haze = 0.4 * ndimage.gaussian_filter(stain, 20, truncate=2.5) + 0.06 + 0.4 * _smooth(shape, 110, rng) ** 2
    light = np.exp(-2.0 * _smooth(shape, 160, rng))
    scene = (stain + haze + _out_of_focus(shape, rng)) * light + _debris(shape, instances > 0, rng)
    photons = rng.poisson(160 * ndimage.gaussian_filter(scene, 1.1))
    counts = 110 + 9 * photons + rng.normal(0, 22, shape)
    image = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    return image, (instances > 0).astype(np.uint8), instances


def membranes(
    shape: tuple[int, int, int] = (8, 256, 256), seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw nerve tissue as serial-section electron microscopy shows it.

    Cells are cut by dark membranes and change slowly from slice to slice. Mitochondria, vesicles
    and thin reticulum inside them are as dark as the membranes, so that darkness alone doesn't tell
    them apart.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X); Y and X at least 32 pixels. Cells are some 45 pixels wide.
    seed : int
        The same seed gives the same stack.

    Returns
    -------
    image : ndarray of uint8, shape (Z, Y, X)
        Brightness; membranes are dark.
    labels : ndarray of uint8, shape (Z, Y, X)
        1 on membranes, 2 inside cells.

    Raises
    ------
    DataError
        If the shape is too small.
    """
    if len(shape) != 3 or shape[0] < 1:
        raise DataError(
            f"Membranes of shape {shape} cannot be drawn: give (slices, y, x), with at least one slice."
        )
    _check(shape[1:], "membranes")
    rng = np.random.default_rng([seed, 2])
    tissue = _Tissue.grow(shape, rng)
    image = np.empty(shape, np.uint8)
    labels = np.empty(shape, np.uint8)
    for z in range(shape[0]):
        section = tissue.cut(z)
        labels[z] = np.where(section.distance < tissue.half_width, 1, 2)
        image[z] = _micrograph(section, tissue, rng)
    return image, labels


def _check(shape: tuple[int, ...], what: str) -> None:
    if len(shape) != 2 or min(shape) < _SMALLEST:
        raise DataError(
            f"Synthetic {what} of {' x '.join(map(str, shape))} pixels cannot be drawn: "
            f"each side must be {_SMALLEST} or more."
        )


def _smooth(shape: tuple[int, int], size: float, rng: np.random.Generator) -> Floats:
    """Random field between 0 and 1 that changes over `size` pixels.

    Drawn on a coarse grid and enlarged, which costs the same for every size.
    """
    step = max(1, int(size // 3))
    grid = tuple(-(-length // step) + 5 for length in shape)
    coarse = ndimage.gaussian_filter(rng.normal(size=grid), size / step / 2)
    if step == 1:
        field = coarse[2 : 2 + shape[0], 2 : 2 + shape[1]]
    else:
        # Linear interpolation along y and x, as two matrix products.
        rows, columns = (
            np.maximum(0, 1 - np.abs(np.arange(length)[:, None] / step + 2 - np.arange(points)))
            for length, points in zip(shape, grid, strict=True)
        )
        field = rows @ coarse @ columns.T
    low, high = field.min(), field.max()
    return np.asarray((field - low) / max(high - low, 1e-12))


# ── cells ────────────────────────────────────────────────────────────────────────────────────


def _touching_cells(
    shape: tuple[int, int], rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint16], Floats, Floats]:
    """Cells in clusters; each pixel's depth (0 at a cell's centre, 1 at its free border) and part in a nucleus."""
    instances = np.zeros(shape, np.uint16)
    depth = np.ones(shape)
    nucleus = np.zeros(shape)
    for number, (y, x, radius) in enumerate(_places(shape, rng), start=1):
        reach = int(1.6 * radius)
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        window = np.s_[top : int(y) + reach + 1, left : int(x) + reach + 1]
        rows, columns = np.ogrid[window]
        rows, columns = rows[: shape[0] - top], columns[:, : shape[1] - left]
        angle = np.arctan2(rows - y, columns - x)
        outline = radius * (1 + sum(_wave(angle, order, rng) for order in (2, 3, 5)))
        inside = np.hypot(rows - y, columns - x) / outline
        nearer = inside < depth[window]
        depth[window][nearer] = inside[nearer]
        instances[window][nearer] = number
        nucleus[window][nearer] = _nucleus(rows - y, columns - x, radius, rng)[nearer]
    return instances, depth, nucleus


def _nucleus(rows: Floats, columns: Floats, radius: float, rng: np.random.Generator) -> Floats:
    """Draw an ellipse off the middle of a cell: 1 inside, 0 outside, with a soft edge."""
    tilt, long = rng.uniform(0, np.pi), radius * rng.uniform(0.38, 0.55)
    rows = rows - rng.uniform(-0.25, 0.25) * radius
    columns = columns - rng.uniform(-0.25, 0.25) * radius
    along, across = np.cos(tilt) * columns + np.sin(tilt) * rows, np.cos(tilt) * rows - np.sin(tilt) * columns
    inside = long - np.hypot(along, across / rng.uniform(0.65, 0.95))
    return np.asarray(np.clip(inside / 2 + 0.5, 0, 1))


def _wave(angle: Floats, order: int, rng: np.random.Generator) -> Floats:
    """One bump of an outline; the higher its order, the lower."""
    return np.asarray(rng.uniform(0, 0.28 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)))


def _places(shape: tuple[int, int], rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre (y, x) and radius of cells that cover some 40 % of the image, in clusters."""
    size = min(22.0, min(shape) / 4)
    places = [(shape[0] * rng.uniform(0.35, 0.65), shape[1] * rng.uniform(0.35, 0.65), size)]
    wanted = 0.42 * shape[0] * shape[1]
    for _ in range(40 * int(1 + wanted / size**2)):
        if sum(np.pi * radius**2 for _, _, radius in places) >= wanted:
            break
        radius = size * rng.uniform(0.75, 1.3)
        if rng.random() < 0.25:
            y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        else:
            # Beside a cell that is there already, close enough to press against it.
            near_y, near_x, near = places[rng.integers(len(places))]
            angle, gap = rng.uniform(0, 2 * np.pi), (radius + near) * rng.uniform(0.8, 1.0)
            y, x = near_y + gap * np.sin(angle), near_x + gap * np.cos(angle)
        within = -0.3 * radius < y < shape[0] + 0.3 * radius and -0.3 * radius < x < shape[1] + 0.3 * radius
        if within and all(np.hypot(y - b, x - a) > 0.78 * (radius + r) for b, a, r in places):
            places.append((y, x, radius))
    return places


def _stain(
    instances: npt.NDArray[np.uint16], depth: Floats, nucleus: Floats, rng: np.random.Generator
) -> Floats:
    """Fluorescence of the cells: thick in the middle, grainy, less in the nucleus."""
    shape = (instances.shape[0], instances.shape[1])
    count = int(instances.max()) + 1
    brightness = np.clip(rng.lognormal(-0.15, 0.45, count), 0.5, 2.2)
    taken = rng.uniform(0.25, 0.7, count)
    grain = 1 + 0.7 * (_smooth(shape, 5, rng) - 0.5) + 1.1 * (_smooth(shape, 14, rng) - 0.5)
    thickness = 0.65 + 0.35 * np.sqrt(1 - np.minimum(depth, 1) ** 2)
    body = brightness[instances] * thickness * grain * (1 - nucleus * (1 - taken[instances]))
    return np.asarray(np.where(instances > 0, body, 0.0))


def _out_of_focus(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Cells above and below the focal plane: wide glows without an edge."""
    glow = np.zeros(shape)
    for _ in range(max(1, shape[0] * shape[1] // 16_000)):
        glow[rng.integers(shape[0]), rng.integers(shape[1])] += rng.uniform(0.2, 0.7)
    area = 2 * np.pi * 14**2  # so that a glow's peak is what was drawn
    return np.asarray(0.8 * area * ndimage.gaussian_filter(glow, 14, mode="constant", truncate=3))


def _debris(shape: tuple[int, int], cell: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Bright specks and fibres, mostly between the cells."""
    specks, clumps, fibres = np.zeros((3, *shape))
    for _ in range(max(2, shape[0] * shape[1] // 2_200)):
        y, x = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
        if not cell[y, x] or rng.random() < 0.15:
            (clumps if rng.random() < 0.15 else specks)[y, x] += rng.lognormal(2.4, 0.8)
    for _ in range(max(1, shape[0] * shape[1] // 50_000)):
        length = int(rng.uniform(30, 110))
        turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.09, length))
        rows = rng.uniform(0, shape[0]) + np.cumsum(np.sin(turn))
        columns = rng.uniform(0, shape[1]) + np.cumsum(np.cos(turn))
        seen = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        fibres[rows[seen].astype(int), columns[seen].astype(int)] = rng.uniform(1.5, 3.5)
    clumps = 5 * ndimage.gaussian_filter(clumps, 3.2) * (0.5 + _smooth(shape, 4, rng))
    return np.asarray(clumps + ndimage.gaussian_filter(specks, 1.4) + ndimage.gaussian_filter(fibres, 0.8))


# ── membranes ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Section:
    """One slice of tissue; arrays of shape (Y, X), y and x in the tissue's own bent coordinates."""

    z: int
    y: Floats
    x: Floats
    seeds: Floats  # (cells, 2) centres in this slice
    cell: npt.NDArray[Any]  # which cell a pixel is in
    distance: Floats  # pixels to the middle of the nearest membrane


@dataclass(frozen=True)
class _Tissue:
    """Cells as a power diagram of drifting seeds in smoothly bent space."""

    seeds: Floats  # (cells, 2): y, x in slice 0
    drift: Floats  # (cells, 2) pixels per slice
    lift: Floats  # (cells,) makes a cell smaller the larger it is
    tone: Floats  # (cells,) brightness of the cytoplasm
    crowded: npt.NDArray[np.bool_]  # (cells,) full of vesicles
    bend: tuple[Floats, Floats]  # (Z, Y, X) displacement in y and in x, pixels
    organelles: Floats  # (mitochondria, 8): cell, y, x, z, length, width, height in slices, angle
    half_width: float = 3.0  # of a membrane, pixels

    @classmethod
    def grow(cls, shape: tuple[int, int, int], rng: np.random.Generator) -> _Tissue:
        spacing, margin = 44.0, 40.0
        seeds = _scattered(shape[1] + 2 * margin, shape[2] + 2 * margin, 0.62 * spacing, rng) - margin
        count = len(seeds)
        tone = rng.normal(158, 11, count) - 34 * (rng.random(count) < 0.15)
        many = int(0.8 * count)
        organelles = np.column_stack(
            [
                rng.integers(0, count, many),
                *rng.normal(0, 4, (2, many)),
                rng.uniform(-2, shape[0] + 2, many),
                rng.uniform(8, 15, many),
                rng.uniform(5, 8, many),
                rng.uniform(3, 9, many),
                rng.uniform(0, np.pi, many),
            ]
        )
        bend = tuple(24 * (_bent(shape, 42, rng) - 0.5) + 5 * (_bent(shape, 14, rng) - 0.5) for _ in "yx")
        return cls(
            seeds=seeds,
            drift=rng.normal(0, 0.7, (count, 2)),
            lift=rng.uniform(0, 0.7 * spacing, count),
            tone=tone,
            crowded=rng.random(count) < 0.3,
            bend=(bend[0], bend[1]),
            organelles=organelles,
        )

    def cut(self, z: int) -> _Section:
        """Return slice `z`."""
        rows, columns = np.indices(self.bend[0].shape[1:])
        y, x = rows + self.bend[0][z], columns + self.bend[1][z]
        seeds = self.seeds + z * self.drift
        # A third coordinate turns nearest-seed search into a power diagram.
        tree = KDTree(np.column_stack([seeds, self.lift]))
        found = tree.query(np.stack([y, x, np.zeros_like(y)], axis=-1), k=3)
        power, near = np.asarray(found[0]) ** 2, np.asarray(found[1])
        apart = np.linalg.norm(seeds[near[..., 1:]] - seeds[near[..., :1]], axis=-1)
        distance = ((power[..., 1:] - power[..., :1]) / (2 * apart)).min(axis=-1)
        # Bent space is stretched here and there; membranes are equally thick everywhere.
        slope = np.maximum(np.hypot(*np.gradient(ndimage.gaussian_filter(distance, 1.0))), 0.5)
        return _Section(z, y, x, seeds, near[..., 0], distance / slope)


def _bent(shape: tuple[int, int, int], size: float, rng: np.random.Generator) -> Floats:
    """Random field (Z, Y, X) between 0 and 1, turning from one pattern into another over 12 slices."""
    first, second = _smooth(shape[1:], size, rng), _smooth(shape[1:], size, rng)
    phase = np.arange(shape[0])[:, None, None] * (np.pi / 2 / 12)
    return np.asarray(0.5 + np.cos(phase) * (first - 0.5) + np.sin(phase) * (second - 0.5))


def _scattered(height: float, width: float, apart: float, rng: np.random.Generator) -> Floats:
    """Points (n, 2) at random, none closer than `apart`."""
    points = rng.uniform(0, 1, (int(8 * height * width / apart**2), 2)) * (height, width)
    kept = np.ones(len(points), bool)
    for first, second in sorted(KDTree(points).query_pairs(apart)):
        if kept[first]:
            kept[second] = False
    return np.asarray(points[kept])


def _micrograph(section: _Section, tissue: _Tissue, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Stain a slice and photograph it."""
    shape = section.distance.shape
    picture = (
        tissue.tone[section.cell] + 26 * (_smooth(shape, 4, rng) - 0.5) + 30 * (_smooth(shape, 11, rng) - 0.5)
    )
    room = np.clip(
        (section.distance - tissue.half_width - 1.5) / 1.5, 0, 1
    )  # organelles keep off the membrane
    picture += room * (_reticulum(section, rng) + _vesicles(section, tissue, rng))
    for organelle in tissue.organelles:
        _add_mitochondrion(picture, room, section, organelle)
    membrane = 1 / (1 + np.exp((section.distance - tissue.half_width) / 0.45))
    dark = 52 + 34 * _smooth(shape, 30, rng)
    picture = picture * (1 - membrane) + dark * membrane
    picture = ndimage.gaussian_filter(picture, 0.8)
    light = rng.normal(0, 7) + 26 * (_smooth(shape, 150, rng) - 0.5)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, shape), 0.6)
    return np.clip(np.rint(picture + light + 25 * grain), 0, 255).astype(np.uint8)


def _add_mitochondrion(picture: Floats, room: Floats, section: _Section, organelle: Floats) -> None:
    """Darken `picture` by one mitochondrion: dark rim, grey inside, folds across."""
    cell, off_y, off_x, z, length, width, height, angle = organelle
    cut = 1 - ((section.z - z) / height) ** 2
    centre = section.seeds[int(cell)]
    if cut <= 0.05:
        return
    window = tuple(
        slice(max(0, int(middle - length - _BEND)), max(0, int(middle + length + _BEND)))
        for middle in (centre[0] + off_y, centre[1] + off_x)
    )
    y, x = section.y[window] - centre[0] - off_y, section.x[window] - centre[1] - off_x
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    outside = (np.hypot(along / length, across / width) - np.sqrt(cut)) * width  # about pixels
    body = np.clip(0.5 - outside, 0, 1) * room[window] * (section.cell[window] == int(cell))
    rim = np.exp(-((outside + 1.2) ** 2) / 1.6)
    folds = np.sin(1.5 * along + 0.5 * across + 0.3 * z) > 0.2
    tone = 112 - 22 * folds - 45 * rim
    picture[window] += body * (tone - picture[window])


def _vesicles(section: _Section, tissue: _Tissue, rng: np.random.Generator) -> Floats:
    """Small dark rings, crowded in some cells."""
    shape = section.distance.shape
    rings = np.zeros(shape)
    offset = np.arange(-6, 7)
    radius = np.hypot(offset[:, None], offset)
    for _ in range(shape[0] * shape[1] // 120):
        y, x = int(rng.integers(6, shape[0] - 6)), int(rng.integers(6, shape[1] - 6))
        if tissue.crowded[section.cell[y, x]] or rng.random() < 0.12:
            size = rng.uniform(2.2, 3.4)
            window = np.s_[y - 6 : y + 7, x - 6 : x + 7]
            ring = 20 * (radius < size) - rng.uniform(65, 100) * np.exp(-((radius - size) ** 2) / 0.9)
            rings[window] = np.where(radius < size + 2, ring, rings[window])
    return rings


def _reticulum(section: _Section, rng: np.random.Generator) -> Floats:
    """Thin dark threads inside cells: the zero lines of a random field, interrupted."""
    shape = section.distance.shape
    threads = np.exp(-(((_smooth(shape, 16, rng) - 0.5) / 0.025) ** 2))
    return np.asarray(-55 * threads * (_smooth(shape, 30, rng) > 0.62))
