"""Weights written in the format of another program come back bit by bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from references import torch_networks
from references.torch_files import (
    AUXILIARY,
    assert_same,
    nested,
    plain,
    unwrapped,
)

import residua
from residua.weights.convert import convert
from residua.weights.load import read_file


@pytest.mark.parametrize(
    "name",
    [
        *("cifar_resnet20", "resnet18", "preact_resnet50", "googlenet", "inception_v3"),
        *("inception_v4", "densenet121", "xception", "mobilenet_v1"),
    ],
)
def test_there_and_back_is_exact(name: str, tmp_path: Path) -> None:
    """Through our own file, with the shapes as published, a 1x1 convolution for a head too."""
    state = torch_networks.state_dict(name, classes=5)
    convert(read_file(plain(state, tmp_path / "theirs")), tmp_path / "ours.safetensors")
    ours = read_file(tmp_path / "ours.safetensors")
    assert (ours.metadata.network.name, ours.metadata.network.classes) == (name, 5)
    convert(ours, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    kept = {key: each for key, each in state.items() if not key.startswith(AUXILIARY)}
    assert_same(again, unwrapped(kept))


def test_there_and_back_by_the_command_line(tmp_path: Path) -> None:
    def run(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "residua", "weights", "convert", *map(str, words)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    state = torch_networks.state_dict("cifar_resnet20", classes=5)
    theirs = nested(state, tmp_path / "theirs")
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.pth"
    assert run(theirs, ours) == f"{ours}\n"
    assert run(ours, again) == f"{again}\n"
    assert_same(torch.load(again, weights_only=True), unwrapped(state))


def test_bfloat16_becomes_float32_in_keras_files(tmp_path: Path) -> None:
    network = residua.build("keras_mobilenet", classes=5, seed=1).bfloat16()
    torch.save(network.state_dict(), tmp_path / "half.pth")
    held = read_file(tmp_path / "half.pth", "keras_mobilenet")
    convert(held, tmp_path / "theirs.weights.h5")
    again = read_file(tmp_path / "theirs.weights.h5", "keras_mobilenet")
    for name, tensor in again.tensors.items():
        assert torch.equal(tensor, held.tensors[name].float()), name
