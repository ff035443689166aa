"""``napari-unet`` on the command line: the same jobs as in the docks.

Every setting of a job is a flag, made from the settings classes. A person gets progress
bars and tables; ``--json`` prints the events and the result as lines of JSON. Bad input
ends in one sentence and exit code 2; Ctrl-C stops after the step in hand and keeps what
there is, a second Ctrl-C kills.
"""

from __future__ import annotations

import json as json_lines
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.table import Table

from napari_unet import __version__
from napari_unet.augmentation import Augmentation, AugmentationPreset
from napari_unet.cli_flags import (
    AugmentationFlags,
    CheckFlags,
    LabelFlags,
    NetworkFlags,
    PaintFlags,
    Several,
    StepFlags,
    Switch,
    TrainFlags,
    network_of,
)
from napari_unet.config import PredictConfig, TrainConfig, UNetPreset
from napari_unet.errors import NapariUNetError
from napari_unet.jobs import ArraySource, Output, OutputKind, PredictJob, TrainJob, job_from_yaml
from napari_unet.terminal import (
    as_findings,
    as_table,
    quiet_libraries,
    results,
    running,
    screen,
    show_error,
    showing,
    stoppable,
)
from napari_unet.words import count

__all__ = ["app", "main"]

app = App(
    name="napari-unet",
    help="Train a U-Net from a few painted labels, and segment whole stacks with it.",
    version=__version__,
)


@app.command
def train(
    *,
    images: Annotated[list[Path], Several],
    labels: Annotated[list[Path], Several],
    out: Path,
    preset: Literal["auto", UNetPreset] = "auto",
    network: Annotated[NetworkFlags, Parameter(name="*")] = NetworkFlags(),  # type: ignore[valid-type]
    paint: Annotated[PaintFlags, Parameter(name="*")] = PaintFlags(),  # type: ignore[valid-type]
    config: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # type: ignore[valid-type]
    augmentation: AugmentationPreset = "light",
    variation: Annotated[AugmentationFlags, Parameter(name="*")] = AugmentationFlags(),  # type: ignore[valid-type]
    start_from: Path | None = None,
    json: Annotated[bool, Switch] = False,
) -> None:
    """Train a network on images and what was painted on them.

    The same command on the same run folder goes on with an interrupted run.

    Parameters
    ----------
    images
        Images: files, or a folder of them.
    labels
        Labels: files, or a folder; matched with the images by name.
    out
        Run folder: the model, the history and the checkpoint go here.
    preset
        auto: as of the model to start from, or by the computer; article: 64 filters; quick: 16 filters, for a CPU; quick-norm: quick with
        batch normalisation; linked-code: the article's program.
    start_from
        A .unet file, or the folder of a run, with whose weights training begins.
    augmentation
        How patches are varied: none, light or full; flags such as --rotation overrule it.
    json
        Print events and the result as lines of JSON.
    """
    from napari_unet.files.pairs import match_pairs

    pairs = match_pairs(images, labels)
    if not json:
        screen.print(pairs.report(), style="dim")
    job = TrainJob(
        images=tuple(_source(image) for image, _ in pairs.pairs),
        labels=tuple(_source(painted) for _, painted in pairs.pairs),
        out=str(out.absolute()),
        network=network_of(preset, network.model_dump(exclude_unset=True)),  # type: ignore[attr-defined]
        train=TrainConfig(
            **config.model_dump(exclude_unset=True),  # type: ignore[attr-defined]
            augmentation=Augmentation.preset(augmentation, **variation.model_dump(exclude_unset=True)),  # type: ignore[attr-defined]
        ),
        start_from=None if start_from is None else str(start_from.absolute()),
        **paint.model_dump(exclude_unset=True),  # type: ignore[attr-defined]
    )
    _run(job, json)


