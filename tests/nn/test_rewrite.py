"""The rewritten network answers as the trained one does, with less work."""

from __future__ import annotations

from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from napari_unet.config import UNetConfig
from napari_unet.nn import backend, computing
from napari_unet.nn.network import build_unet
from napari_unet.nn.rewrite import for_prediction

CONFIGS = st.builds(
    UNetConfig,
    channels=st.integers(1, 3),
    classes=st.integers(2, 4),
    depth=st.integers(1, 3),
    filters=st.integers(1, 5),
    normalization=st.sampled_from(["none", "batch"]),
    activation=st.sampled_from(["relu", "leaky_relu"]),
    skips=st.sampled_from(["concatenate", "add"]),
    upsampling=st.sampled_from(["nearest", "transposed"]),
)


def trained(config: UNetConfig, seed: int = 0) -> keras.Model:
    """A network whose biases and statistics are not those it starts with."""
    keras.utils.set_random_seed(seed)
    network = build_unet(config)
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if len(variable.shape) == 1:
            positive = "variance" in variable.name or "gamma" in variable.name
            variable.assign(
                rng.uniform(0.8, 1.2, variable.shape) if positive else rng.normal(0, 0.2, variable.shape)
            )
    return network


def answers(config: UNetConfig, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of both networks for one image."""
    network = trained(config, seed)
    pixels = np.random.default_rng(seed).random((1, *size, config.channels), np.float32)
    head = keras.ops.sigmoid if config.logits == 1 else keras.ops.softmax
    # The rewritten one as it is used: what the backend makes of it when it is traced counts, too.
    logits = network(pixels, training=False), computing.traced(for_prediction(network))(pixels)
    first, second = map(head, logits)
    return np.asarray(first), np.asarray(second)


@settings(max_examples=15, deadline=None)
@given(CONFIGS, st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 3))
def test_it_answers_the_same(config: UNetConfig, blocks: tuple[int, int], seed: int) -> None:
    size = (blocks[0] * config.stride, blocks[1] * config.stride)
    expected, found = answers(config, size, seed)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_leaky_relu_keeps_its_slope(normalization: str) -> None:
    config = UNetConfig(filters=4, depth=2, activation="leaky_relu", normalization=normalization)
    expected, found = answers(config, (48, 32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    network = trained(config)
    pixels = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    np.testing.assert_allclose(computing.traced(network)(pixels), np.asarray(network(pixels)), atol=1e-5)


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
def test_wide_up_convolutions_answer_the_same(upsampling: str) -> None:
    config = UNetConfig(filters=64, depth=1, upsampling=upsampling)
    expected, found = answers(config, (10, 6))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_linked_program_answers_the_same() -> None:
    expected, found = answers(UNetConfig.preset("linked-code", filters=2), (48, 32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("border", [(-1, slice(None)), (slice(None), -1), (0, 0)])
def test_the_border_sees_zeros_beyond_it(border: Any) -> None:
    config = UNetConfig(filters=3, depth=1)
    network = trained(config)
    part = keras.Model(network.input, network.get_layer("up0_upconv").output)
    pixels = np.random.default_rng(0).random((1, 6, 8, 1), np.float32)
    expected, found = (np.asarray(n(pixels, training=False)) for n in (part, for_prediction(part)))
    np.testing.assert_allclose(found[0][border], expected[0][border], atol=1e-5)


@pytest.mark.parametrize("options", list(product(("none", "batch"), ("nearest", "transposed"))))
def test_nothing_is_enlarged_normalised_or_joined_beforehand(options: tuple[str, str]) -> None:
    normalization, upsampling = options
    network = build_unet(UNetConfig(filters=2, depth=2, normalization=normalization, upsampling=upsampling))
    kinds = {type(layer) for layer in for_prediction(network).layers}
    assert not kinds & {
        layers.UpSampling2D,
        layers.Conv2DTranspose,
        layers.BatchNormalization,
        layers.Concatenate,
    }


def test_the_trained_network_is_left_as_it_is() -> None:
    network = trained(UNetConfig(filters=2, depth=2, normalization="batch"))
    before, names = network.get_weights(), [layer.name for layer in network.layers]
    for_prediction(network)
    assert [layer.name for layer in network.layers] == names
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_low_precision_stays_low() -> None:
    with backend.policy("bfloat16"):
        network = trained(UNetConfig(filters=2, depth=1, normalization="batch", activation="leaky_relu"))
    fast = for_prediction(network)
    computed = {layer.compute_dtype for layer in fast.layers if isinstance(layer, layers.Conv2D)}
    assert computed == {"bfloat16", "float32"}  # the logits are float32
    pixels = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    np.testing.assert_allclose(np.asarray(fast(pixels)), np.asarray(network(pixels)), atol=0.2)
