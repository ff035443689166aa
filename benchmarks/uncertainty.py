"""Does uncertainty find errors, and what does it cost?

On images that the model has not seen: the fraction of wrong pixels that is found by looking at the most unsure pixels first, against the
fraction looked at; the area under that curve is 0.5 for looking at random. And the time of dropout passes against that of as many whole passes.

python benchmarks/uncertainty.py MODEL.unet --images DIR_OR_FILES --labels DIR_OR_FILES [--passes 8] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_unet import PredictConfig, load_model, predict
from napari_unet.data.labels import as_integers
from napari_unet.files.image import open_image
from napari_unet.files.pairs import match_pairs

LOOKED_AT = (0.01, 0.05, 0.1, 0.2)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, nargs="+", required=True)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = load_model(options.model)
    config = PredictConfig(probability_type="float32", passes=options.passes)
    pairs = match_pairs(options.images, options.labels).pairs
    wrong, maps = [], {"entropy": [], "uncertainty": []}
    for path, truth_path in pairs:
        picture, truth = open_image(path), open_image(truth_path)
        image = np.asarray(picture.array[...])
        labels = predict(model, image, config, axes=picture.axes)
        wrong.append((labels != as_integers(np.asarray(truth.array[...]), truth.name)).ravel())
        for kind, values in maps.items():
            values.append(predict(model, image, config, output=kind, axes=picture.axes).ravel())
    errors = np.concatenate(wrong)
    print(f"{len(pairs)} images, {errors.size / 1e6:.1f} megapixels, {100 * errors.mean():.2f} % wrong\n")
    header = "".join(f"{f'found in {100 * part:.0f} %':>15}" for part in LOOKED_AT)
    print(f"{'looked at first':16}{'area under curve':>18}{header}")
    rng = np.random.default_rng(0)
    for kind, values in {**maps, "random": [rng.random(errors.size)]}.items():
        area, found = curve(np.concatenate(values), errors)
        print(f"{kind:16}{area:18.4f}" + "".join(f"{100 * part:14.1f}%" for part in found))
    _cost(model, image, picture.axes, config, options.rounds)


def curve(unsure: np.ndarray, wrong: np.ndarray) -> tuple[float, list[float]]:
    """Area under the curve of errors found against pixels looked at, and some points of it; ties are looked at together."""
    order = np.argsort(-unsure, kind="stable")
    found = np.cumsum(wrong[order]) / max(1, wrong.sum())
    ranks = np.arange(1, len(found) + 1) / len(found)
    ends = np.flatnonzero(np.r_[np.diff(unsure[order]) != 0, True])
    x, y = np.r_[0, ranks[ends]], np.r_[0, found[ends]]
    return float(np.trapezoid(y, x)), [float(np.interp(part, x, y)) for part in LOOKED_AT]


def _cost(model: object, image: np.ndarray, axes: str, config: PredictConfig, rounds: int) -> None:
    """Compare dropout passes with one pass, interleaved."""
    ways: dict[str, Callable[[], object]] = {
        "one pass": lambda: predict(model, image, config, output="entropy", axes=axes),
        f"{config.passes} dropout passes": lambda: predict(
            model, image, config, output="uncertainty", axes=axes
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    one, several = (statistics.median(times) for times in seconds.values())
    print(
        f"\none pass {one:.2f} s, {config.passes} dropout passes {several:.2f} s: {several / one:.2f} passes' time"
    )


if __name__ == "__main__":
    main()