@app.command
def check(
    *,
    images: Annotated[list[Path], Several],
    labels: Annotated[list[Path], Several],
    paint: Annotated[CheckFlags, Parameter(name="*")] = CheckFlags(),  # type: ignore[valid-type]
    preset: Literal["auto", UNetPreset] = "auto",
    config: Annotated[StepFlags, Parameter(name="*")] = StepFlags(),  # type: ignore[valid-type]
    augmentation: AugmentationPreset = "light",
    picture: Path | None = None,
    json: Annotated[bool, Switch] = False,
) -> int:
    """Look for what is wrong or odd in labels, before training on them, and say what training would choose.

    Ends with exit code 1 if training would refuse them, or could learn nothing of use.

    Parameters
    ----------
    images
        Images: files, or a folder of them.
    labels
        Labels: files, or a folder; matched with the images by name.
    preset
        The network that is meant, as for `train`.
    augmentation
        How the patches of the picture are varied: none, light or full.
    picture
        Write a patch and how training varies it to this PNG file.
    json
        Print the findings, and what training would choose, as JSON.
    """
    from napari_unet.files.image import open_image
    from napari_unet.files.pairs import match_pairs
    from napari_unet.files.png import write_png
    from napari_unet.preview import preview

    pairs = match_pairs(images, labels)
    if not json:
        screen.print(pairs.report(), style="dim")
    seen = preview(
        [open_image(image) for image, _ in pairs.pairs],
        [open_image(painted) for _, painted in pairs.pairs],
        network=network_of(preset, {}),
        train=TrainConfig(**config.model_dump(exclude_unset=True)),  # type: ignore[attr-defined]
        **paint.model_dump(exclude_unset=True),  # type: ignore[attr-defined]
    )
    if json:
        print(json_lines.dumps(seen.content()))
    else:
        results.print(as_findings(seen))
    if picture is not None and seen.dataset is not None:
        write_png(picture, seen.picture(Augmentation.preset(augmentation)))
    return int(bool(seen.check.of("error")))


