"""Sample data: what the menu offers opens, offline too, or says in a sentence why it cannot."""

from __future__ import annotations

import shutil

import imageio.v3 as imageio
import numpy as np
import pytest
import requests
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_unet.errors import FileError
from napari_unet.plugin import samples


@pytest.mark.parametrize(
    ("key", "shape", "values"), [("cells", (512, 512), {0, 1}), ("membranes", (8, 256, 256), {1, 2})]
)
def test_synthetic_samples_open_with_their_truth(plugins, key, shape, values):
    image, truth = ViewerModel().open_sample("napari-unet", key)
    assert isinstance(image, Image)
    assert isinstance(truth, Labels)
    assert image.data.shape == truth.data.shape == shape
    assert set(np.unique(truth.data)) == values


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no network."""

    def refuse(*args, **kwargs):
        raise requests.exceptions.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setenv("NAPARI_UNET_CACHE", str(tmp_path))
    return tmp_path


def test_isbi_2012_offline_is_one_sentence(plugins, cache):
    with pytest.raises(FileError, match="is this computer online") as caught:
        ViewerModel().open_sample("napari-unet", "isbi2012")
    assert "image/0.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_threads_of_a_download_do_not_fight_for_its_folder(plugins, cache, monkeypatch):
    def another_was_faster(path, *args, **kwargs):
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr("os.makedirs", another_was_faster)
    with pytest.raises(FileError, match="is this computer online"):
        ViewerModel().open_sample("napari-unet", "isbi2012")


def test_a_cache_that_cannot_be_made_is_one_sentence(plugins, cache, monkeypatch):
    (cache / "file").touch()
    monkeypatch.setenv("NAPARI_UNET_CACHE", str(cache / "file"))
    with pytest.raises(FileError, match=r"cannot keep the downloaded slices \(Not a directory\)"):
        ViewerModel().open_sample("napari-unet", "isbi2012")


def test_isbi_2012_opens_from_the_cache(plugins, cache, monkeypatch, real_data):
    stored = real_data / "isbi2012_em"
    slices = sorted((stored / "image").glob("*.png"))
    monkeypatch.setattr(samples, "_ISBI_2012_SLICES", len(slices))
    for kind in ("image", "label"):
        (cache / kind).mkdir()
        for n, path in enumerate(slices):
            shutil.copy(stored / kind / path.name, cache / kind / f"{n}.png")
    image, truth = ViewerModel().open_sample("napari-unet", "isbi2012")
    assert image.data.shape == truth.data.shape == (len(slices), 512, 512)
    np.testing.assert_array_equal(image.data[3], imageio.imread(slices[3]))
    np.testing.assert_array_equal(np.unique(truth.data), [0, 255])
    np.testing.assert_allclose(image.scale, (50, 4, 4))
    assert [str(unit) for unit in truth.units] == ["nanometer"] * 3


def test_a_changed_download_is_not_used(plugins, cache, monkeypatch):
    monkeypatch.setattr("pooch.core.stream_download", lambda *args, **kwargs: _refuse_hash())
    with pytest.raises(FileError, match="its checksum differs"):
        ViewerModel().open_sample("napari-unet", "isbi2012")


def _refuse_hash():
    raise ValueError("SHA256 hash of downloaded file does not match the known hash")
