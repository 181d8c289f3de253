"""Weights files as users have them -> networks that compute what an independent reading does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from references import torch_networks
from references.published import BOUND, logits_distance
from references.torch_files import (
    AUXILIARY,
    FORMS,
    Form,
    State,
    assert_same,
    before_zip,
    nested,
    plain,
    safetensors,
    uncounted,
    unwrapped,
)

import residua
from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks import alexnet
from residua.networks.vgg import VGGConfig
from residua.networks.zoo import catalogue
from residua.weights.convert import convert
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same_logits(name: str, state: State, weights: Weights) -> None:
    """Those of the independent implementation."""
    assert logits_distance(name, state, weights) < BOUND


@pytest.fixture
def narrow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden layers of VGG and AlexNet of 64 instead of 4096, or their files have 500 MB."""
    if name not in ("alexnet", "timm_vgg11"):
        return
    ours, width = name.removeprefix("timm_"), 64
    row = catalogue.ROWS[ours]
    monkeypatch.setattr(torch_networks, "HIDDEN", width)
    monkeypatch.setattr(alexnet, "HIDDEN", width)
    if isinstance(row.config, VGGConfig):
        row = replace(row, config=replace(row.config, hidden=(width, width)))
    size = sum(tensor.numel() for tensor in torch_networks.shapes(name).values())
    monkeypatch.setitem(catalogue.ROWS, ours, replace(row, trainable=size))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "form"),
    [  # forms and networks do not depend on each other
        *(("cifar_resnet20", 10, form) for form in FORMS),
        ("mobilenet_v1", 5, nested),
        ("densenet121", 5, uncounted),
        ("resnet18", 1000, nested),
        ("resnet18d", 5, plain),
        ("resnext50_32x4d", 5, uncounted),
        ("preact_resnet50", 5, safetensors),
        ("alexnet", 5, before_zip),
        ("timm_vgg11", 5, safetensors),
        ("googlenet", 1000, plain),
        ("inception_v3", 5, before_zip),
        ("inception_v4", 5, plain),
        ("xception", 5, before_zip),
    ],
)
def test_a_published_file_is_recognised_and_computes_the_same(
    name: str, classes: int, form: Form, narrow: None, tmp_path: Path
) -> None:
    """Its names and shapes come back where it is written as it came."""
    state = torch_networks.state_dict(name, classes=classes)
    weights = read_file(form(state, tmp_path / "any"))
    assert weights.metadata.network == NetworkSpec(name.removeprefix("timm_"), classes, 3)
    assert weights.has_head
    assert_same_logits(name, state, weights)
    convert(weights, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    published = {key: tensor for key, tensor in state.items() if not key.startswith(AUXILIARY)}
    if form is uncounted:
        published = {key: tensor for key, tensor in published.items() if "num_batches" not in key}
    assert_same(again, unwrapped(published))


@pytest.mark.slow
def test_the_old_spelling_of_a_densenet_computes_the_same(tmp_path: Path) -> None:
    state = torch_networks.state_dict("densenet121", classes=5)
    old = torch_networks.old_densenet_keys(state)
    weights = read_file(before_zip(old, tmp_path / "old"))
    assert_same_logits("densenet121", state, weights)
    convert(weights, tmp_path / "again.pth")
    assert_same(torch.load(tmp_path / "again.pth", weights_only=True), old)


def test_a_file_of_no_network_is_refused(tmp_path: Path) -> None:
    """A network that is wider in one place, and one that is deeper."""
    state = unwrapped(torch_networks.state_dict("cifar_resnet20"))
    wider = state | {"layer1.1.conv1.weight": torch.zeros(24, 16, 3, 3)}
    with pytest.raises(ResiduaError, match=r"\(layer1\.1\.conv1\): weight is 24 x 16 x 3 x 3"):
        read_file(plain(wider, tmp_path / "wider"))
    deeper = state | {"layer3.3.conv1.weight": torch.zeros(64, 64, 3, 3)}
    with pytest.raises(ResiduaError, match=r"layer3\.3\.conv1 of the file has no counterpart"):
        read_file(plain(deeper, tmp_path / "deeper"))


@pytest.mark.slow
def test_a_published_cifar_network_predicts_its_training_images(shared_data: Path) -> None:
    folder = shared_data / "cifar_resnet_weights"
    for file in ("resnet20-12fca82f.th", "resnet32-d509ac18.th", "resnet56-4bfd9763.th"):
        network = read_file(folder / file).metadata.network
        assert network.name == f"cifar_{file.partition('-')[0]}"
    path = folder / "resnet20-12fca82f.th"
    with pytest.warns(UserWarning, match="resnet"):  # what is assumed
        metrics = residua.evaluate(path, shared_data / "cifar10_png1k").metrics
    assert metrics.images == 1000
    assert metrics.accuracy == 0.999


@pytest.mark.slow
def test_a_state_dict_of_our_own_network_is_read(tmp_path: Path) -> None:
    network = residua.build("resnet18", classes=5, seed=1).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    weights = read_file(tmp_path / "mine.pth")
    assert weights.metadata.network.name == "resnet18"
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = network(images)
        again = build_network(weights, CPU)(images)
        torch.testing.assert_close(again, expected)  # in another memory layout
    rebuilt = residua.build(weights=tmp_path / "mine.pth").eval()
    with torch.inference_mode():
        assert torch.equal(rebuilt(images), expected)
