"""Quality against minutes, as a picture (SVG): a panel for each data set."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import mean
from typing import Any

from quality_data import KINDS
from quality_scores import PRIMARY

__all__ = ["curves", "points"]

_WIDTH, _HEIGHT, _COLUMNS = 300, 220, 3  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 30, 34  # margins within it
_LEGEND = 28
_LINES = {
    # Of Okabe and Ito's colours, which colour-blind readers tell apart; dashes say the same.
    ("ours", 1.0): ("#0072b2", "", "ours, dense"),
    ("ours", 0.02): ("#56b4e9", "6 3", "ours, 2 %"),
    ("plain", 1.0): ("#d55e00", "", "plain, dense"),
    ("plain", 0.02): ("#e69f00", "6 3", "plain, 2 %"),
    ("forest", 1.0): ("#555555", "", "forest, dense"),
    ("forest", 0.02): ("#555555", "2 3", "forest, 2 %"),
}
_TITLES = {"v_rand": "V_rand", "ap_50": "AP at IoU 0.5", "mean_iou": "mean IoU"}

Record = dict[str, Any]
_Points = list[tuple[float, float]]


def curves(records: Sequence[Record]) -> str:
    """Draw the means over seeds of the runs of 6 minutes, at each moment at which they were scored."""
    sets = [data for data in KINDS if any(record["data"] == data for record in records)]
    rows = -(-len(sets) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT + _LEGEND
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_legend(),
    ]
    for i, data in enumerate(sets):
        x, y = i % _COLUMNS * _WIDTH, i // _COLUMNS * _HEIGHT + _LEGEND
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _panel(data, [record for record in records if record["data"] == data])
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def points(records: Sequence[Record], recipe: str, amount: float, minutes: float, name: str) -> _Points:
    """Return (minutes, score) of one line: the mean over runs, at each moment that all were scored at."""
    runs = [
        {**{round(mark["part"], 2): mark["scores"][name] for mark in r["marks"]}, 1.0: r["scores"][name]}
        for r in records
        if (r["recipe"], r["amount"], r["minutes"], r["steps"]) == (recipe, amount, minutes, 0)
    ]
    parts = sorted(set.intersection(*map(set, runs))) if runs else []
    return [(part * minutes, mean(run[part] for run in runs)) for part in parts]


def _panel(data: str, records: Sequence[Record]) -> list[str]:
    name, minutes = PRIMARY[KINDS[data]], 6.0
    lines = {key: points(records, *key, 0.0 if key[0] == "forest" else minutes, name) for key in _LINES}
    found = [value for line in lines.values() for _, value in line]
    low = max(0.0, int(10 * min(found, default=0.0)) / 10)
    high = 1.0
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(minute: float, value: float) -> str:
        x = _LEFT + minute / minutes * (right - _LEFT)
        return f"{x:.1f},{bottom - (value - low) / (high - low) * (bottom - _TOP):.1f}"

    parts = [
        f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(data)}: {_TITLES[name]}</text>',
        *_axes(low, high, minutes, place),
    ]
    for key, line in lines.items():
        colour, dashes, _ = _LINES[key]
        style = f'stroke="{colour}" stroke-dasharray="{dashes}" stroke-width="2" fill="none"'
        ends = [(0.0, line[0][1]), (minutes, line[0][1])] if key[0] == "forest" and line else line
        if len(ends) > 1:
            parts.append(f'<polyline points="{" ".join(place(*end) for end in ends)}" {style}/>')
        if key[0] != "forest":
            for x, y in (place(*point).split(",") for point in line):
                parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
    return parts


def _axes(low: float, high: float, minutes: float, place: Any) -> list[str]:
    parts = []
    for i in range(5):
        value = low + i * (high - low) / 4
        (x1, y), (x2, _) = (place(minute, value).split(",") for minute in (0, minutes))
        parts.append(f'<line x1="{x1}" y1="{y}" x2="{x2}" y2="{y}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{float(y) + 4}" text-anchor="end">{value:.2f}</text>')
    for minute in range(0, int(minutes) + 1, 2):
        x, y = place(minute, low).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 15}" text-anchor="middle">{minute}</text>')
    x, y = place(minutes / 2, low).split(",")
    return [*parts, f'<text x="{x}" y="{float(y) + 29}" text-anchor="middle">minutes of training</text>']


def _legend() -> list[str]:
    parts = []
    for i, (colour, dashes, text) in enumerate(_LINES.values()):
        x = 20 + i * 146
        parts.append(
            f'<line x1="{x}" y1="14" x2="{x + 26}" y2="14" stroke="{colour}" stroke-dasharray="{dashes}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{x + 31}" y="18">{escape(text)}</text>')
    return parts
