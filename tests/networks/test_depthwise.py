"""Depthwise convolutions in bf16: the gradients are PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.networks import depthwise
from residua.networks.layers import Convolution


@settings(deadline=None)
@given(
    channels=st.integers(2, 9),
    height=st.integers(5, 17),
    width=st.integers(5, 17),
    kernel=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    batch=st.integers(1, 3),
)
def test_gradients_are_those_of_pytorch_in_float32(
    channels: int,
    height: int,
    width: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    batch: int,
) -> None:
    if kernel[0] > height + 2 * padding[0] or kernel[1] > width + 2 * padding[1]:
        return
    generator = torch.Generator().manual_seed(0)
    # whole numbers that bf16 represents exactly, as all their sums here
    x = torch.randint(-2, 3, (batch, channels, height, width), generator=generator).float()
    weight = torch.randint(-1, 2, (channels, 1, *kernel), generator=generator).float()
    own = [tensor.clone().requires_grad_() for tensor in (x, weight)]
    plain = [tensor.clone().requires_grad_() for tensor in (x, weight)]
    y = depthwise.convolve(own[0], own[1], stride, padding)
    expected = F.conv2d(plain[0], plain[1], None, stride, padding, 1, channels)
    gradient = torch.randint(-1, 2, expected.shape, generator=generator).float()
    y.backward(gradient.to(y.dtype))
    expected.backward(gradient)
    assert y.dtype == torch.bfloat16
    for mine, theirs in zip(own, plain, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad.bfloat16().float())


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_a_layer_uses_them_under_autocast_only(padding: str) -> None:
    layer = Convolution(8, 8, 5, stride=2, groups=8, padding=padding)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 12, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    assert "Depthwise" in str(mixed.grad_fn)
    assert layer(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(layer(x), mixed)


def test_only_the_gradients_that_are_needed_are_computed() -> None:
    layer = Convolution(4, 4, 3, groups=4)
    layer.weight.requires_grad_(False)
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
