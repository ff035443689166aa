"""Beginning with another model's weights: what is kept, what is new, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.config import UNetConfig
from napari_unet.errors import ModelError
from napari_unet.nn.model import read_weights, write_weights
from napari_unet.nn.network import build_unet
from napari_unet.nn.transfer import carry_over
from napari_unet.spec import ClassInfo, ModelSpec, ObjectDecoding, weight_shapes

SHAPE = UNetConfig(filters=2, depth=1)


def card(network: UNetConfig) -> ModelSpec:
    classes = tuple(ClassInfo(value=value) for value in range(network.classes))
    return ModelSpec(name="nuclei", network=network, classes=classes)


def drawn(network: UNetConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in weight_shapes(network).items()}


def test_the_same_network_keeps_everything() -> None:
    weights = drawn(SHAPE)
    kept, sentence = carry_over(card(SHAPE), weights, card(SHAPE.replace(dropout=0.1)))
    assert kept.keys() == weights.keys()
    assert all(np.array_equal(kept[name], weights[name]) for name in kept)
    assert sentence == "Training begins with model 'nuclei' (2 filters, depth 1): all weights are kept."


def test_other_classes_get_a_new_last_layer() -> None:
    kept, sentence = carry_over(card(SHAPE), drawn(SHAPE), card(SHAPE.replace(classes=4)))
    assert weight_shapes(SHAPE).keys() - kept.keys() == {"logits/kernel", "logits/bias"}
    assert sentence == (
        "Training begins with model 'nuclei' (2 filters, depth 1): all weights are kept, but the last layer is new, because there are 4 classes instead of 2."
    )


def classes(*named: tuple[int, str], target: str = "classes") -> ModelSpec:
    """A card of classes of these values and names."""
    return ModelSpec(
        name="nuclei",
        network=SHAPE.replace(classes=len(named)),
        classes=tuple(ClassInfo(value=value, name=name) for value, name in named),
        target=target,
        objects=ObjectDecoding() if target == "objects" else None,
    )


@pytest.mark.parametrize(
    ("before", "after", "because"),
    [
        (classes((0, ""), (1, "")), classes((0, ""), (3, "")), "it learns class 3 instead of class 1"),
        (
            classes((0, ""), (1, "nuclei")),
            classes((0, ""), (1, "walls")),
            "it learns walls instead of nuclei",
        ),
        (
            classes((0, ""), (1, ""), (2, "")),
            classes((0, ""), (1, ""), (2, ""), target="objects"),
            "it learns objects instead of classes",
        ),
    ],
)
def test_other_classes_of_equal_number_get_a_new_last_layer(
    before: ModelSpec, after: ModelSpec, because: str
) -> None:
    weights = drawn(before.network)
    kept, sentence = carry_over(before, weights, after)
    assert weights.keys() - kept.keys() == {"logits/kernel", "logits/bias"}
    assert sentence.endswith(f": all weights are kept, but the last layer is new, because {because}.")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (classes((0, "background"), (1, "class 1")), classes((0, ""), (1, "nuclei"))),
        (classes((0, "background"), (2, "")), classes((1, "background"), (2, "class 2"))),
    ],
)
def test_classes_that_may_be_the_same_keep_the_last_layer(before: ModelSpec, after: ModelSpec) -> None:
    kept, sentence = carry_over(before, drawn(before.network), after)
    assert "logits/kernel" in kept
    assert sentence.endswith(": all weights are kept.")


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5)])
def test_other_channels_answer_alike_on_images_that_are_grey(before: int, after: int) -> None:
    old, new = SHAPE.replace(channels=before), SHAPE.replace(channels=after)
    weights = drawn(old)
    kept, sentence = carry_over(card(old), weights, card(new))
    assert {name: array.shape for name, array in kept.items()} == weight_shapes(new)
    assert f"spread over {after} channel" in sentence and f"instead of {before}" in sentence
    grey = np.random.default_rng(1).random((1, 8, 8, 1), np.float32)
    answers = []
    for network, arrays in ((old, weights), (new, kept)):
        built = build_unet(network)
        write_weights(built, arrays)
        answers.append(np.asarray(built(np.repeat(grey, network.channels, axis=-1))))
    np.testing.assert_allclose(*answers, atol=1e-5 * np.abs(answers[0]).max())


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (SHAPE.replace(filters=4), "has a network of filters 2, but this training asks for one of filters 4"),
        (SHAPE.replace(depth=2), "has a network of depth 1, but this training asks for one of depth 2"),
        (SHAPE.replace(activation="leaky_relu"), "of activation relu, but .* of activation leaky_relu"),
    ],
)
def test_another_shape_is_refused(other: UNetConfig, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        carry_over(card(SHAPE), read_weights(build_unet(SHAPE)), card(other))
