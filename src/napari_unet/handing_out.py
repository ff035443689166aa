"""Pieces handed out to the workers of a Dask cluster, and handed out again where a worker failed or died.

At most two pieces for each worker are out at a time. They grow with what the first ones took, so that each takes
some seconds, and shrink towards the end, so that all workers end at about the same time.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from time import monotonic, sleep
from typing import Any, cast

from napari_unet.errors import BackendError, ConfigError, DataError, ModelError, NapariUNetError
from napari_unet.events import Notify, Stop, TileDone, Warned
from napari_unet.pieces import TRIES, Done, Index, Order, Piece, compute_piece, tries_of
from napari_unet.targets import all_have
from napari_unet.words import count

__all__ = ["Workers", "hand_out", "lost"]

_SECONDS = 20.0
"""That a piece is to take: long beside what handing it out costs, short beside the whole."""

_SHARE = 4
"""Pieces for each worker, at least, in what is left."""

_AHEAD = 2
"""Pieces for each worker that are out: one to compute, one to go on with."""

_POLL = 0.3
_LOOK = 2.0
_PATIENCE = 30.0
"""Seconds between two questions whether to stop, two looks at the workers, and for pieces in hand to stop."""

_ANSWER = 3.0
"""Seconds for the few bytes that a worker answers; without them it most likely died meanwhile."""

_RESTART = 20.0
"""Seconds in which a worker that died is usually replaced."""

_VANISHED = 5
"""How often the workers that had a piece may die before they note that they try it, as they do before memory lasts for their imports."""

_HOPELESS = (ConfigError, DataError, ModelError)
"""Errors that another try would meet again."""


class Workers:
    """The workers of a cluster; they can come and go.

    Parameters
    ----------
    client : distributed.Client
        Connected to it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.look()

    def look(self) -> None:
        """See which are there now."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        self.threads = {address: int(worker["nthreads"]) for address, worker in workers.items()}
        self._limits = [int(worker["memory_limit"] or 0) for worker in workers.values()]
        self._looked = monotonic()

    def look_again(self) -> None:
        """See which are there now, if the last look was some time ago."""
        if monotonic() - self._looked > _LOOK:
            self.look()

    def wait_for_one(self, notify: Notify, stop: Stop) -> None:
        """Wait until there is a worker, or until told to stop."""
        if not self.threads:
            notify(Warned("The cluster has no workers yet: the segmentation begins when there is one."))
        while not self.threads and not stop():
            sleep(_POLL)
            self.look()

    @property
    def memory(self) -> int:
        """Bytes that the one with the least may take; 0 where one has no limit."""
        return min(self._limits, default=0)

    @property
    def on_one_computer(self) -> int:
        """How many share a computer, at most."""
        return max(self._hosts().values(), default=0)

    def sentence(self, threads: int) -> str:
        """Say who computes.

        Parameters
        ----------
        threads : int
            Of TensorFlow in each; 0 for as many as it was started with.
        """
        each = sorted({threads} if threads else set(self.threads.values()))
        words = count(each[-1], "thread") if len(each) == 1 else f"{each[0]} to {each[-1]} threads"
        return f"{count(len(self.threads), 'worker')} on {count(len(self._hosts()), 'computer')} compute, with {words} each."

    def _hosts(self) -> Counter[str]:
        return Counter(address.rpartition(":")[0] for address in self.threads)


@dataclass
class _Out:
    """A piece that is handed out.

    Parameters
    ----------
    piece : Piece
        What is computed.
    failed : int
        Tries that ended with an error.
    error : BaseException, optional
        The first.
    told : int
        Deaths that the user knows of.
    tried : int
        Tries that were noted when it came back last.
    vanished : int
        How often it came back because its workers died, without another try being noted.
    by : set of str
        Addresses of the workers where it failed.
    """

    piece: Piece
    failed: int = 0
    error: BaseException | None = None
    told: int = 0
    tried: int = 0
    vanished: int = 0
    by: set[str] = field(default_factory=set)


def hand_out(
    client: Any,
    workers: Workers,
    order: Order,
    todo: Sequence[Index],
    done: int,
    notify: Notify,
    stop: Stop,
) -> bool:
    """Have chunks computed.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster.
    workers : Workers
        Of the cluster.
    order : Order
        What all pieces have in common.
    todo : sequence of tuple of int
        Index of each chunk to compute.
    done : int
        Chunks that are there already.
    notify, stop : callable
        Progress out, and the wish to stop in.

    Returns
    -------
    bool
        True if stopped before the end.

    Raises
    ------
    ConfigError, DataError, ModelError
        As soon as a worker raises one.
    BackendError
        If pieces failed in all their tries, after the others are done; or if the scheduler is lost.
    """
    return _Dealer(client, workers, order, todo, done, notify, stop).do()


class _Dealer:
    """Hands pieces out and takes in what became of them; see `hand_out`."""

    def __init__(
        self,
        client: Any,
        workers: Workers,
        order: Order,
        todo: Sequence[Index],
        done: int,
        notify: Notify,
        stop: Stop,
    ) -> None:
        self._client, self._workers, self._order = client, workers, order
        self._notify, self._stop = notify, stop
        self._left, self._again = deque(todo), deque[_Out]()
        self._done, self._total, self._before = done, done + len(todo), done
        self._out: dict[str, tuple[_Out, Any]] = {}
        self._finished: Queue[Any] = Queue()
        self._failed: list[_Out] = []
        self._said: set[str] = set()
        self._pieces, self._pace = 0, 0.0
        self._begun = self._seen = monotonic()

    def do(self) -> bool:
        """Have all computed; return True if stopped before the end."""
        try:
            while self._left or self._again or self._out:
                if self._stop():
                    return True
                self._hand_out()
                try:
                    future = self._finished.get(timeout=_POLL)
                except Empty:
                    self._look_for_workers()
                else:
                    self._take_in(self._out.pop(future.key)[0], future)
        finally:
            self._end()
        if self._failed:
            raise BackendError(self._sentence())
        return False

    def _hand_out(self) -> None:
        self._workers.look_again()
        while len(self._out) < _AHEAD * max(1, len(self._workers.threads)) and (self._again or self._left):
            out = self._again.popleft() if self._again else _Out(self._cut())
            future = self._client.submit(
                compute_piece, self._order, out.piece, pure=False, **self._elsewhere(out)
            )
            self._out[future.key] = out, future
            future.add_done_callback(self._finished.put)

    def _cut(self) -> Piece:
        """Cut the next piece off."""
        share = -(-len(self._left) // (_SHARE * max(1, len(self._workers.threads))))
        length = min(share, int(_SECONDS / self._pace)) if self._pace else 1
        self._pieces += 1
        return Piece(self._pieces, tuple(self._left.popleft() for _ in range(max(1, length))))

    def _elsewhere(self, out: _Out) -> dict[str, Any]:
        """Say that a worker which failed at a piece should not have it again, if there are others."""
        others = [address for address in self._workers.threads if address not in out.by]
        return {"workers": others, "allow_other_workers": True} if out.by and others else {}

    def _look_for_workers(self) -> None:
        self._workers.look_again()
        if self._workers.threads:
            self._seen = monotonic()
        elif monotonic() - self._seen > _RESTART:
            self._seen = math.inf  # say it once
            self._notify(Warned("No worker is left: the segmentation goes on when there is one again."))

    def _take_in(self, out: _Out, future: Any) -> None:
        found = _answer(future)
        if found is None:
            # Its chunks tell what nobody says any more. A try that has not ended is no death here: Dask may be at it again.
            if not self._counts_as_done(out.piece):
                self._again.append(out)
            return
        self._tell_deaths(out)
        if isinstance(found, BaseException):
            self._take_in_failed(out, found)
        elif found.error is not None:
            out.by.add(found.worker)
            self._take_in_failed(out, found.error)
        else:
            self._take_in_done(out.piece, found)

    def _take_in_done(self, piece: Piece, found: Done) -> None:
        for warning in found.warnings:
            if warning not in self._said:
                self._said.add(warning)
                self._notify(Warned(warning))
        if found.pace:
            # The first piece of a worker includes what is done once.
            self._pace = min(self._pace, found.pace) if self._pace else found.pace
        self._advance(len(piece.chunks))

    def _counts_as_done(self, piece: Piece) -> bool:
        """Count a piece as done if all its chunks are there, whatever became of who computed them; False if not."""
        if self._missing(piece):
            return False
        self._advance(len(piece.chunks))
        return True

    def _take_in_failed(self, out: _Out, error: BaseException) -> None:
        from distributed import KilledWorker

        if isinstance(error, _HOPELESS):
            raise error
        if self._counts_as_done(out.piece):  # an earlier try wrote all, and died before it could say so
            return
        tried = len(tries_of(self._order.tries, out.piece.number))
        # A piece that waited in a process while another one killed it was not tried.
        if not isinstance(error, KilledWorker):
            out.failed += 1
            out.error = out.error or error
        elif tried == out.tried:
            out.vanished += 1
        out.tried = tried
        if out.vanished == _VANISHED:
            raise _vanishing() from error
        if max(tried, out.failed) < TRIES:
            self._again.append(out)
            return
        self._failed.append(out)
        self._advance(len(out.piece.chunks) - len(self._missing(out.piece)))

    def _missing(self, piece: Piece) -> list[Index]:
        return [chunk for chunk in piece.chunks if not all_have(self._order.outputs.values(), chunk)]

    def _advance(self, chunks: int) -> None:
        self._done += chunks
        pace = (monotonic() - self._begun) / max(1, self._done - self._before)
        self._notify(TileDone(self._done, self._total, pace * (self._total - self._done)))

    def _tell_deaths(self, out: _Out) -> None:
        tries = tries_of(self._order.tries, out.piece.number)
        died = [each for each in tries if not each.ended]
        what = count(len(out.piece.chunks), "chunk")
        end = "with smaller tiles they are tried again" if len(tries) < TRIES else "they are left out"
        for each in died[out.told :]:
            self._notify(
                Warned(
                    f"Worker {each.worker} died while it computed {what}, most likely because memory ran out: {end}."
                )
            )
        out.told = max(out.told, len(died))

    def _sentence(self) -> str:
        """Say what failed."""
        missing = [chunk for out in self._failed for chunk in self._missing(out.piece)]
        first = next((out.error for out in self._failed if out.error is not None), None)
        reason = f"{type(first).__name__}: {first}" if first is not None else "their workers died"
        if isinstance(first, NapariUNetError):
            reason = str(first)
        return (
            f"{count(len(self._failed), 'piece')} of {self._pieces} failed in {TRIES} tries each, so {count(len(missing), 'chunk')} "
            f"of the result {'is' if len(missing) == 1 else 'are'} missing: {_named(missing)}. The first error: {reason.rstrip('.')}. "
            "All others are done and kept; the same job goes on with what is missing."
        )

    def _end(self) -> None:
        """Let the pieces in hand stop, and forget those that do not."""
        from shutil import rmtree

        rmtree(self._order.tries, ignore_errors=True)
        give_up = monotonic() + _PATIENCE
        while self._out and monotonic() < give_up and self._client.status == "running":
            try:
                self._out.pop(self._finished.get(timeout=_POLL).key, None)
            except Empty:
                continue
        for _, future in self._out.values():
            future.cancel()


def _answer(future: Any) -> Done | BaseException | None:
    """Fetch what a worker answered, or the error that ended it; None if its worker died since, or is silent."""
    if future.status == "finished":
        with suppress(Exception):  # what became of it, its status says
            return cast(Done, future.result(timeout=_ANSWER))
    if future.status == "cancelled":
        raise lost()
    if future.status == "error":
        return cast(BaseException, future.exception())
    future.cancel()  # or Dask would compute it again, unasked
    return None


def lost() -> BackendError:
    """Say that the scheduler is gone."""
    return BackendError(
        "The connection to the Dask scheduler was lost. What is done is kept: the same job goes on from there."
    )


def _vanishing() -> BackendError:
    """Say that workers do not even begin; no piece would fare better than the one that showed it."""
    return BackendError(
        f"Workers died before they began to compute, {_VANISHED} times with the same piece, most likely because the memory for so many is "
        "not there: start fewer of them, or with more memory each. What is done is kept: the same job goes on from there."
    )


def _named(chunks: Sequence[Index], most: int = 5) -> str:
    """Name some chunks by slice, row and column."""
    names = [
        f"row {row}, column {column}" + (f" of slice {'/'.join(map(str, where))}" if where else "")
        for *where, row, column in chunks[:most]
    ]
    more = len(chunks) - len(names)
    return "; ".join(names) + (f"; and {more:,} more" if more else "")
