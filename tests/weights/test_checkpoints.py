"""PyTorch checkpoints: nested and wrapped ones are read; code in them never runs."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from references.torch_files import State
from references.weights_files import NAME, opened, put, refused, saved
from safetensors.torch import save
from torch import Tensor

import residua
from residua.weights.formats.detect import read_raw
from residua.weights.load import read_file

pytestmark = pytest.mark.usefixtures("one_thread")


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
    message = refused(path)
    assert not list(folder.iterdir())
    if protocol == 0 and form in ("bare", "old"):
        assert "starts with" in message
    elif protocol > 3 and form == "old":
        assert f"is pickled in protocol {protocol}" in message
    else:
        assert re.search(
            r"would run (io|_io|builtins|__builtin__)\.open, and code in a file", message
        )
    with path.open("rb") as stream:
        if form == "bare":  # and it would have
            pickle.load(stream)
            assert list(folder.iterdir())


def test_classes_in_a_pickle_are_refused(state: State, tmp_path: Path) -> None:
    path = put(tmp_path, "pickle", saved({"state_dict": state, "extra": Unknown()}))
    assert f"would run {Unknown.__module__}.Unknown, and" in refused(path)
    path = put(tmp_path, "pickle", saved(torch.nn.Linear(2, 2)))
    assert "would run torch.nn.modules.linear.Linear" in refused(path)
    path = put(tmp_path, "pickle", saved({"state_dict": state, "extra": np.ones(3)}))
    assert re.search(r"would run numpy\.\w+\.multiarray\._reconstruct", refused(path))


@pytest.mark.slow
def test_what_training_scripts_save_beside_the_weights_is_accepted(
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
    message = refused(put(tmp_path, "pickle", saved({**content, "bytes": b"bytes"}, 3)))
    assert "Unsupported operand 67" in message


def test_numpy_scalars_in_a_checkpoint_are_accepted(tmp_path: Path) -> None:
    state = residua.build("cifar_resnet20", seed=1).state_dict()
    kept = {"state_dict": state, "best_prec1": np.float64(91.7), "epoch": np.int64(3)}
    torch.save(kept, tmp_path / "best.pth")
    assert read_file(tmp_path / "best.pth").metadata.network.name == "cifar_resnet20"


@pytest.mark.parametrize("protocol", [4, 5])
def test_later_pickle_protocols_are_refused(protocol: int, state: State, tmp_path: Path) -> None:
    message = refused(put(tmp_path, "pickle", saved(state, protocol)))
    assert f"is pickled in protocol {protocol}, expected 2" in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    torch.jit.script(Doubled()).save(tmp_path / "file.pth")
    assert "is a TorchScript program, and code in a file is never run" in refused(
        tmp_path / "file.pth"
    )


def test_a_torch_export_program_is_refused_with_what_to_use_instead(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:  # the names that PyTorch writes
        archive.writestr("archive/data/weights/weight_0", b"\0" * 8)
        archive.writestr("archive/archive_format", "pt2")
    message = refused(tmp_path / "model.pt2")
    assert "is a torch.export program, and code in a file is never run" in message
    assert "predict, evaluate and serve accept .onnx and .xml files" in message


def test_pickles_without_a_state_dict_are_refused(tmp_path: Path) -> None:
    for content, message in (
        ([torch.ones(2)], "found a list"),
        (torch.ones(2), "found a Tensor"),
        ({}, "found a NoneType"),
        ({"epoch": 3, "\x1b[2J": 2}, r"found epoch, \x1b[2J"),
        ({"state_dict": {}}, "found a NoneType"),
        ({"model": {"net": {"weights": {"epoch": 1}}}}, "found epoch"),
    ):
        assert message in refused(put(tmp_path, "pickle", saved(content))), content


def test_an_ordered_dictionary_with_its_own_methods_is_refused(
    state: State, tmp_path: Path
) -> None:
    """Attributes of the pickle's choice stand in for its methods."""
    lying = OrderedDict({"epoch": 3})
    lying.__dict__ |= {"values": OrderedDict, "items": OrderedDict, "get": OrderedDict}
    assert "contains no state dict" in refused(put(tmp_path, "pickle", saved(lying)))


