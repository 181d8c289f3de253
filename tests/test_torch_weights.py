"""Checkpoints as PyTorch users have them -> networks that compute what an independent reading does.

torchvision, timm and pytorch_resnet_cifar10 publish the files; references.torch_networks reads them
by plain functions, and invents some with statistics that are not 0 and 1.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from references import torch_networks
from safetensors.torch import save_file
from torch import Tensor

import residua
from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.weights.convert import convert
from residua.weights.formats.raw import RawWeights
from residua.weights.load import Weights, read_file, recognise
from residua.weights.network import build_network

CPU = torch.device("cpu")
State = dict[str, Tensor]
COUNTER = ".num_batches_tracked"
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


pytestmark = pytest.mark.usefixtures("one_thread")


# The files ----------------------------------------------------------------------------------------


def plain(state: State, path: Path) -> Path:
    torch.save(state, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def nested(state: State, path: Path) -> Path:
    """As the training scripts of torchvision and akamaster save what DataParallel holds."""
    wrapped = {f"module.{key.removeprefix('module.')}": each for key, each in state.items()}
    content = {"epoch": 90, "arch": "a name", "state_dict": wrapped, "best_prec1": 76.1}
    torch.save(content, path.with_suffix(".pth.tar"))
    return path.with_suffix(".pth.tar")


def before_zip(state: State, path: Path) -> Path:
    """As PyTorch saved until 1.5."""
    torch.save(state, path.with_suffix(".th"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".th")


def uncounted(state: State, path: Path) -> Path:
    """As PyTorch saved before 0.4.1: without the norms' counters."""
    return plain({key: each for key, each in state.items() if not key.endswith(COUNTER)}, path)


def safetensors(state: State, path: Path) -> Path:
    """As timm's repositories hold them."""
    save_file(state, path.with_suffix(".safetensors"), {"format": "pt"})
    return path.with_suffix(".safetensors")


Form = Callable[[State, Path], Path]
FORMS: tuple[Form, ...] = (plain, nested, before_zip, uncounted, safetensors)


def images(name: str) -> Tensor:
    """One side even and one odd, where paddings and rounding rules part."""
    side = 32 if name.startswith("cifar") else 96
    return torch.randn(2, 3, side, side + 1, generator=torch.Generator().manual_seed(3))


def row_of(name: str) -> str:
    return name.removeprefix("timm_")


def assert_same_logits(name: str, state: State, weights: Weights) -> None:
    """As the independent reading has them; and these tell two images apart."""
    x = images(name)
    expected = torch_networks.logits(name, state, x)
    with torch.inference_mode():
        found = build_network(weights, CPU)(x)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    largest = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) < 1e-4 * largest
    assert float((expected[0] - expected[1]).abs().max()) > 1e-3 * largest


@pytest.mark.parametrize(
    ("name", "classes", "form"),
    [
        *(("cifar_resnet20", 10, form) for form in FORMS),
        *(("mobilenet_v1", 5, form) for form in FORMS),
        *(("densenet121", 5, form) for form in FORMS),
        ("resnet18", 1000, nested),
        ("resnet50", 5, safetensors),
        ("resnext50_32x4d", 5, uncounted),
        ("preact_resnet50", 5, safetensors),
        ("vgg11_bn", 5, uncounted),
        ("alexnet", 5, before_zip),
        ("googlenet", 1000, plain),
        ("inception_v3", 5, before_zip),
        ("inception_v4", 5, plain),
        ("xception", 5, before_zip),
    ],
)
def test_a_published_file_is_recognised_and_computes_the_same(
    name: str, classes: int, form: Form, tmp_path: Path
) -> None:
    state = torch_networks.state_dict(name, classes=classes)
    weights = read_file(form(state, tmp_path / "any"))
    assert weights.metadata.network == NetworkSpec(name, classes, 3)
    assert weights.has_head
    assert_same_logits(name, state, weights)


