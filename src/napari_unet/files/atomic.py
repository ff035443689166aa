"""Write a file so that its name never points to half of it.

Every file goes to a temporary name beside its target, is flushed and fsynced, then takes
the target's name in one step, and the folder is fsynced so that the step survives a power
cut. Whatever happens in between (a kill, a full disk, an unplugged drive), the target is
the old file or the new one, complete.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from napari_unet.errors import FileError

__all__ = [
    "check_writable",
    "file_error",
    "leftovers_of",
    "make_folder",
    "part_of",
    "read_text",
    "remove_leftovers",
    "write_atomically",
    "write_text",
]

_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{12}\.part", re.DOTALL)
_RANDOM = len("0123456789ab.part")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
_WINDOWS_IN_USE = (5, 32, 33)  # access denied, sharing violation, lock violation
_RETRIES = 6
_TEXT_LIMIT = 16 * 2**20


def write_atomically(
    path: str | PathLike[str], write: Callable[[BinaryIO], object], *, needed: int | None = None
) -> None:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike
        The file to make or to replace. A symbolic link is followed, so that it stays a link.
    write : callable
        Called once with a new, empty, seekable binary file opened for reading and writing.
        It must leave that file open. Whatever it raises leaves `path` as it was.
    needed : int, optional
        Size of the file in bytes, where it is known: named if the disk is too small for it.

    Raises
    ------
    FileError
        If the file cannot be written: the folder is missing or read-only, the disk is full,
        another program has the file open. The file that was there before is unchanged.
    """
    target = _target(path)
    part = part_of(target)
    try:
        with part.open("x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _take_mode(part, target)
        _replace(part, target)
    except OSError as error:
        written = _size(part)
        _discard(part)
        # Measured after the half-written file is gone: that space is free again.
        raise file_error(path, error, needed=needed, written=written) from error
    except BaseException:
        _discard(part)
        raise
    try:
        _sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            path,
            f"was written, but the disk did not confirm it ({reason}). Check the disk, then write it again.",
        ) from error


def check_writable(path: str | PathLike[str]) -> None:
    """Make sure, before anything is computed, that a file can be written.

    A small file is made beside `path` and removed: permission bits alone say nothing about
    network drives, Windows or read-only mounts.

    Parameters
    ----------
    path : str or os.PathLike
        The file that will be written later. It is not touched.

    Raises
    ------
    FileError
        If `path` cannot be written, with the reason and the way out.
    """
    target = _target(path)
    part = part_of(target)
    try:
        with part.open("xb") as file:
            file.write(b"\0")
    except OSError as error:
        raise file_error(path, error, needed=1) from error
    finally:
        _discard(part)


