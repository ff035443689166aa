"""What the command line shows: progress, results, and nothing of what libraries print."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from napari_unet.errors import NapariUNetError
from napari_unet.events import (
    Event,
    Failed,
    Finished,
    Noted,
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
from napari_unet.jobs import PredictJob, TrainJob
from napari_unet.words import time_left

if TYPE_CHECKING:
    from napari_unet.preview import Preview

__all__ = [
    "as_findings",
    "as_table",
    "quiet_libraries",
    "results",
    "running",
    "screen",
    "show_error",
    "showing",
    "stoppable",
    "summary",
]

screen = Console(stderr=True, markup=False, emoji=False)
"""Progress and messages; results alone go to stdout."""

results = Console(markup=False, emoji=False)
"""What was asked for."""


@contextmanager
def running(
    json: bool, workers: int = 0, scheduler: str | None = None
) -> Iterator[Callable[[TrainJob | PredictJob], Report]]:
    """Give what runs one job after the other and shows how they go: all on one cluster, if on any."""
    from napari_unet.api import run as run_here

    with ExitStack() as stack:
        # Outermost, and once: workers inherit where the libraries print to.
        stack.enter_context(quiet_libraries())
        stop = stack.enter_context(stoppable())
        compute: Callable[..., Report] = run_here
        if workers or scheduler:
            from napari_unet.cluster import cluster_of

            compute = stack.enter_context(cluster_of(workers, scheduler))

        def run(job: TrainJob | PredictJob) -> Report:
            with showing(json) as notify:
                report = compute(job, notify, stop)
                notify(Finished(report))
            if not json:
                results.print(summary(report), highlight=False, soft_wrap=True)
            return report

        yield run


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Give a `stop` that Ctrl-C sets."""
    asked = False

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)  # the second Ctrl-C kills
        screen.print("Stopping after this step; press Ctrl-C again to kill.", style="yellow")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def showing(json: bool) -> Iterator[Notify]:
    """Give a `notify` that shows the events of one job."""
    if not json:
        with _Bars() as bars:
            yield bars.show
        return

    def notify(event: Event) -> None:
        print(to_json(event), flush=True)

    try:
        yield notify
    except NapariUNetError as error:
        notify(Failed(str(error), type(error).__name__))
        raise


def show_error(error: Exception) -> None:
    """Say in one line what is wrong."""
    sentence = " ".join(str(error).split())
    screen.print(Text.assemble(("error", "bold red"), f" {sentence}"), soft_wrap=True)


@contextmanager
def quiet_libraries() -> Iterator[None]:
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
            console=screen,
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
            case Validated(score=score, ap50=ap50):
                precision = "" if ap50 is None else f", AP at IoU 0.5 {ap50:.3f}"
                self._score = f", held-out mean Dice {score:.3f}{precision}"
            case TileDone(done, total, seconds_left):
                self._advance(done, total, seconds_left, "")
            case Warned(message):
                self._progress.print(message, style="yellow", highlight=False)
            case Noted(message):
                self._progress.print(message, style="dim", highlight=False)

    def _begin(self, what: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=what, completed=done, total=total, visible=True)

    def _advance(self, done: int, total: int, seconds_left: float, figures: str) -> None:
        self._progress.update(
            self._task, completed=done, total=total, left=time_left(seconds_left), figures=figures
        )


def summary(report: Report) -> str:
    """Say what a run left behind: its message, then each output and its path."""
    lines = [report.message, *(f"{kind:14}{path}" for kind, path in report.outputs.items())]
    return "\n".join(line for line in lines if line)


def as_findings(seen: Preview) -> Table:
    """Lay out what the label linter found, a row a finding, its way out below it; then what training would choose."""
    check = seen.check
    table = Table(show_header=False, box=None)
    colours = {"error": "bold red", "warning": "yellow", "hint": "cyan"}
    for finding in check.findings:
        text = Text(finding.sentence)
        if finding.fix:
            text.append(f"\n{finding.fix}", style="dim")
        table.add_row(Text(finding.severity, style=colours[finding.severity]), text)
    if check.reason:
        table.add_row("", Text(check.reason))
    if not check.of("error") and not check.of("warning"):
        table.add_row("", Text("Nothing in the labels looks wrong.", style="green"))
    for warning in seen.advice.warnings if seen.advice else ():
        table.add_row(Text("warning", style=colours["warning"]), Text(warning))
    for sentence in seen.sentences:
        table.add_row(Text("chosen", style="dim"), Text(sentence, style="dim"))
    return table


def as_table(content: dict[str, Any]) -> Table:
    """Lay out a card: a row a field, nested where a field holds fields, empty fields left out."""
    table = Table(show_header=False, box=None)
    for key, value in content.items():
        match value:
            case dict():
                table.add_row(key, as_table(value))
            case [dict(), *_]:
                table.add_row(
                    key, "\n".join(", ".join(f"{k} {v}" for k, v in item.items() if v) for item in value)
                )
            case None | [] | "":
                pass
            case _:
                table.add_row(key, str(value))
    return table
