"""The alphabet of the networks: convolution with its padding rule, norm, activation, chains.

Legend: B batch, C channels, H height, W width. All tensors are float [B, C, H, W].
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.errors import ResiduaError

Padding = Literal["symmetric", "same", "valid"]
Initialisation = Literal["he", "he_truncated", "glorot"]


class BatchNorm(nn.BatchNorm2d):
    """A norm that can be frozen: its statistics then stay as they are, whoever calls train()."""

    frozen = False

    def train(self, mode: bool = True) -> BatchNorm:
        """As of every module, but a frozen norm stays in evaluation mode."""
        return super().train(mode and not self.frozen)


@dataclass(frozen=True)
class Norm:
    """BatchNorm's constants: `momentum` is the weight of the new batch (1 - Keras' momentum).

    scale: whether it has a factor for each channel (gamma) besides the offset.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    scale: bool = True

    def layer(self, channels: int) -> BatchNorm:
        """A norm over `channels` channels of [B, C, H, W]."""
        norm = BatchNorm(channels, eps=self.epsilon, momentum=self.momentum)
        if not self.scale:
            norm.register_parameter("weight", None)
        return norm


PLAIN_NORM = Norm()
KERAS_NORM = Norm(momentum=0.01, epsilon=1e-3)  # Keras' defaults, .99 and 1e-3
APPLICATIONS_NORM = Norm(momentum=0.01, epsilon=1.001e-5)  # of keras.applications' ResNet, DenseNet


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after an axis of `size` under TensorFlow's and Keras' "same" rule.

    The output has ceil(size / stride) places; an odd number of pixels puts the extra one last.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: tuple[int, int], stride: int, value: float) -> Tensor:
    """[B, C, H, W] with what that rule adds around it."""
    sizes = zip(x.shape[-2:], kernel, strict=True)
    rows, columns = (same_padding(size, side, stride) for size, side in sizes)
    return F.pad(x, (*columns, *rows), value=value)


class Convolution(nn.Conv2d):
    """A convolution whose padding follows a rule, or is a number of pixels.

    "symmetric" pads half of the kernel on all sides (PyTorch, Caffe), "valid" nothing, "same" what
    Keras computes from the input's size in each forward: for an even size and stride 2 that is
    bottom/right only, so "symmetric" weights and "same" weights do not mix. kernel: its side, or
    (height, width).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: Padding | int = "symmetric",
    ) -> None:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        pixels = (0, 0)
        if isinstance(padding, int):
            pixels = (padding, padding)
        elif padding == "symmetric" or (padding == "same" and stride == 1 and _odd(sides)):
            pixels = (sides[0] // 2, sides[1] // 2)  # at stride 1 the two rules agree
            padding = "symmetric"
        super().__init__(inputs, outputs, sides, stride, pixels, groups=groups, bias=bias)
        self.rule = padding

    def padded(self, x: Tensor) -> Tensor:
        """The input with those zeros around it that depend on its size."""
        if self.rule != "same":
            return x
        return pad_same(x, self.kernel_size, self.stride[0], 0.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.padded(x))


def _odd(sides: tuple[int, int]) -> bool:
    return sides[0] % 2 == 1 and sides[1] % 2 == 1


class Separable(nn.Sequential):
    """A depthwise 3x3 and a pointwise 1x1 convolution with nothing between (Chollet 2016)."""

    def __init__(self, inputs: int, outputs: int, *, padding: Padding = "symmetric") -> None:
        super().__init__()
        self.depthwise = Convolution(inputs, inputs, 3, groups=inputs, padding=padding)
        self.pointwise = Convolution(inputs, outputs, 1)
        self.out_channels = outputs


class MaxPool(nn.Module):
    """Maximum over kernel x kernel windows.

    Padding never wins (it counts as -inf), but in "zeros", Keras' ResNetV2: symmetric zeros that
    take part. "ceil": no padding, and a last window that does not fit whole counts (Caffe).
    """

    def __init__(
        self,
        kernel: int,
        stride: int,
        padding: Padding | Literal["zeros", "ceil"] = "symmetric",
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.rule = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        half, rule = self.kernel // 2, self.rule
        if rule == "zeros":
            x = F.pad(x, (half, half, half, half))
        elif rule == "same":
            x = pad_same(x, (self.kernel, self.kernel), self.stride, -math.inf)
        pixels = half if rule == "symmetric" else 0
        return F.max_pool2d(x, self.kernel, self.stride, pixels, ceil_mode=rule == "ceil")

    def extra_repr(self) -> str:
        return f"{self.kernel}, stride={self.stride}, padding={self.rule}"


class ZeroPadShortcut(nn.Module):
    """Option A of He 2015, section 4.2: subsample, new channels are zero; no parameters."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, place: Literal["both", "end"]
    ) -> None:
        super().__init__()
        extra = outputs - inputs
        if extra < 0:
            raise ResiduaError(
                f"Shortcut A adds channels of zeros; it cannot make {outputs} of {inputs}. Use B."
            )
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
    convolutions: Sequence[Convolution | Separable] = (),
    *,
    channels: int = 0,
    norm: Norm,
    numbered: bool = False,
    activation: type[nn.ReLU | nn.ReLU6] = nn.ReLU,
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
            layers[f"{prefix}act{suffix}"] = activation(inplace=place > 0)
    return nn.Sequential(layers)


def initialise(network: nn.Module, rule: Initialisation) -> None:
    """Fill kernels in place; norms start at 1 and 0, biases of convolutions at 0.

    "he": normal, fan out (He et al. 2015, "Delving deep into rectifiers", eq. 14), and PyTorch's
    rule for linear layers. "he_truncated": Keras' he_normal, fan in, cut at two sigma.
    "glorot": Keras' default, glorot_uniform.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or module.weight.is_meta:
            continue  # what is on "meta" holds no numbers, and asking for some takes long
        if rule == "glorot":
            nn.init.xavier_uniform_(module.weight)
        elif rule == "he_truncated":
            fan = module.weight[0].numel()
            sigma = math.sqrt(2 / fan) / 0.87962566103423978  # the cut takes that much of sigma
            nn.init.trunc_normal_(module.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        elif isinstance(module, nn.Conv2d):
            fan = module.weight.numel() // (module.weight.shape[1] * module.groups)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def in_turn(stages: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """What each stage makes of what the one before it made, the first of x."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


def global_average(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C], the mean over the map."""
    return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
