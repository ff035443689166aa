from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from quality_cells import MAIN, Cell, append, cell_of, matrix, missing, read
from quality_curves import curves, points
from quality_data import KINDS, load
from quality_scores import PRIMARY
from quality_table import goals, table


def record(cell: Cell, value: float, **changes: Any) -> dict[str, Any]:
    names = {
        "membranes": ("v_rand", "v_rand_chosen", "v_info", "pixel_error"),
        "objects": ("ap_50", "ap_70", "ap_90", "seg"),
        "classes": ("mean_iou",),
    }[KINDS[cell.data]]
    scores = dict.fromkeys(names, value)
    marks = [{"part": part, "scores": scores} for part in (0.167, 0.333, 0.667)]
    run = {"scores": scores, "marks": marks, "steps_done": 9, "train_seconds": 6.0, "cores": 2.0}
    return {**asdict(cell), **run, "wall_seconds": 66.0, **changes}


def test_the_matrix_is_the_one_that_was_asked_for() -> None:
    cells = matrix()
    assert len(set(cells)) == len(cells)
    learned = [cell for cell in cells if cell.recipe != "forest" and cell.minutes == 6]
    seeds = Counter((c.data, c.recipe, c.amount) for c in learned)
    for data in KINDS:
        for recipe in ("ours", "plain"):
            for amount in (1.0, 0.02):
                assert seeds[data, recipe, amount] == (3 if data in MAIN else 1)
    assert {c.data for c in learned if c.amount in (0.005, 0.1)} == {"isbi2012_em"}
    long = [c for c in cells if c.minutes == 30]
    assert sorted((c.recipe, c.data, c.fold) for c in long if c.fold is not None) == [
        ("ours", "isbi2012_em", fold) for fold in range(5)
    ]
    assert {c.data for c in long} == {"isbi2012_em", "dsb2018_fluo"}
    assert {c.data for c in cells if c.recipe == "forest"} == set(KINDS)


def test_one_seed_of_what_matters_comes_first() -> None:
    assert {cell.seed for cell in matrix()[: len(matrix()) // 2]} == {0}
    assert {cell.data for cell in matrix()[:12]} == set(MAIN)


def test_another_length_holds_for_every_run_and_makes_no_run_twice() -> None:
    short = matrix(minutes=0.3)
    assert {cell.minutes for cell in short if cell.recipe != "forest"} == {0.3}
    assert len(set(short)) == len(short) < len(matrix())
    assert {(c.minutes, c.steps) for c in matrix(steps=50) if c.recipe != "forest"} == {(0.0, 50)}


def test_a_finished_run_is_not_done_again_even_after_a_line_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first, second, *_ = cells = matrix()
    append(path, first, {"scores": {"v_rand": 0.5}})
    with path.open("a") as file:
        file.write('{"recipe": "ours", "da')
    assert [cell_of(found) for found in read(path)] == [first]
    append(path, second, {"scores": {"v_rand": 0.6}})
    assert missing(cells, map(cell_of, read(path))) == cells[2:]


def test_the_table_shows_mean_and_spread_over_seeds() -> None:
    cells = [Cell("plain", "isbi2012_em", seed=seed, fold=4) for seed in range(3)]
    text = table([record(cell, value) for cell, value in zip(cells, (0.8, 0.9, 1.0), strict=True)])
    assert "| plain | dense | 0.1 min | 3 | 9 | 2.0 | 0.900 ± 0.100 |" in text


def test_goals_say_met_missed_or_not_run() -> None:
    assert all("| not run |" in row for row in goals([]))
    folds = [Cell("ours", "isbi2012_em", minutes=30.0, fold=fold) for fold in range(5)]
    rows = goals([record(cell, 0.97) for cell in folds])
    assert rows[0].endswith("| 0.970 ± 0.000 | missed by 0.010 |")
    fluo = Cell("ours", "dsb2018_fluo", minutes=30.0)
    assert goals([record(fluo, 0.9)])[2].endswith("| 0.900 | met |")
    assert "3 of 5 runs" in goals([record(cell, 0.97) for cell in folds[:3]])[0]


def test_a_set_is_won_by_more_than_the_spread_only() -> None:
    def rows(ours: tuple[float, float]) -> str:
        found = [record(Cell("ours", "vnc_em_multiclass", seed=s), value) for s, value in enumerate(ours)]
        found.append(record(Cell("plain", "vnc_em_multiclass"), 0.5))
        found.append(record(Cell("forest", "vnc_em_multiclass", minutes=0.0), 0.6))
        return next(row for row in goals(found) if "vnc_em_multiclass, 6 min: mean" in row)

    assert rows((0.79, 0.81)).endswith("| met |")
    assert "missed by" in rows((0.50, 0.74))


def test_ours_after_a_third_of_the_time_is_compared_with_plain_after_all_of_it() -> None:
    ours, plain = Cell("ours", "dsb2018_fluo", minutes=2.0), Cell("plain", "dsb2018_fluo")
    rows = goals([record(ours, 0.7), record(plain, 0.6), record(replace(ours, minutes=6.0), 0.65)])
    row = next(row for row in rows if row.startswith("| dsb2018_fluo, dense"))
    assert "0.700 against 0.600; 0.650 in runs planned for 6 min, after 2 | met |" in row


def test_a_curve_has_the_moments_that_all_runs_were_scored_at() -> None:
    cells = [Cell("ours", "isbi2012_em", seed=seed, fold=4) for seed in range(2)]
    runs = [record(cell, value) for cell, value in zip(cells, (0.8, 0.9), strict=True)]
    runs[1]["marks"] = runs[1]["marks"][1:]  # its first model came late
    found = points(runs, "ours", 1.0, 6.0, PRIMARY["membranes"])
    assert [round(minute, 1) for minute, _ in found] == [2.0, 4.0, 6.0]
    assert [round(value, 2) for _, value in found] == [0.85] * 3


def test_the_picture_is_an_svg_with_a_panel_for_each_set() -> None:
    runs = [record(cell, 0.7) for cell in matrix()]
    picture = ET.fromstring(curves(runs))
    titles = [text.text or "" for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert all(any(title.startswith(f"{data}:") for title in titles) for data in KINDS)


@pytest.mark.parametrize("data", ["isbi2012_em", "vnc_em_multiclass", "sandstone_ct_4class"])
def test_no_image_trains_and_tests(data: str, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_UNET_DATA", str(real_data))
    found = load(data)
    assert found.train and found.test
    assert not {p.name for p in found.train} & {p.name for p in found.test}
    assert all(p.truth.shape == p.image.shape for p in found.train + found.test)


def test_the_five_folds_test_each_slice_once(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_UNET_DATA", str(real_data))
    tested = Counter(picture.name for fold in range(5) for picture in load("isbi2012_em", fold).test)
    assert len(tested) == 20 and set(tested.values()) == {1}
