"""The model file, NAME.unet: a model card and its weights, read without trusting either.

It is one stored (not compressed) ZIP with four members: ``mimetype``, ``model.json`` (the
card, and the checksum of the weights), ``weights.safetensors`` (float32, by our own layer
names) and ``README.md`` (the card for people). Nothing in it is ever executed. Members,
sizes, card, names and shapes are checked before weights are read, and the weights are then
read into arrays of the network that the card describes, so a stranger's file costs little
and can do nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy.typing as npt

from napari_unet.config import UNetConfig
from napari_unet.errors import ConfigError, FileError
from napari_unet.files.atomic import write_atomically
from napari_unet.files.card import model_card
from napari_unet.files.weights import (
    Float32,
    check_arrays,
    check_header,
    iterate_bytes,
    parse_json,
    read_weights,
    weights_size,
)
from napari_unet.settings import Settings
from napari_unet.spec import SCHEMA, ClassInfo, ModelSpec, Normalization, TrainingRecord, weight_shapes

__all__ = ["MIMETYPE", "read_card", "read_model_file", "save_model_file"]

MIMETYPE = b"application/vnd.napari-unet.model+zip"
"""What the first member holds: the file is recognised by it, whatever its name."""

_MIMETYPE, _CARD, _WEIGHTS, _README = _MEMBERS = (
    "mimetype",
    "model.json",
    "weights.safetensors",
    "README.md",
)
_CARD_LIMIT = 4 * 2**20
_README_LIMIT = 2**20
_DIRECTORY_LIMIT = 2**12
_LIST_LIMIT = 300
_NAMES_LIMIT = 100_000
_LOCAL_HEADER = 30
_END_RECORD = 22
_ZIP64_FROM = 2**31 - 1
_HEAD = b"PK\x03\x04"

# Reading a file that anyone may have made ends in one of these, whichever parser meets it.
_DAMAGE = (
    ConfigError,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,  # RecursionError, and zipfile on encrypted members
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def save_model_file(path: str | PathLike[str], spec: ModelSpec, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Write a model file, whole or not at all.

    The same card and weights give the same bytes.

    Parameters
    ----------
    path : str or os.PathLike
        Where to; by custom ``NAME.unet``.
    spec : ModelSpec
        The model card.
    arrays : mapping of str to array_like
        Every weight of ``spec.network``, by the names of `napari_unet.spec.weight_shapes`.

    Raises
    ------
    FileError
        If the weights are not those of the network, one is NaN or infinite, or the file
        cannot be written. A file that was there before is then unchanged.
    """
    shapes = weight_shapes(spec.network)
    try:
        weights = check_arrays(arrays, shapes)
    except ValueError as error:
        raise FileError(
            path, f"was not written: {error}. The file that was there before is unchanged."
        ) from None
    digest = hashlib.sha256()
    for piece in iterate_bytes(weights):
        digest.update(piece)
    content = {
        "spec": spec.replace(schema_version=SCHEMA).model_dump(mode="json"),
        "weights_sha256": digest.hexdigest(),
    }
    card = json.dumps(content, indent=2, ensure_ascii=False).encode()
    if len(card) > _CARD_LIMIT:
        raise FileError(
            path, f"was not written: its card takes {len(card)} bytes, and at most {_CARD_LIMIT} are read."
        )
    readme = model_card(spec, Path(path).name).encode()
    size = weights_size(shapes)

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_entry(_MIMETYPE), MIMETYPE)
            archive.writestr(_entry(_CARD), card)
            with archive.open(_entry(_WEIGHTS, size), "w") as member:
                for piece in iterate_bytes(weights):
                    member.write(piece)
            archive.writestr(_entry(_README), readme)

    write_atomically(path, write, needed=size + len(card) + len(readme) + 1000)


def read_card(path: str | PathLike[str]) -> ModelSpec:
    """Read the model card of a model file; the weights are not read, and no Keras is needed.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.unet`` file.

    Returns
    -------
    ModelSpec
        The card. Unknown fields of a newer card are dropped.

    Raises
    ------
    FileError
        If the file is missing, is no model file, is damaged, or needs a newer napari-unet.
    """
    with _opened(path) as archive:
        spec, _ = _read_card(path, archive)
        with archive.open(_WEIGHTS) as member:
            check_header(member, archive.getinfo(_WEIGHTS).file_size, weight_shapes(spec.network))
        return spec


def read_model_file(path: str | PathLike[str]) -> tuple[ModelSpec, dict[str, Float32]]:
    """Read a model file.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.unet`` file.

    Returns
    -------
    spec : ModelSpec
        The card.
    arrays : dict of str to ndarray of float32
        Every weight of ``spec.network``, all finite, in the order of
        `napari_unet.spec.weight_shapes`.

    Raises
    ------
    FileError
        As `read_card`, and if the weights do not match their checksum, are NaN or infinite,
        or do not fit into memory.
    """
    with _opened(path) as archive:
        spec, promised = _read_card(path, archive)
        shapes = weight_shapes(spec.network)
        size = archive.getinfo(_WEIGHTS).file_size
        try:
            with archive.open(_WEIGHTS) as member:
                arrays, digest = read_weights(member, size, shapes)
        except MemoryError:
            raise FileError(
                path,
                f"needs {size / 1e9:.1f} GB of memory for its weights. Close other programs, or use a smaller model.",
            ) from None
        if digest != promised:
            raise ValueError("its weights do not match their checksum")
        return spec, check_arrays(arrays, shapes)


