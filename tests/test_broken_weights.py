"""Broken, wrong and hostile weights files end in a sentence that names them, and in nothing else.

`refused` is the contract: one ResiduaError on one line, in bounded time. What would exhaust memory
or crash is read by a process of its own, which this file becomes when it is run as a script.
"""

from __future__ import annotations

import _codecs
import argparse
import io
import json
import os
import pickle
import pickletools
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from residua.cli import main
from residua.config import Preprocessing
from residua.errors import ResiduaError
from residua.inference import network_from
from residua.loading import start_from
from residua.networks.catalogue import build
from residua.weights.native import FORMAT
from residua.weights.reading import read_file
from residua.weights.stored import Stored, read_stored

CPU = torch.device("cpu")
NAME, KERAS_NAME = "cifar_resnet20", "tutorial_cifar_resnet32_e"
NETWORK = {"name": NAME, "classes": 10, "channels": 3, "ordering": None, "shortcut": None}
PREPARED = Preprocessing(
    size=32,
    channels=3,
    resize="crop",
    crop=1.0,
    channel_order="rgb",
    mean=(125.0, 123.0, 114.0),
    std=(63.0, 62.0, 67.0),
)
SUFFIXES = {
    "pickle": ".pth",
    "old pickle": ".th",
    "safetensors": ".safetensors",
    "ours": ".safetensors",
    "Keras 2": ".h5",
    "Keras 3 weights": ".weights.h5",
    "Keras 3 model": ".keras",
}
State = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on two threads that others need too take far longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def refused(path: Path, model: str | None = None) -> str:
    """What reading says of a file that it must refuse: one line that names the file."""
    with pytest.raises(ResiduaError) as caught:
        read_file(path, model)
    return judged(path, str(caught.value))


def judged(path: Path, said: str) -> str:
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    assert said.endswith((".", "--new-head"))
    assert len(said) < 900
    assert "weights_only" not in said  # the libraries' advice is to let code run
    return said.removeprefix(f"{path}: ")


# Files that are right, to be broken ---------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> State:
    """A state dict of pytorch_resnet_cifar10, without its wrapper's prefix."""
    from references import torch_networks

    found = torch_networks.state_dict(NAME)
    return {name.removeprefix("module."): each for name, each in found.items()}


