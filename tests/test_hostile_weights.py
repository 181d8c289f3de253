"""Weights files made to run code, to read other files, to exhaust memory or time: refused.

What would take the process with it is read by a process of its own, which this file becomes when
it is run as a script.
"""

from __future__ import annotations

import _codecs
import argparse
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
from references import weights_files
from references.weights_files import (
    KERAS_NAME,
    NAME,
    PREPARED,
    Calling,
    State,
    hdf5,
    judged,
    legacy,
    native,
    opened,
    put,
    refused,
    safetensors,
    saved,
)
from safetensors.torch import save
from torch import Tensor

from residua.errors import ResiduaError
from residua.weights.load import read_file

state, whole = weights_files.state, weights_files.whole
keras_file = weights_files.keras_file


pytestmark = pytest.mark.usefixtures("one_thread")


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

    assert "which does not exist" in refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (("layer_names0", "layer_names2"), "its layer_names: layer_names0, layer_names2"),
        (("layer_names", "layer_names1"), "its layer_names: layer_names, layer_names1"),
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
        assert "stores its numbers in another file" in refused(hdf5(tmp_path, fill))


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


class Unknown:
    """A class of somebody's program."""


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
    assert f"would run {Unknown.__module__}.Unknown, and" in refused(path)
    path = put(tmp_path, "pickle", saved(torch.nn.Linear(2, 2)))
    assert "would run torch.nn.modules.linear.Linear" in refused(path)
    path = put(tmp_path, "pickle", saved({"state_dict": state, "extra": np.ones(3)}))
    assert re.search(r"would run numpy\.\w+\.multiarray\._reconstruct", refused(path))


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
    numbers = {"bytes": b"bytes", "best": np.float64(0.5), "dtype": np.dtype([("a", "f8")])}
    for protocol, more in ((2, numbers), (3, {})):
        found = read_file(put(tmp_path, "pickle", saved({**content, **more}, protocol)), NAME)
        assert torch.equal(found.tensors["head.bias"], state["linear.bias"])
    said = refused(put(tmp_path, "pickle", saved({**content, "bytes": b"bytes"}, 3)))
    assert "Unsupported operand 67" in said


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
    assert "contains no state dict" in refused(put(tmp_path, "pickle", saved(lying)))


def test_a_lambda_layer(tmp_path: Path) -> None:
    """Whatever else the model holds; and its code does not run."""
    from references.keras_networks import keras, layers

    inputs = keras.Input((8, 8, 3))
    x = layers.Lambda(lambda x: 2 * x, name="\x1b[31mtwice")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    for name in ("file.keras", "file.h5"):
        model.save(tmp_path / name)
        said = refused(tmp_path / name)
        assert r"contains the Lambda layer \x1b[31mtwice" in said
        assert "code in a file is never run" in said


# Headers ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epsilon", each) for each in ("abc", [1], {"a": 1}, 10**400, True, -1, float("inf"))),
        *(("strides", each) for each in ("abc", [[1]], {"a": 1}, 10**400, None, [2, 1, 1])),
        *(("activation", each) for each in ("\x1b[2J", [1], {"class_name": "x"}, 3, "a" * 10_000)),
        *(("name", each) for each in ("\x1b[2J", [1], {"a": 1}, 3, "a" * 10_000)),
        *(("batch_input_shape", each) for each in ("abc", [None, True, True, 3], [0] * 4, 3)),
        *(("negative_slope", each) for each in ("abc", [1])),
    ],
    ids=lambda value: repr(value)[:12],
)
@pytest.mark.parametrize("kind", [None, "\x1b[2J"])
def test_settings_of_layers(
    kind: str | None, key: str, value: Any, whole: Mapping[str, bytes], tmp_path: Path
) -> None:
    """Whatever a whole model says of its layers: read, or a sentence."""
    path = put(tmp_path, "Keras 2", whole["Keras 2"])
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        for each in config["config"]["layers"]:
            each["class_name"] = kind or each["class_name"]
            each["config"][key] = value
        file.attrs["model_config"] = json.dumps(config)
    try:
        read_file(path, KERAS_NAME)
    except ResiduaError as error:
        judged(path, str(error))


@pytest.mark.parametrize("value", [3, np.ones(3), np.array([b"a", b"b"])])
@pytest.mark.parametrize("name", ["model_config", "keras_version"])
def test_attributes_of_other_kinds(name: str, value: Any, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        legacy(file, {"my_layer": {"k": np.ones(2)}})
        file.attrs[name] = value

    refused(hdf5(tmp_path, fill))


# What would take all memory, all time, or the process ---------------------------------------------


def bombs() -> dict[str, tuple[str, Callable[[Path], object], str]]:
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
        "bytes that double": (".pth", doubling, "its pickle encodes texts, which can grow"),
        "copies of copies": (".pth", copies, exhaust),
        "letters counted often": (".pth", letters, exhaust),
        "tuples that are deep": (".pth", deep_tuple, exhaust),
        "tuples that are a maze": (".pth", tuple_maze, exhaust),
        "lists that are a maze": (".pth", list_maze, exhaust),
        "a dictionary in itself": (".pth", in_itself, "contains no state dict"),
        "deep dictionaries": (".pth", deep_dictionaries, exhaust),
        "one long text as all names": (".h5", one_long_text, "names would need too much memory"),
        "a text of four gigabytes": (".h5", text_too_long, "a text in it is longer than all"),
        "texts for ever": (".h5", texts_for_ever, "its texts do not add up"),
        "a preprocessing that doubles": (".safetensors", yaml_maze, "its preprocessing is"),
        "many shapes": (".safetensors", many_layers, "whose names are not those of any network"),
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
    for number, (name, (suffix, write, _)) in enumerate(bombs().items()):
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
@pytest.mark.parametrize("name", bombs())
def test_bombs(name: str, judgements: Mapping[str, Mapping[str, Any]]) -> None:
    found = judgements[name]
    said = judged(Path(found["path"]), found["said"])
    assert bombs()[name][2] in said
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


if __name__ == "__main__":
    judge(json.load(sys.stdin))
