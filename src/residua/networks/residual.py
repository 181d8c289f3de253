"""Batch [B, C, H, W] -> logits [B, K]: the residual unit as a grammar, and its networks.

    unit(x) = after(branch(before(x)) + shortcut(x or before(x)))

Between two convolutions there is always norm, act. The five orderings of He et al. 2016 ("Identity
Mappings in Deep Residual Networks", figure 4) differ only in where one more pair of letters stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from residua.networks.layers import (
    PLAIN_NORM,
    Convolution,
    Initialisation,
    MaxPool,
    Norm,
    Padding,
    ZeroPadShortcut,
    chain,
    initialise,
)
from residua.networks.staged import Staged

Ordering = Literal["a", "b", "c", "d", "e"]
Shortcut = Literal["none", "A", "B", "D"]
Bias = Literal["none", "all", "where no norm follows"]


@dataclass(frozen=True)
class Letters:
    """Where the pair "na" of one ordering stands; c convolution, n norm, a activation."""

    before: str
    end: str
    after: str


ORDERINGS: dict[Ordering, Letters] = {
    "a": Letters("", "n", "a"),  # original
    "b": Letters("", "", "na"),  # BN after addition
    "c": Letters("", "na", ""),  # ReLU before addition
    "d": Letters("a", "n", ""),  # ReLU-only pre-activation
    "e": Letters("na", "", ""),  # full pre-activation
}


@dataclass(frozen=True)
class Kernel:
    """One convolution of a branch: its side, its width, whether it strides or is grouped."""

    side: int
    width: Literal["inner", "output"]
    strided: bool = False
    grouped: bool = False


Branch = tuple[Kernel, ...]
BASIC: Branch = (Kernel(3, "output", strided=True), Kernel(3, "output"))
BOTTLENECK_V1: Branch = (
    Kernel(1, "inner", strided=True),
    Kernel(3, "inner", grouped=True),
    Kernel(1, "output"),
)
BOTTLENECK: Branch = (  # "v1.5": the 3x3 strides
    Kernel(1, "inner"),
    Kernel(3, "inner", strided=True, grouped=True),
    Kernel(1, "output"),
)


@dataclass(frozen=True)
class Stem:
    """What comes before the first stage. letters None: derived from the ordering."""

    kernel: int = 7
    width: int = 64
    stride: int = 2
    pool: int = 3
    letters: str | None = None
    padding: Padding = "symmetric"
    pool_padding: Padding | Literal["zeros"] = "symmetric"
    bias: bool = False


IMAGENET_STEM = Stem()
CIFAR_STEM = Stem(kernel=3, width=16, stride=1, pool=0)


@dataclass(frozen=True)
class Residual:
    """A residual network in full. Presets are rows of the catalogue; nothing here is a preset.

    units, outputs, inner, strides: per stage, the number of units, the width of their output, the
        width inside their branch, the stride of the strided one.
    strided_branch: another branch for units that stride.
    strided_unit: which unit of a stage strides; a "last" one has its width already, and its
        shortcut only subsamples (Keras' ResNetV2).
    bias: which convolutions of the units have one.
    tail: letters between the last stage and the pooling; None: derived from the ordering.
    shortcut: where the shape changes, "A" zero-pad, "B" projection, "D" average-pool + projection;
        "none" removes every shortcut, the identity too: the plain network.
    projection_norm: None: a norm where the end of the branch holds one.
    projection_tap: what a shape-changing shortcut reads: before(x), or x itself.
    first_tap: the same for an identity in the very first unit (He 2016's code reads before(x)).
    """

    units: tuple[int, ...]
    outputs: tuple[int, ...]
    branch: Branch = BASIC
    inner: tuple[int, ...] = ()
    strides: tuple[int, ...] = (1, 2, 2, 2)
    strided_branch: Branch | None = None
    strided_unit: Literal["first", "last"] = "first"
    groups: int = 1
    ordering: Ordering = "a"
    shortcut: Shortcut = "B"
    stem: Stem = IMAGENET_STEM
    tail: str | None = None
    bias: Bias = "none"
    norm: Norm = PLAIN_NORM
    padding: Padding = "symmetric"
    projection_norm: bool | None = None
    projection_tap: Literal["before", "input"] = "before"
    first_tap: Literal["before", "input"] = "input"
    zero_place: Literal["both", "end"] = "both"
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> ResNet:
        """A freshly initialised network for [B, channels, H, W] with `classes` logits."""
        return ResNet(self, classes, channels)


class ResidualUnit(nn.Module):
    """after(branch(before(x)) + shortcut(x or before(x))): [B, C, H, W] -> [B, C', H/s, W/s]."""

    def __init__(self, plan: Residual, stage: int, inputs: int, stride: int, first: bool) -> None:
        super().__init__()
        letters, outputs = ORDERINGS[plan.ordering], plan.outputs[stage]
        convolutions = list(_branch_convolutions(plan, stage, inputs, stride))
        between = "na".join("c" * len(convolutions))
        changes = stride != 1 or inputs != outputs
        self.before = chain(letters.before, channels=inputs, norm=plan.norm)
        self.branch = chain(between + letters.end, convolutions, norm=plan.norm, numbered=True)
        self.after = chain(letters.after, channels=outputs, norm=plan.norm)
        self.shortcut: nn.Module | None = None  # None: the plain network
        if plan.shortcut != "none":
            self.shortcut = (
                _changing_shortcut(plan, inputs, outputs, stride) if changes else nn.Identity()
            )
            if plan.strided_unit == "last" and inputs == outputs and stride > 1:
                self.shortcut, changes = MaxPool(1, stride), False
        tap = plan.projection_tap if changes else plan.first_tap if first else "input"
        self.taps_before = tap == "before"

    def forward(self, x: Tensor) -> Tensor:
        ready = self.before(x)
        y = self.branch(ready)
        if self.shortcut is not None:
            y = y + self.shortcut(ready if self.taps_before else x)
        return self.after(y)  # type: ignore[no-any-return]


class ResNet(Staged):
    """Any network of the residual grammar: [B, C, H, W] -> logits [B, K]."""

    def __init__(self, plan: Residual, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = _stem(plan, channels)
        stages, inputs = [], plan.stem.width
        for stage, count in enumerate(plan.units):
            units = nn.Sequential()
            for number in range(count):
                strided = 0 if plan.strided_unit == "first" else count - 1
                stride = plan.strides[stage] if number == strided else 1
                first = stage == number == 0
                units.append(ResidualUnit(plan, stage, inputs, stride, first))
                inputs = plan.outputs[stage]
            stages.append(nn.Sequential())
            stages[-1].add_module("units", units)
        self.stages = nn.ModuleList(stages)
        tail = ORDERINGS[plan.ordering].before if plan.tail is None else plan.tail
        self.tail = chain(tail, channels=inputs, norm=plan.norm)
        self.head = nn.Linear(inputs, classes)
        initialise(self, plan.initialisation)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> one map per stage, [B, C_s, H / stride_s, W / stride_s].

        At the ImageNet stem the strides are 4, 8, 16, 32. The last map has passed the tail, so that
        it is what the head pools.
        """
        return super().features(x)


def _stem(plan: Residual, channels: int) -> nn.Sequential:
    stem, letters = plan.stem, plan.stem.letters
    if letters is None:  # what the first unit does not bring itself
        letters = "c" + "na".removesuffix(ORDERINGS[plan.ordering].before)
    convolution = Convolution(
        channels,
        stem.width,
        stem.kernel,
        stride=stem.stride,
        bias=stem.bias,
        padding=stem.padding,
    )
    layers = chain(letters, [convolution], norm=plan.norm)
    if stem.pool:
        layers.add_module("pool", MaxPool(stem.pool, 2, stem.pool_padding))
    return layers


def _branch_convolutions(
    plan: Residual, stage: int, inputs: int, stride: int
) -> Iterator[Convolution]:
    branch = plan.strided_branch if plan.strided_branch and stride > 1 else plan.branch
    for place, kernel in enumerate(branch, start=1):
        outputs = plan.outputs[stage] if kernel.width == "output" else plan.inner[stage]
        norm_follows = place < len(branch) or "n" in ORDERINGS[plan.ordering].end
        yield Convolution(
            inputs,
            outputs,
            kernel.side,
            stride=stride if kernel.strided else 1,
            groups=plan.groups if kernel.grouped else 1,
            bias=_has_bias(plan, norm_follows),
            padding=plan.padding,
        )
        inputs = outputs


def _has_bias(plan: Residual, norm_follows: bool) -> bool:
    return plan.bias == "all" or (plan.bias != "none" and not norm_follows)


def _changing_shortcut(plan: Residual, inputs: int, outputs: int, stride: int) -> nn.Module:
    if plan.shortcut == "A":
        return ZeroPadShortcut(inputs, outputs, stride, plan.zero_place)
    wanted = plan.projection_norm
    with_norm = "n" in ORDERINGS[plan.ordering].end if wanted is None else wanted
    layers = nn.Sequential()
    if plan.shortcut == "D" and stride > 1:  # He 2018, "Bag of Tricks", figure 2c
        layers.add_module("pool", nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        stride = 1
    bias = _has_bias(plan, with_norm)
    projection = Convolution(inputs, outputs, 1, stride=stride, bias=bias)
    letters = "cn" if with_norm else "c"
    for name, layer in chain(letters, [projection], norm=plan.norm).named_children():
        layers.add_module(name, layer)
    return layers
