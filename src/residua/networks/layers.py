"""The alphabet of the networks: convolution with its padding rule, norm, activation, chains.

Legend: B batch, C channels, H height, W width. All tensors are float [B, C, H, W].
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["symmetric", "same", "valid"]
Initialisation = Literal["he", "he_truncated", "glorot"]


@dataclass(frozen=True)
class Norm:
    """BatchNorm's constants: `momentum` is the weight of the new batch (1 - Keras' momentum)."""

    momentum: float = 0.1
    epsilon: float = 1e-5

    def layer(self, channels: int) -> nn.BatchNorm2d:
        """A norm over `channels` channels of [B, C, H, W]."""
        return nn.BatchNorm2d(channels, eps=self.epsilon, momentum=self.momentum)


PLAIN_NORM = Norm()
KERAS_NORM = Norm(momentum=0.01, epsilon=1e-3)  # Keras' defaults, .99 and 1e-3


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after an axis of `size` under TensorFlow's and Keras' "same" rule.

    The output has ceil(size / stride) places; an odd number of pixels puts the extra one last.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Convolution(nn.Conv2d):
    """A square convolution whose padding follows a rule instead of a number.

    "symmetric" pads kernel // 2 on all sides (PyTorch, Caffe), "valid" nothing, "same" what Keras
    computes from the input's size in each forward: for an even size and stride 2 that is
    bottom/right only, so "symmetric" weights and "same" weights do not mix.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: Padding = "symmetric",
    ) -> None:
        pixels = kernel // 2 if padding == "symmetric" else 0
        super().__init__(inputs, outputs, kernel, stride, pixels, groups=groups, bias=bias)
        self.rule: Padding = padding

    def forward(self, x: Tensor) -> Tensor:
        if self.rule != "same":
            return super().forward(x)
        (top, bottom), (left, right) = (
            same_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[-2:]
        )
        if (top, left) != (bottom, right):
            x = F.pad(x, (left, right, top, bottom))
            top = left = 0
        return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), 1, self.groups)


class MaxPool(nn.Module):
    """Maximum over kernel x kernel windows; padding never wins (it counts as -inf)."""

    def __init__(self, kernel: int, stride: int, padding: Padding = "symmetric") -> None:
        super().__init__()
        self.kernel, self.stride, self.rule = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        if self.rule != "same":
            pixels = self.kernel // 2 if self.rule == "symmetric" else 0
            return F.max_pool2d(x, self.kernel, self.stride, pixels)
        (top, bottom), (left, right) = (
            same_padding(size, self.kernel, self.stride) for size in x.shape[-2:]
        )
        x = F.pad(x, (left, right, top, bottom), value=-math.inf)
        return F.max_pool2d(x, self.kernel, self.stride)

    def extra_repr(self) -> str:
        return f"{self.kernel}, stride={self.stride}, padding={self.rule}"


class ZeroPadShortcut(nn.Module):
    """Option A of He 2015, section 4.2: subsample, new channels are zero; no parameters."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, place: Literal["both", "end"]
    ) -> None:
        super().__init__()
        extra = outputs - inputs
        self.stride = stride
        self.before = extra // 2 if place == "both" else 0
        self.after = extra - self.before

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, zeros={self.before}+{self.after}"


def chain(
    letters: str,
    convolutions: Sequence[Convolution] = (),
    *,
    channels: int = 0,
    norm: Norm,
    numbered: bool = False,
) -> nn.Sequential:
    """Layers in the order of `letters`: c takes the next convolution, n is a norm, a is a ReLU.

    channels: width of the input, needed where a norm comes before the first convolution.
    numbered: names are conv1, norm1, conv2, ...; the letters behind the last convolution are
    end_norm and end_act. Otherwise conv, norm, act. A ReLU overwrites its input, except as the
    first letter: there its input belongs to someone else (the shortcut of ordering d reads it).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    waiting, count = list(convolutions), 0
    for place, letter in enumerate(letters):
        if letter == "c":
            convolution = waiting.pop(0)
            count, channels = count + 1, convolution.out_channels
            layers[f"conv{count}" if numbered else "conv"] = convolution
            continue
        if not numbered:
            prefix, suffix = "", ""
        elif waiting:
            prefix, suffix = "", str(count)
        else:
            prefix, suffix = "end_", ""
        if letter == "n":
            layers[f"{prefix}norm{suffix}"] = norm.layer(channels)
        else:
            layers[f"{prefix}act{suffix}"] = nn.ReLU(inplace=place > 0)
    return nn.Sequential(layers)


def initialise(network: nn.Module, rule: Initialisation) -> None:
    """Fill kernels in place; norms start at 1 and 0, biases of convolutions at 0.

    "he": normal, fan out (He et al. 2015, "Delving deep into rectifiers", eq. 14), and PyTorch's
    rule for linear layers. "he_truncated": Keras' he_normal, fan in, cut at two sigma.
    "glorot": Keras' default, glorot_uniform.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if rule == "glorot":
            nn.init.xavier_uniform_(module.weight)
        elif rule == "he_truncated":
            fan = module.weight[0].numel()
            sigma = math.sqrt(2 / fan) / 0.87962566103423978  # the cut takes that much of sigma
            nn.init.trunc_normal_(module.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def global_average(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C], the mean over the map."""
    return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
