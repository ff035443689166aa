"""Objects become classes that a network learns, and probabilities become objects again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.data import objects
from napari_unet.data.instance_metrics import overlap
from napari_unet.data.objects import (
    BORDER,
    INSIDE,
    decode,
    learn_objects,
    number_objects,
    object_distances,
    object_targets,
)
from napari_unet.data.tally import certainty
from napari_unet.errors import DataError
from napari_unet.files.image import open_image
from napari_unet.spec import ObjectDecoding


def patchwork(
    seed: int, shape: tuple[int, int] = (32, 40), objects: int = 9, gaps: float = 0.3
) -> np.ndarray:
    """Objects that touch here and there: cells around random points, with background between some."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((0, 0), shape, (objects, 2))
    at = np.moveaxis(np.indices(shape), 0, -1)
    distance = np.linalg.norm(at[:, :, None] - points, axis=-1)
    ids = distance.argmin(-1) + 1
    ids[distance.min(-1) > rng.uniform(3, 9)] = 0
    ids[np.isin(ids, rng.choice(objects, int(gaps * objects), replace=False) + 1)] = 0
    return ids.astype(np.int64)


def certain(target: np.ndarray) -> np.ndarray:
    """Probabilities of a network that knows the truth."""
    return np.eye(3, dtype=np.float32)[target]


def test_two_objects_that_touch_have_a_border_between_them() -> None:
    ids = np.zeros((5, 10), int)
    ids[:, :4], ids[:, 4:8] = 5, 3
    assert object_targets(ids, width=1)[2].tolist() == [1, 1, 1, 2, 2, 1, 1, 2, 0, 0]
    assert object_targets(ids, width=2)[2].tolist() == [1, 1, 2, 2, 2, 2, 1, 2, 0, 0]


def test_a_narrow_gap_is_border_and_a_wide_one_background() -> None:
    ids = np.zeros((5, 11), int)
    ids[:, :4], ids[:, 5:9] = 1, 2
    assert object_targets(ids, width=2)[2].tolist() == [1, 1, 1, 2, 2, 2, 1, 1, 2, 0, 0]
    assert object_targets(ids, width=1)[2].tolist() == [1, 1, 1, 2, 0, 2, 1, 1, 2, 0, 0]


def test_an_object_alone_has_an_outline_where_it_is_known_to_end() -> None:
    ids = np.zeros((9, 9), int)
    ids[2:7, 3:] = 2**40
    target = object_targets(ids)
    assert target[4].tolist() == [0, 0, 0, 2, 1, 1, 1, 1, 1]
    assert (target[2, 3:] == BORDER).all() and (target[6, 3:] == BORDER).all()
    known = np.ones(ids.shape, bool)
    known[:, :3] = False
    assert object_targets(ids, known)[4].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert not object_targets(np.zeros((4, 4), int)).any()


def test_even_the_smallest_object_keeps_an_inside() -> None:
    ids = np.ones((9, 9), int)
    ids[4, 4] = 2
    target = object_targets(ids, width=2)
    assert target[4, 4] == INSIDE
    assert target[4, 3] == BORDER


class Counted(np.ndarray):
    """An image that counts how many of its pixels are computed with."""

    looks = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        Counted.looks += self.size
        plain = [np.asarray(each) if isinstance(each, Counted) else each for each in inputs]
        return getattr(ufunc, method)(*plain, **options)


