"""Run a prediction job: open model and image, segment into zarr, turn that into a TIFF if asked."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.decoding import decoding_of
from napari_unet.data.instances import Window, find_objects, slices_of
from napari_unet.errors import DataError, FileError
from napari_unet.events import Event, Notify, PredictStarted, Report, Stop, TileDone
from napari_unet.files.atomic import check_writable, file_error, make_folder
from napari_unet.files.image import Image, open_source
from napari_unet.files.model import read_model_file
from napari_unet.files.tiff import write_tiff
from napari_unet.files.zarr import chunk_done, create_result, open_result, result_attributes
from napari_unet.jobs import Output, PredictJob
from napari_unet.pixel_size import as_trained, bring_back, chunks_of, window_at
from napari_unet.spec import ModelSpec

if TYPE_CHECKING:
    from napari_unet.nn.model import UNetModel

__all__ = ["run_prediction", "segment_objects"]


@dataclass(frozen=True)
class _Target:
    """One output of a segmentation: the zarr that fills, and the TIFF it becomes, if it does."""

    output: Output
    group: Path
    array: Any

    @property
    def is_tiff(self) -> bool:
        return self.group != Path(self.output.path)

    def has(self, index: tuple[int, ...]) -> bool:
        """Whether an earlier run has written a chunk; an axis of classes, all in one chunk, may come before."""
        return chunk_done(self.array, (0,) * (int(self.array.ndim) - len(index)) + index)


def run_prediction(job: PredictJob, notify: Notify, stop: Stop) -> Report:
    """Run a `PredictJob`; see `napari_unet.api.run`."""
    started = time.monotonic()
    _check_outputs(job)
    spec, arrays = read_model_file(job.model)
    image = open_source(job.image)
    stack = image.stack
    _check_window(job, stack)
    seen = as_trained(image, spec) if job.config.pixel_size == "model" else image
    if seen is image:
        targets, stopped = _segment(job, spec, arrays, image, notify, stop)
    else:
        targets, stopped = _segment_resampled(job, spec, arrays, image, seen, notify, stop)
    outputs: dict[str, str] = {
        target.output.kind: str(target.group if stopped else target.output.path) for target in targets
    }
    if not stopped:
        for target in targets:
            _finish(target, image, spec)
    return Report(
        "predict",
        outputs=outputs,
        metrics={"megapixels": float(np.prod(stack.out_shape)) / 1e6},
        seconds=time.monotonic() - started,
        stopped=stopped,
        message=_STOPPED if stopped else f"Segmented {stack.name!r} in {time.monotonic() - started:.0f} s.",
    )


_CHUNK = (1024, 1024)
"""Pixels of an output chunk where tiles are computed on another grid."""

_STOPPED = "Stopped. What is done is kept: the same job goes on from there."


def _segment(
    job: PredictJob,
    spec: ModelSpec,
    arrays: dict[str, Any],
    image: Image,
    notify: Notify,
    stop: Stop,
    *,
    ours: bool = False,
) -> tuple[list[_Target], bool]:
    from napari_unet.nn import backend
    from napari_unet.nn.model import UNetModel
    from napari_unet.nn.prediction import best_chunk, segment

    backend.prepare(job.config.precision, seed=0)
    model = UNetModel.from_arrays(spec, arrays)
    chunk = best_chunk(model, image.stack, job.config)
    targets = [_open_target(job, output, spec, image, chunk, ours=ours) for output in job.outputs]

    def tell(event: Event) -> None:
        if isinstance(event, PredictStarted):
            event = replace(event, outputs={target.output.kind: str(target.group) for target in targets})
        notify(event)

    try:
        if spec.objects and any(target.output.kind == "labels" for target in targets):
            return targets, _segment_into_objects(job, model, image, targets, tell, stop)
        stopped = segment(
            model,
            image.stack,
            job.config,
            {target.output.kind: target.array for target in targets},
            chunk=targets[-1].array.chunks[-2:],
            window=job.window,
            is_done=targets[-1].has,
            notify=tell,
            stop=stop,
        )
    except OSError as error:  # of zarr, while a chunk is written; the chunks before it are kept
        raise file_error(targets[0].group, error) from error
    return targets, stopped


def _segment_resampled(
    job: PredictJob,
    spec: ModelSpec,
    arrays: dict[str, Any],
    image: Image,
    seen: Image,
    notify: Notify,
    stop: Stop,
) -> tuple[list[_Target], bool]:
    """Segment an image on the grid that the model was trained on, then write the results on its own."""
    targets = [_open_target(job, output, spec, image, _CHUNK) for output in job.outputs]
    groups: dict[str, str] = {target.output.kind: str(target.group) for target in targets}
    inner = job.replace(
        outputs=tuple(
            Output(
                kind=output.kind,
                path=str(Path(output.path).with_name(f".{Path(output.path).name}.resampled.zarr")),
            )
            for output in job.outputs
        ),
        window=window_at(job.window, image.stack, seen.stack),
    )

    def tell(event: Event) -> None:
        notify(replace(event, outputs=groups) if isinstance(event, PredictStarted) else event)

    if all(t.has(index) for t in targets for index, *_ in chunks_of(image.stack, t.array, job.window)):
        from napari_unet.nn import backend

        slices = len(slices_of(image.stack, job.window))
        notify(PredictStarted(groups, slices, slices, backend.device_name()))
        stopped = False
    else:
        parts, stopped = _segment(inner, spec, arrays, seen, tell, stop, ours=True)
        stopped = stopped or _bring_back(targets, parts, seen.stack.out_axes, job.window, stop)
    if not stopped:
        for output in inner.outputs:
            shutil.rmtree(output.path, ignore_errors=True)
    return targets, stopped


def _bring_back(
    targets: Sequence[_Target], parts: Sequence[_Target], axes: str, window: Window | None, stop: Stop
) -> bool:
    """Write what was computed on another grid on the image's own; True if stopped."""
    for target, part in zip(targets, parts, strict=True):
        nearest = target.output.kind == "labels"
        try:
            if bring_back(
                part.array, axes, target.array, window, nearest=nearest, is_done=target.has, stop=stop
            ):
                return True
        except OSError as error:  # of zarr, while a chunk is written
            raise file_error(target.group, error) from error
    return False


