"""Saving layers from napari: pixels, scale and units come back, nothing is overwritten by surprise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import LayerList, ViewerModel
from napari.layers import Image, Labels

from napari_unet.errors import DataError, FileError
from napari_unet.files.image import open_image
from napari_unet.files.pairs import match_pairs
from napari_unet.plugin.writer import write_image, write_labels

RNG = np.random.default_rng(0)
SCALE = {"scale": (50, 4, 4), "units": ("nm",) * 3, "axis_labels": ("z", "y", "x")}


def save(path: Path, *layers) -> list[Path]:
    """Save as File > Save does: napari chooses the writer."""
    return [Path(written) for written in LayerList(layers).save(str(path))]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_comes_back_with_scale_and_units(plugins, tmp_path, dtype):
    pixels = RNG.integers(0, 200, (3, 8, 9)).astype(dtype)
    (path,) = save(tmp_path / "image.ome.tif", Image(pixels, **SCALE))
    (layer,) = ViewerModel().open(str(path), plugin="napari-unet")
    np.testing.assert_array_equal(layer.data, pixels)
    assert layer.data.dtype == dtype
    np.testing.assert_allclose(layer.scale, (50, 4, 4))
    assert [str(unit) for unit in layer.units] == ["nanometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")


def test_lengths_of_other_units_are_converted(plugins, tmp_path):
    layer = Image(np.zeros((3, 8, 9), np.uint8), scale=(0.05, 4, 4), units=("um", "nm", "nm"))
    (path,) = save(tmp_path / "image.ome.tif", layer)
    image = open_image(path)
    assert image.unit == "nanometer"
    assert image.pixel_size == pytest.approx({"Z": 50, "Y": 4, "X": 4})


def test_time_keeps_its_axis_and_gets_no_length(plugins, tmp_path):
    layer = Image(
        np.zeros((3, 8, 9), np.uint8), scale=(2, 4, 4), units=("s", "nm", "nm"), axis_labels=tuple("tyx")
    )
    (path,) = save(tmp_path / "image.ome.tif", layer)
    image = open_image(path)
    assert image.axes == "TYX"
    assert image.pixel_size == {"Y": 4, "X": 4}


def test_a_layer_without_scale_makes_a_file_without_pixel_size(plugins, tmp_path):
    (path,) = save(tmp_path / "image.ome.tif", Image(np.zeros((8, 9), np.uint8)))
    assert open_image(path).pixel_size == {}


def test_colour_comes_back_as_colour(plugins, tmp_path):
    pixels = RNG.integers(0, 255, (8, 9, 3), np.uint8)
    (path,) = save(tmp_path / "colour.ome.tif", Image(pixels, rgb=True))
    (layer,) = ViewerModel().open(str(path), plugin="napari-unet")
    assert layer.rgb
    np.testing.assert_array_equal(layer.data, pixels)


def test_a_pyramid_is_saved_at_full_resolution(plugins, tmp_path):
    full = RNG.integers(0, 255, (64, 96), np.uint8)
    (path,) = save(tmp_path / "pyramid.ome.tif", Image([full, full[::2, ::2]], multiscale=True))
    np.testing.assert_array_equal(open_image(path).array, full)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
def test_each_label_value_survives(tmp_path_factory, values):
    labels = np.zeros((4, 6), np.int64)
    labels[0, : len(values)] = values
    path = tmp_path_factory.mktemp("labels") / "a.ome.tif"
    layer = Labels(labels, scale=(2, 2), units=("um", "um"))
    assert write_labels(str(path), *layer.as_layer_data_tuple()[:2]) == [str(path)]
    image = open_image(path)
    np.testing.assert_array_equal(image.array, labels)
    assert (image.pixel_size, image.unit) == ({"Y": 2, "X": 2}, "micrometer")


def test_labels_beyond_32_bits_are_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "a.ome.tif"
    with pytest.raises(FileError, match=r"Write a \.zarr instead"):
        write_labels(str(path), np.array([[0, 2**40]]), {})
    assert list(tmp_path.iterdir()) == []


def test_what_the_file_cannot_hold_is_said(tmp_path):
    layer = Image(np.zeros((8, 9), np.uint8), name="raw", translate=(3, 0), rotate=30)
    with pytest.warns(
        UserWarning, match="layer 'raw', but not its translation and rotation or affine transform"
    ):
        write_image(str(tmp_path / "a.ome.tif"), *layer.as_layer_data_tuple()[:2])


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(FileError, match="nowhere"):
        write_image(str(tmp_path / "nowhere" / "a.ome.tif"), np.zeros((4, 4), np.uint8), {})


def pair(**changes) -> tuple[Image, Labels]:
    image = Image(RNG.integers(0, 255, (3, 8, 9), np.uint8), name="raw", **{**SCALE, **changes})
    return image, Labels(RNG.integers(0, 3, (3, 8, 9), np.uint8), name="painted", **SCALE)


def test_a_pair_is_found_again_by_the_folder_reader(plugins, tmp_path):
    image, labels = pair()
    written = save(tmp_path / "cells.ome.tif", labels, image)
    assert [path.name for path in written] == ["cells.image.ome.tif", "cells.labels.ome.tif"]
    assert match_pairs(tmp_path, tmp_path).pairs == (tuple(written),)
    opened = [open_image(path) for path in written]
    for file, layer in zip(opened, (image, labels), strict=True):
        np.testing.assert_array_equal(file.array, layer.data)
        assert file.pixel_size == {"Z": 50, "Y": 4, "X": 4}


def test_a_pair_never_replaces_labels_that_were_not_chosen(plugins, tmp_path):
    written = save(tmp_path / "cells.ome.tif", *pair())
    before = [path.read_bytes() for path in written]
    with pytest.raises(FileError, match="is there already; choose another name"):
        save(tmp_path / "cells.ome.tif", *pair())
    assert [path.read_bytes() for path in written] == before
    assert save(written[1], *pair()) == written
    assert [path.read_bytes() for path in written] != before


def test_a_pair_of_different_shapes_is_refused(plugins, tmp_path):
    image, _ = pair()
    with pytest.raises(DataError, match=r"7, 9.*8, 9"):
        save(tmp_path / "cells.ome.tif", image, Labels(np.zeros((3, 7, 9), np.uint8)))
    assert list(tmp_path.iterdir()) == []
