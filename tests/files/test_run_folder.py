"""The run folder: one job, one writer at a time, nothing half-written is ever read."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from napari_unet.config import TrainConfig
from napari_unet.errors import FileError
from napari_unet.files.lock import Lock
from napari_unet.files.run import RunFolder
from napari_unet.jobs import ArraySource, Output, PredictJob, TrainJob, job_from_yaml


def train_job(out: Path, **settings: Any) -> TrainJob:
    source = (ArraySource(path="/data/ü 漢.tif"),)
    return TrainJob(images=source, labels=source, out=str(out), **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "mito"


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def write_lock(folder: Path, **fields: Any) -> None:
    process = psutil.Process()
    content = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "start": process.create_time(),
        "boot": psutil.boot_time(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").write_text(json.dumps({**content, **fields}))


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Take up the run in another process, as a second napari would."""
    code = """
import sys
from napari_unet.files.run import RunFolder
with RunFolder(sys.argv[1]).open():
    print("open", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "open\n"
            yield child
        finally:
            child.kill()


# The job.


@pytest.mark.parametrize("kind", ["train", "predict"])
def test_create_writes_the_job_and_takes_up_the_same_job_again(folder: Path, kind: str) -> None:
    job = train_job(folder)
    if kind == "predict":
        job = PredictJob(
            model="m.unet",
            image=ArraySource(path="a.tif"),
            outputs=(Output(path="r.zarr"),),
            window=((0, 1), (0, 5), (0, 5)),
        )
    with RunFolder(folder).create(job) as run:
        assert job_from_yaml((folder / "job.yaml").read_text("utf-8")) == job
        assert run.read_job() == job
        assert sorted(path.name for path in folder.iterdir()) == ["job.yaml", "lock"]
    written = (folder / "job.yaml").stat().st_mtime_ns
    with RunFolder(folder).create(job):
        assert (folder / "job.yaml").stat().st_mtime_ns == written
    with RunFolder(folder).open() as run:
        assert run.read_job() == job
    assert not (folder / "lock").exists()


def test_a_moved_run_is_still_the_same_job(folder: Path, tmp_path: Path) -> None:
    RunFolder(folder).create(train_job(folder)).close()
    folder.rename(tmp_path / "elsewhere")
    RunFolder(tmp_path / "elsewhere").create(train_job(tmp_path / "elsewhere")).close()


def test_another_job_is_refused_with_what_differs(folder: Path) -> None:
    RunFolder(folder).create(train_job(folder, train=TrainConfig(seed=0))).close()
    with pytest.raises(FileError) as caught:
        RunFolder(folder).create(train_job(folder, name="other", train=TrainConfig(seed=1)))
    assert str(caught.value) == (
        f"{folder}: holds another run, which differs in train.seed (0 there, 1 here), name (unet there, other here). "
        "Choose another folder, or start it with the settings of its job.yaml to go on with it."
    )
    assert not (folder / "lock").exists()
    assert RunFolder(folder).read_job().name == "unet"


@pytest.mark.parametrize("name", ["model.unet", "checkpoint.npz", "history.jsonl"])
def test_a_folder_of_other_things_is_left_alone(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"precious")
    with pytest.raises(
        FileError,
        match=f"holds {name} but no job.yaml, so it is not a run to go on with. Choose an empty folder",
    ):
        RunFolder(folder).create(train_job(folder))
    assert [path.name for path in folder.iterdir()] == [name]


def test_labels_and_snapshots_may_be_there_before_the_job(folder: Path) -> None:
    (folder / "labels").mkdir(parents=True)
    (folder / "image.zarr").mkdir()
    RunFolder(folder).create(train_job(folder)).close()


def test_open_wants_a_run(folder: Path, tmp_path: Path) -> None:
    for place in (folder, tmp_path):
        with pytest.raises(
            FileError, match=r"is not a run folder: it has no job\.yaml\. Choose the folder of a run"
        ):
            RunFolder(place).open()
    (tmp_path / "job.yaml").write_text("kind: train\nimages: 3\n")
    with pytest.raises(
        FileError, match=r"job.yaml: is damaged \(.*images.*\)\. Start the run again in another folder"
    ):
        RunFolder(tmp_path).open()
    assert not (tmp_path / "lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs permission bits")
def test_folder_that_cannot_be_written_is_an_error_before_any_compute() -> None:
    place = Path(tempfile.mkdtemp())
    place.chmod(0o555)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(FileError, match=r"is read-only for you\. Choose another folder"):
            RunFolder(place).create(train_job(place))
        with pytest.raises(FileError, match=r"is read-only for you\. Choose another folder"):
            RunFolder(place / "new").create(train_job(place))
    finally:
        if was_root:
            os.seteuid(0)
        shutil.rmtree(place)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="is a file, not a folder"):
        RunFolder(tmp_path / "file").create(train_job(tmp_path))


# Fault 39: two at once.


def test_a_living_process_keeps_others_out_and_a_killed_one_does_not(folder: Path) -> None:
    RunFolder(folder).create(train_job(folder)).close()
    with another_process(folder) as child:
        for take in (lambda run: run.open(), lambda run: run.create(train_job(folder))):
            with pytest.raises(FileError) as caught:
                take(RunFolder(folder))
            assert str(caught.value) == (
                f"{folder}: the run 'mito' is in use by process {child.pid}. "
                "Wait until it is done, stop it there, or choose another folder."
            )
        assert RunFolder(folder).read_job() == train_job(folder), "watching works without the lock"
        child.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        # Not waited for: the dead process stays in the table, as a zombie, and holds nothing.
        assert child.stdout.read() == ""
        dead = psutil.Process(child.pid)
        while dead.is_running() and dead.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        with RunFolder(folder).open():
            assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()


def test_the_same_process_is_kept_out_too(folder: Path) -> None:
    with (
        RunFolder(folder).create(train_job(folder)),
        pytest.raises(
            FileError, match=rf"the run 'mito' is in use by this program \(process {os.getpid()}\)"
        ),
    ):
        RunFolder(folder).open()
    RunFolder(folder).open().close()


@pytest.mark.parametrize(
    "fields",
    [
        {"pid": dead_pid()},
        {"start": psutil.Process().create_time() - 1000},  # the id was used again
        {"start": 1e9, "boot": 1e9 - 50},  # the computer was started again
    ],
    ids=["dead", "id used again", "restarted"],
)
def test_a_stale_lock_is_taken_over(folder: Path, fields: dict[str, Any]) -> None:
    RunFolder(folder).create(train_job(folder)).close()
    write_lock(folder, **fields)
    with RunFolder(folder).open():
        assert json.loads((folder / "lock").read_text())["start"] == pytest.approx(
            psutil.Process().create_time(), abs=2
        )
    assert sorted(path.name for path in folder.iterdir()) == ["job.yaml"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": 1}', b"\0" * 80])
def test_a_lock_damaged_by_a_power_cut_is_taken_over(folder: Path, content: bytes) -> None:
    RunFolder(folder).create(train_job(folder)).close()
    (folder / "lock").write_bytes(content)
    RunFolder(folder).open().close()


def test_a_clock_that_was_set_does_not_make_a_lock_stale(folder: Path) -> None:
    RunFolder(folder).create(train_job(folder)).close()
    hour = 3600
    write_lock(folder, start=psutil.Process().create_time() - hour, boot=psutil.boot_time() - hour)
    with pytest.raises(FileError, match="is in use"):
        RunFolder(folder).open()


def test_a_lock_of_another_computer_is_left_to_the_user(folder: Path) -> None:
    RunFolder(folder).create(train_job(folder)).close()
    write_lock(folder, host="node7", pid=4242)
    with pytest.raises(FileError) as caught:
        RunFolder(folder).open()
    assert str(caught.value) == (
        f"{folder}: the run 'mito' is in use by process 4242 on node7. Wait for it or choose another folder; "
        f"if nothing runs there any more, delete {folder / 'lock'}."
    )


def test_only_one_of_many_takes_a_stale_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    dead = dead_pid()
    for _ in range(20):
        write_lock(tmp_path, pid=dead)
        locks, won = [Lock(path) for _ in range(8)], []
        barrier = threading.Barrier(len(locks))

        def take(lock: Lock, barrier: threading.Barrier = barrier, won: list[Lock] = won) -> None:
            barrier.wait()
            try:
                lock.acquire()
            except FileError:
                return
            won.append(lock)

        threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].release()
        assert list(tmp_path.iterdir()) == []


def test_release_leaves_the_lock_of_another(folder: Path) -> None:
    run = RunFolder(folder).create(train_job(folder))
    write_lock(folder, host="node7")
    run.close()
    run.close()
    assert (folder / "lock").exists()


# Leftovers of a kill.


def test_leftovers_are_removed_when_the_run_is_taken_up(folder: Path) -> None:
    RunFolder(folder).create(train_job(folder)).close()
    (folder / "labels").mkdir()
    for name in (".checkpoint.npz.0123456789ab.part", "labels/.0.ome.tif.0123456789ab.part"):
        (folder / name).write_bytes(b"half")
    (folder / "history.jsonl").write_bytes(b'{"step": 1}\n{"ste')
    with RunFolder(folder).open() as run:
        assert not list(folder.rglob("*.part"))
        run.append_history({"step": 2})
        assert run.read_history() == [{"step": 1}, {"step": 2}]


# History.


def test_history(folder: Path) -> None:
    with RunFolder(folder).create(train_job(folder)) as run:
        assert run.read_history() == []
        run.truncate_history(3)
        assert not run.history_path.exists()
        for step in range(1, 6):
            run.append_history({"step": step, "loss": float("nan") if step == 2 else 1 / step, "note": "ü\n"})
        assert [record["step"] for record in run.read_history()] == [1, 2, 3, 4, 5]
        assert run.read_history()[1] == {"step": 2, "loss": None, "note": "ü\n"}
        assert run.history_path.read_bytes().count(b"\n") == 5
        run.truncate_history(3)
        assert [record["step"] for record in run.read_history()] == [1, 2, 3]


@pytest.mark.parametrize("tail", [b'{"step": 3', b"\0\0\0\0", b"\xff\xfe", b'{"step": 3}'])
def test_a_half_written_last_line_is_left_out(folder: Path, tail: bytes) -> None:
    with RunFolder(folder).create(train_job(folder)) as run:
        run.history_path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
        assert [record["step"] for record in run.read_history()] == [1, 2]
        run.truncate_history(10)
        assert run.history_path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_a_damaged_line_in_the_middle_names_the_way_out(folder: Path) -> None:
    with RunFolder(folder).create(train_job(folder)) as run:
        run.history_path.write_bytes(b'{"step": 1}\n[]\n{"step": 3}\n')
        with pytest.raises(FileError) as caught:
            run.read_history()
        assert str(caught.value) == (
            f"{folder / 'history.jsonl'}: is damaged at line 2. "
            "Delete the file to go on; only the curve of the loss is lost with it."
        )


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
def test_a_full_disk_leaves_no_half_line(folder: Path) -> None:
    code = """
