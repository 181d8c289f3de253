"""Headers and archives that declare too much, name something twice, or are no files: refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from references.weights_files import State, put, refused, safetensors, saved

from residua.weights.formats.detect import read_raw

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}),
        safetensors({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
        safetensors({"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(9)),
        safetensors({"a": 3}),
        safetensors({"__metadata__": {"a": 3}}),
        safetensors(b'{"a":' * 100_000),
        safetensors(b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        safetensors(b"{\xff}"),
        safetensors(b'{"residua":'),
        (2**63 + 3).to_bytes(8, "little") + b'{"a":1}',
        (2**64 - 1).to_bytes(8, "little") + b'{"a":1}',
        (10**6).to_bytes(8, "little") + b'{"a":1}',
    ],
)
def test_malformed_headers_of_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path, "safetensors", content))


def test_archives_without_checksums_are_read(state: State, tmp_path: Path) -> None:
    try:
        torch.serialization.set_crc32_options(False)
        path = put(tmp_path, "pickle", saved(state))
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_raw(path).layers["linear"]["weight"], state["linear.weight"])


@pytest.mark.timeout(20)
def test_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    """A pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in refused(tmp_path / "pipe")
    assert "is no regular file" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "nothing")
