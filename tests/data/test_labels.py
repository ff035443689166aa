"""Painted values become classes and come back; labels that cannot be learned are refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet.data.axes import Stack
from napari_unet.data.labels import (
    IGNORE,
    MAX_CLASSES,
    ClassMap,
    as_integers,
    check_same_shape,
    distinct,
    fit_class_map,
)
from napari_unet.errors import DataError

VALUES = st.lists(st.integers(1, 2**63 - 1) | st.integers(1, 300), min_size=2, max_size=20, unique=True)


@given(values=VALUES, dtype=st.sampled_from(["i8", "u8"]), seed=st.integers(0, 99))
def test_background_labels_come_back_as_painted(values: list[int], dtype: str, seed: int) -> None:
    choice = np.random.default_rng(seed).integers(len(values) + 1, size=(9, 7))
    painted = np.array([0, *values], dtype)[choice]
    class_map = fit_class_map([painted], "background")
    encoded = class_map.encode(painted)
    assert encoded.dtype == np.uint8
    assert IGNORE not in encoded
    np.testing.assert_array_equal(class_map.decode(encoded), painted)


@given(values=VALUES, data=st.data())
def test_ignored_labels_come_back_with_background_as_zero(values: list[int], data: st.DataObject) -> None:
    background = data.draw(st.sampled_from(values))
    painted = np.array([[0, *values]])
    class_map = fit_class_map([painted], "ignore", background)
    encoded = class_map.encode(painted)
    np.testing.assert_array_equal(encoded == IGNORE, painted == 0)
    assert encoded[0, 1 + values.index(background)] == 0
    shown = class_map.decode(encoded[painted != 0])
    np.testing.assert_array_equal(shown, [0 if v == background else v for v in values])


def test_values_with_gaps_are_kept() -> None:
    painted = np.array([[0, 3, 200]], np.uint8)
    class_map = fit_class_map([painted], "background")
    assert class_map == ClassMap((0, 3, 200), "background")
    np.testing.assert_array_equal(class_map.encode(painted), [[0, 1, 2]])


def test_classes_are_found_over_several_arrays() -> None:
    arrays = (np.array([[0, value]]) for value in (7, 2, 2**40))
    assert fit_class_map(arrays, "background").values == (0, 2, 7, 2**40)


@pytest.mark.parametrize(
    ("values", "dtype"), [((0, 255), "u1"), ((0, 256), "u2"), ((0, 2**16), "u4"), ((0, 2**40), "u8")]
)
def test_results_have_the_smallest_type_that_holds_them(values: tuple[int, ...], dtype: str) -> None:
    assert ClassMap(values).decode(np.zeros((1, 1), int)).dtype == dtype


@pytest.mark.parametrize("dtype", ["u1", "i4"])
def test_a_value_of_no_class_is_refused(dtype: str) -> None:
    with pytest.raises(DataError) as caught:
        ClassMap((0, 3)).encode(np.array([0, 3, 5, 4], dtype))
    assert (
        str(caught.value)
        == "The labels hold 4, 5, which no class was made for; the classes are painted 0, 3."
    )


@given(hnp.arrays(st.sampled_from(["u1", "i2", "u4", "i8", "u8"]), (5, 6), elements=st.integers(0, 127)))
def test_distinct_is_unique(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(distinct(labels), np.unique(labels))


def test_distinct_of_large_values() -> None:
    np.testing.assert_array_equal(distinct(np.array([2**40, 5, 2**40], "u8")), [5, 2**40])


@pytest.mark.parametrize(
    "labels",
    [np.array([[True, False]]), np.array([[1.0, 0.0]]), np.array([[1, 0]], ">i2"), np.array([[1, 0]], "u8")],
)
def test_bool_and_whole_floats_are_labels(labels: np.ndarray) -> None:
    whole = as_integers(labels, "cells")
    assert whole.dtype.kind in "ui"
    np.testing.assert_array_equal(whole, [[1, 0]])


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            np.array([0.5, 1.0, 0.25]),
            (
                "Labels 'cells' hold 0.25, 0.5. Labels must be whole numbers: "
                "paint on a labels layer, or turn a probability map into labels with a threshold first."
            ),
        ),
        (
            np.array([0.0, np.nan]),
            (
                "Labels 'cells' hold nan. Labels must be whole numbers: "
                "paint on a labels layer, or turn a probability map into labels with a threshold first."
            ),
        ),
        (
            np.array([-1, 0, -5, 2], np.int32),
            "Labels 'cells' hold negative values: -5, -1. Labels must be 0 or above: repaint these, or set them to 0.",
        ),
        (
            np.arange(-20, 1.0),
            (
                "Labels 'cells' hold negative values: -20.0, -19.0, -18.0, -17.0, -16.0, -15.0, -14.0, -13.0 and 12 more. "
                "Labels must be 0 or above: repaint these, or set them to 0."
            ),
        ),
        (
            np.array([2**63], np.uint64),
            (
                "Labels 'cells' hold 9223372036854775808, above the largest value, 9223372036854775807: "
                "number the classes from 1 up."
            ),
        ),
        (
            np.array([1e30]),
            "Labels 'cells' hold 1e+30, above the largest value, 9223372036854775807: number the classes from 1 up.",
        ),
        (
            np.array([1, 1e30], np.float32),
            (
                "Labels 'cells' hold 1.0000000150474662e+30, above the largest value, 9223372036854775807: "
                "number the classes from 1 up."
            ),
        ),
        (
            np.array([2.0**63]),
            (
                "Labels 'cells' hold 9.223372036854776e+18, above the largest value, 9223372036854775807: "
                "number the classes from 1 up."
            ),
        ),
        (
            np.array([1j]),
            "Labels 'cells' are of type complex128. Labels must be whole numbers: choose a labels layer.",
        ),
    ],
)
def test_labels_that_are_no_labels_are_refused(labels: np.ndarray, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        as_integers(labels, "cells")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("painted", "unpainted", "background", "sentence"),
    [
        (
            [0, 0],
            "background",
            None,
            "Labels 'cells' have no painted pixels. Paint some pixels of each class, then start again.",
        ),
        (
            [0, 0],
            "ignore",
            1,
            "Labels 'cells' have no painted pixels. Paint some pixels of each class, then start again.",
        ),
        (
            [1, 1],
            "background",
            None,
            (
                "Labels 'cells' hold a single value, 1, on every pixel. A network needs two classes to tell apart: "
                "leave background unpainted (0), or paint it with a value of its own."
            ),
        ),
        (
            [0, 4],
            "ignore",
            4,
            (
                "Labels 'cells' are painted with a single value, 4, and that is background. "
                "A network needs two classes to tell apart: paint some of what is to be found with another value."
            ),
        ),
        (
            [0, 4, 6],
            "ignore",
            None,
            (
                "Labels 'cells' are painted with 4, 6, and no background value was named. Where unpainted pixels are ignored, "
                "one of the painted values must mean background: paint some background and name its value."
            ),
        ),
        (
            [0, 4, 6],
            "ignore",
            5,
            (
                "Labels 'cells' are painted with 4, 6, and 5 is named as background. Where unpainted pixels are ignored, "
                "one of the painted values must mean background: paint some background and name its value."
            ),
        ),
        (
            list(range(10_001)),
            "background",
            None,
            (
                "Labels 'cells' hold 10000 different values, but a network learns at most 254 classes, background counted in. "
                "This looks like one value for each object: train on objects, or give all objects of a kind the same value (labels > 0 becomes 1)."
            ),
        ),
    ],
)
def test_paint_that_cannot_be_learned_is_refused(
    painted: list[int], unpainted: str, background: int | None, sentence: str
) -> None:
    with pytest.raises(DataError) as caught:
        fit_class_map([np.array(painted)], unpainted, background, "cells")  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_the_most_classes_that_are_learned() -> None:
    assert len(fit_class_map([np.arange(MAX_CLASSES)], "background").values) == MAX_CLASSES
    ignoring = fit_class_map([np.arange(MAX_CLASSES + 1)], "ignore", 1)
    assert len(ignoring.values) == MAX_CLASSES
    assert IGNORE not in ignoring.encode(np.arange(1, MAX_CLASSES + 1))
    with pytest.raises(DataError, match="at most 254"):
        fit_class_map([np.arange(MAX_CLASSES + 1)], "background")


def test_nothing_at_all_is_no_paint() -> None:
    with pytest.raises(DataError, match="no painted pixels"):
        fit_class_map([], "background")


def stack(shape: tuple[int, ...], axes: str, name: str) -> Stack:
    return Stack(np.zeros(shape, np.uint8), axes, name)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        (((5, 6), "YX"), ((5, 6), "YX")),
        (((5, 6, 3), "YXS"), ((5, 6), "YX")),
        (((4, 2, 5, 6), "ZCYX"), ((4, 5, 6), "ZYX")),
        (((4, 5, 6), "TYX"), ((4, 5, 6), "ZYX")),
        (((1, 5, 6), "ZYX"), ((5, 6), "YX")),
        (((2, 4, 5, 6), "TZYX"), ((2, 4, 1, 5, 6), "TZCYX")),
    ],
)
def test_labels_of_the_same_size_are_accepted(image: tuple, labels: tuple) -> None:
    check_same_shape(stack(*image, "raw"), stack(*labels, "cells"))


@pytest.mark.parametrize(
    ("image", "labels", "sentence"),
    [
        (
            ((512, 512), "YX"),
            ((512, 511), "YX"),
            (
                "Labels 'cells' have shape (512, 511) (YX) but image 'raw' has (512, 512) (YX). "
                "They must match: pick the labels drawn on this image."
            ),
        ),
        (
            ((3, 5, 6), "ZYX"),
            ((5, 6), "YX"),
            (
                "Labels 'cells' have shape (5, 6) (YX) but image 'raw' has (3, 5, 6) (ZYX). "
                "They must match: pick the labels drawn on this image."
            ),
        ),
        (
            ((5, 6, 3), "YXS"),
            ((5, 6, 3), "YXS"),
            (
                "Labels 'cells' have 3 channels (axes YXS, shape (5, 6, 3)). "
                "Labels have one value a pixel: choose a labels layer, or turn the colours into numbers."
            ),
        ),
        (
            ((4, 4, 5, 6), "TZYX"),
            ((4, 4, 5, 6), "ZTYX"),
            (
                "The axes of labels 'cells' are ZTYX but those of image 'raw' are TZYX. "
                "T and Z must come in the same order: transpose the labels."
            ),
        ),
    ],
)
def test_labels_of_another_image_are_refused(image: tuple, labels: tuple, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        check_same_shape(stack(*image, "raw"), stack(*labels, "cells"))
    assert str(caught.value) == sentence
