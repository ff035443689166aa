"""Jobs are values that survive being stored."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.augmentation import Augmentation
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.errors import ConfigError
from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob, job_from_yaml, job_to_yaml

_paths = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
_sources = st.builds(
    ArraySource, path=_paths, series=st.integers(0, 9), axes=st.sampled_from([None, "ZYX", "YXS"])
)
_train_jobs = st.builds(
    TrainJob,
    images=st.tuples(_sources),
    labels=st.tuples(_sources),
    out=_paths,
    network=st.none() | st.builds(UNetConfig, depth=st.integers(1, 6), filters=st.integers(1, 256)),
    start_from=st.none() | _paths,
    train=st.builds(
        TrainConfig,
        minutes=st.floats(0.1, 10_000),
        seed=st.integers(0, 2**31 - 1),
        augmentation=st.builds(
            Augmentation.preset, st.sampled_from(["none", "light", "full"]), rotation=st.floats(0, 180)
        ),
    ),
)
_predict_jobs = st.builds(
    PredictJob,
    model=_paths,
    image=_sources,
    outputs=st.just((Output(kind="labels", path="ä ö.ome.tif"), Output(kind="probabilities", path="p.zarr"))),
    window=st.sampled_from([None, ((0, 1), (2, 30), (4, 50))]),
)


@settings(deadline=None)
@given(st.one_of(_train_jobs, _predict_jobs))
def test_a_job_comes_back_from_yaml(job: TrainJob | PredictJob) -> None:
    assert job_from_yaml(job_to_yaml(job)) == job
    assert job_from_yaml(json.dumps(job.model_dump(mode="json"))) == job


def test_characters_outside_the_basic_plane_come_back() -> None:
    job = _predict(image={"path": "🧫/𠮷.tif"})
    assert job_from_yaml(job_to_yaml(job)) == job
    assert job_from_yaml(json.dumps(job.model_dump(mode="json"))) == job


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "This is not YAML"),
        ("3", "needs 'kind: train' or 'kind: predict'"),
        ("kind: dream", "needs 'kind: train' or 'kind: predict'"),
        ("kind: train", "'images' is missing in TrainJob"),
        ("kind: predict\nmodle: x", "'modle' is not a setting of PredictJob"),
        (
            "kind: train\nimages: [{path: a}]\nlabels: [{path: b}]\nout: o\ntrain: {stepz: 1}",
            "'stepz' is not a setting",
        ),
    ],
)
def test_what_is_no_job_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job_from_yaml(text)
    assert sentence in str(caught.value)


def _predict(**changes: object) -> PredictJob:
    values = {"model": "m.unet", "image": {"path": "i.tif"}, "outputs": [{"path": "o.zarr"}]}
    return PredictJob(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"outputs": [{"path": "o.png"}]}, "o.png: an output is a .zarr folder or an .ome.tif file"),
        ({"outputs": [{"path": "a.zarr"}, {"path": "b.zarr"}]}, "Each output is written once"),
        ({"window": ((0, 1), (5, 5), (0, 9))}, "The window's y range 5 to 5 is empty"),
    ],
)
def test_a_segmentation_that_cannot_be_meant_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _predict(**changes)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("image", "output"),
    [
        ("a.ome.tif", "a.ome.tif"),
        ("a.ome.tif", "other/../a.ome.tif"),
        ("link.ome.tif", "a.ome.tif"),
        ("a.ome.tif", "hard.ome.tif"),
        ("s.zarr/labels/0", "s.zarr"),
    ],
)
def test_what_is_read_is_never_replaced_by_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.ome.tif").write_bytes(b"pixels")
    Path("link.ome.tif").symlink_to("a.ome.tif")
    os.link("a.ome.tif", "hard.ome.tif")
    for holds in ("image", "probabilities"):
        with pytest.raises(
            ConfigError, match="is what is read.*: write the result to another name or folder"
        ):
            _predict(image={"path": image}, outputs=[{"path": output}], given=holds, overwrite=True)


def test_a_result_may_lie_beside_or_in_what_is_read() -> None:
    for output in ("s.labels.zarr", "s.zarr/labels.zarr"):
        _predict(image={"path": "s.zarr"}, outputs=[{"path": output}])


def test_images_and_labels_come_in_pairs() -> None:
    with pytest.raises(ConfigError, match="one labels source for each image, but has 1 for 2"):
        TrainJob(images=({"path": "a"}, {"path": "b"}), labels=({"path": "c"},), out="o")


def test_a_background_value_belongs_to_ignored_unpainted_pixels() -> None:
    with pytest.raises(ConfigError, match="set unpainted to ignore"):
        TrainJob(images=({"path": "a"},), labels=({"path": "c"},), out="o", background_value=1)
