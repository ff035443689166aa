"""Several images as one wish."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_unet.batch import run_each
from napari_unet.errors import BackendError, ConfigError, DataError, FileError, ModelError, NapariUNetError
from napari_unet.events import Report
from napari_unet.jobs import PredictJob


def jobs_of(folder: Path, *names: str) -> list[PredictJob]:
    return [
        PredictJob(
            model=str(folder / "m.unet"),
            image={"path": str(folder / name)},
            outputs=[{"path": str(folder / "out" / f"{name}.ome.tif")}],
        )
        for name in names
    ]


class Runs:
    """Runs jobs, of which some meet an error or are stopped."""

    def __init__(self, ends: dict[str, NapariUNetError | None]) -> None:
        self.ends = ends
        self.done: list[str] = []
        self.told: list[NapariUNetError] = []

    def __call__(self, job: PredictJob) -> Report:
        name = Path(job.image.path).name
        error = self.ends.get(name)
        if error:
            raise error
        self.done.append(name)
        return Report("predict", stopped=name in self.ends)


def test_an_image_that_cannot_be_used_does_not_hold_up_the_others(tmp_path: Path) -> None:
    one, two = FileError(tmp_path / "a", "is damaged."), DataError("Image 'c' has 3 channels.")
    three = FileError(tmp_path / "e.zarr" / "c" / "0", "is damaged.")
    runs = Runs({"a": one, "c": two, "e.zarr": three})
    with pytest.raises(
        DataError, match=r"^3 of 5 images could not be segmented, each for the reason above\."
    ):
        run_each(jobs_of(tmp_path, "a", "b", "c", "d", "e.zarr"), runs, runs.told.append)
    assert (runs.done, runs.told) == (["b", "d"], [one, two, three])


@pytest.mark.parametrize(
    "error",
    [
        FileError("/models/m.unet", "is damaged."),
        FileError("/out/a.ome.tif", "the disk is full."),
        ModelError("Model 'm' has weights that are not finite."),
        BackendError("No Dask scheduler answers."),
        ConfigError("The largest tile allowed is too small."),
    ],
)
def test_what_the_others_would_meet_too_ends_it(tmp_path: Path, error: NapariUNetError) -> None:
    runs = Runs({"b": error})
    with pytest.raises(type(error)) as caught:
        run_each(jobs_of(tmp_path, "a", "b", "c"), runs, runs.told.append)
    assert caught.value is error
    assert (runs.done, runs.told) == (["a"], [])


def test_a_single_image_says_what_is_wrong_itself(tmp_path: Path) -> None:
    error = FileError(tmp_path / "a", "is damaged.")
    runs = Runs({"a": error})
    with pytest.raises(FileError) as caught:
        run_each(jobs_of(tmp_path, "a"), runs, runs.told.append)
    assert (caught.value, runs.told) == (error, [])


def test_stopping_one_stops_all(tmp_path: Path) -> None:
    runs = Runs({"b": None})
    run_each(jobs_of(tmp_path, "a", "b", "c"), runs, runs.told.append)
    assert runs.done == ["a", "b"]
