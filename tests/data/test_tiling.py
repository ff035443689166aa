"""Tiles cover the output once, read what the network needs, and little more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.data.axes import Stack
from napari_unet.data.tiling import Halo, Tile, chunk_shape, padded, plan, read_tile
from napari_unet.errors import ConfigError, DataError

EXACT_AT_DEPTH_4 = Halo(96, 112)

patient = settings(deadline=None, max_examples=60)  # the clock of a shared machine proves nothing

sizes = st.integers(1, 90)
shapes = st.tuples(sizes, sizes)
strides = st.sampled_from([1, 2, 4, 16])
halos = st.builds(Halo, st.integers(0, 40), st.integers(0, 40))
blocks = st.tuples(st.integers(1, 8), st.integers(1, 8))


def chunks_of(shape: tuple[int, int], blocks: tuple[int, int], stride: int) -> tuple[int, int]:
    """A chunk of some strides, clipped to the image."""
    return min(blocks[0] * stride, shape[0]), min(blocks[1] * stride, shape[1])


def lengths(region: tuple[slice, slice]) -> tuple[int, int]:
    return region[0].stop - region[0].start, region[1].stop - region[1].start


def computed(tiles: list[Tile]) -> int:
    return sum(y * x for y, x in (lengths(tile.read) for tile in tiles))


@patient
@given(shapes, blocks, halos, strides)
def test_writes_cover_every_output_pixel_exactly_once(shape, blocks, halo, stride):
    painted = np.zeros(shape, int)
    for tile in plan(shape, chunks_of(shape, blocks, stride), halo, stride):
        painted[tile.write] += 1
    assert (painted == 1).all()


@patient
@given(shapes, blocks, halos, strides)
def test_reads_are_aligned_and_hold_the_halo_or_end_with_the_padded_image(shape, blocks, halo, stride):
    for tile in plan(shape, chunks_of(shape, blocks, stride), halo, stride):
        for read, write, end in zip(tile.read, tile.write, padded(shape, stride), strict=True):
            assert read.start % stride == 0
            assert read.stop % stride == 0
            assert 0 <= read.start < read.stop <= end
            assert read.start <= max(0, write.start - halo.before)
            assert read.stop >= min(end, write.stop + halo.after)


@patient
@given(shapes, blocks, halos, strides)
def test_crop_of_the_read_is_the_write(shape, blocks, halo, stride):
    coordinates = np.stack(np.meshgrid(*map(np.arange, padded(shape, stride)), indexing="ij"), axis=-1)
    for tile in plan(shape, chunks_of(shape, blocks, stride), halo, stride):
        np.testing.assert_array_equal(coordinates[tile.read][tile.crop], coordinates[tile.write])


@patient
@given(shapes, blocks, halos, strides)
def test_reads_have_few_shapes(shape, blocks, halo, stride):
    chunk = chunks_of(shape, (blocks[0] + 4, blocks[1] + 4), stride)
    tiles = plan(shape, chunk, Halo(min(halo.before, 4 * stride), min(halo.after, 4 * stride)), stride)
    for axis in (0, 1):
        # First, middle and last chunk; the one before a short last chunk may be cut as well.
        assert len({lengths(tile.read)[axis] for tile in tiles}) <= 4


def test_reads_of_a_large_image_all_have_one_shape():
    shape = (20_000, 20_000)
    tiles = plan(shape, chunk_shape(shape, EXACT_AT_DEPTH_4, 16, 8_000_000), EXACT_AT_DEPTH_4, 16)
    assert len({lengths(tile.read) for tile in tiles}) <= 3


@patient
@given(shapes, blocks, halos, strides, st.data())
def test_a_window_selects_the_whole_chunks_that_meet_it_and_changes_none(shape, blocks, halo, stride, data):
    window = tuple(
        tuple(sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size + 5))))) for size in shape
    )
    chunk = chunks_of(shape, blocks, stride)
    (y0, y1), (x0, x1) = window
    chosen = plan(shape, chunk, halo, stride, window)
    everything = plan(shape, chunk, halo, stride)
    meeting = [
        tile
        for tile in everything
        if set(range(y0, y1)) & set(range(tile.write[0].start, tile.write[0].stop))
        and set(range(x0, x1)) & set(range(tile.write[1].start, tile.write[1].stop))
    ]
    assert chosen == meeting


@patient
@given(st.tuples(st.integers(1, 700), st.integers(1, 700)), halos, strides, st.integers(13_000, 200_000))
def test_chosen_chunks_respect_the_limit_and_fit_the_plan(shape, halo, stride, max_pixels):
    chunk = chunk_shape(shape, halo, stride, max_pixels)
    for length, size in zip(chunk, shape, strict=True):
        assert length == size or (length % stride == 0 and length < size)
    tiles = plan(shape, chunk, halo, stride)
    assert max(y * x for y, x in (lengths(tile.read) for tile in tiles)) <= max_pixels


@patient
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    halos,
    st.sampled_from([4, 16]),
    blocks,
    st.booleans(),
)
def test_no_equal_grid_computes_less_than_the_chosen_one(shape, halo, stride, parts, one_shape):
    limit = 20_000
    chosen = chunk_shape(shape, halo, stride, limit, one_shape=one_shape)
    best = computed(plan(shape, chosen, halo, stride, one_shape=one_shape))
    steps = [-(-size // stride) for size in shape]
    chunk = chunks_of(shape, (-(-steps[0] // parts[0]), -(-steps[1] // parts[1])), stride)
    other = plan(shape, chunk, halo, stride, one_shape=one_shape)
    if max(y * x for y, x in (lengths(tile.read) for tile in other)) <= limit:
        assert best <= computed(other)


def test_waste_at_2048_and_2_megapixels_is_a_fifth():
    shape = (2048, 2048)
    tiles = plan(shape, chunk_shape(shape, EXACT_AT_DEPTH_4, 16, 2_000_000), EXACT_AT_DEPTH_4, 16)
    assert computed(tiles) / 2048**2 <= 1.205
    assert len({lengths(tile.read) for tile in tiles}) <= 3


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (512, 512), (1024, 1300)])
def test_an_image_that_fits_is_one_tile(shape):
    chunk = chunk_shape(shape, EXACT_AT_DEPTH_4, 16, 2_000_000)
    assert chunk == shape
    (tile,) = plan(shape, chunk, EXACT_AT_DEPTH_4, 16)
    assert lengths(tile.read) == padded(shape, 16)


@pytest.mark.parametrize("shape", [(16, 50_000), (100_000, 100_000)])
def test_long_and_huge_images_have_affordable_chunks(shape):
    chunk = chunk_shape(shape, EXACT_AT_DEPTH_4, 16, 2_000_000)
    largest = np.prod(
        [min(length + 208, -(-size // 16) * 16) for length, size in zip(chunk, shape, strict=True)]
    )
    assert largest <= 2_000_000
    assert min(chunk) >= 16


def test_too_small_a_tile_says_what_would_do():
    with pytest.raises(
        ConfigError, match=r"at most 0\.02 megapixels is too small for this network"
    ) as caught:
        chunk_shape((5000, 5000), EXACT_AT_DEPTH_4, 16, 20_000)
    assert str(caught.value).endswith("has 50,176 pixels. Allow tiles of 0.06 megapixels or more.")
    assert chunk_shape((5000, 5000), EXACT_AT_DEPTH_4, 16, 60_000)


def test_chunks_between_two_strides_are_refused():
    with pytest.raises(
        ConfigError,
        match="Chunks of 100 pixels in y do not fit this network: its tiles must be multiples of 16",
    ):
        plan((512, 512), (100, 512), EXACT_AT_DEPTH_4, 16)


def test_an_empty_image_is_refused():
    with pytest.raises(DataError, match="An image of 0 x 5 pixels has nothing to compute"):
        plan((0, 5), (16, 16), Halo(0, 0), 16)


@patient
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    blocks,
    halos,
    st.sampled_from([4, 16]),
    st.integers(1, 3),
)
def test_read_tile_equals_a_crop_of_the_slice_padded_by_reflection(shape, blocks, halo, stride, channels):
    array = np.random.default_rng(0).integers(0, 65536, (2, *shape, channels)).astype(np.uint16)
    stack = Stack(array, "ZYXC")
    bottom, right = (end - size for end, size in zip(padded(shape, stride), shape, strict=True))
    # numpy mirrors a single pixel as itself, but refuses to call that reflection.
    whole = np.pad(array[1], ((0, bottom), (0, 0), (0, 0)), mode="reflect" if shape[0] > 1 else "edge")
    whole = np.pad(whole, ((0, 0), (0, right), (0, 0)), mode="reflect" if shape[1] > 1 else "edge")
    for tile in plan(shape, chunks_of(shape, blocks, stride), halo, stride):
        pixels = read_tile(stack, 1, tile, stride)
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, whole[tile.read])


def test_a_tile_of_another_image_is_refused():
    (tile,) = plan((64, 64), (64, 64), Halo(0, 0), 16)
    with pytest.raises(
        DataError, match=r"A tile up to \(64, 64\) does not belong to image 'raw' of 32 x 32 pixels"
    ):
        read_tile(Stack(np.zeros((32, 32), np.uint8), "YX", "raw"), 0, tile, 16)


@patient
@given(shapes, blocks, halos, strides)
def test_reads_have_one_shape_where_that_is_asked_for(shape, blocks, halo, stride):
    chunk = chunks_of(shape, blocks, stride)
    tiles = plan(shape, chunk, halo, stride, one_shape=True)
    assert len({lengths(tile.read) for tile in tiles}) == 1
    for tile, as_usual in zip(tiles, plan(shape, chunk, halo, stride), strict=True):
        assert tile.write == as_usual.write
        for more, less in zip(tile.read, as_usual.read, strict=True):
            assert more.start <= less.start
            assert more.stop >= less.stop
