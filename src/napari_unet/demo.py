"""The demonstration: train on made-up cells, segment cells never seen, show the result."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import skimage.filters
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table
from skimage.segmentation import find_boundaries

from napari_unet.api import run
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.metrics import class_scores
from napari_unet.data.synthetic import cells
from napari_unet.errors import ModelError
from napari_unet.events import Notify, Stop, ignore_events, never_stop
from napari_unet.files.atomic import make_folder, write_atomically
from napari_unet.files.image import open_image
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob

__all__ = ["DemoResult", "demonstrate", "open_in_napari"]

_TRAINING_SEEDS = range(12)
_UNSEEN_SEEDS = range(100, 104)
_SHAPE = (256, 256)

_METHODS: dict[str, Callable[[np.ndarray], float]] = {
    name: getattr(skimage.filters, f"threshold_{name}")
    for name in ("isodata", "li", "mean", "otsu", "triangle", "yen")
}


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found.

    Parameters
    ----------
    scores : dict of str to (float, float)
        Foreground IoU and Dice on the unseen images, by method.
    model, picture : Path
        The trained model, and image, truth and results side by side.
    layers : tuple of Path
        Files that are worth opening in napari.
    """

    scores: dict[str, tuple[float, float]]
    model: Path
    picture: Path
    layers: tuple[Path, ...]

    def table(self) -> Table:
        """Put the scores into a table for a person."""
        table = Table("method", "foreground IoU", "Dice", title=f"{len(_UNSEEN_SEEDS)} images never seen")
        for method, (iou, dice) in self.scores.items():
            table.add_row(method, f"{iou:.3f}", f"{dice:.3f}")
        return table


def demonstrate(
    out: Path, minutes: float = 2.0, notify: Notify = ignore_events, stop: Stop = never_stop
) -> DemoResult:
    """Train the quick preset on made-up cells and segment cells it has not seen.

    Parameters
    ----------
    out : Path
        Folder for everything that is written.
    minutes : float
        Time to train.
    notify, stop : callable
        Progress out, and the wish to stop in.

    Returns
    -------
    DemoResult
        Scores beside those of scikit-image's thresholds, and the paths of the files.

    Raises
    ------
    ModelError
        If it was stopped before anything was learned.
    """
    training = [_write_cells(out / "training", seed) for seed in _TRAINING_SEEDS]
    unseen = [_write_cells(out / "unseen", seed) for seed in _UNSEEN_SEEDS]
    train = TrainJob(
        images=tuple(ArraySource(path=str(image)) for image, _ in training),
        labels=tuple(ArraySource(path=str(labels)) for _, labels in training),
        out=str(_next_run(out)),
        network=UNetConfig.preset("quick"),
        train=TrainConfig(minutes=minutes, batch=4, patch=128),
        name="demo cells",
    )
    trained = run(train, notify, stop)
    if "model" not in trained.outputs:
        raise ModelError(trained.message)
    model = Path(trained.outputs["model"])
    results = [image.with_name(image.name.replace(".image.", ".result.")) for image, _ in unseen]
    for (image, _), result in zip(unseen, results, strict=True):
        output = Output(kind="labels", path=str(result))
        source = ArraySource(path=str(image))
        # Not to be stopped: it takes seconds, and a training that was stopped is to be seen, too.
        run(PredictJob(model=str(model), image=source, outputs=(output,), overwrite=True), notify)
    images = [_read(image) for image, _ in unseen]
    truths = [_read(labels) > 0 for _, labels in unseen]
    ours = [_read(result) > 0 for result in results]
    method, thresholded = _best_method(images, truths)
    oracle = _best_threshold(images, truths)
    scores = {
        "U-Net, quick preset": _score(ours, truths),
        f"scikit-image, best of {len(_METHODS)} thresholds ({method})": _score(thresholded, truths),
        "best single threshold, chosen knowing the truth": _score(oracle, truths),
    }
    picture = out / "demo.png"
    _draw(picture, images[:3], {"truth": truths, f"threshold ({method})": thresholded, "U-Net": ours})
    return DemoResult(scores, model, picture, (unseen[0][0], results[0]))


def open_in_napari(result: DemoResult) -> None:
    """Open the result in napari, in a process of its own, where there is a display."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return
    subprocess.Popen([sys.executable, "-m", "napari", "--plugin", "napari-unet", *map(str, result.layers)])


def _write_cells(folder: Path, seed: int) -> tuple[Path, Path]:
    make_folder(folder)
    image, labels, _ = cells(_SHAPE, seed)
    paths = folder / f"cells{seed:03d}.image.ome.tif", folder / f"cells{seed:03d}.labels.ome.tif"
    for path, array in ((paths[0], image), (paths[1], labels)):
        pixel_size = {"Y": 0.65, "X": 0.65}
        write_tiff(path, array, "YX", pixel_size=pixel_size, unit="micrometer", labels=array is labels)
    return paths


def _next_run(out: Path) -> Path:
    """Return a run folder that does not exist: an older demo's model is not ours to replace."""
    number = 1
    while (folder := out / f"run{number}").exists():
        number += 1
    return folder


def _read(path: Path) -> np.ndarray:
    return np.asarray(open_image(path).array[:])


def _score(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the foreground's IoU and Dice over the pixels of all images."""
    score = class_scores(np.stack(masks), np.stack(truths), values=(0, 1))[1]
    return score.iou, score.dice


def _best_method(images: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> tuple[str, list[np.ndarray]]:
    """Return the threshold method of scikit-image that does best, and its masks."""
    masks = {name: [image > method(image) for image in images] for name, method in _METHODS.items()}
    best = max(masks, key=lambda name: _score(masks[name], truths)[0])
    return best, masks[best]


def _best_threshold(images: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the masks of the one threshold with the highest IoU over all images."""
    levels = np.quantile(np.stack(images), np.linspace(0.3, 0.995, 100))
    candidates = [[image > level for image in images] for level in levels]
    return max(candidates, key=lambda masks: _score(masks, truths)[0])


def _draw(path: Path, images: Sequence[np.ndarray], masks: dict[str, list[np.ndarray]]) -> None:
    """Draw a row an image: the image, then each mask as outline and tint over it."""
    gap, header = 8, 28
    height, width = images[0].shape
    columns = ["image", *masks]
    canvas = Image.new(
        "RGB", (len(columns) * (width + gap) + gap, len(images) * (height + gap) + header), "white"
    )
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(16)
    for column, title in enumerate(columns):
        draw.text((gap + column * (width + gap), 5), title, fill="black", font=font)
    for row, image in enumerate(images):
        for column, title in enumerate(columns):
            panel = _panel(image, masks[title][row] if title in masks else None)
            canvas.paste(
                Image.fromarray(panel), (gap + column * (width + gap), header + row * (height + gap))
            )
    buffer = BytesIO()
    canvas.save(buffer, "PNG")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def _panel(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    low, high = np.percentile(image, (1, 99.8))
    grey = np.clip((image - low) / (high - low), 0, 1) ** 0.7
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    if mask is not None:
        rgb[mask] = 0.75 * rgb[mask] + 0.25 * np.array([0.1, 0.8, 1.0])
        rgb[find_boundaries(mask, mode="inner")] = [1.0, 0.85, 0.1]
    return np.round(255 * rgb).astype(np.uint8)
