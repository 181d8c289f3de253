"""On "meta" networks have the shapes of a real forward, and no memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from residua.networks.analysis.shapes import on_meta, weightless
from residua.networks.zoo import catalogue

pytestmark = pytest.mark.usefixtures("one_thread")


def test_shapes_are_those_of_a_real_forward() -> None:
    network = catalogue.build("cifar_resnet14", ordering="d", shortcut="D", seed=0).eval()
    x = torch.randn(1, 3, 33, 32)
    with torch.inference_mode():
        shapes = [y.shape for y in (*network.features(x), network(x))]
    with on_meta():
        skeleton = weightless(network)
        y = torch.empty(1, 3, 33, 32)
        assert [z.shape for z in (*skeleton.features(y), skeleton(y))] == shapes


def test_multiply_adds_are_counted_once_per_run() -> None:
    with on_meta() as shapes:
        layer = nn.Conv2d(2, 4, 3, bias=False)
        layer(torch.empty(1, 2, 5, 5))
        assert shapes.multiply_adds == 3 * 3 * 4 * 2 * 9
        nn.Linear(4, 5)(torch.empty(1, 4))
    assert shapes.multiply_adds == 648 + 20


def test_a_weightless_copy_holds_no_memory_and_leaves_the_network_as_it_was() -> None:
    network = catalogue.build("cifar_resnet14").half().train()
    network.head.weight.requires_grad = False
    skeleton = weightless(network)
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())
    assert {weight.dtype for weight in skeleton.parameters()} == {torch.float32}
    assert [key for key, weight in skeleton.named_parameters() if not weight.requires_grad] == [
        "head.weight"
    ]
    assert not skeleton.training
    assert network.training
    assert not any(tensor.is_meta for tensor in network.state_dict().values())


def test_an_in_place_relu_returns_its_input() -> None:
    with on_meta():
        x = torch.empty(2, 3)
        assert nn.ReLU(inplace=True)(x) is x
        assert nn.ReLU()(x) is not x
