"""Every format is recognised by content; truncated, damaged and foreign files are refused."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from references.weights_files import (
    CPU,
    KERAS_NAME,
    KINDS,
    NAME,
    Files,
    State,
    checked,
    hdf5,
    legacy,
    put,
    refused,
    saved,
)
from safetensors.torch import save

from residua.errors import ResiduaError
from residua.weights.formats.detect import read_raw
from residua.weights.formats.raw import RawWeights
from residua.weights.load import read_file
from residua.weights.network import build_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_file_of_each_format_is_read(whole: Files, kind: str, tmp_path: Path) -> None:
    name = KERAS_NAME if "Keras" in kind else NAME
    build_network(read_file(put(tmp_path, kind, whole[kind]), name), CPU)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [1, 5, 700, 0.5, -1])
def test_truncated_files_are_refused(whole: Files, kind: str, part: float, tmp_path: Path) -> None:
    content = whole[kind]
    size = round(part * len(content)) if part == 0.5 else int(part)
    refused(put(tmp_path, kind, content[:size]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>404", "is a web page"),
        (b"\n\n <?xml version='1.0'?>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n\x1b[2J", "starts with"),
        (b"PK\5\6" + bytes(18), "starts with"),
        (b"just text, no weights at all", "starts with"),
        ((2**63).to_bytes(8, "little") + b"{}", "starts with"),
        ((2**24).to_bytes(8, "little") + b'{"a":1}', "invalid header length"),
        (b"\x80\x02.", "PyTorch checkpoint"),
        (b"\x80", "PyTorch checkpoint"),
    ],
)
def test_other_formats_are_refused_by_their_kind(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = put(tmp_path, "any", content)
    assert re.search(message, refused(path))
    if message.startswith(("is", "git", "starts")):
        assert "expected a Keras file" in refused(path)


def test_zip_archives_without_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[2Jnotes.txt", "nothing")
    assert "zip archive without weights" in refused(path)


@pytest.mark.parametrize("kind", ["pickle", pytest.param("Keras 3 model", marks=pytest.mark.slow)])
def test_one_wrong_bit_in_an_archive_is_noticed(whole: Files, kind: str, tmp_path: Path) -> None:
    """By its checksum, even where the library does not check it."""
    content = bytearray(whole[kind])
    content[len(content) // 2] ^= 1
    assert "CRC" in refused(put(tmp_path, kind, bytes(content)))


def test_duplicate_names_are_refused(state: State, whole: Files, tmp_path: Path) -> None:
    for kind, content in (("safetensors", save(state)), ("ours", whole["ours"])):
        length = int.from_bytes(content[:8], "little")
        header, rest = content[8 : 8 + length].rstrip(), content[8 + length :]
        entries = json.loads(header)
        first = next(name for name in entries if name != "__metadata__")
        twice = header[:-1] + b"," + json.dumps({first: entries[first]}).encode()[1:]
        wrong = len(twice).to_bytes(8, "little") + twice + rest
        assert "twice" in refused(put(tmp_path, kind, wrong)) or "uplicate" in refused(
            put(tmp_path, kind, wrong)
        )

    def layer_twice(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}})
        file.attrs["layer_names"] = np.array([b"conv2d_1", b"conv2d_1"])

    def tensor_twice(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}})
        file["conv2d_1"].attrs["weight_names"] = np.array([b"k", b"k"])

    def true_name_twice(file: h5py.File) -> None:
        for group in "ab":
            file[f"layers/{group}/vars/0"] = np.ones(2)
            file[f"layers/{group}/vars"].attrs["name"] = "conv2d"

    assert "lists the layer conv2d_1 twice" in refused(hdf5(tmp_path, layer_twice))
    assert "lists the tensor of layer conv2d_1 k twice" in refused(hdf5(tmp_path, tensor_twice))
    assert "two layers are called conv2d" in refused(hdf5(tmp_path, true_name_twice))
    archives = {"file.keras": "model.weights.h5", "file.pth": "archive/data.pkl"}
    for file, name in archives.items():
        path = tmp_path / file
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "one")
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(name, "another one")
        assert f"contains {name} twice" in refused(path)


NAMES = [
    "conv\x1b[31m",  # colours a terminal
    "conv\n2",
    "conv\u202e2",  # turns the writing direction
    "conv\ud8002",
    "c" * 10_000,
    "conv2d_" + "9" * 5_000,
]


@pytest.mark.parametrize("name", NAMES)
def test_unprintable_names_are_refused(name: str, state: State, tmp_path: Path) -> None:
    """They never reach the terminal, and numbers in them are never too long."""
    path = tmp_path / "file.pth"
    path.write_bytes(saved({**state, f"{name}.weight": torch.ones(2)}))
    assert "printable characters" in refused(path)
    if "\ud800" not in name:
        path.write_bytes(save({**state, f"{name}.weight": torch.ones(2)}))
        assert "printable characters" in refused(path)
        stored = hdf5(tmp_path, lambda file: legacy(file, {name: {"k": np.ones(2)}}))
        assert "printable characters" in refused(stored)


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Changes of a file: what, where (as a fraction), and with which bytes."""
    kinds = st.sampled_from(["flip", "flip", "set", "insert", "delete", "cut"])
    where = st.one_of(st.floats(0, 0.999), st.floats(0, 0.1))
    return draw(
        st.lists(
            st.tuples(kinds, where, st.binary(min_size=1, max_size=16)), min_size=1, max_size=4
        )
    )


def damaged(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    found = bytearray(content)
    for kind, where, extra in changes:
        at = int(where * len(found))
        if kind == "flip" and found:
            found[at] ^= 1 << (extra[0] % 8)
        elif kind == "set":
            found[at : at + len(extra)] = extra
        elif kind == "insert":
            found[at:at] = extra
        elif kind == "delete":
            del found[at : at + len(extra)]
        elif kind == "cut":
            del found[at:]
    return bytes(found)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
@settings(
    derandomize=True,
    max_examples=100,
    deadline=5_000,  # milliseconds
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=damages())
@example(changes=[])
def test_random_damage_is_refused_or_harmless(
    kind: str,
    changes: list[tuple[str, float, bytes]],
    tiny: Files,
    tmp_path: Path,
) -> None:
    """An error in a sentence, or layers: with the same numbers in formats that have checksums."""
    path = put(tmp_path, kind, damaged(tiny[kind], changes))
    try:
        raw = read_raw(path)
    except ResiduaError as error:
        checked(path, str(error))
        assert changes
        return
    if kind in ("pickle", "Keras 3 model"):
        intact = read_raw(put(tmp_path / "..", kind, tiny[kind]))
        assert tensors_of(raw) == tensors_of(intact)


def tensors_of(raw: RawWeights) -> dict[str, Any]:
    return {
        f"{layer}.{part}": tensor.tolist()
        for layer, parts in raw.layers.items()
        for part, tensor in parts.items()
    }
