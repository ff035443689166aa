"""Any image becomes slices of shape (Y, X, C); what is no image is refused in one sentence."""

from __future__ import annotations

from itertools import permutations

import dask.array
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet.data.axes import Stack, blocks, guess_axes
from napari_unet.errors import DataError

ALL_AXES = sorted(
    {
        "".join(order)
        for letters in ("YX", "ZYX", "TYX", "CYX", "SYX", "TZYX", "TCYX", "ZSYX", "TZCYX", "TZSYX")
        for order in permutations(letters)
    }
)


def numbered(axes: str, lengths: dict[str, int]) -> np.ndarray:
    """Make an array whose values are all different."""
    shape = tuple(lengths[letter] for letter in axes)
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


@given(axes=st.sampled_from(ALL_AXES), sides=st.lists(st.integers(1, 4), min_size=6, max_size=6))
@settings(max_examples=200, deadline=None)
def test_every_order_of_axes_reads_the_same_pixels(axes: str, sides: list[int]) -> None:
    lengths = dict(zip("TZCYXS", sides, strict=True))
    array = numbered(axes, lengths)
    stack = Stack(array, axes)
    assert stack.out_axes == "".join(a for a in axes if a in "TZ") + "YX"
    assert stack.out_shape == (*(lengths[a] for a in stack.slice_axes), lengths["Y"], lengths["X"])
    order = [axes.index(a) for a in (*stack.slice_axes, "Y", "X", *(a for a in axes if a in "CS"))]
    expected = array.transpose(order).reshape(stack.shape)
    read = np.stack([stack.read(n) for n in range(stack.shape[0])])
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    "make", [np.asarray, dask.array.from_array, zarr.array], ids=["numpy", "dask", "zarr"]
)
def test_reading_a_rectangle_from_any_array(make: object) -> None:
    array = numbered("ZCYX", {"Z": 3, "C": 2, "Y": 7, "X": 9})
    pixels = Stack(make(array), "ZCYX").read(2, slice(1, 5), slice(3, 9))  # type: ignore[operator]
    assert isinstance(pixels, np.ndarray)
    np.testing.assert_array_equal(pixels, array[2, :, 1:5, 3:9].transpose(1, 2, 0))


