"""EfficientNet-Lite0 in plain functions, from the tensors as the weights package names them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDES = {0: 1, 1: 2, 3: 2, 5: 2, 11: 2}  # of the first block of a row; all others have 1
LAST_BLOCKS = (0, 2, 4, 7, 10, 14, 15)  # of the seven rows


def convolve(x: Tensor, kernel: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """TensorFlow's padding "same"."""
    side, (height, width) = kernel.shape[-1], x.shape[-2:]
    pads = [max((math.ceil(n / stride) - 1) * stride + side - n, 0) for n in (width, height)]
    x = F.pad(x, [pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2])
    return F.conv2d(x, kernel, stride=stride, groups=groups)


def normalise(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{key}"][:, None, None]
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-3) * weight + bias


def block(x: Tensor, state: Mapping[str, Tensor], number: int) -> Tensor:
    prefix, y = f"_blocks.{number}", x
    if f"{prefix}._expand_conv.weight" in state:
        y = convolve(y, state[f"{prefix}._expand_conv.weight"])
        y = normalise(y, state, f"{prefix}._bn0").clamp(0, 6)
    stride = STRIDES.get(number, 1)
    y = convolve(y, state[f"{prefix}._depthwise_conv.weight"], stride, groups=y.shape[1])
    y = normalise(y, state, f"{prefix}._bn1").clamp(0, 6)
    y = normalise(convolve(y, state[f"{prefix}._project_conv.weight"]), state, f"{prefix}._bn2")
    return x + y if y.shape == x.shape else y


def outputs(x: Tensor, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The map after each row of blocks (the last one after the head convolution), the logits."""
    x = normalise(convolve(x, state["_conv_stem.weight"], 2), state, "_bn0").clamp(0, 6)
    for number in range(16):
        x = block(x, state, number)
        if number in LAST_BLOCKS[:-1]:
            yield x
    x = normalise(convolve(x, state["_conv_head.weight"]), state, "_bn1").clamp(0, 6)
    yield x
    yield x.mean((2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]
