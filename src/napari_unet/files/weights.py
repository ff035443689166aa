"""The weights of a model as safetensors: float32, little-endian, in the network's order.

The layout is checked against the shapes that *our* network has before a byte is allocated,
so a header that promises terabytes costs nothing. Format:
https://huggingface.co/docs/safetensors (eight bytes of header length, a JSON header with
the type, shape and offsets of each array, then the arrays).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Float32",
    "check_arrays",
    "check_header",
    "iterate_bytes",
    "parse_json",
    "read_weights",
    "weights_size",
]

Float32 = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

_HEADER_LIMIT = 2**18
_PIECE = 2**20


def check_arrays(arrays: Mapping[str, npt.ArrayLike], shapes: Shapes) -> dict[str, Float32]:
    """Return the weights as float32, in the order of `shapes`, if they are what `shapes` says.

    Parameters
    ----------
    arrays : mapping of str to array_like
        Weights by name.
    shapes : mapping of str to tuple of int
        From `napari_unet.spec.weight_shapes`.

    Raises
    ------
    ValueError
        If a name is missing or unknown, a shape differs, or a weight is NaN or infinite.
    """
    _check_names(arrays, shapes)
    checked: dict[str, Float32] = {}
    for name, shape in shapes.items():
        array = np.asarray(arrays[name])
        if array.shape != shape:
            raise ValueError(f"weight {name!r} has shape {array.shape}, but its network needs {shape}")
        # What is too large for float32 becomes infinite, which is refused below.
        with np.errstate(over="ignore"):
            checked[name] = np.asarray(array, dtype="<f4", order="C")
        _check_finite(name, checked[name])
    return checked


def weights_size(shapes: Shapes) -> int:
    """Bytes of the safetensors file that holds `shapes`."""
    return len(_header(shapes)) + _data_size(shapes)


def iterate_bytes(arrays: Mapping[str, Float32]) -> Iterator[bytes | memoryview]:
    """Yield the safetensors file piece by piece, without a second copy of the weights.

    Parameters
    ----------
    arrays : mapping of str to ndarray of float32
        As `check_arrays` returns them.
    """
    yield _header({name: array.shape for name, array in arrays.items()})
    for array in arrays.values():
        yield array.reshape(-1).view(np.uint8).data


def check_header(file: IO[bytes], size: int, shapes: Shapes) -> tuple[bytes, tuple[str, ...]]:
    """Read the header of a safetensors file and compare it with `shapes`.

    Parameters
    ----------
    file : binary file
        At its start; afterwards at the first array.
    size : int
        Its length in bytes.
    shapes : mapping of str to tuple of int
        What it has to hold.

    Returns
    -------
    raw : bytes
        What was read.
    order : tuple of str
        Names of the arrays in the order in which they lie in the file.

    Raises
    ------
    ValueError
        If it holds anything else than exactly these arrays, one after the other, in float32.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_HEADER_LIMIT, size - 8):
        raise ValueError("the header of its weights is broken")
    text = file.read(length)
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("the header of its weights is broken")
    header.pop("__metadata__", None)
    _check_names(header, shapes)
    spans = [(*_span(name, header[name], shapes[name]), name) for name in shapes]
    position = 0
    for first, last, name in sorted(spans):
        if first != position:
            raise ValueError(f"weight {name!r} does not start where the one before it ends")
        position = last
    if size != 8 + length + position:
        raise ValueError(f"its weights take {size - 8 - length} bytes, but its network needs {position}")
    return start + text, tuple(name for *_, name in sorted(spans))


def read_weights(file: IO[bytes], size: int, shapes: Shapes) -> tuple[dict[str, Float32], str]:
    """Read a safetensors file after checking its header.

    Parameters
    ----------
    file : binary file
        At its start.
    size : int
        Its length in bytes.
    shapes : mapping of str to tuple of int
        What it has to hold.

    Returns
    -------
    arrays : dict of str to ndarray of float32
        In the order of `shapes`.
    digest : str
        SHA-256 of the whole file, in hexadecimal.

    Raises
    ------
    ValueError
        If it is not what `shapes` says, or is cut short.
    """
    raw, order = check_header(file, size, shapes)
    digest = hashlib.sha256(raw)
    arrays: dict[str, Float32] = {}
    for name in order:
        array = np.empty(shapes[name], dtype="<f4")
        _fill(array.reshape(-1).view(np.uint8).data, file, digest)
        arrays[name] = array
    return {name: arrays[name] for name in shapes}, digest.hexdigest()


def parse_json(text: bytes) -> Any:
    """Parse JSON strictly: UTF-8, no NaN, no key twice.

    Raises
    ------
    ValueError, RecursionError
        If it is anything else, or nested without end.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("a key is given twice")
        return content

    def no_constant(name: str) -> float:
        raise ValueError(f"{name} is no number")

    return json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=no_constant)


def _check_finite(name: str, array: Float32) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"weight {name!r} holds NaN or infinite numbers")


def _check_names(found: Mapping[str, Any], shapes: Shapes) -> None:
    missing = [name for name in shapes if name not in found]
    unknown = [name for name in found if name not in shapes]
    if missing:
        raise ValueError(f"weight {missing[0]!r} is missing ({len(missing)} of {len(shapes)} are)")
    if unknown:
        raise ValueError(f"weight {unknown[0][:80]!r} belongs to no layer of its network")


def _span(name: str, entry: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the offsets of one array, if the header's entry fits `shape`."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the header of weight {name!r} is broken")
    if entry["dtype"] != "F32":
        raise ValueError(f"weight {name!r} is of type {str(entry['dtype'])[:20]}, not F32")
    if entry["shape"] != list(shape):
        raise ValueError(
            f"weight {name!r} has shape {str(entry['shape'])[:80]}, but its network needs {list(shape)}"
        )
    offsets = entry["data_offsets"]
    whole = isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)
    if not whole or offsets[0] < 0 or offsets[1] - offsets[0] != 4 * math.prod(shape):
        raise ValueError(f"weight {name!r} does not have the size of its shape")
    return offsets[0], offsets[1]


def _header(shapes: Shapes) -> bytes:
    entries: dict[str, dict[str, Any]] = {}
    position = 0
    for name, shape in shapes.items():
        end = position + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for arrays that start on a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _data_size(shapes: Shapes) -> int:
    return 4 * sum(math.prod(shape) for shape in shapes.values())


def _fill(target: memoryview, file: IO[bytes], digest: hashlib._Hash) -> None:
    position = 0
    while position < len(target):
        piece = file.read(min(_PIECE, len(target) - position))
        if not piece:
            raise ValueError("its weights are cut short")
        target[position : position + len(piece)] = piece
        digest.update(piece)
        position += len(piece)
