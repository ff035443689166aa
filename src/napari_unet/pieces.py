"""A piece of a segmentation, as a worker of a cluster computes it, and how often it was tried.

A piece is some chunks of a result. Each try is a file in a folder beside the chunks, on the disk that all
processes share, so it is counted whatever the scheduler knows of it: a process that dies leaves a file that does
not say how the try ended. When the folder is gone, the run is over, and what is still being computed stops.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.instances import Window
from napari_unet.data.normalize import Range
from napari_unet.errors import BackendError, FileError, NapariUNetError
from napari_unet.events import Event, Notify, Warned
from napari_unet.files.atomic import file_error, read_text, write_text
from napari_unet.files.image import open_source
from napari_unet.files.model import read_card, read_model_file
from napari_unet.files.results import folder_of
from napari_unet.jobs import ArraySource, PredictJob
from napari_unet.opening import Identity, Inputs, load
from napari_unet.pixel_size import as_trained
from napari_unet.prediction_run import smaller
from napari_unet.targets import all_have

if TYPE_CHECKING:
    from napari_unet.nn.model import UNetModel

__all__ = [
    "TRIES",
    "Done",
    "Index",
    "Order",
    "Piece",
    "Try",
    "compute_piece",
    "ignore_interrupts",
    "tries_folder",
    "tries_of",
]

TRIES = 3
"""How often a piece is computed at most."""

_ONE = threading.Lock()
"""One piece at a time in a process: TensorFlow's threads work on it together."""

Index = tuple[int, ...]
"""Of a chunk: slice indices, chunk row, chunk column."""


@dataclass(frozen=True)
class Order:
    """What all pieces of a segmentation have in common.

    Parameters
    ----------
    job : PredictJob
        What is read; its paths are absolute.
    inputs : Inputs
        Which files: all workers compute with the same.
    config : PredictConfig
        Its settings, with the precision and the largest tile spelled out: all workers compute the same.
    outputs : dict of str to zarr.Array
        What is written, by kind, the journal last.
    chunk : (cy, cx)
        Pixels of a chunk.
    window : tuple of (start, stop), optional
        Part to segment.
    pixel_range : Range
        Black and white of each channel, of the whole image.
    tries : Path
        Folder in which tries are counted.
    threads : int
        Of TensorFlow in a worker; 0 for as many as the worker was given by who started it.
    """

    job: PredictJob
    inputs: Inputs
    config: PredictConfig
    outputs: dict[str, Any]
    chunk: tuple[int, int]
    window: Window | None
    pixel_range: Range
    tries: Path
    threads: int


@dataclass(frozen=True)
class Piece:
    """Chunks that one worker computes.

    Parameters
    ----------
    number : int
        Of the piece.
    chunks : tuple of tuple of int
        Index of each chunk; no other piece has any of them.
    """

    number: int
    chunks: tuple[Index, ...]


@dataclass(frozen=True)
class Done:
    """What became of a piece.

    Parameters
    ----------
    pace : float
        Seconds that a chunk took, without opening anything; 0 if all were there already.
    warnings : tuple of str
        For the user.
    error : NapariUNetError, optional
        Why it was not computed.
    worker : str
        Address of the process that had it.
    """

    pace: float = 0.0
    warnings: tuple[str, ...] = ()
    error: NapariUNetError | None = None
    worker: str = ""


@dataclass(frozen=True)
class Try:
    """What a try left on disk.

    Parameters
    ----------
    worker : str
        Address of the process that made it; empty if it died before it could say so.
    megapixels : float
        Largest tile; 0 if it did not come so far.
    ended : bool
        Whether the process lived until the end of the try.
    """

    worker: str = ""
    megapixels: float = 0.0
    ended: bool = False


