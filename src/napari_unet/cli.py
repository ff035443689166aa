"""``napari-unet`` on the command line: the same jobs as in the docks.

Every setting of a job is a flag, made from the settings classes. A person gets progress
bars and tables; ``--json`` prints the events and the result as lines of JSON. Bad input
ends in one sentence and exit code 2; Ctrl-C stops after the step in hand and keeps what
there is, a second Ctrl-C kills.
"""

from __future__ import annotations

import json as json_lines
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from pydantic import create_model
from rich.console import Console
from rich.table import Table

from napari_unet import __version__
from napari_unet.config import PredictConfig, Settings, TrainConfig, UNetConfig, UNetPreset
from napari_unet.errors import NapariUNetError
from napari_unet.events import (
    Event,
    Finished,
    Notify,
    PredictStarted,
    Report,
    StepDone,
    Stop,
    TileDone,
    TrainStarted,
    Validated,
    Warned,
    to_json,
)
from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob, job_from_yaml

__all__ = ["app", "main"]

app = App(
    name="napari-unet",
    help="Train a U-Net from a few painted labels, and segment whole stacks with it.",
    version=__version__,
)

_screen = Console(stderr=True)  # progress and messages; results alone go to stdout
_results = Console()

Several = Parameter(consume_multiple=True, negative=())
Switch = Parameter(negative=())


def _part_of(cls: type[Settings], *names: str) -> type[Settings]:
    """Make a settings class with only some fields of `cls`, to turn into flags."""
    fields: dict[str, Any] = {
        name: (cls.model_fields[name].annotation, cls.model_fields[name]) for name in names
    }
    return create_model(f"{cls.__name__}Flags", __base__=Settings, **fields)


_NetworkFlags = _part_of(UNetConfig, "depth", "filters", "dropout")
_PaintFlags = _part_of(TrainJob, "unpainted", "background_value", "not_finite", "name")


