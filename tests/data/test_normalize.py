"""The range of a stack is exact, and whatever comes in, finite float32 comes out."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet.data.axes import Stack
from napari_unet.data.normalize import Range, survey
from napari_unet.errors import DataError

DTYPES = ["?", "u1", "i1", "<u2", ">u2", ">i2", "u4", ">i4", "u8", "i8", "f2", ">f4", "f4", "f8"]


@given(data=st.data(), dtype=st.sampled_from(DTYPES), ends=st.tuples(st.floats(0, 49), st.floats(51, 100)))
@settings(max_examples=200, deadline=None)
def test_survey_finds_the_percentiles_that_numpy_finds(
    data: st.DataObject, dtype: str, ends: tuple[float, float]
) -> None:
    elements = {"width": int(np.dtype(dtype).itemsize) * 8, "allow_nan": False, "allow_infinity": False}
    array = data.draw(
        hnp.arrays(dtype, (2, 3, 4), elements=st.floats(**elements) if "f" in dtype else None)  # type: ignore[arg-type]
    )
    found = survey(Stack(array, "ZYX"), *ends)
    exact = array.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.percentile(exact, ends)
    if not np.isfinite([low, high]).all():
        return  # numpy's own interpolation overflows
    if not low < high:
        low, high = exact.min(), exact.max()
    scale = max(abs(exact).max(), 1e-300)
    np.testing.assert_allclose(
        [*found.range.low, *found.range.high], [low, high], rtol=1e-12, atol=1e-12 * scale
    )
    assert found.constant == (bool((array == array.flat[0]).all()),)
    assert found.not_finite == 0


def test_rounding_makes_no_range_of_a_constant_middle() -> None:
    array = np.full((2, 3, 4), 3, np.uint8)
    array[0, 0, 0] = 4
    assert survey(Stack(array, "ZYX"), 0.06, 51.0).range == Range((3.0,), (4.0,))


def test_survey_counts_each_channel_of_a_large_stack_on_its_own() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(100, 20, (3, 2, 700, 900)).astype(np.float32)
    array[:, 1] *= 7
    found = survey(Stack(array, "ZCYX"), 1.0, 99.8)
    for c in range(2):
        expected = np.percentile(array[:, c].astype(np.float64), [1.0, 99.8])
        np.testing.assert_allclose([found.range.low[c], found.range.high[c]], expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_threads_that_count_beside_each_other_find_the_same(dtype: str) -> None:
    array = np.random.default_rng(0).uniform(0, 250, (2, 700, 900)).astype(dtype)
    if dtype == "f4":
        array[1, 5, 6] = np.nan
    stack = Stack(array, "ZYX")
    with ThreadPoolExecutor(4) as pool:
        assert survey(stack, each=pool.map) == survey(stack)


def test_pixels_that_are_no_numbers_are_counted_and_left_out() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    array[1, 2, 3] = np.inf
    array[1, 0, 2] = np.nan
    array[0, 2, 1] = -np.inf
    found = survey(Stack(array, "ZYX"), 0.0, 100.0)
    assert found.not_finite == 3
    assert found.first_not_finite == (0, 2, 1, 0)
    assert found.range == Range((0.0,), (22.0,))


def test_a_stack_without_any_number() -> None:
    found = survey(Stack(np.full((4, 4), np.nan), "YX"))
    assert found.not_finite == 16
    assert found.constant == (True,)
    assert found.range == Range((0.0,), (0.0,))


def test_a_mostly_black_image_keeps_its_contrast() -> None:
    array = np.zeros((100, 100), np.uint8)
    array[5, 5] = 9
    found = survey(Stack(array, "YX"))
    assert found.range == Range((0.0,), (9.0,))
    assert found.constant == (False,)


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("dtype", ["u1", "f4", "i8"])
def test_a_constant_image_becomes_zero_without_a_warning(value: int, dtype: str) -> None:
    stack = Stack(np.full((5, 6), value, dtype), "YX")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = survey(stack)
        out = found.range.apply(stack.read(0))
    assert found.constant == (True,)
    assert out.dtype == np.float32
    assert not out.any()


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "?"])
def test_one_image_in_any_type_becomes_the_same(dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 127, (20, 30))
    stack = Stack(values.astype(dtype), "YX")
    expected = survey(Stack(values, "YX")).range.apply(values[..., np.newaxis])
    out = survey(stack).range.apply(stack.read(0))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-6)


@given(
    pixels=hnp.arrays(st.sampled_from(["f2", "f4", "f8"]), (3, 4, 1)),
    ends=st.tuples(
        st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False)
    ),
)
@settings(max_examples=200, deadline=None)
def test_what_comes_out_is_finite(pixels: np.ndarray, ends: tuple[float, float]) -> None:
    low, high = sorted(ends)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = Range((low,), (high,)).apply(pixels)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert not out[~np.isfinite(pixels)].any()


def test_the_ends_become_0_and_1_and_nothing_is_cut() -> None:
    out = Range((10.0, 0.0), (20.0, 4.0)).apply(np.array([[10, 0], [20, 4], [30, 2]], np.uint16))
    np.testing.assert_allclose(out, [[0, 0], [1, 1], [2, 0.5]])


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        Range((0.0,), (1.0,)).apply(np.zeros((2, 2, 3)))
    assert str(caught.value) == (
        "The number of channels is 1 in the brightness range but 3 in the image. "
        "They must match: choose an image with as many channels."
    )


def test_a_range_needs_both_ends() -> None:
    with pytest.raises(DataError, match="finite low and high for each channel"):
        Range((0.0,), (np.nan,))


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_stopped_survey_reads_no_further(after: int, dtype: str) -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > after

    survey(Stack(np.random.default_rng(0).random((30, 40, 40)).astype(dtype), "ZYX"), stop=stop)
    assert len(asked) <= after + 2
