"""Images [B, C, H, W] -> logits [B, K]: residual units described by strings of layer letters.

    unit(x) = after(branch(before(x)) + shortcut(x or before(x)))

Between two convolutions there is always norm, activation. The five orderings of He et al. 2016
("Identity Mappings in Deep Residual Networks", figure 4) differ only in where the last norm and
activation are.

`residual_unit` builds the unit that a network's config describes.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from residua.config.schema import Ordering, Shortcut
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

Tap = Literal["before", "input"]
Bias = Literal["none", "all", "where no norm follows"]


@dataclass(frozen=True)
class Letters:
    """Where one ordering puts its extra pair "na": c convolution, n norm, a activation."""

    before: str
    end: str  # of the branch
    after: str


ORDERINGS: dict[Ordering, Letters] = {
    "original": Letters("", "n", "a"),
    "bn_after_addition": Letters("", "", "na"),
    "relu_before_addition": Letters("", "na", ""),
    "relu_only_preactivation": Letters("a", "n", ""),
    "full_preactivation": Letters("na", "", ""),
}


@dataclass(frozen=True)
class BranchConv:
    """One convolution of a branch: its kernel size, its width, whether it strides or is grouped."""

    kernel: int
    width: Literal["inner", "output"]
    strided: bool = False
    grouped: bool = False


Branch = tuple[BranchConv, ...]
BASIC: Branch = (BranchConv(3, "output", strided=True), BranchConv(3, "output"))
BOTTLENECK_V1: Branch = (  # He 2015: the first 1x1 strides
    BranchConv(1, "inner", strided=True),
    BranchConv(3, "inner", grouped=True),
    BranchConv(1, "output"),
)
BOTTLENECK: Branch = (  # "v1.5": the 3x3 strides
    BranchConv(1, "inner"),
    BranchConv(3, "inner", strided=True, grouped=True),
    BranchConv(1, "output"),
)


@dataclass(frozen=True)
class Stem:
    """The layers before the first stage.

    kernel, width, stride, padding, bias: of its convolution.
    deep: widths of the convolutions before that one, with its kernel; the first one strides
        (He 2018, figure 2b).
    pool, pool_padding: kernel size of the max pool at stride 2, and its padding; 0: no pool.
    letters: None: derived from the ordering.
    """

    kernel: int = 7
    width: int = 64
    stride: int = 2
    pool: int = 3
    letters: str | None = None
    padding: Padding = "symmetric"
    pool_padding: Padding | Literal["zeros"] = "symmetric"
    bias: bool = False
    deep: tuple[int, ...] = ()


IMAGENET_STEM = Stem()
DEEP_STEM = Stem(kernel=3, deep=(32, 32))
CIFAR_STEM = Stem(kernel=3, width=16, stride=1, pool=0)


@dataclass(frozen=True)
class ResNetConfig:
    """A residual network in full. Presets are rows of the catalogue, not defaults of this class.

    units, outputs, inner, strides: per stage, the number of units, the width of their output, the
        width inside their branch, the stride of the unit that strides.
    strided_branch: another branch for the units that stride.
    strided_unit: which unit of a stage strides (Keras' ResNetV2: the last one).
    bias: which convolutions of the units have one.
    tail: letters between the last stage and the pooling; None: derived from the ordering.
    shortcut: where the shape changes: "A" zero padding, "B" projection (He 2015, section 3.3), "D"
        average pool and projection (He 2018, "Bag of Tricks", figure 2c). "none" removes every
        shortcut, also the identity: the plain network.
    projection_norm: whether a norm follows a projection; None: if one ends the branch.
    projection_tap: input of a shortcut where the shape changes: before(x), or x itself.
    first_tap: the same for an identity in the very first unit (before(x) in He 2016's code).
    """

    units: tuple[int, ...]
    outputs: tuple[int, ...]
    branch: Branch = BASIC
    inner: tuple[int, ...] = ()
    strides: tuple[int, ...] = (1, 2, 2, 2)
    strided_branch: Branch | None = None
    strided_unit: Literal["first", "last"] = "first"
    groups: int = 1
    ordering: Ordering = "original"
    shortcut: Shortcut = "B"
    stem: Stem = IMAGENET_STEM
    tail: str | None = None
    bias: Bias = "none"
    norm: Norm = PLAIN_NORM
    padding: Padding = "symmetric"
    projection_norm: bool | None = None
    projection_tap: Tap = "before"
    first_tap: Tap = "input"
    initialisation: Initialisation = "he"

    def with_units(self, *units: int) -> ResNetConfig:
        """The same network at another depth."""
        return dataclasses.replace(self, units=units)

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        At the ImageNet stem its feature maps have the strides 4, 8, 16, 32.
        """
        stem = _stem(self, channels)
        stages, inputs = [], self.stem.width
        for stage, count in enumerate(self.units):
            units = nn.Sequential()
            strided = 0 if self.strided_unit == "first" else count - 1
            for number in range(count):
                stride = self.strides[stage] if number == strided else 1
                first = stage == number == 0
                units.append(residual_unit(self, stage, inputs, stride, first=first))
                inputs = self.outputs[stage]
            stages.append(nn.Sequential(OrderedDict(units=units)))
        letters = ORDERINGS[self.ordering].before if self.tail is None else self.tail
        tail = chain(letters, channels=inputs, norm=self.norm)
        network = Staged(stem=stem, stages=stages, tail=tail, head=nn.Linear(inputs, classes))
        return initialise(network, self.initialisation)


class ResidualUnit(nn.Module):
    """after(branch(before(x)) + shortcut(x or before(x))): [B, C, H, W] -> [B, C', H/s, W/s].

    shortcut: None: nothing is added. taps_before: the shortcut reads before(x), not x itself.
    """

    def __init__(
        self,
        branch: nn.Sequential,
        shortcut: nn.Module | None,
        *,
        before: nn.Sequential | None = None,
        after: nn.Sequential | None = None,
        taps_before: bool = False,
    ) -> None:
        super().__init__()
        self.before = nn.Sequential() if before is None else before
        self.branch = branch
        self.after = nn.Sequential() if after is None else after
        self.shortcut = shortcut
        self.taps_before = taps_before

    def forward(self, x: Tensor) -> Tensor:
        ready = self.before(x)
        y = self.branch(ready)
        if self.shortcut is not None:
            y = y + self.shortcut(ready if self.taps_before else x)
        return self.after(y)  # type: ignore[no-any-return]


def residual_unit(
    config: ResNetConfig, stage: int, inputs: int, stride: int, *, first: bool = False
) -> ResidualUnit:
    """A unit of a stage. inputs: channels. first: whether it is the first unit of the network."""
    letters, outputs, norm = ORDERINGS[config.ordering], config.outputs[stage], config.norm
    convolutions = _branch_convolutions(config, stage, inputs, stride)
    branch = "na".join("c" * len(convolutions)) + letters.end
    shortcut = _shortcut(config, inputs, outputs, stride)
    tap: Tap = config.first_tap if first else "input"
    if isinstance(shortcut, ZeroPadShortcut | nn.Sequential):  # the shape changes
        tap = config.projection_tap
    return ResidualUnit(
        chain(branch, convolutions, norm=norm, numbered=True),
        shortcut,
        before=chain(letters.before, channels=inputs, norm=norm),
        after=chain(letters.after, channels=outputs, norm=norm),
        taps_before=tap == "before",
    )


def _branch_convolutions(
    config: ResNetConfig, stage: int, inputs: int, stride: int
) -> list[Convolution]:
    branch = config.strided_branch if config.strided_branch and stride > 1 else config.branch
    ends_in_norm = "n" in ORDERINGS[config.ordering].end
    convolutions = []
    for number, conv in enumerate(branch, start=1):
        outputs = config.outputs[stage] if conv.width == "output" else config.inner[stage]
        convolutions.append(
            Convolution(
                inputs,
                outputs,
                conv.kernel,
                stride=stride if conv.strided else 1,
                groups=config.groups if conv.grouped else 1,
                bias=_has_bias(config, norm_follows=number < len(branch) or ends_in_norm),
                padding=config.padding,
            )
        )
        inputs = outputs
    return convolutions


def _shortcut(config: ResNetConfig, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if config.shortcut == "none":
        return None
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    projection = None if config.shortcut == "A" else _projection(config, inputs, outputs, stride)
    if config.strided_unit == "last" and inputs == outputs:
        # keras.applications' ResNetV2: this unit has its width already. The unused projection has
        # drawn random numbers, as in version 0.1.0.
        return MaxPool(1, stride)
    return ZeroPadShortcut(inputs, outputs, stride) if projection is None else projection


def _projection(config: ResNetConfig, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    has_norm = config.projection_norm
    if has_norm is None:
        has_norm = "n" in ORDERINGS[config.ordering].end
    pool = stride if config.shortcut == "D" else 1  # He 2018, figure 2c: the pool strides instead
    bias = _has_bias(config, norm_follows=has_norm)
    return chain(
        "p" * (pool > 1) + "c" + "n" * has_norm,
        [Convolution(inputs, outputs, 1, stride=stride // pool, bias=bias)],
        norm=config.norm,
        pool=nn.AvgPool2d(pool, ceil_mode=True, count_include_pad=False),
    )


def _has_bias(config: ResNetConfig, *, norm_follows: bool) -> bool:
    return config.bias == "all" or (config.bias != "none" and not norm_follows)


def _stem(config: ResNetConfig, channels: int) -> nn.Sequential:
    stem, letters = config.stem, config.stem.letters
    widths = (channels, *stem.deep, stem.width)
    if letters is None:  # without those that the first unit begins with
        end = "na".removesuffix(ORDERINGS[config.ordering].before)
        letters = "na".join("c" * (len(widths) - 1)) + end
    convolutions = [
        Convolution(
            inputs,
            outputs,
            stem.kernel,
            stride=stem.stride if number == 0 else 1,
            bias=stem.bias,
            padding=stem.padding,
        )
        for number, (inputs, outputs) in enumerate(pairwise(widths))
    ]
    return chain(
        letters + "p" * (stem.pool > 0),
        convolutions,
        norm=config.norm,
        numbered=bool(stem.deep),
        pool=MaxPool(stem.pool, 2, stem.pool_padding),
    )
