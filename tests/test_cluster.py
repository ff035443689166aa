"""A segmentation on a cluster is the same as on one computer, and survives its workers.

One cluster of two workers serves most tests. A file in `flags` named after a chunk makes the worker die that comes
to it: "once" in the middle of its piece, "always" as it begins; one named "order" as soon as it gets an order.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import napari_unet.cluster
import napari_unet.handing_out
from napari_unet import run, run_on_cluster, save_model
from napari_unet.cli import main
from napari_unet.config import PredictConfig
from napari_unet.errors import BackendError, ConfigError, DataError, ModelError
from napari_unet.events import Event, Noted, PredictStarted, TileDone, Warned
from napari_unet.files.results import create_scratch
from napari_unet.files.tiff import write_tiff
from napari_unet.handing_out import Workers
from napari_unet.jobs import ArraySource, PredictJob
from napari_unet.nn.model import UNetModel
from napari_unet.object_run import scratch_in
from napari_unet.pieces import Piece
from napari_unet.spec import ClassInfo

from .helpers import TILES, job_of, read
from .nn.segmenting import random_model

pytestmark = pytest.mark.timeout(600)  # processes that import TensorFlow, beside other work

SHAPE = (3, 90, 130)
OBJECTS = TILES.replace(threshold=0.5, seed_threshold=0.36, min_size=3, link_slices=True)
WINDOW = ((1, 3), (20, 71), (5, 100))


@dataclass(frozen=True)
class Cluster:
    """A cluster as somebody else would have started it."""

    local: Any
    flags: Path

    @property
    def scheduler(self) -> str:
        return str(self.local.scheduler_address)

    def run(self, job: PredictJob, **options: object) -> list[Event]:
        events: list[Event] = []
        report = run_on_cluster(job, events.append, scheduler=self.scheduler, **options)
        assert not report.stopped
        return events

    def die_at(self, chunk: tuple[int, ...], how: str) -> Path:
        flag = self.flags / "-".join(map(str, chunk))
        flag.write_text(how)
        return flag


def dying(flags: Path) -> object:
    """A plugin that makes workers die as files in a folder say."""
    from distributed import WorkerPlugin

    class Dying(WorkerPlugin):  # local, so that workers get its code
        name = "dying"

        def setup(self, worker: object) -> None:
            from napari_unet import pieces
            from napari_unet.nn.outputs import Writer

            def die(chunk: tuple[int, ...], how: str) -> None:
                flag = flags / "-".join(map(str, chunk))
                if flag.exists() and flag.read_text() == how:
                    if how == "once":
                        flag.unlink()
                    os._exit(1)

            compute, write = pieces._compute, Writer.__call__

            def compute_or_die(order, piece, threads, before, path, tell):  # type: ignore[no-untyped-def]
                for chunk in piece.chunks:
                    die(chunk, "always")
                pace = compute(order, piece, threads, before, path, tell)
                died = [each.megapixels for each in before if not each.ended]
                if died:
                    (flags / "megapixels").write_text(f"{died[-1]} {pieces._read(path).megapixels}")
                return pace

            def write_or_die(self, work, answers):  # type: ignore[no-untyped-def]
                die(work.index, "once")
                return write(self, work, answers)

            pieces._compute, Writer.__call__ = compute_or_die, write_or_die

    return Dying()


def dying_of_orders(flags: Path) -> object:
    """A plugin that makes workers die as they unpickle an order."""
    from distributed import WorkerPlugin

    class DyingOfOrders(WorkerPlugin):
        name = "dying of orders"

        def setup(self, worker: object) -> None:
            from napari_unet.pieces import Order

            def fill_or_die(order, state):  # type: ignore[no-untyped-def]
                if (flags / "order").exists():
                    os._exit(1)
                vars(order).update(state)

            Order.__setstate__ = fill_or_die

    return DyingOfOrders()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from dask import config
    from distributed import Client, LocalCluster

    flags = tmp_path_factory.mktemp("flags")
    with (
        config.set(napari_unet.cluster._SETTINGS),  # workers that die again and again are replaced each time
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            memory_limit="4GB",
            silence_logs=60,
        ) as local,
    ):
        with Client(local, set_as_default=False) as client:
            client.register_plugin(dying(flags))
            client.register_plugin(dying_of_orders(flags))
        yield Cluster(local, flags)


@pytest.fixture(autouse=True)
def workers_live_again(cluster: Cluster) -> Iterator[None]:
    """Leave no flag for the next test, whatever became of this one."""
    yield
    for flag in cluster.flags.iterdir():
        flag.unlink()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image and models of two classes, three classes and objects."""
    folder = tmp_path_factory.mktemp("files")
    image = np.random.default_rng(0).integers(0, 60_000, SHAPE).astype(np.uint16)
    size = {"Z": 2.0, "Y": 0.5, "X": 0.5}
    write_tiff(folder / "image.ome.tif", image, "ZYX", pixel_size=size, unit="micrometer")
    two, three = random_model(dropout=0.3), random_model(classes=3)
    sized = two.spec.replace(pixel_size=(0.75, 0.75), unit="micrometer")
    names = [ClassInfo(value=value) for value in range(3)]
    things = three.spec.replace(target="objects", classes=tuple(names), objects={})
    save_model(two, folder / "two.unet")
    save_model(three, folder / "three.unet")
    save_model(UNetModel(sized, two.network), folder / "sized.unet")
    save_model(UNetModel(things, three.network), folder / "objects.unet")
    return folder


