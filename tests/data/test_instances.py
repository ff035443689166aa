"""Objects of stacks: the same for any block, chunk and machine; joined along Z where asked."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.data.instances import IDS, Blocks, find_objects
from napari_unet.data.objects import decode, foreground, number_objects
from napari_unet.spec import ObjectDecoding

from .blobs import blobs, blurred

HOW = ObjectDecoding()


def as_network(stored: np.ndarray) -> np.ndarray:
    """Probabilities (y, x, 3) of one slice stored as bytes (3, y, x); where nothing is stored, of background."""
    steps = np.moveaxis(stored, 0, -1).astype(np.float32)
    steps[~steps.any(-1), 0] = 255
    return steps / np.float32(255)


def stack_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (3, N, Y, X) as bytes, and the objects of each slice decoded alone."""
    answers = [blurred(blobs(seed + n)) for n in range(count)]
    stored = np.rint(255 * np.moveaxis(np.stack(answers), -1, 0)).astype(np.uint8)
    alone = [decode(as_network(stored[:, n]), HOW) for n in range(count)]
    return stored, np.stack(alone)


def test_numbers_go_on_from_slice_to_slice() -> None:
    stored, alone = stack_of(3)
    labels = np.zeros(alone.shape, IDS)
    told: list[tuple[int, int]] = []
    assert not find_objects(stored, labels, HOW, tell=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]
    before = 0
    for found, expected in zip(labels, alone, strict=True):
        np.testing.assert_array_equal(found, np.where(expected > 0, expected + np.uint32(before), 0))
        before += int(expected.max())


def test_objects_do_not_depend_on_how_probabilities_are_stored() -> None:
    stored, alone = stack_of(2)
    results = [np.zeros(alone.shape, IDS) for _ in range(2)]
    find_objects(stored, results[0], HOW)
    find_objects(stored.astype(np.float32) / 255, results[1], HOW)
    np.testing.assert_array_equal(*results)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(1, 60), st.integers(1, 60), st.sampled_from([20, 60]))
def test_a_stop_and_a_new_start_give_the_same(after: int, cy: int, cx: int, side: int) -> None:
    stored, alone = stack_of(3)
    whole = np.zeros(alone.shape, IDS)
    find_objects(stored, whole, HOW)
    labels, done = np.zeros(alone.shape, IDS), []
    stopped = find_objects(
        stored,
        labels,
        HOW,
        chunk=(cy, cx),
        blocks=Blocks(side),
        tell=lambda n, _: done.append((n - 1,)),
        stop=lambda: len(done) >= after,
    )
    assert stopped == (after < 3)
    assert not labels[after:].any()
    first = tuple(done)
    assert not find_objects(
        stored, labels, HOW, chunk=(cy, cx), blocks=Blocks(side), is_done=lambda index: index in first
    )
    np.testing.assert_array_equal(labels, whole)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("side", [11, 60])
def test_only_the_window_is_decoded(side: int, link: bool) -> None:
    stored, alone = stack_of(3)
    labels = np.zeros(alone.shape, IDS)
    stored[:, :, :10] = 0  # as where nothing was computed
    where = ((1, 2), (10, 40), (5, 50))
    find_objects(
        stored, labels, HOW, slice_axes="Z", link=link, window=where, chunk=(7, 30), blocks=Blocks(side)
    )
    np.testing.assert_array_equal(labels[1, 10:40, 5:50], decode(as_network(stored[:, 1, 10:40, 5:50]), HOW))
    assert labels[1].any()
    labels[1:2, 10:40, 5:50] = 0
    assert not labels.any()