@pytest.fixture(scope="module")
def whole(state: State, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A file of each container, with the weights of a small network."""
    from references import keras_files, keras_networks

    folder = tmp_path_factory.mktemp("whole")
    model = keras_networks.build(KERAS_NAME)
    keras_networks.randomise(model, 0)
    return contents(state, model, folder, keras_files.write)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A file of each container, mostly structure: four layers of no network."""
    from references import keras_files
    from references.keras_networks import keras, layers

    folder = tmp_path_factory.mktemp("tiny")
    generator = torch.Generator().manual_seed(0)
    state = {
        "conv1.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn1.weight": torch.ones(4),
        "bn1.running_var": torch.ones(4),
        "fc.weight": torch.randn(2, 4, generator=generator),
    }
    keras.utils.clear_session()
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    return contents(state, keras.Model(inputs, outputs), folder, keras_files.write)


def contents(
    state: State, model: Any, folder: Path, write: Callable[..., Path]
) -> Mapping[str, bytes]:
    old = io.BytesIO()
    torch.save({"state_dict": state}, old, _use_new_zipfile_serialization=False)
    ours = build(NAME, seed=0).state_dict() if len(state) > 4 else state
    forms = {"Keras 2": "keras2_whole", "Keras 3 weights": "keras3_weights"}
    forms["Keras 3 model"] = "keras3_whole"
    return {
        "pickle": saved({"state_dict": state}),
        "old pickle": old.getvalue(),
        "safetensors": save(state),
        "ours": native(ours),
        **{kind: write(model, folder / form, form).read_bytes() for kind, form in forms.items()},
    }


def saved(content: object, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, pickle_protocol=protocol)
    return stream.getvalue()


def native(state: State, **changes: object) -> bytes:
    """A file of ours whose card says other things; None leaves them out."""
    plain = json.loads(json.dumps(PREPARED.__dict__))
    card = {
        "format": FORMAT,
        "network": NETWORK,
        "classes": list("abcdefghij"),
        "preprocessing": plain,
        "notes": {},
        **changes,
    }
    kept = {key: value for key, value in card.items() if value is not None}
    return save(state, {"residua": json.dumps(kept)})


def put(folder: Path, kind: str, content: bytes) -> Path:
    path = folder / f"file{SUFFIXES.get(kind, '')}"
    path.write_bytes(content)
    return path


def hdf5(folder: Path, fill: Callable[[h5py.File], None], name: str = "file.h5") -> Path:
    with h5py.File(folder / name, "w") as file:
        fill(file)
    return folder / name


def legacy(file: h5py.File, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Layers as Keras 2 writes them: name -> tensor's name -> array."""
    file.attrs["layer_names"] = np.array([name.encode() for name in layers])
    for name, tensors in layers.items():
        group = file.require_group(name)
        group.attrs["weight_names"] = np.array([each.encode() for each in tensors])
        for each, array in tensors.items():
            if array is not None:
                group[each] = array


@pytest.fixture
def keras_file(whole: Mapping[str, bytes], tmp_path: Path) -> Path:
    """A .weights.h5 of Keras 3 that can be read."""
    return put(tmp_path, "Keras 3 weights", whole["Keras 3 weights"])


def test_the_files_to_be_broken_are_right(whole: Mapping[str, bytes], tmp_path: Path) -> None:
    for kind, content in whole.items():
        name = KERAS_NAME if "Keras" in kind else NAME
        found = read_file(put(tmp_path, kind, content), name)
        network_from(found, CPU)


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
    assert torch.equal(read_stored(path).layers["linear"]["weight"], state["linear.weight"])


# Wrong files --------------------------------------------------------------------------------------


def test_another_network(state: State, whole: Mapping[str, bytes], tmp_path: Path) -> None:
    from references import torch_networks

    deeper = put(tmp_path, "pickle", saved(torch_networks.state_dict("cifar_resnet32")))
    said = refused(deeper, NAME)
    assert f"does not fit {NAME}" in said
    assert "layer1.3.conv1 of the file has no place in the network" in said
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
        assert f"not called as those of {model} are called" in said
    path = put(tmp_path, "ours", whole["ours"])
    assert f"holds weights of {NAME}, not of resnet18" in refused(path, "resnet18")


def test_a_network_that_is_not_known_at_all(tmp_path: Path) -> None:
    path = put(tmp_path, "safetensors", save({"transformer.0.weight": torch.ones(3, 3)}))
    assert "the first are transformer.0" in refused(path)
    assert "without a tensor in it" in refused(put(tmp_path, "safetensors", save({})))
    path = put(tmp_path, "safetensors", save({"weight": torch.ones(3), "a": torch.ones(3)}))
    assert "not called as in a network that is known" in refused(path)


@pytest.mark.parametrize("kind", ["pickle", "ours"])
def test_other_classes_need_a_new_head(
    whole: Mapping[str, bytes], kind: str, tmp_path: Path
) -> None:
    found = read_file(put(tmp_path, kind, whole[kind]))
    with pytest.raises(ResiduaError, match=r"has 10 outputs, but 7 are needed. --new-head"):
        start_from(found, {**NETWORK, "classes": 7}, new_head=False, seed=0)
    network = start_from(found, {**NETWORK, "classes": 7}, new_head=True, seed=0)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    other = {**NETWORK, "name": "cifar_resnet32"}
    with pytest.raises(ResiduaError, match=f"holds weights of {NAME}"):
        start_from(found, other, new_head=True, seed=0)


def test_a_missing_statistic(
    state: State, whole: Mapping[str, bytes], keras_file: Path, tmp_path: Path
) -> None:
    gone = {name: each for name, each in state.items() if name != "layer2.1.bn2.running_var"}
    said = refused(put(tmp_path, "pickle", saved(gone)))
    assert "(layer2.1.bn2): running_var is missing in the file" in said
    with h5py.File(keras_file, "a") as file:
        del file["layers/batch_normalization_2/vars/3"]
    assert "(batch_normalization_2) holds tensors of" in refused(keras_file)
    with h5py.File(put(tmp_path, "Keras 2", whole["Keras 2"]), "a") as file:
        group = file["model_weights/batch_normalization_2"]
        group.attrs["weight_names"] = group.attrs["weight_names"][:3]
    assert "(batch_normalization_2) holds tensors of" in refused(tmp_path / "file.h5")


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
    assert "(layer3.0.conv1): weight holds numbers that are not finite" in said
    ours = build(NAME, seed=0).state_dict()
    ours["head.bias"][2] = value
    assert "head.bias holds numbers that are not finite" in refused(
        put(tmp_path, "ours", native(ours))
    )
    with h5py.File(keras_file, "a") as file:
        file["layers/conv2d_3/vars/0"][0, 0, 0, 0] = value
    assert "(conv2d_3): weight holds numbers that are not finite" in refused(keras_file)


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
    assert "stem.norm.running_var holds negative variances" in refused(
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
        network = network_from(found, CPU).state_dict()
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
        (torch.int8, "weight holds int8, expected floating-point numbers"),
        (torch.int64, "weight holds int64, expected floating-point numbers"),
        (torch.bool, "linear.weight holds bool, torch.strided on cpu: expected one of float64"),
        (torch.complex64, "linear.weight holds complex64, torch.strided on cpu"),
        (torch.float8_e4m3fn, "linear.weight holds float8_e4m3fn, torch.strided on cpu"),
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


# Names --------------------------------------------------------------------------------------------


def test_a_name_that_comes_twice(state: State, whole: Mapping[str, bytes], tmp_path: Path) -> None:
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
    for kind, name in (("Keras 3 model", "model.weights.h5"), ("pickle", "archive/data.pkl")):
        path = put(tmp_path, kind, whole[kind])
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(name, "another one")
        assert f"holds {name} twice" in refused(path)


NAMES = [
    "conv\x1b[31m",  # colours a terminal
    "conv\n2",
    "conv\u202e2",  # turns the writing direction
    "conv\ud8002",
    "c" * 10_000,
    "conv2d_" + "9" * 5_000,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_cannot_be_printed(name: str, state: State, tmp_path: Path) -> None:
    """They never reach the terminal, and numbers in them are never too long."""
    path = tmp_path / "file.pth"
    path.write_bytes(saved({**state, f"{name}.weight": torch.ones(2)}))
    assert "printable characters" in refused(path)
    if "\ud800" not in name:
        path.write_bytes(save({**state, f"{name}.weight": torch.ones(2)}))
        assert "printable characters" in refused(path)
        stored = hdf5(tmp_path, lambda file: legacy(file, {name: {"k": np.ones(2)}}))
        assert "printable characters" in refused(stored)


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["layer_names"] = np.array([b"\xff\xfe"])

    refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize(
    "name", ["../conv2d_1/k", "..", ".", "/conv2d_1/k", "//k", "k/", "", "k/k", "./k"]
)
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}, "conv2d_2": {"k": np.ones(2)}})
        file["conv2d_2"].attrs["weight_names"] = np.array([name.encode()])

    assert "holds no such thing" in refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (("layer_names0", "layer_names2"), "it has layer_names0, layer_names2"),
        (("layer_names", "layer_names1"), "it has layer_names, layer_names1"),
    ],
)
def test_a_list_of_names_with_a_piece_missing(
    pieces: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}, "conv2d_2": {"k": np.ones(2)}})
        del file.attrs["layer_names"]
        for piece, name in zip(pieces, (b"conv2d_1", b"conv2d_2"), strict=True):
            file.attrs[piece] = np.array([name])

    assert said in refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize("names", [3, 2.5, "conv2d_1", np.ones(3), h5py.Empty("S1")])
