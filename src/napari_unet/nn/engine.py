"""What is computed of one tile: from its pixels, as they are stored, to the outputs that were asked for.

Normalisation, classes and rounding to bytes are part of the compiled function, so a GPU receives and returns bytes. Answers
can be averaged over flips and turns, and the network can be asked several times with dropout (Gal and Ghahramani,
"Dropout as a Bayesian Approximation", ICML 2016). Then the contracting path, which comes before the dropout, is
computed once, and what is dropped depends on where a feature is, not on the tile (`napari_unet.data.dropout`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_unet.config import PredictConfig
from napari_unet.data.decoding import threshold_of
from napari_unet.data.dropout import kept
from napari_unet.data.normalize import Range
from napari_unet.data.tiling import Halo, Tile
from napari_unet.data.turns import AS_IT_IS, TURNS, Turn
from napari_unet.nn import backend, computing
from napari_unet.nn.model import UNetModel, with_probabilities
from napari_unet.nn.network import halo
from napari_unet.nn.rewrite import halves
from napari_unet.spec import ModelSpec

if TYPE_CHECKING:
    import keras
else:
    keras = backend.load_keras()

__all__ = ["SAMPLED", "Answers", "Engine", "needed_halo"]

_FAST_HALO = 64
"""Pixels of the halo that is not exact: the error was 0.013 at most on a trained network, and 0.42 with 32."""

_WIDE, _MUCH = 1024, 8e6
"""Features at the bottom of a network, and pixels to compute, from which a processor's kernels are prepared first. It takes 4 s and
half a gigabyte for the article's network; the widest convolutions then take half the time, and a pass 6 to 17 % less."""

_BYTES = ("uint8", "uint16")
"""Types of pixels that are sent to the device as they are."""

SAMPLED = "uncertainty"
"""The output that is made of several passes with dropout."""

Pixels = npt.NDArray[Any]
Answers = dict[str, Pixels]
Float32 = npt.NDArray[np.float32]


def needed_halo(network: keras.Model, config: PredictConfig) -> Halo:
    """Return the halo to read around what a network is to answer for.

    Parameters
    ----------
    network : keras.Model
        Of the model.
    config : PredictConfig
        Whether the halo is exact or fast, and whether the image is turned: then what lies before a pixel comes to lie after it.
    """
    exact = halo(network)
    before, after = exact.before, exact.after
    if config.halo == "fast":
        before, after = min(before, _FAST_HALO), min(after, _FAST_HALO)
    if config.average:
        before = after = max(before, after)
    return Halo(before, after)


