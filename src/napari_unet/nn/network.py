"""The U-Net, and how far it looks.

The network of Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical
Image Segmentation", MICCAI 2015, with "same" padding, so that output and input have one size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.config import UNetConfig
from napari_unet.data.tiling import Halo
from napari_unet.errors import ModelError
from napari_unet.nn.backend import load_keras

if TYPE_CHECKING:
    import keras
else:
    keras = load_keras()

__all__ = ["build_unet", "halo"]


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
        features = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"up{level}_upsample")(features)
        features = _convolution(features, f"up{level}_upconv", width, 2, config)
        features = keras.layers.Concatenate(name=f"up{level}_concat")([skips[level], features])
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
        Made of convolutions, 2x2 poolings and upsamplings, concatenations and layers that work
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
        for tensor in _inputs(layer):
            known = reach.get(id(tensor), (0, 0))
            reach[id(tensor)] = (max(known[0], before), max(known[1], after))
    before, after = reach[id(network.input)]
    return Halo(before=-(-before // stride) * stride, after=-(-after // stride) * stride)


def _module(features: Any, name: str, width: int, config: UNetConfig) -> Any:
    features = _convolution(features, f"{name}_conv0", width, 3, config)
    return _convolution(features, f"{name}_conv1", width, 3, config)


def _convolution(features: Any, name: str, width: int, size: int, config: UNetConfig) -> Any:
    layer = keras.layers.Conv2D(
        width,
        size,
        activation="relu",
        padding="same",
        kernel_initializer=_initializer(config),
        name=name,
    )
    return layer(features)


def _initializer(config: UNetConfig) -> str:
    # The linked program leaves Keras's default.
    return "glorot_uniform" if config.architecture == "linked-code" else "he_normal"


def _inputs(layer: Any) -> list[Any]:
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
        case layers.UpSampling2D(size=(2, 2), interpolation="nearest"):
            return -(-before // 2), -(-after // 2)
        case (
            layers.InputLayer()
            | layers.Concatenate()
            | layers.Dropout()
            | layers.Activation()
            | layers.Softmax()
        ):
            return before, after
    raise ModelError(
        f"The reach of layer {layer.name!r} ({type(layer).__name__}) is not known, so the network cannot be applied "
        "tile by tile: use a network made by build_unet."
    )