import resource, sys
from napari_unet.errors import FileError
from napari_unet.files.run import RunFolder
run = RunFolder(sys.argv[1])
for step in range(3):
    run.append_history({"step": step})
size = run.history_path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, size + 20_000))
try:
    run.append_history({"step": 3})
except FileError as error:
    sys.stdout.write(str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, size + 20_000))
run.append_history({"step": 4})
"""
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(
        f"{folder / 'history.jsonl'}: was not written, because the disk is full: 12 bytes are"
    )
    assert [record["step"] for record in RunFolder(folder).read_history()] == [0, 1, 2, 4]


# The checkpoint.


arrays = st.dictionaries(
    st.text(max_size=20).filter(lambda name: "\0" not in name and name != "state.json"),
    npst.arrays(
        npst.boolean_dtypes()
        | npst.integer_dtypes()
        | npst.unsigned_integer_dtypes()
        | npst.floating_dtypes(sizes=(16, 32, 64)),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    ),
    max_size=4,
)
states = st.dictionaries(
    st.text(max_size=10),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(arrays=arrays, state=states)
def test_checkpoint_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray], state: dict[str, Any]
) -> None:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    assert run.load_checkpoint() is None
    run.save_checkpoint(arrays, state)
    found, told = run.load_checkpoint()
    assert told == state
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.writeable


def test_numpy_alone_reads_a_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    turned = np.arange(6, dtype="f4").reshape(2, 3).T
    run.save_checkpoint(
        {"optimizer/m": turned, "big": np.arange(3, dtype=">i4")}, {"step": 7, "best": -np.inf}
    )
    with np.load(run.checkpoint_path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["optimizer/m"], turned)
        assert json.loads(archive["state.json"].tobytes())["step"] == 7
    found, state = run.load_checkpoint()
    np.testing.assert_array_equal(found["optimizer/m"], turned)
    np.testing.assert_array_equal(found["big"], [0, 1, 2])
    assert state["best"] == -np.inf


@pytest.mark.parametrize("array", [np.array([{}]), np.array([b"x"]), np.zeros(2, "V2"), np.array(["x"])])
def test_what_would_not_come_back_is_not_kept(tmp_path: Path, array: np.ndarray) -> None:
    run = RunFolder(tmp_path)
    run.save_checkpoint({}, {"step": 1})
    with pytest.raises(
        FileError, match=r"was not written: array 'odd' of type .* cannot be kept; convert it"
    ):
        run.save_checkpoint({"odd": array}, {"step": 2})
    assert run.load_checkpoint() == ({}, {"step": 1})


def test_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    values = np.arange(500, dtype="f4")
    run.save_checkpoint({"a": values}, {"step": 7})
    content = run.checkpoint_path.read_bytes()
    rng = random.Random(4)
    refusals = []
    for _ in range(200):
        damaged = bytearray(content)
        where = rng.randrange(len(content))
        if rng.random() < 0.3:
            del damaged[where:]
        else:
            damaged[where] ^= 1 << rng.randrange(8)
        run.checkpoint_path.write_bytes(damaged)
        try:
            found = run.load_checkpoint()
        except FileError as error:
            refusals.append(str(error))
        else:
            assert found[1] == {"step": 7}
            np.testing.assert_array_equal(next(iter(found[0].values())), values)
    assert len(refusals) > 150
    way_out = "Delete it to start this training from its first step; the best model so far (model.unet)"
    assert all(
        text.startswith(f"{run.checkpoint_path}: is damaged (") and way_out in text for text in refusals
    )


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def npy_bomb() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    return file.getvalue()


def test_checkpoint_of_a_stranger_runs_nothing(tmp_path: Path) -> None:
    run, canary = RunFolder(tmp_path), tmp_path / "canary"
    pickled = io.BytesIO()
    np.savez(pickled, weights=np.array([Canary(canary)], dtype=object))
    packed = io.BytesIO()
    np.savez_compressed(packed, weights=np.zeros(10**6))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr("a.npy", npy_bomb())
    for content in (
        pickled.getvalue(),
        pickle.dumps(Canary(canary)),
        packed.getvalue(),
        bomb.getvalue(),
        b"",
        b"PK",
    ):
        run.checkpoint_path.write_bytes(content)
        with pytest.raises(FileError, match="is damaged"):
            run.load_checkpoint()
    assert not canary.exists()


# The labels as they were painted.


def test_labels_are_kept_and_never_overwritten(folder: Path) -> None:
    from napari_unet.files.image import open_image

    painted = np.zeros((3, 20, 30), np.uint8)
    painted[1, 4:9, 5:10] = 2
    run = RunFolder(folder)
    path = run.save_labels(0, painted, "ZYX", {"Z": 2.0, "Y": 0.5, "X": 0.25}, "micrometer")
    assert path == folder / "labels" / "0.ome.tif"
    kept = open_image(path)
    assert kept.axes == "ZYX"
    assert kept.pixel_size == {"Z": 2.0, "Y": 0.5, "X": 0.25}
    np.testing.assert_array_equal(np.asarray(kept.array[:]), painted)
    with pytest.raises(FileError, match="is there already, and painted labels are never overwritten"):
        run.save_labels(0, painted * 0, "ZYX", {}, "pixel")
    run.save_labels(1, painted * 0, "ZYX", {}, "pixel")
    np.testing.assert_array_equal(np.asarray(open_image(path).array[:]), painted)


# Any order of writing, crashing and taking up again.


class AnyRun(RuleBasedStateMachine):
    """What was written whole is there after every crash; what was half written is not."""

    @initialize()
    def begin(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.job = train_job(self.path)
        self.run = RunFolder(self.path).create(self.job)
        self.history: list[dict[str, Any]] = []
        self.checkpoint: int | None = None

    @rule(loss=st.floats(allow_nan=False, allow_infinity=False), step=st.integers(0, 20))
    def append(self, loss: float, step: int) -> None:
        self.run.append_history({"step": step, "loss": loss})
        self.history.append({"step": step, "loss": loss})

    @rule(step=st.integers(0, 20))
    def truncate(self, step: int) -> None:
        self.run.truncate_history(step)
        self.history = [record for record in self.history if record["step"] <= step]

    @rule(step=st.integers(0, 1000))
    def save(self, step: int) -> None:
        self.run.save_checkpoint({"w": np.full(5, step)}, {"step": step})
        self.checkpoint = step

    @rule(half=st.binary(max_size=20).filter(lambda half: b"\n" not in half))
    def crash_and_take_up(self, half: bytes) -> None:
        with self.run.history_path.open("ab") as file:
            file.write(half)
        (self.path / ".model.unet.00112233aabb.part").write_bytes(half)
        write_lock(self.path, start=1.0, boot=0.0)
        self.run = RunFolder(self.path).create(self.job)

    @rule()
    def close_and_open(self) -> None:
        self.run.close()
        self.run = RunFolder(self.path).open()

    @invariant()
    def all_is_there(self) -> None:
        assert self.run.read_history() == self.history
        found = self.run.load_checkpoint()
        assert (found and found[1]["step"]) == self.checkpoint
        if found:
            assert found[0]["w"].tolist() == [self.checkpoint] * 5
        names = {path.name for path in self.path.iterdir()}
        assert names <= {"job.yaml", "lock", "history.jsonl", "checkpoint.npz"}

    def teardown(self) -> None:
        if hasattr(self, "path"):
            self.run.close()
            shutil.rmtree(self.path)


TestAnyRun = AnyRun.TestCase
TestAnyRun.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
