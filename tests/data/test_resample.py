"""A resampled stack: the same however it is read, true to the image, and back again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from skimage.transform import resize

from napari_unet.data.axes import Stack
from napari_unet.data.resample import matched_shape, resample

sides = st.integers(1, 40)


@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides), nearest=st.booleans(), data=st.data())
def test_a_part_is_the_same_as_in_the_whole(
    old: tuple[int, int], new: tuple[int, int], nearest: bool, data: st.DataObject
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (2, *old), np.uint8)
    stack = resample(Stack(image, "ZYX"), new, nearest=nearest)
    assert stack.shape == (2, *new, 1)
    whole = stack.read(1)
    rows, columns = (slice(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in new)
    assert_allclose(stack.read(1, rows, columns), whole[rows, columns], atol=1e-3)


@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides))
def test_nothing_is_brighter_or_darker_than_it_was(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(old, np.float32)
    pixels = resample(Stack(image, "YX"), new).read(0)
    assert image.min() - 1e-6 <= pixels.min()
    assert pixels.max() <= image.max() + 1e-6
    assert set(np.unique(resample(Stack(image, "YX"), new, nearest=True).read(0))) <= set(np.unique(image))


@pytest.mark.parametrize("new", [(50, 40), (200, 90), (33, 170)])
def test_it_is_what_scikit_image_gives(new: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((100, 80), np.float32)
    expected = resize(image, new, order=1, mode="reflect", anti_aliasing=True)
    inside = slice(4, -4)  # the two end images differently at their borders
    assert_allclose(
        resample(Stack(image, "YX"), new).read(0)[inside, inside, 0], expected[inside, inside], atol=2e-3
    )


def test_colours_and_axes_stay() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 20, 30, 3), np.uint8)
    stack = resample(Stack(image, "TYXS", "cells"), (10, 15))
    assert (stack.axes, stack.name, stack.out_shape) == ("TYXS", "cells", (3, 10, 15))
    for channel in range(3):
        alone = resample(Stack(image[..., channel], "TYX"), (10, 15))
        assert_allclose(stack.read(2)[..., channel], alone.read(2)[..., 0], rtol=1e-6)


def test_the_same_grid_is_the_stack_itself() -> None:
    stack = Stack(np.zeros((5, 6)), "YX")
    assert resample(stack, (5, 6)) is stack


@given(st.integers(1, 5), st.tuples(sides, sides))
def test_labels_come_back_from_a_finer_grid_as_they_were(times: int, old: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 9, old)
    finer = resample(Stack(labels, "YX"), (times * old[0], times * old[1]), nearest=True)
    assert_array_equal(resample(finer, old, nearest=True).read(0)[..., 0], labels)


def test_shapes_that_match() -> None:
    assert matched_shape((100, 200), (0.5, 0.5), (0.25, 1.0)) == (200, 100)
    assert matched_shape((3, 3), (0.1, 0.1), (10.0, 10.0)) == (1, 1)
