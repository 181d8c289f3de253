"""Images [B, C, H, W] -> logits [B, K]: residual units described by strings of layer letters.

    unit(x) = after(branch(before(x)) + shortcut(x or before(x)))

Between two convolutions there is always norm, activation. The five orderings of He et al. 2016
("Identity Mappings in Deep Residual Networks", figure 4) differ only in where the last norm and
activation are.

`unit_plans` derives the plan of every unit from a network's config without building anything.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
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

ShortcutKind = Literal["none", "identity", "subsample", "zero_pad", "projection"]
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
        stages = [
            nn.Sequential(OrderedDict(units=nn.Sequential(*(plan.build() for plan in plans))))
            for plans in unit_plans(self)
        ]
        width = self.outputs[-1]
        letters = ORDERINGS[self.ordering].before if self.tail is None else self.tail
        tail = chain(letters, channels=width, norm=self.norm)
        network = Staged(stem=stem, stages=stages, tail=tail, head=nn.Linear(width, classes))
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


# Plans --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvPlan:
    """The arguments of one `Convolution`."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = False
    padding: Padding = "symmetric"

    def build(self) -> Convolution:
        """The convolution, with PyTorch's random numbers."""
        return Convolution(**vars(self))


@dataclass(frozen=True)
class UnitPlan:
    """A residual unit before it is built.

    inputs, outputs, stride: channels, and the factor by which the map shrinks.
    before, branch, after: letters; every c of the branch is the next one of `convolutions`.
    shortcut: "subsample" takes every stride-th pixel, "zero_pad" adds channels of zeros to that.
    tap: input of the shortcut, before(x) or x itself.
    projection: the convolution of a "projection"; projection_letters: such as "cn", or "pcn" where
        an average pool strides instead (He 2018, figure 2c).
    """

    inputs: int
    outputs: int
    stride: int
    before: str
    branch: str
    after: str
    convolutions: tuple[ConvPlan, ...]
    shortcut: ShortcutKind
    tap: Tap
    norm: Norm
    projection: ConvPlan | None = None
    projection_letters: str = ""

    def build(self) -> ResidualUnit:
        """The unit, with PyTorch's random numbers."""
        convolutions = [convolution.build() for convolution in self.convolutions]
        return ResidualUnit(
            chain(self.branch, convolutions, norm=self.norm, numbered=True),
            self._build_shortcut(),
            before=chain(self.before, channels=self.inputs, norm=self.norm),
            after=chain(self.after, channels=self.outputs, norm=self.norm),
            taps_before=self.tap == "before",
        )

    def _build_shortcut(self) -> nn.Module | None:
        projection = None
        if self.projection is not None:
            pool = nn.AvgPool2d(self.stride, ceil_mode=True, count_include_pad=False)
            convolutions = [self.projection.build()]
            projection = chain(self.projection_letters, convolutions, norm=self.norm, pool=pool)
        match self.shortcut:
            case "identity":
                return nn.Identity()
            case "subsample":  # its unused projection has drawn random numbers, as in version 0.1.0
                return MaxPool(1, self.stride)
            case "zero_pad":
                return ZeroPadShortcut(self.inputs, self.outputs, self.stride)
        return projection


def unit_plans(config: ResNetConfig) -> tuple[tuple[UnitPlan, ...], ...]:
    """The plans of all units, by stage."""
    stages, inputs = [], config.stem.width
    for stage, count in enumerate(config.units):
        strided = 0 if config.strided_unit == "first" else count - 1
        units = []
        for number in range(count):
            stride = config.strides[stage] if number == strided else 1
            units.append(unit_plan(config, stage, inputs, stride, first=stage == number == 0))
            inputs = config.outputs[stage]
        stages.append(tuple(units))
    return tuple(stages)


def unit_plan(
    config: ResNetConfig, stage: int, inputs: int, stride: int, *, first: bool = False
) -> UnitPlan:
    """The plan of one unit of a stage.

    inputs: channels. first: whether it is the first unit of the network.
    """
    letters, outputs = ORDERINGS[config.ordering], config.outputs[stage]
    convolutions = tuple(_branch_plans(config, stage, inputs, stride))
    shortcut = _shortcut_kind(config, inputs, outputs, stride)
    tap = config.first_tap if first else "input"
    if shortcut in ("zero_pad", "projection"):
        tap = config.projection_tap
    projection, projection_letters = None, ""
    if config.shortcut in ("B", "D") and shortcut != "identity":
        with_norm = config.projection_norm
        if with_norm is None:
            with_norm = "n" in letters.end
        is_pooled = config.shortcut == "D" and stride > 1
        projection = ConvPlan(
            inputs,
            outputs,
            1,
            stride=1 if is_pooled else stride,
            bias=_has_bias(config, norm_follows=with_norm),
        )
        projection_letters = "p" * is_pooled + "c" + "n" * with_norm
    return UnitPlan(
        inputs=inputs,
        outputs=outputs,
        stride=stride,
        before=letters.before,
        branch="na".join("c" * len(convolutions)) + letters.end,
        after=letters.after,
        convolutions=convolutions,
        shortcut=shortcut,
        tap=tap,
        norm=config.norm,
        projection=projection,
        projection_letters=projection_letters,
    )


def _shortcut_kind(config: ResNetConfig, inputs: int, outputs: int, stride: int) -> ShortcutKind:
    if config.shortcut == "none":
        return "none"
    if stride == 1 and inputs == outputs:
        return "identity"
    if config.strided_unit == "last" and inputs == outputs:
        return "subsample"  # keras.applications' ResNetV2: this unit has its width already
    return "zero_pad" if config.shortcut == "A" else "projection"


def _branch_plans(config: ResNetConfig, stage: int, inputs: int, stride: int) -> Iterator[ConvPlan]:
    branch = config.strided_branch if config.strided_branch and stride > 1 else config.branch
    ends_in_norm = "n" in ORDERINGS[config.ordering].end
    for number, conv in enumerate(branch, start=1):
        outputs = config.outputs[stage] if conv.width == "output" else config.inner[stage]
        yield ConvPlan(
            inputs,
            outputs,
            conv.kernel,
            stride=stride if conv.strided else 1,
            groups=config.groups if conv.grouped else 1,
            bias=_has_bias(config, norm_follows=number < len(branch) or ends_in_norm),
            padding=config.padding,
        )
        inputs = outputs


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
