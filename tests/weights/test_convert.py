"""Weights written in the format of another program come back bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from references import torch_networks
from references.command_line import residua as run_residua
from references.torch_files import assert_same, nested, plain, unwrapped

import residua
from residua.weights.convert import convert
from residua.weights.load import read_file

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "name",
    ["cifar_resnet20", "mobilenet_v1", pytest.param("preact_resnet50", marks=pytest.mark.slow)],
)
def test_there_and_back_is_exact(name: str, tmp_path: Path) -> None:
    """Through our own file, with the shapes as published: the last head is a 1x1 convolution."""
    state = torch_networks.state_dict(name, classes=5)
    convert(read_file(plain(state, tmp_path / "theirs")), tmp_path / "ours.safetensors")
    ours = read_file(tmp_path / "ours.safetensors")
    assert (ours.metadata.network.name, ours.metadata.network.classes) == (name, 5)
    convert(ours, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert_same(again, unwrapped(state))


def test_there_and_back_by_the_command_line(tmp_path: Path) -> None:
    state = torch_networks.state_dict("cifar_resnet20", classes=5)
    theirs = nested(state, tmp_path / "theirs")
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.pth"
    for source, out in ((theirs, ours), (ours, again)):
        result = run_residua("weights", "convert", str(source), str(out))
        assert (result.status, result.stdout) == (0, f"{out}\n"), result.stderr
    assert_same(torch.load(again, weights_only=True), unwrapped(state))


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("other.safetensors", 1),
        ("other.pth", 1),
        ("link.pth", 1),
        ("theirs", 2),  # no file name of weights
        ("new.txt", 2),
    ],
)
def test_no_file_is_replaced(name: str, status: int, tmp_path: Path) -> None:
    theirs = nested(torch_networks.state_dict("cifar_resnet20", classes=5), tmp_path / "theirs")
    (tmp_path / "other.pth").write_text("other weights")
    (tmp_path / "link.pth").symlink_to("other.pth")
    convert(read_file(theirs), tmp_path / "other.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run_residua("weights", "convert", str(theirs), str(tmp_path / name)).status == status
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_bfloat16_becomes_float32_in_keras_files(tmp_path: Path) -> None:
    network = residua.build("keras_mobilenet", classes=5, seed=1).bfloat16()
    torch.save(network.state_dict(), tmp_path / "half.pth")
    half = read_file(tmp_path / "half.pth", "keras_mobilenet")
    convert(half, tmp_path / "theirs.weights.h5")
    again = read_file(tmp_path / "theirs.weights.h5", "keras_mobilenet")
    for name, tensor in again.tensors.items():
        assert torch.equal(tensor, half.tensors[name].float()), name
