"""One segmentation on many processes: a `PredictJob` in pieces on the workers of a Dask cluster.

This process opens the job, measures the brightness once, hands out pieces and finishes the result. Workers read
the image and write whole chunks of the result themselves, so that of pixels only objects of slices that fit a block pass through the
scheduler, and a worker that dies costs the chunk in hand.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window
from napari_unet.errors import BackendError, ConfigError
from napari_unet.events import (
    Noted,
    Notify,
    PredictStarted,
    Report,
    Stop,
    ignore_events,
    never_stop,
)
from napari_unet.handing_out import Workers, hand_out, lost
from napari_unet.jobs import PredictJob
from napari_unet.opening import Inputs
from napari_unet.pieces import Order, ignore_interrupts, tries_folder
from napari_unet.prediction_run import Means, run_prediction
from napari_unet.processor import cores, free_memory
from napari_unet.words import count

if TYPE_CHECKING:
    from napari_unet.nn.model import UNetModel
    from napari_unet.nn.plan import Plan

__all__ = ["cluster_of", "run_on_cluster"]

_PIECES = 4
"""Chunks of a new result for each worker, at least, where the image is large enough."""

_AHEAD = 2
"""Blocks of objects that are computed or wait, for each thread of the cluster."""

_LEAST = 10**9
"""Bytes that a worker needs: one with TensorFlow and a tiny network was seen to take 0.95 GB."""

_SETTINGS = {
    # TensorFlow holds on to memory that it has had, so a worker must not wait until it gives some back.
    **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
    # A worker that is not there 15 seconds after one died would not be replaced any more, and imports may take as long.
    "distributed.deploy.lost-worker-timeout": "1 day",
}
"""Of Dask, for a cluster of our own, as long as it lives."""


def run_on_cluster(
    job: PredictJob,
    notify: Notify = ignore_events,
    stop: Stop = never_stop,
    *,
    workers: int = 0,
    scheduler: str | None = None,
) -> Report:
    """Run a segmentation on several processes of this computer, or on a Dask cluster.

    The result is that of `napari_unet.run`, which can go on with it, and the other way round.

    Parameters
    ----------
    job : PredictJob
        What to read, which settings, where to write. All workers must see these files under the same paths.
    notify : callable
        Is given each event.
    stop : callable
        Is asked from time to time; True ends the run with what it has.
    workers : int
        So many processes on this computer, which share its cores. A script that asks for them needs
        ``if __name__ == "__main__":``, as it is imported in each of them.
    scheduler : str, optional
        Address of a Dask scheduler, such as ``"tcp://host:8786"``, whose workers compute.

    Returns
    -------
    Report
        What the run left behind.

    Raises
    ------
    BackendError
        If Dask is not installed or no scheduler answers; or if pieces failed in three tries each, after the rest is
        done. What is done is kept: the same job goes on.
    NapariUNetError
        As `napari_unet.run`.
    """
    with cluster_of(workers, scheduler) as compute:
        return compute(job, notify, stop)


@contextmanager
def cluster_of(
    workers: int = 0, scheduler: str | None = None
) -> Iterator[Callable[[PredictJob, Notify, Stop], Report]]:
    """Give what runs segmentations on one cluster, as `run_on_cluster` does; it is there from the first one on."""
    if (workers > 0) == (scheduler is not None) or workers < 0:
        raise ConfigError(
            f"A cluster is a number of workers on this computer or the address of a scheduler, but workers is {workers} "
            f"and scheduler is {scheduler!r}: give one of them."
        )
    with ExitStack() as stack:
        clients: list[Any] = []

        def compute(job: PredictJob, notify: Notify, stop: Stop) -> Report:
            job = _absolute(job)
            if job.dry_run:
                return run_prediction(job, notify, stop)
            if not clients:
                clients.append(stack.enter_context(_cluster(workers, scheduler)))
            return _run_on(clients[0], workers, job, notify, stop)

        yield compute


def _run_on(client: Any, workers: int, job: PredictJob, notify: Notify, stop: Stop) -> Report:
    """Run a segmentation on a cluster, of so many workers of our own if it is ours."""
    found = Workers(client)
    found.wait_for_one(notify, stop)
    memory = found.memory or free_memory() // max(1, found.on_one_computer)
    threads = max(1, cores() // workers) if workers else 0
    others = _Others(client, found, job, threads)
    parts = _PIECES * max(1, len(found.threads))
    return run_prediction(job, notify, stop, Means(others.segment, others.run_all, memory, parts))


@dataclass(frozen=True)
class _Others:
    """The workers, which stand in for this process.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster.
    workers : Workers
        Those that are there.
    job : PredictJob
        What is read.
    threads : int
        Of TensorFlow in each; 0 for as many as it was started with.
    """

    client: Any
    workers: Workers
    job: PredictJob
    threads: int

    def segment(
        self,
        inputs: Inputs,
        model: UNetModel,
        stack: Stack,
        config: PredictConfig,
        outputs: Mapping[str, Any],
        *,
        plan: Plan,
        window: Window | None,
        is_done: Callable[[tuple[int, ...]], bool],
        notify: Notify,
        stop: Stop,
    ) -> bool:
        """Do what `napari_unet.nn.prediction.segment` does, with the files that were opened; outputs are zarr arrays."""
        from napari_unet.nn.inputs import measure_range
        from napari_unet.nn.prediction import settle_precision

        chunks = [work.index for work in plan.works()]
        todo = [index for index in chunks if not is_done(index)]
        done = len(chunks) - len(todo)
        notify(PredictStarted({}, done, len(chunks), count(len(self.workers.threads), "worker")))
        if not todo:
            return False
        pixel_range = measure_range(model.spec, stack, config, notify, stop)
        if stop():
            return True
        notify(Noted(self.workers.sentence(self.threads)))
        settled = config.with_tile(plan.largest / 1e6).replace(precision=settle_precision(config))
        journal = list(outputs.values())[-1]
        with tries_folder(journal) as tries:
            order = Order(
                self.job, inputs, settled, dict(outputs), plan.chunk, window, pixel_range, tries, self.threads
            )
            return hand_out(self.client, self.workers, order, todo, done, notify, stop)

    def run_all(self, function: Callable[[Any], Any], things: Iterable[Any]) -> Iterator[Any]:
        """Do what `map` does, some things ahead."""
        waiting: deque[Any] = deque()
        try:
            for thing in things:
                waiting.append(self.client.submit(function, thing, pure=False, retries=2))
                if len(waiting) >= _AHEAD * max(1, sum(self.workers.threads.values())):
                    yield _answer(waiting.popleft())
            while waiting:
                yield _answer(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()


def _answer(future: Any) -> Any:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise BackendError(
            "The workers that looked for objects died again and again, most likely because memory ran out: "
            "start fewer of them, or with more memory each. What is done is kept."
        ) from error
    except CancelledError as error:
        raise lost() from error


@contextmanager
def _cluster(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one on this computer; yield a client of it."""
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise BackendError(
            f"Dask is not installed ({error}), and several processes need it: "
            f'install it with "{sys.executable} -m pip install distributed".'
        ) from error
    if scheduler is not None:
        try:
            client = Client(scheduler, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"No Dask scheduler answers at {scheduler} ({' '.join(str(error).split()) or type(error).__name__}): "
                "check the address, or start one with `dask scheduler`."
            ) from error
        with client:
            yield client
        return
    memory = free_memory()
    if memory < workers * _LEAST:
        fewer = f"start at most {memory // _LEAST}, or " if memory >= _LEAST else ""
        raise BackendError(
            f"{count(workers, 'worker')} need about {workers * _LEAST / 1e9:.0f} GB of memory, but {memory / 1e9:.1f} GB are free: "
            f"{fewer}segment without workers."
        )
    with (
        config.set(_SETTINGS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory // workers,
            # A page with nothing on it would listen all the same, to everybody on a port that others expect.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,  # what the user should know, events say
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_worker_callbacks(ignore_interrupts)
        yield client


def _absolute(job: PredictJob) -> PredictJob:
    """Spell out paths, which workers would take from where they were started."""
    from pathlib import Path

    def spelt(path: str) -> str:
        return str(Path(path).absolute())

    return job.replace(
        model=spelt(job.model),
        image=job.image.replace(path=spelt(job.image.path)),
        outputs=tuple(output.replace(path=spelt(output.path)) for output in job.outputs),
    )