@st.composite
def pictures(draw: st.DrawFn) -> np.ndarray:
    """Bytes (3, y, x): smooth blobs that touch, long snakes, few values, much of it saturated."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(3, 90), st.integers(3, 90)))
    size = draw(st.sampled_from([0.0, 0.7, 1.5, 3.0, 6.0]))
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), size) for _ in range(3)]
    steep = np.array(noise) / np.std(noise) * draw(st.sampled_from([0.5, 2.0, 8.0]))
    steep[0] += draw(st.sampled_from([-2.0, 0.0, 1.0, 3.0]))
    y, x = np.indices(shape)
    for _ in range(draw(st.integers(0, 8))):  # discs that may run into each other
        at = rng.uniform(0, shape)
        disc = np.hypot(y - at[0], x - at[1]) < draw(st.sampled_from([4, 9, 13]))
        steep[0, disc], steep[1, disc] = -5, 3
    for _ in range(draw(st.integers(0, 4))):
        walk = np.cumsum(rng.integers(-1, 2, (draw(st.integers(1, 400)), 2)), 0) + rng.integers(0, shape)
        y, x = (walk % shape).T
        steep[0, y, x] = draw(st.sampled_from([-5.0, 2.0]))
        steep[1, y, x], steep[2, y, x] = draw(st.sampled_from([1.0, 3.0])), 2
    odds = np.exp(steep - steep.max(0))
    steps = draw(st.sampled_from([1, 3, 255]))
    answer: np.ndarray = (np.rint(odds / odds.sum(0) * steps) * (255 // steps)).astype(np.uint8)
    return answer


decodings = st.builds(
    ObjectDecoding,
    foreground_threshold=st.sampled_from([0.1, 0.5, 0.9]),
    seed_threshold=st.sampled_from([0.2, 0.5, 0.9]),
    min_size=st.sampled_from([0, 2, 30]),
    neck_depth=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    min_confidence=st.sampled_from([0.0, 0.6, 0.95]),
)


@settings(max_examples=100, deadline=None)
@given(pictures(), decodings, st.integers(1, 64), st.tuples(st.integers(1, 95), st.integers(1, 95)))
def test_blocks_give_what_the_whole_slice_gives(
    stored: np.ndarray, how: ObjectDecoding, side: int, chunk: tuple[int, int]
) -> None:
    labels = np.full(stored.shape[1:], 7, IDS)
    assert not find_objects(stored, labels, how, chunk=chunk, blocks=Blocks(max(side, 4)))
    np.testing.assert_array_equal(labels, decode(as_network(stored), how))


@settings(max_examples=100, deadline=None)
@given(pictures(), decodings, st.data())
def test_a_picture_can_be_cut_around_whole_regions(
    stored: np.ndarray, how: ObjectDecoding, data: st.DataObject
) -> None:
    whole = decode(as_network(stored), how)
    regions, count = ndimage.label(foreground(as_network(stored), how), np.ones((3, 3)))
    if not count:
        return
    number = data.draw(st.integers(1, count))
    y, x = ndimage.find_objects(regions)[number - 1]
    above, before = (data.draw(st.integers(0, side.start)) for side in (y, x))
    cut = slice(above, y.stop), slice(before, x.stop)
    mine = np.where(regions[cut] == number, stored[:, *cut], np.array([255, 0, 0])[:, None, None])
    alone = decode(as_network(mine), how)
    expected = np.where(regions[cut] == number, whole[cut], 0)
    np.testing.assert_array_equal(alone, number_objects(expected))


@settings(max_examples=40, deadline=None)
@given(pictures(), st.integers(16, 40), st.tuples(st.integers(1, 95), st.integers(1, 95)))
def test_regions_that_are_cut_do_not_depend_on_chunks(
    stored: np.ndarray, side: int, chunk: tuple[int, int]
) -> None:
    blocks = Blocks(side, limit=50, margin=6)
    results = [np.zeros(stored.shape[1:], IDS) for _ in range(2)]
    find_objects(stored, results[0], HOW, chunk=chunk, blocks=blocks)
    find_objects(zarr.array(stored, chunks=(1, *chunk)), results[1], HOW, blocks=blocks)
    np.testing.assert_array_equal(*results)
    found = results[0]
    np.testing.assert_array_equal(found > 0, foreground(as_network(stored), HOW))
    assert list(dict.fromkeys(found[found > 0].tolist())) == list(range(1, int(found.max()) + 1))


def carpet(seed: int) -> tuple[np.ndarray, int]:
    """Cells without gaps between them, as one region, and the largest side of a cell."""
    rng = np.random.default_rng(seed)
    points = np.mgrid[4:100:8, 4:100:8].reshape(2, -1).T + rng.integers(-2, 3, (144, 2))
    at = np.indices((96, 96)).reshape(2, -1).T
    ids = np.linalg.norm(at[:, None] - points, axis=-1).argmin(1).reshape(96, 96) + 1
    stored = np.rint(255 * np.moveaxis(blurred(ids, 0.6), -1, 0)).astype(np.uint8)
    found = decode(as_network(stored), HOW)
    sides = [max(y.stop - y.start, x.stop - x.start) for y, x in ndimage.find_objects(found)]
    return stored, max(sides)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("side", [32, 41, 60])
def test_a_region_that_is_cut_gives_what_it_gives_whole_if_objects_are_small(seed: int, side: int) -> None:
    stored, largest = carpet(seed)
    how = HOW.replace(min_size=20)
    labels = np.zeros((96, 96), IDS)
    find_objects(stored, labels, how, blocks=Blocks(side, limit=1, margin=largest + 1))
    assert labels.max() > 100
    np.testing.assert_array_equal(labels, decode(as_network(stored), how))


@settings(max_examples=60, deadline=None)
@given(pictures(), decodings, st.integers(8, 40))
def test_objects_smaller_than_the_margin_do_not_show_that_a_region_is_cut(
    stored: np.ndarray, how: ObjectDecoding, side: int
) -> None:
    found = decode(as_network(stored), how.replace(min_size=0, min_confidence=0))
    sides = [max(y.stop - y.start, x.stop - x.start) for y, x in ndimage.find_objects(found)]
    labels = np.zeros(stored.shape[1:], IDS)
    find_objects(stored, labels, how, blocks=Blocks(side, limit=1, margin=max(sides, default=0) + 1))
    np.testing.assert_array_equal(labels, decode(as_network(stored), how))


@pytest.mark.parametrize("margin", [23, 26, 40])
@pytest.mark.parametrize("side", [24, 48, 61])
def test_discs_that_run_into_each_other_are_parted_as_if_the_region_were_whole(
    side: int, margin: int
) -> None:
    y, x = np.indices((110, 150))
    inside = np.zeros((110, 150), bool)
    for row, column in np.mgrid[13:110:21, 13:150:21].reshape(2, -1).T:
        inside |= np.hypot(y - row, x - column) < 11.5
    stored = np.stack([255 * ~inside, 255 * inside, 0 * inside]).astype(np.uint8)
    how = ObjectDecoding(neck_depth=1.5)
    labels = np.zeros((110, 150), IDS)
    find_objects(stored, labels, how, blocks=Blocks(side, limit=1, margin=margin))
    assert labels.max() == 35
    np.testing.assert_array_equal(labels, decode(as_network(stored), how))


def test_a_snake_through_all_blocks_is_one_object() -> None:
    inside = np.zeros((70, 70), bool)
    inside[::4] = True
    inside[:, -1], inside[:, 0] = np.arange(70) % 8 < 5, np.arange(70) % 8 >= 4
    stored = np.stack([255 * ~inside, 255 * inside, 0 * inside]).astype(np.uint8)
    for blocks in (Blocks(8), Blocks(8, limit=9, margin=3)):
        labels = np.zeros((70, 70), IDS)
        find_objects(stored, labels, HOW, blocks=blocks)
        np.testing.assert_array_equal(labels, decode(as_network(stored), HOW))
        assert labels.max() == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=4), st.integers(5, 60), decodings)
def test_joined_objects_do_not_depend_on_blocks(seeds: list[int], side: int, how: ObjectDecoding) -> None:
    stored = np.stack([stack_of(1, seed)[0][:, 0] for seed in seeds], axis=1)
    whole, cut = (np.zeros(stored.shape[1:], IDS) for _ in range(2))
    find_objects(stored, whole, how, slice_axes="Z", link=True)
    find_objects(stored, cut, how, slice_axes="Z", link=True, chunk=(9, 11), blocks=Blocks(side))
    np.testing.assert_array_equal(whole, cut)
    numbers = whole[whole > 0].tolist()
    assert list(dict.fromkeys(numbers)) == list(range(1, int(whole.max(initial=0)) + 1))
    apart = np.zeros(stored.shape[1:], IDS)
    find_objects(stored, apart, how)
    for one, other in zip(whole, apart, strict=True):  # the same objects in each slice, two never joined
        np.testing.assert_array_equal(
            number_objects(other), decode_order(one), err_msg="an object of one slice"
        )


def decode_order(picture: np.ndarray) -> np.ndarray:
    """Objects numbered anew by their first pixels."""
    seen = {value: n for n, value in enumerate(dict.fromkeys(picture[picture > 0].tolist()), start=1)}
    return np.vectorize(lambda value: seen.get(value, 0), otypes=[np.int64])(picture)


def through_pickles(run: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterable[Any]:
    """Do as another process would: nothing that is handed over is shared."""
    return (
        pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(run))(pickle.loads(pickle.dumps(job)))))
        for job in jobs
    )


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("blocks", [Blocks(16), Blocks(16, limit=100, margin=5), Blocks(64)])
def test_the_work_can_be_done_elsewhere(tmp_path: Path, blocks: Blocks, link: bool) -> None:
    stored, alone = stack_of(3)
    expected = np.zeros(alone.shape, IDS)
    find_objects(stored, expected, HOW, slice_axes="Z", link=link, blocks=blocks)
    kept = zarr.create_array(tmp_path / "p.zarr", shape=stored.shape, dtype="u1", chunks=(1, 1, 20, 20))
    kept[...] = stored
    labels = zarr.create_array(tmp_path / "l.zarr", shape=alone.shape, dtype="u4", chunks=(1, 13, 20))

    def scratch(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        chunks = (*(1 for _ in shape[2:]), 16, 16)
        return zarr.create_array(tmp_path / "s.zarr", shape=shape, dtype=dtype, chunks=chunks)

    assert not find_objects(
        kept,
        labels,
        HOW,
        slice_axes="Z",
        link=link,
        chunk=(13, 20),
        blocks=blocks,
        scratch=scratch,
        run_all=through_pickles,
    )
    np.testing.assert_array_equal(labels[...], expected)


@pytest.mark.parametrize("after", [0, 5, 20, 60])
def test_joined_objects_are_written_at_the_end_or_not_at_all(after: int) -> None:
    stored, alone = stack_of(3)
    labels, asked = np.zeros(alone.shape, IDS), []

    def stop() -> bool:
        asked.append(0)
        return len(asked) > after

    options: dict[str, Any] = {"slice_axes": "Z", "link": True, "blocks": Blocks(20)}
    assert find_objects(stored, labels, HOW, stop=stop, is_done=lambda at: at == (0,), **options) == (
        after < 60
    )
    assert labels.any() == (after == 60)


def test_joined_objects_that_are_all_written_are_left_alone() -> None:
    stored, alone = stack_of(2)
    labels = np.zeros(alone.shape, IDS)
    assert not find_objects(stored, labels, HOW, slice_axes="Z", link=True, is_done=lambda _: True)
    assert not labels.any()


def test_the_last_chunk_of_a_slice_is_written_last_and_chunks_are_whole() -> None:
    stored, alone = stack_of(2)
    written: list[tuple[Any, ...]] = []

    class Journal(np.ndarray):
        def __setitem__(self, key: Any, value: Any) -> None:
            written.append(key)
            super().__setitem__(key, value)

    labels = np.zeros(alone.shape, IDS).view(Journal)
    find_objects(stored, labels, HOW, chunk=(30, 40), blocks=Blocks(16))
    chunks = [(y, x) for y in (slice(0, 30), slice(30, 48)) for x in (slice(0, 40), slice(40, 52))]
    assert written == [(n, *chunk) for n in range(2) for chunk in chunks]


@pytest.mark.parametrize("limit", [2**24, 100])
def test_a_stop_between_blocks_leaves_the_slice_unwritten(limit: int) -> None:
    stored, alone = stack_of(1)
    count = 0
    while True:
        asked, labels = iter(range(count)), np.zeros(alone.shape, IDS)
        if not find_objects(
            stored,
            labels,
            HOW,
            blocks=Blocks(16, limit=limit, margin=8),
            stop=lambda asked=asked: next(asked, None) is None,
        ):
            break
        assert not labels.any()
        count += 1
    assert count > 12  # blocks, and boxes between them
