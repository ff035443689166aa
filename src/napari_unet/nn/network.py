"""The U-Net, and how far it looks.

The network of Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical
Image Segmentation", MICCAI 2015, with "same" padding, so that output and input have one size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.config import UNetConfig
from napari_unet.data.tiling import Halo
from napari_unet.errors import ModelError
from napari_unet.nn import backend, computing

if TYPE_CHECKING:
    import keras
else:
    keras = backend.load_keras()

__all__ = ["build_unet", "halo", "inputs_of"]

_SLOPE = 0.01  # of leaky ReLU, below 0


def build_unet(config: UNetConfig | None = None) -> keras.Model:
    """Build a U-Net with fresh weights.

    Every layer has a name of its own, the same in each process; those with weights are named as
    in `napari_unet.spec.weight_shapes`. Layers compute in Keras's global precision, save the
    logits, which are float32.

    Parameters
    ----------
    config : UNetConfig, optional
        Shape of the network; by default the article's.

    Returns
    -------
    keras.Model
        From images (B, Y, X, C) to logits (B, Y, X, L), with Y and X multiples of
        ``config.stride`` and L = ``config.logits``.

    Examples
    --------
    >>> build_unet(UNetConfig.preset("article")).count_params()
    31030593
    """
    config = config or UNetConfig()
    linked = config.architecture == "linked-code"
    inputs = keras.Input((None, None, config.channels), name="image")
    features = inputs
    skips = []
    for level in range(config.depth):
        features = _module(features, f"down{level}", config.filters * 2**level, config)
        if linked and level == config.depth - 1:
            # Before the pooling, and on the skip: the linked program concatenates the dropped-out features.
            features = keras.layers.Dropout(config.dropout, name=f"down{level}_dropout")(features)
        skips.append(features)
        features = keras.layers.MaxPooling2D(2, name=f"down{level}_pool")(features)
    features = _module(features, "bottom", config.filters * 2**config.depth, config)
    features = keras.layers.Dropout(config.dropout, name="bottom_dropout")(features)
    for level in reversed(range(config.depth)):
        width = config.filters * 2**level
        features = _upsampled(features, f"up{level}", width, config)
        features = _joined(skips[level], features, f"up{level}", config)
        features = _module(features, f"up{level}", width, config)
    if linked:
        features = _convolution(features, "head_conv", 2, 3, config)
    logits = keras.layers.Conv2D(
        config.logits, 1, kernel_initializer=_initializer(config), dtype="float32", name="logits"
    )(features)
    return keras.Model(inputs, logits, name="unet")


def halo(network: keras.Model) -> Halo:
    """Compute how far a network looks past a block of output, from its layers.

    For a block whose borders are multiples of the network's stride; a block at other offsets
    would need more.

    Parameters
    ----------
    network : keras.Model
        Made of convolutions, 2x2 poolings and upsamplings, concatenations, sums and layers that work
        pixel by pixel.

    Returns
    -------
    Halo
        Reach in input pixels, in multiples of the stride, because reads start and stop there.

    Raises
    ------
    ModelError
        If a layer isn't one of these, or if it looks at the whole image.
    """
    # From the output back to the input: what is needed before and after a block, in the pixels of each tensor.
    reach: dict[int, tuple[int, int]] = {id(network.output): (0, 0)}
    stride = 1
    for layer in reversed(network.layers):
        before, after = _reach(layer, *reach[id(layer.output)])
        if isinstance(layer, keras.layers.MaxPooling2D):
            stride *= 2
        for tensor in inputs_of(layer):
            known = reach.get(id(tensor), (0, 0))
            reach[id(tensor)] = (max(known[0], before), max(known[1], after))
    before, after = reach[id(network.input)]
    return Halo(before=-(-before // stride) * stride, after=-(-after // stride) * stride)


def _module(features: Any, name: str, width: int, config: UNetConfig) -> Any:
    features = _convolution(features, f"{name}_conv0", width, 3, config)
    return _convolution(features, f"{name}_conv1", width, 3, config)


def _upsampled(features: Any, name: str, width: int, config: UNetConfig) -> Any:
    """Double the resolution, to `width` features: the article's up-convolution."""
    if config.upsampling == "nearest":
        features = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_upsample")(features)
        return _convolution(features, f"{name}_upconv", width, 2, config)
    options = _convolution_options(config)
    # he_normal for what an output pixel reads, one pixel of twice the width; Keras takes it for four of `width`.
    options["kernel_initializer"] = keras.initializers.VarianceScaling(4.0, "fan_in", "truncated_normal")
    layer = keras.layers.Conv2DTranspose(
        width, 2, strides=2, padding="same", name=f"{name}_upconv", **options
    )
    return _activated(layer(features), layer.name, config)


