"""The names in Keras' files: paths, gaps, other types and duplicates are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from references.weights_files import hdf5, legacy, refused


def test_names_that_are_not_unicode_are_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["layer_names"] = np.array([b"\xff\xfe"])

    refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize(
    "name", ["../conv2d_1/k", "..", ".", "/conv2d_1/k", "//k", "k/", "", "k/k", "./k"]
)
def test_paths_in_names_are_refused(name: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}, "conv2d_2": {"k": np.ones(2)}})
        file["conv2d_2"].attrs["weight_names"] = np.array([name.encode()])

    assert "which does not exist" in refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (("layer_names0", "layer_names2"), "its layer_names: layer_names0, layer_names2"),
        (("layer_names", "layer_names1"), "its layer_names: layer_names, layer_names1"),
    ],
)
def test_an_incomplete_list_of_names_is_refused(
    pieces: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}, "conv2d_2": {"k": np.ones(2)}})
        del file.attrs["layer_names"]
        for piece, name in zip(pieces, (b"conv2d_1", b"conv2d_2"), strict=True):
            file.attrs[piece] = np.array([name])

    assert message in refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize("names", [3, 2.5, "conv2d_1", np.ones(3), h5py.Empty("S1")])
def test_a_list_of_names_of_another_type_is_refused(names: Any, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}})
        file.attrs["layer_names"] = names

    refused(hdf5(tmp_path, fill))


def test_a_missing_tensor_of_a_layer_is_named(keras_file: Path) -> None:
    """The second of four gone: the others must not move up."""
    with h5py.File(keras_file, "a") as file:
        del file["layers/batch_normalization_2/vars/1"]
    assert "/layers/batch_normalization_2/vars lacks tensor 1 of 3" in refused(keras_file)
