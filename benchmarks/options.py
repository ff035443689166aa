"""The options of the network against the default, in the same time, on the sets of quality.py.

Prints steps, seconds a step, the score on what was held out from training (mean Dice), and that of the test images. The
choice of a default is made by what was held out.

python benchmarks/options.py --data vnc_em_multiclass isbi2012_em [--minutes 4] [--only quick quick-norm] [--seeds 1]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from quality_cells import Cell
from quality_data import KINDS, load
from quality_ours import run
from quality_trial import paint

from napari_unet.config import UNetConfig

OPTIONS: dict[str, dict[str, Any]] = {
    "quick": {},
    "quick-norm": {"normalization": "batch"},
    "leaky ReLU": {"activation": "leaky_relu"},
    "added skips": {"skips": "add"},
    "transposed": {"upsampling": "transposed"},
}


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", default=["vnc_em_multiclass", "isbi2012_em"], choices=list(KINDS)
    )
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--only", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print(f"{'set':20}{'network':14}{'seed':>5}{'steps':>7}{'s a step':>10}{'held out':>10}  test images")
    for name in options.data:
        fold = 4 if name == "isbi2012_em" else None
        data = load(name, fold)
        for seed in range(options.seeds):
            for option in options.only:
                cell = Cell("ours", name, minutes=options.minutes, seed=seed, fold=fold)
                network = UNetConfig.preset("quick", **OPTIONS[option])
                with tempfile.TemporaryDirectory(prefix="napari-unet-options-") as folder:
                    found = run(data, paint(data, cell), cell, Path(folder), network)
                steps, seconds = found["steps_done"], found["train_seconds"]
                scores = ", ".join(f"{key} {value:.3f}" for key, value in found["scores"].items())
                held = found["held_out"].get("held_out_dice", float("nan"))
                print(
                    f"{name:20}{option:14}{seed:5}{steps:7,}{seconds / steps:10.3f}{held:10.4f}  {scores}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