def test_timms_vgg_has_convolutions_for_hidden_layers(tmp_path: Path) -> None:
    """Its names and shapes come back where it is written as it came."""
    state = torch_networks.state_dict("timm_vgg11", classes=5)
    weights = read_file(safetensors(state, tmp_path / "timm"))
    assert weights.metadata.network.name == "vgg11"
    assert_same_logits("timm_vgg11", state, weights)
    convert(weights, tmp_path / "again.pth")
    assert_same(torch.load(tmp_path / "again.pth", weights_only=True), state)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_aside(name: str, tmp_path: Path) -> None:
    state = torch_networks.state_dict(name, classes=5)
    bare = {key: each for key, each in state.items() if not key.startswith(AUXILIARY)}
    assert len(bare) < len(state)
    whole = read_file(plain(state, tmp_path / "whole"))
    assert_same(whole.tensors, read_file(plain(bare, tmp_path / "bare")).tensors)
    assert not [key for key in whole.tensors if "aux" in key.lower()]


@pytest.mark.parametrize("prefixes", ["module.", "_orig_mod.", "_orig_mod.module.", "model."])
@pytest.mark.parametrize("nests", [("model",), ("net",), ("state_dict_ema",), ("model", "weights")])
def test_wrappers_and_nests_do_not_matter(
    prefixes: str, nests: tuple[str, ...], tmp_path: Path
) -> None:
    state = unwrapped(torch_networks.state_dict("cifar_resnet20"))
    content: Any = {f"{prefixes}{key}": each for key, each in state.items()}
    for nest in nests:
        content = {nest: content, "epoch": 3}
    torch.save(content, tmp_path / "checkpoint.pth")
    expected = read_file(plain(state, tmp_path / "plain"))
    assert_same(read_file(tmp_path / "checkpoint.pth").tensors, expected.tensors)


def unwrapped(state: Mapping[str, Tensor]) -> State:
    return {key.removeprefix("module."): each for key, each in state.items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, each in expected.items():
        assert found[key].dtype == each.dtype, key
        assert torch.equal(found[key], each), key


# All of them, by names and shapes -----------------------------------------------------------------


def weightless(name: str, classes: int | None = None) -> RawWeights:
    """A published file's layers in full size, each tensor a single number in memory."""
    layers: dict[str, State] = {}
    for key, each in unwrapped(torch_networks.shapes(name, classes)).items():
        layer, _, part = key.rpartition(".")
        number = torch.zeros((), dtype=each.dtype)
        layers.setdefault(layer, {})[part] = number.expand(each.shape)
    return RawWeights(Path(name), "pytorch", "a PyTorch checkpoint", layers)


@pytest.mark.parametrize("name", torch_networks.NETWORKS)
def test_every_published_file_is_recognised_by_names_and_shapes(name: str) -> None:
    stored = weightless(name)
    found = recognise(stored, None)
    assert found.network == row_of(name)
    assert found.classes == catalogue.row(found.network).classes
    read = [layer for layers in found.names.values() for layer in layers]
    assert len(read) == len(set(read))
    assert set(read) == {each for each in stored.layers if not each.startswith(AUXILIARY)}


@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_torchvisions_own_densenets_spell_otherwise(name: str) -> None:
    now = weightless(name, classes=5)
    before: dict[str, dict[str, Tensor]] = {}
    for key in torch_networks.old_densenet_keys(torch_networks.shapes(name, classes=5)):
        layer, _, part = key.rpartition(".")
        new = layer.replace("norm.", "norm").replace("conv.", "conv")
        before.setdefault(layer, {})[part] = now.layers[new][part]
    assert before.keys() != now.layers.keys()
    found = recognise(RawWeights(Path(name), "pytorch", "a PyTorch checkpoint", before), None)
    assert (found.network, found.classes) == (name, 5)


def test_the_old_spelling_of_a_densenet_computes_the_same(tmp_path: Path) -> None:
    state = torch_networks.state_dict("densenet121", classes=5)
    old = torch_networks.old_densenet_keys(state)
    weights = read_file(before_zip(old, tmp_path / "old"))
    assert_same_logits("densenet121", state, weights)
    convert(weights, tmp_path / "again.pth")
    assert_same(torch.load(tmp_path / "again.pth", weights_only=True), old)


# Files that do not fit ----------------------------------------------------------------------------


def test_a_missing_statistic_is_named(tmp_path: Path) -> None:
    state = torch_networks.state_dict("resnet18", classes=5)
    del state["layer2.0.bn1.running_var"]
    with pytest.raises(ResiduaError) as caught:
        read_file(plain(state, tmp_path / "resnet18"))
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "resnet18.pth"))
    assert "the nearest is resnet18" in said
    assert "(layer2.0.bn1): running_var is missing in the file" in said
    assert "more" not in said