def job_with(files: Path, model: str, config: PredictConfig, **outputs: Path) -> PredictJob:
    return job_of(files / f"{model}.unet", files / "image.ome.tif", config, **outputs)


def moved(job: PredictJob, folder: Path) -> PredictJob:
    """The same job with outputs in another folder."""
    outputs = [output.replace(path=str(folder / Path(output.path).name)) for output in job.outputs]
    return job.replace(outputs=tuple(outputs))


def said(events: list[Event], cls: type[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, cls)]


def deaths(events: list[Event]) -> list[str]:
    """What was said of workers that died; where none is left for long, that is said, too."""
    return [message for message in said(events, Warned) if "died while it computed" in message]


@pytest.mark.parametrize(
    ("model", "config", "kinds", "ending", "window"),
    [
        ("two", TILES, ["labels", "probabilities"], "zarr", None),
        ("two", TILES, ["labels", "uncertainty"], "ome.tif", WINDOW),
        ("three", TILES.replace(probability_type="float32"), ["labels", "probabilities"], "ome.tif", WINDOW),
        ("objects", OBJECTS, ["labels"], "ome.tif", None),
        ("objects", OBJECTS.replace(link_slices=False), ["labels", "probabilities"], "zarr", WINDOW),
        ("sized", TILES.replace(pixel_size="model"), ["labels", "entropy"], "zarr", None),
    ],
)
def test_the_result_is_that_of_one_process(
    cluster: Cluster,
    files: Path,
    tmp_path: Path,
    model: str,
    config: PredictConfig,
    kinds: list[str],
    ending: str,
    window: object,
) -> None:
    outputs = {kind: tmp_path / f"{kind}.{ending}" for kind in kinds}
    job = job_with(files, model, config, **outputs).replace(window=window)
    (tmp_path / "alone").mkdir()
    alone = run(moved(job, tmp_path / "alone"))
    events = cluster.run(job)
    for kind, path in outputs.items():
        found, wanted = read(path), read(alone.outputs[kind])
        assert found.dtype == wanted.dtype and wanted.any()
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(found, wanted)
    if "regions" in alone.outputs:
        table = Path(alone.outputs["regions"]).name
        assert (tmp_path / table).read_text() == (tmp_path / "alone" / table).read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert not list(tmp_path.rglob("tries-*"))
    started = next(event for event in events if isinstance(event, PredictStarted))
    assert started.device == "2 workers" and started.done == 0
    done = [event.done for event in events if isinstance(event, TileDone)]
    assert done == sorted(done) and done[-1] == started.total
    assert "2 workers on 1 computer compute, with 1 thread each." in said(events, Noted)
    assert said(events, Warned) == []