def test_the_work_does_not_grow_with_objects_times_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.zeros((60, 60), int)
    ids[::3, ::3] = np.arange(1, 401).reshape(20, 20)
    monkeypatch.setattr(objects, "number_objects", lambda ids: number_objects(ids).view(Counted))
    target = object_targets(ids)
    assert (target[ids > 0] == INSIDE).all()  # each of the 400 was all border
    assert Counted.looks < 20 * ids.size


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_targets_are_the_definition(seed: int, width: float) -> None:
    ids = patchwork(seed)
    distances = [np.full(ids.shape, np.inf)] * 2
    distances += [ndimage.distance_transform_edt(ids != i) for i in np.unique(ids[ids > 0])]
    both = np.sort(distances, axis=0)[:2].sum(0)
    outline = np.zeros(ids.shape, bool)
    for i in np.unique(ids[ids > 0]):
        outline |= (ids == i) & ~ndimage.binary_erosion(ids == i, border_value=1)
    border = outline | (both <= width)
    target = object_targets(ids, width=width)
    assert ((target == BORDER) <= border).all()
    assert ((target == INSIDE) <= (ids > 0)).all()
    spared = border & (target != BORDER)
    for i in np.unique(ids[spared]):  # an object without any other inside
        assert border[ids == i].all()
    assert set(np.unique(ids[target == INSIDE])) == set(np.unique(ids[ids > 0]))
    numbers, order = number_objects(ids), np.random.default_rng(seed).permutation(ids.max() + 1)
    renamed = np.where(ids > 0, order[ids] + 7, 0)
    np.testing.assert_array_equal(object_targets(renamed, width=width), target)
    assert np.array_equal(np.unique(numbers[numbers > 0]), np.arange(1, len(np.unique(ids[ids > 0])) + 1))


def test_distances_are_to_the_nearest_two_objects() -> None:
    ids = np.zeros((1, 9), np.int32)
    ids[0, 1], ids[0, 6] = 1, 2
    nearest, second = object_distances(ids, 9)
    assert nearest[0].tolist() == [1, 0, 1, 2, 2, 1, 0, 1, 2]
    assert second[0].tolist() == [6, 5, 4, 3, 3, 4, 5, 6, 7]
    assert np.isinf(object_distances(ids, 2)[1][0, 0])


def test_one_value_for_all_counts_regions() -> None:
    mask = np.zeros((5, 9), np.uint8)
    mask[1:4, 1:4] = mask[1:4, 5:8] = 255
    target, numbers = learn_objects(mask, pieces=True)
    assert numbers.max() == 2
    assert target[2].tolist() == [0, 2, 1, 2, 2, 2, 1, 2, 0]
    assert learn_objects(mask)[1].max() == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_objects_are_whole_numbers_in_scan_order_and_none_is_small(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(30, 33, 3)), (1.5, 1.5, 0)) * 12
    probabilities = (np.exp(noise) / np.exp(noise).sum(-1, keepdims=True)).astype(np.float32)
    how = ObjectDecoding(
        foreground_threshold=rng.uniform(0.2, 0.8),
        seed_threshold=rng.uniform(0.2, 0.8),
        min_size=int(rng.integers(12)),
        neck_depth=float(rng.choice([0, 1, 2])),
    )
    found = decode(probabilities, how)
    assert found.dtype == np.uint8
    assert list(dict.fromkeys(found[found > 0].tolist())) == list(range(1, int(found.max()) + 1))
    sizes = np.bincount(found.ravel())[1:]
    assert (sizes >= max(1, how.min_size)).all()
    foreground = 1 - probabilities[..., 0] >= np.float32(how.foreground_threshold)
    assert foreground[found > 0].all()
    for number in range(1, int(found.max()) + 1):
        # Grown by its four neighbours from seeds that may meet at corners.
        assert ndimage.label(found == number, np.ones((3, 3)))[1] == 1
    sure = decode(probabilities, how.replace(min_size=0)) > 0
    np.testing.assert_array_equal(sure, foreground)  # nothing of the foreground is lost


def test_the_type_holds_the_objects() -> None:
    ids = np.zeros((60, 60), int)
    ids[::3, ::3] = np.arange(1, 401).reshape(20, 20)
    found = decode(certain(object_targets(ids, width=1)), ObjectDecoding())
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, ids)


def test_touching_objects_come_back_apart() -> None:
    ids = np.zeros((20, 30), int)
    ids[4:16, 3:15], ids[4:16, 15:27] = 1, 2
    np.testing.assert_array_equal(decode(certain(object_targets(ids)), ObjectDecoding()), ids)


