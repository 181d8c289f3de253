"""Weights -> a network that is ready to compute, in float32."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch
from references.weights_files import (
    CPU,
    KERAS_NAME,
    NAME,
    NETWORK,
    Files,
    State,
    native,
    put,
    saved,
)
from safetensors.torch import save
from torch import Tensor

from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import build
from residua.runs.sources import start_from
from residua.weights.load import read_file
from residua.weights.network import build_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["pickle", "ours"])
def test_other_classes_need_a_new_head(whole: Files, kind: str, tmp_path: Path) -> None:
    found = read_file(put(tmp_path, kind, whole[kind]))
    with pytest.raises(ResiduaError, match=r"has 10 outputs, but 7 are needed. --new-head"):
        start_from(found, replace(NETWORK, classes=7), new_head=False, seed=0)
    network = start_from(found, replace(NETWORK, classes=7), new_head=True, seed=0)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    other = replace(NETWORK, name="cifar_resnet32")
    with pytest.raises(ResiduaError, match=f"has weights of {NAME}"):
        start_from(found, other, new_head=True, seed=0)


def test_weights_without_a_head_cannot_classify(tmp_path: Path) -> None:
    state = build(NAME, seed=0).state_dict()
    kept = {name: each for name, each in state.items() if not name.startswith("head")}
    found = read_file(put(tmp_path, "ours", native(kept)))
    assert not found.has_head
    with pytest.raises(ResiduaError, match="ends before its head"):
        build_network(found, CPU)
    build_network(found, CPU, require_head=False)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_no_image_has_are_refused(
    channels: int, state: State, tmp_path: Path
) -> None:
    wider = {**state, "conv1.weight": torch.randn(16, channels, 3, 3)}
    found = read_file(put(tmp_path, "safetensors", save(wider)))
    with pytest.raises(ResiduaError, match=f"reads {channels} channels"):
        build_network(found, CPU)


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


@pytest.mark.slow
def test_a_forked_child_predicts_after_its_parent(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    code = (
        "import os, sys, numpy as np, residua, torch; torch.set_num_threads(4)\n"
        "images = [np.zeros((224, 224, 3), np.uint8)] * 8\n"
        "residua.predict(sys.argv[1], images)\n"
        "child = os.fork()\n"
        "if not child: residua.predict(sys.argv[1], images); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    weights = write_weights(tmp_path / "net.safetensors", 1)
    subprocess.run([sys.executable, "-c", code, str(weights)], check=True, timeout=120)
