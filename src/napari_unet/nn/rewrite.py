"""The same trained network with less work, for prediction.

Three rules of algebra, each exact but for rounding (in float32, probabilities agree to about 1e-6):

- A 2x2 convolution of an image enlarged twice (nearest neighbour) sees each small pixel several times. Each of the
  four phases of its output (even or odd row, even or odd column) is a convolution of the small image, with the
  weights that fall on one pixel added up: 9 weights instead of 16, and nothing is enlarged. A transposed convolution
  has four phases just so.
- A convolution of concatenated features is the sum of the convolutions of each, which spares the copy.
- Batch normalisation with fixed statistics scales and shifts each feature, so it goes into the convolution before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_unet.nn import backend, computing
from napari_unet.nn.network import inputs_of

if TYPE_CHECKING:
    import keras
else:
    keras = backend.load_keras()

__all__ = ["for_prediction", "halves"]

Float32 = npt.NDArray[np.float32]

# Below, a convolution is bound by memory, and one for both columns with some weights 0 is faster than two.
_WIDE = 64


def for_prediction(network: keras.Model) -> keras.Model:
    """Rewrite a network so that its prediction costs less.

    Parameters
    ----------
    network : keras.Model
        Made by `napari_unet.nn.network.build_unet`, with its final weights.

    Returns
    -------
    keras.Model
        From the same input to the same logits, up to rounding. Layers that are not rewritten are shared with
        `network`; the others hold copies of its weights and don't follow when these change.
    """
    rewriting = _Rewriting.of(network)
    return keras.Model(rewriting.input, rewriting.plain(network.output), name=f"{network.name}_prediction")


def halves(network: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Rewrite a network as `for_prediction` does, cut at the dropout of its bottleneck.

    Parameters
    ----------
    network : keras.Model
        Made by `napari_unet.nn.network.build_unet`, with its final weights.

    Returns
    -------
    contracting : keras.Model
        From the network's input to a list: the features that dropout would thin out, then those of each skip.
    expanding : keras.Model
        From such a list, thinned out or not, to the logits.
    """
    rewriting = _Rewriting.of(network)
    dropout = network.get_layer("bottom_dropout")
    joins = [
        layer for layer in network.layers if isinstance(layer, keras.layers.Concatenate | keras.layers.Add)
    ]
    skips = [rewriting.plain(join.input[0]) for join in joins]
    bottom, thinned = rewriting.plain(dropout.input), rewriting.plain(dropout.output)
    return (
        keras.Model(rewriting.input, [bottom, *skips], name=f"{network.name}_contracting"),
        keras.Model([thinned, *skips], rewriting.plain(network.output), name=f"{network.name}_expanding"),
    )


@dataclass(frozen=True)
class _Pending:
    """What a layer would compute from `inputs`, left to the convolution that reads it."""

    layer: Any
    inputs: list[Any]


@dataclass(frozen=True)
class _Weights:
    """Of a convolution, with the batch normalisation after it worked in."""

    kernel: Float32
    bias: Float32


class _Rewriting:
    """The new network as far as it is built: for each tensor of the old one its new tensor."""

    def __init__(self, network: Any) -> None:
        self._new: dict[int, Any] = {}
        self._norms = _norms(network)
        # TensorFlow (2.21) makes one operation of convolution, sum and leaky ReLU, and loses the slope.
        self._sums = not any(isinstance(layer, keras.layers.LeakyReLU) for layer in network.layers)
        self.input = network.input

    @classmethod
    def of(cls, network: Any) -> _Rewriting:
        """Rewrite all layers of a network."""
        rewriting = cls(network)
        for layer in network.layers:
            rewriting.add(layer)
        return rewriting

    def plain(self, old: Any) -> Any:
        """Return the new tensor for a tensor of the old network."""
        new = self._new[id(old)]
        if isinstance(new, _Pending):
            return new.layer(new.inputs if len(new.inputs) > 1 else new.inputs[0])
        return new

    def add(self, layer: Any) -> None:
        """Add what stands for a layer of the old network."""
        layers = keras.layers
        match layer:
            case layers.InputLayer():
                new = layer.output
            case layers.UpSampling2D(size=(2, 2), interpolation="nearest") | layers.Concatenate():
                new = _Pending(layer, [self.plain(tensor) for tensor in inputs_of(layer)])
            case layers.BatchNormalization() if id(layer.input) in self._norms:
                new = self._new[id(layer.input)]
            case layers.Conv2DTranspose(kernel_size=(2, 2), strides=(2, 2)):
                new = _upsampled(layer, self.plain(layer.input), _phases_transposed(self._weights(layer)))
            case layers.Conv2D(strides=(1, 1), padding="same"):
                new = self._convolution(layer, self._new[id(layer.input)])
            case _:
                tensors = [self.plain(tensor) for tensor in inputs_of(layer)]
                new = layer(tensors if len(tensors) > 1 else tensors[0])
        self._new[id(layer.output)] = new

    def _convolution(self, layer: Any, features: Any) -> Any:
        match features:
            case _Pending(layer=keras.layers.UpSampling2D(), inputs=[small]) if layer.kernel_size == (2, 2):
                return _upsampled(layer, small, _phases(self._weights(layer)))
            case _Pending(layer=keras.layers.Concatenate(), inputs=parts) if self._sums:
                return _summed(layer, parts, self._weights(layer))
        features = self.plain(layer.input)
        if id(layer.output) not in self._norms:
            return layer(features)
        weights = self._weights(layer)
        return _convolved(layer, layer.name, features, weights.kernel, weights.bias, layer.activation)

    def _weights(self, layer: Any) -> _Weights:
        kernel = np.array(layer.kernel.numpy(), np.float32)
        outputs = layer.filters
        bias = np.array(layer.bias.numpy(), np.float32) if layer.use_bias else np.zeros(outputs, np.float32)
        norm = self._norms.get(id(layer.output))
        if norm is None:
            return _Weights(kernel, bias)
        scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        # Conv2DTranspose keeps its outputs on the axis before the last.
        transposed = isinstance(layer, keras.layers.Conv2DTranspose)
        kernel *= scale[:, None] if transposed else scale
        return _Weights(kernel, (bias - norm.moving_mean.numpy()) * scale + norm.beta.numpy())