def test_a_region_without_a_seed_is_one_object() -> None:
    probabilities = np.zeros((8, 12, 3), np.float32)
    probabilities[..., 0] = 1
    probabilities[2:5, 1:4] = 0, 0.4, 0.6
    probabilities[2:7, 6:11] = 0, 0.9, 0.1
    expected = np.zeros((8, 12), int)
    expected[2:5, 1:4], expected[2:7, 6:11] = 1, 2
    np.testing.assert_array_equal(decode(probabilities, ObjectDecoding()), expected)
    large = decode(probabilities, ObjectDecoding(min_size=10))
    np.testing.assert_array_equal(large, expected > 1)


def dumbbell(gap: int) -> np.ndarray:
    """Inside of two discs of radius 8, `gap` pixels apart, joined by a bridge of 5 pixels, which a network did not part."""
    y, x = np.indices((24, 44))
    inside = np.minimum(np.hypot(y - 12, x - 12), np.hypot(y - 12, x - 28 - gap)) < 8
    inside |= (abs(y - 12) < 3) & (x > 12) & (x < 28 + gap)
    return certain(np.where(inside, INSIDE, 0))


def test_what_a_neck_joins_is_parted_there() -> None:
    whole = decode(dumbbell(4), ObjectDecoding())
    parted = decode(dumbbell(4), ObjectDecoding(neck_depth=2))
    assert whole.max() == 1
    assert parted.max() == 2
    np.testing.assert_array_equal(parted > 0, whole > 0)
    assert (parted[:, :18].max(), parted[:, 26:][parted[:, 26:] > 0].min()) == (1, 2)
    assert decode(dumbbell(4), ObjectDecoding(neck_depth=7)).max() == 1  # the bridge is no 7 pixels narrower


def test_a_convex_object_stays_whole_at_any_depth() -> None:
    y, x = np.indices((30, 50))
    ellipse = certain(np.where(((y - 15) / 11) ** 2 + ((x - 25) / 22) ** 2 < 1, INSIDE, 0))
    for depth in (0.5, 1.0, 2.0):
        assert decode(ellipse, ObjectDecoding(neck_depth=depth)).max() == 1


def test_certainty_holds_what_stored_maps_may_hold() -> None:
    background = np.array([[0, 0.5, 1, -0.02, 1.3, np.nan]], np.float32)
    probabilities = np.stack([background, 1 - background, 0 * background], -1)
    assert certainty(probabilities).tolist() == [[255, 128, 0, 255, 0, 0]]


def test_objects_of_which_the_network_is_not_sure_are_left_out() -> None:
    probabilities = np.zeros((8, 16, 3), np.float32)
    probabilities[..., 0] = 1
    probabilities[2:6, 2:6] = 0.3, 0.6, 0.1
    probabilities[2:6, 9:13] = 0.1, 0.8, 0.1
    assert decode(probabilities, ObjectDecoding(min_confidence=0.65)).max() == 2
    np.testing.assert_array_equal(
        decode(probabilities, ObjectDecoding(min_confidence=0.8)), probabilities[..., 0] < 0.2
    )


def test_other_probabilities_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        decode(np.zeros((4, 5, 2), np.float32), ObjectDecoding())
    assert str(caught.value) == (
        "Objects are made from three probabilities a pixel (background, inside, border), as (y, x, 3), "
        "but these have shape (4, 5, 2)."
    )


def test_real_nuclei_come_back_from_their_targets(real_data: Path) -> None:
    files = sorted((real_data / "dsb2018_fluo" / "val" / "masks").glob("*.tif"))[:12]
    images = []
    for file in files:
        truth = np.asarray(open_image(file).array[...])
        images.append(overlap(decode(certain(object_targets(truth)), ObjectDecoding()), truth))
    found = sum(len(image.matched) for image in images)
    assert found >= 0.98 * sum(image.truth for image in images)
    assert sum(image.jaccard for image in images) >= 0.97 * sum(image.truth for image in images)
