"""A file is the old one or the new one, whole, whatever happens while it is written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napari_unet.errors import FileError
from napari_unet.files.atomic import (
    check_writable,
    make_folder,
    read_text,
    remove_leftovers,
    write_atomically,
)

KILL_LOOP = Path(__file__).with_name("kill_loop.py")
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs fork, SIGKILL and permission bits")


def write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python(*arguments: str | Path) -> str:
    """Run Python without TensorFlow and return what it printed."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def without_root() -> Iterator[Path]:
    """Give up root for a while, because root may write anywhere; yields a folder that all may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_writes_a_new_file_and_replaces_an_old_one(tmp_path: Path) -> None:
    for content in (b"one", b"", b"three" * 1000):
        write(tmp_path / "a.bin", content)
        assert (tmp_path / "a.bin").read_bytes() == content
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("name", ["ü ñ 漢 with space.unet", "x" * 245 + ".unet", "漢" * 80, ".hidden", "-rf"])
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    write(tmp_path / name, b"content")
    assert names(tmp_path) == [name]


def test_too_long_a_name_is_one_sentence(tmp_path: Path) -> None:
    for attempt in (check_writable, lambda path: write(path, b"")):
        with pytest.raises(FileError, match="has too long a name for this disk; choose a shorter one"):
            attempt(tmp_path / ("x" * 300))


def test_the_writer_may_seek_and_read(tmp_path: Path) -> None:
    def back_and_forth(file):
        file.write(b"0000")
        file.seek(0)
        assert file.read(2) == b"00"
        file.write(b"1")

    write_atomically(tmp_path / "a", back_and_forth)
    assert (tmp_path / "a").read_bytes() == b"0010"


@posix_only
def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), FileError("elsewhere", "is gone.")])
def test_an_error_of_the_writer_passes_and_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "a", b"old")

    def fail(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        write_atomically(tmp_path / "a", fail)
    assert caught.value is error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


# Fault 22: killed while it writes.


@posix_only
@pytest.mark.parametrize("what", ["file", "model", "checkpoint"])
def test_fifty_kills_leave_a_whole_file(tmp_path: Path, what: str) -> None:
    seen = json.loads(python(KILL_LOOP, what, "50", "7", tmp_path / "folder"))
    assert seen["kills"] == 50
    assert seen["lost"] == 0
    assert seen["half_written"] > 5, "the kills came too early or too late to prove anything"
    assert len(seen["left"]) == 1, "what the kills left behind was not cleaned"


@posix_only
@pytest.mark.parametrize(("when", "numbers", "removed"), [("before", [0], 1), ("after", [1], 0)])
def test_killed_right_beside_the_replacement(
    tmp_path: Path, when: str, numbers: list[int], removed: int
) -> None:
    seen = json.loads(python(KILL_LOOP, when, "1", "1", tmp_path / "folder"))
    assert seen == {"numbers": numbers, "removed": removed}


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    keep = ["a.part", ".a.part", ".a.0123.part", "model.unet", ".a.0123456789ab.part.txt"]
    for name in [*keep, ".model.unet.0123456789ab.part"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".folder.0123456789ab.part").mkdir()
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == sorted([*keep, ".folder.0123456789ab.part"])
    assert remove_leftovers(tmp_path / "missing") == 0


# Fault 26: the disk is full.


@posix_only
def test_size_limit_leaves_the_old_file_and_says_so(tmp_path: Path) -> None:
    code = """
import resource, sys
from napari_unet.errors import FileError
from napari_unet.files.atomic import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for needed in (None, 3_000_000):
    try:
        write_atomically(sys.argv[1], lambda file: file.write(b"x" * 3_000_000), needed=needed)
    except FileError as error:
        print(error)