def _segment_into_objects(
    job: PredictJob, model: UNetModel, image: Image, targets: Sequence[_Target], notify: Notify, stop: Stop
) -> bool:
    """Compute probabilities, into a scratch folder where nobody asked for them, and make objects of them."""
    from napari_unet.nn import backend

    labels = next(target for target in targets if target.output.kind == "labels")
    asked = next((target for target in targets if target.output.kind == "probabilities"), None)
    last = tuple(-(-n // step) - 1 for n, step in zip(labels.array.shape, labels.array.chunks, strict=True))

    def slice_done(index: tuple[int, ...]) -> bool:
        return chunk_done(labels.array, (*index, *last[-2:]))

    path = Path(labels.output.path)
    scratch = Output(kind="probabilities", path=str(path.with_name(f".{path.name}.probabilities.zarr")))
    slices = slices_of(image.stack, job.window)
    if asked is None and all(map(slice_done, slices)):
        notify(PredictStarted({}, len(slices), len(slices), backend.device_name()))
    else:
        bytes_job = job.replace(config=job.config.replace(probability_type="uint8"))
        chunk = labels.array.chunks[-2:]
        source = asked or _open_target(bytes_job, scratch, model.spec, image, chunk, ours=True)
        stopped = segment_objects(
            model,
            image.stack,
            job.config if asked else bytes_job.config,
            source.array,
            labels.array,
            chunk=source.array.chunks[-2:],
            window=job.window,
            tile_done=source.has,
            slice_done=slice_done,
            notify=notify,
            stop=stop,
        )
        if stopped:
            return True
    shutil.rmtree(scratch.path, ignore_errors=True)
    return False


def segment_objects(
    model: UNetModel,
    stack: Stack,
    config: PredictConfig,
    probabilities: Any,
    labels: Any,
    *,
    chunk: tuple[int, int] | None = None,
    window: Window | None = None,
    tile_done: Callable[[tuple[int, ...]], bool] | None = None,
    slice_done: Callable[[tuple[int, ...]], bool] | None = None,
    notify: Notify,
    stop: Stop,
) -> bool:
    """Segment an image into objects: all probabilities first, then the objects of each slice.

    Parameters
    ----------
    model : UNetModel
        One that knows objects.
    stack : Stack
        The image.
    config : PredictConfig
        Settings.
    probabilities, labels : array-like
        As `napari_unet.nn.prediction.output_layout` says, full of zeros or partly done.
    chunk : (cy, cx), optional
        Pixels of a chunk of the probabilities.
    window : tuple of (start, stop), optional
        Part to segment, in slices, y and x.
    tile_done, slice_done : callable, optional
        Asked whether an earlier run has written a chunk of probabilities, or the objects of a slice.
    notify, stop : callable
        Progress out, and the wish to stop in. A slice counts as one more tile.

    Returns
    -------
    bool
        True if stopped before the end.
    """
    from napari_unet.nn.prediction import segment

    slices, tiles = len(slices_of(stack, window)), 0

    def tell(event: Event) -> None:
        nonlocal tiles
        if isinstance(event, PredictStarted | TileDone):
            tiles = event.total
            event = replace(event, total=tiles + slices)
        notify(event)

    outputs = {"probabilities": probabilities}
    if segment(
        model, stack, config, outputs, chunk=chunk, window=window, is_done=tile_done, notify=tell, stop=stop
    ):
        return True
    return find_objects(
        probabilities,
        labels,
        decoding_of(model.spec, config),
        chunk=getattr(labels, "chunks", labels.shape)[-2:],
        window=window,
        is_done=slice_done,
        tell=lambda done, _: notify(TileDone(tiles + done, tiles + slices, 0.0)),
        stop=stop,
    )


def _open_target(
    job: PredictJob,
    output: Output,
    spec: ModelSpec,
    image: Image,
    chunk: tuple[int, int],
    *,
    ours: bool = False,
) -> _Target:
    """Open what an interrupted run of the same job left, or make a new result."""
    from napari_unet.nn.prediction import output_layout

    path = Path(output.path)
    group = _group_of(path)
    origin = _origin(job, output)
    if group.exists() and _origin_of(group) == origin:
        return _Target(output, group, open_result(group))
    shape, axes, dtype = output_layout(spec, image.stack, output.kind, job.config)
    height, width = shape[-2:]
    classes = shape[:1] if axes.startswith("C") else ()
    array = create_result(
        group,
        shape,
        (*classes, *(1,) * (len(shape) - len(classes) - 2), min(chunk[0], height), min(chunk[1], width)),
        dtype,
        axes,
        pixel_size=image.pixel_size,
        unit=image.unit,
        attributes={
            "origin": origin,
            "kind": output.kind,
            "target": spec.target,
            "classes": [c.model_dump() for c in spec.classes],
        },
        channel_names=[c.name for c in spec.classes] if classes else (),
        overwrite=job.overwrite or ours or group != path,  # a scratch folder is ours alone
    )
    return _Target(output, group, array)


def _group_of(path: Path) -> Path:
    """Return the zarr that fills: the output itself, or a scratch folder beside a TIFF."""
    return path if path.suffix == ".zarr" else path.with_name(f".{path.name}.zarr")


def _check_outputs(job: PredictJob) -> None:
    """Refuse, before anything is computed, what could not be written in the end."""
    for output in job.outputs:
        path = Path(output.path)
        make_folder(path.parent)
        if path != _group_of(path):
            check_writable(path)
            if path.exists() and not job.overwrite:
                raise FileError(path, "exists already. Choose another name, or allow it to be overwritten.")


def _origin_of(group: Path) -> str | None:
    try:
        return result_attributes(group).get("origin")
    except FileError:
        return None  # not a result of ours: create_result says so, or replaces a scratch folder


def _origin(job: PredictJob, output: Output) -> str:
    """Return a digest of all that a result depends on, to tell whether a run can go on with it."""
    config = job.config.model_dump(exclude={"tile_megapixels"})  # changes the tiles, not the answer
    image = _identity(job.image.path)
    content = [_identity(job.model), image, job.image.model_dump(), output.kind, job.window, config]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _identity(path: str) -> tuple[str, int, int]:
    status = Path(path).stat()
    return str(Path(path).absolute()), status.st_size, status.st_mtime_ns


def _check_window(job: PredictJob, stack: Stack) -> None:
    for axis, size, (_, end) in zip(("slices", "y", "x"), stack.shape, job.window or (), strict=False):
        if end > size:
            raise DataError(
                f"The window ends at {end} along {axis}, but image {stack.name!r} has {size} there. "
                "Give a window inside the image."
            )


def _finish(target: _Target, image: Image, spec: ModelSpec) -> None:
    """Turn a complete scratch zarr into the TIFF that was asked for."""
    if not target.is_tiff:
        return
    has_classes = target.array.ndim > len(image.stack.out_shape)
    write_tiff(
        target.output.path,
        target.array,
        ("C" if has_classes else "") + image.stack.out_axes,
        pixel_size=image.pixel_size,
        unit=image.unit,
        channel_names=[c.name for c in spec.classes] if has_classes else (),
        name=target.output.kind,
        labels=target.output.kind == "labels",
    )
    shutil.rmtree(target.group, ignore_errors=True)