@contextmanager
def tries_folder(journal: Any) -> Iterator[Path]:
    """Make the folder in which the tries of a run are counted; when it goes, workers stop.

    Parameters
    ----------
    journal : zarr.Array
        Beside which it lies. Folders of runs that died go now, and with them what their workers still do.
    """
    group = folder_of(journal)
    for old in group.glob("tries-*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = group / f"tries-{secrets.token_hex(6)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise file_error(folder, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tries_of(folder: Path, number: int) -> list[Try]:
    """Read how often a piece was tried, and with what result."""
    return [_read(path) for path in _names(folder, number) if path.exists()]


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that handed out the work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def compute_piece(order: Order, piece: Piece) -> Done:
    """Compute a piece; this runs in a process of the cluster."""
    from distributed import get_worker

    worker = get_worker()
    warnings: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    with _ONE:
        try:
            with _trying(order.tries, piece.number, worker.address) as (path, before):
                pace = _compute(order, piece, order.threads or worker.state.nthreads, before, path, tell)
        except NapariUNetError as error:
            return Done(error=error, worker=worker.address)
    return Done(pace, tuple(warnings), worker=worker.address)


def _compute(order: Order, piece: Piece, threads: int, before: list[Try], path: Path, tell: Notify) -> float:
    """Compute a piece after some tries, and note at `path` how; return its `Done.pace`."""
    from napari_unet.nn.prediction import compute_chunks, make_plan

    model, stack = _opened(order, threads)
    begun = perf_counter()

    def plan_with(config: PredictConfig) -> Any:
        return make_plan(model, stack, config, tuple(order.outputs), order.chunk, order.window)

    config = order.config
    plan = plan_with(config)
    died_with = [each.megapixels for each in before if not each.ended and each.megapixels]
    if died_with:
        # Most likely memory ran out, which nothing else says on a processor.
        config = smaller(config, plan, min(died_with))
        plan = plan_with(config)
    _write(path, Try(_read(path).worker, plan.computed))
    wanted = {chunk for chunk in piece.chunks if not all_have(order.outputs.values(), chunk)}
    compute_chunks(
        model, stack, config, order.outputs, plan, wanted, window=order.window,
        pixel_range=order.pixel_range, notify=tell, stop=lambda: not order.tries.exists(),
    )  # fmt: skip
    return max(perf_counter() - begun, 1e-4) / len(wanted) if wanted else 0.0


@contextmanager
def _trying(folder: Path, number: int, worker: str) -> Iterator[tuple[Path, list[Try]]]:
    """Count a try, and note in the end that the process lived until then.

    Yields
    ------
    path : Path
        The note.
    before : list of Try
        Earlier tries.

    Raises
    ------
    BackendError
        If there were enough tries.
    FileError
        If this process does not see the folder.
    """
    before: list[Try] = []
    for path in _names(folder, number):
        try:
            path.open("x").close()  # of several processes only one gets it
        except FileExistsError:
            before.append(_read(path))
            continue
        except OSError as error:
            raise FileError(
                folder,
                f"worker {worker} cannot write there ({error.strerror or error}); all workers must see the same files "
                "under the same paths.",
            ) from error
        _write(path, Try(worker))
        try:
            yield path, before
        finally:
            with suppress(FileError):  # the folder is gone: the run is over
                note = _read(path)
                _write(path, Try(note.worker, note.megapixels, ended=True))
        return
    raise BackendError("The processes that computed it died, most likely because memory ran out.")


def _names(folder: Path, number: int) -> list[Path]:
    return [folder / f"{number}-{n}.json" for n in range(1, TRIES + 1)]


def _write(path: Path, note: Try) -> None:
    write_text(path, json.dumps(vars(note)))


def _read(path: Path) -> Try:
    with suppress(FileError, ValueError, TypeError):
        return Try(**json.loads(read_text(path)))
    return Try()


def _opened(order: Order, threads: int) -> tuple[UNetModel, Stack]:
    job, inputs = order.job, order.inputs
    try:
        inputs.check()
    except FileError as error:
        raise FileError(
            error.path, "a worker does not see it; all workers must see the same files under the same paths."
        ) from error
    resampled = inputs.model if job.config.pixel_size == "model" else None
    model = _model(inputs.model, order.config.precision, threads)
    stack = _stack(job.image.model_dump_json(), inputs.image, resampled)
    inputs.check()
    return model, stack


@lru_cache(maxsize=1)
def _model(file: Identity, precision: Any, threads: int) -> UNetModel:
    """Open a model, and keep it for the next piece: it would take seconds each time."""
    from napari_unet.nn import backend

    backend.limit_threads(threads)
    spec, arrays = read_model_file(file[0])
    model: UNetModel = load(PredictConfig(precision=precision), spec, arrays)
    return model


@lru_cache(maxsize=1)
def _stack(source: str, _: Identity, resampled: Identity | None) -> Stack:
    """Open an image, and keep it for the next piece."""
    image = open_source(ArraySource.model_validate_json(source))
    if resampled is not None:
        image = as_trained(image, read_card(resampled[0]))
    return image.stack