def test_a_list_of_names_that_is_none(names: Any, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"conv2d_1": {"k": np.ones(2)}})
        file.attrs["layer_names"] = names

    refused(hdf5(tmp_path, fill))


def test_keys_that_are_no_names(state: State, tmp_path: Path) -> None:
    for key in (1, ("conv1", "weight"), None):
        path = put(tmp_path, "pickle", saved({**state, key: torch.ones(2)}))
        assert "expected text" in refused(path)


# Links and other files ----------------------------------------------------------------------------


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

    said = refused(hdf5(tmp_path, fill))
    assert "is a link to another place or file" in said
    assert "it is not followed" in said


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
        assert "keeps its numbers in another file" in refused(hdf5(tmp_path, fill))


@pytest.mark.timeout(20)
def test_groups_that_contain_themselves(tmp_path: Path) -> None:
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


# Code ---------------------------------------------------------------------------------------------


class Calling:
    """Its pickle calls a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.called


class Unknown:
    """A class of somebody's program."""


def opened(folder: Path) -> Calling:
    return Calling(open, str(folder / "it-ran"), "w")


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("form", ["bare", "archive", "old", "nested"])
def test_code_in_a_pickle_does_not_run(
    form: str, protocol: int, state: State, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = tmp_path / "file.pth"
    content: object = {"state_dict": state, "config": opened(folder)}
    if form == "nested":
        content = {"state_dict": {**state, "conv1.weight": opened(folder)}}
    if form == "bare":
        path.write_bytes(pickle.dumps(opened(folder), protocol))
    else:
        torch.save(
            content,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=form != "old",
        )
    said = refused(path)
    assert not list(folder.iterdir())
    if protocol == 0 and form in ("bare", "old"):
        assert "starts with" in said
    elif protocol > 3 and form == "old":
        assert f"is pickled in protocol {protocol}" in said
    else:
        assert re.search(r"would run (io|_io|builtins|__builtin__)\.open, and code in a file", said)
    with path.open("rb") as stream:
        if form == "bare":  # and it would have
            pickle.load(stream)
            assert list(folder.iterdir())


def test_other_classes_in_a_pickle(state: State, tmp_path: Path) -> None:
    path = put(tmp_path, "pickle", saved({"state_dict": state, "extra": Unknown()}))
    assert "would run test_broken_weights.Unknown, and" in refused(path)
    path = put(tmp_path, "pickle", saved(torch.nn.Linear(2, 2)))
    assert "would run torch.nn.modules.linear.Linear" in refused(path)
    score = np.float64(0.5)
    path = put(tmp_path, "pickle", saved({"state_dict": state, "best": score}))
    assert re.search(r"would run numpy\.\w+\.multiarray\.scalar", refused(path))


def test_what_training_scripts_keep_beside_the_weights_is_read(
    state: State, tmp_path: Path
) -> None:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    content = {
        "state_dict": OrderedDict(state),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "args": argparse.Namespace(lr=0.1, shape=torch.Size([3, 4]), sizes={1, 2}),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "epoch": 3,
    }
    for protocol in (2, 3):
        found = read_file(put(tmp_path, "pickle", saved(content, protocol)), NAME)
        assert torch.equal(found.tensors["head.bias"], state["linear.bias"])


@pytest.mark.parametrize("protocol", [4, 5])
def test_pickles_of_later_protocols(protocol: int, state: State, tmp_path: Path) -> None:
    said = refused(put(tmp_path, "pickle", saved(state, protocol)))
    assert f"is pickled in protocol {protocol}, expected 2" in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(tmp_path: Path) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    torch.jit.script(Doubled()).save(tmp_path / "file.pth")
    assert "is a TorchScript program, and code in a file is never run" in refused(
        tmp_path / "file.pth"
    )


def test_pickles_without_a_state_dict(tmp_path: Path) -> None:
    for content, said in (
        ([torch.ones(2)], "found a list"),
        (torch.ones(2), "found a Tensor"),
        ({}, "found a NoneType"),
        ({"epoch": 3, "\x1b[2J": 2}, r"found epoch, \x1b[2J"),
        ({"state_dict": {}}, "found a NoneType"),
        ({"model": {"net": {"weights": {"epoch": 1}}}}, "found epoch"),
    ):
        assert said in refused(put(tmp_path, "pickle", saved(content))), content


def test_an_ordered_dictionary_that_lies_about_itself(state: State, tmp_path: Path) -> None:
    """Attributes of the pickle's choice stand in for its methods."""
    lying = OrderedDict({"epoch": 3})
    lying.__dict__ |= {"values": OrderedDict, "items": OrderedDict, "get": OrderedDict}
    assert "holds no state dict" in refused(put(tmp_path, "pickle", saved(lying)))


def test_a_lambda_layer(tmp_path: Path) -> None:
    """Whatever else the model holds; and its code does not run."""
    from references.keras_networks import keras, layers

    inputs = keras.Input((8, 8, 3))
    x = layers.Lambda(lambda x: 2 * x, name="\x1b[31mtwice")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    for name in ("file.keras", "file.h5"):
        model.save(tmp_path / name)
        said = refused(tmp_path / name)
        assert r"holds the Lambda layer \x1b[31mtwice" in said
        assert "code in a file is never run" in said


# Headers ------------------------------------------------------------------------------------------


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


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
def test_headers_of_safetensors(content: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path, "safetensors", content))


