"""What a training would begin with, seen before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_unet import processor
from napari_unet.augmentation import Augmentation
from napari_unet.cli import main
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data import advice, sights
from napari_unet.data.synthetic import cells
from napari_unet.errors import DataError
from napari_unet.files.image import Image, open_image
from napari_unet.files.tiff import write_tiff
from napari_unet.preview import GPU_UNKNOWN, Preview, preview
from napari_unet.processor import has_bfloat16

PLAIN = Augmentation.preset("none")


def look(image: np.ndarray, labels: np.ndarray, axes: str = "YX", **options: object) -> Preview:
    size = {"Y": 0.5, "X": 0.5}
    return preview(
        [Image(image, axes, "cells", size, "micrometer")],
        [Image(labels, axes, "paint", size, "micrometer")],
        **{"target": "classes", **options},
    )


def test_choices_are_told_with_their_reasons_and_what_they_rest_on() -> None:
    image, labels, _ = cells((96, 128), seed=0)
    seen = look(image, labels)
    assert seen.advice.network.filters == 16
    assert [sentence.split(":")[0] for sentence in seen.sentences[:2]] == [
        "A network of 16 filters",
        f"Patches of {seen.advice.train.patch} pixels",
    ]
    assert seen.sentences[-1] == GPU_UNKNOWN
    settled = TrainConfig(patch=64, batch=2, learning_rate=1e-3, precision="float32")
    assert look(image, labels, network=UNetConfig(filters=4), train=settled).sentences == ()


def test_the_picture_shows_the_patch_that_training_cuts() -> None:
    image, labels, _ = cells((96, 128), seed=0)
    for options, side in (({}, 96), ({"train": TrainConfig(patch=48)}, 48), ({"pixel_size": 1.0}, 48)):
        height, width, _ = look(image, labels, **options).picture(PLAIN).shape
        assert height == width == 3 * side + 4 * 6


def test_a_class_that_another_pixel_size_loses_is_found() -> None:
    image, labels, _ = cells((64, 96), seed=0)
    labels = labels.astype(np.uint8)
    labels[8, 8:11] = 5
    assert not any("no pixel is left" in str(found) for found in look(image, labels).check.findings)
    found = look(image, labels, pixel_size=2.0).check.of("warning")
    assert "At pixels of 2 x 2 micrometer no pixel is left of the value 5" in str(found[-1])


def test_the_picture_needs_background_on_some_slice_only() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8)
    labels = np.zeros((3, 64, 64), np.uint8)
    labels[0, 4:60, 4:60] = 3
    labels[1, 4:12, 4:12] = 1
    seen = look(image, labels, "ZYX", unpainted="ignore", background_value=1)
    assert seen.picture(PLAIN).shape[2] == 3


def test_the_picture_has_the_brightness_of_the_whole_image() -> None:
    image = np.full((2, 64, 64), 1000, np.uint16)
    image[0, ::2] = 0
    image[1] = np.linspace(400, 600, 64, dtype=np.uint16)
    labels = np.zeros(image.shape, np.uint8)
    labels[1, :, :32] = 1
    pixels = look(image, labels, "ZYX", train=TrainConfig(patch=64)).picture(PLAIN)[6:70, 6 + 34 : 70]
    assert pixels.min() > 100 and pixels.max() < 160  # 0 and 1000 on the other slice are black and white


def test_the_picture_has_the_colours_of_the_layer() -> None:
    image = np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8)
    labels = np.zeros((64, 64), np.uint8)
    labels[8:40, 8:40] = 7
    labels[44:60, 8:40] = 2
    asked: list[list[int]] = []

    def colors(values: np.ndarray) -> np.ndarray:
        asked.append(values.tolist())
        return np.array([(0, 1, 0, 1) if value == 7 else (1, 0, 1, 1) for value in values])

    seen = look(image, labels, unpainted="ignore", background_value=2)
    picture = seen.picture(PLAIN, colors).reshape(-1, 3).tolist()
    assert [sorted(values) for values in asked] == [[2, 7]]
    assert [0, 255, 0] in picture and [255, 0, 255] in picture


def test_of_many_slices_some_are_loaded_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.stack([cells((64, 64), seed=seed)[0] for seed in range(6)])
    labels = np.stack([cells((64, 64), seed=seed)[1] for seed in range(6)])
    whole = look(image, labels, "ZYX")
    monkeypatch.setattr("napari_unet.preview._LOOKED_AT", 2 * 64**2)
    half = sights.look(whole.dataset.examples).bytes // 2
    monkeypatch.setattr("napari_unet.preview.memory", lambda: advice._PROCESS + half)
    part = look(image, labels, "ZYX")
    assert [example.index for example in part.dataset.examples] == [0, 3]
    assert (whole.dataset.left_out, part.dataset.left_out) == (0, 4)
    assert part.dataset.class_map == whole.dataset.class_map
    assert part.dataset.range == whole.dataset.range
    assert part.advice.warnings[-1].startswith("The images take about")


def test_labels_that_cannot_be_trained_on_have_findings_alone() -> None:
    image, labels, _ = cells((96, 128), seed=0)
    seen = look(image, labels * 0)
    assert seen.check.of("error") and seen.advice is None and seen.sentences == ()
    with pytest.raises(DataError, match="no painted pixels"):
        seen.picture(PLAIN)
    with pytest.raises(DataError, match="start again"):
        look(image, labels, stop=lambda: True).picture(PLAIN)


def test_the_command_says_what_is_chosen_and_writes_the_picture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, labels, _ = cells((96, 128), seed=0)
    for kind, array in (("image", image), ("labels", labels)):
        write_tiff(tmp_path / f"a.{kind}.ome.tif", array, "YX", labels=kind == "labels")
    picture = tmp_path / "variation.png"
    where = ["--images", str(tmp_path / "a.image.ome.tif"), "--labels", str(tmp_path / "a.labels.ome.tif")]
    assert main(["check", *where, "--target", "classes", "--picture", str(picture)]) == 0
    assert "chosen A network of 16 filters" in " ".join(capfd.readouterr().out.split())
    assert open_image(picture).array.shape == (3 * 96 + 24, 3 * 96 + 24, 3)
    assert main(["check", *where, "--target", "classes", "--preset", "quick", "--patch", "64", "--json"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content["train"]["patch"] == 64
    assert content["network"]["filters"] == 16
    assert not any("filters" in reason for reason in content["reasons"])


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Processor: something else\n", False),
    ],
)
def test_bfloat16_is_where_the_processor_says_so(
    text: str, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor.sys, "platform", "linux")
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: text)
    assert has_bfloat16() is has
    monkeypatch.setattr(processor.sys, "platform", "win32")
    assert has_bfloat16() is False
