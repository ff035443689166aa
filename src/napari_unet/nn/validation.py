"""Measuring a network on the region that was held out from training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Example
from napari_unet.data.decoding import Choice, Region, choose_decoding, choose_threshold
from napari_unet.data.labels import IGNORE
from napari_unet.data.normalize import Range
from napari_unet.data.tiling import Halo, Tile, chunk_shape, plan
from napari_unet.events import Stop, never_stop
from napari_unet.nn.computing import Forward
from napari_unet.nn.prediction import compute_tile
from napari_unet.spec import OBJECT_CLASSES

__all__ = ["THRESHOLDS", "Quality", "log_probabilities", "measure", "tile_limits"]

THRESHOLDS: npt.NDArray[np.float32] = np.round(np.arange(1, 20) * 0.05, 2).astype(np.float32)
"""Candidates for the threshold of two classes."""

_MAX_PIXELS = 1_000_000

_HUGE = 1e30  # instead of infinity

_DECODED_PIXELS = 2_000_000
"""Of what is held out, at most, are made into objects or regions: it is done one or two dozen times."""


@dataclass(frozen=True)
class Quality:
    """How good a network is.

    Parameters
    ----------
    loss : float
        Cross-entropy plus soft Dice over the whole region, as in training.
    score : float
        Mean Dice of the classes that are there, background counted in, 0 to 1; at the best threshold,
        for two classes. The background counts because which of two classes is the thin one that
        matters is not known: foreground alone would favour merged cells in a membrane image.
    threshold : float
        Two classes: the one that `choose_threshold` takes. Else 0.5.
    choice : Choice or None
        Where objects are learned: how they are made best, and how good they are, on about two megapixels
        of what was held out.
    """

    loss: float
    score: float
    threshold: float
    choice: Choice | None = None

    @property
    def rank(self) -> float:
        """By which networks are compared: the score, and to it, where objects are learned, their average precision."""
        # Dice alone counts the thin border as much as all inside, and says little of what is joined; precision alone is 0
        # until the first object is found.
        return self.score + (0.0 if self.choice is None else self.choice.ap)


def measure(
    forward: Forward,
    examples: Sequence[Example],
    classes: int,
    halo: Halo,
    stride: int,
    stop: Stop = never_stop,
    *,
    whole: bool = False,
    max_pixels: int | None = None,
) -> Quality | None:
    """Measure a network on whole examples.

    Parameters
    ----------
    forward : callable
        From pixels to logits (`napari_unet.nn.computing.traced`).
    examples : sequence of Example
        What was held out.
    classes : int
        Classes, background counted in.
    halo, stride
        Of the network, for examples that are computed in tiles.
    stop : callable
        Asked before each tile.
    whole : bool
        Whether every pixel is labelled, so that regions of a class have their true outlines.
    max_pixels : int, optional
        Of a tile: one of `tile_limits`, the first if not given.

    Returns
    -------
    Quality or None
        None if stopped.
    """
    max_pixels = max_pixels or tile_limits(halo, stride)[0]
    tally = _Tally(classes)
    sample = _Sample(examples, two_classes=classes == 2)
    for number, example in enumerate(examples):
        sample.begin(number)
        stack = Stack(example.image, "YXC", "held out")
        channels = example.image.shape[-1]
        as_is = Range((0.0,) * channels, (1.0,) * channels)  # examples are normalised already
        shape = (example.target.shape[0], example.target.shape[1])
        chunks = chunk_shape(shape, halo, stride, max_pixels)
        for tile in _painted(plan(shape, chunks, halo, stride), example):
            if stop():
                return None
            weight = None if example.weight is None else example.weight[tile.write]
            logits = compute_tile(forward, stack, 0, tile, stride, as_is)
            # Weights that are finite, but huge, overflow.
            logits = np.nan_to_num(logits, nan=0.0, posinf=_HUGE, neginf=-_HUGE)
            tally.add(logits, example.target[tile.write], weight)
            sample.add(logits, tile)
    quality = tally.quality()
    if classes == 2:
        dice = dict(zip(np.round(THRESHOLDS.astype(float), 2).tolist(), tally.scores().tolist(), strict=True))
        quality = replace(quality, threshold=choose_threshold(sample.regions, dice, stop, whole=whole))
    else:
        quality = replace(quality, choice=choose_decoding(sample.regions, stop))
    return None if stop() else quality


class _Sample:
    """Probabilities and truth of some examples whose objects or regions are compared, spread over all of them.

    Parameters
    ----------
    examples : sequence of Example
        What was held out.
    two_classes : bool
        Whether to take two classes; otherwise, objects are taken where they are learned.
    """

    def __init__(self, examples: Sequence[Example], *, two_classes: bool) -> None:
        self.regions: list[Region] = []
        self._examples, self._two = examples, two_classes
        self._left = _DECODED_PIXELS
        labelled = sum((last - first) * e.target.shape[1] for e in examples for first, last in [_labelled(e)])
        self._every = max(1, labelled // _DECODED_PIXELS)
        self._rows: slice | None = None  # of the example that is open

    def begin(self, number: int) -> None:
        """Take an example, or as many of its labelled rows as there is room for, or none."""
        example = self._examples[number]
        self._rows = None
        truth = example.target if self._two else example.ids
        if truth is None or number % self._every:
            return
        (first, last), width = _labelled(example), example.target.shape[1]
        height = min(last - first, self._left // width)
        if height <= 0:
            return
        self._rows = rows = slice(first, first + height)
        self._left -= height * width
        if self._two:
            nothing = np.full((height, width, 2), np.nan, np.float32)
        else:
            nothing = np.zeros((height, width, len(OBJECT_CLASSES)), np.float32)
            nothing[..., 0] = 1
        self.regions.append(Region(nothing, truth[rows], example.target[rows] != IGNORE))

    def add(self, logits: npt.NDArray[np.float32], tile: Tile) -> None:
        """Add what the network says of a tile."""
        if self._rows is None:
            return
        y, x = tile.write
        top, first, last = self._rows.start, max(y.start, self._rows.start), min(y.stop, self._rows.stop)
        if first < last:
            said = logits[first - y.start : last - y.start]
            self.regions[-1].probabilities[first - top : last - top, x] = np.exp(log_probabilities(said))


def _labelled(example: Example) -> tuple[int, int]:
    """First labelled row, and the one after the last: what is held out has context around it."""
    rows = np.flatnonzero((example.target != IGNORE).any(axis=1))
    return (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)


class _Tally:
    """Counts over the painted pixels seen so far."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._entropy = self._weight = 0.0
        self._expected = np.zeros(classes)  # sum of probabilities, by class
        self._overlap = np.zeros(classes)  # the same over the pixels of that class
        self._truth = np.zeros(classes)
        # Pixels by truth and by predicted class; for two classes by how many thresholds they reach.
        self._counts = np.zeros((classes, len(THRESHOLDS) + 1 if classes == 2 else classes), np.int64)

    def add(
        self,
        logits: npt.NDArray[np.float32],
        target: npt.NDArray[np.uint8],
        weight: npt.NDArray[np.float16] | None,
    ) -> None:
        painted = target != IGNORE
        weights = np.ones(int(painted.sum())) if weight is None else weight[painted].astype(np.float64)
        truth = target[painted].astype(np.intp)
        log_p = log_probabilities(logits[painted])
        of_truth = log_p[np.arange(len(truth)), truth]
        p = np.exp(log_p)
        self._entropy -= float((weights * of_truth).sum())
        self._weight += float(weights.sum())
        self._expected += p.sum(0)
        self._overlap += np.bincount(truth, np.exp(of_truth), self._classes)
        self._truth += np.bincount(truth, minlength=self._classes)
        if self._classes == 2:
            answer = np.searchsorted(THRESHOLDS, p[:, 1].astype(np.float32), side="right")
        else:
            answer = log_p.argmax(1)
        columns = self._counts.shape[1]
        pairs = np.bincount(truth * columns + answer, minlength=self._counts.size)
        self._counts += pairs.reshape(self._counts.shape)

    def quality(self) -> Quality:
        there = self._truth > 0
        soft = 2 * self._overlap / np.maximum(self._expected + self._truth, 1e-6)
        loss = self._entropy / max(self._weight, 1e-6)
        loss += float((1 - soft[there]).mean()) if there.any() else 0.0
        if self._classes > 2:
            return Quality(loss, _mean_dice(self._counts, there), 0.5)
        return Quality(loss, float(self.scores().max()), 0.5)

    def scores(self) -> npt.NDArray[np.float64]:
        """Mean Dice of two classes at each threshold."""
        # Pixels of each truth that reach threshold i, and those that do not.
        above = self._counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
        below = self._truth[:, None].astype(np.int64) - above
        return np.array(
            [
                _mean_dice(np.stack([below[:, i], above[:, i]], axis=1), self._truth > 0)
                for i in range(len(THRESHOLDS))
            ]
        )


