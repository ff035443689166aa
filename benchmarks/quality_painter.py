"""A simulated painter: strokes of a brush, drawn with a seed, as a person would mark an image.

A stroke begins at an unpainted pixel, wanders on a curved path that stays in its class (or in its
object), and colours what of that class lies under the brush. The next stroke goes to the class
with the least paint so far, so that rare classes are marked too, as a person would take care to;
but no class is painted over more than half of its area.
"""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
import numpy.typing as npt

__all__ = ["BACKGROUND", "scribble"]

BACKGROUND = 1
"""What background is painted with; 0 is unpainted."""

_SHORTEST, _LONGEST = 10, 80  # steps of a stroke, of one pixel each
_TURN = 0.25  # radians: spread of the change of direction from step to step
# Where the path would leave its class, it turns away as little as it must.
_DEFLECTIONS = tuple(k * pi / 9 for k in range(9))
_COVERED = 0.5  # of a class or object, at most
_STROKES = 4  # at least, for each class


def scribble(
    truth: npt.NDArray[np.int32],
    share: float,
    rng: np.random.Generator,
    *,
    objects: bool = False,
    width: int = 5,
) -> npt.NDArray[np.int32]:
    """Paint strokes on an image of which the truth is known.

    Parameters
    ----------
    truth : ndarray of int, shape (Y, X)
        Class of each pixel, or the id of its object; 0 is background.
    share : float
        Fraction of all pixels to paint, up to 0.25. Painted are ``round(share * truth.size)``.
    rng : numpy.random.Generator
        Decides everything: the same generator paints the same strokes.
    objects : bool
        Whether `truth` holds ids of objects. Half of the paint then goes to background, the rest to
        the objects, each next stroke to one of those with the fewest strokes.
    width : int
        Width of the brush, in pixels; odd.

    Returns
    -------
    ndarray of int32, shape (Y, X)
        ``truth + 1`` where there is paint, so that background has a value of its own, `BACKGROUND`;
        0 where there is none.

    Raises
    ------
    ValueError
        If `share` leaves 0 to 0.25.
    """
    if not 0 <= share <= _COVERED / 2:
        raise ValueError(f"share is {share:g}, but a painter covers 0 to {_COVERED / 2:g} of an image.")
    canvas = _Canvas(truth, width)
    groups = {0: [0], 1: sorted(canvas.places.keys() - {0})} if objects else {v: [v] for v in canvas.places}
    sizes = {g: sum(len(canvas.places[v]) for v in ids if v in canvas.places) for g, ids in groups.items()}
    done = dict.fromkeys(groups, 0)
    strokes = dict.fromkeys(canvas.places, 0)
    left = round(share * truth.size)
    # With little paint the strokes are short, so that each class has several.
    longest = -(-left // (_STROKES * len(groups)))
    while left:
        group = min((g for g in groups if done[g] < _limit(sizes[g])), key=lambda g: done[g])
        value = _next(groups[group], canvas, strokes, rng)
        room = min(left, longest, _limit(sizes[group]) - done[group], canvas.room(value))
        painted = canvas.stroke(value, room, rng)
        strokes[value] += 1
        done[group] += painted
        left -= painted
    return canvas.result(truth)


def _limit(size: int) -> int:
    return int(np.ceil(_COVERED * size))


def _next(values: list[int], canvas: _Canvas, strokes: dict[int, int], rng: np.random.Generator) -> int:
    """Choose the class itself, or one of the objects with the fewest strokes that has room."""
    if len(values) == 1:
        return values[0]
    able = [value for value in values if canvas.room(value)]
    fewest = min(strokes[value] for value in able)
    able = [value for value in able if strokes[value] == fewest]
    return able[int(rng.integers(len(able)))]


class _Canvas:
    """The image with a rim as wide as the brush, as flat arrays."""

    def __init__(self, truth: npt.NDArray[np.int32], width: int) -> None:
        radius = width // 2
        self._rim = radius + 1
        padded = np.pad(truth, self._rim, constant_values=-1)
        self._columns = padded.shape[1]
        self._truth = padded.ravel()
        self._painted = np.zeros(self._truth.size, bool)
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disc = y**2 + x**2 <= (width / 2) ** 2
        self._brush = (y * self._columns + x)[disc]
        order = np.argsort(self._truth, kind="stable")
        values, starts = np.unique(self._truth[order], return_index=True)
        parts = np.split(order, starts[1:])
        self.places = {int(v): part for v, part in zip(values, parts, strict=True) if v >= 0}
        self._done = dict.fromkeys(self.places, 0)

    def room(self, value: int) -> int:
        """Pixels of a class or object that may still be painted."""
        return _limit(len(self.places[value])) - self._done[value]

    def stroke(self, value: int, room: int, rng: np.random.Generator) -> int:
        """Paint one stroke of at most `room` pixels; return how many were new."""
        free = self.places[value][~self._painted[self.places[value]]]
        row, column = divmod(int(free[int(rng.integers(len(free)))]), self._columns)
        y, x, heading = row + 0.5, column + 0.5, rng.uniform(0, 2 * pi)
        painted = 0
        for _ in range(int(rng.integers(_SHORTEST, _LONGEST + 1))):
            painted += self._stamp(int(y) * self._columns + int(x), value, room - painted)
            step = self._step(y, x, heading + rng.normal(0, _TURN), value, int(rng.integers(2)))
            if painted == room or step is None:
                break
            y, x, heading = step
        self._done[value] += painted
        return painted

    def _stamp(self, centre: int, value: int, room: int) -> int:
        under = centre + self._brush
        new = under[(self._truth[under] == value) & ~self._painted[under]][:room]
        self._painted[new] = True
        return len(new)

    def _step(
        self, y: float, x: float, heading: float, value: int, side: int
    ) -> tuple[float, float, float] | None:
        """Go one pixel ahead, or where that leaves the class, one aside; None in a dead end."""
        for turn in _DEFLECTIONS:
            for sign in (1, -1) if side else (-1, 1):
                way = heading + sign * turn
                to = y + sin(way), x + cos(way)
                if self._truth[int(to[0]) * self._columns + int(to[1])] == value:
                    return (*to, way)
        return None

    def result(self, truth: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return what was painted, without the rim."""
        painted = self._painted.reshape(-1, self._columns)
        rim = self._rim
        return np.where(painted[rim:-rim, rim:-rim], truth + 1, 0).astype(np.int32)
