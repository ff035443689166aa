"""Batches drawn ahead, while the network is busy."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from napari_unet.data.sampling import Batch

__all__ = ["Prefetcher", "Source"]


class Source(Protocol):
    """What draws batches: `napari_unet.data.sampling.Sampler`."""

    def batch(self, n: int) -> Batch:
        """Draw batch `n`, the same whenever it is asked for, from any thread."""
        ...


class Prefetcher:
    """Draw the batches of a source one after another, a few ahead, in a background thread.

    Each batch depends on its number alone, so drawing ahead cannot change it. A context manager;
    leaving it waits for the batch in hand and drops the rest.

    Parameters
    ----------
    source : Source
        Draws batch n.
    first : int
        Number of the first batch.
    ahead : int
        Batches to keep ready.
    """

    def __init__(self, source: Source, first: int = 0, ahead: int = 2) -> None:
        self._source = source
        self._next = first
        self._ahead = ahead
        self._pending: deque[Future[Batch]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="napari-unet-batches")

    def take(self) -> Batch:
        """Return the next batch; raises what drawing it raised."""
        while len(self._pending) <= self._ahead:
            self._pending.append(self._thread.submit(self._source.batch, self._next))
            self._next += 1
        return self._pending.popleft().result()

    def close(self) -> None:
        """End the thread. May be called twice."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