class Engine:
    """A model made ready to compute tiles.

    Parameters
    ----------
    model : UNetModel
        In the precision wanted.
    config : PredictConfig
        Settings.
    kinds : sequence of str
        What to answer with: ``"labels"`` (classes 0, 1, ...), ``"probabilities"``, ``"entropy"``, ``"uncertainty"``.
    pixel_range : Range
        Black and white of each channel.
    dtype : numpy.dtype
        Of the image's pixels.
    pixels : float
        How many will be computed: for many, it pays to prepare more.
    """

    def __init__(
        self,
        model: UNetModel,
        config: PredictConfig,
        kinds: Sequence[str],
        pixel_range: Range,
        dtype: np.dtype[Any],
        pixels: float = 0,
    ) -> None:
        self._kinds = tuple(kinds)
        self._range = pixel_range
        self._sent = dtype.name if dtype.name in _BYTES else "float32"
        network = model.spec.network
        self._stride, self._rate = network.stride, network.dropout
        wide = network.filters * network.stride >= _WIDE
        self._final = wide and pixels >= _MUCH and backend.device_name() == "CPU"
        self._passes = config.passes if SAMPLED in kinds else 0
        self._turns = TURNS if config.average else (AS_IT_IS,)
        self._made, self._finish_as = model.made, _Finish.of(self._kinds, model.spec, config)
        if self._passes or config.average:
            self._finish = self._once("finish", self._finish_as, make=self._finish_as.compiled)
        if self._passes:
            contracting, expanding = self._once("halves", make=lambda: halves(model.network))
            self._contract = self._compiled(contracting)
            self._expand = self._once(
                "expand",
                self._final,
                make=lambda: computing.compiled(with_probabilities(expanding), final=self._final),
            )
        elif config.average:
            self._answer = self._compiled(model.prediction_network)
        else:
            self._direct = self._compiled(model.prediction_network, self._finish_as)

    def __call__(self, pixels: Pixels, n: int, tile: Tile) -> Answers:
        """Compute a tile, and wait for it.

        Parameters
        ----------
        pixels, n, tile
            As for `begin`.

        Returns
        -------
        dict of str to ndarray
            As `begin` promises.
        """
        return self.begin(pixels, n, tile)()

    def begin(self, pixels: Pixels, n: int, tile: Tile) -> Callable[[], Answers]:
        """Have a tile computed, without waiting for it where the backend computes beside its caller, as on a GPU.

        Several passes are waited for, save the last.

        Parameters
        ----------
        pixels : ndarray, shape (Y, X, C)
            Of the region that ``tile.read`` says.
        n : int
            Slice.
        tile : Tile
            Where it lies, and what of it is kept.

        Returns
        -------
        callable
            It waits for the answers, a dict of str to ndarray: by kind, of the size of ``tile.write``: (y, x), and
            (y, x, L) for probabilities.
        """
        if self._passes or len(self._turns) > 1:
            mean, sampled = self._averages(pixels, n, tile)
            answers = self._finish(mean[tile.crop][None], sampled[tile.crop][None])
            crop = slice(None), slice(None)
        else:
            answers, crop = self._direct(*self._inputs(pixels)), tile.crop
        return partial(self._named, answers, crop)

    def _named(self, answers: Sequence[Any], crop: tuple[slice, slice]) -> Answers:
        return {
            kind: computing.as_array(answer)[0][crop]
            for kind, answer in zip(self._kinds, answers, strict=True)
        }

    def _averages(self, pixels: Pixels, n: int, tile: Tile) -> tuple[Float32, Float32]:
        """Mean probabilities (Y, X, L) without dropout and with it; the second is the first where nobody asks for it."""
        plain, thinned = _Mean(), _Mean()
        for turn in self._turns:
            inputs = self._inputs(turn.apply(pixels))
            if not self._passes:
                plain.add(turn, self._answer(*inputs))
                continue
            bottom, *skips = self._contract(*inputs)
            if set(self._kinds) != {SAMPLED}:
                plain.add(turn, self._expand(bottom, *skips))
            for thin in self._thinned(computing.as_array(bottom), turn, n, tile):
                thinned.add(turn, self._expand(thin, *skips))
        mean = plain.value if plain.count else thinned.value
        return mean, thinned.value if thinned.count else mean

    def _thinned(self, bottom: Pixels, turn: Turn, n: int, tile: Tile) -> Iterator[Pixels]:
        """Features of the bottleneck after dropout, for each pass."""
        rows, columns = (range(side.start // self._stride, side.stop // self._stride) for side in tile.read)
        scaled = bottom / bottom.dtype.type(1 - self._rate)
        for passage in range(self._passes):
            mask = turn.apply(kept(self._rate, passage, n, rows, columns, bottom.shape[-1]))
            yield np.where(mask, scaled, scaled.dtype.type(0))

    def _inputs(self, pixels: Pixels) -> tuple[Pixels, Float32, Float32]:
        """Return what the compiled function is fed with: pixels, black, and white less black."""
        if self._sent == "float32":
            # Wide types lose nothing: they are brought to the range in double precision here.
            channels = pixels.shape[-1]
            as_it_is = Range((0.0,) * channels, (1.0,) * channels)
            return self._range.apply(pixels)[None], *_black_and_span(as_it_is)
        return np.ascontiguousarray(pixels)[None], *_black_and_span(self._range)

    def _once(self, *key: Hashable, make: Callable[[], Any]) -> Any:
        """Make something of the network, or take what an earlier engine made for the same."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _compiled(self, network: Any, finish: _Finish | None = None) -> computing.Computation:
        """Compile a network to read stored pixels, and to end in what was asked for if `finish` says so."""
        key = "fed", network.name, self._sent, finish, self._final
        if self._final and key not in self._made:
            # Each holds all kernels once more: the one before goes.
            for old in [k for k in self._made if isinstance(k, tuple) and k[:2] == key[:2] and k[-1]]:
                del self._made[old]
        return self._once(  # type: ignore[no-any-return]
            *key, make=lambda: computing.compiled(self._fed(network, finish), final=self._final)
        )

    def _fed(self, network: Any, finish: _Finish | None) -> Any:
        channels = network.input.shape[-1]
        pixels = keras.Input((None, None, channels), dtype=self._sent, name="pixels")
        black, span = (keras.Input((channels,), dtype="float32", name=name) for name in ("black", "span"))
        answer = network(_Normalise(dtype="float32", name="normalise")([pixels, black, span]))
        if finish is not None:
            answer = finish.layer([answer, answer])
        return keras.Model([pixels, black, span], answer, name=f"{network.name}_fed")


class _Mean:
    """The mean of what was computed of a turned image, turned back."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Float32 | None = None

    def add(self, turn: Turn, answers: Sequence[Any]) -> None:
        answer = turn.undo(np.asarray(computing.as_array(answers[0])[0], np.float32))
        self._sum = answer.copy() if self._sum is None else self._sum + answer
        self.count += 1

    @property
    def value(self) -> Float32:
        assert self._sum is not None
        return self._sum / np.float32(self.count)


def _black_and_span(pixel_range: Range) -> tuple[Float32, Float32]:
    """Return black, and white less black, as inputs of a network, (1, C) each."""
    low, high = np.array([pixel_range.low]), np.array([pixel_range.high])
    span = np.where(high > low, high - low, np.inf)  # a constant channel becomes 0
    return low.astype(np.float32), span.astype(np.float32)


@dataclass(frozen=True)
class _Finish:
    """From probabilities to the outputs asked for."""

    kinds: tuple[str, ...]
    threshold: float
    as_bytes: bool
    maps: int

    @classmethod
    def of(cls, kinds: tuple[str, ...], spec: ModelSpec, config: PredictConfig) -> _Finish:
        return cls(kinds, threshold_of(spec, config), config.probability_type == "uint8", spec.network.logits)

    @property
    def layer(self) -> Any:
        return _Outputs(self.kinds, self.threshold, self.as_bytes, dtype="float32", name="outputs")

    def compiled(self) -> computing.Computation:
        """Make a function of two arrays of probabilities, computed without dropout and with it."""
        shape = (None, None, self.maps)
        inputs = [keras.Input(shape, dtype="float32", name=name) for name in ("mean", "sampled")]
        return computing.compiled(keras.Model(inputs, self.layer(inputs), name="finish"))


class _Normalise(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """Pixels of any type, (B, Y, X, C), to a range: ``(pixel - black) / span``, as `Range.apply` does it."""

    def __init__(self, **options: Any) -> None:
        # Pixels of more than 8 bits would lose some in bfloat16.
        super().__init__(autocast=False, **options)

    def call(self, inputs: list[Any]) -> Any:
        pixels, black, span = inputs
        return (keras.ops.cast(pixels, "float32") - black[:, None, None]) / span[:, None, None]

    def compute_output_spec(self, inputs: list[Any]) -> Any:
        return keras.KerasTensor(inputs[0].shape, "float32")


class _Outputs(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """Probabilities (B, Y, X, L), computed without dropout and with it, to a tensor for each kind of output."""

    def __init__(self, kinds: Sequence[str], threshold: float, as_bytes: bool, **options: Any) -> None:
        super().__init__(**options)
        self._kinds = tuple(kinds)
        self._threshold = threshold
        self._as_bytes = as_bytes

    def call(self, inputs: list[Any]) -> list[Any]:
        mean, sampled = inputs
        compute: dict[str, Callable[[], Any]] = {
            "labels": lambda: self._classes(mean),
            "probabilities": lambda: self._stored(mean),
            "entropy": lambda: self._stored(_entropy(mean)),
            SAMPLED: lambda: self._stored(_entropy(sampled)),
        }
        return [compute[kind]() for kind in self._kinds]

    def _classes(self, probabilities: Any) -> Any:
        ops = keras.ops
        if probabilities.shape[-1] == 1:
            return ops.cast(probabilities[..., 0] >= self._threshold, "uint8")
        return ops.cast(ops.argmax(probabilities, axis=-1), "uint8")

    def _stored(self, values: Any) -> Any:
        """Values from 0 to 1 as bytes, where these are asked for."""
        return keras.ops.cast(keras.ops.round(values * 255), "uint8") if self._as_bytes else values


def _entropy(probabilities: Any) -> Any:
    """Return the entropy of each pixel, 0 to 1: that of equal probabilities is 1 (Shannon 1948)."""
    ops = keras.ops
    classes = probabilities.shape[-1]
    if classes == 1:
        probabilities, classes = ops.concatenate([probabilities, 1 - probabilities], axis=-1), 2
    logarithms = ops.log(ops.maximum(probabilities, 1e-12))
    return ops.clip(-ops.sum(probabilities * logarithms, axis=-1) / math.log(classes), 0.0, 1.0)