@pytest.mark.parametrize("config", ["{", "[" * 100_000, "3", "null", '{"class_name": ["Lambda"]}'])
def test_configurations_of_keras(config: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["model_config"] = config
        legacy(file.create_group("model_weights"), {"my_layer": {"k": np.ones(2)}})

    refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize("value", [3, np.ones(3), np.array([b"a", b"b"])])
@pytest.mark.parametrize("name", ["model_config", "keras_version"])
def test_attributes_of_other_kinds(name: str, value: Any, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"my_layer": {"k": np.ones(2)}})
        file.attrs[name] = value

    refused(hdf5(tmp_path, fill))


# Our own files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": ["resnet18"]}, "says of its network"),
        ({"network": None}, "says of its network None"),
        ({"network": {**NETWORK, "seed": 1}}, "says of its network"),
        ({"network": {**NETWORK, "name": 3}}, "says of its network"),
        ({"network": {**NETWORK, "classes": True}}, "says of its network"),
        ({"network": {**NETWORK, "classes": "10"}}, "says of its network"),
        ({"network": {**NETWORK, "classes": -1}}, "says of its network"),
        ({"network": {**NETWORK, "channels": 0}}, "says of its network"),
        (
            {"network": {**NETWORK, "classes": 10**9}},
            "head.weight holds float32 [10, 64], expected float32 [1000000000, 64]",
        ),
        ({"network": {**NETWORK, "classes": 10**30}}, "cannot be read as weights of"),
        ({"network": {**NETWORK, "name": "resnet17"}}, "'resnet17' is no known model"),
        ({"network": {**NETWORK, "name": "\x1b[2J"}}, "is no known model"),
        ({"network": {**NETWORK, "ordering": "z"}}, "ordering 'z' is unknown"),
        ({"network": {**NETWORK, "name": "cifar_resnet32"}}, "lacks stages.0.units.3"),
        ({"network": {**NETWORK, "name": "cifar_resnet20", "channels": 1}}, "stem.conv.weight"),
        ({"network": {**NETWORK, "shortcut": "B"}}, "lacks stages.1.units.0.shortcut"),
        ({"classes": "abcdefghij"}, "expected a list of names"),
        ({"classes": [1, 2, 3]}, "expected a list of names"),
        ({"classes": None}, "expected a list of names"),
        ({"classes": list("abcdefghijk")}, "names 11 classes, expected those of 10 outputs"),
        ({"preprocessing": None}, "says of its preprocessing None"),
        ({"preprocessing": [1]}, "says of its preprocessing"),
        ({"preprocessing": {}}, "is incomplete"),
        ({"preprocessing": {**PREPARED.__dict__, "size": 10**9}}, "must be from 1 to 4096"),
        ({"preprocessing": {**PREPARED.__dict__, "size": "32"}}, "says of its preprocessing"),
        ({"preprocessing": {**PREPARED.__dict__, "mean": [1.0]}}, "each of 3 channels"),
        ({"preprocessing": {**PREPARED.__dict__, "mean": [[1], [2], [3]]}}, "a list like"),
        ({"preprocessing": {**PREPARED.__dict__, "std": [0, 1, 1]}}, "must be above 0"),
        ({"preprocessing": {**PREPARED.__dict__, "zoom": 1}}, "is no setting"),
        ({"preprocessing": {**PREPARED.__dict__, "resize": "\x1b[2J"}}, "says of its preprocess"),
        ({"notes": [1]}, "has notes [1]"),
        ({"format": 2}, "has format 2, expected 1"),
        ({"format": None}, "has format None, expected 1"),
    ],
)
def test_cards_of_other_kinds(change: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    state = build(NAME, seed=0).state_dict()
    assert said in refused(put(tmp_path, "ours", native(state, **change)))


@pytest.mark.parametrize(
    "card", ["", "{", "null", "[]", '"' + "a" * 10_000 + '"', "[" * 100_000, "1" * 5_000]
)
def test_cards_that_are_no_json(card: str, tmp_path: Path) -> None:
    path = put(tmp_path, "ours", save({"a": torch.ones(2)}, {"residua": card}))
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
        ({"extra": torch.ones(2)}, "holds extra, for which"),
        ({"head.bias": torch.ones(11)}, "head.bias holds float32 [11], expected float32 [10]"),
        ({"head.bias": torch.ones(10, dtype=torch.int8)}, "head.bias holds int8 [10]"),
        ({"head.bias": torch.ones(10, dtype=torch.float8_e5m2)}, "float8_e5m2"),
        ({"stem.norm.num_batches_tracked": torch.ones(())}, "num_batches_tracked holds float32"),
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
    assert found.headless
    with pytest.raises(ResiduaError, match="ends before its head"):
        network_from(found, CPU)
    network_from(found, CPU, headless=True)


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


# What would take all memory, all time, or the process ---------------------------------------------


def bombs(whole: Mapping[str, bytes]) -> dict[str, tuple[str, Callable[[Path], object], str]]:
    """By name: how the file ends, what writes it, and what is said of it."""
    declares = "bytes, which are not in the file"
    exhaust = "its pickle would exhaust memory or time"
    return {
        "a dataset never stored": (".h5", never_stored, declares),
        "a dataset of zeros": (".h5", packed_tightly, declares),
        "ten numbers in a large chunk": (".h5", large_chunk, declares),
        "a zipped .keras": (".keras", zipped("model.weights.h5"), "would grow from 1,1"),
        "a .keras that lies": (".keras", lying, "cannot be read as a .keras archive"),
        "a zipped checkpoint": (
            ".pth",
            zipped("archive/data/0", b"archive/data.pkl"),
            "would grow from 1,1",
        ),
        "one number seen as 10^12": (".pth", seen_as_more, declares),
        "more than the old form holds": (".th", old_form(2**27), "declares more numbers than"),
        "numbers that are never filled in": (".th", never_filled, "not finite"),
        "a stretched storage": (".th", stretched, "larger than their numbers"),
        "bytes by the gigabyte": (".pth", calling(bytearray, 10**10), r"bytearray, and code"),
        "bytes that double": (".pth", doubling, "would run _codecs.encode"),
        "copies of copies": (".pth", copies, exhaust),
        "letters counted often": (".pth", letters, exhaust),
        "tuples that are deep": (".pth", deep_tuple, exhaust),
        "tuples that are a maze": (".pth", tuple_maze, exhaust),
        "lists that are a maze": (".pth", list_maze, exhaust),
        "a dictionary in itself": (".pth", in_itself, "holds no state dict"),
        "deep dictionaries": (".pth", deep_dictionaries, exhaust),
        "one long text as all names": (".h5", one_long_text, "names would need too much memory"),
        "a text of four gigabytes": (".h5", text_too_long, "a text in it is longer than all"),
        "texts for ever": (".h5", texts_for_ever, "its texts do not add up"),
        "a preprocessing that doubles": (".safetensors", yaml_maze, "says of its preprocessing"),
        "many shapes": (".safetensors", many_layers, "not called as in a network"),
    }


def never_stored(path: Path) -> None:
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": None}})
        file["dense_1"].create_dataset("k", (10**6, 10**6), "f4")


def packed_tightly(path: Path) -> None:
    """A gigabyte of zeros in some kilobytes."""
    chunk = zlib.compress(bytes(2**24), 9)
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": None}})
        side, tile = 2**14, 2**11
        dataset = file["dense_1"].create_dataset(
            "k", (side, side), "f4", chunks=(tile, tile), compression="gzip"
        )
        for row in range(0, side, tile):
            for column in range(0, side, tile):
                dataset.id.write_direct_chunk((row, column), chunk)


def large_chunk(path: Path) -> None:
    packer = zlib.compressobj(1)
    chunk = b"".join(packer.compress(bytes(2**24)) for _ in range(16)) + packer.flush()
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": None}})
        dataset = file["dense_1"].create_dataset(
            "k", (10,), "f4", maxshape=(None,), chunks=(2**26,), compression="gzip"
        )
        dataset.id.write_direct_chunk((0,), chunk)


def zipped(name: str, *others: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for other in others:
                archive.writestr(other.decode(), b"\x80\x02}.")
            with archive.open(name, "w") as stream:
                for _ in range(16):
                    stream.write(bytes(2**24))

    return write


def lying(path: Path) -> None:
    """Its directory says a kilobyte."""
    zipped("model.weights.h5")(path)
    content = path.read_bytes()
    true, said = struct.pack("<I", 2**28), struct.pack("<I", 1000)
    assert content.count(true) >= 1
    path.write_bytes(content.replace(true, said))


def seen_as_more(path: Path) -> None:
    torch.save({"linear.weight": torch.zeros(1).expand(10**6, 10**6)}, path)


def old_form(count: int) -> Callable[[Path], None]:
    """An old checkpoint of four numbers that says to have `count`."""

    def write(path: Path) -> None:
        torch.save({"a": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        assert content.count(b"K\x04Nt") == 1
        long = b"\x8a\x08" + struct.pack("<q", count)
        path.write_bytes(content.replace(b"K\x04Nt", long + b"Nt"))

    return write


def never_filled(path: Path) -> None:
    """The list of what follows is empty, so memory would stay as somebody left it."""
    from references import torch_networks

    torch.save(torch_networks.state_dict(NAME), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    with path.open("rb") as stream:
        for _ in range(4):
            for _ in pickletools.genops(stream):
                pass
        path.write_bytes(content[: stream.tell()] + pickle.dumps([], 2) + bytes(10**6))


def stretched(path: Path) -> None:
    """A tensor of four numbers in a storage of none, which is then not read either."""
    old_form(0)(path)
    content = path.read_bytes()
    with path.open("rb") as stream:
        for _ in range(4):
            for _ in pickletools.genops(stream):
                pass
        path.write_bytes(content[: stream.tell()] + pickle.dumps([], 2))


def calling(function: Callable[..., Any], *arguments: Any) -> Callable[[Path], None]:
    return lambda path: torch.save({"a": Calling(function, *arguments)}, path)


def doubling(path: Path) -> None:
    found: Any = b"0" * 1000
    for _ in range(40):
        found = Calling(_codecs.encode, found, "hex")
    torch.save(found, path)


def copies(path: Path) -> None:
    items = [[number, None] for number in range(20_000)]
    torch.save([Calling(OrderedDict, items) for _ in range(20_000)], path)


def letters(path: Path) -> None:
    text = "a" * 100_000
    torch.save([Calling(Counter, text) for _ in range(50_000)], path)


def with_pickle(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")


def deep_tuple(path: Path) -> None:
    """As a key of a dictionary: hashing it would overflow the stack of the process."""
    with_pickle(path, b"\x80\x02}(" + b")" + b"\x85" * 10**6 + b"K\x01u.")


def tuple_maze(path: Path) -> None:
    steps = b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))
    with_pickle(path, b"\x80\x02}()" + steps + b"K\x01u.")


def list_maze(path: Path) -> None:
    found: list[Any] = []
    for _ in range(60):
        found = [found, found]
    torch.save(found, path)


def in_itself(path: Path) -> None:
    found: dict[str, Any] = {}
    found["state_dict"] = found
    torch.save(found, path)


def deep_dictionaries(path: Path) -> None:
    with_pickle(path, b"\x80\x02" + b"}X\3\0\0\0net" * 10**5 + b"}" + b"s" * 10**5 + b".")


def texts(path: Path) -> tuple[bytearray, int, list[int]]:
    """A file with 2,000 names and a long text in a heap; where that is, and where the names are."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3" * 2**22
        legacy(file, {"dense_1": {"k": np.ones(2)}})
        file.attrs["layer_names"] = [b"dense_1"] + [b"%07d" % n for n in range(2000)]
    content = bytearray(path.read_bytes())
    long = content.index(struct.pack("<IQ", 2**22, content.index(b"GCOL")))
    found = [hit.start() for hit in re.finditer(rb"\x07\0\0\0.{6}\0\0.{4}", content, re.DOTALL)]
    return content, long, [at for at in found if found.count(at + 16) or found.count(at - 16)]


def one_long_text(path: Path) -> None:
    content, long, names = texts(path)
    assert len(names) >= 2000
    for at in names:
        content[at : at + 16] = content[long : long + 16]
    path.write_bytes(content)


def text_too_long(path: Path) -> None:
    content, _, names = texts(path)
    content[names[0] : names[0] + 4] = b"\xff" * 4
    path.write_bytes(content)


def texts_for_ever(path: Path) -> None:
    """The last text of a heap reaches into the unused rest, where all sizes are 0."""
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": np.ones(2)}})
        file.attrs["keras_version"] = "2.2.4"
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16 + 8
    assert content[at] == 5
    content[at] = 5 + 32
    path.write_bytes(content)


def yaml_maze(path: Path) -> None:
    inner = "&a [1]"
    for letter, last in zip("bcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxy", strict=True):
        inner = f"&{letter} [{inner}, {', '.join([f'*{last}'] * 9)}]"
    plain = {**json.loads(json.dumps(PREPARED.__dict__)), "mean": inner}
    path.write_bytes(native({"a": torch.ones(1)}, preprocessing=plain))


def many_layers(path: Path) -> None:
    """Looking for each name among all of them would take hours."""
    header = {
        f"layer{n}.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        for n in range(30_000)
    }
    path.write_bytes(safetensors(header))


@pytest.fixture(scope="module")
def judgements(
    whole: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What a process of its own, with little memory, says of each of them."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {}
    for number, (name, (suffix, write, _)) in enumerate(bombs(whole).items()):
        paths[name] = str(folder / f"{number}{suffix}")
        write(Path(paths[name]))
    paths["nothing odd"] = str(put(folder, "Keras 2", whole["Keras 2"]))
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return {name: {**json.loads(line), "path": paths[name]} for name, line in read_lines(done)}


def read_lines(done: subprocess.CompletedProcess[str]) -> Iterator[tuple[str, str]]:
    for line in done.stdout.splitlines():
        name, _, rest = line.partition("\t")
        yield name, rest


def judge(paths: Mapping[str, str]) -> None:
    """Read each file in a child with a gigabyte of memory and half a minute."""
    torch.set_num_threads(1)
    for name, path in paths.items():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 2**30
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
            try:
                read_file(Path(path))
                said = "read"
            except ResiduaError as error:
                said = str(error)
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            found = {"said": said, "kilobytes": took, "seconds": time.monotonic() - began}
            os.write(writer, json.dumps(found).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            found = stream.read()
        _, status = os.waitpid(child, 0)
        print(name, found.decode() or json.dumps({"said": f"status {status}"}), sep="\t")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", bombs({}))
def test_bombs(name: str, judgements: Mapping[str, Mapping[str, Any]]) -> None:
    found = judgements[name]
    said = judged(Path(found["path"]), found["said"])
    assert bombs({})[name][2] in said
    assert "needs more memory" not in said
    assert found["kilobytes"] < 300_000
    assert found["seconds"] < 15


def test_partly_stored_numbers_are_not_filled_with_zeros(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"dense_1": {"k": None}})
        dataset = file["dense_1"].create_dataset("k", (100,), "f4", chunks=(10,))
        dataset[:90] = 1

    assert "declares 100 numbers" in refused(hdf5(tmp_path, fill))


def test_numbers_in_chunks_are_read(keras_file: Path) -> None:
    before = read_file(keras_file, KERAS_NAME).tensors["head.weight"]
    with h5py.File(keras_file, "a") as file:
        group = file["layers/dense/vars"]
        kernel = group["0"][()]
        del group["0"]
        group.create_dataset("0", data=kernel, chunks=(7, 3), compression="gzip")
    assert torch.equal(read_file(keras_file, KERAS_NAME).tensors["head.weight"], before)


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
        found = read_stored(path)
    except ResiduaError as error:
        judged(path, str(error))
        assert changes
        return
    if kind in ("pickle", "Keras 3 model"):
        true = read_stored(put(tmp_path / "..", kind, tiny[kind]))
        assert tensors_of(found) == tensors_of(true)


def tensors_of(stored: Stored) -> dict[str, Any]:
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
            "predict": ["predict", str(tmp_path / name), "picture.png"],
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


if __name__ == "__main__":
    judge(json.load(sys.stdin))
