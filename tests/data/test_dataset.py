"""Images and labels become examples; what cannot be trained on is refused or said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet.data.axes import Stack
from napari_unet.data.dataset import Dataset, Example, _load, prepare
from napari_unet.data.labels import IGNORE, ClassMap
from napari_unet.data.normalize import survey
from napari_unet.errors import DataError


def noise(shape: tuple[int, ...], dtype: str = "u1", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def one(image: np.ndarray, labels: np.ndarray, **options: Any) -> Dataset:
    """Prepare one image, whose axes follow from its dimensions."""
    axes = {2: "YX", 3: "ZYX"}
    options.setdefault("unpainted", "background")
    return prepare(
        [Stack(image, axes[image.ndim], "raw")], [Stack(labels, axes[labels.ndim], "cells")], **options
    )


def test_only_painted_slices_are_loaded() -> None:
    labels = np.zeros((5, 8, 9), np.uint8)
    labels[1, 2, 3] = labels[4, :, 2] = 200
    dataset = one(noise((5, 8, 9)), labels)
    assert [(e.group, e.index) for e in dataset.examples] == [(0, 1), (0, 4)]
    assert dataset.class_map == ClassMap((0, 200), "background")
    assert dataset.painted == 9
    np.testing.assert_array_equal(dataset.examples[1].target, labels[4] == 200)


def test_unpainted_pixels_carry_no_loss_where_they_are_ignored() -> None:
    labels = np.zeros((3, 8, 9), np.uint8)
    labels[2, 0, :2], labels[2, 1, :3] = 5, 9
    dataset = one(noise((3, 8, 9)), labels, unpainted="ignore", background_value=5)
    (example,) = dataset.examples
    assert (example.target[0, :2] == 0).all()
    assert (example.target[1, :3] == 1).all()
    assert np.count_nonzero(example.target != IGNORE) == dataset.painted == 5
    assert dataset.class_map.values == (0, 9)


def test_each_image_is_normalised_by_the_range_of_its_whole_stack() -> None:
    images = [noise((4, 30, 30), "u2") + 1000 * i for i in range(3)]
    labels = np.zeros((4, 30, 30), np.uint8)
    labels[2, 3] = 1
    stacks = [Stack(image, "ZYX", f"raw{i}") for i, image in enumerate(images)]
    dataset = prepare(stacks, [Stack(labels, "ZYX")] * 3, unpainted="background", lower=5.0, upper=90.0)
    ranges = [survey(stack, 5.0, 90.0).range for stack in stacks]
    for example, stack, limits in zip(dataset.examples, stacks, ranges, strict=True):
        np.testing.assert_array_equal(example.image, limits.apply(stack.read(2)))
        assert example.image.dtype == np.float32
    assert dataset.range == ranges[1]  # the median of three


def test_an_image_with_nothing_to_find_teaches_background() -> None:
    labels = [np.zeros((6, 6), np.uint8), np.eye(6, dtype=bool)]
    images = [Stack(noise((6, 6), seed=i), "YX") for i in range(2)]
    dataset = prepare(images, [Stack(array, "YX") for array in labels], unpainted="background")
    assert [e.group for e in dataset.examples] == [0, 1]
    assert not dataset.examples[0].target.any()
    ignoring = prepare(
        images, [Stack(labels[0], "YX"), Stack(labels[1] + 1, "YX")], unpainted="ignore", background_value=1
    )
    assert [e.group for e in ignoring.examples] == [1]


def test_labels_need_no_channels() -> None:
    image = Stack(noise((3, 6, 7)), "CYX", "raw")
    dataset = prepare([image], [Stack(np.eye(6, 7), "YX")], unpainted="background")
    assert dataset.examples[0].image.shape == (6, 7, 3)
    assert dataset.range.low == survey(image).range.low


def test_one_nan_is_refused_with_its_place() -> None:
    image = noise((3, 8, 9), "f4")
    image[1, 2, 3] = np.nan
    labels = np.zeros((3, 8, 9), np.uint8)
    labels[0, 1] = 1
    with pytest.raises(DataError) as caught:
        one(image, labels)
    assert str(caught.value) == (
        "Image 'raw' has 1 value that is no number (NaN or infinite), the first at slice 1, y 2, x 3. "
        "One such pixel silently ruins a training: repair the image, or choose 'NaN pixels: ignore' "
        "(they become 0 and are not trained on)."
    )


def test_nan_pixels_can_be_ignored() -> None:
    image = noise((6, 8, 2), "f4")
    image[1, 2, 1] = np.nan
    image[3, 4, 0] = np.inf
    labels = np.ones((6, 8), np.uint8)
    labels[0] = 0
    dataset = prepare(
        [Stack(image, "YXC", "raw")], [Stack(labels, "YX")], unpainted="background", not_finite="ignore"
    )
    (example,) = dataset.examples
    assert np.isfinite(example.image).all()
    assert [tuple(at) for at in np.argwhere(example.target == IGNORE)] == [(1, 2), (3, 4)]


def test_paint_on_nothing_but_nan_is_refused() -> None:
    image = noise((6, 8), "f4")
    labels = np.zeros((6, 8), np.uint8)
    labels[0, :2] = 1, 2
    image[0, :2] = np.nan
    with pytest.raises(DataError) as caught:
        one(image, labels, unpainted="ignore", background_value=1, not_finite="ignore")
    assert str(caught.value) == (
        "Every painted pixel of labels 'cells' lies on a NaN or infinite pixel, so nothing can be trained on. "
        "Paint on pixels that have a value, or repair the image."
    )


@pytest.mark.parametrize(
    ("target", "unpainted", "left", "hidden"),
    [
        ("classes", "ignore", "background", "class 2"),
        ("classes", "background", "background", "class 1 and class 2"),
        ("objects", "background", "background", "inside and border"),
    ],
)
def test_a_single_class_that_nan_pixels_leave_is_refused(
    target: str, unpainted: str, left: str, hidden: str
) -> None:
    image = noise((12, 16), "f4")
    labels = np.zeros((12, 16), np.uint8)
    labels[:6, :6], labels[6:, :6] = 1, 2
    image[labels > (1 if unpainted == "ignore" else 0)] = np.nan
    options = {"target": target, "unpainted": unpainted, "not_finite": "ignore"}
    with pytest.raises(DataError) as caught:
        one(image, labels, background_value=1 if unpainted == "ignore" else None, **options)
    assert str(caught.value) == (
        f"Of labels 'cells' only {left} is left to train on: every pixel of {hidden} lies on a NaN or infinite "
        "pixel. A network needs two classes to tell apart: paint on pixels that have a value, or repair the image."
    )


def test_a_class_that_nan_pixels_hide_is_told() -> None:
    image = noise((6, 8), "f4")
    labels = np.zeros((6, 8), np.uint8)
    labels[0], labels[1] = 4, 9
    assert one(image, labels).warnings == ()
    image[1] = np.nan
    (warning,) = one(image, labels, not_finite="ignore").warnings
    assert warning == (
        "Every pixel of class 9 lies on a NaN or infinite pixel, so it cannot be learned. "
        "Paint it on pixels that have a value, or repair the image."
    )


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_stays_finite(value: int) -> None:
    dataset = one(np.full((6, 8), value, np.float64), np.eye(6, 8, dtype=np.uint8))
    assert not dataset.examples[0].image.any()


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (
            [],
            [],
            (
                "Training needs labels for each image, but there are 0 images and 0 labels. "
                "Choose them in pairs: one labels layer or file for each image."
            ),
        ),
        (
            [Stack(noise((6, 8)), "YX")],
            [],
            (
                "Training needs labels for each image, but there are 1 image and 0 labels. "
                "Choose them in pairs: one labels layer or file for each image."
            ),
        ),
        (
            [Stack(noise((6, 8)), "YX", "a"), Stack(noise((6, 8, 3)), "YXS", "b")],
            [Stack(np.eye(6, 8), "YX")] * 2,
            (
                "Image 'b' has 3 channels, but 'a' has 1. "
                "All images of a training need as many: convert them, or train on those that agree."
            ),
        ),
        (
            [Stack(noise((6, 8)), "YX", "raw")],
            [Stack(np.eye(6, 7), "YX", "cells")],
            (
                "Labels 'cells' have shape (6, 7) (YX) but image 'raw' has (6, 8) (YX). "
                "They must match: pick the labels drawn on this image."
            ),
        ),
        (
            [Stack(noise((2, 6, 8)), "ZYX", "raw")],
            [Stack(np.zeros((2, 6, 8), int), "ZYX", "cells")],
            "Labels 'cells' have no painted pixels. Paint some pixels of each class, then start again.",
        ),
        (
            [Stack(noise((6, 8)), "YX", "raw")] * 3,
            [Stack(np.zeros((6, 8), int), "YX", "cells")] * 3,
            "Labels 'cells and 2 more' have no painted pixels. Paint some pixels of each class, then start again.",
        ),
        (
            [Stack(noise((6, 8)), "YX", "raw")],
            [Stack(np.full((6, 8), -1), "YX", "cells")],
            "Labels 'cells' hold negative values: -1. Labels must be 0 or above: repaint these, or set them to 0.",
        ),
        (
            [Stack(noise((6, 8)), "YX", "raw")],
            [Stack(np.full((6, 8), 0.5), "YX", "cells")],
            (
                "Labels 'cells' hold 0.5. Labels must be whole numbers: "
                "paint on a labels layer, or turn a probability map into labels with a threshold first."
            ),
        ),
    ],
)
def test_pairs_that_cannot_train_are_refused(images: list[Stack], labels: list[Stack], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(images, labels, unpainted="background")
    assert str(caught.value) == sentence


def test_slices_that_do_not_fit_into_memory_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    room = iter("ab")

    def load(*args: Any) -> Example:
        if next(room, None) is None:
            raise MemoryError
        return _load(*args)

    monkeypatch.setattr("napari_unet.data.dataset._load", load)
    with pytest.raises(DataError) as caught:
        one(noise((5, 8, 9)), noise((5, 8, 9)) % 2)
    assert str(caught.value) == (
        "Memory ran out when 2 of 5 painted slices had been loaded, all of which are kept in memory to train on: "
        "erase the labels of some slices, give fewer or smaller images, or close other programs."
    )


@pytest.mark.parametrize("after", range(12))
def test_a_stop_at_any_time_gives_no_examples(after: int) -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > after

    labels = np.zeros((3, 8, 9), np.uint8)
    labels[:, 2] = 1
    dataset = one(noise((3, 8, 9)), labels, stop=stop)
    assert len(dataset.examples) == (3 if len(asked) <= after else 0)
