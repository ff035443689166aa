"""The network: the published one, the linked program, and how far it looks."""

from __future__ import annotations

from itertools import product

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from napari_unet.config import UNetConfig
from napari_unet.data.advice import receptive_field
from napari_unet.data.tiling import Halo
from napari_unet.errors import ModelError
from napari_unet.nn.model import read_weights, write_weights
from napari_unet.nn.network import build_unet, halo
from napari_unet.spec import weight_shapes

CONFIGS = st.builds(
    UNetConfig,
    channels=st.integers(1, 4),
    classes=st.integers(2, 5),
    depth=st.integers(1, 4),
    filters=st.integers(1, 3),
)
OPTIONS = {
    "normalization": ("none", "batch"),
    "activation": ("relu", "leaky_relu"),
    "skips": ("concatenate", "add"),
    "upsampling": ("nearest", "transposed"),
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in product(*OPTIONS.values())]
LINKED = st.builds(
    UNetConfig, channels=st.integers(1, 4), depth=st.integers(1, 4), architecture=st.just("linked-code")
)


def linked_program(filters: int = 64) -> keras.Model:
    """The article's linked program, written out: four modules, no loop, no shared helper."""

    def conv(x, width, size=3):
        return layers.Conv2D(width, size, activation="relu", padding="same")(x)

    f = filters
    image = keras.Input((None, None, 1))
    c1 = conv(conv(image, f), f)
    c2 = conv(conv(layers.MaxPooling2D()(c1), 2 * f), 2 * f)
    c3 = conv(conv(layers.MaxPooling2D()(c2), 4 * f), 4 * f)
    c4 = conv(conv(layers.MaxPooling2D()(c3), 8 * f), 8 * f)
    d4 = layers.Dropout(0.5)(c4)
    c5 = conv(conv(layers.MaxPooling2D()(d4), 16 * f), 16 * f)
    d5 = layers.Dropout(0.5)(c5)
    u6 = layers.concatenate([d4, conv(layers.UpSampling2D()(d5), 8 * f, 2)])
    c6 = conv(conv(u6, 8 * f), 8 * f)
    u7 = layers.concatenate([c3, conv(layers.UpSampling2D()(c6), 4 * f, 2)])
    c7 = conv(conv(u7, 4 * f), 4 * f)
    u8 = layers.concatenate([c2, conv(layers.UpSampling2D()(c7), 2 * f, 2)])
    c8 = conv(conv(u8, 2 * f), 2 * f)
    u9 = layers.concatenate([c1, conv(layers.UpSampling2D()(c8), f, 2)])
    c9 = conv(conv(conv(u9, f), f), 2)
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(c9))


@pytest.fixture(scope="module")
def linked() -> keras.Model:
    return build_unet(UNetConfig.preset("linked-code"))


def test_parameters_of_the_article() -> None:
    assert build_unet(UNetConfig.preset("article")).count_params() == 31_030_593


def test_parameters_of_the_linked_program(linked: keras.Model) -> None:
    assert linked.count_params() == 31_031_685
    assert linked_program().count_params() == 31_031_685


def test_layers_of_the_linked_program(linked: keras.Model) -> None:
    down = [f"down{i}_{part}" for i in range(4) for part in ("conv0", "conv1", "pool")]
    down.insert(-1, "down3_dropout")
    up = [
        f"up{i}_{part}" for i in (3, 2, 1, 0) for part in ("upsample", "upconv", "concat", "conv0", "conv1")
    ]
    bottom = ["bottom_conv0", "bottom_conv1", "bottom_dropout"]
    assert [layer.name for layer in linked.layers] == ["image", *down, *bottom, *up, "head_conv", "logits"]
    head = linked.get_layer("head_conv")
    assert (head.filters, head.kernel_size, head.activation.__name__) == (2, (3, 3), "relu")
    for name in ("down3_dropout", "bottom_dropout"):
        assert linked.get_layer(name).rate == 0.5
    for layer in linked.layers:
        if isinstance(layer, layers.Conv2D):
            assert layer.padding == "same" or layer.kernel_size == (1, 1)
            assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)