def test_another_network_than_asked_is_refused_by_its_first_tensors(tmp_path: Path) -> None:
    path = plain(torch_networks.state_dict("resnet50", classes=5), tmp_path / "resnet50")
    with pytest.raises(ResiduaError) as caught:
        read_file(path, "resnet34")
    said = str(caught.value)
    assert "does not fit resnet34 (torchvision): " in said
    assert "(layer1.0.conv1): weight is 64 x 64 x 1 x 1, expected 64 x 64 x 3 x 3" in said
    assert "more." in said
    with pytest.raises(ResiduaError, match="are not those of vgg16: the first are conv1"):
        read_file(path, "vgg16")
    assert read_file(path, "resnet50").metadata.network.classes == 5


def test_a_file_of_no_network_is_refused(tmp_path: Path) -> None:
    """A network that is wider in one place, and one that is deeper."""
    state = unwrapped(torch_networks.state_dict("cifar_resnet20"))
    wider = state | {"layer1.1.conv1.weight": torch.zeros(24, 16, 3, 3)}
    with pytest.raises(ResiduaError, match=r"\(layer1\.1\.conv1\): weight is 24 x 16 x 3 x 3"):
        read_file(plain(wider, tmp_path / "wider"))
    deeper = state | {"layer3.3.conv1.weight": torch.zeros(64, 64, 3, 3)}
    with pytest.raises(ResiduaError, match=r"layer3\.3\.conv1 of the file has no counterpart"):
        read_file(plain(deeper, tmp_path / "deeper"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_file_that_fits_two_networks_is_refused_until_one_is_named(tmp_path: Path) -> None:
    """Tutorial 1's e and e_v2 differ in what a projection reads, which no tensor shows."""
    from references import keras_files, keras_networks

    model = keras_networks.build("tutorial_cifar_resnet32_e")
    keras_networks.randomise(model, seed=1)
    path = keras_files.write(model, tmp_path / "e", "keras2_weights")
    with pytest.raises(ResiduaError) as caught:
        read_file(path)
    said = str(caught.value)
    assert "tutorial_cifar_resnet32_e, tutorial_cifar_resnet32_e_v2 alike" in said
    assert said.endswith("--model.")
    for name in ("tutorial_cifar_resnet32_e", "tutorial_cifar_resnet32_e_v2"):
        assert read_file(path, name).metadata.network.name == name


# There and back -----------------------------------------------------------------------------------


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


# The published files that travel with the project's images --------------------------------------


@pytest.mark.parametrize(
    ("file", "name", "right"),
    [
        ("resnet20-12fca82f.th", "cifar_resnet20", 999),
        ("resnet32-d509ac18.th", "cifar_resnet32", 1000),
        ("resnet56-4bfd9763.th", "cifar_resnet56", 1000),
    ],
)
def test_published_cifar_networks_name_the_images(
    shared_data: Path, file: str, name: str, right: int
) -> None:
    path = shared_data / "cifar_resnet_weights" / file
    assert read_file(path).metadata.network.name == name
    scores = residua.evaluate(path, shared_data / "cifar10_png1k").scores
    assert scores.images == 1000
    assert scores.accuracy == right / 1000
