"""Which jobs are sent again after their worker was ended by the system."""

from __future__ import annotations

from napari_unet.events import PredictStarted
from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob
from napari_unet.retries import Retries

SEGMENT = PredictJob(
    model="a.unet", image=ArraySource(path="b.tif"), outputs=(Output(kind="labels", path="c.zarr"),)
)
BEGUN = PredictStarted({}, 0, 3, "CPU")


def test_a_segmentation_that_has_begun_goes_on_three_times() -> None:
    retries = Retries(SEGMENT)
    assert not retries.take(), "what dies before it begins would die again"
    retries.hear(BEGUN)
    assert [retries.take() for _ in range(5)] == [True, True, True, False, False]


def test_it_does_not_go_on_once_the_user_wants_it_to_end() -> None:
    retries = Retries(SEGMENT)
    retries.hear(BEGUN)
    retries.give_up()
    assert not retries.take()


def test_no_other_job_goes_on() -> None:
    source = ArraySource(path="b.tif")
    for job in (
        TrainJob(images=(source,), labels=(source,), out="run"),
        SEGMENT.replace(given="probabilities"),
    ):
        retries = Retries(job)
        retries.hear(BEGUN)
        assert not retries.take()
