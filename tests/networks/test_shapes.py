"""On "meta" networks have the shapes of a real forward, and no memory."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.slow
def test_the_cost_of_a_network_is_known_without_sympy() -> None:
    """PyTorch imports it for many operations on "meta", which takes half a second."""
    code = (
        "import sys; from residua.networks.analysis.cost import measure; "
        "from residua.networks.zoo.catalogue import build; "
        "measure(build('efficientnet_lite0'), (3, 224, 224)); "
        "sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2), (5, 5)])
def test_shapes_of_convolutions_and_linear_layers_are_those_of_pytorch(
    kernel: tuple[int, int], stride: int
) -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 6, kernel, stride, padding=(1, 0), dilation=(2, 1), groups=2),
        nn.Flatten(2),
        nn.LazyLinear(5),
    )
    x = torch.zeros(2, 4, 12, 9)
    expected = layers(x).shape
    with on_meta() as shapes:
        assert weightless(layers)(torch.empty(x.shape)).shape == expected
    pixels = layers[0](x)[0].numel()
    work = 2 * (pixels * 2 * kernel[0] * kernel[1] + 6 * 5 * layers[2].in_features)
    assert shapes.multiply_adds == work
    with on_meta(), pytest.raises(RuntimeError, match="channel"):
        weightless(layers[0])(torch.empty(2, 3, 12, 9))
    with on_meta(), pytest.raises(RuntimeError, match="size"):
        weightless(nn.Conv2d(4, 6, 5))(torch.empty(2, 4, 4, 4))