"""
    target = tmp_path / "model.unet"
    write(target, b"the good model")
    without, known = python("-c", code, target).splitlines()
    assert without.startswith(
        f"{target}: was not written, because a size limit was reached: more than 100.0 kB are needed"
    )
    assert known.startswith(
        f"{target}: was not written, because a size limit was reached: 3.0 MB are needed, "
    )
    assert f"are free in {tmp_path}. Make room or choose another folder" in known
    assert target.read_bytes() == b"the good model"
    assert names(tmp_path) == ["model.unet"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_leaves_the_old_file_and_says_so(small_disk: Path) -> None:
    target = small_disk / "model.unet"
    write(target, b"g" * 1_000_000)
    with pytest.raises(FileError) as caught:
        write_atomically(target, lambda file: file.write(b"x" * 9_000_000), needed=9_000_000)
    assert str(caught.value) == (
        f"{target}: was not written, because the disk is full: 9.0 MB are needed, 3.2 MB are free in {small_disk}. "
        "Make room or choose another folder; what was there before is unchanged."
    )
    assert target.read_bytes() == b"g" * 1_000_000
    assert names(small_disk) == ["model.unet"]


def test_full_disk_without_a_number_is_understood(small_disk: Path) -> None:
    def like_tifffile(file):
        try:
            file.write(b"x" * 9_000_000)
            file.flush()
        except OSError:
            raise OSError("9000000 requested and 4194304 written") from None

    with pytest.raises(FileError, match=r"because the disk is full: more than 4\.2 MB are needed"):
        write_atomically(small_disk / "a.tif", like_tifffile)
    assert names(small_disk) == []


# Fault 28: no such folder, read-only, removed in between, a failing drive, a file in use.


def test_missing_folder_before_anything_is_written(tmp_path: Path) -> None:
    target = tmp_path / "gone" / "a"
    for attempt in (check_writable, lambda path: write(path, b"")):
        with pytest.raises(FileError) as caught:
            attempt(target)
        assert str(caught.value) == (
            f"{target}: cannot be written: the folder {tmp_path / 'gone'} does not exist. Make it, or choose another."
        )


def test_file_where_a_folder_should_be_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="is a file, not a folder"):
        check_writable(tmp_path / "file" / "a")
    with pytest.raises(FileError, match="is a file, not a folder; choose another name"):
        make_folder(tmp_path / "file")
    with pytest.raises(FileError, match="is a folder, so no file can have this name"):
        check_writable(tmp_path)


@posix_only
def test_read_only_folder_and_file() -> None:
    with without_root() as folder:
        (folder / "locked").mkdir(mode=0o555)
        for attempt in (check_writable, lambda path: write(path, b"")):
            with pytest.raises(
                FileError, match=f"may not be written: {folder / 'locked'} is read-only for you. Choose"
            ):
                attempt(folder / "locked" / "a")
        with pytest.raises(FileError, match="is read-only for you"):
            make_folder(folder / "locked" / "new")
        (folder / "closed" / "inner").mkdir(parents=True)
        (folder / "closed").chmod(0)
        with pytest.raises(FileError, match=r"is read-only for you\. Choose another folder"):
            check_writable(folder / "closed" / "inner" / "a")
        (folder / "golden").write_bytes(b"old")
        (folder / "golden").chmod(0o444)
        with pytest.raises(FileError, match="is read-only; choose another name, or allow writing to it"):
            write(folder / "golden", b"new")
        assert (folder / "golden").read_bytes() == b"old"


def test_check_leaves_nothing_and_touches_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    (tmp_path / "old").write_bytes(b"old")
    check_writable(tmp_path / "old")
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_folder_removed_while_writing(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    with pytest.raises(FileError, match=f"cannot be written: {folder} is gone or is no folder"):
        write_atomically(folder / "a", lambda file: shutil.rmtree(folder))


@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_failing_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    write(tmp_path / "a", b"old")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    if place != "write":
        monkeypatch.setattr(os, place, fail)
    with pytest.raises(FileError) as caught:
        write_atomically(tmp_path / "a", fail if place == "write" else lambda file: file.write(b"new"))
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: could not be written (Input/output error). Check that the disk is connected and works, "
        "then try again; what was there before is unchanged."
    )
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("failures", [3, 100])
def test_file_in_use_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    write(tmp_path / "a", b"old")
    replace, tries = os.replace, []

    def in_use(source, target):
        tries.append(source)
        if len(tries) <= failures:
            error = PermissionError(errno.EACCES, "Access is denied")
            error.winerror = 32
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", in_use)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if failures == 3:
        write(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"new"
    else:
        with pytest.raises(FileError, match="is open in another program; close it there and try again"):
            write(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


# Fault 29: the power goes.


@posix_only
def test_content_is_on_disk_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor):
        status = os.fstat(descriptor)
        calls.append(
            "folder synced" if stat.S_ISDIR(status.st_mode) else f"file synced with {status.st_size} bytes"
        )
        fsync(descriptor)

    def noting_replace(source, target):
        calls.append("replaced")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write(tmp_path / "a", b"12345")
    assert calls == ["file synced with 5 bytes", "replaced", "folder synced"]


@posix_only
@pytest.mark.parametrize(("code", "raises"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_folder_that_does_not_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, raises: bool
) -> None:
    fsync = os.fsync

    def failing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    if raises:
        with pytest.raises(
            FileError, match=r"was written, but the disk did not confirm it \(Input/output error\)"
        ):
            write(tmp_path / "a", b"new")
    else:
        write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


# Small helpers of the room.


def test_read_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfk: \xc3\xbc\n")
    assert read_text(tmp_path / "a") == "k: ü\n"
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    cases = [("b", "is not text in UTF-8"), ("none", "does not exist"), (".", "is a folder, not a text file")]
    for name, sentence in cases:
        with pytest.raises(FileError, match=sentence):
            read_text(tmp_path / name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(FileError, match=r"is larger than 16\.8 MB, so it is not read as text"):
        read_text(tmp_path / "large")


def test_make_folder(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
