"""NAME.unet: what goes in comes out, and nothing that a stranger puts in does harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import re
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.config import UNetConfig
from napari_unet.errors import FileError
from napari_unet.files.model import MIMETYPE, read_card, read_model_file, save_model_file
from napari_unet.files.weights import weights_size
from napari_unet.spec import SCHEMA, ClassInfo, ModelSpec, Normalization, TrainingRecord, weight_shapes

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_v1.unet"
NETWORK = UNetConfig(depth=1, filters=2)
SPEC = ModelSpec(name="cells", network=NETWORK)
MEBIBYTE = 2**20


def weights(network: UNetConfig = NETWORK, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, dtype="f4") for name, shape in weight_shapes(network).items()}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.unet"
    save_model_file(path, SPEC, weights())
    return path


# Round trip.


names = st.text(max_size=30)
specs = st.builds(
    ModelSpec,
    name=st.text(min_size=1, max_size=30),
    network=st.builds(
        UNetConfig,
        depth=st.integers(1, 2),
        filters=st.integers(1, 3),
        channels=st.integers(1, 3),
        classes=st.just(3),
    ),
    classes=st.tuples(*[st.builds(ClassInfo, value=st.just(value), name=names) for value in (0, 7, 2**40)]),
    pixel_size=st.none() | st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)),
    unit=st.text(max_size=20),
    training=st.builds(
        TrainingRecord, steps=st.integers(0, 10**9), images=st.lists(names, max_size=3).map(tuple)
    ),
)


@settings(max_examples=30, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32 - 1))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, spec: ModelSpec, seed: int) -> None:
    path = tmp_path_factory.mktemp("models") / "m.unet"
    arrays = weights(spec.network, seed)
    save_model_file(path, spec, arrays)
    assert read_card(path) == spec
    read, found = read_model_file(path)
    assert read == spec
    assert list(found) == list(weight_shapes(spec.network))
    for name, array in arrays.items():
        assert found[name].dtype == np.float32
        assert found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


def test_same_model_same_bytes(tmp_path: Path) -> None:
    save_model_file(tmp_path / "a.unet", SPEC, weights())
    reversed_order = dict(reversed(weights().items()))
    first = (tmp_path / "a.unet").read_bytes()
    save_model_file(tmp_path / "a.unet", SPEC, reversed_order)
    assert (tmp_path / "a.unet").read_bytes() == first


def test_others_can_read_it(good: Path) -> None:
    with zipfile.ZipFile(good) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["mimetype", "model.json", "weights.safetensors", "README.md"]
        assert archive.read("mimetype") == MIMETYPE
        found = safetensors.numpy.load(archive.read("weights.safetensors"))
        card = json.loads(archive.read("model.json"))
        size = archive.getinfo("weights.safetensors").file_size
    assert size == weights_size(weight_shapes(NETWORK))
    assert card["spec"]["name"] == "cells"
    for name, array in weights().items():
        np.testing.assert_array_equal(found[name], array)


def test_models_above_two_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the ZIP has larger fields; the limit is lowered instead of writing so much."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    monkeypatch.setattr("napari_unet.files.model._ZIP64_FROM", 1000)
    save_model_file(tmp_path / "a.unet", SPEC, weights())
    assert b"PK\x06\x07" in (tmp_path / "a.unet").read_bytes()
    spec, arrays = read_model_file(tmp_path / "a.unet")
    assert spec == SPEC
    np.testing.assert_array_equal(arrays["logits/kernel"], weights()["logits/kernel"])
    monkeypatch.undo()
    with pytest.raises(FileError, match="its table of members is broken"):
        read_card(tmp_path / "a.unet")


def test_other_float_types_become_float32(tmp_path: Path) -> None:
    arrays = {name: array.astype("f8") for name, array in weights().items()}
    arrays["logits/bias"] = [0.25]
    save_model_file(tmp_path / "a.unet", SPEC, arrays)
    assert read_model_file(tmp_path / "a.unet")[1]["logits/bias"].tolist() == [0.25]


def test_the_card_reads_no_weights(tmp_path: Path) -> None:
    """A card is shown even when the weights are damaged, because they are not looked at."""
    network = UNetConfig(depth=2, filters=8)
    save_model_file(tmp_path / "a.unet", SPEC.replace(network=network), weights(network))
    content = bytearray((tmp_path / "a.unet").read_bytes())
    content[content.find(weights(network)["bottom_conv1/kernel"].tobytes())] ^= 1
    (tmp_path / "a.unet").write_bytes(content)
    assert read_card(tmp_path / "a.unet").network == network
    with pytest.raises(FileError, match="is damaged"):
        read_model_file(tmp_path / "a.unet")


def refuse_save(path: Path, spec: ModelSpec, arrays: dict[str, Any]) -> str:
    before = path.read_bytes()
    with pytest.raises(FileError) as caught:
        save_model_file(path, spec, arrays)
    assert path.read_bytes() == before
    assert str(caught.value).startswith(f"{path}: was not written: ")
    return caught.value.reason


def test_wrong_weights_are_not_saved(good: Path) -> None:
    with_nan = weights()
    with_nan["up0_conv0/bias"][1] = np.nan
    assert "weight 'up0_conv0/bias' holds NaN or infinite numbers" in refuse_save(good, SPEC, with_nan)
    too_large = {name: array.astype("f8") for name, array in weights().items()}
    too_large["logits/bias"][0] = 1e300
    assert "weight 'logits/bias' holds NaN or infinite" in refuse_save(good, SPEC, too_large)
    assert "'seed' belongs to no layer" in refuse_save(good, SPEC, {**weights(), "seed": np.zeros(1)})
    assert "weight 'down0_conv0/kernel' is missing (16 of 16 are)" in refuse_save(good, SPEC, {})
    turned = {**weights(), "logits/kernel": np.zeros((2, 1))}
    assert "has shape (2, 1), but its network needs (1, 1, 2, 1)" in refuse_save(good, SPEC, turned)


# The card for people.


def test_readme_names_the_options_of_the_network(tmp_path: Path) -> None:
    network = NETWORK.replace(normalization="batch", activation="leaky_relu", upsampling="transposed")
    save_model_file(tmp_path / "a.unet", ModelSpec(network=network), weights(network))
    with zipfile.ZipFile(tmp_path / "a.unet") as archive:
        text = archive.read("README.md").decode()
    options = "with batch normalisation, leaky ReLU and transposed up-convolutions"
    assert f"padded convolutions, {options}: depth" in text
    assert read_card(tmp_path / "a.unet").network == network
    _, arrays = read_model_file(tmp_path / "a.unet")
    assert {name: array.shape for name, array in arrays.items()} == weight_shapes(network)


def test_readme_says_what_a_person_needs(tmp_path: Path) -> None:
    spec = ModelSpec(
        name="mito | nuclei <b>",
        network=NETWORK.replace(classes=3, channels=2),
        axes="YXC",
        classes=(
            ClassInfo(value=0, name="background"),
            ClassInfo(value=7, name="nucleus", color="#ff0000"),
            ClassInfo(value=9, name="line\nbreak"),
        ),
        pixel_size=(0.5, 0.25),
        unit="micrometer",
        normalization=Normalization(low=(3.0, 10.0), high=(250.0, 4000.0)),
        training=TrainingRecord(
            date="2025-11-02",
            steps=12_000,
            seconds=600,
            images=tuple(f"slice{i}.tif" for i in range(25)),
            painted=345_678,
            score=0.9134,
            versions={"keras": "3.15.1"},
        ),
    )
    save_model_file(tmp_path / "mito.unet", spec, weights(spec.network))
    with zipfile.ZipFile(tmp_path / "mito.unet") as archive:
        text = archive.read("README.md").decode()
    for part in (
        "# mito \\| nuclei \\<b\\>\n",
        "images with 2 channels one of 3 classes: background, nucleus and line break.",
        "| 7 | nucleus | #ff0000 |\n",
        "| 9 | line break | - |\n",
        "Pixels of 0.5 x 0.25 micrometer (y, x)",
        "3 to 250 and 10 to 4000 (by channel)",
        "mean Dice 0.913 on a part of the painted region that was held out",
        "12,000 steps (10 minutes) on images with 345,678 painted pixels, until 2025-11-02.",
        "slice19.tif and 5 more.",
        "keras 3.15.1",
        "Layers > Segment > U-Net > Segment",
        'napari-unet predict "mito.unet" IMAGE.tif --out LABELS.ome.tif',
        'model = load_model("mito.unet")',
        "ndarray of shape (Y, X, C)",
    ):
        assert part in text
    assert "slice20.tif" not in text
    count = sum(array.size for array in weights(spec.network).values())
    assert f"{count:,} parameters" in text


def test_readme_of_an_untold_model(good: Path) -> None:
    with zipfile.ZipFile(good) as archive:
        text = archive.read("README.md").decode()
    assert "How it was trained is not recorded." in text
    assert "The pixel size of the training images is not known." in text
    assert "A pixel belongs to value 1 where its probability is at least 0.5." in text


# Fault 33: crafted files. Fault 36: damage on the disk.


def pack(
    path: Path,
    members: list[tuple[str, bytes]],
    *,
    compression: int = zipfile.ZIP_STORED,
    mode: int = 0o100644,
) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            if name != "mimetype":
                entry.compress_type = compression
                entry.external_attr = mode << 16
            archive.writestr(entry, content)


def header(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    entries, position = {}, 0
    for name, array in arrays.items():
        entries[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    return entries


def raw(entries: Any, arrays: dict[str, np.ndarray]) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values())


def members(
    *,
    spec: dict[str, Any] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
    tensors: bytes | None = None,
    card: bytes | None = None,
    digest: str | None = None,
) -> list[tuple[str, bytes]]:
    """Members of a model file that is right but for what is handed in."""
    arrays = weights() if arrays is None else arrays
    tensors = raw(header(arrays), arrays) if tensors is None else tensors
    content = {"spec": {**SPEC.model_dump(mode="json"), **(spec or {})}}
    content["weights_sha256"] = digest or hashlib.sha256(tensors).hexdigest()
    card = json.dumps(content).encode() if card is None else card
    return [
        ("mimetype", MIMETYPE),
        ("model.json", card),
        ("weights.safetensors", tensors),
        ("README.md", b"# Hi"),
    ]


def changed(name: str, **changes: Any) -> bytes:
    """Weights whose header lies about one array."""
    entries = header(weights())
    entries[name] = {**entries[name], **changes}
    return raw(entries, weights())


def nan_weights() -> dict[str, np.ndarray]:
    arrays = weights()
    arrays["bottom_conv1/kernel"].flat[3] = np.inf
    return arrays


def patched(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def set_all(content: bytearray, signature: bytes, offset: int, value: bytes) -> None:
    """Overwrite one field in every header of a kind."""
    position = content.find(signature)
    while position >= 0:
        content[position + offset : position + offset + len(value)] = value
        position = content.find(signature, position + 1)


def craft_encrypted(path: Path) -> None:
    pack(path, members())
    patched(path, lambda content: set_all(content, b"PK\x01\x02", 8, b"\x01\x00"))


def craft_promised_size(path: Path) -> None:
    pack(path, members())

    def lie(content: bytearray) -> None:
        position = content.find(b"PK\x01\x02")
        position = content.find(b"PK\x01\x02", content.find(b"PK\x01\x02", position + 1) + 1)  # weights
        content[position + 20 : position + 28] = struct.pack("<2L", 4_000_000_000, 4_000_000_000)

    patched(path, lie)


def craft_overlap(path: Path) -> None:
    pack(path, members())

    def lie(content: bytearray) -> None:
        first = content.find(b"PK\x01\x02")
        second = content.find(b"PK\x01\x02", first + 1)
        third = content.find(b"PK\x01\x02", second + 1)
        content[third + 42 : third + 46] = content[second + 42 : second + 46]

    patched(path, lie)


def craft_many(path: Path) -> None:
    pack(path, members() + [(f"f{i}", b"") for i in range(20_000)])


BOMB = b"0" * (64 * MEBIBYTE)
DEEP = b'{"spec": ' + b"[" * 200_000 + b"]" * 200_000 + b', "weights_sha256": ""}'
CRAFTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "zip bomb": (lambda p: pack(p, members(card=BOMB), compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "path outside": (lambda p: pack(p, [*members(), ("../evil.txt", b"x")]), "it holds 5 members, not 4"),
    "path outside in place": (
        lambda p: pack(p, [*members()[:3], ("../evil.txt", b"x")]),
        "it holds .*evil.txt.*, not mimetype",
    ),
    "absolute path": (lambda p: pack(p, [*members()[:3], ("/tmp/evil.txt", b"x")]), "evil.txt"),
    "same name twice": (
        lambda p: pack(p, [*members()[:3], ("model.json", b"{}")]),
        "it holds 'mimetype', 'model.json'",
    ),
    "missing member": (lambda p: pack(p, members()[:3]), "it holds 3 members, not 4"),
    "symbolic link": (
        lambda p: pack(p, members(card=b"/etc/passwd"), mode=stat.S_IFLNK | 0o777),
        "a link or a folder",
    ),
    "encrypted": (craft_encrypted, "is encrypted"),
    "sizes beyond the file": (craft_promised_size, "lies inside another|larger than the file"),
    "overlapping members": (craft_overlap, "lies inside another one"),
    "20,000 members": (craft_many, "it holds 20004 members, not 4"),
    "NaN weights": (
        lambda p: pack(p, members(arrays=nan_weights())),
        "weight 'bottom_conv1/kernel' holds NaN",
    ),
    "wrong shape": (
        lambda p: pack(p, members(tensors=changed("logits/kernel", shape=[2, 1]))),
        r"has shape \[2, 1\], but its network needs \[1, 1, 2, 1\]",
    ),
    "wrong type": (
        lambda p: pack(p, members(tensors=changed("logits/bias", dtype="F64"))),
        "is of type F64, not F32",
    ),
    "offsets outside": (
        lambda p: pack(p, members(tensors=changed("logits/bias", data_offsets=[2**60, 2**60 + 4]))),
        "does not start where the one before it ends",
    ),
    "offsets that overlap": (
        lambda p: pack(p, members(tensors=changed("logits/bias", data_offsets=[0, 4]))),
        "does not start where",
    ),
    "endless header": (
        lambda p: pack(p, members(tensors=struct.pack("<Q", 2**63) + b"{}")),
        "header of its weights is broken",
    ),
    "header that is a list": (
        lambda p: pack(p, members(tensors=raw(b"[]", {}))),
        "header of its weights is broken",
    ),
    "pickle as weights": (
        lambda p: pack(p, members(tensors=pickle.dumps(weights()))),
        "header of its weights is broken",
    ),
    "missing weights": (
        lambda p: pack(p, members(tensors=raw({}, {}))),
        r"weight 'down0_conv0/kernel' is missing \(16 of 16 are\)",
    ),
    "weights too short": (
        lambda p: pack(p, members(tensors=raw(header(weights()), {}))),
        "its weights take 0 bytes",
    ),
    "absurd network": (
        lambda p: pack(p, members(spec={"network": {"depth": 6, "filters": 256, "channels": 64}})),
        "'down1_conv0/kernel' is missing|has shape",
    ),
    "more absurd network": (
        lambda p: pack(p, members(spec={"network": {"depth": 10**9}})),
        "depth is 1000000000, but it",
    ),
    "unknown setting": (
        lambda p: pack(p, members(spec={"loader": "evil.py"})),
        "'loader' is not a setting of ModelSpec",
    ),
    "settings named self": (lambda p: pack(p, members(spec={"self": 1})), "'self' is not a setting"),
    "not UTF-8": (lambda p: pack(p, members(card=b"\xff\xfe{}")), "utf-8"),
    "half a character": (lambda p: pack(p, members(spec={"name": "\ud800"})), "damaged or was altered"),
    "NaN in the card": (lambda p: pack(p, members(spec={"threshold": float("nan")})), "NaN is no number"),
    "a key twice": (lambda p: pack(p, members(card=b'{"spec": {}, "spec": {}}')), "a key is given twice"),
    "card without a spec": (lambda p: pack(p, members(card=b"{}")), "'spec'"),
    "card that is a number": (lambda p: pack(p, members(card=b"7")), "damaged or was altered"),
    "nested without end": (lambda p: pack(p, members(card=DEEP)), "recursion"),
    "two million classes": (
        lambda p: pack(
            p,
            members(
                card=b'{"spec":{"min_reader":1,"classes":['
                + b"{}," * 1_300_000
                + b'{}]},"weights_sha256":""}'
            ),
        ),
        "1300001 entries in .classes",
    ),
    "a million wrong names": (
        lambda p: pack(p, members(spec={"training": {"images": [0] * 100_000}})),
        "names images by something else than text",
    ),
    "a number without end": (lambda p: pack(p, members(card=b'{"spec": ' + b"9" * 10**6 + b"}")), "limit"),
    "a large card": (lambda p: pack(p, members(card=b" " * 5 * MEBIBYTE)), "model.json is too large"),
    "a large readme": (
        lambda p: pack(p, [*members()[:3], ("README.md", b"x" * 2 * MEBIBYTE)]),
        "README.md is too large",
    ),
    "wrong checksum": (lambda p: pack(p, members(digest="0" * 64)), "do not match their checksum"),
    "newer": (lambda p: pack(p, members(spec={"min_reader": 2})), "needs a napari-unet"),
    "version that is no number": (
        lambda p: pack(p, members(spec={"min_reader": "1"})),
        "does not say who can read it",
    ),
}


def refused(path: Path) -> str:
    """Read a file that must be refused, at little cost; return the sentence."""
    tracemalloc.start()
    try:
        with pytest.raises(FileError) as caught:
            read_model_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * MEBIBYTE
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert len(sentence) < 700
    assert sentence.isprintable()
    return caught.value.reason


def test_the_crafted_files_are_right_but_for_one_thing(tmp_path: Path) -> None:
    pack(tmp_path / "right.unet", members())
    spec, arrays = read_model_file(tmp_path / "right.unet")
    assert spec == SPEC
    np.testing.assert_array_equal(arrays["logits/kernel"], weights()["logits/kernel"])


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    inner = tmp_path / "inner" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    path = inner / "strange.unet"
    craft, sentence = CRAFTED[case]
    craft(path)
    assert re.search(sentence, refused(path))
    assert [entry.name for entry in tmp_path.rglob("*") if entry.is_file()] == ["strange.unet"]


def test_one_flipped_byte_in_the_weights(good: Path) -> None:
    content = good.read_bytes()
    start = content.find(weights()["down0_conv0/kernel"].tobytes())
    for position in range(start, start + 1700, 211):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        good.write_bytes(damaged)
        assert refused(good).startswith("is damaged or was altered: ")
        assert refused(good).endswith("Use another copy of it, or train the model again.")


def test_flipped_byte_with_a_mended_zip_checksum(tmp_path: Path) -> None:
    arrays = weights()
    digest = hashlib.sha256(raw(header(arrays), arrays)).hexdigest()
    arrays["logits/bias"] += 1
    pack(tmp_path / "a.unet", members(arrays=arrays, digest=digest))
    assert "its weights do not match their checksum" in refused(tmp_path / "a.unet")


def mutate(content: bytes, rng: random.Random) -> bytes:
    where, much = rng.randrange(len(content)), rng.choice((1, 1, 2, 8, 100))
    noise = rng.randbytes(much)
    match rng.randrange(5):
        case 0:
            return content[:where]
        case 1:
            return content[:where] + content[where + much :]
        case 2:
            return content[:where] + noise + content[where:]
        case 3:
            other = rng.randrange(len(content))
            return content[:where] + content[other : other + much] + content[where + much :]
        case _:
            return content[:where] + noise + content[where + much :]


def test_mutated_files_are_refused_or_unchanged_in_meaning(good: Path) -> None:
    """A byte that no reader needs (a date, the readme) may differ; the model is never another one."""
    rng = random.Random(20)
    content = good.read_bytes()
    spec, arrays = read_model_file(good)
    refusals = []
    for _ in range(300):
        good.write_bytes(mutate(content, rng))
        try:
            found, read = read_model_file(good)
        except FileError as error:
            refusals.append(str(error))
        else:
            assert found == spec
            assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    assert len(refusals) > 200
    assert all(text.startswith(f"{good}: ") and text.isprintable() for text in refusals)


# Fault 34: files of other kinds, some of which would run code in a careless reader.


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def other_npz(canary: Path) -> bytes:
    file = io.BytesIO()
    np.savez(file, weights=np.array([Canary(canary)], dtype=object))
    return file.getvalue()


def other_keras(canary: Path) -> bytes:
    config = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "function": {"class_name": "__lambda__", "config": {"code": f"open({str(canary)!r}, 'w')"}}
        },
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    return file.getvalue()


OTHERS: dict[str, Callable[[Path], bytes]] = {
    ".keras": other_keras,
    ".npz": other_npz,
    ".h5": lambda canary: b"\x89HDF\r\n\x1a\n" + bytes(2000),
    ".pkl": lambda canary: pickle.dumps(Canary(canary)),
    ".yaml": lambda canary: f"!!python/object/apply:pathlib.Path.touch [{canary}]".encode(),
    ".zip": lambda canary: b"PK\x05\x06" + bytes(18),
    "random": lambda canary: random.Random(3).randbytes(5000),
    "empty": lambda canary: b"",
    "text": lambda canary: b"PK",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_not_models(tmp_path: Path, kind: str) -> None:
    path, canary = tmp_path / "model.unet", tmp_path / "canary"
    path.write_bytes(OTHERS[kind](canary))
    for read in (read_card, read_model_file):
        with pytest.raises(FileError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: is not a napari-unet model, whatever its name says. Choose a file NAME.unet that napari-unet saved; "
            "models of other programs (.keras, .h5, .pt, .onnx) cannot be opened."
        )
    assert not canary.exists()


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"does not exist; choose a file NAME\.unet that is there"):
        read_card(tmp_path / "none.unet")
    with pytest.raises(FileError, match="is a folder, not a napari-unet model"):
        read_card(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.unet")
        with pytest.raises(FileError, match="is no ordinary file, not a napari-unet model"):
            read_card(tmp_path / "pipe.unet")


def test_weights_that_do_not_fit_into_memory(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr("napari_unet.files.weights.np.empty", no_memory)
    with pytest.raises(FileError, match=r"needs 0\.0 GB of memory for its weights"):
        read_model_file(good)


# Fault 35: files of other versions.


def test_newer_file_names_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "new.unet"
    pack(path, members(spec={"schema_version": SCHEMA + 2, "min_reader": SCHEMA + 1, "novelty": {}}))
    for read in (read_card, read_model_file):
        with pytest.raises(FileError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: needs a napari-unet that reads model cards of version {SCHEMA + 1}, but this one reads up to version "
            f"{SCHEMA}. Update napari-unet."
        )


def test_newer_file_that_older_readers_may_read(tmp_path: Path) -> None:
    spec = SPEC.model_dump(mode="json")
    spec["schema_version"] = SCHEMA + 1
    for part in (spec, spec["network"], spec["training"], spec["normalization"], spec["classes"][0]):
        part["novelty"] = 1
    pack(tmp_path / "a.unet", members(spec=spec))
    found, _ = read_model_file(tmp_path / "a.unet")
    assert found == SPEC.replace(schema_version=SCHEMA + 1)
    save_model_file(tmp_path / "b.unet", found, weights())
    assert read_card(tmp_path / "b.unet") == SPEC


GOLDEN_SPEC = ModelSpec(
    name="golden v1 ü",
    network=UNetConfig(channels=2, classes=3, depth=2, filters=2, dropout=0.25),
    axes="YXC",
    normalization=Normalization(lower=1.0, upper=99.8, low=(3.0, 10.5), high=(250.0, 4000.0)),
    pixel_size=(0.5, 0.25),
    unit="micrometer",
    classes=(
        ClassInfo(value=0, name="background"),
        ClassInfo(value=7, name="nucleus", color="#ff0000"),
        ClassInfo(value=2**40, name="membrane", color="#00ff0080"),
    ),
    unpainted="ignore",
    threshold=0.25,
    training=TrainingRecord(
        date="2025-11-22T12:00:00+00:00",
        steps=1200,
        seconds=600.5,
        images=("a.tif", "b.ome.tif"),
        painted=34567,
        score=0.875,
        versions={"keras": "3.15.1", "tensorflow": "2.21.0"},
    ),
)


def golden_weights() -> dict[str, np.ndarray]:
    """Numbers that float32 holds exactly and that no library's generator decides."""
    shapes = weight_shapes(GOLDEN_SPEC.network)
    return {
        name: ((np.arange(np.prod(shape)) * 7 + i) % 97 - 48).astype("f4").reshape(shape) / 256
        for i, (name, shape) in enumerate(shapes.items())
    }


def test_file_of_version_1_reads_for_ever() -> None:
    """This file is never written again: it stands for those that people have."""
    assert (
        hashlib.sha256(GOLDEN.read_bytes()).hexdigest()
        == "d1222d7aa477193655f03981b032adbfa64aa53743c7e95ee998f4ffc64bf5c2"
    )
    spec, arrays = read_model_file(GOLDEN)
    assert spec == GOLDEN_SPEC
    assert read_card(GOLDEN) == GOLDEN_SPEC
    for name, array in golden_weights().items():
        np.testing.assert_array_equal(arrays[name], array)