def test_either_goes_on_with_what_the_other_did(cluster: Cluster, files: Path, tmp_path: Path) -> None:
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    asked: list[Event] = []
    first = run(job, asked.append, lambda: any(isinstance(event, TileDone) for event in asked))
    assert first.stopped

    events: list[Event] = []
    second = run_on_cluster(
        job,
        events.append,
        lambda: any(isinstance(event, TileDone) for event in events),
        scheduler=cluster.scheduler,
    )
    assert second.stopped and second.outputs == first.outputs
    assert "the same job goes on from there" in second.message
    assert events[0].done == 1
    assert not list(tmp_path.rglob("tries-*"))

    rest = [event for event in cluster.run(job) if isinstance(event, PredictStarted)]
    # Two pieces of one chunk for each of two workers are out when the first is done, and may end before they stop.
    assert 1 < rest[0].done <= 1 + 4 < rest[0].total
    (tmp_path / "alone").mkdir()
    run(moved(job, tmp_path / "alone"))
    np.testing.assert_array_equal(read(tmp_path / "labels.zarr"), read(tmp_path / "alone" / "labels.zarr"))
    again: list[Event] = []
    run(job, again.append)
    assert [event.done for event in again] == [rest[0].total]


def test_a_worker_that_dies_loses_nothing_and_tiles_are_then_half_as_large(
    cluster: Cluster, files: Path, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 60_000, (2, 400, 400)).astype(np.uint16)
    write_tiff(tmp_path / "large.ome.tif", image, "ZYX")
    job = job_with(
        files, "two", TILES.replace(tile_megapixels=0.1), probabilities=tmp_path / "maps.zarr"
    ).replace(image=ArraySource(path=str(tmp_path / "large.ome.tif")))
    flag = cluster.die_at((1, 0, 0), "once")
    events = cluster.run(job)
    assert not flag.exists()
    (warning,) = deaths(events)
    assert warning.startswith("Worker tcp://127.0.0.1:")
    assert warning.endswith("with smaller tiles they are tried again.")
    died, now = map(float, (cluster.flags / "megapixels").read_text().split())
    assert 0 < now <= died / 2 <= 0.05
    total = next(event.total for event in events if isinstance(event, PredictStarted))
    assert max(event.done for event in events if isinstance(event, TileDone)) == total
    assert sum(path.is_file() for path in (tmp_path / "maps.zarr" / "0" / "c").rglob("*")) == total
    (tmp_path / "alone").mkdir()
    run(moved(job, tmp_path / "alone"))
    found, wanted = (read(folder / "maps.zarr") for folder in (tmp_path, tmp_path / "alone"))
    np.testing.assert_allclose(found.astype(int), wanted.astype(int), rtol=0, atol=1)  # smaller tiles


