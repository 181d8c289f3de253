"""HDF5 files: links, foreign storage, cycles and other types are refused; real numbers are read."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from references.weights_files import KERAS_NAME, hdf5, legacy, refused

from residua.weights.formats.hdf5 import Reader
from residua.weights.load import read_file

pytestmark = pytest.mark.usefixtures("one_thread")


def kernel_elsewhere(folder: Path) -> Path:
    """A file of numbers that nobody named on the command line."""
    return hdf5(folder, lambda file: file.create_dataset("k", data=np.ones((2, 2))), "secret.h5")


@pytest.mark.parametrize("place", ["group", "tensor", "Keras 3", "dangling"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_not_followed(kind: str, place: str, tmp_path: Path) -> None:
    secret = kernel_elsewhere(tmp_path)
    if place == "dangling":
        secret.unlink()

    def fill(file: h5py.File) -> None:
        link: Any = h5py.SoftLink("/target/k")
        if kind == "external":
            link = h5py.ExternalLink(str(secret), "/k")
        file["target/k"] = np.ones((2, 2))
        if place == "Keras 3":
            file["layers/dense/vars/1"] = np.ones(2)
            file["layers/dense/vars/0"] = link
            return
        legacy(file, {"dense_1": {"k": None}})
        if place == "group":
            del file["dense_1"]
        file["dense_1" if place == "group" else "dense_1/k"] = link

    message = refused(hdf5(tmp_path, fill))
    assert "is a link to another place or file" in message
    assert "it is not followed" in message


def test_numbers_in_another_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(64))
    secret = kernel_elsewhere(tmp_path)

    def outside(file: h5py.File) -> None:
        legacy(file, {"dense_1": {"k": None}})
        raw = [(str(tmp_path / "secret.raw"), 0, 32)]
        file["dense_1"].create_dataset("k", (2, 4), "f4", external=raw)

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((2, 2), "f8")
        layout[...] = h5py.VirtualSource(str(secret), "k", (2, 2))
        legacy(file, {"dense_1": {"k": None}})
        file["dense_1"].create_virtual_dataset("k", layout)

    for fill in (outside, virtual):
        assert "stores its numbers in another file" in refused(hdf5(tmp_path, fill))


@pytest.mark.timeout(20)
def test_cyclic_groups_are_refused(tmp_path: Path) -> None:
    """As a circle, and as a maze: forty groups, each of them twice in the one before."""

    def circle(file: h5py.File) -> None:
        file["layers/dense/vars/0"] = np.ones(2)
        file["layers/dense/again"] = file["layers"]

    def maze(file: h5py.File) -> None:
        group = file.create_group("layers")
        for _ in range(40):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group["vars/0"] = np.ones(2)

    for fill in (circle, maze):
        assert "is not followed" in refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize("value", [3, np.ones(3), np.array([b"a", b"b"])])
@pytest.mark.parametrize("name", ["model_config", "keras_version"])
def test_attributes_of_other_types_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"my_layer": {"k": np.ones(2)}})
        file.attrs[name] = value

    refused(hdf5(tmp_path, fill))


def test_big_endian_numbers_are_read(keras_file: Path) -> None:
    before = read_file(keras_file, KERAS_NAME).tensors["head.weight"]
    with h5py.File(keras_file, "a") as file:
        group = file["layers/dense/vars"]
        kernel = group["0"][()]
        del group["0"]
        group["0"] = kernel.astype(">f4")
    assert torch.equal(read_file(keras_file, KERAS_NAME).tensors["head.weight"], before)


@pytest.mark.parametrize(
    "kind", ["i1", "u8", "c8", "g", "S4", h5py.string_dtype(), h5py.ref_dtype, "bool", "V2"]
)
def test_other_dtypes_are_refused(kind: Any, keras_file: Path) -> None:
    with h5py.File(keras_file, "a") as file:
        group = file["layers/dense/vars"]
        shape = group["0"].shape
        del group["0"]
        dataset = group.create_dataset("0", shape, dtype=kind)
        if np.dtype(kind).kind in "iucfb":
            dataset[...] = 1
    assert "expected" in refused(keras_file, KERAS_NAME)


@pytest.mark.parametrize("value", [np.float32(3), h5py.Empty("f4")])
def test_scalars_and_empty_datasets_are_refused(value: Any, keras_file: Path) -> None:
    with h5py.File(keras_file, "a") as file:
        for place in list(file["layers/dense/vars"]):
            del file[f"layers/dense/vars/{place}"]
            file[f"layers/dense/vars/{place}"] = value
    refused(keras_file, KERAS_NAME)


def test_partly_stored_numbers_are_not_filled_with_zeros(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"dense_1": {"k": None}})
        dataset = file["dense_1"].create_dataset("k", (100,), "f4", chunks=(10,))
        dataset[:90] = 1

    assert "declares 100 numbers" in refused(hdf5(tmp_path, fill))


def test_compressed_chunks_are_read(keras_file: Path) -> None:
    before = read_file(keras_file, KERAS_NAME).tensors["head.weight"]
    with h5py.File(keras_file, "a") as file:
        group = file["layers/dense/vars"]
        kernel = group["0"][()]
        del group["0"]
        group.create_dataset("0", data=kernel, chunks=(7, 3), compression="gzip")
    assert torch.equal(read_file(keras_file, KERAS_NAME).tensors["head.weight"], before)


def test_heaps_that_hide_in_each_other_are_refused_at_once(tmp_path: Path) -> None:
    count, path = 8192, tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_group("layer")
    end = 32 * count
    blocks = [  # an object of 16 bytes, which are the start of a heap up to the end
        struct.pack("<HHIQ", 1, 1, 0, 16) + b"GCOL\1\0\0\0" + struct.pack("<Q", end - 32 * n - 16)
        for n in range(count)
    ]
    began, content = time.monotonic(), path.read_bytes() + b"".join(blocks) + bytes(32)
    with pytest.raises(ValueError, match="its heaps overlap"):
        Reader(path, content)
    assert time.monotonic() - began < 2
