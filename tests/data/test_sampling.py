"""Batches depend on their number alone and show what is painted; held-out regions never touch training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet.data.dataset import Dataset, Example
from napari_unet.data.holdout import GAP, MIN_CLASS_PIXELS, MIN_VALIDATION_PIXELS, split
from napari_unet.data.labels import IGNORE, ClassMap
from napari_unet.data.normalize import Range
from napari_unet.data.sampling import Sampler
from napari_unet.errors import DataError


def example(target: np.ndarray, group: int = 0, index: int = 0) -> Example:
    """Make an example whose pixels tell where they lie: (row, column, image, slice)."""
    y, x = np.indices(target.shape, dtype=np.float32)
    image = np.stack([y, x, np.full_like(y, group), np.full_like(y, index)], axis=-1)
    return Example(image, target.astype(np.uint8), group, index)


def dataset(*examples: Example) -> Dataset:
    return Dataset(examples, ClassMap((0, 1)), Range((0.0,) * 4, (1.0,) * 4), 0)


def coin(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, shape)


def seen(examples: tuple[Example, ...]) -> np.ndarray:
    """List the labelled pixels as rows (row, column, image, slice), from the pixels themselves."""
    return np.concatenate(
        [np.empty((0, 4), int), *(e.image[e.target != IGNORE].astype(int) for e in examples)]
    )


def numbers(places: np.ndarray) -> np.ndarray:
    """Give each place of `seen` a number of its own."""
    return places @ [1, 1000, 10**6, 10**8]


# --- batches ---------------------------------------------------------------------------------------


@given(
    targets=st.lists(
        hnp.arrays(
            np.uint8,
            st.tuples(st.integers(1, 90), st.integers(1, 90)),
            elements=st.sampled_from([0, 1, 2]),
            fill=st.just(IGNORE),
        ),
        min_size=1,
        max_size=3,
    ),
    patch=st.sampled_from([16, 32, 48]),
    flips=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=100, deadline=None)
def test_every_patch_is_a_piece_of_its_image_and_holds_paint(
    targets: list[np.ndarray], patch: int, flips: bool, seed: int
) -> None:
    examples = [example(target, group) for group, target in enumerate(targets)]
    if all((target == IGNORE).all() for target in targets):
        with pytest.raises(DataError):
            Sampler(examples, 3, patch, 2, seed, flips)
        return
    sampler = Sampler(examples, 3, patch, 2, seed, flips)
    for n in range(3):
        images, labels, _ = sampler.batch(n)
        assert images.shape == (2, patch, patch, 4)
        assert images.dtype == np.float32
        assert labels.shape == (2, patch, patch)
        assert labels.dtype == np.uint8
        for image, label in zip(images, labels, strict=True):
            known = label != IGNORE
            assert known.any()
            y, x, group, _ = image.astype(int)[known].T
            assert len(set(group)) == 1
            np.testing.assert_array_equal(label[known], targets[group[0]][y, x])


def test_a_batch_comes_from_its_number_alone() -> None:
    sampler = Sampler([example(coin((100, 120)))], 2, 48, 3, seed=5, flips=True)
    again = Sampler([example(coin((100, 120)))], 2, 48, 3, seed=5, flips=True)
    in_order = [sampler.batch(n) for n in range(20)]
    with ThreadPoolExecutor(4) as threads:
        shuffled = dict(zip(range(19, -1, -1), threads.map(again.batch, range(19, -1, -1)), strict=True))
    for n, batch in enumerate(in_order):
        for part, same in zip(batch, shuffled[n], strict=True):
            np.testing.assert_array_equal(part, same)
    other = Sampler([example(coin((100, 120)))], 2, 48, 3, seed=6, flips=True).batch(0)
    assert not np.array_equal(in_order[0][0], other[0])
    assert not np.array_equal(in_order[0][0], in_order[1][0])


def test_one_painted_pixel_in_a_large_image_is_always_shown_off_the_rim() -> None:
    target = np.full((512, 512), IGNORE)
    target[300, 211] = 1
    sampler = Sampler([example(target)], 2, 64, 2, seed=0, flips=False)
    places = set()
    for n in range(50):
        _, labels, _ = sampler.batch(n)
        for label in labels:
            ((y, x),) = np.argwhere(label != IGNORE)
            assert 16 <= y < 48
            assert 16 <= x < 48
            places.add((int(y), int(x)))
    assert len(places) > 50


def test_a_rare_class_is_in_at_least_every_fourth_patch() -> None:
    target = np.zeros((600, 600))
    target[:4, :4] = 1
    sampler = Sampler([example(target)], 2, 32, 2, seed=0, flips=False)
    hits = [(label == 1).any() for n in range(200) for label in sampler.batch(n)[1]]
    assert 0.17 < np.mean(hits) < 0.35


def test_painted_pixels_are_drawn_evenly() -> None:
    target = np.full((200, 300), IGNORE)
    target[:40, :50], target[150:190, 100:300] = 0, 0
    sampler = Sampler([example(target), example(np.zeros((20, 100)), group=1)], 1, 16, 8, seed=0, flips=False)
    drawn = np.array([sampler._pixel(k)[0].group for k in range(12_000)])
    assert np.count_nonzero(drawn == 0) == 10_000
    pixels = {(e.group, y, x) for e, y, x in map(sampler._pixel, range(12_000))}
    assert len(pixels) == 12_000


def test_small_images_are_reflected_without_labels() -> None:
    target = coin((20, 90))
    images, labels = Sampler([example(target)], 2, 64, 1, seed=0, flips=False).batch(0)[:2]
    rows = np.flatnonzero((labels[0] != IGNORE).any(axis=1))
    assert len(rows) == 20
    assert (labels[0] != IGNORE).sum() == 20 * 64
    top = rows[0]
    if top:
        np.testing.assert_array_equal(images[0, top - 1], images[0, top + 1])
    assert set(np.unique(images[0, ..., 0])) == set(range(20))


def test_an_image_of_one_pixel_can_be_sampled() -> None:
    images, labels = Sampler([example(np.ones((1, 1)))], 2, 16, 2, seed=0, flips=True).batch(0)[:2]
    assert np.isfinite(images).all()
    assert (labels != IGNORE).sum() == 2


def test_nothing_painted_cannot_be_sampled() -> None:
    with pytest.raises(DataError) as caught:
        Sampler([example(np.full((9, 9), IGNORE))], 2, 16, 2, seed=0, flips=True)
    assert str(caught.value) == (
        "No pixel is painted in what is to be trained on. Paint some pixels of each class, then start again."
    )


# --- what is held out ------------------------------------------------------------------------------


def test_of_several_images_whole_images_are_held_out() -> None:
    data = dataset(*(example(coin((40, 40), i), group=i) for i in range(20)))
    held = split(data, 0.15, seed=3)
    assert held.message == "Quality is measured on 3 of the 20 images, held out from training."
    groups = [{e.group for e in side} for side in (held.train, held.validation)]
    assert len(groups[1]) == 3
    assert groups[0] | groups[1] == set(range(20))
    assert not groups[0] & groups[1]
    assert {e.group for e in split(data, 0.15, seed=4).validation} != groups[1]


def test_of_a_stack_slices_at_the_end_are_held_out_with_a_gap() -> None:
    held = split(dataset(*(example(coin((40, 40), i), index=i) for i in range(16))), 0.15)
    assert [e.index for e in held.validation] == [14, 15]
    assert [e.index for e in held.train] == list(range(13))
    assert held.message == (
        "Quality is measured on the last 2 of 16 painted slices, held out from training with a gap of one slice."
    )


def test_slices_that_are_apart_need_no_further_gap() -> None:
    held = split(dataset(*(example(coin((40, 40), i), index=5 * i) for i in range(6))), 0.15)
    assert [e.index for e in held.validation] == [25]
    assert [e.index for e in held.train] == [0, 5, 10, 15, 20]


def test_the_other_end_is_taken_where_the_last_slices_miss_a_class() -> None:
    targets = [coin((40, 40), i) if i < 5 else np.zeros((40, 40)) for i in range(10)]
    held = split(dataset(*(example(target, index=i) for i, target in enumerate(targets))), 0.2)
    assert [e.index for e in held.validation] == [0, 1]
    assert [e.index for e in held.train] == list(range(3, 10))


def test_of_one_image_a_band_is_held_out_with_a_gap() -> None:
    data = dataset(example(coin((200, 300))))
    held = split(data, 0.15)
    train, validation = seen(held.train), seen(held.validation)
    assert 0.14 < len(validation) / 60_000 < 0.2
    gaps = []
    for axis in (0, 1):
        rows, others = np.unique(train[:, axis]), np.unique(validation[:, axis])
        gaps.append(np.abs(rows[:, np.newaxis] - others).min())
    assert sorted(gaps) == [0, GAP + 1]
    assert held.message == (
        "Quality is measured on a band of each image, about 15% of the paint, held out from training "
        "with a gap of 32 pixels."
    )


def test_the_band_is_where_both_sides_keep_every_class() -> None:
    target = np.zeros((400, 400))
    target[:, :100] = 1  # only a band of rows has both classes
    held = split(dataset(example(target)), 0.2)
    for side in (held.train, held.validation):
        assert set(np.unique(side[0].target)) >= {0, 1}
    # and it is cut to its context
    assert held.validation[0].target.shape == (80 + 128, 400)
    assert held.validation[0].image.shape == (80 + 128, 400, 4)


def test_slices_of_a_short_stack_share_their_band() -> None:
    held = split(dataset(*(example(coin((150, 150), i), index=i) for i in range(3))), 0.15)
    places = seen(held.validation)
    bands = [places[places[:, 3] == index][:, :2] for index in range(3)]
    np.testing.assert_array_equal(bands[0], bands[1])
    np.testing.assert_array_equal(bands[0], bands[2])
    assert len(held.validation) == 3


@given(
    shape=st.tuples(st.integers(1, 160), st.integers(1, 160)),
    count=st.integers(1, 9),
    same_image=st.booleans(),
    fraction=st.floats(0.01, 0.5),
    sparse=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_sides_never_share_a_label_and_measure_something(
    shape: tuple[int, int], count: int, same_image: bool, fraction: float, sparse: bool, seed: int
) -> None:
    examples = []
    for i in range(count):
        target = coin(shape, 10 * seed + i)
        if sparse:
            target[np.random.default_rng(i).random(shape) < 0.9] = IGNORE
        examples.append(example(target, *((0, i) if same_image else (i, 0))))
    data = dataset(*examples)
    if all((e.target == IGNORE).all() for e in examples):
        return
    held = split(data, fraction, seed)
    everything, train, validation = (
        numbers(seen(side)) for side in (data.examples, held.train, held.validation)
    )
    assert not np.isin(train, validation).any()
    assert np.isin(train, everything).all()
    assert np.isin(validation, everything).all()
    if not held.validation:
        assert held.train == data.examples
        assert held.message.endswith("so quality is not measured.")
        return
    present = {int(c) for e in examples for c in np.unique(e.target)} - {IGNORE}
    for side in (held.train, held.validation):
        assert all(sum((e.target == c).sum() for e in side) >= MIN_CLASS_PIXELS for c in present)
    assert sum((e.target != IGNORE).sum() for e in held.validation) >= MIN_VALIDATION_PIXELS


def test_too_little_paint_is_not_held_out_and_said() -> None:
    target = np.full((300, 300), IGNORE)
    target[10:20, 10:20], target[200:210, 200:210] = 0, 1
    data = dataset(example(target))
    held = split(data, 0.15)
    assert (held.train, held.validation) == (data.examples, ())
    assert held.message == (
        "Too little is painted to hold a region out (it needs 500 painted pixels, and both sides 25 of each class), "
        "so quality is not measured."
    )


def test_nothing_is_held_out_where_the_user_wants_none() -> None:
    data = dataset(example(coin((200, 200))))
    held = split(data, 0.0)
    assert (held.train, held.validation) == (data.examples, ())
    assert held.message == "Nothing is held out, as asked, so quality is not measured."
