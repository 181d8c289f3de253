"""Residua's own weights files: metadata that its writer never wrote is refused; old ones open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from references.weights_files import NAME, NETWORK, PREPARED, SPEC, native, put, refused
from safetensors.torch import save
from torch import Tensor

from residua.networks.zoo.catalogue import build
from residua.weights.load import read_file
from residua.weights.native import Metadata, Origin, to_bytes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": ["resnet18"]}, "its network is"),
        ({"network": None}, "its network is None"),
        ({"network": {**SPEC, "seed": 1}}, "its network is"),
        ({"network": {**SPEC, "name": 3}}, "its network is"),
        ({"network": {**SPEC, "classes": True}}, "its network is"),
        ({"network": {**SPEC, "classes": "10"}}, "its network is"),
        ({"network": {**SPEC, "classes": -1}}, "its network is"),
        ({"network": {**SPEC, "channels": 0}}, "its network is"),
        (
            {"network": {**SPEC, "classes": 10**9}},
            "head.weight is float32 [10, 64], expected float32 [1000000000, 64]",
        ),
        ({"network": {**SPEC, "classes": 10**30}}, "its network is"),
        ({"network": {**SPEC, "name": "resnet17"}}, "unknown model 'resnet17'"),
        ({"network": {**SPEC, "name": "\x1b[2J"}}, "unknown model"),
        ({"network": {**SPEC, "ordering": "z"}}, "ordering 'z' is unknown"),
        ({"network": {**SPEC, "name": "cifar_resnet32"}}, "lacks stages.0.units.3"),
        ({"network": {**SPEC, "channels": 1}}, "prepares images of 3 channels"),
        ({"network": {**SPEC, "shortcut": "B"}}, "lacks stages.1.units.0.shortcut"),
        ({"classes": "abcdefghij"}, "expected a list of names"),
        ({"classes": [1, 2, 3]}, "expected a list of names"),
        ({"classes": None}, "expected a list of names"),
        ({"classes": list("abcdefghijk")}, "names 11 classes for 10 outputs"),
        ({"preprocessing": None}, "its preprocessing is None"),
        ({"preprocessing": [1]}, "its preprocessing is"),
        ({"preprocessing": {}}, "is incomplete"),
        ({"preprocessing": {**PREPARED.__dict__, "size": 10**9}}, "must be from 1 to 4096"),
        ({"preprocessing": {**PREPARED.__dict__, "size": "32"}}, "its preprocessing is"),
        ({"preprocessing": {**PREPARED.__dict__, "mean": [1.0]}}, "one number per channel (3)"),
        ({"preprocessing": {**PREPARED.__dict__, "mean": [[1], [2], [3]]}}, "a list like"),
        ({"preprocessing": {**PREPARED.__dict__, "std": [0, 1, 1]}}, "must be above 0"),
        ({"preprocessing": {**PREPARED.__dict__, "zoom": 1}}, "is not a setting"),
        ({"preprocessing": {**PREPARED.__dict__, "resize": "\x1b[2J"}}, "its preprocessing is"),
        (
            {"preprocessing": {**PREPARED.__dict__, "channels": 1, "mean": [1], "std": [1]}},
            "prepares images of 1 channels for a network of 3",
        ),
        ({"notes": [1]}, "its notes are [1]"),
        ({"format": 2}, "has format 2, expected 1"),
        ({"format": None}, "has format None, expected 1"),
    ],
)
def test_metadata_of_other_types_is_refused(
    change: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    state = build(NAME, seed=0).state_dict()
    assert message in refused(put(tmp_path, "ours", native(state, **change)))


@pytest.mark.parametrize(
    "metadata", ["", "{", "null", "[]", '"' + "a" * 10_000 + '"', "[" * 100_000, "1" * 5_000]
)
def test_metadata_that_is_no_json_is_refused(metadata: str, tmp_path: Path) -> None:
    path = put(tmp_path, "ours", save({"a": torch.ones(2)}, {"residua": metadata}))
    refused(path)


def test_a_tensor_named_residua_is_no_metadata(tmp_path: Path) -> None:
    path = put(tmp_path, "ours", save({"residua": torch.ones(2)}))
    refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.weight": None}, "lacks head.weight"),
        ({"stem.conv.weight": None}, "lacks stem.conv.weight"),
        ({"stem.norm.running_var": None}, "lacks stem.norm.running_var"),
        ({"extra": torch.ones(2)}, "contains extra, which"),
        ({"head.bias": torch.ones(11)}, "head.bias is float32 [11], expected float32 [10]"),
        ({"head.bias": torch.ones(10, dtype=torch.int8)}, "head.bias is int8 [10]"),
        ({"head.bias": torch.ones(10, dtype=torch.float8_e5m2)}, "float8_e5m2"),
        ({"stem.norm.num_batches_tracked": torch.ones(())}, "num_batches_tracked is float32"),
    ],
)
def test_tensors_that_do_not_fit_the_metadata_are_refused(
    change: Mapping[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state = {**build(NAME, seed=0).state_dict(), **change}
    kept = {name: each for name, each in state.items() if each is not None}
    assert message in refused(put(tmp_path, "ours", native(kept)))


def test_files_of_version_0_1_0_are_read(tmp_path: Path) -> None:
    """With the origin in the notes, and `side` for `pool_size`."""
    old = {**SPEC, "side": None}
    del old["pool_size"], old["head"], old["stage"], old["cardinality"]
    notes = {"from": "a.h5, a Keras 2 model", "assumed": "as torchvision", "guessed": "CIFAR-10"}
    path = put(tmp_path, "ours", native(build(NAME, seed=0).state_dict(), network=old, notes=notes))
    metadata = read_file(path).metadata
    assert metadata.network == NETWORK
    assert metadata.notes == {}
    assert metadata.origin == Origin("a.h5, a Keras 2 model", "as torchvision", "CIFAR-10")


def test_metadata_comes_back(tmp_path: Path) -> None:
    origin = Origin("a file", "assumed")
    metadata = Metadata(NETWORK, ("a", "b"), PREPARED, {"epoch": 3}, origin)
    path = put(tmp_path, "ours", to_bytes(build(NAME, seed=0).state_dict(), metadata))
    weights = read_file(path)
    assert weights.metadata == metadata
    assert weights.assumed_preprocessing == "assumed"
    assert weights.with_classes(tuple("abcdefghij")).metadata.origin == origin


@pytest.mark.parametrize("origin", [3, ["a"], {"source": 3}, {"source": None}, {"else": "a"}])
def test_an_origin_of_another_type_is_refused(origin: object, tmp_path: Path) -> None:
    state = build(NAME, seed=0).state_dict()
    assert "its origin" in refused(put(tmp_path, "ours", native(state, origin=origin)))