class Watched:
    """An array that remembers what was asked of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.read = 0

    def __getitem__(self, key: object) -> np.ndarray:
        part = self.array[key]  # type: ignore[index]
        self.read += part.size
        return part


def test_only_what_is_asked_for_is_read() -> None:
    watched = Watched(np.zeros((50, 1000, 1000), np.uint8))
    Stack(watched, "ZYX").read(7, slice(10, 20), slice(30, 50))
    assert watched.read == 200


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">u2", "<i2", ">u4", "i8", "u8", "f2", ">f4", "f8"])
def test_pixels_keep_their_value_in_native_byte_order(dtype: str) -> None:
    array = np.array([[0, 1], [1, 1]]).astype(dtype)
    stack = Stack(array, "YX")
    pixels = stack.read(0)
    assert pixels.dtype == stack.dtype
    assert pixels.dtype.isnative
    assert pixels.dtype.kind in "uif"
    np.testing.assert_array_equal(pixels[..., 0], array.astype(float))


@pytest.mark.parametrize(
    ("shape", "axes", "sentence"),
    [
        (
            (),
            "",
            "'raw' has shape (), which is 0 axes. An image needs at least two, Y and X: choose an image.",
        ),
        (
            (5,),
            "X",
            "'raw' has shape (5,), which is 1 axis. An image needs at least two, Y and X: choose an image.",
        ),
        (
            (0, 512),
            "YX",
            "'raw' has shape (0, 512): its axis Y is empty. Each axis needs at least one pixel: choose an image with pixels.",
        ),
        (
            (3, 4, 5),
            "YX",
            "'raw' has shape (3, 4, 5), which is 3 axes, but its axes are given as 'YX': give one letter of TZCYXS for each axis.",
        ),
        (
            (3, 4, 5),
            "QYX",
            "The axes of 'raw' are given as 'QYX', but 'Q' is not an axis: use the letters T, Z, C, Y, X and S.",
        ),
        (
            (3, 4, 5),
            "ZYY",
            "The axes of 'raw' are given as 'ZYY', but Y is there more than once: name each axis once.",
        ),
        (
            (3, 4, 5),
            "TZX",
            "The axes of 'raw' are given as 'TZX', but Y and X must both be there: name the rows Y and the columns X.",
        ),
        (
            (2, 4, 5, 3),
            "CYXS",
            (
                "The axes of 'raw' are given as 'CYXS', but C and S exclude each other: "
                "select one channel, or turn the colour image to grey."
            ),
        ),
    ],
)
def test_arrays_that_are_no_images_are_refused(shape: tuple[int, ...], axes: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        Stack(np.zeros(shape), axes, "raw")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("dtype", "sentence"),
    [
        (
            "c8",
            "'raw' holds complex numbers. Pixels must be real numbers: take its magnitude or its phase first.",
        ),
        ("O", "'raw' holds Python objects. Pixels must be real numbers: convert it to numbers first."),
        ("U3", "'raw' holds pixels of type <U3. Pixels must be real numbers: convert it to numbers first."),
    ],
)
def test_pixels_that_are_no_numbers_are_refused(dtype: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        Stack(np.zeros((4, 4), dtype), "YX", "raw")
    assert str(caught.value) == sentence


@given(
    dtype=st.sampled_from(["?", "u1", "f4", "c16", "O", "S2", "M8[s]", "V3"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    axes=st.text("TZCYXS", max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_anything_is_read_or_refused_with_a_sentence(dtype: str, shape: tuple[int, ...], axes: str) -> None:
    array = np.zeros(shape, dtype)
    sentence = complaint(array, axes)
    if sentence:
        assert "'raw'" in sentence
        assert sentence.endswith(".")
    else:
        assert Stack(array, axes).read(0).shape == Stack(array, axes).shape[1:]


def complaint(array: np.ndarray, axes: str) -> str:
    try:
        Stack(array, axes, "raw")
    except DataError as error:
        return str(error)
    return ""


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 30)),
    chunks=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    pixels=st.integers(1, 200),
)
@settings(max_examples=150, deadline=None)
def test_blocks_cover_each_pixel_once_and_cut_no_chunk(
    shape: tuple[int, int, int], chunks: tuple[int, int, int] | None, pixels: int
) -> None:
    array: object = np.zeros(shape, np.uint8)
    if chunks is not None:
        chunks = tuple(map(min, chunks, shape))  # type: ignore[assignment]
        array = dask.array.zeros(shape, chunks=chunks)
    seen = np.zeros(shape, int)
    for n, y, x in blocks(Stack(array, "ZYX"), pixels):  # type: ignore[arg-type]
        seen[n, y, x] += 1
        if chunks is None:
            assert (y.stop - y.start) * (x.stop - x.start) <= pixels
        else:
            assert (y.start % chunks[1], x.start % chunks[2]) == (0, 0)
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("shape", "rgb", "labels", "axes"),
    [
        ((512, 512), False, None, "YX"),
        ((20, 512, 512), False, None, "ZYX"),
        ((3, 512, 512), False, None, "ZYX"),
        ((512, 512, 3), False, None, "ZYX"),
        ((512, 512, 3), True, None, "YXS"),
        ((512, 512, 4), True, ("axis -2", "axis -1"), "YXS"),
        ((7, 512, 512, 3), True, ("t", "y", "x"), "TYXS"),
        ((9, 7, 64, 64), False, None, "TZYX"),
        ((5, 20, 2, 64, 64), False, None, "TZCYX"),
        ((5, 20, 64, 64, 3), True, None, "TZYXS"),
        ((3, 512, 512), False, ("c", "y", "x"), "CYX"),
        ((3, 512, 512), False, ("Channel", "Y", "X"), "CYX"),
        ((3, 512, 512), False, ("axis -3", "y", "x"), "ZYX"),
        ((3, 512, 512), False, ("y", "y", "x"), "ZYX"),
        ((512, 512, 3), True, ("y", "x", "s"), "YXS"),
    ],
)
def test_axes_are_guessed_by_one_rule(
    shape: tuple[int, ...], rgb: bool, labels: tuple[str, ...] | None, axes: str
) -> None:
    assert guess_axes(shape, rgb=rgb, labels=labels) == axes


@pytest.mark.parametrize(
    ("shape", "rgb", "sentence"),
    [
        (
            (7,),
            False,
            (
                "An array of shape (7,) has 1 axis. An image has Y and X, and beside them at most T, Z and C (or colour): "
                "select fewer axes, or name them."
            ),
        ),
        (
            (20, 512, 512),
            True,
            "A colour image ends in an axis of 3 or 4 samples, but this one has shape (20, 512, 512).",
        ),
    ],
)
def test_axes_that_cannot_be_guessed_are_refused(shape: tuple[int, ...], rgb: bool, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        guess_axes(shape, rgb=rgb)
    assert str(caught.value) == sentence
