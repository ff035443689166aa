"""Which runs the comparison consists of, and which of them are done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quality_data import FOLDS, KINDS

__all__ = ["MAIN", "SCRIBBLES", "Cell", "append", "cell_of", "matrix", "missing", "read"]

MAIN = ("isbi2012_em", "dsb2018_fluo", "vnc_em_multiclass")
"""The sets that are run with three seeds."""

SCRIBBLES = 0.02
"""The share of painted pixels that every set is run with."""

_SHORT, _LONG, _THIRD = 6.0, 30.0, 2.0  # minutes


@dataclass(frozen=True)
class Cell:
    """One run: what is trained how, on what, for how long.

    Parameters
    ----------
    recipe : {"ours", "plain", "plain-bare", "forest", "stardist"}
        How; plain is with batch normalisation in the network, plain-bare without. Results also hold what "ours" was before Muon,
        as "ours-adam".
    data : str
        A folder of `quality_data.KINDS`.
    amount : float
        Share of the pixels of each training image that is painted; 1 is dense.
    minutes : float
        Of training; 0 where `steps` says how long, or the recipe needs no limit (forest).
    seed : int
        Of the training and of the painter.
    fold : int, optional
        For isbi2012_em: which slices test.
    steps : int
        Training steps, instead of minutes.
    """

    recipe: str
    data: str
    amount: float = 1.0
    minutes: float = _SHORT
    seed: int = 0
    fold: int | None = None
    steps: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """What `--only` is compared with, and what `--list` shows."""
        paint = "dense" if self.amount == 1 else f"{100 * self.amount:g}%"
        length = f"{self.steps}steps" if self.steps else f"{self.minutes:g}min" if self.minutes else ""
        fold = "" if self.fold is None else f"fold{self.fold}"
        words = (self.recipe, self.data, paint, length, f"seed{self.seed}", fold)
        return tuple(word for word in words if word)


def matrix(minutes: float | None = None, steps: int = 0) -> list[Cell]:
    """Return all runs, the most useful first.

    Parameters
    ----------
    minutes : float, optional
        For every run, instead of its own minutes.
    steps : int
        For every run, instead of its minutes.
    """
    cells = [*_first(), *_forests(), *_goals(), *_others(), *_amounts(), *_bare(), *_stardist(), *_seeds()]
    if minutes is not None or steps:
        length = {"minutes": 0.0 if steps else minutes, "steps": steps}
        cells = [cell if cell.recipe == "forest" else replace(cell, **length) for cell in cells]
    return list(dict.fromkeys(cells))


def missing(cells: Iterable[Cell], done: Iterable[Cell]) -> list[Cell]:
    """Return the cells that are not done, in their order."""
    done = set(done)
    return [cell for cell in cells if cell not in done]


def cell_of(record: dict[str, Any]) -> Cell:
    """Return the cell that a result belongs to."""
    return Cell(**{name: record[name] for name in Cell.__dataclass_fields__})


def read(path: Path) -> list[dict[str, Any]]:
    """Read results; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]


def append(path: Path, cell: Cell, result: dict[str, Any]) -> None:
    """Add a result as one line."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):  # cut off by a kill
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(cell), **result}, sort_keys=False) + "\n")


def _cell(recipe: str, data: str, amount: float = 1.0, minutes: float = _SHORT, seed: int = 0) -> Cell:
    fold = FOLDS - 1 if data == "isbi2012_em" else None
    return Cell(recipe, data, amount, 0.0 if recipe == "forest" else minutes, seed, fold)


def _both(sets: Sequence[str], amounts: Sequence[float], seed: int = 0) -> list[Cell]:
    return [_cell(r, d, a, seed=seed) for d in sets for a in amounts for r in ("ours", "plain")]


def _first() -> list[Cell]:
    """One seed of what matters most, and a run of ours in a third of the time."""
    return _both(MAIN, (1.0, SCRIBBLES)) + [_cell("ours", data, minutes=_THIRD) for data in MAIN]


def _forests() -> list[Cell]:
    cells = [_cell("forest", data, amount) for data in KINDS for amount in (1.0, SCRIBBLES)]
    return [*cells, _cell("forest", MAIN[0], 0.005), _cell("forest", MAIN[0], 0.1)]


def _goals() -> list[Cell]:
    """Return the long runs, of ours alone."""
    folds = [replace(_cell("ours", MAIN[0], minutes=_LONG), fold=fold) for fold in reversed(range(FOLDS))]
    return [folds[0], _cell("ours", MAIN[1], minutes=_LONG), *folds[1:]]


def _others() -> list[Cell]:
    return _both([data for data in KINDS if data not in MAIN], (1.0, SCRIBBLES))


def _amounts() -> list[Cell]:
    return _both(MAIN[:1], (0.005, 0.1))


def _bare() -> list[Cell]:
    """Return what the linked program does, on its network."""
    return [_cell("plain-bare", data) for data in MAIN]


def _stardist() -> list[Cell]:
    return [_cell("stardist", data) for data, kind in KINDS.items() if kind == "objects"]


def _seeds() -> list[Cell]:
    return [cell for seed in (1, 2) for cell in _both(MAIN, (1.0, SCRIBBLES), seed)]