def test_an_answer_that_died_with_its_worker_is_not_waited_for(
    cluster: Cluster, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both workers die after the first piece is computed and before anybody asked what became of it."""
    take_in = napari_unet.handing_out._Dealer._take_in
    forgotten: list[str] = []

    def kill_first(self: Any, out: Any, future: Any) -> None:
        if not forgotten:
            assert future.status == "finished"
            self._client.run(os._exit, 1, on_error="ignore")
            while future.status == "finished":
                time.sleep(0.01)
            forgotten.append(future.status)
        take_in(self, out, future)

    monkeypatch.setattr(napari_unet.handing_out._Dealer, "_take_in", kill_first)
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    events = cluster.run(job)
    assert forgotten == ["lost"]
    done = [event for event in events if isinstance(event, TileDone)]
    assert done[0].done == 1 and done[-1].done == done[-1].total
    (tmp_path / "alone").mkdir()
    run(moved(job, tmp_path / "alone"))
    np.testing.assert_array_equal(read(tmp_path / "labels.zarr"), read(tmp_path / "alone" / "labels.zarr"))


def test_a_piece_whose_chunks_are_all_there_did_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last worker wrote them and died before it could say so, and three tries are used up."""
    monkeypatch.setattr(napari_unet.handing_out, "all_have", lambda outputs, chunk: True)
    piece = Piece(1, ((0, 0, 0), (0, 0, 1)))
    order: Any = SimpleNamespace(tries=tmp_path, outputs={})
    events: list[Event] = []
    dealer = napari_unet.handing_out._Dealer(
        None, SimpleNamespace(), order, piece.chunks, 0, events.append, bool
    )
    dealer._take_in_failed(napari_unet.handing_out._Out(piece, failed=2), BackendError("its workers died"))
    assert [(event.done, event.total) for event in events if isinstance(event, TileDone)] == [(2, 2)]
    assert dealer._failed == []


def test_a_piece_that_always_kills_is_left_out_after_three_tries(
    cluster: Cluster, files: Path, tmp_path: Path
) -> None:
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    flag = cluster.die_at((0, 0, 0), "always")
    events: list[Event] = []
    with pytest.raises(BackendError) as caught:
        run_on_cluster(job, events.append, scheduler=cluster.scheduler)
    message = str(caught.value)
    assert message.startswith("1 piece of ")
    assert (
        "failed in 3 tries each, so 1 chunk of the result is missing: row 0, column 0 of slice 0." in message
    )
    assert message.endswith("All others are done and kept; the same job goes on with what is missing.")
    warnings = deaths(events)
    assert len(warnings) == 3 and warnings[-1].endswith("they are left out.")
    flag.unlink()
    started = next(event for event in cluster.run(job) if isinstance(event, PredictStarted))
    assert started.done == started.total - 1


def test_a_damaged_place_of_the_image_is_named(cluster: Cluster, files: Path, tmp_path: Path) -> None:
    source = create_scratch(tmp_path / "image.zarr", (2, 90, 130), np.uint8)
    source[...] = np.random.default_rng(0).integers(0, 255, source.shape)
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr").replace(
        image=ArraySource(path=str(tmp_path / "image.zarr"), axes="ZYX")
    )
    events: list[Event] = []

    def damage(event: Event) -> None:
        events.append(event)
        if isinstance(event, Noted):  # after the brightness was measured
            for path in (tmp_path / "image.zarr").rglob("c/1/**/*"):
                if path.is_file():
                    path.write_bytes(b"damaged")

    with pytest.raises(BackendError, match="of slice 1.*The first error: .*damaged or incomplete"):
        run_on_cluster(job, damage, scheduler=cluster.scheduler)


def test_what_another_try_would_meet_again_ends_the_run(
    cluster: Cluster, files: Path, tmp_path: Path
) -> None:
    job = job_with(files, "two", TILES.replace(normalize="model"), labels=tmp_path / "labels.zarr")
    with pytest.raises(ModelError, match="does not say which brightness its training images had"):
        run_on_cluster(job, scheduler=cluster.scheduler)


def test_workers_that_die_before_they_begin_end_the_run(
    cluster: Cluster, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.local.scheduler, "allowed_failures", 0)
    monkeypatch.setattr(napari_unet.handing_out, "_VANISHED", 2)  # each costs seconds
    monkeypatch.setattr(napari_unet.handing_out, "_PATIENCE", 0)
    flag = cluster.flags / "order"
    flag.touch()
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    with pytest.raises(
        BackendError, match="Workers died before they began to compute, 2 times .*start fewer of them"
    ):
        run_on_cluster(job, scheduler=cluster.scheduler)
    flag.unlink()
    cluster.run(job)


