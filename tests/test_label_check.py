"""Checking labels in files and arrays, by Python and on the command line; and on real data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_unet import check, train
from napari_unet.cli import main
from napari_unet.data.synthetic import cells
from napari_unet.errors import DataError, FileError
from napari_unet.files.pairs import match_pairs
from napari_unet.files.tiff import write_tiff


def write_pair(folder: Path, name: str, labels: np.ndarray, image: np.ndarray, size: float = 0.5) -> None:
    spacing = {"Y": size, "X": size}
    for kind, array in (("image", image), ("labels", labels)):
        write_tiff(
            folder / f"{name}.{kind}.ome.tif",
            array,
            "YX",
            pixel_size=spacing,
            unit="micrometer",
            labels=kind == "labels",
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        image, labels, _ = cells((96, 128), seed=seed)
        write_pair(tmp_path, name, labels * np.uint8(255), image, 0.5 + seed)
    return tmp_path


def test_missing_chunks_of_an_image_are_told(tmp_path: Path) -> None:
    image, labels, _ = cells((96, 128), seed=0)
    paths = tmp_path / "raw.zarr", tmp_path / "raw.labels.tif"
    zarr.create_array(paths[0], shape=image.shape, dtype=image.dtype, chunks=(64, 64))[...] = image
    write_tiff(paths[1], labels, "YX", labels=True)
    assert not check(*paths).of("warning")
    (paths[0] / "c" / "1" / "0").unlink()
    (warning,) = check(*paths).of("warning")
    assert str(warning) == (
        "Image 'raw' has 3 of its 4 chunks; the rest is read as one value, mostly black. Some programs leave out chunks that hold nothing "
        "else: then all is well. If not, it was not copied to its end: copy it again."
    )


def test_arrays_are_checked_as_files_are(tmp_path: Path) -> None:
    image, labels, _ = cells((96, 128), seed=0)
    paths = [tmp_path / "labels 0.tif", tmp_path / "image 0.tif"]
    for path, array in zip(paths, (labels * 0.5, image), strict=True):
        write_tiff(path, array, "YX")
    assert check(paths[1], paths[0]) == check([image], [labels * 0.5])
    result = check([image], [labels * 0.5])
    assert [str(finding) for finding in result.of("error")] == [
        "Labels 'labels 0' hold decimals, from 0 to 0.5, on "
        f"{np.mean(labels > 0):.0%}".replace("%", " % of the pixels. Labels are whole numbers, so this looks like a probability map. ")
        + "Turn it into labels with a threshold (above 0.5 becomes 1, the rest 0), or choose the labels."
    ]  # fmt: skip
    colour = np.stack([image] * 3)
    assert check([colour], [labels], axes="CYX").of("error") == ()
    for look in (check, train):
        with pytest.raises(DataError, match="'labels 0' has shape .*, but its axes are given as 'ZYX'"):
            look([colour], [labels], axes="ZYX")


def test_files_are_matched_by_name_and_their_pixel_sizes_compared(folder: Path) -> None:
    result = check(folder, folder)
    assert [finding.sentence for finding in result.of("warning")] == [
        ("The images differ in magnification: a pixel of 'a.image' is 0.5 micrometer wide, one of 'b.image' 1.5 micrometer, so the same "
        "thing looks 3.0 times as large in 'a.image'.")
    ]  # fmt: skip
    with pytest.raises(FileError, match="there is no such file"):
        check(folder / "nowhere", folder)
    with pytest.raises(DataError, match="Give both as one or the other"):
        check(folder, [np.zeros((4, 4), int)])


def test_the_command_tells_findings_and_ends_with_1_after_errors(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = ["--images", str(folder), "--labels", str(folder)]
    assert main(["check", *where]) == 0
    out, err = capfd.readouterr()
    text = " ".join(out.split())
    assert "warning The images differ in magnification" in text
    assert "hint The labels hold 0 and 255, as many programs save masks." in text
    assert "Each painted value is taken for a class of pixels" in text
    assert "2 images have labels." in err

    assert main(["check", *where, "--unpainted", "ignore", "--json"]) == 1
    content = json.loads(capfd.readouterr().out)
    assert content["target"] == "classes"
    assert content["findings"][0]["severity"] == "error"
    assert content["findings"][0]["sentence"].startswith("Only one value, 255, is painted")
    assert content["findings"][0]["fix"].startswith("If all that is unpainted is background, choose")

    assert main(["check", "--images", "nowhere", "--labels", "nowhere"]) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


GOOD = [
    ("isbi2012_em/image", "isbi2012_em/label", 3, "classes"),
    ("dsb2018_fluo/train/images", "dsb2018_fluo/train/masks", 8, "objects"),
    ("dsb2018_color_rgba/images", "dsb2018_color_rgba/masks", 5, "objects"),
    ("axon_sem_3class/images", "axon_sem_3class/labels_idx", 1, "classes"),
    ("vnc_em_multiclass/raw", "vnc_em_multiclass/labels_idx", 1, "classes"),
    ("vnc_em_multiclass/raw", "vnc_em_multiclass/membranes", 1, "classes"),
    ("sandstone_ct_4class/images", "sandstone_ct_4class/labels_idx", 1, "classes"),
    ("stardist_samples/img2d.tif", "stardist_samples/mask2d.tif", 1, "objects"),
    ("stardist_samples/img3d.tif", "stardist_samples/mask3d.tif", 1, "objects"),
    ("fibsem_neurons_3d/image.tif", "fibsem_neurons_3d/labels.tif", 1, "objects"),
]


@pytest.mark.parametrize(
    ("images", "labels", "number", "target"), GOOD, ids=[labels for _, labels, _, _ in GOOD]
)
def test_real_labels_get_no_error_no_warning_and_the_right_target(
    real_data: Path, images: str, labels: str, number: int, target: str
) -> None:
    if not (real_data / labels).exists():
        pytest.skip(f"{labels} is not among the real data")
    pairs = match_pairs(real_data / images, real_data / labels).pairs[:number]
    result = check([image for image, _ in pairs], [painted for _, painted in pairs])
    assert [str(finding) for finding in (*result.of("error"), *result.of("warning"))] == []
    assert result.target == target


def test_real_flaws_are_found(real_data: Path) -> None:
    """Two flaws that the sources really have."""
    axon, vnc = real_data / "axon_sem_3class", real_data / "vnc_em_multiclass"
    if not axon.exists() or not vnc.exists():
        pytest.skip("axon_sem_3class or vnc_em_multiclass is not among the real data")
    smoothed = check(vnc / "raw" / "00.tif", vnc / "mitochondria" / "00.png")
    assert smoothed.of("warning")[0].sentence.startswith("Labels '00' hold 0, 255 and 34 values between them")
    colour = real_data / "sandstone_ct_4class"
    one = [sorted((colour / name).iterdir())[0] for name in ("images", "masks_rgb_orig")]
    assert "It has 4 different colours, probably one for each class." in check(*one).of("error")[0].sentence
