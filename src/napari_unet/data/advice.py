"""Settings chosen by the images, the paint and the computer, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.sights import Sights
from napari_unet.spec import weight_shapes
from napari_unet.words import count

__all__ = [
    "Advice",
    "Computer",
    "advise",
    "peak_rate",
    "receptive_field",
    "smaller",
    "training_memory",
]

_RATES = {"none": 2e-3, "batch": 3e-3}  # by normalisation
_WHY_RATE = {
    "none": "a network without batch normalisation learns no better with a higher one",
    "batch": "a network with batch normalisation learns more in few minutes with it than with a lower one",
}
_CPU_FILTERS = 16
_GPU_FILTERS = 64  # the article's
_CPU_PIXELS = 2 * 256**2  # of a step: two cores do one in half a second at 16 filters
_GPU_PIXELS = 8 * 256**2
_LARGEST_BATCH = 16
_OBJECTS = 4  # across a patch
_SEVERAL = 3
_LARGEST_PATCH = 512
_ROUND = 64
_GRAIN = 16  # of the setting `patch`
_MEMORY_PART = 0.5  # of the main memory that the images leave; the rest is for the viewer
_MENTIONED = 100_000_000  # bytes of images from which they are spoken of


# Peak memory of a training process on a CPU, measured with TensorFlow 2.21 in float32 at 16, 32 and 64 filters.
_PROCESS = 800_000_000
_COPIES = 10  # of the weights: gradients, momentum, averages, the best so far, and what passes
_BYTES = {
    "none": 110,
    "batch": 150,
}  # for each pixel of a step and filter of the first module, by normalisation


@dataclass(frozen=True)
class Computer:
    """What will train.

    Parameters
    ----------
    cores : int
        Of the processor.
    memory : int
        Main memory in all, in bytes; not what is free now, so that the same computer chooses the same again.
    accelerator : str or None
        Name of the GPU that computes; None for the processor.
    bfloat16 : bool
        Whether what computes has instructions for bfloat16.
    """

    cores: int
    memory: int
    accelerator: str | None = None
    bfloat16: bool = False


@dataclass(frozen=True)
class Advice:
    """Settings without a gap.

    Parameters
    ----------
    network : UNetConfig
        Shape of the network.
    train : TrainConfig
        With patch, batch, learning rate and precision set.
    reasons : tuple of str
        A sentence for each choice that was made.
    warnings : tuple of str
        Sentences on what these settings will find hard.
    """

    network: UNetConfig
    train: TrainConfig
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def advise(
    sights: Sights, computer: Computer, network: UNetConfig | None = None, train: TrainConfig | None = None
) -> Advice:
    """Choose what is left open: the network, the patch, the batch, the learning rate and the precision.

    Parameters
    ----------
    sights : Sights
        From `look`.
    computer : Computer
        What will train.
    network : UNetConfig, optional
        Shape of the network, where it isn't left open.
    train : TrainConfig, optional
        Settings; a patch, batch or learning rate of None, and the precision ``"auto"``, are left open.

    Returns
    -------
    Advice
        All settings; those that were given are unchanged.
    """
    train = train or TrainConfig()
    reasons = []
    if network is None:
        network, reason = _choose_network(computer)
        reasons.append(reason)
    patch, batch, rate, precision = train.patch, train.batch, train.learning_rate, train.precision
    if patch is None:
        patch, reason = _choose_patch(sights, network, computer)
        reasons.append(reason)
    if batch is None:
        batch, reason = _choose_batch(patch, sights, network, computer)
        reasons.append(reason)
    if rate is None:
        rate = peak_rate(network)
        reasons.append(f"Learning rate {rate:g}: {_WHY_RATE[network.normalization]}.")
    if precision == "auto":
        precision, reason = _choose_precision(computer)
        reasons.append(reason)
    warnings = (*_warn_of_objects(sights, network), *_warn_of_memory(patch, batch, sights, network, computer))
    settled = train.replace(patch=patch, batch=batch, learning_rate=rate, precision=precision)
    return Advice(network, settled, tuple(reasons), warnings)


def peak_rate(network: UNetConfig) -> float:
    """Return the learning rate at which a network learns most in few minutes.

    Parameters
    ----------
    network : UNetConfig
        Whether it has batch normalisation is what counts.
    """
    return _RATES[network.normalization]


def smaller(patch: int, batch: int, stride: int) -> tuple[int, int] | None:
    """Return the next smaller patch and batch, for a step that did not fit into memory.

    Parameters
    ----------
    patch, batch : int
        What did not fit.
    stride : int
        Of the network; a patch stays a multiple of it and two of them wide.

    Returns
    -------
    (patch, batch) or None
        Half the batch; of one patch, half the patch. None where nothing smaller would do.
    """
    if batch > 1:
        return patch, batch // 2
    grain = max(_GRAIN, stride)
    half = patch // 2 // grain * grain
    return (half, 1) if half >= 2 * stride else None


def receptive_field(network: UNetConfig) -> int:
    """Return how many pixels along a side the network sees to decide on one, at most.

    Parameters
    ----------
    network : UNetConfig
        Its depth counts most.

    Returns
    -------
    int
        Pixels, the one decided on included.
    """
    return max(_seen_from(pixel, network) for pixel in range(network.stride))


def training_memory(network: UNetConfig, patch: int, batch: int) -> int:
    """Estimate the peak memory of a training process on a CPU, in bytes.

    Parameters
    ----------
    network : UNetConfig
        Shape of the network.
    patch, batch : int
        Side of a patch in pixels, and patches in a step.
    """
    weights = sum(math.prod(shape) for shape in weight_shapes(network).values())
    return (
        _PROCESS + 4 * _COPIES * weights + _BYTES[network.normalization] * network.filters * batch * patch**2
    )


def _seen_from(pixel: int, network: UNetConfig) -> int:
    """Width of what one pixel's answer depends on, followed from the output back to the input."""
    head = 1 if network.architecture == "linked-code" else 0
    after = 1 if network.upsampling == "nearest" else 0  # its 2x2 convolution looks after only
    first, last = pixel - head, pixel + head
    for _ in range(network.depth):
        first, last = first - 2, last + 2 + after  # two 3x3 convolutions
        first, last = first // 2, last // 2
    first, last = first - 2, last + 2
    for _ in range(network.depth):
        first, last = 2 * first - 2, 2 * last + 3  # pooling, and two 3x3 convolutions
    return last - first + 1


