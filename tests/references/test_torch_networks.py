"""The plain-PyTorch reading of published checkpoints against what their publishers state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from references import torch_networks
from references.published import MAPS, PUBLISHED, parameters
from references.torch_files import AUXILIARY

pytestmark = pytest.mark.slow
KINDS = (  # one of each; benchmarks/published_files.py has all
    *("resnet18", "resnext50_32x4d", "wide_resnet50_2", "resnet18d", "resnet50d"),
    *("preact_resnet50", "vgg11", "vgg11_bn", "timm_vgg16", "alexnet", "googlenet"),
    *("inception_v3", "inception_v4", "densenet121", "mobilenet_v1", "xception"),
    "cifar_resnet20",
)


@pytest.mark.parametrize("name", KINDS)
def test_a_checkpoint_has_the_published_parameters_and_maps(name: str) -> None:
    state = torch_networks.shapes(name)
    assert parameters(state) == PUBLISHED[name]
    if name in MAPS:
        side, expected = MAPS[name]
        image = torch.empty(1, 3, side, side, device="meta")
        maps = torch_networks.stages(name, state, image)
        assert [tuple(each.shape) for each in maps] == [(1, *size, size[1]) for size in expected]


def _images(folder: Path) -> tuple[Tensor, Tensor]:
    """All images of CIFAR class folders as their network expects them, and their labels."""
    files = sorted(folder.glob("*/*.png"))  # the classes' alphabetical order is CIFAR's own
    names = sorted({file.parent.name for file in files})
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    labels = torch.tensor([names.index(file.parent.name) for file in files])
    return (x - mean[:, None, None]) / deviation[:, None, None], labels


def test_published_cifar_weights_classify_their_training_images(shared_data: Path) -> None:
    name = "cifar_resnet20"
    path = shared_data / "cifar_resnet_weights" / "resnet20-12fca82f.th"
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    assert {key: each.shape for key, each in state.items()} == {
        key: each.shape for key, each in torch_networks.shapes(name).items()
    }
    x, labels = _images(shared_data / "cifar10_png1k")
    logits = torch.cat([torch_networks.logits(name, state, batch) for batch in x.split(100)])
    assert int((logits.argmax(1) == labels).sum()) == 999


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v1", "cifar_resnet110"])
def test_random_checkpoints_are_repeatable_and_give_logits_of_order_one(name: str) -> None:
    state = torch_networks.state_dict(name, classes=7, seed=5)
    again = torch_networks.state_dict(name, classes=7, seed=5)
    other = torch_networks.state_dict(name, classes=7, seed=6)
    assert all(torch.equal(tensor, again[key]) for key, tensor in state.items())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = torch_networks.logits(name, state, x)
    assert logits.shape == (2, 7)
    assert 0.1 < float(logits.std()) < 30
    assert not torch.allclose(logits, torch_networks.logits(name, other, x), atol=0.1)


@pytest.mark.parametrize("statistic", ["running_mean", "running_var", "weight", "bias"])
def test_statistics_of_a_random_checkpoint_matter(statistic: str) -> None:
    state = torch_networks.state_dict("resnet18", classes=7)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = torch.ones(256) if statistic in ("running_var", "weight") else torch.zeros(256)
    swapped = state | {f"layer3.0.bn2.{statistic}": plain}
    before = torch_networks.logits("resnet18", state, x)
    assert (before - torch_networks.logits("resnet18", swapped, x)).abs().max() > 0.01


def test_auxiliary_heads_are_in_the_file_and_unread() -> None:
    state = torch_networks.state_dict("googlenet", classes=7)
    assert state["aux1.fc1.weight"].shape == (1024, 2048)
    assert state["aux2.conv.conv.weight"].shape == (128, 528, 1, 1)
    wide = torch_networks.shapes("inception_v3")["AuxLogits.conv1.conv.weight"]
    assert wide.shape == (768, 128, 5, 5)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(AUXILIARY)}
    whole = torch_networks.logits("googlenet", state, x)
    assert torch.equal(whole, torch_networks.logits("googlenet", kept, x))


def test_the_vgg_of_timm_is_that_of_torchvision_with_its_dense_layers_as_convolutions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_networks, "HIDDEN", 64)
    state = torch_networks.state_dict("vgg11", classes=7)
    renamed = {}
    for key, tensor in state.items():
        layer, part = key.rsplit(".", 1)
        new = {
            "classifier.0": "pre_logits.fc1",
            "classifier.3": "pre_logits.fc2",
            "classifier.6": "head.fc",
        }.get(layer, layer)
        side = {"pre_logits.fc1": 7, "pre_logits.fc2": 1}.get(new)
        if side and part == "weight":
            tensor = tensor.reshape(tensor.shape[0], -1, side, side)
        renamed[f"{new}.{part}"] = tensor
    assert set(renamed) == set(torch_networks.shapes("timm_vgg11", classes=7))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    dense = torch_networks.logits("vgg11", state, x)
    assert torch.allclose(torch_networks.logits("timm_vgg11", renamed, x), dense, atol=1e-4)


def test_old_densenet_files_have_dots_in_their_dense_layers_alone() -> None:
    old = torch_networks.old_densenet_keys(torch_networks.shapes("densenet121"))
    layer = "features.denseblock4.denselayer16"
    assert {key for key in old if key.startswith(layer)} == {
        f"{layer}.norm.{n}.{part}"
        for n in (1, 2)
        for part in ("weight", "bias", "running_mean", "running_var")
    } | {f"{layer}.conv.{n}.weight" for n in (1, 2)}
    assert {"features.conv0.weight", "features.transition1.conv.weight"} <= set(old)


def test_a_missing_tensor_or_another_shape_is_named() -> None:
    state = torch_networks.state_dict("cifar_resnet20")
    x = torch.zeros(1, 3, 32, 32)
    bare = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    assert torch_networks.logits("cifar_resnet20", bare, x).shape == (1, 10)
    without = {key: tensor for key, tensor in bare.items() if key != "layer2.0.bn1.running_var"}
    with pytest.raises(KeyError, match=r"layer2\.0\.bn1\.running_var"):
        torch_networks.logits("cifar_resnet20", without, x)
    turned = bare | {"conv1.weight": bare["conv1.weight"].transpose(0, 1)}
    with pytest.raises(ValueError, match=r"conv1\.weight is \[3, 16, 3, 3\]"):
        torch_networks.logits("cifar_resnet20", turned, x)