@app.command
def train(
    *,
    images: Annotated[list[Path], Several],
    labels: Annotated[list[Path], Several],
    out: Path,
    preset: UNetPreset = "article",
    network: Annotated[_NetworkFlags, Parameter(name="*")] = _NetworkFlags(),  # type: ignore[valid-type]
    paint: Annotated[_PaintFlags, Parameter(name="*")] = _PaintFlags(),  # type: ignore[valid-type]
    config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),
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
        article: 64 filters; quick: 16 filters, for a CPU; linked-code: the article's program.
    json
        Print events and the result as lines of JSON.
    """
    from napari_unet.files.pairs import match_pairs

    pairs = match_pairs(images, labels)
    if not json:
        _screen.print(pairs.report(), style="dim")
    job = TrainJob(
        images=tuple(_source(image) for image, _ in pairs.pairs),
        labels=tuple(_source(painted) for _, painted in pairs.pairs),
        out=str(out.absolute()),
        network=UNetConfig.preset(preset, **network.model_dump(exclude_unset=True)),  # type: ignore[attr-defined]
        train=config,
        **paint.model_dump(exclude_unset=True),  # type: ignore[attr-defined]
    )
    _run(job, json)


@app.command
def predict(
    model: Path,
    image: Annotated[list[Path], Several],
    *,
    out: Path,
    output: Annotated[list[Literal["labels", "probabilities"]], Several] = ["labels"],  # noqa: B006
    axes: str | None = None,
    window: tuple[int, int, int, int, int, int] | None = None,
    overwrite: Annotated[bool, Switch] = False,
    config: Annotated[PredictConfig, Parameter(name="*")] = PredictConfig(),
    json: Annotated[bool, Switch] = False,
) -> None:
    """Segment images with a model.

    The same command goes on with an interrupted run.

    Parameters
    ----------
    model
        A .unet file.
    image
        An image, several, or a folder of them.
    out
        For one image: FILE.ome.tif or FILE.zarr. For several: a folder.
    output
        labels, probabilities, or both (the kind then becomes part of the name).
    axes
        Letters of the image's axes (of T, Z, C, Y, X, S), where the file does not say.
    window
        Part to segment: first and last-plus-one slice, y and x (six numbers).
    overwrite
        Replace an output that another run made.
    json
        Print events and the result as lines of JSON.
    """
    files = _image_files(image)
    several = len(files) > 1 or files != image  # a folder, even of one image, gives a folder
    for file in files:
        target = out / f"{_stem(file)}.ome.tif" if several else out
        job = PredictJob(
            model=str(model.absolute()),
            image=_source(file, axes),
            outputs=_outputs(target, output),
            window=None if window is None else (window[0:2], window[2:4], window[4:6]),
            config=config,
            overwrite=overwrite,
        )
        _run(job, json)


@app.command
def evaluate(
    prediction: Path,
    truth: Path,
    *,
    task: Literal["semantic", "membranes"] = "semantic",
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
        semantic: IoU and Dice of each class, pixel error. membranes: V_rand, V_info and pixel
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
        table.add_row(name, *(f"{figure:.4f}" for figure in figures))
    _results.print(table)


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
        _results.print(_rows(content))


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

    with _quiet_libraries(), _reporting(json=False) as (notify, stop):
        result = demonstrate(out, minutes, notify, stop)
    _results.print(result.table())
    _results.print(f"model    {result.model}\npicture  {result.picture}", highlight=False, soft_wrap=True)
    if show:
        open_in_napari(result)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 after bad input."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, NapariUNetError) as error:
        _screen.print(f"[bold red]error[/] {' '.join(str(error).split())}", highlight=False, soft_wrap=True)
        return 2
    return 0


def _source(path: Path, axes: str | None = None) -> ArraySource:
    return ArraySource(path=str(path.absolute()), axes=axes)


def _outputs(target: Path, kinds: Sequence[str]) -> tuple[Output, ...]:
    if len(kinds) == 1:
        return (Output(kind=kinds[0], path=str(target.absolute())),)
    stem, ending = _split(target)
    return tuple(
        Output(kind=kind, path=str(target.with_name(f"{stem}.{kind}{ending}").absolute())) for kind in kinds
    )


def _image_files(paths: Sequence[Path]) -> list[Path]:
    from napari_unet.files.pairs import image_files

    return [file for path in paths for file in image_files(path)]


def _stem(path: Path) -> str:
    return _split(path)[0]


def _split(path: Path) -> tuple[str, str]:
    """Name without ending, and the ending, which may have two dots (.ome.tif)."""
    for ending in (".ome.tif", ".ome.tiff", ".ome.zarr"):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)], path.name[-len(ending) :]
    return path.stem, path.suffix


def _run(job: TrainJob | PredictJob, json: bool) -> None:
    from napari_unet.api import run as run_job

    with _quiet_libraries(), _reporting(json) as (notify, stop):
        report = run_job(job, notify, stop)
        notify(Finished(report))
    if not json:
        _results.print(_summary(report), highlight=False, soft_wrap=True)


def _summary(report: Report) -> str:
    lines = [report.message, *(f"{kind:14}{path}" for kind, path in report.outputs.items())]
    return "\n".join(line for line in lines if line)


def _rows(content: dict[str, Any], title: str = "") -> Table:
    table = Table(title=title or None, show_header=False, box=None)
    for key, value in content.items():
        match value:
            case dict():
                table.add_row(key, _rows(value))
            case [dict(), *_]:
                table.add_row(
                    key, "\n".join(", ".join(f"{k} {v}" for k, v in item.items() if v) for item in value)
                )
            case None | [] | "":
                pass
            case _:
                table.add_row(key, str(value))
    return table


@contextmanager
def _reporting(json: bool) -> Iterator[tuple[Notify, Stop]]:
    """Give a `notify` that shows events and a `stop` that Ctrl-C sets."""
    asked = False

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)  # the second Ctrl-C kills
        _screen.print("Stopping after this step; press Ctrl-C again to kill.", style="yellow")

    before = signal.signal(signal.SIGINT, ask)
    try:
        if json:
            yield lambda event: print(to_json(event), flush=True), lambda: asked
        else:
            with _Bars() as bars:
                yield bars.show, lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hold back what TensorFlow's C++ code prints about devices it did not find, unless something goes wrong."""
    with tempfile.TemporaryFile() as notes, os.fdopen(os.dup(2), "w", encoding="utf-8") as stderr:
        os.dup2(notes.fileno(), 2)
        try:
            with redirect_stderr(stderr):  # our own messages still reach the screen
                yield
        except NapariUNetError:
            raise
        except BaseException:
            notes.seek(0)
            stderr.write(notes.read().decode(errors="replace"))
            raise
        finally:
            stderr.flush()
            os.dup2(stderr.fileno(), 2)


class _Bars:
    """Progress for a person: one bar, the last figures, warnings above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=_screen,
        )
        self._task = self._progress.add_task("", visible=False, left="", figures="")
        self._score = ""

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        match event:
            case TrainStarted(run=_, step=step, steps=steps, device=device):
                self._begin(f"Training on {device}", step, steps)
            case PredictStarted(outputs=_, done=done, total=total, device=device):
                self._begin(f"Segmenting on {device}", done, total)
            case StepDone(step, steps, loss, seconds_left):
                figures = f"loss {loss:.3f}{self._score}"
                self._advance(step, steps, seconds_left, figures)
            case Validated(score=score):
                self._score = f", held-out mean Dice {score:.3f}"
            case TileDone(done, total, seconds_left):
                self._advance(done, total, seconds_left, "")
            case Warned(message):
                self._progress.print(message, style="yellow", highlight=False)

    def _begin(self, what: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=what, completed=done, total=total, visible=True)

    def _advance(self, done: int, total: int, seconds_left: float, figures: str) -> None:
        self._progress.update(
            self._task, completed=done, total=total, left=time_left(seconds_left), figures=figures
        )


def time_left(seconds: float) -> str:
    """Say a number of seconds as a person would."""
    if not 0 <= seconds < 1e7:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left"


if __name__ == "__main__":
    sys.exit(main())