def _mean_dice(counts: npt.NDArray[np.int64], there: npt.NDArray[np.bool_]) -> float:
    """Mean Dice of the classes that are there, from (truth, predicted) pixel counts."""
    agree = np.diag(counts)[there]
    both = (counts.sum(0) + counts.sum(1))[there]
    return float((2 * agree / both).mean()) if agree.size else 0.0


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Turn logits (..., L), L = 1 for two classes, into logarithms of probabilities (..., classes)."""
    z = logits.astype(np.float64)
    if z.shape[-1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=-1)
    z -= z.max(-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(-1, keepdims=True)))


def tile_limits(halo: Halo, stride: int) -> list[int]:
    """Pixels of a tile, at most: first those that are fastest, then ever half, for less memory, down to the fewest possible."""
    least = (halo.before + halo.after + 2 * stride) ** 2
    # A deep network whose halo alone exceeds the limit is measured in tiles of about its halo's size.
    limits = [max(_MAX_PIXELS, 2 * least)]
    while limits[-1] > least:
        limits.append(max(limits[-1] // 2, least))
    return limits


def _painted(tiles: Sequence[Tile], example: Example) -> list[Tile]:
    """Tiles with something to measure."""
    return [tile for tile in tiles if (example.target[tile.write] != IGNORE).any()]