def _norms(network: Any) -> dict[int, Any]:
    """Batch normalisations by the tensor they read, where that is a convolution's, without activation, and theirs alone."""
    readers: dict[int, list[Any]] = {}
    for layer in network.layers:
        for tensor in inputs_of(layer):
            readers.setdefault(id(tensor), []).append(layer)
    convolutions = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose)
        and layer.activation is keras.activations.linear
    ]
    found = {id(layer.output): readers.get(id(layer.output), []) for layer in convolutions}
    return {
        key: layers[0]
        for key, layers in found.items()
        if len(layers) == 1 and isinstance(layers[0], keras.layers.BatchNormalization)
    }


def _phases(weights: _Weights) -> tuple[list[list[Float32]], Float32]:
    """Kernels [row][column] of the four phases of a 2x2 convolution after enlarging twice, and its bias.

    "same" pads an even kernel after, so output y reads the enlarged rows y and y + 1: an even one the same small row
    twice, an odd one a small row and the next. At the end that is the padding in both.
    """
    kernel = weights.kernel
    rows = [kernel.sum(axis=0, keepdims=True), kernel]
    return [[row.sum(axis=1, keepdims=True), row] for row in rows], weights.bias


def _phases_transposed(weights: _Weights) -> tuple[list[list[Float32]], Float32]:
    """Kernels [row][column] of the four phases of a 2x2 transposed convolution of stride 2, and its bias."""
    kernel = weights.kernel.transpose(0, 1, 3, 2)
    return [[kernel[y : y + 1, x : x + 1] for x in (0, 1)] for y in (0, 1)], weights.bias


def _upsampled(layer: Any, small: Any, phases: tuple[list[list[Float32]], Float32]) -> Any:
    """Compute the phases of a layer's output and interleave them."""
    kernels, bias = phases
    rows = []
    for row, columns in zip(("even", "odd"), kernels, strict=True):
        name = f"{layer.name}_{row}"
        if layer.filters >= _WIDE:
            parts = [
                _convolved(layer, f"{name}_{column}", small, kernel, bias, layer.activation)
                for column, kernel in zip(("even", "odd"), columns, strict=True)
            ]
            rows.append(keras.layers.Concatenate(name=name)(parts))
        else:
            even, odd = columns
            # A pixel of weight 0 after the one that an even column needs.
            even = np.pad(even, [(0, 0), (0, odd.shape[1] - even.shape[1]), (0, 0), (0, 0)])
            both = np.concatenate([even, odd], axis=-1)
            rows.append(_convolved(layer, name, small, both, np.tile(bias, 2), layer.activation))
    return _Interleave(name=f"{layer.name}_interleave", dtype=layer.dtype_policy)(rows)


def _summed(layer: Any, parts: list[Any], weights: _Weights) -> Any:
    """Convolve concatenated features part by part."""
    ends = np.cumsum([part.shape[-1] for part in parts])
    kernels = np.split(weights.kernel, ends[:-1], axis=2)
    # The bias goes with the last part, whose convolution the backend can join with the sum.
    biases = [*[None] * (len(parts) - 1), weights.bias]
    features = [
        _convolved(layer, f"{layer.name}_part{i}", part, kernel, bias, None)
        for i, (part, kernel, bias) in enumerate(zip(parts, kernels, biases, strict=True))
    ]
    total = _Sum(name=f"{layer.name}_sum", dtype=layer.dtype_policy)(features[::-1])
    if layer.activation is keras.activations.linear:
        return total
    return keras.layers.Activation(
        layer.activation, name=f"{layer.name}_activation", dtype=layer.dtype_policy
    )(total)


def _convolved(
    like: Any, name: str, features: Any, kernel: Float32, bias: Float32 | None, activation: Any
) -> Any:
    """Apply a new convolution in the precision of the layer that it stands for."""
    layer = keras.layers.Conv2D(
        kernel.shape[-1],
        kernel.shape[:2],
        padding="same",
        activation=activation,
        use_bias=bias is not None,
        kernel_initializer="zeros",  # its weights follow; no random numbers are drawn for them
        dtype=like.dtype_policy,
        name=name,
    )
    result = layer(features)
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return result


class _Interleave(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """Two (B, y, x, 2 F), the even and the odd rows with both columns of a pixel side by side, to (B, 2 y, 2 x, F)."""

    def call(self, rows: list[Any]) -> Any:
        ops = keras.ops
        y, x = ops.shape(rows[0])[1:3]
        return ops.reshape(ops.stack(rows, axis=2), (-1, 2 * y, 2 * x, rows[0].shape[-1] // 2))

    def compute_output_shape(self, shapes: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        batch, y, x, features = shapes[0]
        return batch, y and 2 * y, x and 2 * x, features and features // 2


class _Sum(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """The sum of features of one shape."""

    def call(self, parts: list[Any]) -> Any:
        return computing.total(parts)

    def compute_output_shape(self, shapes: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return shapes[0]
