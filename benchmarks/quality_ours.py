"""Our recipe: a job through the public interface, with its defaults and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from quality_cells import Cell
from quality_data import DataSet
from quality_plain import BATCH, PATCH
from quality_trial import Meter, Paint, marks_of, network_of, score_model

import napari_unet
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.events import Event, Noted, StepDone, TrainStarted, Warned
from napari_unet.files.model import read_model_file
from napari_unet.files.run import RunFolder
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, TrainJob

__all__ = ["run"]

_LATE = 1.1  # times its minutes, after which a run is stopped: a machine may become slower than planned


def run(
    data: DataSet, paint: Paint, cell: Cell, folder: Path, network: UNetConfig | None = None
) -> dict[str, Any]:
    """Train and score; see `quality.one`. The network is that of the cell unless another is given."""
    job = _job(data, paint, cell, folder, network or network_of(cell))
    watcher = _Watcher(cell, folder)
    report = napari_unet.run(job, watcher.notify, watcher.stop)
    use = watcher.meter.read() if watcher.meter else {}
    with RunFolder(job.out) as opened:
        checkpoint = opened.load_checkpoint()
    seconds = checkpoint[1]["seconds"] if checkpoint else report.seconds
    ids = data.kind == "objects"

    def scores(path: Path) -> dict[str, float]:
        return score_model(napari_unet.load_model(path), data, paint, ids=ids)

    return {
        "scores": scores(Path(report.outputs["model"])),
        "marks": marks_of(watcher.moments(), scores),
        "held_out": {name: value for name, value in report.metrics.items() if name.startswith("held_out")},
        "steps_done": int(report.metrics["steps"]),
        **({"precision": checkpoint[1]["precision"]} if checkpoint else {}),
        "train_seconds": round(seconds, 1),
        "stopped": report.stopped,
        "said": watcher.said,
        **use,
    }


def _job(data: DataSet, paint: Paint, cell: Cell, folder: Path, network: UNetConfig) -> TrainJob:
    images, labels = [], []
    for i, (picture, painted) in enumerate(zip(data.train, paint.labels, strict=True)):
        path = folder / f"{i:03}.image.ome.tif", folder / f"{i:03}.labels.ome.tif"
        write_tiff(path[0], picture.image, data.axes)
        write_tiff(path[1], painted, "YX", labels=True)
        images.append(ArraySource(path=str(path[0]), axes=data.axes))
        labels.append(ArraySource(path=str(path[1])))
    # A step is the same everywhere: on a GPU, more patches would be chosen for it.
    length = (
        {"steps": cell.steps, "patch": PATCH, "batch": BATCH} if cell.steps else {"minutes": cell.minutes}
    )
    return TrainJob(
        images=tuple(images),
        labels=tuple(labels),
        out=str(folder / "run"),
        network=network,
        train=TrainConfig(seed=cell.seed, **length),
        unpainted=paint.unpainted,
        background_value=paint.background_value,
        target="objects" if data.kind == "objects" else "classes",
    )


class _Watcher:
    """Keeps each model that the run hands out, as a user could take it from the run folder."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self._cell, self._folder = cell, folder
        self._model = RunFolder(folder / "run").model_path
        self._seen: int = 0
        self._kept: list[Path] = []
        self.said: list[str] = []
        self.meter: Meter | None = None

    def notify(self, event: Event) -> None:
        """Note the start, keep a new model and what the user is told."""
        match event:
            case TrainStarted():
                self.meter = self.meter or Meter()
            case StepDone():
                self._keep()
            case Warned(text) | Noted(text):
                self.said.append(text)

    def stop(self) -> bool:
        """Whether the run is late."""
        return (
            self.meter is not None
            and not self._cell.steps
            and self.meter.seconds > _LATE * 60 * self._cell.minutes
        )

    def moments(self) -> list[tuple[float, Path]]:
        """Return parts of the time, and the model that was the best from then on."""
        found = []
        for path in self._kept:
            record = read_model_file(path)[0].training
            cell = self._cell
            part = record.steps / cell.steps if cell.steps else record.seconds / (60 * cell.minutes)
            found.append((part, path))
        return found

    def _keep(self) -> None:
        changed = self._model.stat().st_mtime_ns if self._model.exists() else 0
        if changed != self._seen:
            self._seen = changed
            path = self._folder / f"kept{len(self._kept):03}.unet"
            shutil.copyfile(self._model, path)
            self._kept.append(path)