@app.command
def predict(
    model: Path,
    image: Annotated[list[Path], Several],
    *,
    out: Path,
    output: Annotated[list[OutputKind], Several] = ["labels"],  # noqa: B006
    axes: str | None = None,
    window: tuple[int, int, int, int, int, int] | None = None,
    overwrite: Annotated[bool, Switch] = False,
    dry_run: Annotated[bool, Switch] = False,
    workers: int = 0,
    scheduler: str | None = None,
    config: Annotated[PredictConfig, Parameter(name="*")] = PredictConfig(),
    json: Annotated[bool, Switch] = False,
) -> None:
    """Segment images with a model.

    The same command goes on with an interrupted run; of several images, those whose results are there are left out, and one
    that cannot be used does not hold up the others.

    Parameters
    ----------
    model
        A .unet file.
    image
        An image, several, or a folder of them.
    out
        For one image: FILE.ome.tif or FILE.zarr. For several: a folder.
    output
        labels, probabilities, entropy (how unsure the network is), uncertainty (the same over several passes with
        dropout); of several, the kind becomes part of the name. Beside a map of entropy or uncertainty lies a table of
        the regions that are least sure.
    axes
        Letters of the image's axes (of T, Z, C, Y, X, S), where the file does not say.
    window
        Part to segment: first and last-plus-one slice, y and x (six numbers).
    overwrite
        Replace an output that another run made.
    dry_run
        Say how much memory and time it takes, and write nothing.
    workers
        Compute in so many processes on this computer (needs the extra "cluster").
    scheduler
        Address of a Dask scheduler, such as tcp://host:8786, whose workers compute (needs the extra "cluster").
    json
        Print events and the result as lines of JSON.
    """
    from napari_unet.batch import is_there, jobs_for, run_each

    template = PredictJob(
        model=str(model.absolute()),
        image=_source(out, axes),
        outputs=(Output(path=str(out.absolute() / "of-each.zarr")),),
        window=None if window is None else (window[0:2], window[2:4], window[4:6]),
        config=config,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    jobs = jobs_for(template, image, out, output)
    left = [job for job in jobs if not is_there(job)] if len(jobs) > 1 else jobs
    if len(left) < len(jobs) and not json:
        screen.print(f"Already there and left as is: {count(len(jobs) - len(left), 'result')}.", style="dim")
    with running(json, workers, scheduler) as run_one:
        run_each(left, run_one, show_error)


@app.command
def relabel(
    model: Path,
    probabilities: Path,
    *,
    out: Path,
    axes: str | None = None,
    overwrite: Annotated[bool, Switch] = False,
    config: Annotated[LabelFlags, Parameter(name="*")] = LabelFlags(),  # type: ignore[valid-type]
    json: Annotated[bool, Switch] = False,
) -> None:
    """Make labels anew of stored probabilities, with another threshold or watershed; the network does not run.

    Parameters
    ----------
    model
        The .unet file that computed the probabilities.
    probabilities
        What `predict --output probabilities` wrote.
    out
        FILE.ome.tif or FILE.zarr.
    axes
        Letters of their axes (C of the maps, then of T, Z, Y, X), where the file does not say.
    overwrite
        Replace an output that another run made.
    json
        Print events and the result as lines of JSON.
    """
    job = PredictJob(
        model=str(model.absolute()),
        image=_source(probabilities, axes),
        given="probabilities",
        outputs=(Output(kind="labels", path=str(out.absolute())),),
        config=PredictConfig(**config.model_dump(exclude_unset=True)),  # type: ignore[attr-defined]
        overwrite=overwrite,
    )
    _run(job, json)


@app.command
def evaluate(
    prediction: Path,
    truth: Path,
    *,
    task: Literal["semantic", "instances", "membranes"] = "semantic",
    json: Annotated[bool, Switch] = False,
) -> None:
    """Compare a segmentation with the truth.

    Parameters
    ----------
    prediction
        A file, or a folder of them. For membranes: probabilities of the higher value.
    truth
        Labels: a file, or a folder whose files match by name.
    task
        semantic: IoU and Dice of each class, pixel error. instances: average precision of objects at
        IoU 0.5 to 0.9, precision, recall, F1 and SEG. membranes: V_rand, V_info and pixel
        error as in the ISBI 2012 challenge; the truth's higher value is the cell.
    json
        Print the figures as JSON.
    """
    from napari_unet.evaluation import evaluate as compare

    result = compare(prediction, truth, task=task)
    if json:
        print(json_lines.dumps(asdict(result)))
        return
    table = Table("", *result.columns, title=f"{task}: {result.images} image(s)", title_justify="left")
    for name, figures in result.rows.items():
        table.add_row(name, *(f"{figure:,.4f}" if figure <= 1 else f"{figure:,.1f}" for figure in figures))
    results.print(table)


@app.command
def info(path: Path, *, json: Annotated[bool, Switch] = False) -> None:
    """Show what a model or an image file holds.

    Parameters
    ----------
    path
        A .unet model, or an image.
    json
        Print it as JSON.
    """
    if path.suffix.lower() == ".unet":
        from napari_unet.files.model import read_card

        card = read_card(path)
        content = card.model_dump(mode="json")
    else:
        from napari_unet.files.image import open_image

        content = open_image(path).summary()
    if json:
        print(json_lines.dumps(content))
    else:
        results.print(as_table(content))


@app.command
def run(job: Path, *, json: Annotated[bool, Switch] = False) -> None:
    """Run a job from its file, or go on with it.

    Parameters
    ----------
    job
        A job.yaml, as every run folder holds one.
    json
        Print events and the result as lines of JSON.
    """
    from napari_unet.files.atomic import read_text

    _run(job_from_yaml(read_text(job)), json)


@app.command
def demo(out: Path = Path("napari-unet-demo"), *, minutes: float = 2.0, show: bool = True) -> None:
    """Train on made-up cells for two minutes and segment cells never seen.

    Parameters
    ----------
    out
        Folder for the model, the images and the picture.
    minutes
        Time to train.
    show
        Open napari on the result where there is a display.
    """
    from napari_unet.demo import demonstrate, open_in_napari

    with quiet_libraries(), stoppable() as stop, showing(json=False) as notify:
        result = demonstrate(out, minutes, notify, stop)
    results.print(result.table())
    results.print(f"model    {result.model}\npicture  {result.picture}", highlight=False, soft_wrap=True)
    if show:
        open_in_napari(result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 after bad input (`check`: 1 after errors)."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, NapariUNetError) as error:
        show_error(error)
        return 2
    return code if isinstance(code, int) else 0


def _source(path: Path, axes: str | None = None) -> ArraySource:
    return ArraySource(path=str(path.absolute()), axes=axes)


def _run(job: TrainJob | PredictJob, json: bool) -> None:
    with running(json) as run_one:
        run_one(job)


if __name__ == "__main__":
    sys.exit(main())
