"""A seed gives the numbers of torch.manual_seed, and leaves the generators of torch alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import residua
from residua.system.generators import Seeded


def layers() -> list[Tensor]:
    """Layers with all kinds of initialisation."""
    convolution, linear = nn.Conv2d(3, 40, 3), nn.Linear(30, 7)
    truncated = nn.init.trunc_normal_(torch.empty(50, 50), std=0.1)
    uniform, normal = nn.init.xavier_uniform_(torch.empty(9, 9)), nn.init.normal_(torch.empty(99))
    return [*convolution.parameters(), *linear.parameters(), truncated, uniform, normal]


def test_layers_are_those_of_the_global_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = layers()
    with Seeded(7):
        drawn = layers()
    for one, other in zip(drawn, expected, strict=True):
        assert torch.equal(one, other)


def test_the_global_generator_is_neither_read_nor_changed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = residua.build("cifar_resnet14", seed=3).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        second = residua.build("cifar_resnet14", seed=3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_threads_build_the_same_network_at_once() -> None:
    def build(_: int) -> Tensor:
        return residua.build("cifar_resnet14", seed=0).state_dict()["stem.conv.weight"]

    with ThreadPoolExecutor(6) as pool:
        first, *others = pool.map(build, range(18))
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_networks_are_built_on_the_default_device(device: str) -> None:
    with torch.device(device):
        network = residua.build("cifar_resnet14", seed=0)
    assert next(network.parameters()).device.type == device
