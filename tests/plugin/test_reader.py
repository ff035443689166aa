"""Opening OME-TIFF and model files in napari."""

from __future__ import annotations

from pathlib import Path

import dask.array
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.errors import MultipleReaderError
from napari.layers import Image, Labels
from napari.settings import get_settings

from napari_unet.errors import FileError
from napari_unet.files.model import save_model_file
from napari_unet.files.tiff import write_tiff
from napari_unet.plugin import reader
from napari_unet.plugin.reader import model_reader, ome_tiff_reader
from napari_unet.spec import ModelSpec, weight_shapes

RNG = np.random.default_rng(0)


def write_ome(path: Path, array: np.ndarray, axes: str, **metadata) -> Path:
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, array, ome=True, photometric=photometric, metadata={"axes": axes, **metadata})
    return path


def open_layers(path: Path) -> list:
    return ViewerModel().open(str(path), plugin="napari-unet")


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Path of a stack of 3 x 20 x 30 pixels of 50 x 4 x 4 nm."""
    pixels = RNG.integers(0, 255, (3, 20, 30), np.uint8)
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (50.0, 4.0, 4.0), strict=True)}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
    return write_ome(tmp_path / "stack.ome.tif", pixels, "ZYX", **sizes, **units)


def test_scale_units_and_axes_arrive_at_the_layer(plugins, stack):
    (layer,) = open_layers(stack)
    assert isinstance(layer, Image)
    assert layer.name == "stack"
    np.testing.assert_allclose(layer.scale, (50, 4, 4))
    assert [str(unit) for unit in layer.units] == ["nanometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    np.testing.assert_array_equal(layer.data, tifffile.imread(stack))


@pytest.mark.parametrize("lazy", [False, True])
def test_channels_become_layers_with_their_names(plugins, tmp_path, monkeypatch, lazy):
    pixels = RNG.integers(0, 255, (4, 2, 16, 24), np.uint16)
    path = write_ome(
        tmp_path / "two.ome.tif", pixels, "ZCYX", Channel={"Name": ["DAPI", "actin"]}, PhysicalSizeX=0.5
    )
    if lazy:
        open_image = reader.open_image
        monkeypatch.setattr(reader, "open_image", lambda *args, **kw: open_image(*args, **kw, lazy_above=0))
    layers = open_layers(path)
    assert [layer.name for layer in layers] == ["two: DAPI", "two: actin"]
    for channel, layer in enumerate(layers):
        assert isinstance(layer.data, dask.array.Array) == lazy
        np.testing.assert_array_equal(np.asarray(layer.data), pixels[:, channel])
        np.testing.assert_allclose(layer.scale, (1, 1, 0.5))
        assert [str(unit) for unit in layer.units] == ["pixel", "pixel", "micrometer"]


def test_each_series_becomes_a_layer(plugins, tmp_path):
    path = tmp_path / "several.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(np.zeros((8, 9), np.uint8), metadata={"axes": "YX"})
        tiff.write(np.ones((3, 10, 11), np.uint8), metadata={"axes": "ZYX"})
    layers = open_layers(path)
    assert [layer.data.shape for layer in layers] == [(8, 9), (3, 10, 11)]
    assert len({layer.name for layer in layers}) == 2
    assert [layer.metadata["series"] for layer in layers] == [0, 1]


def test_a_pyramid_is_multiscale(plugins, tmp_path):
    path = tmp_path / "pyramid.ome.tif"
    full = RNG.integers(0, 255, (256, 320), np.uint8)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(full, subifds=1, tile=(64, 64), metadata={"axes": "YX", "PhysicalSizeX": 2.0})
        tiff.write(full[::2, ::2], subfiletype=1, tile=(64, 64))
    (layer,) = open_layers(path)
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(256, 320), (128, 160)]
    np.testing.assert_allclose(layer.scale, (1, 2))


def test_colour_stays_one_layer(plugins, tmp_path):
    pixels = RNG.integers(0, 255, (12, 14, 3), np.uint8)
    (layer,) = open_layers(write_ome(tmp_path / "colour.ome.tif", pixels, "YXS"))
    assert layer.rgb
    np.testing.assert_array_equal(layer.data, pixels)


def test_what_was_saved_as_labels_opens_as_labels_whatever_its_name(plugins, tmp_path):
    pixels = np.zeros((5, 6), np.uint8)
    write_tiff(tmp_path / "a.ome.tif", pixels, "YX", labels=True)
    write_tiff(tmp_path / "b.ome.tif", pixels, "YX")
    (labels,) = open_layers(tmp_path / "a.ome.tif")
    (image,) = open_layers(tmp_path / "b.ome.tif")
    assert isinstance(labels, Labels)
    assert isinstance(image, Image)


def test_a_script_names_the_reader_or_gets_the_one_it_prefers(plugins, stack):
    viewer = ViewerModel()
    (by_napari,) = viewer.open(str(stack))
    np.testing.assert_allclose(by_napari.scale, (1, 1, 1))
    with pytest.raises(MultipleReaderError, match="napari-unet"):
        viewer.open(str(stack), plugin=None)
    settings = get_settings().plugins
    before = settings.extension2reader
    try:
        settings.extension2reader = {**before, "*.ome.tif": "napari-unet"}
        (preferred,) = viewer.open(str(stack), plugin=None)
    finally:
        settings.extension2reader = before
    np.testing.assert_allclose(preferred.scale, (50, 4, 4))


def test_a_damaged_file_is_one_sentence(plugins, stack):
    stack.write_bytes(stack.read_bytes()[:200])
    with pytest.raises(FileError, match="copy it again from its source") as caught:
        open_layers(stack)
    assert caught.value.path == str(stack)


@pytest.mark.parametrize("path", ["a.tif", "a.zarr", ["a.ome.tif", "b.ome.tif"]])
def test_other_files_and_stacks_of_files_are_left_to_other_readers(path):
    assert ome_tiff_reader(path) is None
    assert model_reader(path) is None


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """Path of a small model that was never trained."""
    spec = ModelSpec(name="nuclei", network={"filters": 1, "depth": 1})
    arrays = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(spec.network).items()}
    path = tmp_path / "nuclei.unet"
    save_model_file(path, spec, arrays)
    return path


def test_a_model_is_offered_to_the_segment_dock_and_adds_no_layer(plugins, model_file, monkeypatch):
    offered, said = [], []
    monkeypatch.setattr("napari_unet.gui.segment_dock.offer_model", offered.append)
    monkeypatch.setattr("napari.utils.notifications.show_info", said.append)
    assert open_layers(model_file) == []
    assert [Path(path) for path in offered] == [model_file]
    (sentence,) = said
    assert sentence.startswith("Model 'nuclei' is in the Segment dock. 2 classes: background, foreground. ")
    assert sentence.endswith("1 channel, pixel size not known. 1 filter; quality not measured.")


def test_a_damaged_model_is_one_sentence_and_is_not_offered(plugins, model_file, monkeypatch):
    offered = []
    monkeypatch.setattr("napari_unet.gui.segment_dock.offer_model", offered.append)
    model_file.write_bytes(model_file.read_bytes()[:100])
    with pytest.raises(FileError) as caught:
        open_layers(model_file)
    assert caught.value.path == str(model_file)
    assert offered == []