def test_workers_that_memory_is_not_there_for_are_not_started(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(napari_unet.cluster, "free_memory", lambda: 2_500_000_000)
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    with pytest.raises(
        BackendError, match=r"3 workers need about 3 GB of memory, but 2.5 GB are free: start at most 2, or"
    ):
        run_on_cluster(job, workers=3)


@pytest.mark.parametrize(("name", "other"), [("two.unet", "sized.unet"), ("image.ome.tif", "other.tif")])
def test_a_file_that_is_replaced_meanwhile_ends_the_run(
    cluster: Cluster, files: Path, tmp_path: Path, name: str, other: str
) -> None:
    for file in (files / "two.unet", files / "sized.unet", files / "image.ome.tif"):
        shutil.copy(file, tmp_path)
    write_tiff(tmp_path / "other.tif", np.zeros(SHAPE, np.uint16), "ZYX")
    job = job_with(tmp_path, "two", TILES, labels=tmp_path / "labels.ome.tif")

    def swap(event: Event) -> None:
        if isinstance(event, TileDone) and (tmp_path / other).exists():
            (tmp_path / other).replace(tmp_path / name)

    with pytest.raises(
        DataError, match=f"{name} was replaced or changed while the image was being segmented"
    ):
        run_on_cluster(job, swap, scheduler=cluster.scheduler)
    assert not (tmp_path / "labels.ome.tif").exists()


def test_the_command_line_starts_workers_of_its_own_once_for_all_images(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    start = napari_unet.cluster._cluster

    def counted(workers: int, scheduler: str | None) -> object:
        started.append(workers)
        return start(workers, scheduler)

    monkeypatch.setattr(napari_unet.cluster, "_cluster", counted)
    (tmp_path / "in").mkdir()
    for name in ("a.ome.tif", "b.ome.tif"):
        shutil.copy(files / "image.ome.tif", tmp_path / "in" / name)
    arguments = [str(files / "two.unet"), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(["predict", *arguments, "--workers", "1", "--json"]) == 0
    assert started == [1]
    report = run(job_with(files, "two", PredictConfig(precision="float32"), labels=tmp_path / "alone.zarr"))
    for name in ("a.ome.tif", "b.ome.tif"):
        np.testing.assert_array_equal(read(tmp_path / "out" / name), read(report.outputs["labels"]))
    assert main(["predict", *arguments, "--workers", "1", "--json"]) == 0
    assert started == [1]  # all is there: nothing to start for


def test_an_estimate_needs_no_cluster(files: Path, tmp_path: Path) -> None:
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr").replace(dry_run=True)
    assert "GiB of memory" in run_on_cluster(job, scheduler="tcp://127.0.0.1:1").message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("workers", "scheduler"), [(0, None), (2, "tcp://here:8786"), (-1, None)])
def test_it_is_either_workers_or_a_scheduler(
    files: Path, tmp_path: Path, workers: int, scheduler: str | None
) -> None:
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    with pytest.raises(ConfigError, match="give one of them"):
        run_on_cluster(job, workers=workers, scheduler=scheduler)


def test_a_missing_dask_is_said(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    with pytest.raises(BackendError, match=r'Dask is not installed .* -m pip install distributed"'):
        run_on_cluster(job, workers=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere://at/all"])
def test_a_scheduler_that_does_not_answer_is_said(files: Path, tmp_path: Path, address: str) -> None:
    import dask

    job = job_with(files, "two", TILES, labels=tmp_path / "labels.zarr")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": 0.5}),
        pytest.raises(BackendError, match=f"No Dask scheduler answers at {address}"),
    ):
        run_on_cluster(job, scheduler=address)


def test_workers_are_counted_by_computer() -> None:
    class Client:
        def scheduler_info(self, n_workers: int) -> dict[str, object]:
            sizes = {"tcp://a:1": (1, 8), "tcp://a:2": (1, 4), "tcp://b:1": (4, 8)}
            return {"workers": {at: {"nthreads": n, "memory_limit": m} for at, (n, m) in sizes.items()}}

    workers = Workers(Client())
    assert (workers.memory, workers.on_one_computer) == (4, 2)
    assert workers.sentence(0) == "3 workers on 2 computers compute, with 1 to 4 threads each."
    assert workers.sentence(2) == "3 workers on 2 computers compute, with 2 threads each."


def test_scratch_for_others_is_on_disk(tmp_path: Path) -> None:
    with scratch_in(tmp_path / "scratch", most=0) as make:
        assert not isinstance(make((4, 4), np.uint32), np.ndarray)
        assert (tmp_path / "scratch").is_dir()
    assert not (tmp_path / "scratch").exists()
