"""Depthwise convolutions in bf16 on a CPU, with gradients that are as fast as the forward pass.

PyTorch computes some of these gradients many times as slowly as the forward pass: of weights larger
than 3 x 3, and of inputs at stride 2. Here they are made of operations that it has fast kernels
for: weight gradients of 3 x 3 blocks, and a convolution of the spread output gradient. Measured in
benchmarks/results/depthwise.txt.

Legend: B batch, C channels, H, W height and width; h, w those of the kernel, Ho, Wo of the output.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 3  # side of the largest kernel whose weight gradient is fast

Pair = tuple[int, int]


def is_slow(x: Tensor, weight: Tensor) -> bool:
    """Whether PyTorch's gradients of a depthwise convolution would be slow: in bf16 on a CPU.

    x: [B, C, H, W]. weight: [C, 1, h, w].
    """
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    if min(weight.shape[2:]) < _BLOCK or not (x.requires_grad or weight.requires_grad):
        return False
    is_mixed = torch.is_autocast_enabled("cpu")
    return (torch.get_autocast_dtype("cpu") if is_mixed else x.dtype) == torch.bfloat16


def convolve(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """As F.conv2d with as many groups as channels, in bf16: [B, C, H, W] -> [B, C, Ho, Wo].

    weight: [C, 1, h, w], h and w at least 3. padding: less than h and w.
    """
    x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
    return _Depthwise.apply(x, weight, stride, padding)  # type: ignore[no-any-return, no-untyped-call]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    """[B, C, H, W]: the flipped kernel on the output gradient with zeros between its pixels."""
    sides = [
        size + 2 * pad - kernel + 1  # of the output at stride 1
        for size, pad, kernel in zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    ]
    if sides != list(gradient.shape[2:]):
        spread = torch.empty(
            (*gradient.shape[:2], *sides),
            dtype=gradient.dtype,
            memory_format=torch.channels_last,
        ).zero_()
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = spread
    margins = [kernel - 1 - pad for kernel, pad in zip(weight.shape[2:], padding, strict=True)]
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, margins, 1, len(weight))


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    """[C, 1, h, w], a block of 3 x 3 after the other; of a 5 x 5 kernel these overlap."""
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (
        step * (side - 1) + _BLOCK  # of the input that a block meets
        for step, side in zip(stride, gradient.shape[2:], strict=True)
    )
    result = torch.empty_like(weight)
    block = weight[:, :, :_BLOCK, :_BLOCK].contiguous()
    for top in _starts(weight.shape[2]):
        for left in _starts(weight.shape[3]):
            met = padded[:, :, top : top + rows, left : left + columns]
            _, of_block, _ = torch.ops.aten.convolution_backward(
                gradient,
                met,
                block,
                None,
                stride,
                (0, 0),
                (1, 1),
                False,
                (0, 0),
                len(weight),
                (False, True, False),
            )
            result[:, :, top : top + _BLOCK, left : left + _BLOCK] = of_block
    return result


def _starts(side: int) -> list[int]:
    """Where blocks begin that cover a side of a kernel."""
    return sorted({min(start, side - _BLOCK) for start in range(0, side, _BLOCK)})
