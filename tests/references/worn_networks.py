"""A name -> a network as training leaves it: no norm has its initial statistics or factors."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from references.network_checks import narrow_spec
from residua.networks.analysis.cost import smallest_input
from residua.networks.staged import Staged
from residua.networks.zoo import catalogue

ARCHITECTURES = (
    *("cifar_resnet14", "preact_resnet18", "vgg11", "alexnet", "mobilenet_v1"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "googlenet")),
    pytest.param("xception", marks=pytest.mark.slow),
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@cache
def worn(name: str) -> Staged:
    """The narrowed network in evaluation mode; shared by tests, so not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        narrow_spec(name, patch)
        return wear(catalogue.build(name, seed=3).eval())


def wear(network: Staged) -> Staged:
    """Draw all statistics and factors of the norms, in place."""
    generator = torch.Generator().manual_seed(5)
    for norm in (module for module in network.modules() if isinstance(module, NORMS)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0, 0.3, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(0, 0.3, generator=generator)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.fill_(7)
    return network


@cache
def images(name: str) -> Tensor:
    """Two random images that the network accepts."""
    size = max(40, smallest_input(worn(name)))
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def close(result: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether they differ by at most this share of the largest expected value."""
    return bool((result - expected).abs().max() <= tolerance * expected.abs().max())
