"""The run folder: a job, what became of it, and all that is needed to go on after a kill.

::

    job.yaml          what to do; written first
    image/            a copy of an image whose pixels no file holds
    labels/0.ome.tif  the labels as they were painted, never overwritten; 1, 2, ... those of more images
    history.jsonl     one JSON object a line: loss and quality over the steps
    checkpoint.npz    where training stands, to go on from
    inputs.json       what tells whether images and labels are still those it learned from
    model.unet        the best model so far
    log.txt           what libraries printed
    lock              the process that writes here
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_unet.errors import ConfigError, FileError
from napari_unet.files.atomic import (
    check_writable,
    make_folder,
    read_text,
    remove_leftovers,
    write_atomically,
    write_text,
)
from napari_unet.files.checkpoint import Arrays, read_checkpoint, write_checkpoint
from napari_unet.files.history import append_record, drop_half_record, keep_records, read_records
from napari_unet.files.lock import Lock
from napari_unet.jobs import Job, job_from_yaml, job_to_yaml
from napari_unet.words import some

__all__ = ["RunFolder"]


class RunFolder:
    """The folder of one run.

    Making the object touches nothing. `create` and `open` lock the folder for this process;
    `close`, or the end of a ``with`` block, gives it back. What a watcher needs (`read_job`,
    `read_history`, the paths) works without the lock.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = Lock(self.path / "lock")

    @property
    def job_path(self) -> Path:
        """``job.yaml``."""
        return self.path / "job.yaml"

    @property
    def model_path(self) -> Path:
        """``model.unet``: the best model so far."""
        return self.path / "model.unet"

    @property
    def log_path(self) -> Path:
        """``log.txt``: what libraries printed."""
        return self.path / "log.txt"

    @property
    def history_path(self) -> Path:
        """``history.jsonl``: loss and quality over the steps."""
        return self.path / "history.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        """``checkpoint.npz``: where training stands."""
        return self.path / "checkpoint.npz"

    @property
    def inputs_path(self) -> Path:
        """``inputs.json``: what tells whether images and labels changed."""
        return self.path / "inputs.json"

    def labels_path(self, number: int) -> Path:
        """``labels/NUMBER.ome.tif``: the labels of an image as painted, counted from 0."""
        return self.path / "labels" / f"{number}.ome.tif"

    def create(self, job: Job) -> Self:
        """Make and lock the folder for `job`, or take it up again if it holds the same job.

        Parameters
        ----------
        job : TrainJob or PredictJob
            What will run here.

        Returns
        -------
        RunFolder
            This object, locked; use it in a ``with`` statement.

        Raises
        ------
        FileError
            If the folder holds another job, is in use, or cannot be written.
        """
        make_folder(self.path)
        check_writable(self.job_path)
        # Looked at before the lock as well: "another run" says more than "in use".
        self._check_same(job)
        self._take()
        try:
            if not self._check_same(job):
                text = job_to_yaml(job).encode()
                write_atomically(self.job_path, lambda file: file.write(text), needed=len(text))
        except BaseException:
            self.close()
            raise
        return self

    def open(self) -> Self:
        """Lock a folder that holds a job, to go on with it.

        Returns
        -------
        RunFolder
            This object, locked; use it in a ``with`` statement.

        Raises
        ------
        FileError
            If it is not a run folder, or is in use.
        """
        self.read_job()
        self._take()
        return self

    def close(self) -> None:
        """Give the folder back to other processes. Does no harm the second time."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_job(self) -> Job:
        """Read the job of this folder.

        Raises
        ------
        FileError
            If there is none, or it is damaged.
        """
        if not self.job_path.is_file():
            raise FileError(self.path, "is not a run folder: it has no job.yaml. Choose the folder of a run.")
        try:
            return job_from_yaml(read_text(self.job_path))
        except ConfigError as error:
            raise FileError(
                self.job_path,
                f"is damaged ({error}). Start the run again in another folder, or correct the file.",
            ) from None

    def append_history(self, record: Mapping[str, Any]) -> None:
        """Add one line to the history; numbers that are not finite become ``null``.

        Raises
        ------
        FileError
            If it cannot be written.
        """
        append_record(self.history_path, record)

    def read_history(self) -> list[dict[str, Any]]:
        """Read the history; a last line that is only half written is left out.

        Returns
        -------
        list of dict
            Oldest first; empty if nothing was written yet.

        Raises
        ------
        FileError
            If it cannot be read, or a line before the last is damaged.
        """
        return read_records(self.history_path)

    def truncate_history(self, step: int) -> None:
        """Forget what came after `step`, so that a resumed run does not tell it twice.

        Parameters
        ----------
        step : int
            Records whose ``"step"`` is larger are removed, and so is a half-written last line.

        Raises
        ------
        FileError
            If the history is damaged or cannot be written.
        """
        keep_records(self.history_path, step)

    def save_checkpoint(self, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Keep where training stands, replacing the checkpoint before it.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Weights, optimizer variables, seed states: numbers or booleans of numpy's own types.
        state : mapping of str to JSON value
            Step, learning-rate factor, best score and the like.

        Raises
        ------
        FileError
            If it cannot be written; the checkpoint before it is then unchanged.
        """
        write_checkpoint(self.checkpoint_path, arrays, state)

    def load_checkpoint(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """Read the last checkpoint.

        Returns
        -------
        (arrays, state) or None
            As they were saved, bit for bit; None if there is none.

        Raises
        ------
        FileError
            If it is damaged; it says what to do.
        """
        return read_checkpoint(self.checkpoint_path) if self.checkpoint_path.exists() else None

    def save_inputs(self, prints: Sequence[str]) -> None:
        """Keep what tells images and labels from others (`napari_unet.data.dataset.fingerprints`).

        Raises
        ------
        FileError
            If it cannot be written.
        """
        write_text(self.inputs_path, json.dumps(list(prints)))

    def load_inputs(self) -> list[str] | None:
        """Return what `save_inputs` was given; None if nothing was, or it is damaged."""
        with suppress(FileError, ValueError, TypeError):
            return [str(found) for found in json.loads(read_text(self.inputs_path))]
        return None

    def save_labels(
        self,
        number: int,
        array: npt.NDArray[np.integer[Any]],
        axes: str,
        pixel_size: Mapping[str, float],
        unit: str,
    ) -> Path:
        """Keep the labels as they were painted, before anything heavy begins.

        Works without the lock, because the viewer calls it before the worker takes the folder.

        Parameters
        ----------
        number : int
            Of their image, counted from 0.
        array : ndarray of int, one dimension for each letter of `axes`
            The labels.
        axes : str
            One letter of TZYX for each dimension, e.g. ``"ZYX"``.
        pixel_size : mapping of str to float
            Size along ``"Z"``, ``"Y"`` and ``"X"``, in `unit`; may be empty.
        unit : str
            Of the pixel size.

        Returns
        -------
        pathlib.Path
            Where they are.

        Raises
        ------
        FileError
            If they are there already (what was painted is never overwritten), or the
            file cannot be written.
        """
        from napari_unet.files.tiff import write_tiff  # tifffile only where labels are written

        path = self.labels_path(number)
        if path.exists():
            raise FileError(
                path, "is there already, and painted labels are never overwritten; choose another run folder."
            )
        make_folder(path.parent)
        write_tiff(path, array, axes, pixel_size=pixel_size, unit=unit, name="labels", labels=True)
        return path

    def _take(self) -> None:
        """Lock the folder, then remove what a killed run left half-written."""
        self._lock.acquire()
        for folder in (self.path, self.path / "labels"):
            remove_leftovers(folder)
        try:
            drop_half_record(self.history_path)
        except FileError:
            self.close()
            raise

    def _check_same(self, job: Job) -> bool:
        """Return whether the folder holds `job` already; refuse if it holds something else."""
        if not self.job_path.exists():
            kept = (self.model_path, self.checkpoint_path, self.history_path)
            found = [path.name for path in kept if path.exists()]
            if found:
                raise FileError(
                    self.path,
                    f"holds {', '.join(found)} but no job.yaml, so it is not a run to go on with. Choose an empty folder.",
                )
            return False
        there = self.read_job().model_dump(mode="json", exclude={"out"})
        here = job.model_dump(mode="json", exclude={"out"})
        if there == here:
            return True
        changed = _differences(there, here)
        if _without_length(there) == _without_length(here):
            raise FileError(
                self.path,
                f"holds a run of another length: {changed}. The learning rate of a run falls until its end, so it cannot be made "
                "longer or shorter: start a new run in another folder that starts from this one.",
            )
        raise FileError(
            self.path,
            f"holds another run, which differs in {changed}. Choose another folder, or start it with the settings of its job.yaml to go on with it.",
        )


def _without_length(job: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a job how long it trains."""
    train = {key: value for key, value in job.get("train", {}).items() if key not in ("minutes", "steps")}
    return {**job, "train": train}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Name the first settings in which two jobs differ: ``train.seed (0 there, 1 here)``."""
    old, new = dict(_flat(there)), dict(_flat(here))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    shown = [f"{name} ({_brief(old.get(name))} there, {_brief(new.get(name))} here)" for name in names]
    return some(shown)


def _flat(value: Any, place: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(item, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"…{text[-79:]}"