def test_keys_that_are_not_text_are_refused(state: State, tmp_path: Path) -> None:
    for key in (1, ("conv1", "weight"), None):
        path = put(tmp_path, "pickle", saved({**state, key: torch.ones(2)}))
        assert "expected text" in refused(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (torch.int8, "weight is int8, expected floating-point numbers"),
        (torch.int64, "weight is int64, expected floating-point numbers"),
        (torch.bool, "linear.weight is bool, torch.strided on cpu: expected one of float64"),
        (torch.complex64, "linear.weight is complex64, torch.strided on cpu"),
        (torch.float8_e4m3fn, "linear.weight is float8_e4m3fn, torch.strided on cpu"),
    ],
)
def test_other_dtypes_are_refused(
    state: State, kind: torch.dtype, message: str, tmp_path: Path
) -> None:
    wrong = {**state, "linear.weight": state["linear.weight"].to(kind)}
    assert message in refused(put(tmp_path, "pickle", saved(wrong)), NAME)
    if kind not in (torch.complex64,):
        assert message in refused(put(tmp_path, "safetensors", save(wrong)), NAME)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_that_are_no_arrays_are_refused(state: State, tmp_path: Path) -> None:
    for wrong in (
        state["linear.weight"].to_sparse(),
        torch.empty(10, 64, device="meta"),
        torch.quantize_per_tensor(state["linear.weight"], 0.1, 0, torch.qint8),
        torch.nn.Parameter(torch.tensor(3.0)),
    ):
        refused(put(tmp_path, "pickle", saved({**state, "linear.weight": wrong})))


@pytest.mark.parametrize("prefixes", ["", "module.", "_orig_mod.", "_orig_mod.module.", "model."])
@pytest.mark.parametrize(
    "nests", [(), ("model",), ("net",), ("state_dict_ema",), ("model", "weights")]
)
def test_wrappers_and_nests_do_not_matter(
    prefixes: str, nests: tuple[str, ...], tmp_path: Path
) -> None:
    content: Any = {f"{prefixes}conv.weight": torch.ones(2), f"{prefixes}norm.bias": torch.ones(3)}
    for nest in nests:
        content = {nest: content, "epoch": 3}
    torch.save(content, tmp_path / "checkpoint.pth")
    layers = read_raw(tmp_path / "checkpoint.pth").layers
    assert {layer: list(parts) for layer, parts in layers.items()} == {
        "conv": ["weight"],
        "norm": ["bias"],
    }


@pytest.mark.parametrize("prefix", ["net.", "backbone.", "encoder.", "module.model.", "model."])
def test_a_network_among_other_tensors_is_found_under_its_prefix(
    prefix: str, state: State, tmp_path: Path
) -> None:
    others = {"criterion.weight": torch.ones(10), "metric.total": torch.zeros(3, dtype=torch.int64)}
    content = {**{f"{prefix}{name}": tensor for name, tensor in state.items()}, **others}
    weights = read_file(put(tmp_path, "pickle", saved({"state_dict": content, "epoch": 1})))
    assert torch.equal(weights.tensors["head.bias"], state["linear.bias"])
    assert (
        f"only its layers {prefix}* are read, not criterion, metric"
        in weights.assumed_preprocessing
    )


def test_two_networks_in_a_file_are_refused(state: State, tmp_path: Path) -> None:
    content = {f"{who}.{name}": t for name, t in state.items() for who in ("student", "teacher")}
    message = refused(put(tmp_path, "pickle", saved(content)))
    assert message.startswith("contains 2 networks, under student, teacher.")


@pytest.mark.parametrize("nest", ["model_state", "network", "params", "anything"])
def test_a_nested_state_dict_is_found(nest: str, state: State, tmp_path: Path) -> None:
    content = {"epoch": 3, nest: state, "optimizer": {"state": {}, "param_groups": []}}
    weights = read_file(put(tmp_path, "pickle", saved(content)))
    assert torch.equal(weights.tensors["head.bias"], state["linear.bias"])
    message = refused(put(tmp_path, "pickle", saved({"a": {"x": 1}, "b": 2})))
    assert "such a dictionary under state_dict, model_state_dict, model," in message
    assert message.endswith("found a, b.")