def test_connections_of_the_linked_program(linked: keras.Model) -> None:
    for level, source in enumerate(("down0_conv1", "down1_conv1", "down2_conv1", "down3_dropout")):
        skip, up = linked.get_layer(f"up{level}_concat").input
        assert skip is linked.get_layer(source).output
        assert up is linked.get_layer(f"up{level}_upconv").output
        assert linked.get_layer(f"down{level}_pool").input is linked.get_layer(source).output


def test_the_deepest_skip_drops_out_while_training() -> None:
    keras.utils.set_random_seed(0)
    network = build_unet(UNetConfig.preset("linked-code", filters=2))
    parts = keras.Model(
        network.input,
        [network.get_layer(name).output for name in ("down3_conv1", "down3_dropout", "up3_concat")],
    )
    pixels = np.random.default_rng(0).random((1, 64, 64, 1), np.float32)
    features, dropped, joined = (np.asarray(x) for x in parts(pixels, training=True))
    width = features.shape[-1]
    lost = (dropped == 0) & (features > 0)
    assert 0.3 < lost.sum() / (features > 0).sum() < 0.7
    np.testing.assert_allclose(dropped[~lost], 2 * features[~lost], rtol=1e-6)
    np.testing.assert_array_equal(joined[..., :width], dropped)
    features, dropped, joined = (np.asarray(x) for x in parts(pixels, training=False))
    np.testing.assert_array_equal(joined[..., :width], features)


def test_linked_code_computes_what_the_linked_program_computes() -> None:
    ours, theirs = build_unet(UNetConfig.preset("linked-code", filters=8)), linked_program(8)
    rng = np.random.default_rng(1)
    for variable in theirs.weights:  # biases too, which start at 0
        if len(variable.shape) == 1:
            variable.assign(rng.normal(0.05, 0.1, variable.shape))
    names = list(weight_shapes(UNetConfig.preset("linked-code", filters=8)))
    write_weights(ours, dict(zip(names, theirs.get_weights(), strict=True)))
    pixels = rng.random((2, 48, 64, 1), np.float32)
    expected = np.asarray(theirs(pixels, training=False))
    found = np.asarray(keras.ops.sigmoid(ours(pixels, training=False)))
    assert expected.std() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_article_starts_from_he_normal_without_a_second_head() -> None:
    network = build_unet(UNetConfig(filters=1))
    kinds = {type(x.kernel_initializer) for x in network.layers if isinstance(x, layers.Conv2D)}
    assert kinds == {keras.initializers.HeNormal}
    assert "head_conv" not in [layer.name for layer in network.layers]


@settings(max_examples=25, deadline=None)
@given(CONFIGS | LINKED.map(lambda c: c.replace(filters=1)))
def test_weights_are_those_that_the_card_promises(config: UNetConfig) -> None:
    found = {name: array.shape for name, array in read_weights(build_unet(config)).items()}
    assert found == weight_shapes(config)
    assert list(found) == list(weight_shapes(config))


@pytest.mark.parametrize("options", COMBINATIONS)
def test_weights_of_every_combination_of_options(options: dict[str, str]) -> None:
    config = UNetConfig(filters=2, depth=2, channels=3, classes=4, **options)
    network = build_unet(config)
    found = {name: array.shape for name, array in read_weights(network).items()}
    assert found == weight_shapes(config)
    assert list(found) == list(weight_shapes(config))
    assert halo(network) == Halo(24, 28 if options["upsampling"] == "nearest" else 24)
    assert network(np.zeros((1, 8, 12, 3), np.float32)).shape == (1, 8, 12, 4)


def test_options_change_what_they_name() -> None:
    def kinds(**options: str) -> set[type]:
        # Our batch normalisation is Keras's, but for how it trains.
        known = (type(layer) for layer in build_unet(UNetConfig(filters=1, depth=1, **options)).layers)
        return {
            layers.BatchNormalization if issubclass(kind, layers.BatchNormalization) else kind
            for kind in known
        }

    plain = kinds()
    assert kinds(normalization="batch") - plain == {layers.BatchNormalization, layers.ReLU}
    assert kinds(activation="leaky_relu") - plain == {layers.LeakyReLU}
    assert kinds(skips="add") ^ plain == {layers.Add, layers.Concatenate}
    assert kinds(upsampling="transposed") ^ plain == {layers.Conv2DTranspose, layers.UpSampling2D}


