"""StarDist, where it installs: objects only, from dense labels, with its own defaults.

Of Schmidt et al., "Cell detection with star-convex polygons", MICCAI 2018. Normalisation, flips
and varied brightness are those of its example notebooks; thresholds are chosen on a tenth of the
training images, which do not train.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_cells import Cell
from quality_data import DataSet, Picture
from quality_scores import score
from quality_trial import Meter, Paint

__all__ = ["run"]

_EPOCHS, _STEPS = 400, 100  # StarDist's own plan, of which the time allows a part
_HELD_OUT = 10  # every tenth image


def run(data: DataSet, paint: Paint, cell: Cell, folder: Path) -> dict[str, Any]:
    """Train and score; see `quality.one`."""
    try:
        from stardist.models import Config2D, StarDist2D
    except ImportError:
        raise SystemExit(
            "StarDist is not installed: install it with python -m pip install stardist."
        ) from None
    config = Config2D(
        n_channel_in=3 if data.axes == "YXS" else 1,
        grid=(2, 2),
        train_n_val_patches=16,
        train_tensorboard=False,
    )
    model = StarDist2D(config, name="stardist", basedir=str(folder))
    images = [_normalized(picture) for picture in data.train]
    held_out = images[::_HELD_OUT], paint.labels[::_HELD_OUT]
    kept = [i for i in range(len(images)) if i % _HELD_OUT]
    np.random.seed(cell.seed)  # noqa: NPY002  StarDist draws its patches from numpy's global state
    model.prepare_for_training()
    clock = _clock(cell)
    model.callbacks.append(clock)
    model.train(
        [images[i] for i in kept],
        [paint.labels[i] for i in kept],
        validation_data=held_out,
        augmenter=_vary,
        epochs=_EPOCHS,
        steps_per_epoch=_STEPS,
    )
    use = {"steps_done": clock.steps, "train_seconds": round(clock.meter.seconds, 1), **clock.meter.read()}
    model.optimize_thresholds(*held_out)
    results = [model.predict_instances(_normalized(picture))[0] for picture in data.test]
    return {"scores": score(data, results), "marks": [], **use}


def _clock(cell: Cell) -> Any:
    """Make a callback that counts steps and ends training when its time is over."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.steps, self.meter = 0, Meter()

        def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
            self.meter = Meter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.steps += 1
            over = self.steps >= cell.steps if cell.steps else self.meter.seconds >= 60 * cell.minutes
            if over:
                self.model.stop_training = True

    return Clock()


def _normalized(picture: Picture) -> npt.NDArray[np.float32]:
    low, high = np.percentile(picture.image, (1, 99.8), axis=(0, 1))
    return ((picture.image - low) / np.maximum(high - low, 1e-6)).astype(np.float32)


def _vary(
    image: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    rng = np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002
    if rng.random() < 0.5:
        image, labels = image[::-1], labels[::-1]
    turns = int(rng.integers(4))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    return image * np.float32(rng.uniform(0.6, 2)) + np.float32(rng.uniform(-0.2, 0.2)), labels
