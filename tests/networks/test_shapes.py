"""On "meta" networks have the shapes of a real forward, and no memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
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


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w: torch.cat([x, x], axis=1),
        lambda x, w: x[:, torch.cat([torch.tensor([0]), torch.tensor([1])])],
        lambda x, w: F.conv2d(input=x, weight=w),
        lambda x, w: F.conv2d(x, w, padding=(1,)),
        lambda x, w: F.max_pool2d(x, (2,)),
        lambda x, w: F.avg_pool2d(input=x, kernel_size=2),
        lambda x, w: F.linear(input=x, weight=w[:, 0, 0].repeat(1, 3)),
    ],
)
def test_a_users_network_may_spell_arguments_as_pytorch_allows(
    call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    shape = call(torch.zeros(2, 3, 9, 9), torch.zeros(4, 3, 3, 3)).shape
    with on_meta():
        assert call(torch.empty(2, 3, 9, 9), torch.empty(4, 3, 3, 3)).shape == shape


def test_an_in_place_relu_returns_its_input() -> None:
    with on_meta():
        x = torch.empty(2, 3)
        assert nn.ReLU(inplace=True)(x) is x
        assert nn.ReLU()(x) is not x


small = st.integers(1, 4)


@given(
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(small, small),
    stride=small,
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    ceil=st.booleans(),
)
def test_windows_have_the_shapes_of_a_real_forward_or_are_refused_like_there(
    sides: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    ceil: bool,
) -> None:
    layers = [nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups)]
    if 2 * padding <= min(kernel):  # what pooling demands
        layers += [
            nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil),
            nn.AvgPool2d(kernel, stride, padding, ceil),
        ]
    for layer in layers:

        def shape_of(device: str, layer: nn.Module = layer) -> torch.Size | None:
            try:
                return layer.to(device)(torch.zeros(1, 4, *sides, device=device)).shape
            except RuntimeError:
                return None

        real = shape_of("cpu")
        with on_meta():
            assert shape_of("meta") == real


@pytest.mark.slow
def test_counting_does_not_import_the_compiler() -> None:
    """PyTorch's versions on "meta" import sympy, which takes more than a second."""
    code = (
        "import sys; from residua.networks.analysis.cost import costs_of, measure, smallest_input\n"
        "from residua.networks.zoo import catalogue\n"
        "from residua.config.schema import NetworkSpec\n"
        "for name in ('resnet50d', 'densenet121', 'alexnet_2012', 'efficientnet_lite0'):\n"
        "    measure(catalogue.build(name), (3, 224, 224))\n"
        "costs_of(NetworkSpec('resnet18', 10, 3), 224)\n"
        "smallest_input(catalogue.build('vgg11'))\n"
        "assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
