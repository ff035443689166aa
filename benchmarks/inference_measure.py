"""What the inference benchmarks measure with: seconds, memory, multiply-adds, the convolution peak.

It loads no Keras by itself, so the process of the torch peers can use it too.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import psutil

__all__ = ["ConvolutionPeak", "Precision", "Run", "Way", "local", "measured", "multiply_adds"]

Precision = Literal["float32", "bfloat16"]

_PERIOD = 0.005
_SHAPES = ((256, 256, 64), (128, 128, 128), (64, 64, 256))
"""(Y, X, features in and out) of the 3x3 convolutions of which the fastest is the peak."""
_REPEATS = 3


@dataclass(frozen=True)
class Run:
    """One run of a way: seconds, and the most memory above that of the process at its start, in bytes."""

    seconds: float
    peak: int


@dataclass(frozen=True)
class Way:
    """One way to segment, or a part of one.

    Parameters
    ----------
    name : str
        Unique.
    precision : {"float32", "bfloat16"}
        Of its network.
    computed : int
        Pixels that go through the network.
    answer : callable
        Runs it once, untimed, and returns its probabilities, (..., Y, X, L).
    run : callable
        Runs it once, measured.
    over : str
        Name of the way that is a bare traced pass on the same computed pixels.
    against : str
        Name of the way whose answer is the right one; empty for a part, which has no answer.
    scale : float
        By which its seconds count: above 1 where it runs on a sample of the pixels.
    shown : bool
        Whether it has a row in the table of ways.
    """

    name: str
    precision: Precision
    computed: int
    answer: Callable[[], np.ndarray]
    run: Callable[[], Run]
    over: str = ""
    against: str = ""
    scale: float = 1.0
    shown: bool = True


def local(name: str, precision: Precision, computed: int, work: Callable[[], Any], **others: Any) -> Way:
    """Make a way of what runs in this process."""
    return Way(name, precision, computed, work, lambda: measured(work), **others)


def measured(work: Callable[[], object]) -> Run:
    """Run `work` once, measured."""
    with _Memory() as memory:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    return Run(seconds, memory.peak)


class _Memory:
    """Watches this process's resident memory from a thread."""

    def __enter__(self) -> Self:
        _give_back_memory()
        self._process = psutil.Process()
        self._start = self._highest = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._look()
        self._done.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        return self._highest - self._start

    def _watch(self) -> None:
        while not self._done.wait(_PERIOD):
            self._look()

    def _look(self) -> None:
        self._highest = max(self._highest, self._process.memory_info().rss)


def _give_back_memory() -> None:
    """Free what earlier runs left, lest it hide what the next one takes."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)


def multiply_adds(network: Any) -> float:
    """Count the multiply-adds of a network per input pixel, from its layers."""
    from napari_unet.nn.backend import load_keras

    layers = load_keras().layers
    scale = {id(network.input): 1.0}  # pixels of each tensor per input pixel
    total = 0.0
    for layer in network.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        here = after = scale[id(inputs[0])]
        match layer:
            case layers.MaxPooling2D():
                after = here / 4
            case layers.UpSampling2D():
                after = here * 4
            case layers.Conv2DTranspose():
                total += here * np.prod(layer.kernel.shape)
                after = here * 4
            case layers.Conv2D():
                total += here * np.prod(layer.kernel.shape)
        scale[id(layer.output)] = after
    return float(total)


class ConvolutionPeak:
    """The fastest 3x3 convolution seen, in operations per second (a multiply-add is two)."""

    def __init__(self, precision: Precision) -> None:
        import tensorflow as tf

        dtype = tf.dtypes.as_dtype(precision)
        rng = np.random.default_rng(0)
        self.best = 0.0
        self._inputs = []
        for y, x, features in _SHAPES:
            image = rng.random((1, y, x, features), np.float32)
            kernel = rng.random((3, 3, features, features), np.float32)
            self._inputs.append((tf.cast(image, dtype), tf.cast(kernel, dtype)))
        # One function for each shape: the image's size is then known when it is traced.
        self._function = tf.function(lambda image, kernel: tf.nn.conv2d(image, kernel, 1, "SAME"))
        self.measure()
        self.best = 0.0  # that run traced

    def measure(self) -> None:
        """Run each convolution a few times."""
        for image, kernel in self._inputs:
            operations = 2 * float(np.prod(image.shape)) * 9 * image.shape[-1]
            for _ in range(_REPEATS):
                start = time.perf_counter()
                self._function(image, kernel)
                self.best = max(self.best, operations / (time.perf_counter() - start))
