"""A segmentation whose worker was ended by the system is sent again, a few times."""

from __future__ import annotations

from napari_unet.events import Event, PredictStarted
from napari_unet.jobs import PredictJob, TrainJob

__all__ = ["Retries"]

_MOST = 3


class Retries:
    """Whether a job goes on after its worker was ended by a signal.

    A segmentation that has begun does: its chunks are kept, and its next run sees from what this one left that it
    died, takes smaller tiles, and says so. A training, an estimate, and labels made of stored probabilities would only die again.

    Parameters
    ----------
    job : TrainJob or PredictJob
        What the worker was given.
    """

    def __init__(self, job: TrainJob | PredictJob) -> None:
        self._left = _MOST if isinstance(job, PredictJob) and job.given == "image" else 0
        self._begun = False

    def hear(self, event: Event) -> None:
        """Note what the worker says."""
        self._begun = self._begun or isinstance(event, PredictStarted)

    def take(self) -> bool:
        """Use one of the tries up; False if none is left, or none was ever sensible."""
        if not self._begun or self._left == 0:
            return False
        self._left -= 1
        return True

    def give_up(self) -> None:
        """Take no more: the user wants it to end."""
        self._left = 0
