"""How well a model learns in a given time: ours against the plain recipe, a random forest and StarDist.

    python benchmarks/quality.py --list                  what is done and what is missing
    python benchmarks/quality.py                         do what is missing, the most useful first
    python benchmarks/quality.py --only ours isbi2012_em # runs whose line in --list has these words
    python benchmarks/quality.py --minutes-left 60       start no run that would not end by then
    python benchmarks/quality.py --table                 print the table and the goals
    python benchmarks/quality.py --docs                  write them, and the curves, into docs/
    python benchmarks/quality.py --minutes 0.3 --results /tmp/try.jsonl    try everything, briefly
    python benchmarks/quality.py --steps 3000 --results benchmarks/quality-gpu.jsonl

Each run is a process of its own; its result is appended to benchmarks/quality.jsonl as one line.
The data is looked for in ``NAPARI_UNET_DATA``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from quality_cells import Cell, append, cell_of, matrix, missing, read

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "quality.jsonl"

_AROUND = 1.5  # minutes of a run beside its training, before any has been timed
_HANGS = 60.0  # minutes beside its training after which a run is given up


def main() -> int:
    """Do what the command line asks."""
    options = _options()
    if options.one:
        one(Cell(**json.loads(options.one)), Path(options.to))
        return 0
    records = read(options.results)
    if options.table or options.docs:
        _show(records, options.docs)
        return 0
    cells = [c for c in matrix(options.minutes, options.steps) if set(options.only) <= set(c.words)]
    todo = missing(cells, map(cell_of, records))
    if options.list:
        _list(cells, todo, records)
        return 0
    return _run(todo, options.results, options.minutes_left)


def one(cell: Cell, to: Path) -> None:
    """Do one run in this process and write what came of it as JSON."""
    from quality_data import load
    from quality_trial import paint

    data = load(cell.data, cell.fold)
    found = paint(data, cell)
    with tempfile.TemporaryDirectory(prefix="napari-unet-quality-") as folder:
        result = _recipe(cell.recipe)(data, found, cell, Path(folder))
    to.write_text(json.dumps({**_circumstances(cell), **result}), encoding="utf-8")


def _recipe(name: str) -> Any:
    match name:
        case "ours":
            from quality_ours import run
        case "plain" | "plain-bare":
            from quality_plain import run
        case "stardist":
            from quality_stardist import run
        case _:
            from quality_forest import run
    return run


def _circumstances(cell: Cell) -> dict[str, Any]:
    """Note what a result may depend on beside its key."""
    found: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _commit()}
    if cell.recipe != "forest":
        import keras

        from napari_unet.nn import backend

        found |= {
            "precision": keras.config.dtype_policy().name,
            "device": backend.device_name(),
            "backend": keras.backend.backend(),
        }
    return found


def _commit() -> str | None:
    """Return the commit, with a + where files were changed since; for information only."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _run(todo: Sequence[Cell], results: Path, minutes_left: float | None) -> int:
    """Run cells one after another; return how many failed."""
    end = time.monotonic() + 60 * minutes_left if minutes_left is not None else float("inf")
    failed = 0
    for cell in todo:
        expected = _expected(cell, read(results))
        if time.monotonic() + 60 * expected > end:
            continue
        print(
            f"{time.strftime('%H:%M')} {' '.join(cell.words)} (about {expected:.0f} min) ", end="", flush=True
        )
        started = time.monotonic()
        result = _in_process(cell)
        if result is None:
            failed += 1
            continue
        result["wall_seconds"] = round(time.monotonic() - started, 1)
        append(results, cell, result)
        print({name: round(value, 3) for name, value in result["scores"].items()}, flush=True)
    return failed


def _in_process(cell: Cell) -> dict[str, Any] | None:
    """Do one run in a process of its own; None, with the end of what it printed, if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "result.json"
        command = [
            sys.executable,
            str(HERE / "quality.py"),
            "--one",
            json.dumps(asdict(cell)),
            "--to",
            str(to),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=60 * (2 * cell.minutes + _HANGS)
            )
        except subprocess.TimeoutExpired:
            print("gave no result in time", flush=True)
            return None
        if done.returncode or not to.exists():
            print(f"failed ({done.returncode}): {done.stderr.strip()[-800:]}", flush=True)
            return None
        found: dict[str, Any] = json.loads(to.read_text(encoding="utf-8"))
        return found


def _expected(cell: Cell, records: Sequence[dict[str, Any]]) -> float:
    """Minutes that a run will take: as long as runs like it took beside their training, or a guess."""
    around = [
        (record["wall_seconds"] - record["train_seconds"]) / 60
        for record in records
        if (record["recipe"], record["data"]) == (cell.recipe, cell.data)
    ]
    trained = [
        r["train_seconds"] / 60 for r in records if (r["recipe"], r["data"]) == (cell.recipe, cell.data)
    ]
    training = 1.05 * cell.minutes if cell.minutes else median(trained) if trained else _AROUND
    return training + (median(around) if around else _AROUND)


def _list(cells: Sequence[Cell], todo: Sequence[Cell], records: Sequence[dict[str, Any]]) -> None:
    for cell in cells:
        print("missing" if cell in todo else "done   ", *cell.words)
    minutes = sum(_expected(cell, records) for cell in todo)
    print(f"{len(cells) - len(todo)} done, {len(todo)} missing: about {minutes / 60:.1f} hours")


def _show(records: Sequence[dict[str, Any]], docs: bool) -> None:
    from quality_curves import curves
    from quality_table import table

    text = table(records)
    if not docs:
        print(text)
        return
    page, picture = HERE.parent / "docs" / "quality.md", HERE.parent / "docs" / "images" / "quality.svg"
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- results -->")
    _, _, after = rest.partition("<!-- end of results -->")
    page.write_text(f"{before}<!-- results -->\n{text}\n<!-- end of results -->{after}", encoding="utf-8")
    picture.write_text(curves(records), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="runs with all these words")
    parser.add_argument("--minutes-left", type=float, help="start no run that would not end by then")
    parser.add_argument("--minutes", type=float, help="of each run, instead of its own")
    parser.add_argument("--steps", type=int, default=0, help="of each run, instead of minutes")
    for name in ("list", "table", "docs"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--to", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
