"""Drawing and varying patches, beside the training step that uses them.

    python benchmarks/pipeline.py [--filters 16] [--patch 256] [--batch 2] [--channels 1] [--rounds 20]

Seconds of processor time, of all threads of this process, so that what else runs on the computer counts
little; medians, interleaved. A ratio under 5 % is the goal.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import get_args

import numpy as np

from napari_unet.augmentation import Augmentation, AugmentationPreset
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.augment import coordinates, draw_variation, read_patch, relight
from napari_unet.data.dataset import Example
from napari_unet.data.sampling import Sampler, cut_patch
from napari_unet.data.synthetic import cells
from napari_unet.nn.learner import Learner

GOAL = 0.05


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()

    examples = _examples(options.patch, options.channels)
    samplers = {
        name: Sampler(examples, 2, options.patch, options.batch, 0, Augmentation.preset(name))
        for name in get_args(AugmentationPreset)
    }
    network = UNetConfig(filters=options.filters, channels=options.channels)
    learner = Learner(network, TrainConfig(precision="float32"), seed=0)
    batch = samplers["light"].batch(0)
    learner.step(batch, 0, 100, 1.0)  # the first step traces the network

    seconds: dict[str, list[float]] = {name: [] for name in ("step", *samplers, *_parts(samplers["full"], 0))}
    for n in range(options.rounds):
        seconds["step"].append(_spent(lambda n=n: learner.step(batch, n, 100, 1.0)))
        for name, sampler in samplers.items():
            # Some patches of "full" are blurred or coarse: four batches stand for their mean.
            seconds[name].append(
                _spent(lambda s=sampler, n=n: [s.batch(k) for k in range(4 * n, 4 * n + 4)]) / 4
            )
        for name, part in _parts(samplers["full"], n).items():
            seconds[name].append(_spent(part))

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{options.filters} filters, patch {options.patch}, batch {options.batch}, channels {options.channels}; "
        f"processor time, median of {options.rounds}\n"
    )
    print(f"{'':44} {'ms':>8} {'of a step':>10}")
    for name, median in medians.items():
        ratio = median / medians["step"]
        verdict = "" if name not in samplers else "  under 5 %" if ratio < GOAL else "  over 5 %"
        label = f"batch, {name}" if name in samplers else name
        print(f"{label:44} {1e3 * median:8.2f} {ratio:10.1%}{verdict}")


def _examples(patch: int, channels: int) -> list[Example]:
    """Make slices twice as large as a patch, with weights, so that it is turned within the image."""
    examples = []
    for seed in range(4):
        image, labels, _ = cells((2 * patch, 2 * patch), seed=seed)
        pixels = image.astype(np.float32)
        pixels = (pixels - pixels.min()) / np.ptp(pixels)
        weight = np.ones(labels.shape, np.float16)
        examples.append(
            Example(
                np.repeat(pixels[..., None], channels, -1), (labels > 0).astype(np.uint8), seed, 0, weight
            )
        )
    return examples


def _parts(sampler: Sampler, n: int) -> dict[str, Callable[[], object]]:
    """What one patch costs, part by part, each turned up so that it is surely done."""
    rng = np.random.default_rng([1, n])
    side = sampler.patch
    example, at, start = sampler.place(rng, even=False)
    plain = draw_variation(Augmentation.preset("none"), side, rng)
    bent = draw_variation(Augmentation.preset("none", rotation=180.0, scaling=0.4, deform=0.06), side, rng)
    assert bent.grid is not None
    where = coordinates(bent.grid, side) + np.float32(side)
    image = cut_patch(example, at, start, side, plain, rng)[0]

    def varied(**changes: float) -> Callable[[], object]:
        variation = type(plain)(**{**vars(plain), **changes})
        return lambda: relight(image, variation, rng)

    return {
        "one patch: choose the place": lambda: sampler.place(rng, even=False),
        "one patch: cut": lambda: cut_patch(example, at, start, side, plain, rng),
        "one patch: coordinates": lambda: coordinates(bent.grid, side),
        "one patch: read image, labels, weights there": lambda: read_patch(
            example.image, example.target, example.weight, where
        ),
        "one patch: gamma, contrast, brightness": varied(gamma=1.2, contrast=1.1, brightness=0.1),
        "one patch: noise": varied(noise=0.05),
        "one patch: blur (one in four)": varied(blur=1.5),
        "one patch: low resolution (one in four)": varied(coarseness=2.0),
    }


def _spent(work: Callable[[], object]) -> float:
    """Processor seconds of this process, all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
