"""The table of results, and which goals are met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from quality_cells import MAIN, SCRIBBLES, Cell, cell_of
from quality_data import FOLDS, KINDS
from quality_scores import PRIMARY

__all__ = ["goals", "table"]

_SHOWN = {
    "membranes": ("v_rand", "v_rand_chosen", "v_info", "pixel_error"),
    "objects": ("ap_50", "ap_70", "ap_90", "seg"),
    "classes": ("mean_iou",),
}
_NAMES = {
    "v_rand": "V_rand",
    "v_rand_chosen": "V_rand at own threshold",
    "v_info": "V_info",
    "pixel_error": "pixel error",
    "ap_50": "AP 0.5",
    "ap_70": "AP 0.7",
    "ap_90": "AP 0.9",
    "seg": "SEG",
    "mean_iou": "mean IoU",
}
_RECIPES = ("ours", "plain", "forest", "plain-bare", "stardist", "ours-adam")

Record = dict[str, Any]


def table(records: Sequence[Record]) -> str:
    """Return all results as Markdown: a table for each data set, then the goals."""
    parts = []
    for data in KINDS:
        rows = _rows([record for record in records if record["data"] == data])
        if rows:
            parts += [f"### {data}", "", *rows, ""]
    return "\n".join([*parts, "### Goals", "", "| goal | found | |", "|---|---|---|", *goals(records)])


def _rows(records: Sequence[Record]) -> list[str]:
    """Return a row for each recipe, amount of paint and time: means over seeds or folds, with their spread."""
    if not records:
        return []
    kind = KINDS[records[0]["data"]]
    shown = [name for name in _SHOWN[kind] if any(name in record["scores"] for record in records)]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(_group(record), []).append(record)
    head = ["recipe", "paint", "trained", "runs", "steps", "cores", *(_NAMES[name] for name in shown)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for group in sorted(groups):
        runs = groups[group]
        cells = [_figure([run["scores"][name] for run in runs if name in run["scores"]]) for name in shown]
        lines.append(f"| {' | '.join([*_labels(runs), *cells])} |")
    return lines


def _group(record: Record) -> tuple[Any, ...]:
    length = record["steps"] or record["minutes"]
    return -record["amount"], length, _RECIPES.index(record["recipe"]), bool(record["steps"])


def _labels(runs: Sequence[Record]) -> list[str]:
    """Return recipe, paint, time, number of runs, steps and cores."""
    first = runs[0]
    paint = "dense" if first["amount"] == 1 else f"{100 * first['amount']:g} %"
    trained = f"{mean(run['train_seconds'] for run in runs) / 60:.1f} min"
    folds = {run["fold"] for run in runs if run["fold"] is not None}
    times = f"{len(runs)} folds" if len(folds) > 1 else f"{len(runs)}"
    steps = f"{mean(run['steps_done'] for run in runs):,.0f}" if "steps_done" in first else ""
    cores = [run["cores"] for run in runs if "cores" in run]
    return [first["recipe"], paint, trained, times, steps, f"{mean(cores):.1f}" if cores else ""]


def _figure(values: Sequence[float]) -> str:
    """Return the mean, and the standard deviation of several."""
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def goals(records: Sequence[Record]) -> list[str]:
    """Return a row for each goal: what is asked, what was found, and whether it is met."""
    runs = _Runs(records)
    rows = [
        runs.at_least("isbi2012_em, 5 folds, 30 min: V_rand", _long(MAIN[0]), "v_rand", 0.98),
        runs.at_most("isbi2012_em, 5 folds, 30 min: pixel error", _long(MAIN[0]), "pixel_error", 0.07),
        runs.at_least("dsb2018_fluo, 30 min: AP at 0.5", _long(MAIN[1]), "ap_50", 0.88),
        runs.at_least("dsb2018_fluo, 30 min: AP at 0.7", _long(MAIN[1]), "ap_70", 0.75),
        *(runs.beats(data) for data, kind in KINDS.items() if kind == "classes"),
        *(runs.scribbles(data) for data in KINDS),
        *(runs.third(data) for data in MAIN),
    ]
    return [f"| {name} | {found} | {verdict} |" for name, found, verdict in rows]


_Row = tuple[str, str, str]


def _long(data: str) -> list[Cell]:
    folds: Iterable[int | None] = range(FOLDS) if data == "isbi2012_em" else (None,)
    return [Cell("ours", data, minutes=30.0, fold=fold) for fold in folds]


class _Runs:
    """Results by cell."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = {cell_of(record): record for record in records}

    def _values(self, cells: Iterable[Cell], name: str) -> list[float]:
        return [self._records[cell]["scores"][name] for cell in cells if cell in self._records]

    def _seeds(self, recipe: str, data: str, amount: float, name: str) -> list[float]:
        fold = FOLDS - 1 if data == "isbi2012_em" else None
        minutes = 0.0 if recipe == "forest" else 6.0
        return self._values([Cell(recipe, data, amount, minutes, seed, fold) for seed in range(3)], name)

    def at_least(self, goal: str, cells: list[Cell], name: str, least: float) -> _Row:
        """Compare a mean with what it should reach."""
        values = self._values(cells, name)
        return _row(f"{goal} at least {least:g}", values, len(cells), lambda found: found - least)

    def at_most(self, goal: str, cells: list[Cell], name: str, most: float) -> _Row:
        """Compare a mean with what it should stay under."""
        values = self._values(cells, name)
        return _row(f"{goal} at most {most:g}", values, len(cells), lambda found: most - found)

    def beats(self, data: str) -> _Row:
        """Compare ours with the better of the others; the spread is the larger of both, or another set's."""
        goal = f"{data}, 6 min: mean IoU above plain and forest by more than the spread"
        ours, plain, forest = (self._seeds(recipe, data, 1.0, "mean_iou") for recipe in _RECIPES[:3])
        if not (ours and plain and forest):
            return goal, "", "not run"
        spread = max(_spread(ours), _spread(plain)) or max(
            _spread(self._seeds(recipe, MAIN[2], 1.0, "mean_iou")) for recipe in _RECIPES[:2]
        )
        ahead = mean(ours) - max(mean(plain), mean(forest))
        found = f"{mean(ours):.3f} against {mean(plain):.3f} and {mean(forest):.3f}"
        if not spread:
            return goal, f"{found}, one seed each", "spread not known"
        found += f", spread {spread:.3f}"
        return goal, found, _verdict(ahead - spread, strict=True)

    def scribbles(self, data: str) -> _Row:
        """Compare ours with 2 % of the paint with ours with all of it."""
        name = PRIMARY[KINDS[data]]
        goal = f"{data}, 6 min: {_NAMES[name]} with 2 % scribbles at least 97 % of dense"
        few, all_of_it = (self._seeds("ours", data, amount, name) for amount in (SCRIBBLES, 1.0))
        if not (few and all_of_it):
            return goal, "", "not run"
        part = mean(few) / max(mean(all_of_it), 1e-6)
        found = f"{mean(few):.3f} of {mean(all_of_it):.3f}: {100 * part:.1f} %"
        return goal, found, _verdict(part - 0.97)

    def third(self, data: str) -> _Row:
        """Compare ours after a third of the time with plain after all of it."""
        name = PRIMARY[KINDS[data]]
        goal = f"{data}, dense: {_NAMES[name]} of ours after 2 min at least that of plain after 6"
        fold = FOLDS - 1 if data == "isbi2012_em" else None
        planned = self._values([Cell("ours", data, minutes=2.0, fold=fold)], name)
        plain = self._seeds("plain", data, 1.0, name)
        long = [Cell("ours", data, minutes=6.0, seed=seed, fold=fold) for seed in range(3)]
        during = [
            mark["scores"][name]
            for cell in long
            if cell in self._records
            for mark in self._records[cell]["marks"]
            if abs(mark["part"] - 1 / 3) < 0.01
        ]
        if not (planned and plain):
            return goal, "", "not run"
        found = f"{mean(planned):.3f} against {_figure(plain)}"
        if during:
            found += f"; {_figure(during)} in runs planned for 6 min, after 2"
        return goal, found, _verdict(mean(planned) - mean(plain))


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _row(goal: str, values: Sequence[float], needed: int, margin: Any) -> _Row:
    if len(values) < needed:
        return goal, f"{len(values)} of {needed} runs" if values else "", "not run"
    return goal, _figure(values), _verdict(margin(mean(values)))


def _verdict(margin: float, *, strict: bool = False) -> str:
    met = margin > 0 if strict else margin >= 0
    return "met" if met else f"missed by {-margin:.3f}"