def _joined(skip: Any, features: Any, name: str, config: UNetConfig) -> Any:
    if config.skips == "concatenate":
        return keras.layers.Concatenate(name=f"{name}_concat")([skip, features])
    return keras.layers.Add(name=f"{name}_add")([skip, features])


def _convolution(features: Any, name: str, width: int, size: int, config: UNetConfig) -> Any:
    layer = keras.layers.Conv2D(width, size, padding="same", name=name, **_convolution_options(config))
    return _activated(layer(features), name, config)


def _convolution_options(config: UNetConfig) -> dict[str, Any]:
    plain = config.normalization == "none"
    return {
        "activation": "relu" if plain and config.activation == "relu" else None,
        "use_bias": plain,  # a normalisation takes it away again, and adds its own
        "kernel_initializer": _initializer(config),
    }


def _activated(features: Any, name: str, config: UNetConfig) -> Any:
    """Apply what follows a convolution, as far as that doesn't do it itself."""
    if config.normalization == "batch":
        features = _BatchNormalization(name=f"{name}_norm")(features)
        if config.activation == "relu":
            return keras.layers.ReLU(name=f"{name}_relu")(features)
    if config.activation == "leaky_relu":
        # The slope of Maas et al., "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.
        return keras.layers.LeakyReLU(_SLOPE, name=f"{name}_leaky_relu")(features)
    return features


class _BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc,unused-ignore]
    """Keras's layer, quicker to train."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        found = computing.batch_normalized(inputs, self.gamma, self.beta, self.epsilon) if training else None
        if found is None:
            return super().call(inputs, training=training, mask=mask)
        normalised, mean, variance = found
        for variable, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            variable.assign(variable * self.momentum + value * (1.0 - self.momentum))
        return normalised


def _initializer(config: UNetConfig) -> str:
    # The linked program leaves Keras's default.
    return "glorot_uniform" if config.architecture == "linked-code" else "he_normal"


def inputs_of(layer: Any) -> list[Any]:
    """List the tensors that a layer is given."""
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return list(layer.input) if isinstance(layer.input, list | tuple) else [layer.input]


def _reach(layer: Any, before: int, after: int) -> tuple[int, int]:
    """Return what a layer's input must hold around the block, given what its output must."""
    layers = keras.layers
    match layer:
        case layers.Conv2D(kernel_size=(1, 1), strides=(1, 1)):
            return before, after
        case layers.Conv2D(padding="same", strides=(1, 1), kernel_size=(size, other)) if size == other:
            # "same" pads an even kernel by one pixel more after than before.
            return before + (size - 1) // 2, after + size // 2
        case layers.MaxPooling2D(pool_size=(2, 2), strides=(2, 2)):
            return 2 * before, 2 * after
        case (
            layers.UpSampling2D(size=(2, 2), interpolation="nearest")
            | layers.Conv2DTranspose(kernel_size=(2, 2), strides=(2, 2))
        ):
            return -(-before // 2), -(-after // 2)
        case (
            layers.InputLayer()
            | layers.Concatenate()
            | layers.Add()
            | layers.BatchNormalization()  # by fixed statistics
            | layers.ReLU()
            | layers.LeakyReLU()
            | layers.Dropout()
            | layers.Activation()
            | layers.Softmax()
        ):
            return before, after
    raise ModelError(
        f"The reach of layer {layer.name!r} ({type(layer).__name__}) is not known, so the network cannot be applied "
        "tile by tile: use a network made by build_unet."
    )
