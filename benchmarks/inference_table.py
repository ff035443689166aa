"""The tables of the inference benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from inference_measure import Precision, Way
from inference_ways import ORIGINAL, REWRITTEN

__all__ = ["Results", "print_shares", "print_ways"]


@dataclass(frozen=True)
class Results:
    """What was measured of each way, by its name.

    `difference` is the largest and the mean one.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    difference: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, way: Way, seconds: float, peak: int) -> None:
        self.seconds.setdefault(way.name, []).append(seconds * way.scale)
        self.peak[way.name] = max(peak, self.peak.get(way.name, 0))

    def compare(self, way: Way, answer: np.ndarray, right: np.ndarray) -> None:
        error = np.abs(answer[: len(right)] - right)
        self.difference[way.name] = float(error.max()), float(error.mean())

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def print_ways(
    ways: Sequence[Way], results: Results, pixels: int, work: float, peaks: Mapping[Precision, float]
) -> None:
    """Print a row for each way.

    Parameters
    ----------
    ways : sequence of Way
        All; some have no row.
    results : Results
        Theirs.
    pixels : int
        Of the output.
    work : float
        Nominal multiply-adds per pixel.
    peaks : mapping
        Operations per second of the fastest convolution, by precision.
    """
    titles = ("seconds", "Mpixel/s", "over bare", "of peak", "computed", "largest", "mean diff.", "peak MB")
    print(f"{'way':44}" + "".join(f"{title:>11}" for title in titles))
    for way in ways:
        if not way.shown:
            continue
        seconds = results.median(way.name)
        over = f"{seconds / results.median(way.over):.2f}" if way.over in results.seconds else "-"
        largest, mean = (f"{value:.1e}" for value in results.difference[way.name])
        cells = (
            f"{seconds:.3f}",
            f"{pixels / seconds / 1e6:.3f}",
            over,
            f"{2 * work * way.computed / seconds / peaks[way.precision]:.0%}",
            f"{way.computed / pixels:.2f}",
            largest,
            mean,
            f"{results.peak[way.name] / 1e6:.0f}",
        )
        print(f"{way.name:44}" + "".join(f"{cell:>11}" for cell in cells))


def print_shares(results: Results, precisions: Sequence[Precision]) -> None:
    """Print what the network, its rewriting, the tiles and the rest of the engine take, one after the other."""
    print(f"\n{'the engine, step by step':44}{'seconds':>11}{'over above':>11}{'over first':>11}")
    for precision in precisions:
        names = (ORIGINAL, REWRITTEN, "our tiles, bare", "ours")
        steps = [f"{name}, {precision}" for name in names if f"{name}, {precision}" in results.seconds]
        first = above = results.median(steps[0]) if steps else 0.0
        for name in steps:
            seconds = results.median(name)
            print(f"{name:44}{seconds:11.3f}{seconds / above:11.3f}{seconds / first:11.3f}")
            above = seconds
