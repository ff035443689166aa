from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quality_painter import BACKGROUND, scribble
from scipy import ndimage

from napari_unet.data.synthetic import cells

Truth = npt.NDArray[np.int32]


def regions(seed: int, values: int, shape: tuple[int, int]) -> Truth:
    """Blobs of several classes."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=shape), 4) for _ in range(values)]
    return np.argmax(smooth, axis=0).astype(np.int32)


def objects(seed: int) -> Truth:
    _, _, ids = cells((96, 128), seed=seed)
    return np.asarray(ids, np.int32)


@given(
    seed=st.integers(0, 1000),
    values=st.integers(1, 5),
    shape=st.tuples(st.integers(24, 90), st.integers(24, 90)),
    share=st.floats(0, 0.25),
    width=st.sampled_from([1, 3, 5]),
)
@settings(max_examples=30, deadline=None)
def test_paints_the_share_that_was_asked_for_and_only_true_classes(
    seed: int, values: int, shape: tuple[int, int], share: float, width: int
) -> None:
    truth = regions(seed, values, shape)
    paint = scribble(truth, share, np.random.default_rng(seed), width=width)
    painted = paint > 0
    assert paint.shape == truth.shape
    assert np.count_nonzero(painted) == round(share * truth.size)
    assert (paint[painted] == truth[painted] + 1).all()


@given(seed=st.integers(0, 1000), share=st.floats(0.001, 0.2))
@settings(max_examples=20, deadline=None)
def test_objects_keep_their_ids_and_background_has_its_own_value(seed: int, share: float) -> None:
    truth = objects(seed)
    paint = scribble(truth, share, np.random.default_rng(seed), objects=True)
    painted = paint > 0
    assert np.count_nonzero(painted) == round(share * truth.size)
    assert (paint[painted] == truth[painted] + 1).all()
    assert (paint[painted & (truth == 0)] == BACKGROUND).all()


def test_the_same_generator_paints_the_same() -> None:
    truth = regions(3, 3, (80, 80))
    first, again, other = (scribble(truth, 0.05, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_rare_class_gets_as_much_paint_as_a_common_one() -> None:
    truth = np.zeros((200, 200), np.int32)
    truth[:40, :40] = 1  # 4 %
    paint = scribble(truth, 0.02, np.random.default_rng(0))
    common, rare = np.bincount(paint.ravel(), minlength=3)[1:]
    assert abs(int(common) - int(rare)) < 0.3 * rare


def test_no_class_is_painted_over_more_than_half_of_it() -> None:
    truth = np.zeros((100, 100), np.int32)
    truth[50:54, 50:54] = 1
    paint = scribble(truth, 0.25, np.random.default_rng(0))
    assert np.count_nonzero(paint == 2) == 8


def test_most_objects_are_marked_before_one_is_marked_twice() -> None:
    truth = objects(1)
    paint = scribble(truth, 0.1, np.random.default_rng(0), objects=True)
    marked = set(np.unique(paint[paint > BACKGROUND] - 1).tolist())
    assert marked == set(np.unique(truth[truth > 0]).tolist())


def test_paint_is_strokes_not_scattered_pixels() -> None:
    truth = regions(0, 2, (256, 256))
    paint = scribble(truth, 0.02, np.random.default_rng(0))
    _, pieces = ndimage.label(paint > 0, np.ones((3, 3)))
    assert np.count_nonzero(paint) / pieces > 30


def test_refuses_to_paint_more_than_a_painter_would() -> None:
    with pytest.raises(ValueError, match=r"share is 0\.5, but a painter covers 0 to 0\.25 of an image\."):
        scribble(np.zeros((9, 9), np.int32), 0.5, np.random.default_rng(0))
