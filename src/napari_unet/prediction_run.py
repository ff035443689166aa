"""Run a prediction job: open model and image, segment into zarr, turn that into a TIFF if asked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.config import PredictConfig
from napari_unet.data.axes import Stack
from napari_unet.data.blockwise import RunAll
from napari_unet.data.decoding import label_type
from napari_unet.data.instances import Scratch, Window, slices_of
from napari_unet.events import Notify, PredictStarted, Report, Stop, Warned
from napari_unet.files.atomic import make_folder
from napari_unet.files.image import Image
from napari_unet.jobs import Output, PredictJob
from napari_unet.object_run import scratch_in, segment_objects
from napari_unet.opening import Inputs, load, open_job
from napari_unet.pixel_size import bring_back, chunks_of, window_at
from napari_unet.region_table import write_regions
from napari_unet.relabel_run import make_labels, without_classes
from napari_unet.spec import ModelSpec
from napari_unet.targets import (
    Attempt,
    Target,
    all_have,
    check_outputs,
    existing,
    finish,
    held,
    open_target,
    scratch_beside,
)

if TYPE_CHECKING:
    from napari_unet.nn.plan import Plan

__all__ = ["Means", "run_prediction", "smaller"]

_CHUNK = (1024, 1024)
"""Pixels of an output chunk where tiles are computed on another grid, or none are."""

_DECODING = 0.5
"""Seconds a megapixel for the objects in probabilities: 31 were measured for 67 megapixels of nuclei parted at necks."""

_STOPPED = "Stopped. What is done is kept: the same job goes on from there."


@dataclass(frozen=True)
class Means:
    """What computes a segmentation: this process, unless something else is given.

    Parameters
    ----------
    segment : callable, optional
        Does what `napari_unet.nn.prediction.segment` does, with the same arguments after the `Inputs`.
    run_all : callable
        As for `napari_unet.data.instances.find_objects`.
    memory : int, optional
        Bytes that each process may take for a tile, where it isn't this one.
    parts : int
        How many chunks a new result should have.
    """

    segment: Callable[..., bool] | None = None
    run_all: RunAll = map
    memory: int | None = None
    parts: int = 1

    @contextmanager
    def scratch_for(self, output: Output) -> Iterator[Scratch]:
        """Give what makes intermediate results of objects; other processes see them on disk only."""
        folder = scratch_beside(output.path, "objects")
        with scratch_in(folder) if self.segment is None else scratch_in(folder, most=0) as make:
            yield make


HERE = Means()


def run_prediction(job: PredictJob, notify: Notify, stop: Stop, means: Means = HERE) -> Report:
    """Run a `PredictJob`; see `napari_unet.api.run`."""
    started = time.monotonic()
    run = _Run(job, *open_job(job), notify, stop, means)
    if job.dry_run:
        return run.foresee()
    if run.image.missing[0] and job.given == "image":
        notify(Warned(" ".join(run.image.gaps)))
    for output in job.outputs:
        make_folder(Path(output.path).parent)
    with held(job) as attempt:
        check_outputs(job, run.inputs, run.spec)
        targets, stopped = run.do(attempt)
        outputs: dict[str, str] = {
            target.kind: str(target.group if stopped else target.output.path) for target in targets
        }
        if not stopped:
            if not isinstance(run.image.array, np.ndarray):  # it was read all the time
                run.inputs.check_image()
            _check_whole(targets, run.image.stack, job.window)
            outputs |= write_regions(targets, run.image.stack, job.window)
            finish(targets, run.image, run.spec)
    seconds = time.monotonic() - started
    return Report(
        "predict",
        outputs=outputs,
        metrics={"megapixels": float(np.prod(run.image.stack.out_shape)) / 1e6},
        seconds=seconds,
        stopped=stopped,
        message=_STOPPED if stopped else f"{_done(job, run.image.stack.name)} in {seconds:.0f} s.",
    )


def _done(job: PredictJob, name: str) -> str:
    return f"Made the labels of {name!r} anew" if job.given == "probabilities" else f"Segmented {name!r}"


@dataclass(frozen=True)
class _Run:
    """A job with what it reads opened.

    Parameters
    ----------
    job : PredictJob
        What was asked for.
    inputs, spec, arrays, image, seen
        As `Opened` has them.
    notify, stop : callable
        Progress out, and the wish to stop in.
    means : Means
        What computes.
    """

    job: PredictJob
    inputs: Inputs
    spec: ModelSpec
    arrays: dict[str, Any]
    image: Image
    seen: Image
    notify: Notify
    stop: Stop
    means: Means

    def foresee(self) -> Report:
        """Say what it takes, and write nothing."""
        from napari_unet.nn.prediction import foresee

        model = load(self.job.config, self.spec, self.arrays)
        window = window_at(self.job.window, self.image.stack, self.seen.stack)
        kinds = [output.kind for output in self.job.outputs]
        objects = self.spec.objects is not None and "labels" in kinds
        if objects:
            kinds = [*{*kinds, "probabilities"} - {"labels"}]
        found = foresee(model, self.seen.stack, self.job.config, kinds, window)
        if objects:
            found = found.longer(_DECODING * found.written / 1e6)
        metrics = {"gib": found.memory / 2**30, "seconds": found.seconds or 0.0, "tiles": float(found.tiles)}
        return Report("predict", metrics=metrics, message=found.sentence)

    def do(self, attempt: Attempt) -> tuple[list[Target], bool]:
        """Write the outputs; return them, and True if stopped before the end."""
        if self.job.given == "probabilities":
            return self._relabel()
        from napari_unet.nn.inputs import check_channels, check_dropout

        # Before anything is made: what is refused leaves nothing behind.
        check_channels(self.spec, self.image.stack)
        if any(output.kind == "uncertainty" for output in self.job.outputs):
            check_dropout(self.spec)
        if self.seen is not self.image:
            return self._do_resampled(attempt)
        return self._segment(attempt)

    def _telling(self, targets: Sequence[Target]) -> Notify:
        """Tell where the outputs are, once their run starts."""
        groups: dict[str, str] = {target.kind: str(target.group) for target in targets}
        return lambda event: self.notify(
            replace(event, outputs=groups) if isinstance(event, PredictStarted) else event
        )

    def _stopping(self, targets: Sequence[Target]) -> Stop:
        """Ask whether to stop, and look that the outputs are still there: hours would be lost at the end."""

        def stop() -> bool:
            for target in targets:
                target.check_there()
            return self.stop()

        return stop

    def _segment(self, attempt: Attempt, *, ours: bool = False) -> tuple[list[Target], bool]:
        from napari_unet.nn.prediction import make_plan
        from napari_unet.nn.prediction import segment as segment_here

        job, stack = self.job, self.image.stack
        model = load(job.config, self.spec, self.arrays)
        means, kinds = self.means, [output.kind for output in job.outputs]
        first = make_plan(model, stack, job.config, kinds, memory=means.memory, parts=means.parts)
        targets, network = _open_targets(job, self.inputs, self.spec, self.image, first.chunk, ours=ours)
        config = _after(job.config, attempt, first, self.notify)
        written = [target.kind for target in network]
        plan = make_plan(model, stack, config, written, network[-1].chunk, job.window, memory=means.memory)
        attempt.begin(plan.computed)
        labels = next((target for target in targets if target not in network), None)
        tell, stop = self._telling(targets), self._stopping([*targets, *network])
        compute = partial(means.segment, self.inputs) if means.segment else segment_here

        def segment(*args: Any, **more: Any) -> bool:
            stopped = compute(*args, plan=plan, **more)
            if not stopped:
                _check_whole(network, stack, job.window)
            return stopped

        if labels is not None:
            return targets, self._segment_objects(segment, model, config, network, labels, plan, tell, stop)
        arrays = {target.kind: target.array for target in network}
        is_done = partial(all_have, arrays.values())
        return targets, segment(
            model, stack, config, arrays, window=job.window, is_done=is_done, notify=tell, stop=stop
        )

    def _segment_objects(
        self,
        segment: Callable[..., bool],
        model: Any,
        config: PredictConfig,
        network: Sequence[Target],
        labels: Target,
        plan: Plan,
        tell: Notify,
        stop: Stop,
    ) -> bool:
        stack, means = self.image.stack, self.means
        slices = slices_of(stack, self.job.window)
        scratch = [target for target in network if target.output not in self.job.outputs]
        asked = [target.array for target in network if target not in scratch]
        complete = all(map(labels.has_slice, slices)) and all(
            all_have(asked, work.index) for work in plan.works()
        )
        if scratch and complete:
            tell(PredictStarted({}, len(slices), len(slices), "CPU"))
        else:
            arrays = {target.kind: target.array for target in network}
            with means.scratch_for(labels.output) as make:
                if segment_objects(
                    model, stack, config, arrays, labels.array, window=self.job.window,
                    tile_done=partial(all_have, arrays.values()), slice_done=labels.has_slice, scratch=make,
                    segment=segment, run_all=means.run_all, notify=tell, stop=stop,
                ):  # fmt: skip
                    return True
        for target in scratch:
            shutil.rmtree(target.group, ignore_errors=True)
        return False

    def _relabel(self) -> tuple[list[Target], bool]:
        stack = without_classes(self.spec, self.image.stack)
        (output,) = self.job.outputs
        layout = stack.out_shape, stack.out_axes, label_type(self.spec)
        target = open_target(self.job, output, self.inputs, self.spec, self.image, layout, _CHUNK)
        with self.means.scratch_for(output) as scratch:
            stopped = make_labels(
                self.spec, self.job.config, stack, target.array, window=self.job.window, chunk_done=target.has,
                slice_done=target.has_slice, scratch=scratch, run_all=self.means.run_all,
                notify=self._telling([target]), stop=self._stopping([target]),
            )  # fmt: skip
        return [target], stopped

    def _do_resampled(self, attempt: Attempt) -> tuple[list[Target], bool]:
        """Segment an image on the grid that the model was trained on, then write the results on its own."""
        from napari_unet.nn.outputs import output_layout

        job, stack = self.job, self.image.stack
        layouts = [output_layout(self.spec, stack, output.kind, job.config) for output in job.outputs]
        targets = [
            open_target(job, output, self.inputs, self.spec, self.image, layout, _CHUNK)
            for output, layout in zip(job.outputs, layouts, strict=True)
        ]
        tell = self._telling(targets)
        inner = job.replace(
            outputs=tuple(
                Output(kind=output.kind, path=str(scratch_beside(output.path, "resampled")))
                for output in job.outputs
            ),
            window=window_at(job.window, stack, self.seen.stack),
        )

        if all(_is_whole(target, stack, job.window) for target in targets):
            slices = len(slices_of(stack, job.window))
            tell(PredictStarted({}, slices, slices, "CPU"))
            stopped = False
        else:
            parts, stopped = replace(self, job=inner, image=self.seen, notify=tell)._segment(
                attempt, ours=True
            )
            stopped = stopped or _bring_back(
                targets, parts, self.seen.stack.out_axes, job.window, self._stopping(targets)
            )
        if not stopped:
            for output in inner.outputs:
                shutil.rmtree(output.path, ignore_errors=True)
        return targets, stopped


def _open_targets(
    job: PredictJob,
    inputs: Inputs,
    spec: ModelSpec,
    image: Image,
    chunk: tuple[int, int],
    *,
    ours: bool = False,
) -> tuple[list[Target], list[Target]]:
    """Open a job's outputs, and what the network is to write.

    Parameters
    ----------
    job : PredictJob
        The job.
    inputs : Inputs
        What it reads.
    spec : ModelSpec
        The model's card.
    image : Image
        What is segmented.
    chunk : (cy, cx)
        Pixels of a chunk of new results.
    ours : bool
        Whether they are scratch folders.

    Returns
    -------
    targets : list of Target
        One for each output of the job.
    network : list of Target
        Those that the network writes, the one whose chunks are the journal last. They are the same, but for labels
        of objects: these are made of probabilities, in a scratch folder where nobody asked for them.
    """
    from napari_unet.nn.outputs import output_layout

    found = [target for target in (existing(job, output, inputs) for output in job.outputs) if target]
    if found:  # what is made anew goes chunk by chunk with what is there
        chunk = found[0].chunk

    def opened(output: Output, ours: bool) -> Target:
        layout = output_layout(spec, image.stack, output.kind, job.config)
        return open_target(job, output, inputs, spec, image, layout, chunk, ours=ours)

    targets = [opened(output, ours) for output in job.outputs]
    if spec.objects is None or all(target.kind != "labels" for target in targets):
        return targets, targets
    network = [target for target in targets if target.kind != "labels"]
    if all(target.kind != "probabilities" for target in network):
        labels = next(target for target in targets if target.kind == "labels")
        scratch = Output(kind="probabilities", path=str(scratch_beside(labels.output.path, "probabilities")))
        network.append(opened(scratch, ours=True))
    return targets, network


def smaller(config: PredictConfig, plan: Plan, died_with: float) -> PredictConfig:
    """Return settings with tiles of half the megapixels that a process died with, as far as smaller ones are worth it."""
    return config.with_tile(max(plan.smallest, died_with / 2))


def _after(config: PredictConfig, attempt: Attempt, plan: Plan, notify: Notify) -> PredictConfig:
    """Return a job's settings, with smaller tiles where the run before died on larger ones."""
    if attempt.died_with is None:
        return config
    config = smaller(config, plan, attempt.died_with)
    notify(
        Warned(
            "The process that computed this segmentation ended abruptly, most likely because memory ran out: "
            f"it goes on with tiles of at most {config.tile_megapixels:.2g} megapixels; what is done is kept."
        )
    )
    return config


def _is_whole(target: Target, stack: Stack, window: Window | None) -> bool:
    """Whether all chunks of a window are on disk."""
    return all(target.has(index) for index, *_ in chunks_of(stack, target.array, window))


def _check_whole(targets: Sequence[Target], stack: Stack, window: Window | None) -> None:
    """Make sure, before something is made of results, that nobody removed some of them meanwhile."""
    for target in targets:
        target.check_there()
        if not _is_whole(target, stack, window):
            raise target.removed()


def _bring_back(
    targets: Sequence[Target], parts: Sequence[Target], axes: str, window: Window | None, stop: Stop
) -> bool:
    """Write what was computed on another grid on the image's own; True if stopped."""
    for target, part in zip(targets, parts, strict=True):
        if bring_back(
            part.array, axes, target.array, window,
            nearest=target.kind == "labels", is_done=target.has, stop=stop,
        ):  # fmt: skip
            return True
    return False
