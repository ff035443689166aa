"""What a segmentation reads: its model and its image, opened, and known again should somebody replace them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from napari_unet.config import PredictConfig
from napari_unet.data.instances import check_window
from napari_unet.errors import DataError, FileError
from napari_unet.files.image import Image, open_source
from napari_unet.files.model import read_model_file
from napari_unet.files.zarr import marks_of
from napari_unet.jobs import PredictJob
from napari_unet.pixel_size import as_trained
from napari_unet.spec import ModelSpec

__all__ = ["Identity", "Inputs", "Opened", "load", "open_job"]

Identity = tuple[str, int, int]
"""What tells whether a file is still the same: its absolute path, size, and time of the last change."""


class Inputs(NamedTuple):
    """What a job reads, as it was before it was opened.

    Parameters
    ----------
    model, image : (path, size, time of the last change)
        Its files.
    """

    model: Identity
    image: Identity

    @classmethod
    def of(cls, job: PredictJob) -> Inputs:
        """Look at them now.

        Raises
        ------
        FileError
            If one is not there.
        """
        return cls(_identity(job.model), _identity(job.image.path))

    def check(self) -> None:
        """Make sure that they are what they were.

        Raises
        ------
        DataError
            If one was replaced.
        FileError
            If one is gone.
        """
        _check_same("model", self.model)
        self.check_image()

    def check_image(self) -> None:
        """Make sure of the image alone: the model is in memory once it is read."""
        _check_same("image", self.image)


class Opened(NamedTuple):
    """What a job reads.

    Parameters
    ----------
    inputs : Inputs
        Which files.
    spec, arrays
        The model.
    image : Image
        On its own grid.
    seen : Image
        On the grid on which it is segmented; the same in most cases.
    """

    inputs: Inputs
    spec: ModelSpec
    arrays: dict[str, Any]
    image: Image
    seen: Image


def open_job(job: PredictJob) -> Opened:
    """Open what a job reads."""
    inputs = Inputs.of(job)
    spec, arrays = read_model_file(job.model)
    image = open_source(job.image)
    inputs.check()
    check_window(job.window, image.stack)
    resampled = job.config.pixel_size == "model" and job.given == "image"
    return Opened(inputs, spec, arrays, image, as_trained(image, spec) if resampled else image)


def load(config: PredictConfig, spec: ModelSpec, arrays: dict[str, Any]) -> Any:
    """Build a model in the precision that it is to compute in."""
    from napari_unet.nn import backend
    from napari_unet.nn.model import UNetModel
    from napari_unet.nn.prediction import settle_precision

    backend.prepare(settle_precision(config), seed=0)
    return UNetModel.from_arrays(spec, arrays)


def _identity(path: str) -> Identity:
    file = Path(path)
    try:
        # Of a zarr its metadata: a result that is written beside the pixels changes the folder, not the image.
        status = next((mark for mark in marks_of(file) if mark.is_file()), file).stat()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "there is no such file or folder." if missing else f"cannot be looked at ({error})."
        raise FileError(path, reason) from error
    return str(file.absolute()), status.st_size, status.st_mtime_ns


def _check_same(what: str, before: Identity) -> None:
    path = before[0]
    if _identity(path) != before:
        raise DataError(
            f"The {what} {path} was replaced or changed while the image was being segmented, so the result would be partly of "
            "one, partly of the other: run it again, and let it overwrite what was begun."
        )
