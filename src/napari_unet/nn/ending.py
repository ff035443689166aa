"""How a training ends, and in which words it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from napari_unet.nn.model import UNetModel
from napari_unet.nn.progress import Progress
from napari_unet.words import count

__all__ = ["MAX_FAULTS", "End", "TrainResult", "closing_words"]

MAX_FAULTS = 3
"""Steps with numbers that are not finite that a training survives."""

_NOTHING = "Nothing learned yet: stopped before the first step was done."


class End(Enum):
    """How a training, or a part of it, ended."""

    DONE = auto()
    STOPPED = auto()
    SETTLED = auto()
    """Its quality stopped rising."""
    DEAD = auto()
    DIVERGED = auto()
    TOO_LARGE = auto()
    """A step did not fit into memory: go on with smaller ones."""


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind.

    Parameters
    ----------
    model : UNetModel
        The best network so far, or fresh weights where `steps` is 0.
    steps : int
        Steps done.
    seconds : float
        Time spent, in all sessions.
    stopped : bool
        True if the user stopped it. A stopped training is a result, not an error.
    score : float or None
        Mean Dice on the region held out; None if it was not measured.
    message : str
        What happened, in a sentence or two.
    """

    model: UNetModel
    steps: int
    seconds: float
    stopped: bool
    score: float | None
    message: str


def closing_words(end: End, progress: Progress, held_out: str, measured: bool, kept: int) -> str:
    """Say what happened and how good the model is.

    Parameters
    ----------
    end : End
        How it ended.
    progress : Progress
        Where it stands.
    held_out : str
        What was held out, or why nothing was.
    measured : bool
        Whether anything was held out.
    kept : int
        The step whose model is kept.
    """
    if not progress.step:
        return _NOTHING
    head = _head(end, progress)
    if progress.score is not None:
        objects = "" if progress.ap50 is None else f", and AP of objects {progress.ap50:.3f} at IoU 0.5,"
        return f"{head} Mean Dice {progress.score:.3f}{objects} on the region held out. {held_out}"
    if kept < progress.step:
        head += f" The model is that of step {kept:,}, the last one saved with finite weights."
    reason = "It ended before quality was measured." if measured else held_out
    return f"{head} Quality was not measured. {reason}"


def _head(end: End, progress: Progress) -> str:
    did = f"{progress.step:,} of {progress.steps:,} steps" if progress.steps else f"{progress.step:,} steps"
    match end:
        case End.DONE:
            return f"Trained {count(progress.step, 'step')}."
        case End.STOPPED:
            return f"Stopped after {did}; the best model so far is kept."
        case End.SETTLED:
            return (
                f"Ended after {did}, because the last {progress.stale} measurements were no better than those before. "
                f"The model of step {progress.best_step:,} is kept."
            )
        case End.DEAD if progress.has_learned:
            return (
                f"Training ended after {did}, because the network collapsed: it gave the same answer everywhere. The best model, "
                f"that of step {progress.best_step:,}, is kept; for a better one, try a lower learning rate or another seed."
            )
        case End.DEAD:
            return (
                f"Training ended after {did}: in two attempts the network gave the same answer everywhere. "
                "Its model is of no use: try another seed or preset, and check that the labels lie on what they mark."
            )
    return (
        f"Training ended after {did}: its numbers were not finite {MAX_FAULTS + 1} times, though the learning rate "
        "was halved. The best model so far is kept; train again with a lower learning rate."
    )
