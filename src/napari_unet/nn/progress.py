"""Where a training stands, how long its steps take, and how many of them fit in the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from statistics import mean, median
from typing import Any, Self

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.errors import ModelError
from napari_unet.nn.backend import Precision

__all__ = ["Pace", "Progress", "moments"]

VALIDATIONS = 20
"""How often a network is measured during its training, at most."""

_CLEARLY = 0.1  # better in mean Dice

_TRACED = 2  # first steps, slow because the backend prepares them
_CALIBRATION = 6  # steps timed to tell how many fit in the minutes
_CALIBRATION_PART = 0.05  # of the minutes, after which fewer timed steps will do
_VALIDATION_PART = 0.2  # of the minutes, at most, is spent on measuring


@dataclass
class Progress:
    """Where a training stands: all numbers that a checkpoint holds beside the arrays.

    Parameters
    ----------
    seed : int
        Of weights, dropout and batches; another one after a restart.
    steps : int
        Planned; 0 until it is known how many fit in the minutes.
    patch, batch : int
        Side of a patch in pixels, and patches in a step: as chosen, or less where memory ran out.
    precision : {"float32", "bfloat16"}
        Of the computation, as chosen.
    network : dict
        Shape of the network as JSON values, as chosen.
    settled : bool
        Whether the planned steps stay: a plan by minutes goes by the first steps, and is looked at once more.
    validations : int
        Times to measure the network, evenly spread.
    step : int
        Steps done.
    measured : int
        Steps done when the network was measured last.
    stale : int
        Measurements since the one with the highest rank.
    seconds : float
        Spent so far, in all sessions.
    factor : float
        Of the learning rate; halved after a step that wasn't sound.
    faults : int
        Steps that weren't sound.
    deaths : int
        Times the network gave the same answer everywhere. After the first the training begins anew; the second,
        or one after it had learned something, which counts as two, ends it.
    top : float or None
        The highest rank that was measured (`napari_unet.nn.validation.Quality.rank`); None before the first.
    score, best_step, threshold
        Of the weights that are kept; None, 0 and 0.5 before the first.
    ap50, objects : float and dict, or None
        Where objects are learned: their average precision at IoU 0.5, and how they are made best, as
        JSON values of `napari_unet.spec.ObjectDecoding`; of the weights that are kept.
    """

    seed: int
    steps: int
    patch: int
    batch: int
    precision: Precision = "float32"
    network: dict[str, Any] = field(default_factory=dict)
    settled: bool = False
    validations: int = VALIDATIONS
    step: int = 0
    measured: int = 0
    stale: int = 0
    seconds: float = 0.0
    factor: float = 1.0
    faults: int = 0
    deaths: int = 0
    top: float | None = None
    score: float | None = None
    best_step: int = 0
    threshold: float = 0.5
    ap50: float | None = None
    objects: dict[str, Any] | None = None

    @classmethod
    def start(cls, config: TrainConfig, network: UNetConfig) -> Self:
        """Return the start of a training.

        Raises
        ------
        ModelError
            If patch, batch or precision are left open.
        """
        if config.patch is None or config.batch is None or config.precision == "auto":
            raise ModelError(
                "Patch, batch and precision of this training are left open: set them, or let "
                "napari_unet.data.advice.advise choose them."
            )
        shape = network.model_dump(mode="json")
        fixed = config.steps > 0
        return cls(config.seed, config.steps, config.patch, config.batch, config.precision, shape, fixed)

    @property
    def has_learned(self) -> bool:
        """Whether the weights that are kept are clearly better than the same answer everywhere."""
        # One class everywhere has Dice 0 for all others, so its mean is below 1 / classes.
        return self.score is not None and self.score > 1 / self.network["classes"] + _CLEARLY

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state` gave.

        Raises
        ------
        ModelError
            If this is not such a state.
        """
        if set(state) != {f.name for f in fields(cls)}:
            raise ModelError(
                "The checkpoint was written by another version of napari-unet, so the training cannot go on: "
                "start in a new run folder."
            )
        return cls(**state)

    def restarted(self) -> Progress:
        """Return the start of the same training with another seed."""
        return Progress(
            # Far from the seeds that people try next themselves.
            seed=(self.seed + 1_000_003) % 2**31,
            steps=self.steps,
            settled=self.settled,
            patch=self.patch,
            batch=self.batch,
            precision=self.precision,
            network=self.network,
            validations=self.validations,
            seconds=self.seconds,
            deaths=self.deaths,
        )


def moments(steps: int, count: int) -> frozenset[int]:
    """Return the steps after which to measure: evenly spread, the last one included."""
    return frozenset(max(1, round(steps * (i + 1) / count)) for i in range(count))


class Pace:
    """How long steps take, in seconds, in this session."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._steps = 0
        self._recent: deque[float] = deque(maxlen=50)

    def add(self, seconds: float) -> None:
        """Note a step."""
        if len(self._first) < _TRACED + _CALIBRATION:
            self._first.append(seconds)
        self._steps += 1
        if self._steps > _TRACED or not self._recent:
            self._recent.append(seconds)

    def is_known(self, minutes: float) -> bool:
        """Whether enough steps were timed to plan a training of this length."""
        timed = len(self._first) - _TRACED
        if timed >= _CALIBRATION:
            return True
        return timed >= 1 and sum(self._first) > _CALIBRATION_PART * 60 * minutes

    def plan(self, left: float, validation: float) -> tuple[int, int]:
        """Return how many more steps fit, if they take as long as the last ones, and how many validations.

        Parameters
        ----------
        left : float
            Seconds for both.
        validation : float
            Seconds of one validation; 0 for none.
        """
        left = max(0.0, left)
        count = VALIDATIONS
        if validation > 0:
            count = max(1, min(VALIDATIONS, int(_VALIDATION_PART * left / validation)))
        step = max(median(self._steady()), 1e-4)
        return max(1, int((left - count * validation) / step)), count

    def seconds_left(self, steps: int) -> float:
        """Estimate the time for `steps` more, measuring included."""
        steady = self._steady()
        return mean(steady) * steps if steady else 0.0

    def _steady(self) -> list[float]:
        # The first, slow step is the only guess at first; it is among the recent ones no longer than needed.
        return list(self._recent)[1:] or list(self._recent)