def _choose_network(computer: Computer) -> tuple[UNetConfig, str]:
    if computer.accelerator is not None:
        return UNetConfig(filters=_GPU_FILTERS), (
            f"A network of {_GPU_FILTERS} filters, the article's: {computer.accelerator} trains it in minutes."
        )
    return UNetConfig(filters=_CPU_FILTERS), (
        f"A network of {_CPU_FILTERS} filters: without a GPU, {count(computer.cores, 'core')} would take about "
        f"{(_GPU_FILTERS // _CPU_FILTERS) ** 2} times as long for a step of the article's {_GPU_FILTERS}."
    )


def _choose_patch(sights: Sights, network: UNetConfig, computer: Computer) -> tuple[int, str]:
    """Wide enough for several objects and for all that the network sees, but no wider than the images."""
    sees, size = receptive_field(network), sights.object_size
    objects = _OBJECTS * (size or 0)
    grain = max(_GRAIN, network.stride)
    coarse = max(_ROUND, grain)
    patch = min(max(_up(sees, coarse), round(objects / coarse) * coarse), max(_LARGEST_PATCH, grain))
    if size is not None and patch < _SEVERAL * size:
        reason = (
            f"an object is about {size:.0f} pixels wide, but a step of larger patches would take too long"
        )
    elif size is not None and objects > sees:
        reason = f"an object is about {size:.0f} pixels wide, and a patch should show several"
    elif size is not None:
        reason = f"an object is about {size:.0f} pixels wide, so that several fit, and the network sees {sees} pixels at once"
    else:
        strokes = (
            "strokes do not tell how wide an object is" if sights.painted < 1 else "no object is seen whole"
        )
        reason = f"{strokes}, and the network sees {sees} pixels at once"
    side = _usual_side(sights.sizes)
    if (widest := _up(side, grain)) < patch:
        patch, reason = widest, f"the shorter side of the images is about {side:.0f} pixels"
    while (below := smaller(patch, 1, network.stride)) and not _fits(patch, 1, sights, network, computer):
        patch, reason = below[0], f"larger ones need over half of {_memory_left(sights, computer)}"
    return patch, f"Patches of {patch} pixels: {reason}."


