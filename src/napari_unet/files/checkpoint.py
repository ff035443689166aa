"""A checkpoint: named arrays and a small state in one ``.npz``, without pickle.

Keras's own backup is not used because a kill while it saves destroys both copies. This one
is written atomically, and numpy alone can read it.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from napari_unet.errors import FileError
from napari_unet.files.atomic import write_atomically

__all__ = ["Arrays", "read_checkpoint", "write_checkpoint"]

Arrays = Mapping[str, npt.NDArray[Any]]

_STATE = "state.json"
_KINDS = "biuf"  # numbers and booleans: bfloat16 and objects would not come back as they were


def write_checkpoint(path: str | PathLike[str], arrays: Arrays, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike
        Where to.
    arrays : mapping of str to ndarray
        Numbers or booleans of numpy's own types, of any shape.
    state : mapping of str to JSON value
        Anything that JSON can hold, infinity and NaN too. Kept as text beside the arrays.

    Raises
    ------
    FileError
        If it cannot be written; the checkpoint before it is then unchanged.
    """
    text = json.dumps(state).encode()
    members = {_STATE: np.frombuffer(text, np.uint8)}
    for name, array in arrays.items():
        members[name] = np.asarray(array, order="C")
        if members[name].dtype.kind not in _KINDS or name == _STATE:
            raise FileError(
                path,
                f"was not written: array {name!r} of type {members[name].dtype} cannot be kept; "
                "convert it to a number type of numpy such as float32.",
            )

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in members.items():
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.file_size = array.nbytes
                with archive.open(entry, "w") as member:
                    npy.write_array(member, array, allow_pickle=False)

    write_atomically(path, write, needed=sum(array.nbytes + 512 for array in members.values()))


def read_checkpoint(path: str | PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read a checkpoint; pickled objects are refused, never loaded.

    Parameters
    ----------
    path : str or os.PathLike
        A file that `write_checkpoint` wrote.

    Returns
    -------
    arrays : dict of str to ndarray
    state : dict
        Both as they were written, bit for bit.

    Raises
    ------
    FileError
        If it is damaged or cannot be read.
    """
    try:
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            arrays = {}
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or not entry.filename.endswith(".npy"):
                    raise ValueError(f"{entry.filename} is not an array")
                with archive.open(entry) as member:
                    arrays[entry.filename.removesuffix(".npy")] = _read_array(member, entry.file_size)
        state = json.loads(arrays.pop(_STATE).tobytes())
        if not isinstance(state, dict):
            raise ValueError("its state is broken")
    except (
        OSError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise FileError(
            path,
            f"is damaged ({reason}), so training cannot go on from it. Delete it to start this training from its first "
            "step; the best model so far (model.unet) and the labels are not touched by that.",
        ) from error
    return arrays, state


def _read_array(member: IO[bytes], size: int) -> npt.NDArray[Any]:
    """Read one array after comparing what its header promises with the bytes that are there."""
    version = npy.read_magic(member)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(member)
    data = size - member.tell()
    if fortran or dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != data:
        raise ValueError("an array is not what its header says")
    content = member.read()  # to the end, where its checksum is compared
    return np.frombuffer(bytearray(content), dtype).reshape(shape)
