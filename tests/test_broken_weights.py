"""Broken and wrong weights files end in a sentence that names them, and in nothing else."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from references import weights_files
from references.weights_files import (
    CPU,
    KERAS_NAME,
    NAME,
    NETWORK,
    PREPARED,
    SPEC,
    SUFFIXES,
    State,
    hdf5,
    judged,
    native,
    opened,
    put,
    refused,
    saved,
)
from safetensors.torch import save
from torch import Tensor

from residua.cli import main
from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import build
from residua.runs.sources import start_from
from residua.weights.formats.detect import read_raw
from residua.weights.formats.raw import RawWeights
from residua.weights.load import read_file
from residua.weights.network import build_network

state, whole, tiny, keras_file = (
    weights_files.state,
    weights_files.whole,
    weights_files.tiny,
    weights_files.keras_file,
)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_files_to_be_broken_are_right(whole: Mapping[str, bytes], tmp_path: Path) -> None:
    for kind, content in whole.items():
        name = KERAS_NAME if "Keras" in kind else NAME
        found = read_file(put(tmp_path, kind, content), name)
        build_network(found, CPU)


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("part", [1, 5, 700, 0.5, -1])
def test_cut_off(whole: Mapping[str, bytes], kind: str, part: float, tmp_path: Path) -> None:
    content = whole[kind]
    kept = round(part * len(content)) if part == 0.5 else int(part)
    refused(put(tmp_path, kind, content[:kept]))


@pytest.mark.parametrize(
    ("content", "said"),
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
def test_what_is_no_weights_file(content: bytes, said: str, tmp_path: Path) -> None:
    path = put(tmp_path, "any", content)
    assert re.search(said, refused(path))
    if said.startswith(("is", "git", "starts")):
        assert "expected a Keras file" in refused(path)


@pytest.mark.timeout(20)
def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in refused(tmp_path / "pipe")
    assert "is no regular file" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "nothing")


def test_zip_archives_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[2Jnotes.txt", "nothing")
    assert "zip archive without weights" in refused(path)


@pytest.mark.parametrize("kind", ["pickle", "Keras 3 model"])
def test_one_wrong_bit_in_an_archive_is_noticed(
    whole: Mapping[str, bytes], kind: str, tmp_path: Path
) -> None:
    """Its checksum tells, even where the library does not look at it."""
    content = bytearray(whole[kind])
    content[len(content) // 2] ^= 1
    assert "CRC" in refused(put(tmp_path, kind, bytes(content)))


def test_archives_without_checksums_are_read(state: State, tmp_path: Path) -> None:
    try:
        torch.serialization.set_crc32_options(False)
        path = put(tmp_path, "pickle", saved(state))
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_raw(path).layers["linear"]["weight"], state["linear.weight"])


# Wrong files --------------------------------------------------------------------------------------


def test_another_network(state: State, whole: Mapping[str, bytes], tmp_path: Path) -> None:
    from references import torch_networks

    deeper = put(tmp_path, "pickle", saved(torch_networks.state_dict("cifar_resnet32")))
    said = refused(deeper, NAME)
    assert f"does not fit {NAME}" in said
    assert "layer1.3.conv1 of the file has no counterpart in the network" in said
    said = refused(put(tmp_path, "pickle", saved(state)), "cifar_resnet32")
    assert "(layer1.3.conv1) is missing in the file" in said
    wider = {
        name: each.repeat_interleave(2, 0) if name.startswith("layer2.0.conv1") else each
        for name, each in state.items()
    }
    said = refused(put(tmp_path, "safetensors", save(wider)))
    assert f"the nearest is {NAME}" in said
    assert "weight is 64 x 16 x 3 x 3, expected 32 x 16 x 3 x 3" in said
    for kind, model in (("Keras 2", NAME), ("pickle", KERAS_NAME), ("pickle", "resnet18")):
        said = refused(put(tmp_path, kind, whole[kind]), model)
        assert f"whose names are not those of {model}" in said
    path = put(tmp_path, "ours", whole["ours"])
    assert f"has weights of {NAME}, not of resnet18" in refused(path, "resnet18")


def test_a_network_that_is_not_known_at_all(tmp_path: Path) -> None:
    path = put(tmp_path, "safetensors", save({"transformer.0.weight": torch.ones(3, 3)}))
    assert "the first are transformer.0" in refused(path)
    assert "without a tensor in it" in refused(put(tmp_path, "safetensors", save({})))
    path = put(tmp_path, "safetensors", save({"weight": torch.ones(3), "a": torch.ones(3)}))
    assert "whose names are not those of any network" in refused(path)


@pytest.mark.parametrize("kind", ["pickle", "ours"])
def test_other_classes_need_a_new_head(
    whole: Mapping[str, bytes], kind: str, tmp_path: Path
) -> None:
    found = read_file(put(tmp_path, kind, whole[kind]))
    with pytest.raises(ResiduaError, match=r"has 10 outputs, but 7 are needed. --new-head"):
        start_from(found, replace(NETWORK, classes=7), new_head=False, seed=0)
    network = start_from(found, replace(NETWORK, classes=7), new_head=True, seed=0)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    other = replace(NETWORK, name="cifar_resnet32")
    with pytest.raises(ResiduaError, match=f"has weights of {NAME}"):
        start_from(found, other, new_head=True, seed=0)


def test_a_missing_statistic(
    state: State, whole: Mapping[str, bytes], keras_file: Path, tmp_path: Path
) -> None:
    gone = {name: each for name, each in state.items() if name != "layer2.1.bn2.running_var"}
    said = refused(put(tmp_path, "pickle", saved(gone)))
    assert "(layer2.1.bn2): running_var is missing in the file" in said
    with h5py.File(keras_file, "a") as file:
        del file["layers/batch_normalization_2/vars/3"]
    assert "(batch_normalization_2) has tensors of" in refused(keras_file)
    with h5py.File(put(tmp_path, "Keras 2", whole["Keras 2"]), "a") as file:
        group = file["model_weights/batch_normalization_2"]
        group.attrs["weight_names"] = group.attrs["weight_names"][:3]
    assert "(batch_normalization_2) has tensors of" in refused(tmp_path / "file.h5")


def test_a_gap_in_a_layer_of_keras_3(keras_file: Path) -> None:
    """The second of four gone: the others must not move up."""
    with h5py.File(keras_file, "a") as file:
        del file["layers/batch_normalization_2/vars/1"]
    assert "/layers/batch_normalization_2/vars lacks tensor 1 of 3" in refused(keras_file)


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite(
    state: State, keras_file: Path, value: float, tmp_path: Path
) -> None:
    wrong = dict(state)
    wrong["layer3.0.conv1.weight"] = state["layer3.0.conv1.weight"].clone()
    wrong["layer3.0.conv1.weight"][3, 1, 2, 0] = value
    said = refused(put(tmp_path, "pickle", saved(wrong)))
    assert "(layer3.0.conv1): weight contains numbers that are not finite" in said
    ours = build(NAME, seed=0).state_dict()
    ours["head.bias"][2] = value
    assert "head.bias contains numbers that are not finite" in refused(
        put(tmp_path, "ours", native(ours))
    )
    with h5py.File(keras_file, "a") as file:
        file["layers/conv2d_3/vars/0"][0, 0, 0, 0] = value
    assert "(conv2d_3): weight contains numbers that are not finite" in refused(keras_file)


def test_numbers_that_are_too_large_for_use(state: State, tmp_path: Path) -> None:
    wide = {name: each.double() for name, each in state.items()}
    wide["conv1.weight"][0, 0, 0, 0] = 1e300
    assert "not finite" in refused(put(tmp_path, "pickle", saved(wide)))


def test_a_negative_variance(state: State, tmp_path: Path) -> None:
    """A flipped sign, of which the square root is NaN."""
    wrong = {**state, "bn1.running_var": -state["bn1.running_var"]}
    assert "negative variances" in refused(put(tmp_path, "safetensors", save(wrong)))
    ours = build(NAME, seed=0).state_dict()
    ours["stem.norm.running_var"] *= -1
    assert "stem.norm.running_var contains negative variances" in refused(
        put(tmp_path, "ours", native(ours))
    )


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_read_exactly(
    state: State, kind: torch.dtype, keras_file: Path, tmp_path: Path
) -> None:
    """As stored, and float32 in use."""
    given = {name: each.to(kind) for name, each in state.items()}
    for path in (
        put(tmp_path, "pickle", saved(given)),
        put(tmp_path, "safetensors", save(given)),
    ):
        found = read_file(path)
        assert found.tensors["head.weight"].dtype == kind
        network = build_network(found, CPU).state_dict()
        assert network["head.weight"].dtype == torch.float32
        assert torch.equal(network["head.weight"], given["linear.weight"].float())
    kernel = keras_kernel(keras_file, kind)
    assert torch.equal(read_file(keras_file, KERAS_NAME).tensors["head.weight"], kernel.T)


def keras_kernel(path: Path, kind: torch.dtype) -> Tensor:
    """The head of a Keras file, stored anew as a number of this kind, as Keras 3 stores it."""
    with h5py.File(path, "a") as file:
        group = file["layers/dense/vars"]
        kernel = torch.from_numpy(group["0"][()]).to(kind)
        del group["0"]
        if kind == torch.bfloat16:
            group["0"] = kernel.view(torch.int16).numpy().view("V2")
            group["0"].attrs["dtype"] = "bfloat16"
        else:
            group["0"] = kernel.numpy()
    return kernel


def test_the_other_order_of_bytes_is_read(keras_file: Path) -> None:
    before = read_file(keras_file, KERAS_NAME).tensors["head.weight"]
    with h5py.File(keras_file, "a") as file:
        group = file["layers/dense/vars"]
        kernel = group["0"][()]
        del group["0"]
        group["0"] = kernel.astype(">f4")
    assert torch.equal(read_file(keras_file, KERAS_NAME).tensors["head.weight"], before)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (torch.int8, "weight is int8, expected floating-point numbers"),
        (torch.int64, "weight is int64, expected floating-point numbers"),
        (torch.bool, "linear.weight is bool, torch.strided on cpu: expected one of float64"),
        (torch.complex64, "linear.weight is complex64, torch.strided on cpu"),
        (torch.float8_e4m3fn, "linear.weight is float8_e4m3fn, torch.strided on cpu"),
    ],
)
def test_numbers_of_other_kinds(state: State, kind: torch.dtype, said: str, tmp_path: Path) -> None:
    wrong = {**state, "linear.weight": state["linear.weight"].to(kind)}
    assert said in refused(put(tmp_path, "pickle", saved(wrong)))
    if kind not in (torch.complex64,):
        assert said in refused(put(tmp_path, "safetensors", save(wrong)))


@pytest.mark.parametrize(
    "kind", ["i1", "u8", "c8", "g", "S4", h5py.string_dtype(), h5py.ref_dtype, "bool", "V2"]
)
def test_numbers_of_other_kinds_in_hdf5(kind: Any, keras_file: Path) -> None:
    with h5py.File(keras_file, "a") as file:
        group = file["layers/dense/vars"]
        shape = group["0"].shape
        del group["0"]
        dataset = group.create_dataset("0", shape, dtype=kind)
        if np.dtype(kind).kind in "iucfb":
            dataset[...] = 1
    assert "expected" in refused(keras_file)


@pytest.mark.parametrize("value", [np.float32(3), h5py.Empty("f4")])
def test_single_numbers_and_none(value: Any, keras_file: Path) -> None:
    with h5py.File(keras_file, "a") as file:
        for place in list(file["layers/dense/vars"]):
            del file[f"layers/dense/vars/{place}"]
            file[f"layers/dense/vars/{place}"] = value
    refused(keras_file)


def test_tensors_that_are_no_arrays(state: State, tmp_path: Path) -> None:
    for wrong in (
        state["linear.weight"].to_sparse(),
        torch.empty(10, 64, device="meta"),
        torch.quantize_per_tensor(state["linear.weight"], 0.1, 0, torch.qint8),
        torch.nn.Parameter(torch.tensor(3.0)),
    ):
        refused(put(tmp_path, "pickle", saved({**state, "linear.weight": wrong})))


# Our own files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
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
        ({"network": {**SPEC, "classes": 10**30}}, "cannot be read as weights of"),
        ({"network": {**SPEC, "name": "resnet17"}}, "'resnet17' is no known model"),
        ({"network": {**SPEC, "name": "\x1b[2J"}}, "is no known model"),
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
        ({"preprocessing": {**PREPARED.__dict__, "mean": [1.0]}}, "each of 3 channels"),
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
def test_cards_of_other_kinds(change: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    state = build(NAME, seed=0).state_dict()
    assert said in refused(put(tmp_path, "ours", native(state, **change)))


@pytest.mark.parametrize(
    "metadata", ["", "{", "null", "[]", '"' + "a" * 10_000 + '"', "[" * 100_000, "1" * 5_000]
)
def test_cards_that_are_no_json(metadata: str, tmp_path: Path) -> None:
    path = put(tmp_path, "ours", save({"a": torch.ones(2)}, {"residua": metadata}))
    refused(path)


def test_a_file_with_our_name_in_it_but_no_card(tmp_path: Path) -> None:
    path = put(tmp_path, "ours", save({"residua": torch.ones(2)}))
    refused(path)


@pytest.mark.parametrize(
    ("change", "said"),
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
def test_tensors_that_do_not_fit_their_card(
    change: Mapping[str, Tensor | None], said: str, tmp_path: Path
) -> None:
    state = {**build(NAME, seed=0).state_dict(), **change}
    kept = {name: each for name, each in state.items() if each is not None}
    assert said in refused(put(tmp_path, "ours", native(kept)))


def test_our_file_without_a_head_is_told_so(tmp_path: Path) -> None:
    state = build(NAME, seed=0).state_dict()
    kept = {name: each for name, each in state.items() if not name.startswith("head")}
    found = read_file(put(tmp_path, "ours", native(kept)))
    assert not found.has_head
    with pytest.raises(ResiduaError, match="ends before its head"):
        build_network(found, CPU)
    build_network(found, CPU, require_head=False)


# Tensors of odd shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (0, 64), (10, 0), (10,), (10, 64, 1), (1,) * 40])
def test_heads_of_odd_shapes(shape: tuple[int, ...], state: State, tmp_path: Path) -> None:
    odd = torch.ones(shape)
    for names in (("linear.weight",), ("linear.weight", "linear.bias")):
        wrong = {**state, **{name: odd.clone() for name in names}}
        refused(put(tmp_path, "safetensors", save(wrong)), NAME)
    only = {name: each for name, each in state.items() if "linear" not in name}
    for part in ("weight", "bias", "num_batches_tracked", "other"):
        path = put(tmp_path, "safetensors", save({**only, f"linear.{part}": odd}))
        refused(path, NAME)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0, 0), (10, 64, 1), (3, 3, 3, 3)])
@pytest.mark.parametrize("layer", ["conv2d", "batch_normalization", "dense"])
def test_layers_of_odd_shapes_in_keras(
    layer: str, shape: tuple[int, ...], keras_file: Path
) -> None:
    with h5py.File(keras_file, "a") as file:
        for place in list(file[f"layers/{layer}/vars"]):
            del file[f"layers/{layer}/vars/{place}"]
            file[f"layers/{layer}/vars/{place}"] = np.ones(shape, np.float32)
    refused(keras_file, KERAS_NAME)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("tutorial_resnext50", [(), (3, 3, 4, 4), (1, 1, 2, 4), (1, 1, 64, 4)]),
        ("tutorial_vgg16_mnist", [(), (25088, 4096), (4,)]),
        ("keras_mobilenet", [(), (3, 3, 32, 1), (1, 1)]),
        ("keras_xception", [(), (3, 3, 32, 1)]),
    ],
)
def test_odd_shapes_under_the_names_of_larger_networks(
    name: str, shapes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    signs = ["conv2d", "dense", "batch_normalization", "block5_conv1", "conv_dw_1", "conv1"]
    signs += ["fc1", "prediction", "predictions", "conv_preds", "block2_sepconv1"]
    signs += [f"conv2d_{n}" for n in range(1, 600)]
    for first in shapes:

        def fill(file: h5py.File, first: tuple[int, ...] = first) -> None:
            for number, sign in enumerate(signs):
                shape = first if number % 7 else shapes[number % len(shapes)]
                legacy_layer(file, sign, np.zeros([min(side, 8) for side in shape], np.float32))
            file.attrs["layer_names"] = np.array([sign.encode() for sign in signs])

        refused(hdf5(tmp_path, fill), name)


def legacy_layer(file: h5py.File, name: str, array: Any) -> None:
    group = file.create_group(name)
    group.attrs["weight_names"] = np.array([b"a", b"b"])
    group["a"], group["b"] = array, array


@pytest.mark.parametrize("counter", [torch.ones(7), torch.tensor(2.5)])
def test_counters_of_odd_shapes(counter: Tensor, state: State, tmp_path: Path) -> None:
    """Nothing needs them, but a network that is loaded strictly would stumble over them."""
    wrong = {**state, "layer1.0.bn1.num_batches_tracked": counter}
    assert "num_batches_tracked" in refused(put(tmp_path, "safetensors", save(wrong)))
    wrong = {**state, "conv1.num_batches_tracked": torch.tensor(1)}
    assert "num_batches_tracked" in refused(put(tmp_path, "safetensors", save(wrong)))


# By chance ----------------------------------------------------------------------------------------


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", SUFFIXES)
@settings(
    derandomize=True,
    max_examples=200,
    deadline=5_000,  # milliseconds
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=damages())
@example(changes=[])
def test_damage_by_chance(
    kind: str,
    changes: list[tuple[str, float, bytes]],
    tiny: Mapping[str, bytes],
    tmp_path: Path,
) -> None:
    """A sentence, or layers; and the same numbers where the form of the file has checksums."""
    path = put(tmp_path, kind, damaged(tiny[kind], changes))
    try:
        found = read_raw(path)
    except ResiduaError as error:
        judged(path, str(error))
        assert changes
        return
    if kind in ("pickle", "Keras 3 model"):
        true = read_raw(put(tmp_path / "..", kind, tiny[kind]))
        assert tensors_of(found) == tensors_of(true)


def tensors_of(stored: RawWeights) -> dict[str, Any]:
    return {
        f"{layer}.{part}": each.tolist()
        for layer, parts in stored.layers.items()
        for part, each in parts.items()
    }


# On the command line ------------------------------------------------------------------------------


@pytest.mark.timeout(30)
@pytest.mark.parametrize("command", ["inspect", "predict"])
def test_the_command_line_says_the_sentence(
    command: str,
    whole: Mapping[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = {
        "empty.pth": b"",
        "page.h5": b"<html>",
        **{f"cut{suffix}": whole[kind][:-9] for kind, suffix in SUFFIXES.items()},
        "code.pth": pickle.dumps(opened(tmp_path), 2),
        "names.safetensors": save({"a\x1b[2Jb": torch.ones(2)}),
        "card.safetensors": native({"a": torch.ones(2)}, network="\x1b[2J"),
        "misfit.safetensors": native({"a": torch.ones(2)}),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in [*files, "pipe"]:
        words = {
            "inspect": ["weights", "inspect", str(tmp_path / name)],
            "predict": ["predict", str(tmp_path / name), "image.png"],
        }[command]
        monkeypatch.setattr(sys, "argv", ["residua", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        assert stopped.value.code == 1, name
        assert said.out == "", name
        assert said.err.startswith(f"error: {tmp_path / name}: "), name
        assert said.err.count("\n") == 1, said.err
        assert said.err.strip().isprintable(), said.err
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_no_image_has(channels: int, state: State, tmp_path: Path) -> None:
    wider = {**state, "conv1.weight": torch.randn(16, channels, 3, 3)}
    found = read_file(put(tmp_path, "safetensors", save(wider)))
    with pytest.raises(ResiduaError, match=f"reads {channels} channels"):
        build_network(found, CPU)


def test_nothing_that_moves_the_cursor_reaches_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the name of a file, or from the names of classes in it."""
    path = tmp_path / "a\x1b[2Jb.safetensors"
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    state = build(NAME, seed=0).state_dict()
    for content, words in (
        (b"", ["weights", "inspect", str(path)]),
        (b"", ["predict", str(path), "image.png"]),
        (native(state, classes=["\x1b[31mred"] * 10), ["weights", "inspect", str(path)]),
        (
            native(state, classes=["\x1b[31mred"] * 10),
            ["predict", str(path), str(tmp_path / "image.png")],
        ),
    ):
        path.write_bytes(content)
        monkeypatch.setattr(sys, "argv", ["residua", *words])
        with contextlib.suppress(SystemExit):
            main()
        said = capsys.readouterr()
        assert (said.out + said.err).replace("\n", "").isprintable(), words
        assert "\\x1b[" in said.out + said.err
