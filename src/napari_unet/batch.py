"""Several images as one wish: a job for each, with outputs named after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_unet.errors import ConfigError, DataError, FileError, NapariUNetError
from napari_unet.events import Report
from napari_unet.files.pairs import image_files, split_name
from napari_unet.jobs import Output, OutputKind, PredictJob
from napari_unet.words import count

__all__ = ["is_there", "jobs_for", "outputs_at", "run_each"]


def jobs_for(
    template: PredictJob, images: Sequence[Path], out: Path, kinds: Sequence[OutputKind]
) -> list[PredictJob]:
    """Make a job for each image.

    Parameters
    ----------
    template : PredictJob
        All but image and outputs.
    images : sequence of Path
        Images, or folders of them.
    out : Path
        For one image, its result; for several, or a folder, a folder for the results.
    kinds : sequence of str
        What to write of each; of several, the kind becomes part of the name.

    Returns
    -------
    list of PredictJob
        In the order of the files.

    Raises
    ------
    ConfigError
        If two images would be written to one place.
    FileError
        If there are no images.
    """
    files = [file for path in images for file in image_files(path)]
    several = len(files) > 1 or files != list(images)  # a folder, even of one image, gives a folder
    targets = [out / f"{split_name(file)[0]}.ome.tif" if several else out for file in files]
    target, times = Counter(targets).most_common(1)[0]
    if times > 1:
        same = [str(file) for file, place in zip(files, targets, strict=True) if place == target]
        raise ConfigError(
            f"{' and '.join(same)} would both be written to {target}: segment them one after the other, into two folders."
        )
    return [
        template.replace(
            image=template.image.replace(path=str(file.absolute())), outputs=outputs_at(place, kinds)
        )
        for file, place in zip(files, targets, strict=True)
    ]


def outputs_at(target: Path, kinds: Sequence[OutputKind]) -> tuple[Output, ...]:
    """Name the outputs of one image after `target`."""
    if len(kinds) == 1:
        return (Output(kind=kinds[0], path=str(target.absolute())),)
    stem, ending = split_name(target)
    return tuple(
        Output(kind=kind, path=str(target.with_name(f"{stem}.{kind}{ending}").absolute())) for kind in kinds
    )


def is_there(job: PredictJob) -> bool:
    """Whether all that a job writes is there already, and isn't to be replaced."""
    return not (job.overwrite or job.dry_run) and all(Path(output.path).is_file() for output in job.outputs)


def run_each(
    jobs: Sequence[PredictJob],
    run: Callable[[PredictJob], Report],
    tell: Callable[[NapariUNetError], None],
) -> None:
    """Run jobs until one is stopped; of several, one whose image cannot be used does not hold up the others.

    Parameters
    ----------
    jobs : sequence of PredictJob
        Of different images.
    run : callable
        Runs one.
    tell : callable
        Is given what is wrong with an image.

    Raises
    ------
    DataError
        At the end, if images could not be used.
    NapariUNetError
        At once, if the others would meet the same error.
    """
    failed = 0
    for job in jobs:
        try:
            if run(job).stopped:
                break
        except (DataError, FileError) as error:
            if len(jobs) == 1 or not _is_about_image(error, job):
                raise
            tell(error)
            failed += 1
    if failed:
        raise DataError(
            f"{failed} of {count(len(jobs), 'image')} could not be segmented, each for the reason above. "
            "The same command tries them again."
        )


def _is_about_image(error: DataError | FileError, job: PredictJob) -> bool:
    """Whether an error is about a job's image, and not about its model or the disk."""
    if isinstance(error, DataError):
        return True
    image = Path(job.image.path)
    return image in (Path(error.path), *Path(error.path).parents)
