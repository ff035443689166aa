"""The history of a training: one JSON object a line, read while it grows."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_unet.errors import FileError
from napari_unet.files.atomic import file_error, write_atomically

__all__ = ["append_record", "drop_half_record", "keep_records", "read_records"]


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line; numbers that are not finite become ``null``.

    Raises
    ------
    FileError
        If it cannot be written; no half of it is left.
    """
    line = _line(record)
    try:
        # One unbuffered write of a whole line: a watcher never sees two lines mixed.
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            if file.write(line) != len(line):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise file_error(path, error, needed=len(line)) from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read all lines, oldest first; a last line that is only half written is left out.

    Raises
    ------
    FileError
        If the file cannot be read, or a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error}).") from error
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        record = _record(line)
        if record is None:
            raise FileError(
                path,
                f"is damaged at line {number}. Delete the file to go on; only the curve of the loss is lost with it.",
            )
        records.append(record)
    return records


def keep_records(path: Path, step: int) -> None:
    """Remove the lines whose ``"step"`` is larger than `step`.

    Raises
    ------
    FileError
        If the file is damaged or cannot be written.
    """
    lines = [_line(record) for record in read_records(path) if _step(record) <= step]
    if path.exists():
        write_atomically(path, lambda file: file.writelines(lines), needed=sum(map(len, lines)))


def drop_half_record(path: Path) -> None:
    """Cut off what a kill left half written, so that the next line does not continue it.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    try:
        with path.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise file_error(path, error) from error


def _line(record: Mapping[str, Any]) -> bytes:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(finite, allow_nan=False).encode() + b"\n"


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _step(record: Mapping[str, Any]) -> float:
    step = record.get("step", 0)
    return step if isinstance(step, int | float) else 0
