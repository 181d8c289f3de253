"""Letters of a layer order (c: convolution, n: norm, a: activation, p: pool) -> layers.

Legend: B batch, C channels, H height, W width. All tensors are float [B, C, H, W].
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks import depthwise

Padding = Literal["symmetric", "same", "valid"]
Initialisation = Literal["he", "he_truncated", "glorot"]
N = TypeVar("N", bound=nn.Module)


class BatchNorm(nn.BatchNorm2d):
    """A norm that can be frozen: its statistics then stay constant, whoever calls train()."""

    frozen = False

    def train(self, mode: bool = True) -> BatchNorm:
        """Set the mode; a frozen norm stays in evaluation mode."""
        return super().train(mode and not self.frozen)


class Random:
    """A module that draws from `generator` where one is set, else from torch's global generator."""

    generator: torch.Generator | None = None

    def __getstate__(self) -> dict[str, Any]:  # a generator cannot be copied
        return {**self.__dict__, "generator": None}


class Dropout(Random, nn.Dropout):
    """Dropout that can draw from a generator of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if self.generator is None or not self.training or self.p in (0, 1):
            return super().forward(x)
        # As torch computes it on a CPU, so the numbers are those of a global generator
        noise = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * noise.div_(1 - self.p)


def draw_dropout_from(network: nn.Module, generator: torch.Generator) -> None:
    """Let all dropout layers of a network draw from `generator`, in the order of their calls."""
    for module in network.modules():
        if isinstance(module, Random):
            module.generator = generator


@dataclass(frozen=True)
class Norm:
    """The constants of a BatchNorm.

    momentum: weight of the new batch (1 - Keras' momentum).
    scale: whether it has a factor per channel (gamma) besides the offset.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    scale: bool = True

    def layer(self, channels: int) -> BatchNorm:
        """A norm over the channels of [B, channels, H, W]."""
        norm = BatchNorm(channels, eps=self.epsilon, momentum=self.momentum)
        if not self.scale:
            norm.register_parameter("weight", None)
        return norm


PLAIN_NORM = Norm()
KERAS_NORM = Norm(momentum=0.01, epsilon=1e-3)  # Keras' defaults, .99 and 1e-3
APPLICATIONS_NORM = Norm(momentum=0.01, epsilon=1.001e-5)  # of keras.applications' ResNet, DenseNet


def pad_same(x: Tensor, kernel: tuple[int, int], stride: int, value: float) -> Tensor:
    """Pad [B, C, H, W] with `value` by the rule "same". kernel: (height, width)."""
    rows, columns = same_margins(x, kernel, stride)
    return F.pad(x, (*columns, *rows), value=value)


def same_margins(
    x: Tensor, kernel: tuple[int, int], stride: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Margins (top, bottom), (left, right) of [B, C, H, W] under Keras' and TensorFlow's "same".

    The output has ceil(size / stride) pixels; an odd total puts the extra pixel last.
    """
    high, wide = (
        max((math.ceil(size / stride) - 1) * stride + side - size, 0)
        for size, side in zip(x.shape[-2:], kernel, strict=True)
    )
    return (high // 2, high - high // 2), (wide // 2, wide - wide // 2)


class Convolution(nn.Conv2d):
    """A convolution whose padding follows a rule.

    kernel: its side, or (height, width).
    padding: "symmetric" pads half the kernel on all sides (PyTorch, Caffe); "valid" pads nothing;
        "same" pads what Keras computes from the input's size in each forward: for an even size and
        stride 2 that is bottom/right only, so weights trained with one rule do not fit the other.
        An integer is the number of pixels on all sides.
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
        odd = all(side % 2 for side in sides)
        pixels = (0, 0)
        if isinstance(padding, int):
            pixels = (padding, padding)
        elif padding == "symmetric" or (padding == "same" and stride == 1 and odd):
            pixels = (sides[0] // 2, sides[1] // 2)  # at stride 1 the two rules agree
            padding = "symmetric"
        super().__init__(inputs, outputs, sides, stride, pixels, groups=groups, bias=bias)
        self.rule = padding
        self.is_depthwise = inputs == outputs == groups > 1 and not bias

    def padded(self, x: Tensor) -> Tensor:
        """The input with the zeros of the rule "same", which depend on its size."""
        if self.rule != "same":
            return x
        return pad_same(x, self.kernel_size, self.stride[0], 0.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.padded(x)
        if self.is_depthwise and depthwise.is_slow(x, self.weight):
            return depthwise.convolve(x, self.weight, self.stride, self.padding)  # type: ignore[arg-type]
        return super().forward(x)


class Separable(nn.Sequential):
    """A depthwise 3x3 and a pointwise 1x1 convolution, nothing between them (Chollet 2016)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = Convolution(inputs, inputs, 3, groups=inputs)
        self.pointwise = Convolution(inputs, outputs, 1)
        self.out_channels = outputs


class MaxPool(nn.Module):
    """Maximum over kernel x kernel windows.

    padding: a rule of `Convolution`, whose padding counts as -inf; "zeros" (Keras' ResNetV2):
        symmetric zeros that take part; "ceil" (Caffe): no padding, but an incomplete last window
        counts.
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
    """Option A of He 2015, section 4.2: subsample and pad the channels with zeros; no parameters.

    Half of the zeros precede the channels. Raises ResiduaError if outputs < inputs.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        extra = outputs - inputs
        if extra < 0:
            raise ResiduaError(
                f"Shortcut A adds channels of zeros; it cannot make {outputs} of {inputs}. Use B."
            )
        self.stride = stride
        self.before, self.after = extra // 2, extra - extra // 2

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
    norm: Norm = PLAIN_NORM,
    numbered: bool = False,
    activation: type[nn.ReLU | nn.ReLU6] = nn.ReLU,
    pool: nn.Module | None = None,
) -> nn.Sequential:
    """Layers in the order of `letters`: c the next convolution, n a norm, a an activation, p the
    pool.

    channels: width of the input, needed where a norm precedes the first convolution.
    numbered: names are conv1, norm1, conv2, ..., and end_norm, end_act behind the last convolution.
        Otherwise conv, norm, act.
    An activation overwrites its input, except as the first letter: that input is read elsewhere too
    (by the shortcut of relu_only_preactivation).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    remaining, count = list(convolutions), 0
    for position, letter in enumerate(letters):
        if letter == "c":
            convolution = remaining.pop(0)
            count, channels = count + 1, convolution.out_channels
            layers[f"conv{count}" if numbered else "conv"] = convolution
        elif letter == "p":
            assert pool is not None
            layers["pool"] = pool
        else:
            is_norm = letter == "n"
            name = "norm" if is_norm else "act"
            if numbered:
                name = f"{name}{count}" if remaining else f"end_{name}"
            layers[name] = norm.layer(channels) if is_norm else activation(inplace=position > 0)
    return nn.Sequential(layers)


def dense_head(
    inputs: int,
    hidden: Sequence[int],
    classes: int,
    *,
    dropout: float = 0.0,
    before: Container[int] = (),
    after: Container[int] = (),
    norm: Norm | None = None,
) -> nn.Sequential:
    """Linear layers with ReLUs between them: [B, inputs] -> logits [B, classes].

    hidden: widths of the hidden layers. before, after: numbers, from 1, of the hidden layers that
    have dropout there. norm: behind every linear layer, the logits included.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, width in enumerate((*hidden, classes), start=1):
        if number in before:
            layers[f"dropout{number}"] = Dropout(dropout)
        layers[f"linear{number}"] = nn.Linear(inputs, width)
        if norm is not None:
            layers[f"norm{number}"] = nn.BatchNorm1d(width, norm.epsilon, norm.momentum)
        if number <= len(hidden):
            layers[f"act{number}"] = nn.ReLU(inplace=True)
        if number in after:
            layers[f"dropout{number}"] = Dropout(dropout)
        inputs = width
    return nn.Sequential(layers)


def initialise(network: N, rule: Initialisation) -> N:
    """Fill kernels in place and return the network; norms start at 1 and 0, biases of
    convolutions at 0.

    "he": normal, fan out (He et al. 2015, "Delving deep into rectifiers", eq. 14), and PyTorch's
    default for linear layers. "he_truncated": Keras' he_normal, fan in, cut at two sigma.
    "glorot": Keras' default, glorot_uniform.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or module.weight.is_meta:
            continue  # "meta" tensors hold no numbers, and drawing for them is slow
        if rule == "glorot":
            nn.init.xavier_uniform_(module.weight)
        elif rule == "he_truncated":
            fan = module.weight[0].numel()
            sigma = math.sqrt(2 / fan) / 0.87962566103423978  # the cut shrinks sigma by this factor
            nn.init.trunc_normal_(module.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        elif isinstance(module, nn.Conv2d):
            fan = module.weight.numel() // (module.weight.shape[1] * module.groups)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
