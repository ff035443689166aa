"""Images and labels find each other by name, or the report says which did not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import FileError
from napari_unet.files.pairs import match_pairs


def folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).touch()
    return path


def names(pairs: tuple[tuple[Path, Path], ...]) -> list[tuple[str, str]]:
    return [(image.name, labels.name) for image, labels in pairs]


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("a.tif", "a.tif"),
        ("a.ome.tif", "a.png"),
        ("a.tif", "a_mask.tif"),
        ("a.tif", "a_labels.tif"),
        ("a.png", "a_cp_masks.tif"),
        ("a_img.tif", "a-seg.png"),
        ("img_7.tif", "mask_7.tif"),
        ("a.image.ome.tif", "a.labels.ome.tif"),
        ("a.labels.ome.tif", "a.tif"),
        ("a.probabilities.ome.tif", "a_mask.tif"),
        ("A.TIF", "a_Mask.tif"),
        ("a b.tif", "a b_mask.tif"),
        ("sub-1_data5.png", "sub-1_data5_axonmyelin.png"),
        ("ü 漢.tif", "ü 漢.tif"),
    ],
)
def test_common_ways_to_name_pairs(tmp_path: Path, image: str, labels: str) -> None:
    images = folder(tmp_path / "images", image, "zz.tif")
    truth = folder(tmp_path / "labels", labels, "zz.tif")
    found = match_pairs(images, truth)
    assert (image, labels) in names(found.pairs)
    assert len(found.pairs) == 2
    assert found.report() == "2 images have labels."


def test_pairs_in_one_folder(tmp_path: Path) -> None:
    both = folder(
        tmp_path, "a.image.ome.tif", "a.labels.ome.tif", "b.tif", "b_mask.tif", "c.tif", "notes.txt"
    )
    found = match_pairs(both, both)
    assert names(found.pairs) == [("a.image.ome.tif", "a.labels.ome.tif"), ("b.tif", "b_mask.tif")]
    assert [path.name for path in found.unmatched_images] == ["c.tif"]


def test_the_report_says_what_did_not_match(tmp_path: Path) -> None:
    images = folder(tmp_path / "i", *(f"{i}.tif" for i in (1, 2, 10, 11, 12, 13)))
    labels = folder(tmp_path / "l", "1.tif", "x.tif")
    found = match_pairs(images, labels)
    assert found.report() == (
        "1 image has labels; without labels, so left out: 2.tif, 10.tif, 11.tif and 2 more; "
        "labels without an image: x.tif."
    )


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    both = folder(tmp_path, "raw.tif", "painted by hand.png")
    found = match_pairs(both / "raw.tif", both / "painted by hand.png")
    assert names(found.pairs) == [("raw.tif", "painted by hand.png")]


def test_lists_of_files_match_by_name(tmp_path: Path) -> None:
    images = folder(tmp_path / "i", "a.tif", "b.tif")
    labels = folder(tmp_path / "l", "b.tif", "a.tif")
    found = match_pairs([images / "a.tif", images / "b.tif"], [labels / "b.tif", labels / "a.tif"])
    assert names(found.pairs) == [("a.tif", "a.tif"), ("b.tif", "b.tif")]


def test_numbers_are_no_suffix(tmp_path: Path) -> None:
    images = folder(tmp_path / "i", "a.tif", "b.tif")
    labels = folder(tmp_path / "l", "a_2.tif", "b.tif")
    assert names(match_pairs(images, labels).pairs) == [("b.tif", "b.tif")]


def test_the_longest_name_wins(tmp_path: Path) -> None:
    images = folder(tmp_path / "i", "a.tif", "a_x.tif")
    labels = folder(tmp_path / "l", "a_x_axon.tif", "a_axon.tif")
    assert names(match_pairs(images, labels).pairs) == [("a.tif", "a_axon.tif"), ("a_x.tif", "a_x_axon.tif")]


def test_nothing_matched_is_an_error_that_shows_both_sides(tmp_path: Path) -> None:
    images, labels = folder(tmp_path / "i", "a.tif", "b.tif"), folder(tmp_path / "l", "x.tif", "y.tif")
    with pytest.raises(
        FileError, match=r"images are a\.tif, b\.tif, labels are x\.tif, y\.tif\. Give each pair"
    ):
        match_pairs(images, labels)
    with pytest.raises(FileError, match=r"labels are none"):
        match_pairs(images, images)


def test_two_labels_for_one_image_are_an_error(tmp_path: Path) -> None:
    images, labels = (
        folder(tmp_path / "i", "a.tif", "b.tif"),
        folder(tmp_path / "l", "a.tif", "a.png", "b.tif"),
    )
    with pytest.raises(FileError, match=r"a\.tif: has more than one labels file: a\.png, a\.tif"):
        match_pairs(images, labels)


def test_two_images_for_one_labels_file_are_an_error(tmp_path: Path) -> None:
    images, labels = (
        folder(tmp_path / "i", "a.tif", "a.png", "b.tif"),
        folder(tmp_path / "l", "a.tif", "b.tif"),
    )
    with pytest.raises(FileError, match=r"has the name of two images, a\.png and a\.tif"):
        match_pairs(images, labels)


def test_empty_and_missing_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder without images"):
        match_pairs(folder(tmp_path / "i", "readme.md", ".hidden.tif"), tmp_path / "i")
    with pytest.raises(FileError, match="there is no such file or folder"):
        match_pairs(tmp_path / "none", tmp_path)


def test_a_zarr_is_one_image(tmp_path: Path) -> None:
    images, labels = folder(tmp_path / "i"), folder(tmp_path / "l")
    for name in ("a", "b"):
        folder(images / f"{name}.zarr", "zarr.json")
        folder(labels / f"{name}_labels.zarr", "zarr.json")
    assert len(match_pairs(images, labels).pairs) == 2
    assert len(match_pairs(images / "a.zarr", labels / "b_labels.zarr").pairs) == 1


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text("abc12_-", min_size=1, max_size=6), min_size=2, max_size=8), st.data())
def test_no_file_is_lost_or_used_twice(
    tmp_path_factory: pytest.TempPathFactory, stems: set[str], data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("p")
    of_images = sorted(data.draw(st.sets(st.sampled_from(sorted(stems)), min_size=2)))
    of_labels = sorted(data.draw(st.sets(st.sampled_from(sorted(stems)), min_size=2)))
    images = folder(base / "i", *(f"{stem}.tif" for stem in of_images))
    labels = folder(base / "l", *(f"{stem}.tif" for stem in of_labels))
    try:
        found = match_pairs(images, labels)
    except FileError:
        assert not set(of_images) & set(of_labels)
        return
    left = [image for image, _ in found.pairs] + list(found.unmatched_images)
    right = [label for _, label in found.pairs] + list(found.unmatched_labels)
    assert sorted(left) == sorted(images.iterdir())
    assert sorted(right) == sorted(labels.iterdir())
    same = {(f"{stem}.tif", f"{stem}.tif") for stem in set(of_images) & set(of_labels)}
    assert same <= set(names(found.pairs))


@pytest.mark.parametrize(
    ("images", "labels", "count"),
    [
        ("dsb2018_fluo/train/images", "dsb2018_fluo/train/masks", None),
        ("isbi2012_em/image", "isbi2012_em/label", 20),
        ("axon_sem_3class/images", "axon_sem_3class/labels_orig", 6),
        ("omnipose_phase_samples/images", "omnipose_phase_samples/masks_model_generated", 7),
        ("vnc_em_multiclass/raw", "vnc_em_multiclass/labels_idx", 12),
    ],
)
def test_real_folders_match_completely(real_data: Path, images: str, labels: str, count: int | None) -> None:
    found = match_pairs(real_data / images, real_data / labels)
    assert found.unmatched_images == found.unmatched_labels == ()
    assert len(found.pairs) == (count or len(list((real_data / images).iterdir())))
