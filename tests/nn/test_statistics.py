"""Batch normalisation while training: its statistics follow, are averaged, saved and resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset
from napari_unet.errors import ModelError
from napari_unet.events import StepDone
from napari_unet.files.model import read_model_file, save_model_file
from napari_unet.nn.learner import Learner
from napari_unet.nn.model import UNetModel, read_weights
from napari_unet.nn.optimizer import average_momentum
from napari_unet.nn.prediction import segment
from napari_unet.nn.training import Checkpoint, train_network
from napari_unet.spec import ModelSpec

from .conftest import squares

NETWORK = UNetConfig(
    filters=2,
    depth=1,
    normalization="batch",
    activation="leaky_relu",
    skips="add",
    upsampling="transposed",
)
SPEC = ModelSpec(network=NETWORK)
CONFIG = TrainConfig(steps=8, patch=32, batch=2, warmup=2, precision="float32", checkpoint_seconds=3600)
MEAN, VARIANCE = "down0_conv0_norm/moving_mean", "down0_conv0_norm/moving_variance"


def a_batch(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.normal(0.5, 0.2, (2, 16, 16, 1)).astype(np.float32)
    return images, (images[..., 0] > 0.5).astype(np.uint8), np.ones((2, 16, 16), np.float32)


def test_statistics_are_averaged_as_the_weights_are() -> None:
    learner = Learner(NETWORK, CONFIG, 0)
    arrays = UNetModel(SPEC, learner.network).arrays
    mean, variance = arrays()[MEAN], arrays()[VARIANCE]
    for step in range(3):
        images, _, _ = batch = a_batch(step)
        features = np.asarray(learner.network.get_layer("down0_conv0")(images))
        learner.step(batch, step, 3, 1.0)
        past = average_momentum(step)
        mean = past * mean + (1 - past) * features.mean((0, 1, 2))
        variance = past * variance + (1 - past) * features.var((0, 1, 2))
        np.testing.assert_allclose(arrays()[MEAN], mean, atol=1e-6)
        np.testing.assert_allclose(arrays()[VARIANCE], variance, atol=1e-6)
    with learner.averaged():
        averaged = read_weights(learner.network)
    np.testing.assert_array_equal(averaged[MEAN], arrays()[MEAN])
    assert not np.array_equal(averaged["down0_conv0/kernel"], arrays()["down0_conv0/kernel"])


@pytest.fixture(scope="module")
def trained(dataset: Dataset) -> UNetModel:
    """The model of a whole training."""
    return train_network(dataset, SPEC, CONFIG).model


def test_stopped_and_resumed_is_bit_exact(dataset: Dataset, trained: UNetModel) -> None:
    whole = trained.arrays()
    checkpoints: list[Checkpoint] = []
    steps: list[StepDone] = []
    train_network(
        dataset,
        SPEC,
        CONFIG,
        save_checkpoint=lambda arrays, state: checkpoints.append((dict(arrays), dict(state))),
        notify=lambda event: steps.append(event) if isinstance(event, StepDone) else None,
        stop=lambda: len(steps) >= 5,
    )
    assert len(steps) == 5
    resumed = train_network(dataset, SPEC, CONFIG, resume=checkpoints[-1]).model.arrays()
    assert not np.array_equal(whole[MEAN], np.zeros(2))
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


def test_statistics_are_in_the_model_file(trained: UNetModel, tmp_path: Path) -> None:
    path = tmp_path / "squares.unet"
    save_model_file(path, trained.spec, trained.arrays())
    spec, arrays = read_model_file(path)
    assert spec.network == NETWORK
    again = UNetModel.from_arrays(spec, arrays)
    image, _ = squares()
    found = [np.zeros(image.shape, np.float32) for _ in range(2)]
    for one, result in zip((trained, again), found, strict=True):
        config = PredictConfig(probability_type="float32")
        segment(one, Stack(image, "YX"), config, {"probabilities": result})
    assert found[0].std() > 1e-3
    np.testing.assert_array_equal(found[0], found[1])


def test_a_negative_variance_is_refused() -> None:
    arrays = UNetModel(SPEC, Learner(NETWORK, CONFIG, 0).network).arrays()
    arrays[VARIANCE][0] = -1
    with pytest.raises(ModelError, match="A variance in 'down0_conv0_norm/moving_variance' .* is negative"):
        UNetModel.from_arrays(SPEC, arrays)
