"""Settings: one sentence for what is wrong, and nothing that only looks like a setting."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from napari_unet.augmentation import Augmentation
from napari_unet.config import PredictConfig, TrainConfig, UNetConfig
from napari_unet.errors import ConfigError, FileError, NapariUNetError
from napari_unet.settings import Settings
from napari_unet.spec import ClassInfo, ModelSpec, Normalization, weight_shapes


def parameters(config: UNetConfig) -> int:
    return sum(math.prod(shape) for shape in weight_shapes(config).values())


def test_presets_have_the_published_sizes() -> None:
    assert parameters(UNetConfig()) == parameters(UNetConfig.preset("article")) == 31_030_593
    assert parameters(UNetConfig.preset("linked-code")) == 31_031_685
    assert UNetConfig.preset("quick").filters == 16
    assert UNetConfig.preset("quick", depth=2, channels=3).channels == 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"depth": 9}, "depth is 9, but it should be less than or equal to 6."),
        ({"filterz": 3}, "'filterz' is not a setting of UNetConfig (it has ndim, channels,"),
        ({"ndim": 3}, "A network of 3 dimensions is not built yet: set ndim to 2"),
        (
            {"architecture": "linked-code", "classes": 3},
            "knows 2 classes, not 3: choose the article or quick preset",
        ),
        (
            {"architecture": "linked-code", "normalization": "batch", "skips": "add"},
            "rebuilt exactly, so it takes no other normalization and skips: choose the article or quick preset",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        UNetConfig(**values)
    assert sentence in str(caught.value)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="'huge' is not a preset; choose one of article, quick, quick-norm, linked-code."
    ):
        UNetConfig.preset("huge")


@pytest.mark.parametrize("cls", [UNetConfig, Augmentation, TrainConfig, PredictConfig])
def test_every_number_has_bounds_on_both_sides_and_words(cls: type[Settings]) -> None:
    for name, field in cls.model_fields.items():
        assert field.title, name
        assert field.description, name
        if field.annotation in (int, float):
            bounds = {type(rule).__name__ for rule in field.metadata}
            assert {"Ge", "Le"} <= bounds, name


def test_strengths_have_presets_and_are_refused_beyond_their_bounds() -> None:
    assert Augmentation.preset("full", rotation=90.0).rotation == 90.0
    assert Augmentation.preset("none", noise=0.1) != Augmentation.preset("none")
    assert TrainConfig().augmentation == Augmentation.preset("light") == Augmentation.preset()
    with pytest.raises(ConfigError, match="'strong' is not a preset; choose one of none, light, full."):
        Augmentation.preset("strong")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'twist' is not a setting of Augmentation"):
        Augmentation.preset("full", twist=1)
    with pytest.raises(ConfigError, match="rotation is 270, but it should be less than or equal to 180."):
        TrainConfig(augmentation={"rotation": 270})


def test_settings_are_frozen_and_changed_by_copy() -> None:
    config = TrainConfig()
    with pytest.raises(ValidationError):
        config.steps = 3  # type: ignore[misc]
    assert config.replace(steps=3).steps == 3
    assert config.steps == 0
    with pytest.raises(ConfigError, match="steps is -1"):
        config.replace(steps=-1)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"network": UNetConfig(classes=3)}, "names 2 classes but its network has 3"),
        ({"classes": (ClassInfo(value=1), ClassInfo(value=1))}, "gives two classes the same value"),
        ({"normalization": Normalization(low=(0.0, 0.0))}, "for 2 channels but its network has 1"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ModelSpec(**values)


def test_a_file_error_names_the_file_and_crosses_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(FileError("a/b.tif", "is empty.")))
    assert isinstance(error, NapariUNetError)
    assert (error.path, error.reason, str(error)) == ("a/b.tif", "is empty.", "a/b.tif: is empty.")
