"""Images brought to another pixel size, and results brought back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet import load_model, predict, run
from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.errors import DataError
from napari_unet.events import Event, PredictStarted, TileDone
from napari_unet.files.image import Image, open_image
from napari_unet.files.model import read_card
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob
from napari_unet.pixel_size import at_pixel_size, bring_back, window_at

SHORT = TrainConfig(steps=4, patch=32, batch=1, warmup=2, patience=0)


def picture(**changes: object) -> Image:
    array = np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)
    return Image(**{"array": array, "axes": "YX", "name": "cells", **changes})


def test_units_are_converted() -> None:
    image = picture(pixel_size={"Y": 0.5, "X": 0.25}, unit="micrometer")
    seen = at_pixel_size(image, (250.0, 500.0), "nanometer")
    assert seen.stack.shape == (1, 120, 40, 1)
    assert seen.unit == "micrometer"
    assert seen.pixel_size == pytest.approx({"Y": 0.25, "X": 0.5})
    assert at_pixel_size(image, (0.5, 0.25), "micrometer") is image


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "its pixel size is not known"),
        ({"pixel_size": {"Y": 2.0, "X": 1.0}}, "its pixels are 2 x 1 pixel"),
    ],
)
def test_an_unknown_pixel_size_is_said(known: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        at_pixel_size(picture(**known), (0.5, 0.5), "micrometer")


def test_a_window_is_covered() -> None:
    old, new = Stack(np.zeros((3, 60, 80)), "ZYX"), Stack(np.zeros((3, 25, 100)), "ZYX")
    slices, (top, bottom), (left, right) = window_at(((1, 2), (7, 31), (0, 80)), old, new)
    assert slices == (1, 2) and (left, right) == (0, 100)
    assert 0 <= top <= 7 * 25 // 60 and -(-31 * 25 // 60) <= bottom <= 25
    assert window_at(None, old, new) is None


@pytest.mark.parametrize("size", [(0.25, 0.25), (0.7, 0.4), (2.0, 3.1)])
def test_the_pixels_of_a_part_are_those_of_the_whole(trained: Path, size: tuple[float, float]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 60, 80), np.uint8)
    window = ((1, 2), (13, 31), (7, 60))
    part = (slice(1, 2), slice(13, 31), slice(7, 60))
    config = PredictConfig(pixel_size="model", probability_type="float32")
    options = {"axes": "ZYX", "pixel_size": size, "output": ("labels", "probabilities", "entropy")}
    whole, found = (predict(load_model(trained), image, config, window=w, **options) for w in (None, window))
    for kind in found:
        np.testing.assert_allclose(found[kind][part], whole[kind][part], rtol=0, atol=1e-5, err_msg=kind)
        found[kind][part] = 0
        assert not found[kind].any()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at pixels of 1 micrometer, of images with pixels of 0.5 and 2."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    images, labels = [], []
    for size in (0.5, 2.0):
        shape = tuple(round(64 / size) for _ in "YX")
        coarse = np.kron(rng.integers(0, 2, (4, 4)), np.ones([side // 4 for side in shape]))
        for kind, array in (("image", 200 * coarse + 20), ("labels", coarse)):
            path = folder / f"{size}.{kind}.ome.tif"
            write_tiff(
                path, array.astype(np.uint8), "YX", pixel_size={"Y": size, "X": size}, unit="micrometer"
            )
            (images if kind == "image" else labels).append(ArraySource(path=str(path)))
    job = TrainJob(
        images=tuple(images),
        labels=tuple(labels),
        out=str(folder / "run"),
        network=UNetConfig(filters=4, depth=2),
        train=SHORT.replace(steps=60, learning_rate=5e-3),
        target="classes",
        pixel_size=1.0,
    )
    return Path(run(job).outputs["model"])


def test_the_model_knows_the_pixel_size_it_was_trained_at(trained: Path) -> None:
    assert read_card(trained).pixel_size == (1.0, 1.0)
    assert read_card(trained).unit == "micrometer"


def test_the_result_lies_on_the_image_s_own_grid(trained: Path, tmp_path: Path) -> None:
    truth = np.kron(np.eye(4, dtype=np.uint8), np.ones((40, 40), np.uint8))
    image = np.stack([200 * truth + 20, 200 * (1 - truth) + 20]).astype(np.uint8)
    path = tmp_path / "fine.ome.tif"
    write_tiff(path, image, "ZYX", pixel_size={"Z": 1.0, "Y": 0.4, "X": 0.4}, unit="micrometer")
    outputs = {kind: tmp_path / f"{kind}.ome.tif" for kind in ("labels", "probabilities")}
    events: list[Event] = []
    job = PredictJob(
        model=str(trained),
        image=ArraySource(path=str(path)),
        outputs=tuple(Output(kind=kind, path=str(to)) for kind, to in outputs.items()),
        config=PredictConfig(pixel_size="model"),
    )
    run(job, events.append)
    labels, probabilities = (open_image(to) for to in outputs.values())
    assert labels.pixel_size == pytest.approx({"Z": 1.0, "Y": 0.4, "X": 0.4})
    assert labels.array.shape == probabilities.array.shape == image.shape
    found = np.asarray(labels.array)
    assert (found[0] == truth).mean() > 0.8
    assert (found[1] == 1 - truth).mean() > 0.8
    (started,) = (event for event in events if isinstance(event, PredictStarted))
    assert not any("resampled" in group for group in started.outputs.values())
    assert not list(tmp_path.glob(".*"))  # no scratch left

    model, config = load_model(trained), PredictConfig(pixel_size="model")
    again = predict(model, image, config, axes="ZYX", pixel_size=(0.4, 0.4))
    np.testing.assert_array_equal(again, found)
    with pytest.raises(DataError, match="its pixel size is not known"):
        predict(model, image, config, axes="ZYX")


def test_a_window_is_all_that_is_written(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "fine.ome.tif"
    image = np.full((100, 90), 220, np.uint8)
    image[:50] = 20
    write_tiff(path, image, "YX", pixel_size={"Y": 0.4, "X": 0.4}, unit="micrometer")
    out = tmp_path / "labels.zarr"
    job = PredictJob(
        model=str(trained),
        image=ArraySource(path=str(path)),
        outputs=(Output(kind="probabilities", path=str(out)),),
        window=((0, 1), (40, 80), (10, 60)),
        config=PredictConfig(pixel_size="model"),
    )
    run(job)
    written = np.asarray(open_image(out).array) > 0
    assert written[40:80, 10:60].any()
    written[40:80, 10:60] = False
    assert not written.any()


def test_a_model_without_pixel_size_says_so(trained: Path) -> None:
    model = load_model(trained)
    bare = type(model)(model.spec.replace(pixel_size=None), model.network)
    with pytest.raises(DataError, match="does not know the pixel size of its training images"):
        predict(bare, np.zeros((8, 8)), PredictConfig(pixel_size="model"), pixel_size=(1.0, 1.0))


def test_bringing_back_goes_chunk_by_chunk() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (3, 2, 20, 31), np.uint8)

    class Chunked:
        """A target that writes down the largest rectangle it was given."""

        def __init__(self, chunks: tuple[int, ...]) -> None:
            self.whole = np.zeros((3, 2, 50, 70), np.uint8)
            self.shape, self.dtype, self.chunks = self.whole.shape, self.whole.dtype, chunks
            self.largest = 0

        def __setitem__(self, key: tuple[object, ...], value: np.ndarray) -> None:
            self.whole[key] = value
            self.largest = max(self.largest, value.shape[-1] * value.shape[-2])

    tiles, slices = Chunked((3, 1, 16, 24)), Chunked((3, 1, 50, 70))
    for target in (tiles, slices):
        assert not bring_back(small, "ZYX", target, None, nearest=False, stop=lambda: False)
    np.testing.assert_array_equal(tiles.whole, slices.whole)
    assert tiles.largest == 16 * 24

    rest, asked = Chunked((3, 1, 16, 24)), []
    window = ((1, 2), (10, 40), (5, 70))
    bring_back(
        small,
        "ZYX",
        rest,
        window,
        nearest=False,
        is_done=lambda index: asked.append(index) or index == (1, 1, 2),
        stop=lambda: False,
    )
    expected = np.zeros_like(tiles.whole)
    expected[:, 1, 10:40, 5:70] = tiles.whole[:, 1, 10:40, 5:70]
    expected[:, 1, 16:32, 48:70] = 0  # done by an earlier run
    np.testing.assert_array_equal(rest.whole, expected)
    assert asked == [(1, row, column) for row in range(3) for column in range(3)]
    assert bring_back(small, "ZYX", rest, None, nearest=False, stop=lambda: True)


def test_a_stopped_run_starts_afresh_with_other_settings(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "fine.ome.tif"
    image = np.kron(np.eye(2, dtype=np.uint8), np.full((60, 60), 200, np.uint8))
    write_tiff(path, image, "YX", pixel_size={"Y": 0.4, "X": 0.4}, unit="micrometer")
    job = PredictJob(
        model=str(trained),
        image=ArraySource(path=str(path)),
        outputs=(Output(kind="labels", path=str(tmp_path / "labels.ome.tif")),),
        config=PredictConfig(pixel_size="model"),
    )
    tiles: list[Event] = []
    assert run(job, tiles.append, lambda: any(isinstance(event, TileDone) for event in tiles)).stopped
    assert list(tmp_path.glob(".*.resampled.zarr"))
    changed = job.replace(config=job.config.replace(threshold=0.7))
    assert not run(changed).stopped
    assert not list(tmp_path.glob(".*"))


def test_a_finished_result_is_not_computed_again(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "fine.ome.tif"
    image = np.kron(np.eye(2, dtype=np.uint8), np.full((60, 60), 200, np.uint8))
    write_tiff(path, image, "YX", pixel_size={"Y": 0.4, "X": 0.4}, unit="micrometer")
    outputs = tuple(
        Output(kind=kind, path=str(tmp_path / f"{kind}.zarr")) for kind in ("labels", "probabilities")
    )
    job = PredictJob(
        model=str(trained),
        image=ArraySource(path=str(path)),
        outputs=outputs,
        config=PredictConfig(pixel_size="model"),
    )
    run(job)
    events: list[Event] = []
    run(job, events.append)
    assert [type(event) for event in events] == [PredictStarted]
    assert events[0].outputs == {output.kind: output.path for output in outputs}
    assert events[0].done == events[0].total
