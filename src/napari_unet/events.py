"""What a run says while it runs: small frozen events, one JSON line each.

The core tells its caller what happens through ``notify(event)`` and asks whether to
go on through ``stop()``. It never prints and never sees a widget. The worker process
writes each event as one line of JSON; the docks and the command line match on the
class.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = [
    "Event",
    "Failed",
    "Finished",
    "Noted",
    "Notify",
    "PredictStarted",
    "Ready",
    "Report",
    "StepDone",
    "Stop",
    "TileDone",
    "TrainStarted",
    "Validated",
    "Warned",
    "from_json",
    "ignore_events",
    "never_stop",
    "to_json",
]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run leaves behind.

    Parameters
    ----------
    kind : {"train", "predict"}
        Which kind of job ran.
    outputs : dict of str to str
        What was written, by kind (``"model"``, ``"labels"``, ``"probabilities"``), as paths.
    metrics : dict of str to float
        Measured figures. A figure that was not measured is absent, never 0.
    seconds : float
        Wall-clock time of the run.
    stopped : bool
        True if the user stopped it. A stopped run is a result, not an error.
    message : str
        One sentence for the person who started the run.
    """

    kind: str
    outputs: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The worker process waits for a job.

    Parameters
    ----------
    pid : int
        Its process id.
    """

    pid: int


@dataclass(frozen=True, slots=True)
class TrainStarted(Event):
    """Training begins; the number of steps is known.

    Parameters
    ----------
    run : str
        The run folder.
    step, steps : int
        Steps already done (a resumed run), and planned in all.
    device : str
        What computes, in words ("CPU", "GPU: NVIDIA T4").
    """

    run: str
    step: int
    steps: int
    device: str


@dataclass(frozen=True, slots=True)
class StepDone(Event):
    """One training step is done.

    Parameters
    ----------
    step, steps : int
        Steps done, and planned in all; by minutes, that may change once.
    loss : float
        Training loss of this step's batch.
    seconds_left : float
        Estimated time to the end, in seconds.
    """

    step: int
    steps: int
    loss: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Validated(Event):
    """The network was measured on the region held out from training.

    Parameters
    ----------
    step : int
        Steps done.
    loss : float
        Validation loss.
    score : float
        Mean Dice over the classes, background counted in, 0 to 1.
    best : bool
        True if this is as good as the best so far, and its weights are kept. Where objects are learned, their average
        precision is added to the score to tell.
    ap50 : float, optional
        Where objects are learned: average precision of the objects found, at IoU 0.5.
    """

    step: int
    loss: float
    score: float
    best: bool
    ap50: float | None = None


@dataclass(frozen=True, slots=True)
class PredictStarted(Event):
    """Segmentation begins; its outputs exist and can be watched.

    Parameters
    ----------
    outputs : dict of str to str
        What is being written, by kind, as paths of zarr groups that can be read while they fill.
    done, total : int
        Tiles already there from an interrupted run, and all tiles.
    device : str
        What computes, in words.
    """

    outputs: dict[str, str]
    done: int
    total: int
    device: str


@dataclass(frozen=True, slots=True)
class TileDone(Event):
    """One output chunk is on disk.

    Parameters
    ----------
    done, total : int
        Tiles on disk, and all tiles.
    seconds_left : float
        Estimated time to the end, in seconds.
    """

    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something the user should know, though the run goes on.

    Parameters
    ----------
    message : str
        A plain sentence.
    """

    message: str


@dataclass(frozen=True, slots=True)
class Noted(Event):
    """Something worth knowing that is no warning: what was chosen, and why.

    Parameters
    ----------
    message : str
        A plain sentence.
    """

    message: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The run ended, by itself or by Stop.

    Parameters
    ----------
    report : Report
        What it left behind.
    """

    report: Report


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The run ended with an error.

    Parameters
    ----------
    message : str
        One sentence for the user.
    kind : str
        The class of the error, e.g. ``"DataError"``.
    details : str
        The traceback, for "copy details"; empty for errors that need none.
    """

    message: str
    kind: str
    details: str = ""


Notify = Callable[[Event], None]
Stop = Callable[[], bool]

_EVENTS: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        Ready,
        TrainStarted,
        StepDone,
        Validated,
        PredictStarted,
        TileDone,
        Warned,
        Noted,
        Finished,
        Failed,
    )
}


def ignore_events(event: Event) -> None:
    """Do nothing with `event`: the default `notify`."""


def never_stop() -> bool:
    """Answer False: the default `stop`."""
    return False


def to_json(event: Event) -> str:
    """Write an event as one line of JSON (no line break).

    Non-finite numbers become ``null``: strict JSON has no NaN, and a curve has a gap there.
    """
    return json.dumps({"event": type(event).__name__, **_finite(asdict(event))}, allow_nan=False)


def from_json(line: str) -> Event:
    """Read an event from a line that `to_json` wrote.

    Raises
    ------
    ValueError
        If the line is not an event.
    """
    content = json.loads(line)
    if not isinstance(content, dict) or content.get("event") not in _EVENTS:
        raise ValueError(f"not an event: {line[:80]!r}")
    cls = _EVENTS[content.pop("event")]
    if set(content) - {f.name for f in fields(cls)}:
        raise ValueError(f"unknown fields in {cls.__name__}: {line[:80]!r}")
    if cls is Finished:
        content["report"] = Report(**content["report"])
    for name in ("loss", "seconds_left", "score"):
        if name in content and content[name] is None:
            content[name] = math.nan
    return cls(**content)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