def _choose_batch(patch: int, sights: Sights, network: UNetConfig, computer: Computer) -> tuple[int, str]:
    """As many as make a step of a fixed number of pixels."""
    pixels = _CPU_PIXELS if computer.accelerator is None else _GPU_PIXELS
    batch = min(max(1, pixels // patch**2), _LARGEST_BATCH)
    reason = (
        "with more, fewer steps would fit in the time without a GPU"
        if computer.accelerator is None
        else "enough to keep a GPU busy"
    )
    while batch > 1 and not _fits(patch, batch, sights, network, computer):
        batch //= 2
        reason = f"more need over half of {_memory_left(sights, computer)}"
    return batch, f"{count(batch, 'patch')} in a step: {reason}."


def _choose_precision(computer: Computer) -> tuple[Literal["float32", "bfloat16"], str]:
    if not computer.bfloat16:
        return "float32", "Computed in float32: this computer has no bfloat16."
    # Measured by benchmarks/precision.py: 1.6 times the steps in a minute, and 0.001 to 0.003 less Dice held out for as many.
    return (
        "bfloat16",
        "Computed in bfloat16, which this computer has: more steps a minute, and as many of them end almost as well.",
    )


def _warn_of_objects(sights: Sights, network: UNetConfig) -> Iterable[str]:
    sees = receptive_field(network)
    if sights.object_size is None or sights.object_size <= sees:
        return
    yield (
        f"An object is about {sights.object_size:.0f} pixels wide, but the network sees {sees} pixels at once, so it may not know "
        "what it looks at: make the images smaller, or choose a network of greater depth."
    )


def _warn_of_memory(
    patch: int, batch: int, sights: Sights, network: UNetConfig, computer: Computer
) -> Iterable[str]:
    has = f"but this computer has {_gigabytes(computer.memory)}"
    if sights.bytes + _PROCESS > computer.memory:  # a GPU does not help: images wait in the main memory
        yield (
            f"The images take about {_gigabytes(sights.bytes)} of memory while a network trains on them, {has}: "
            "train on fewer slices, or on parts cut out of them."
        )
        return
    needed = training_memory(network, patch, batch)
    if computer.accelerator is not None or sights.bytes + needed <= computer.memory:
        return
    beside = f" beside {_gigabytes(sights.bytes)} of images" if sights.bytes >= _MENTIONED else ""
    yield (
        f"{count(batch, 'patch')} of {patch} pixels in a step of {network.filters} filters need about {_gigabytes(needed)} of memory"
        f"{beside}, {has}: choose a smaller patch or batch, or fewer filters."
    )


def _fits(patch: int, batch: int, sights: Sights, network: UNetConfig, computer: Computer) -> bool:
    # A GPU's memory isn't asked for: where it runs out, training goes on with less. A processor's kills the process.
    needed = training_memory(network, patch, batch)
    return computer.accelerator is not None or needed <= _MEMORY_PART * (computer.memory - sights.bytes)


def _memory_left(sights: Sights, computer: Computer) -> str:
    if sights.bytes < _MENTIONED:
        return f"{_gigabytes(computer.memory)} of memory"
    left = max(0, computer.memory - sights.bytes)
    return f"the {_gigabytes(left)} of memory that the images leave"


def _usual_side(sizes: Sequence[tuple[int, int]]) -> float:
    return float(np.median([min(size) for size in sizes])) if sizes else float(_LARGEST_PATCH)


def _up(value: float, grain: int) -> int:
    return math.ceil(value / grain) * grain


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.0f} GB" if size >= 10e9 else f"{size / 1e9:.1f} GB"
