"""Batches depend on their number alone and show what is painted; held-out regions never touch training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet.augmentation import Augmentation, AugmentationPreset
from napari_unet.data import holdout
from napari_unet.data.augment import draw_variation
from napari_unet.data.dataset import Dataset, Example
from napari_unet.data.holdout import GAP, MIN_CLASS_PIXELS, MIN_VALIDATION_PIXELS, split
from napari_unet.data.labels import IGNORE, ClassMap
from napari_unet.data.normalize import Range
from napari_unet.data.sampling import Sampler, cut_patch
from napari_unet.errors import DataError

NONE, LIGHT, FULL = (Augmentation.preset(name) for name in get_args(AugmentationPreset))
FLIPS = Augmentation.preset("none", flips=True)


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
    augmentation=st.sampled_from([NONE, FLIPS]),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=100, deadline=None)
def test_every_patch_is_a_piece_of_its_image_and_holds_paint(
    targets: list[np.ndarray], patch: int, augmentation: Augmentation, seed: int
) -> None:
    examples = [example(target, group) for group, target in enumerate(targets)]
    if all((target == IGNORE).all() for target in targets):
        with pytest.raises(DataError):
            Sampler(examples, 3, patch, 2, seed, augmentation)
        return
    sampler = Sampler(examples, 3, patch, 2, seed, augmentation)
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
    sampler = Sampler([example(coin((100, 120)))], 2, 48, 3, seed=5, augmentation=FULL)
    again = Sampler([example(coin((100, 120)))], 2, 48, 3, seed=5, augmentation=FULL)
    in_order = [sampler.batch(n) for n in range(20)]
    with ThreadPoolExecutor(4) as threads:
        shuffled = dict(zip(range(19, -1, -1), threads.map(again.batch, range(19, -1, -1)), strict=True))
    for n, batch in enumerate(in_order):
        for part, same in zip(batch, shuffled[n], strict=True):
            np.testing.assert_array_equal(part, same)
    other = Sampler([example(coin((100, 120)))], 2, 48, 3, seed=6, augmentation=FULL).batch(0)
    assert not np.array_equal(in_order[0][0], other[0])
    assert not np.array_equal(in_order[0][0], in_order[1][0])


def test_one_painted_pixel_in_a_large_image_is_always_shown_off_the_rim() -> None:
    target = np.full((512, 512), IGNORE)
    target[300, 211] = 1
    sampler = Sampler([example(target)], 2, 64, 2, seed=0, augmentation=NONE)
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
    sampler = Sampler([example(target)], 2, 32, 2, seed=0, augmentation=NONE)
    hits = [(label == 1).any() for n in range(200) for label in sampler.batch(n)[1]]
    assert 0.17 < np.mean(hits) < 0.35


def test_painted_pixels_are_drawn_evenly() -> None:
    target = np.full((200, 300), IGNORE)
    target[:40, :50], target[150:190, 100:300] = 0, 0
    sampler = Sampler(
        [example(target), example(np.zeros((20, 100)), group=1)], 1, 16, 8, seed=0, augmentation=NONE
    )
    drawn = np.array([sampler._pixel(k)[0].group for k in range(12_000)])
    assert np.count_nonzero(drawn == 0) == 10_000
    pixels = {(e.group, y, x) for e, y, x in map(sampler._pixel, range(12_000))}
    assert len(pixels) == 12_000


def test_small_images_are_reflected_without_labels() -> None:
    target = coin((20, 90))
    images, labels = Sampler([example(target)], 2, 64, 1, seed=0, augmentation=NONE).batch(0)[:2]
    rows = np.flatnonzero((labels[0] != IGNORE).any(axis=1))
    assert len(rows) == 20
    assert (labels[0] != IGNORE).sum() == 20 * 64
    top = rows[0]
    if top:
        np.testing.assert_array_equal(images[0, top - 1], images[0, top + 1])
    assert set(np.unique(images[0, ..., 0])) == set(range(20))


def test_an_image_of_one_pixel_can_be_sampled() -> None:
    images, labels = Sampler([example(np.ones((1, 1)))], 2, 16, 2, seed=0, augmentation=FLIPS).batch(0)[:2]
    assert np.isfinite(images).all()
    assert (labels != IGNORE).sum() == 2


# --- varied patches --------------------------------------------------------------------------------


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    painted=st.integers(1, 3),
    patch=st.sampled_from([16, 48]),
    augmentation=st.sampled_from([NONE, LIGHT, FULL, FULL.replace(scaling=1.0, deform=0.2)]),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=100, deadline=None)
def test_the_paint_stays_on_its_pixel_and_in_the_patch_however_it_is_varied(
    shape: tuple[int, int], painted: int, patch: int, augmentation: Augmentation, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    target = np.full(shape, IGNORE)
    at = rng.integers(0, shape, (painted, 2))
    target[tuple(at.T)] = np.arange(painted) % 3
    # The image is bright where it is painted, so that the marker tells where the paint belongs.
    image = np.where(target == IGNORE, 0, 10).astype(np.float32)[..., None]
    weight = np.where(target == IGNORE, 0, 2 + target).astype(np.float16)
    marked = Example(image, target.astype(np.uint8), 0, 0, weight)
    sampler = Sampler([marked], 3, patch, 2, seed, augmentation)
    for n in range(3):
        images, labels, weights = sampler.batch(n)
        assert np.isfinite(images).all()
        assert set(np.unique(labels)) <= set(np.unique(target)) | {IGNORE}
        known = labels != IGNORE
        assert known.any(axis=(1, 2)).all()
        np.testing.assert_array_equal(weights[known], labels[known] + 2)
        assert (weights[~known] == 0).all()
        if augmentation is NONE:
            np.testing.assert_array_equal(images[known], 10)


@given(st.integers(0, 2**31 - 1), st.sampled_from([40, 150]))
@settings(max_examples=30, deadline=None)
def test_labels_follow_the_image(seed: int, size: int) -> None:
    y, x = np.indices((size, size))
    disc = np.hypot(y - 15, x - 20) < 12
    marked = Example(disc[..., None].astype(np.float32), disc.astype(np.uint8), 0, 0)
    shape_only = Augmentation.preset("none", flips=True, rotation=180.0, scaling=1.0, deform=0.1)
    images, labels, _ = Sampler([marked], 2, 64, 4, seed, shape_only).batch(0)
    known = labels != IGNORE
    # The nearest of the four pixels that are interpolated has at least a quarter of the weight.
    assert (labels[known & (images[..., 0] > 0.76)] == 1).all()
    assert (labels[known & (images[..., 0] < 0.24)] == 0).all()


def test_rare_classes_are_not_moved_out_of_the_patches_that_were_drawn_for_them() -> None:
    target = np.zeros((600, 600))
    target[0, 0], target[300, 300] = 1, 2  # one pixel in a corner of the image, one in its middle
    sampler = Sampler([example(target)], 3, 64, 2, seed=0, augmentation=FULL)
    for n in range(60):
        rng = np.random.default_rng([0, n, 0])
        rare, at, start = sampler.place(rng, even=True)
        variation = draw_variation(FULL, 64, rng)
        _, label, _ = cut_patch(rare, at, start, 64, variation, rng)
        assert (label == target[at]).any()


def test_places_are_the_same_whatever_the_augmentation() -> None:
    target = coin((200, 200))
    straight = Sampler([example(target)], 2, 32, 4, seed=3, augmentation=NONE).batch(1)[0]
    lit = Sampler(
        [example(target)], 2, 32, 4, seed=3, augmentation=Augmentation.preset("none", brightness=0.5)
    ).batch(1)[0]
    np.testing.assert_allclose(np.diff(lit, axis=1), np.diff(straight, axis=1), atol=1e-3)
    bent = Sampler([example(target)], 2, 32, 4, seed=3, augmentation=FULL.replace(noise=0.0)).batch(1)[0]
    assert not np.array_equal(bent, straight)


def test_a_turned_patch_shows_what_really_lies_around_it() -> None:
    y, x = np.indices((300, 300), np.float32)
    image = Example(np.stack([y, x], axis=-1), np.zeros((300, 300), np.uint8), 0, 0)
    turn = Augmentation.preset("none", rotation=180.0, scaling=0.4)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        variation = draw_variation(turn, 65, rng)
        shown, labels, _ = cut_patch(image, (150, 160), (120, 125), 65, variation, rng)
        assert (labels == 0).all()  # far from the rim nothing is made up
        # A plane is turned into a plane, and the middle stays where it was.
        assert np.abs(np.diff(shown, n=2, axis=0)).max() < 1e-3
        np.testing.assert_allclose(shown[32, 32], (152, 157), atol=1.5)


def test_a_patch_larger_than_its_image_is_varied_around_it() -> None:
    images, labels, weights = Sampler(
        [example(np.ones((20, 30)))], 2, 64, 4, seed=1, augmentation=FULL
    ).batch(0)
    assert images.shape == (4, 64, 64, 4) and np.isfinite(images).all()
    for label, weight in zip(labels, weights, strict=True):
        # As much as the image has, twice as much at most by scaling, and nothing beyond.
        assert 0 < (label == 1).sum() < 20 * 30 * 2.5
        np.testing.assert_array_equal(weight, label == 1)


def test_nothing_painted_cannot_be_sampled() -> None:
    with pytest.raises(DataError) as caught:
        Sampler([example(np.full((9, 9), IGNORE))], 2, 16, 2, seed=0, augmentation=FLIPS)
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


@pytest.mark.parametrize(("slices", "held_out", "which"), [(16, 2, "last 2 of 16"), (8, 1, "last of 8")])
def test_of_a_stack_slices_at_the_end_are_held_out_with_a_gap(slices: int, held_out: int, which: str) -> None:
    held = split(dataset(*(example(coin((40, 40), i), index=i) for i in range(slices))), 0.15)
    trained = slices - held_out - 1
    assert [e.index for e in held.validation] == list(range(trained + 1, slices))
    assert [e.index for e in held.train] == list(range(trained))
    assert held.message == (
        f"Quality is measured on the {which} painted slices, held out from training with a gap of one slice."
    )


def test_no_more_whole_images_and_slices_are_held_out_than_tell_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holdout, "ENOUGH_PIXELS", 2.5 * 40 * 40)
    targets = [coin((40, 40), i) for i in range(40)]
    images = split(dataset(*(example(target, group=i) for i, target in enumerate(targets))), 0.15)
    assert images.message == "Quality is measured on 3 of the 40 images, held out from training."
    assert (len(images.train), len(images.validation)) == (37, 3)
    slices = split(dataset(*(example(target, index=i) for i, target in enumerate(targets))), 0.15)
    assert [e.index for e in slices.validation] == [37, 38, 39]
    assert [e.index for e in slices.train] == list(range(36))
    stacks = split(
        dataset(*(example(target, group=i % 2, index=i // 2) for i, target in enumerate(targets))), 0.15
    )
    assert [(e.group, e.index) for e in stacks.validation] == [(0, 18), (0, 19), (1, 18), (1, 19)]
    # It is the paint of those that are held out that counts.
    for target in targets[38:]:
        target[5:] = IGNORE
    slices = split(dataset(*(example(target, index=i) for i, target in enumerate(targets))), 0.15)
    assert [e.index for e in slices.validation] == [35, 36, 37, 38, 39]
    # Strokes are few pixels: of them, all that was asked for.
    strokes = [np.where(np.random.default_rng(i).random((40, 40)) < 0.8, IGNORE, i % 2) for i in range(40)]
    sparse = split(dataset(*(example(target, group=i) for i, target in enumerate(strokes))), 0.15)
    assert len(sparse.validation) == 6


def test_more_are_held_out_where_few_would_miss_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdout, "ENOUGH_PIXELS", 2.5 * 40 * 40)
    targets = [coin((40, 40), i) if 5 <= i < 35 else np.zeros((40, 40)) for i in range(40)]
    held = split(dataset(*(example(target, index=i) for i, target in enumerate(targets))), 0.15)
    assert [e.index for e in held.validation] == [34, 35, 36, 37, 38, 39]


def test_a_slice_whose_paint_lies_on_no_numbers_is_left_out_of_what_is_held_out() -> None:
    targets = [coin((40, 40), i) for i in range(16)]
    targets[15] = np.full((40, 40), IGNORE)
    held = split(dataset(*(example(target, index=i) for i, target in enumerate(targets))), 0.15)
    assert [e.index for e in held.validation] == [14]


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
