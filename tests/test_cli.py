"""The command line: flags, tables, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unet.augmentation import Augmentation
from napari_unet.cli import main
from napari_unet.config import PredictConfig, TrainConfig
from napari_unet.events import Failed, Finished, StepDone, from_json
from napari_unet.files.image import open_image
from napari_unet.files.model import read_card
from napari_unet.files.tiff import write_tiff
from napari_unet.jobs import TrainJob, job_to_yaml


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_every_setting_is_a_flag(capfd: pytest.CaptureFixture[str]) -> None:
    for command, cls in (("train", TrainConfig), ("train", Augmentation), ("predict", PredictConfig)):
        _, out, _ = call(capfd, command, "--help")
        for name in cls.model_fields:
            assert f"--{name.replace('_', '-')}" in out


def test_the_options_of_the_network_are_flags(capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capfd, "train", "--help")
    for name in ("normalization", "activation", "skips", "upsampling"):
        assert f"--{name}" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train"], "requires"),
        (["trian"], "trian"),
        (["info", "nowhere.unet"], "nowhere.unet: does not exist"),
        (["info", "nowhere.tif"], "nowhere.tif"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["predict", "m.unet", "nowhere.tif", "--out", "o.zarr"], "nowhere.tif"),
        (["train", "--images", "nowhere", "--labels", "nowhere", "--out", "o"], "nowhere"),
        (["train", "--images", "a", "--labels", "b", "--out", "o", "--minutes", "-3"], "minutes is '-3'"),
        (
            ["train", "--images", "IMAGE", "--labels", "LABELS", "--out", "o", "--depth", "3"],
            "--depth changes a network that isn't named: add --preset quick",
        ),
        (
            [
                "train",
                "--images",
                "IMAGE",
                "--labels",
                "LABELS",
                "--out",
                "o",
                "--start-from",
                "nowhere.unet",
            ],
            "nowhere.unet",
        ),
        (
            ["train", "--images", "a", "--labels", "b", "--out", "o", "--blur", "9"],
            "blur is '9', but it should be less than or equal to 8",
        ),
        (
            ["train", "--images", "a", "--labels", "b", "--out", "o", "--augmentation", "strong"],
            'Choose from: "none", "light", "full".',
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capfd: pytest.CaptureFixture[str],
    cells_files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"IMAGE": str(cells_files[0]), "LABELS": str(cells_files[1])}
    code, out, err = call(capfd, *(files.get(argument, argument) for argument in arguments))
    assert code == 2
    assert out == ""
    assert sentence in err
    assert sum("error" in line for line in err.splitlines()) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], Augmentation()),
        (["--augmentation", "none"], Augmentation.preset("none")),
        (
            ["--augmentation", "full", "--rotation", "90", "--no-flips", "--low-resolution", "4"],
            Augmentation.preset("full", rotation=90.0, flips=False, low_resolution=4.0),
        ),
        (["--noise", "0"], Augmentation(noise=0.0)),
    ],
)
def test_flags_for_strengths_overrule_the_preset(
    capfd: pytest.CaptureFixture[str],
    cells_files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    expected: Augmentation,
) -> None:
    jobs: list[TrainJob] = []
    monkeypatch.setattr("napari_unet.cli._run", lambda job, json: jobs.append(job))
    image, labels = map(str, cells_files)
    code, _, err = call(
        capfd, "train", "--images", image, "--labels", labels, "--out", "o", "--minutes", "3", *flags
    )
    assert code == 0, err
    assert [job.train for job in jobs] == [TrainConfig(minutes=3.0, augmentation=expected)]


def test_train_predict_evaluate_info(
    capfd: pytest.CaptureFixture[str], cells_files: tuple[Path, Path], tmp_path: Path
) -> None:
    image, labels = map(str, cells_files)
    run = tmp_path / "run"
    flags = [
        "--preset",
        "quick",
        "--filters",
        "2",
        "--depth",
        "2",
        "--steps",
        "3",
        "--patch",
        "32",
        "--batch",
        "1",
    ]
    code, out, err = call(
        capfd, "train", "--images", image, "--labels", labels, "--out", str(run), *flags, "--json"
    )
    assert code == 0, err
    events = [from_json(line) for line in out.splitlines()]
    assert sum(isinstance(event, StepDone) for event in events) == 3
    assert isinstance(events[-1], Finished)
    model = str(run / "model.unet")

    both = ["--output", "labels", "probabilities"]
    assert call(capfd, "predict", model, image, "--out", str(tmp_path / "r.ome.tif"), *both)[0] == 0
    assert open_image(tmp_path / "r.probabilities.ome.tif").array.shape == (64, 96)

    code, out, _ = call(capfd, "evaluate", str(tmp_path / "r.labels.ome.tif"), labels, "--json")
    assert code == 0
    assert {"class 0", "class 1", "mean", "pixels right"} <= json.loads(out)["rows"].keys()

    code, out, _ = call(capfd, "info", model, "--json")
    assert json.loads(out)["network"]["filters"] == 2
    assert "filters" in call(capfd, "info", model)[1]

    out = tmp_path / "[b]odd :smile:" / "r.ome.tif"
    out.parent.mkdir()
    code, stdout, err = call(capfd, "predict", model, image, "--out", str(out))
    assert code == 0, err
    assert str(out) in stdout


def test_several_images_go_into_a_folder_by_name(
    capfd: pytest.CaptureFixture[str], model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.tif", "b.tif"):
        write_tiff(tmp_path / "in" / name, np.ones((20, 30), np.uint8), "YX")
    code, _, err = call(
        capfd, "predict", str(model_file), str(tmp_path / "in"), "--out", str(tmp_path / "out")
    )
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.ome.tif", "b.ome.tif"]


def test_a_damaged_file_does_not_hold_up_the_others(
    capfd: pytest.CaptureFixture[str], model_file: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a[1].tif", "b.tif", "c.tif"):
        write_tiff(folder / name, np.ones((20, 30), np.uint8), "YX")
    whole = (folder / "a[1].tif").read_bytes()
    (folder / "a[1].tif").write_bytes(whole[: len(whole) // 2])
    code, stdout, err = call(capfd, "predict", str(model_file), str(folder), "--out", str(out), "--json")
    assert code == 2
    errors = [line for line in err.splitlines() if line.startswith("error")]
    assert errors[0].startswith(f"error {folder / 'a[1].tif'}: ")
    assert errors[1].startswith("error 1 of 3 images could not be segmented")
    assert sorted(path.name for path in out.iterdir()) == ["b.ome.tif", "c.ome.tif"]
    ends = [
        type(event) for event in map(from_json, stdout.splitlines()) if isinstance(event, Failed | Finished)
    ]
    assert ends == [Failed, Finished, Finished]


def test_raw_images_are_never_overwritten(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "a.ome.tif"
    raw.parent.mkdir()
    write_tiff(raw, np.ones((20, 30), np.uint8), "YX")
    before = raw.read_bytes()
    for image, out, flags in (
        (raw.parent, raw.parent, ["--overwrite"]),
        (raw.parent, raw.parent, []),
        (raw, raw, ["--overwrite"]),
    ):
        code, _, err = call(capfd, "predict", "m.unet", str(image), "--out", str(out), *flags)
        assert code == 2
        assert "a.ome.tif is what is read, and would be replaced by the result" in err
    code, _, err = call(capfd, "relabel", "m.unet", str(raw), "--out", str(raw), "--overwrite")
    assert (code, "is what is read" in err) == (2, True)
    assert raw.read_bytes() == before


def test_membranes_are_scored_as_in_the_challenge(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    truth = np.full((40, 40), 255, np.uint8)
    truth[20] = 0
    write_tiff(tmp_path / "truth.tif", truth, "YX")
    write_tiff(tmp_path / "probability.tif", truth, "YX")
    arguments = [
        "evaluate",
        str(tmp_path / "probability.tif"),
        str(tmp_path / "truth.tif"),
        "--task",
        "membranes",
    ]
    code, out, _ = call(capfd, *arguments, "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    assert rows["v rand"] == [pytest.approx(1.0)]
    assert rows["pixel error"] == [0.0]


def test_shapes_that_differ_are_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", np.ones((4, 5), np.uint8), "YX")
    write_tiff(tmp_path / "b.tif", np.ones((5, 5), np.uint8), "YX")
    code, _, err = call(capfd, "evaluate", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"))
    assert code == 2
    assert "a.tif has shape (4, 5), but its truth b.tif has (5, 5)" in err


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a single process on POSIX alone")
def test_ctrl_c_keeps_what_was_learned(tiny_job: TrainJob, tmp_path: Path) -> None:
    long = tiny_job.replace(train=tiny_job.train.replace(steps=1_000_000))
    (tmp_path / "job.yaml").write_text(job_to_yaml(long))
    command = [sys.executable, "-m", "napari_unet.cli", "run", str(tmp_path / "job.yaml"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        events = []
        for line in process.stdout:
            events.append(from_json(line))
            if isinstance(events[-1], StepDone) and events[-1].step == 3:
                process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "Stopping after this step; press Ctrl-C again to kill." in said
    assert isinstance(events[-1], Finished) and events[-1].report.stopped
    assert read_card(events[-1].report.outputs["model"]).training.steps >= 3
