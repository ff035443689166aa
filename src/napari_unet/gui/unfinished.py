"""Finds a segmentation that an earlier Start began and did not finish, so that this one goes on with it.

Runs beside the viewer and knows neither napari nor Qt.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_unet.data.axes import Stack
from napari_unet.errors import FileError
from napari_unet.files.run import RunFolder
from napari_unet.gui.snapshot import Snapshot, equals_source, folders_of
from napari_unet.jobs import ArraySource, PredictJob
from napari_unet.pixel_size import chunks_of
from napari_unet.targets import all_have, begun

__all__ = ["find_unfinished"]


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
