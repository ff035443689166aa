"""The README in a model file says what a model does."""

from __future__ import annotations

from napari_unet.config import UNetConfig
from napari_unet.files.card import model_card
from napari_unet.spec import OBJECT_CLASSES, ClassInfo, ModelSpec, ObjectDecoding, TrainingRecord


def test_a_model_of_objects_says_how_they_are_made_and_how_good_they_are() -> None:
    spec = ModelSpec(
        name="nuclei",
        network=UNetConfig(filters=2, depth=1, classes=3),
        classes=tuple(ClassInfo(value=i, name=name) for i, name in enumerate(OBJECT_CLASSES)),
        target="objects",
        objects=ObjectDecoding(foreground_threshold=0.6, seed_threshold=0.4, min_size=12),
        training=TrainingRecord(steps=100, score=0.8, ap50=0.85, painted=1000),
    )
    text = model_card(spec, "nuclei.unet")
    assert "finds objects in grey images with one channel and tells apart those that touch" in text
    assert "probability of inside is at least 0.4 start an object each" in text
    assert "probability of not being background is at least 0.6" in text
    assert "Objects of fewer than 12 pixels are left out." in text
    assert "neck" not in text
    assert "mean Dice 0.800, and average precision of objects 0.850 at IoU 0.5, on a part" in text
    assert "value in the result" not in text


def test_a_model_says_where_it_parts_objects_and_which_it_doubts() -> None:
    spec = ModelSpec(
        network=UNetConfig(filters=2, depth=1, classes=3),
        classes=tuple(ClassInfo(value=i, name=name) for i, name in enumerate(OBJECT_CLASSES)),
        target="objects",
        objects=ObjectDecoding(neck_depth=1.5, min_size=12, min_confidence=0.87),
    )
    text = model_card(spec, "nuclei.unet")
    assert (
        "is at least 0.5 start an object each, or several where their half width shrinks by more than 1.5 pixels at a neck; these"
        in text
    )
    assert (
        "Objects of fewer than 12 pixels or whose mean probability of not being background is below 0.87 "
        "are left out." in text
    )