def _entry(name: str, size: int = 0) -> zipfile.ZipInfo:
    """Describe a member, the same on every computer and day; `size` lets zipfile choose ZIP64."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.file_size = size
    return entry


@contextmanager
def _opened(path: str | PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a model file whose members have been checked; name the file in any error."""
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
            raise FileError(path, f"is {kind}, not a napari-unet model; choose a file NAME.unet.")
        with Path(path).open("rb") as file:
            _recognise(path, file)
            _check_end(file)
            with zipfile.ZipFile(file) as archive:
                _check_members(archive)
                yield archive
    except FileNotFoundError:
        raise FileError(path, "does not exist; choose a file NAME.unet that is there.") from None
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error}).") from error
    except _DAMAGE as error:
        raise FileError(
            path,
            f"is damaged or was altered: {_short(error)}. Use another copy of it, or train the model again.",
        ) from error


def _recognise(path: str | PathLike[str], file: IO[bytes]) -> None:
    """Refuse whatever is not a model file before any parser sees it."""
    expected = _MIMETYPE.encode() + MIMETYPE
    head = file.read(_LOCAL_HEADER + len(expected))
    if not head.startswith(_HEAD) or head[_LOCAL_HEADER:] != expected:
        raise FileError(
            path,
            "is not a napari-unet model, whatever its name says. Choose a file NAME.unet that napari-unet saved; "
            "models of other programs (.keras, .h5, .pt, .onnx) cannot be opened.",
        )


def _check_end(file: IO[bytes]) -> None:
    """Check the ZIP's end record, so that zipfile reads a directory of four entries and no more."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_RECORD - 20))
    tail = file.read()
    locator, end = tail[:-_END_RECORD], tail[-_END_RECORD:]
    if not end.startswith(b"PK\x05\x06"):
        raise ValueError("its end is missing, or something was added to it")
    disk, start_disk, here, entries, directory, comment = struct.unpack("<4x4HL4xH", end)
    if (disk, start_disk, here, entries, comment) != (0, 0, len(_MEMBERS), len(_MEMBERS), 0):
        raise ValueError(f"it holds {entries} members, not {len(_MEMBERS)}")
    # zipfile writes a second, larger end record from 2 GB; it would replace the numbers checked here.
    if directory > _DIRECTORY_LIMIT or (locator.startswith(b"PK\x06\x07") and size <= _ZIP64_FROM):
        raise ValueError("its table of members is broken")


def _check_members(archive: zipfile.ZipFile) -> None:
    """Check names, sizes, compression, kind and place of all members before one is read."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if sorted(names) != sorted(_MEMBERS):
        raise ValueError(f"it holds {', '.join(map(repr, names))[:200]}, not {', '.join(_MEMBERS)}")
    limits = {_MIMETYPE: len(MIMETYPE), _CARD: _CARD_LIMIT, _README: _README_LIMIT}
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or entry.flag_bits & ~0x800:
            raise ValueError(f"its member {entry.filename} is encrypted, a link or a folder")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"its member {entry.filename} is compressed")
        if entry.file_size > limits.get(entry.filename, entry.file_size):
            raise ValueError(f"its member {entry.filename} is too large ({entry.file_size} bytes)")
        if entry.header_offset < position or (position == 0 and entry.header_offset != 0):
            raise ValueError(f"its member {entry.filename} lies inside another one")
        position = entry.header_offset + _LOCAL_HEADER + len(entry.filename) + entry.file_size
    if position > archive.start_dir:
        raise ValueError("its members are larger than the file")


def _read_card(path: str | PathLike[str], archive: zipfile.ZipFile) -> tuple[ModelSpec, str]:
    """Return the card, and the checksum that it gives for the weights."""
    content = parse_json(archive.read(_CARD))
    spec, digest = content["spec"], content["weights_sha256"]
    if not isinstance(spec, dict) or not isinstance(digest, str):
        raise ValueError("its card is broken")
    reader = spec.get("min_reader")
    if type(reader) is not int:
        raise ValueError("its card does not say who can read it")
    if reader > SCHEMA:
        raise FileError(
            path,
            f"needs a napari-unet that reads model cards of version {min(reader, 10**9)}, but this one reads up to version "
            f"{SCHEMA}. Update napari-unet.",
        )
    _check_counts(spec)
    version = spec.get("schema_version")
    return ModelSpec(**_known(spec) if isinstance(version, int) and version > SCHEMA else spec), digest


def _check_counts(value: Any, place: str = "") -> None:
    """Refuse endless lists before pydantic makes an error of each item."""
    if not isinstance(value, dict | list):
        return
    names = place == ".training.images"
    if len(value) > (_NAMES_LIMIT if names else _LIST_LIMIT):
        raise ValueError(f"its card has {len(value)} entries in {place or 'the whole'}")
    if names and not all(isinstance(name, str) for name in value):
        raise ValueError("its card names images by something else than text")
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        _check_counts(item, f"{place}.{str(key)[:40]}")


def _known(spec: dict[str, Any]) -> dict[str, Any]:
    """Drop what a newer card adds; its `min_reader` says that it can be done without."""

    def keep(cls: type[Settings], content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {key: value for key, value in content.items() if key in cls.model_fields}

    kept: dict[str, Any] = keep(ModelSpec, spec)
    for name, cls in (
        ("network", UNetConfig),
        ("normalization", Normalization),
        ("training", TrainingRecord),
    ):
        if name in kept:
            kept[name] = keep(cls, kept[name])
    if isinstance(kept.get("classes"), list):
        kept["classes"] = [keep(ClassInfo, item) for item in kept["classes"]]
    return kept


def _short(error: BaseException) -> str:
    """Return an error's text as one line that a person can read and a terminal can print."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= 300 else text[:299] + "…"