def make_folder(path: str | PathLike[str]) -> Path:
    """Make a folder, and those it lies in, where they are missing.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.

    Returns
    -------
    pathlib.Path
        The same.

    Raises
    ------
    FileError
        If there is a file of that name, or the folder cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileError(path, "is a file, not a folder; choose another name.") from None
    except OSError as error:
        raise file_error(path, error) from error
    return folder


def read_text(path: str | PathLike[str]) -> str:
    """Read a text file of a reasonable size, such as a job.

    Parameters
    ----------
    path : str or os.PathLike
        A file in UTF-8.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    FileError
        If it is missing, unreadable, larger than 16 MB, or not text.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise FileError(path, "is a folder, not a text file; choose a file.")
        with file.open("rb") as handle:
            content = handle.read(_TEXT_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileError(path, "does not exist; choose a file that is there.") from None
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error}).") from error
    if len(content) > _TEXT_LIMIT:
        raise FileError(
            path, f"is larger than {_bytes(_TEXT_LIMIT)}, so it is not read as text; choose another file."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(path, "is not text in UTF-8; choose another file.") from None


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises
    ------
    FileError
        As `write_atomically`.
    """
    content = text.encode()
    write_atomically(path, lambda file: file.write(content), needed=len(content))


def remove_leftovers(folder: str | PathLike[str]) -> int:
    """Remove what killed writers left in a folder.

    Call it only where no other process writes: in a run folder whose lock is held.

    Parameters
    ----------
    folder : str or os.PathLike
        Its own files are looked at, its subfolders are not.

    Returns
    -------
    int
        Number of files removed.
    """
    removed = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _LEFTOVER.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                # One that cannot be removed does no harm: it is never read.
                with suppress(OSError):
                    Path(entry.path).unlink()
                    removed += 1
    return removed


def file_error(
    path: str | PathLike[str],
    error: OSError,
    *,
    needed: int | None = None,
    written: int = 0,
    kept: str = "",
) -> FileError:
    """Say in one sentence why the system did not write a file, and what to do.

    Parameters
    ----------
    path : str or os.PathLike
        The file that was to be written.
    error : OSError
        What the system said.
    needed, written : int, optional
        Bytes the file needs, and bytes that were written before the error.
    kept : str, optional
        Which part of it was written before and is kept, as a sentence, where it is written part by part; `needed` is then
        what the others take at most.

    Returns
    -------
    FileError
        To be raised.
    """
    folder = Path(os.path.realpath(path)).parent
    free = _free(folder)
    # tifffile reports a full disk as an OSError without a number.
    silent = error.errno is None and free is not None and free < max((needed or 0), written + 2**20)
    if error.errno in _FULL or silent:
        return FileError(path, _full(error, folder, free, needed, written, kept))
    if getattr(error, "winerror", None) in _WINDOWS_IN_USE:
        return FileError(path, "is open in another program; close it there and try again.")
    if error.errno in _FORBIDDEN:
        return FileError(path, f"may not be written: {folder} is read-only for you. Choose another folder.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileError(
            path, f"cannot be written: {folder} is gone or is no folder. Choose a folder that exists."
        )
    if error.errno == errno.ENAMETOOLONG:
        return FileError(path, "has too long a name for this disk; choose a shorter one.")
    reason = error.strerror or str(error) or type(error).__name__
    return FileError(
        path,
        f"could not be written ({reason}). Check that the disk is connected and works, then "
        + (f"run the same job again: {kept}." if kept else "try again; what was there before is unchanged."),
    )


def _full(error: OSError, folder: Path, free: int | None, needed: int | None, written: int, kept: str) -> str:
    cause = "a size limit was reached" if error.errno == errno.EFBIG else "the disk is full"
    more = f"up to {_bytes(needed or 0)} more" if kept else f"more than {_bytes(written)}"
    need = _bytes(needed) if needed and not kept else more
    have = f"{_bytes(free)} are free" if free is not None else "the free space is not known"
    return f"was not written, because {cause}: {need} are needed, {have} in {folder}. " + (
        f"Make room and run the same job again: {kept}."
        if kept
        else "Make room or choose another folder; what was there before is unchanged."
    )


def _target(path: str | PathLike[str]) -> Path:
    """Return the real file behind `path`, after the checks that need no writing."""
    target = Path(os.path.realpath(path))
    try:
        obstacle = _obstacle(target)
    except OSError as error:
        raise file_error(path, error) from error
    if obstacle:
        raise FileError(path, obstacle)
    return target


def _obstacle(target: Path) -> str:
    folder = target.parent
    if not folder.exists():
        return f"cannot be written: the folder {folder} does not exist. Make it, or choose another."
    if not folder.is_dir():
        return f"cannot be written: {folder} is a file, not a folder. Choose another folder."
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISDIR(mode):
        return "is a folder, so no file can have this name; choose another name."
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return "is read-only; choose another name, or allow writing to it."
    return ""


def part_of(target: Path) -> Path:
    """Return a new hidden name beside a file or folder that is to take its place."""
    return target.with_name(f".{_short(target.name)}.{secrets.token_hex(6)}.part")


def leftovers_of(target: Path) -> list[Path]:
    """List what killed writers of one file or folder left beside it."""
    start = f".{_short(target.name)}."
    with suppress(FileNotFoundError):
        return [
            path
            for path in target.parent.iterdir()
            if _LEFTOVER.fullmatch(path.name) and path.name[:-_RANDOM] == start
        ]
    return []


def _short(name: str) -> str:
    """Shorten a name, so that 200 bytes are enough for it and a disk's 255 for what is added; a digest tells whose it is."""
    return name if len(name) <= 50 else f"{name[:41]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _take_mode(part: Path, target: Path) -> None:
    """Keep the permissions of the file that is replaced; a new one has the user's default."""
    with suppress(OSError):  # a disk without permissions (FAT, some network drives)
        part.chmod(stat.S_IMODE(target.stat().st_mode))


def _replace(part: Path, target: Path) -> None:
    """Give the finished file its name, waiting a little for a Windows program that reads the old one."""
    for attempt in range(_RETRIES):
        try:
            part.replace(target)
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in _WINDOWS_IN_USE or attempt == _RETRIES - 1:
                raise
            time.sleep(0.02 * 2**attempt)


def _sync_folder(folder: Path) -> None:
    """Bring the folder's entry to disk; without it a power cut may undo the replacement."""
    if os.name == "nt":  # Windows has no such call; its file systems journal the rename
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise


def _discard(part: Path) -> None:
    with suppress(OSError):
        part.unlink()


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _bytes(count: int) -> str:
    """Write a number of bytes for a person: 930 bytes, 4.2 MB, 1.3 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
