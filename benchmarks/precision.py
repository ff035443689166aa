"""Training in float32 and in bfloat16: steps per second and quality, side by side.

    python benchmarks/precision.py [--seeds 0 1 2] [--steps 600] [--preset quick] [--data ../shared/data/isbi2012_em]

Trains on membranes made up here, or on those of ISBI 2012 (folders `image` and `label`; the last sixth of
the slices tests). Both precisions get the same seeds, patches and number of steps, one after the other. Each model is
tested in float32, on images that it never saw: Dice at the model's own threshold, which jumps where several score alike, and at the best one.
Where the mean difference is within the spread among seeds, bfloat16 trains as well; `napari_unet.data.advice` chooses it for that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from napari_unet import predict, train
from napari_unet.config import PredictConfig, TrainConfig, UNetConfig, UNetPreset
from napari_unet.data.metrics import class_scores
from napari_unet.data.synthetic import membranes
from napari_unet.events import Event, StepDone, Validated
from napari_unet.files.image import open_image
from napari_unet.nn.machine import this_computer
from napari_unet.nn.validation import THRESHOLDS

Precision = Literal["float32", "bfloat16"]
Stacks = tuple[np.ndarray, np.ndarray]
"""Images and labels, (Z, Y, X); membranes are 1."""


@dataclass(frozen=True)
class Outcome:
    """One training: steps per second, best Dice held out, Dice on the images that test at the model's threshold and at the best."""

    rate: float
    held_out: float
    test: float
    best: float


def main() -> None:
    """Train all, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--preset", choices=get_args(UNetPreset), default="quick")
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder with `image` and `label`")
    options = parser.parse_args()

    learn, test = _isbi(options.data) if options.data else (_made_up(0), _made_up(1))
    precisions: tuple[Precision, Precision] = ("float32", "bfloat16")
    outcomes: dict[Precision, list[Outcome]] = {name: [] for name in precisions}
    computer = this_computer()
    print(
        f"{options.steps} steps of {options.batch} x {options.patch}², {options.preset}, on "
        f"{computer.accelerator or f'{computer.cores} cores'}; bfloat16 {'in' if computer.bfloat16 else 'NOT in'} hardware\n"
    )
    print(
        f"{'seed':>4} {'precision':10} {'steps/s':>8} {'held-out Dice':>14} {'test Dice':>10} {'at the best threshold':>22}"
    )
    for seed in options.seeds:
        for precision in precisions:
            config = TrainConfig(
                steps=options.steps,
                patch=options.patch,
                batch=options.batch,
                seed=seed,
                precision=precision,
                patience=0,
            )
            outcome = _train(learn, test, UNetConfig.preset(options.preset), config)
            outcomes[precision].append(outcome)
            print(
                f"{seed:4} {precision:10} {outcome.rate:8.2f} {outcome.held_out:14.4f} {outcome.test:10.4f} {outcome.best:22.4f}",
                flush=True,
            )
    print(f"\n{_verdict(outcomes['float32'], outcomes['bfloat16'])}")


def _train(learn: Stacks, test: Stacks, network: UNetConfig, config: TrainConfig) -> Outcome:
    scores: list[float] = []
    seconds: list[float] = []
    last = time.perf_counter()

    def watch(event: Event) -> None:
        nonlocal last
        now = time.perf_counter()
        match event:
            case StepDone():
                seconds.append(now - last)
            case Validated(score=score):
                scores.append(score)
        last = now

    model = train([learn[0]], [learn[1]], network, config, notify=watch).in_precision("float32")
    config = PredictConfig(precision="float32", probability_type="float32")
    probabilities = predict(model, test[0], config, output="probabilities")
    best = max(_dice(probabilities >= threshold, test[1]) for threshold in THRESHOLDS)
    # The first steps prepare the backend; measuring comes between steps, before the event of its score.
    rate = 1 / statistics.median(seconds[3:])
    return Outcome(rate, max(scores), _dice(probabilities >= model.spec.threshold, test[1]), best)


def _dice(answers: np.ndarray, truth: np.ndarray) -> float:
    scores = class_scores(answers.astype(np.uint8), truth, (0, 1))
    return statistics.mean(score.dice for score in scores.values())


def _verdict(exact: list[Outcome], fast: list[Outcome]) -> str:
    """Compare seed by seed."""
    rate = statistics.median(b.rate / a.rate for a, b in zip(exact, fast, strict=True))
    parts = [f"bfloat16 does {rate:.2f} times the steps per second."]
    for name in ("held_out", "test", "best"):
        gains = [getattr(b, name) - getattr(a, name) for a, b in zip(exact, fast, strict=True)]
        parts.append(
            f"{name.replace('_', ' ')}: {statistics.mean(gains):+.4f} ± {_spread(gains):.4f} "
            f"(float32 among seeds ± {_spread([getattr(a, name) for a in exact]):.4f})"
        )
    return "\n".join(parts)


def _spread(values: list[float]) -> float:
    """Return the standard deviation, if there are several."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def _made_up(seed: int) -> Stacks:
    images, labels = membranes((8, 256, 256), seed)
    return images, (labels == 1).astype(np.uint8)


def _isbi(folder: Path) -> tuple[Stacks, Stacks]:
    stacks = []
    for name in ("image", "label"):
        files = sorted((folder / name).iterdir())
        stacks.append(np.stack([np.asarray(open_image(file).array[...]) for file in files]))
    images, labels = stacks[0], (stacks[1] == 0).astype(np.uint8)
    first = len(images) - max(1, len(images) // 6)
    return (images[:first], labels[:first]), (images[first:], labels[first:])


if __name__ == "__main__":
    main()
