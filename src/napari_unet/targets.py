"""The outputs of a segmentation: results that fill, can be gone on with, and become TIFFs in the end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from napari_unet.errors import FileError
from napari_unet.files.atomic import check_writable, read_text, write_text
from napari_unet.files.image import Image
from napari_unet.files.lock import Lock
from napari_unet.files.results import (
    chunk_done,
    clear_up,
    create_result,
    open_result,
    result_attributes,
    watch_result,
)
from napari_unet.files.tiff import LARGEST_WHOLE, write_tiff
from napari_unet.files.zarr import is_zarr
from napari_unet.jobs import Output, PredictJob
from napari_unet.opening import Inputs
from napari_unet.spec import ModelSpec

__all__ = [
    "Attempt",
    "Target",
    "all_have",
    "begun",
    "check_outputs",
    "existing",
    "finish",
    "forget_end",
    "has_chunk",
    "held",
    "open_target",
    "scratch_beside",
]

_BEAT, _STILL = 60.0, 900.0
"""Seconds between two signs of life, and without one after which a process on another computer counts as dead."""


@dataclass(frozen=True)
class Target:
    """One output of a segmentation: the zarr that fills, and the TIFF it becomes, if it does.

    Parameters
    ----------
    output : Output
        What was asked for.
    group : Path
        The zarr; ``output.path`` itself, or a scratch folder beside it.
    array : zarr.Array
        Open for writing.
    """

    output: Output
    group: Path
    array: Any

    @property
    def kind(self) -> str:
        """What it holds."""
        return self.output.kind

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns of a chunk."""
        height, width = self.array.chunks[-2:]
        return int(height), int(width)

    def has(self, index: tuple[int, ...]) -> bool:
        """Whether an earlier run has written a chunk."""
        return has_chunk(self.array, index)

    def check_there(self) -> None:
        """Make sure that nobody removed it meanwhile: zarr would make folders anew and go on, with zeros before.

        Raises
        ------
        FileError
            If somebody did.
        """
        if not is_zarr(self.group):
            raise self.removed()

    def removed(self) -> FileError:
        """Say that it, or some of it, is gone."""
        path = Path(self.output.path)
        what = "" if self.group == path else f"its unfinished part {self.group.name} "
        return FileError(path, f"{what}was removed while it was being written; run it again.")

    def has_slice(self, index: tuple[int, ...]) -> bool:
        """Whether an earlier run has written the last chunk of a slice."""
        last = (-(-size // step) - 1 for size, step in zip(self.array.shape[-2:], self.chunk, strict=True))
        return self.has((*index, *last))


def all_have(arrays: Iterable[Any], index: tuple[int, ...]) -> bool:
    """Tell whether a chunk is on disk in all of several results: only then is it done."""
    return all(has_chunk(array, index) for array in arrays)


def has_chunk(array: Any, index: tuple[int, ...]) -> bool:
    """Tell whether a chunk of a result is on disk; an axis of classes, all in one chunk, may come before `index`."""
    return chunk_done(array, (0,) * (int(array.ndim) - len(index)) + index)


def check_outputs(job: PredictJob, inputs: Inputs, spec: ModelSpec) -> None:
    """Refuse, before anything is computed, what could not be written in the end."""
    largest = max(each.value for each in spec.classes)
    for output in job.outputs:
        path = Path(output.path)
        if path == _group_of(path):
            continue
        if output.kind == "labels" and largest > LARGEST_WHOLE:
            raise FileError(
                path,
                f"would not hold these labels: the classes of model {spec.name!r} go up to {largest}, "
                "and OME-TIFF holds whole numbers of at most 32 bits. Write a .zarr instead.",
            )
        check_writable(path)
        # Of several TIFFs some may have been written when the run was cut off: their scratch folders are there still.
        if path.exists() and not job.overwrite and existing(job, output, inputs) is None:
            raise FileError(path, "exists already. Choose another name, or allow it to be overwritten.")


def existing(job: PredictJob, output: Output, inputs: Inputs) -> Target | None:
    """Open what an interrupted, or finished, run of the same job left; None if there is nothing."""
    group = _group_of(Path(output.path))
    if group.exists() and _origin_of(group) == _origin(job, output, inputs):
        return Target(output, group, open_result(group, output.path))
    return None


def begun(job: PredictJob) -> list[Any]:
    """Open, to look at, what an interrupted, or finished, run of the same job left.

    Returns
    -------
    list of zarr.Array
        One for each output; empty if one of them is missing or in use by a process, or what the job reads is gone.
    """
    if not (Path(job.model).exists() and Path(job.image.path).exists()):
        return []
    arrays, inputs = [], Inputs.of(job)
    for output in job.outputs:
        path = Path(output.path)
        group = _group_of(path)
        if (
            not group.exists()
            or _origin_of(group) != _origin(job, output, inputs)
            or _lock_of(path).is_held()
        ):
            return []
        arrays.append(watch_result(group))
    return arrays


def open_target(
    job: PredictJob,
    output: Output,
    inputs: Inputs,
    spec: ModelSpec,
    image: Image,
    layout: Any,
    chunk: tuple[int, int],
    *,
    ours: bool = False,
) -> Target:
    """Open what an interrupted run of the same job left, or make a new result.

    Parameters
    ----------
    job : PredictJob
        Says what the result depends on.
    output : Output
        Of the job, or of our own.
    inputs : Inputs
        What the job reads, as it was when it was opened.
    spec : ModelSpec
        The model's card.
    image : Image
        Its scale becomes that of the result.
    layout : Layout
        Shape, axes and dtype (`napari_unet.nn.outputs.output_layout`).
    chunk : (cy, cx)
        Pixels of a chunk, if a new result is made.
    ours : bool
        Whether it is a scratch folder, which may be replaced.
    """
    found = existing(job, output, inputs)
    if found is not None:
        return found
    path = Path(output.path)
    group = _group_of(path)
    shape, axes, dtype = layout
    height, width = shape[-2:]
    classes = shape[:1] if axes.startswith("C") else ()
    create_result(
        group,
        shape,
        (*classes, *(1,) * (len(shape) - len(classes) - 2), min(chunk[0], height), min(chunk[1], width)),
        dtype,
        axes,
        pixel_size=image.pixel_size,
        unit=image.unit,
        attributes={
            "origin": _origin(job, output, inputs),
            "kind": output.kind,
            "target": spec.target,
            "classes": [c.model_dump() for c in spec.classes],
        },
        channel_names=[c.name for c in spec.classes] if classes else (),
        overwrite=job.overwrite or ours or group != path,  # a scratch folder is ours alone
    )
    return Target(output, group, open_result(group, output.path))


def scratch_beside(path: str, what: str) -> Path:
    """Return the name of a hidden scratch folder beside an output."""
    return _beside(Path(path), f"{what}.zarr")


def finish(targets: Sequence[Target], image: Image, spec: ModelSpec) -> None:
    """Turn complete scratch folders into the TIFFs that were asked for."""
    scratch = [target for target in targets if target.group != Path(target.output.path)]
    for target in scratch:
        has_classes = target.array.ndim > len(image.stack.out_shape)
        write_tiff(
            target.output.path,
            target.array,
            ("C" if has_classes else "") + image.stack.out_axes,
            pixel_size=image.pixel_size,
            unit=image.unit,
            channel_names=[c.name for c in spec.classes] if has_classes else (),
            name=target.kind,
            labels=target.kind == "labels",
        )
    for target in scratch:  # not before all are written: a run that is cut off here goes on with all of them
        shutil.rmtree(target.group, ignore_errors=True)


@dataclass
class Attempt:
    """A run that fills results, and what became of the one before.

    Parameters
    ----------
    died_with : float or None
        Megapixels of the largest tile of a run that died on these results; None if none did.
    """

    died_with: float | None
    _note: Path

    def begin(self, megapixels: float) -> None:
        """Note which tiles are computed, for the case that this run dies."""
        write_text(self._note, json.dumps({"megapixels": megapixels}))


@contextmanager
def held(job: PredictJob) -> Iterator[Attempt]:
    """Hold a job's outputs for this process alone, and look whether the last one that held them died; remove what it left half-written.

    Raises
    ------
    FileError
        If another process fills one of them.
    """
    paths = sorted(Path(output.path) for output in job.outputs)
    note = _note_of(job)
    with ExitStack() as stack:
        locks = [_lock_of(path) for path in paths]
        died = False
        for lock in locks:
            died = lock.acquire() or died
            stack.callback(lock.release)
        stack.enter_context(_beating(locks))
        for path in (note, *paths, *map(_group_of, paths)):
            clear_up(path)
        yield Attempt(_megapixels(note) if died else None, note)
        note.unlink(missing_ok=True)


def forget_end(job: PredictJob) -> None:
    """Let the end of a run that was killed on purpose not count as one for lack of memory."""
    with suppress(OSError):
        _note_of(job).unlink(missing_ok=True)


def _note_of(job: PredictJob) -> Path:
    return _beside(max(Path(output.path) for output in job.outputs), "tile.json")


def _lock_of(path: Path) -> Lock:
    return Lock(_beside(path, "lock"), path, "result", stale_after=_STILL)


@contextmanager
def _beating(locks: Sequence[Lock]) -> Iterator[None]:
    """Show other computers that this process lives, as long as it does."""
    over = Event()

    def beat() -> None:
        while not over.wait(_BEAT):
            for lock in locks:
                lock.touch()

    thread = Thread(target=beat, name="locks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _megapixels(note: Path) -> float | None:
    with suppress(FileError, ValueError, KeyError, TypeError):
        return float(json.loads(read_text(note))["megapixels"])
    return None


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")


def _group_of(path: Path) -> Path:
    """Return the zarr that fills: the output itself, or a scratch folder beside a TIFF."""
    return path if path.suffix.lower() == ".zarr" else path.with_name(f".{path.name}.zarr")


def _origin_of(group: Path) -> str | None:
    try:
        return result_attributes(group).get("origin")
    except FileError:
        return None  # not a result of ours: create_result says so, or replaces a scratch folder


def _origin(job: PredictJob, output: Output, inputs: Inputs) -> str:
    """Return a digest of all that a result depends on, to tell whether a run can go on with it."""
    config = job.config.model_dump(exclude={"tile_megapixels"})  # changes the tiles, not the answer
    content = [
        *inputs,
        job.image.model_dump(exclude={"path"}),
        output.kind,
        job.window,
        config,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
