"""Folded norms, and fused sums and ReLUs, change the layers and nothing that they compute."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from references.worn_networks import ARCHITECTURES, NORMS, close, images, wear, worn
from torch import nn

from residua.config.schema import Ordering, Shortcut
from residua.networks.layers import Convolution
from residua.networks.surgery.folding import FusedConvolution, FusedUnit, fold_norms_, fuse
from residua.networks.zoo import catalogue
from residua.system.generators import Seeded

pytestmark = pytest.mark.usefixtures("one_thread")
FUSED = torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_folding_changes_nothing_but_the_layers(name: str) -> None:
    network, x = worn(name), images(name)
    changed = copy.deepcopy(network)
    given = dict(changed.state_dict())  # as the tensors of a weights file, which others use too
    quick = fold_norms_(changed, "fp32")
    with torch.inference_mode():
        maps = zip(quick.features(x), network.features(x), strict=True)
        for number, (result, expected) in enumerate(maps, start=1):
            assert close(result, expected, 1e-4), number
        assert close(quick(x), network(x), 1e-4)
    norms, remaining = (
        sum(isinstance(module, NORMS) for module in either.modules()) for either in (network, quick)
    )
    assert remaining < norms or norms == 0
    assert not any(weight.requires_grad for weight in quick.parameters())
    assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in given.items())


def test_bf16_rounds_the_kernels_and_neither_norms_nor_head() -> None:
    quick = fold_norms_(copy.deepcopy(worn("preact_resnet18")), "bf16")
    dtypes = {key: tensor.dtype for key, tensor in quick.state_dict().items()}
    assert dtypes["stages.0.units.0.before.norm.weight"] == torch.float32
    assert dtypes["head.weight"] == torch.float32
    kernels = [dtype for key, dtype in dtypes.items() if key.endswith("conv1.weight")]
    kernels += [dtype for key, dtype in dtypes.items() if key.endswith("convolution.weight")]
    assert set(kernels) == {torch.bfloat16}


def test_folding_takes_a_network_in_training_mode() -> None:
    network = copy.deepcopy(worn("cifar_resnet14")).train()
    x = images("cifar_resnet14")
    with torch.inference_mode():
        assert close(fold_norms_(network, "fp32")(x), worn("cifar_resnet14")(x), 1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shortcut", get_args(Shortcut))
@pytest.mark.parametrize("ordering", get_args(Ordering))
def test_units_are_fused_where_nothing_is_between(
    ordering: Ordering, shortcut: Shortcut, precision: str
) -> None:
    fused = FUSED
    if precision == "bf16":
        fused = fused and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    network = wear(catalogue.build("cifar_resnet14", ordering=ordering, shortcut=shortcut, seed=0))
    x = images("cifar_resnet14")
    quick = fold_norms_(copy.deepcopy(network), precision)
    dtype, tolerance = (torch.float32, 1e-4) if precision == "fp32" else (torch.bfloat16, 0.05)
    with torch.inference_mode():
        result = quick.between(x.to(dtype), 0, 3).float()
        assert close(result, network.eval().between(x, 0, 3), tolerance)
    sums = [module for module in quick.modules() if isinstance(module, FusedUnit)]
    between = ordering in ("bn_after_addition", "relu_before_addition")
    assert len(sums) == (6 if fused and not between and shortcut != "none" else 0)
    if fused and ordering == "original" and shortcut != "none":
        assert not any(isinstance(module, nn.ReLU) for module in quick.modules())


@pytest.mark.skipif(not FUSED, reason="needs oneDNN")
def test_a_convolution_takes_the_relu_or_relu6_behind_it_and_no_other_layer() -> None:
    with Seeded(4):  # weights with which ReLU6 cuts some values
        layers = nn.Sequential(
            *(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU6()),
            *(nn.Conv2d(3, 3, 1), nn.ELU(), nn.Conv2d(3, 2, 1)),
        )
    x = 20 * torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert layers[:4](x).max() == 6
        expected = layers(x)
        fuse(layers)
        assert close(layers(x), expected, 1e-5)
    fused = [layer for layer in layers if isinstance(layer, FusedConvolution)]
    assert [layer.activation for layer in fused] == ["relu", "hardtanh", "none", "none"]
    others = [type(layer) for layer in layers if layer not in fused]
    assert others == [nn.Identity, nn.Identity, nn.ELU]


@pytest.mark.skipif(not FUSED, reason="needs oneDNN")
@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_a_fused_convolution_pads_as_the_rule_of_keras_does(size: int, kernel: int) -> None:
    layer = Convolution(3, 8, kernel, stride=2, padding="same")
    x = torch.randn(2, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert close(FusedConvolution(layer, "none")(x), layer(x), 1e-5)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_nothing_is_fused_where_onednn_is_off() -> None:
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    with torch.backends.mkldnn.flags(enabled=False):
        fuse(layers)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.ReLU]