@pytest.mark.parametrize("upsampling", OPTIONS["upsampling"])
def test_an_up_convolution_keeps_the_size_of_features_at_the_start(upsampling: str) -> None:
    keras.utils.set_random_seed(0)
    network = build_unet(UNetConfig(filters=16, depth=2, upsampling=upsampling))
    names = ("bottom_dropout", "up1_upconv")
    parts = keras.Model(network.input, [network.get_layer(name).output for name in names])
    pixels = np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype(np.float32)
    before, after = (np.square(np.asarray(features)).mean() for features in parts(pixels))
    assert 0.7 < after / before < 1.4


def test_two_classes_have_one_output_of_the_size_of_the_input() -> None:
    network = build_unet(UNetConfig(filters=1, depth=2, channels=2))
    assert network(np.zeros((3, 8, 20, 2), np.float32)).shape == (3, 8, 20, 1)


@pytest.mark.parametrize(
    ("depth", "before", "after"), [(2, 24, 28), (3, 48, 56), (4, 96, 112), (5, 192, 224)]
)
def test_halo_is_the_measured_one(depth: int, before: int, after: int) -> None:
    assert halo(build_unet(UNetConfig(filters=1, depth=depth))) == Halo(before, after)


def test_nothing_beyond_the_halo_changes_a_block() -> None:
    config = UNetConfig(filters=3, depth=2)
    network, stride = build_unet(config), config.stride
    reach = halo(network)
    rng = np.random.default_rng(0)
    pixels = rng.random((1, 96, 96, 1), np.float32)
    block = slice(40, 40 + stride)
    whole = np.asarray(network(pixels))[:, block, block]
    near = slice(40 - reach.before, 40 + stride + reach.after)
    changed = rng.random(pixels.shape, np.float32)
    changed[:, near, near] = pixels[:, near, near]
    np.testing.assert_allclose(np.asarray(network(changed))[:, block, block], whole, atol=1e-6)


def test_a_layer_of_unknown_reach_is_refused() -> None:
    image = keras.Input((None, None, 1))
    network = keras.Model(image, layers.GroupNormalization(1, name="norm")(image))
    with pytest.raises(ModelError, match=r"'norm' \(GroupNormalization\) is not known"):
        halo(network)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(filters=1, depth=1),
        UNetConfig(filters=1, depth=2),
        UNetConfig(filters=1, depth=2, upsampling="transposed"),
        UNetConfig(filters=1, depth=2, architecture="linked-code"),
    ],
)
def test_the_receptive_field_is_what_changes_an_answer(config: UNetConfig) -> None:
    network, side = build_unet(config), 128
    for variable in network.trainable_variables:
        variable.assign(np.full(variable.shape, 0.5, np.float32))  # nothing cancels, and no ReLU is dead
    pixels = np.ones((side, config.stride, side, 1), np.float32)
    pixels[np.arange(side), :, np.arange(side)] += 1  # another column in each image
    answers = np.asarray(network(np.concatenate([np.ones_like(pixels[:1]), pixels])), np.float64)
    changed = (answers[1:] != answers[0]).any((1, 3))  # (column changed, column of the answer)
    middle = range(side // 2, side // 2 + config.stride)
    widths = [np.ptp(np.flatnonzero(changed[:, x])) + 1 for x in middle]
    assert max(widths) == receptive_field(config)


def test_batch_normalisation_trains_as_kerass_does() -> None:
    ours = next(
        layer
        for layer in build_unet(UNetConfig(filters=3, depth=1, normalization="batch")).layers
        if isinstance(layer, layers.BatchNormalization)
    )
    theirs = layers.BatchNormalization()
    features = 3 + 2 * np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    theirs.build(features.shape)
    scale, offset = np.array([1, 2, 3], np.float32), np.array([0.5, 0, -1], np.float32)
    for layer in (ours, theirs):
        layer.momentum = 0.9
        layer.gamma.assign(scale)
        layer.beta.assign(offset)
    for training in (True, True, False):
        expected = np.asarray(theirs(features, training=training))
        np.testing.assert_allclose(np.asarray(ours(features, training=training)), expected, atol=1e-4)
    np.testing.assert_allclose(ours.moving_mean.numpy(), theirs.moving_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance.numpy(), theirs.moving_variance.numpy(), rtol=1e-4)
