"""Folded norms change the layers and nothing that they compute."""

from __future__ import annotations

import copy

import pytest
import torch
from references.worn_networks import ARCHITECTURES, NORMS, close, images, worn

from residua.networks.surgery.folding import fold_norms_

pytestmark = pytest.mark.usefixtures("one_thread")


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
