"""What earlier runs left that this one can use: a segmentation that was not finished, and copies of images.

Runs beside the viewer and knows neither napari nor Qt.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_unet.data.axes import Stack
from napari_unet.errors import FileError
from napari_unet.files.run import RunFolder
from napari_unet.gui.snapshot import (
    Snapshot,
    equals_source,
    folders_of,
    link_copy,
    own_file,
    save_copy,
)
from napari_unet.jobs import ArraySource, PredictJob
from napari_unet.pixel_size import chunks_of
from napari_unet.targets import all_have, begun

__all__ = ["find_unfinished", "readable"]

_RUNS = 50
"""The newest runs, whose copies of images are compared."""


def find_unfinished(
    home: Path,
    name: str,
    image: Snapshot,
    make: Callable[[ArraySource, Path], PredictJob],
    stop: Callable[[], bool],
) -> PredictJob | None:
    """Return the job of the newest run that was begun on the same image, with the same model and settings, and not finished.

    What a run reads and was asked for is compared as a run does that goes on. Beyond that the image is compared pixel by
    pixel, because a layer has no date.

    Parameters
    ----------
    home : Path
        Where runs are kept.
    name : str
        What such a run is called.
    image : Snapshot
        The image.
    make : callable
        Makes the job that is wanted now, of what it reads and the folder of its outputs.
    stop : callable
        True once the user wants it to end.

    Raises
    ------
    Stopped
        If `stop` said so.
    """
    for folder in folders_of(home, name):
        try:
            earlier = RunFolder(folder).read_job()
        except FileError:
            continue  # another kind of folder, or one without its job
        if not isinstance(earlier, PredictJob):
            continue
        job = make(earlier.image, folder)
        if (
            job.outputs == earlier.outputs
            and _is_unfinished(job, image.stack)
            and _is_older(Path(job.image.path), RunFolder(folder).job_path)
            and equals_source(image, job.image, stop)
        ):
            return job
    return None


def readable(
    image: Snapshot, home: Path, folder: Path, stop: Callable[[], bool], number: int = 0
) -> ArraySource:
    """Make an image readable for another process.

    Where its pixels equal those of the file it came from, that file; else a copy in the run folder. Where an earlier run made one of the
    same pixels, both have the same files, which take their place on the disk once.

    Parameters
    ----------
    image : Snapshot
        The image.
    home : Path
        Where runs are kept.
    folder : Path
        Of this run; takes a new copy.
    stop : callable
        True once the user wants it to end.
    number : int
        Which of the run's images this is, counted from 0.

    Raises
    ------
    FileError
        If the copy cannot be written.
    Stopped
        If `stop` said so.
    """
    if source := own_file(image, stop):
        return source
    if copy := _find_copy(image, home, stop):
        return link_copy(image, folder, copy, number)
    return save_copy(image, folder, stop, number)


def _find_copy(image: Snapshot, home: Path, stop: Callable[[], bool]) -> Path | None:
    """Return the copy of an image that an earlier run made, if nobody changed it since."""
    for folder in folders_of(home)[:_RUNS]:
        try:
            job = RunFolder(folder).read_job()
        except FileError:
            continue
        for source in (job.image,) if isinstance(job, PredictJob) else job.images:
            path = Path(source.path)
            if (
                path.is_relative_to(folder.absolute())
                and equals_source(image, source, stop)
                and _is_older(path, RunFolder(folder).job_path)
            ):
                return path
    return None


def _is_older(image: Path, job: Path) -> bool:
    """Tell whether nothing in an image has changed since a job was written; a folder's own date does not say it."""
    written = job.stat().st_mtime
    return not image.is_dir() or all(part.stat().st_mtime <= written for part in image.rglob("*"))


def _is_unfinished(job: PredictJob, stack: Stack) -> bool:
    """Tell whether all outputs of a job are there, but not all of their chunks."""
    arrays = begun(job)
    if not arrays:
        return False
    return not all(
        all_have([array], index) for array in arrays for index, *_ in chunks_of(stack, array, job.window)
    )
