"""Layers and residual units, built without memory -> their costs.

Weights are those of convolution kernels, without norms and biases. Multiply-adds are of one image.
Widths are numbers of channels, sides are pixels; every map is square.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from residua.networks.analysis.cost import measure
from residua.networks.analysis.shapes import on_meta
from residua.networks.layers import Convolution, Separable
from residua.networks.residual import (
    BASIC,
    BOTTLENECK,
    Branch,
    ResidualUnit,
    ResNetConfig,
    unit_plan,
)
from residua.system.generators import Seeded

WIDTH = 64  # of the units in tutorial 1's drawing
SIDE = 56  # of the map in ResNet's first stage
INNER = (24, 32, 48, 64, 65, 66, 96)  # inner widths of the compared bottlenecks
STAGES = ((32, 16), (16, 32), (8, 64))  # side and width, of ResNets for CIFAR


@dataclass(frozen=True)
class Cost:
    """Of one module. kernels: name of a convolution -> its weights."""

    weights: int
    multiply_adds: int
    kernels: Mapping[str, int]


@dataclass(frozen=True)
class Unit:
    """A residual unit: the widths of its input, inside its branch and of its output; its cost."""

    inputs: int
    inner: int
    outputs: int
    cost: Cost


@dataclass(frozen=True)
class Reduction:
    """A 1x1 convolution to `reduced` of `width` channels before a larger kernel.

    side: of the map, `kernel` x `kernel`: of the larger kernel, which has `outputs` filters.
    """

    name: str
    width: int
    reduced: int
    outputs: int
    kernel: int
    side: int

    def costs(self) -> tuple[Cost, Cost, Cost]:
        """Of the larger kernel alone, of the 1x1, and of the larger kernel after the 1x1."""
        return (
            convolution(self.width, self.outputs, self.kernel, self.side),
            convolution(self.width, self.reduced, 1, self.side),
            convolution(self.reduced, self.outputs, self.kernel, self.side),
        )


REDUCTIONS = (
    Reduction("tutorial 3's 1x1, before a 5x5", 100, 20, 32, 5, 64),
    Reduction("GoogLeNet 3a, before the 5x5", 192, 16, 32, 5, 28),
    Reduction("GoogLeNet 3a, before the 3x3", 192, 96, 128, 3, 28),
)


@dataclass(frozen=True)
class Mixing:
    """How a convolution with a `side` x `side` kernel depends on the order of the pixels.

    difference: the largest between permuting pixels before and after it. largest: of its outputs.
    pixels, channels: how many of the input one output pixel reads.
    """

    side: int
    difference: float
    largest: float
    pixels: int
    channels: int


def cost_of(module: nn.Module, channels: int, side: int) -> Cost:
    """Cost of a module for one map of [channels, side, side]."""
    kernels = {
        name: layer.weight.numel()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    # Wrapped, since a layer that is the whole network would have no name in its table
    work = measure(nn.Sequential(module), (channels, side, side)).multiply_adds
    return Cost(sum(kernels.values()), work, kernels)


def convolution(
    inputs: int, outputs: int, kernel: int, side: int, *, stride: int = 1, groups: int = 1
) -> Cost:
    """Cost of a convolution of a map of `side` x `side` pixels."""
    with on_meta():
        layer = Convolution(inputs, outputs, kernel, stride=stride, groups=groups)
    return cost_of(layer, inputs, side)


def separable(inputs: int, outputs: int, side: int) -> Cost:
    """Cost of the 3x3 depthwise and 1x1 pointwise convolution of Xception and MobileNet."""
    with on_meta():
        layer = Separable(inputs, outputs)
    return cost_of(layer, inputs, side)


def unit(branch: Branch, inputs: int, inner: int, outputs: int, groups: int = 1) -> Unit:
    """Cost of a residual unit, which has a projection if inputs and outputs differ."""
    config = ResNetConfig((1,), (outputs,), branch, (inner,), groups=groups)
    with on_meta():
        built = ResidualUnit(unit_plan(config, 0, inputs, 1, first=False))
    return Unit(inputs, inner, outputs, cost_of(built, inputs, SIDE))


def compared_units() -> dict[str, Unit]:
    """Name -> cost of the units of tutorials 1 and 4 and of the paper."""
    wide = 4 * WIDTH
    return {
        f"two 3x3, {WIDTH} wide": unit(BASIC, WIDTH, WIDTH, WIDTH),
        f"bottleneck from {WIDTH}, with projection": unit(BOTTLENECK, WIDTH, WIDTH, wide),
        f"bottleneck from {wide}, the paper's": unit(BOTTLENECK, wide, WIDTH, wide),
        f"two 3x3, {wide} wide": unit(BASIC, wide, wide, wide),
        "ResNeXt, 32 groups of 4": unit(BOTTLENECK, wide, 2 * WIDTH, wide, groups=32),
    }


def equal_inner_widths(width: int, *, projection: bool) -> list[int]:
    """Inner widths n at which a bottleneck has the 18ww weights of two 3x3 of `width`.

    Its output has 4n channels, and its input `width` with a projection, 4n without.
    """
    target = 18 * width**2
    costs = {n: 5 * width * n + 13 * n**2 if projection else 17 * n**2 for n in range(1, 2 * width)}
    return [n for n, cost in costs.items() if cost == target]


def inner_widths() -> list[tuple[int, int, int]]:
    """Inner width n, weights from WIDTH channels with a projection, from 4n without."""
    return [
        (
            n,
            unit(BOTTLENECK, WIDTH, n, 4 * n).cost.weights,
            unit(BOTTLENECK, 4 * n, n, 4 * n).cost.weights,
        )
        for n in INNER
    ]


def stage_costs(side: int, width: int) -> tuple[Cost, Cost, Cost]:
    """Cost of a 3x3 layer of a stage, of one as wide as the first stage, of its first layer."""
    narrow = STAGES[0][1]
    strided = convolution(width // 2, width, 3, 2 * side, stride=2)
    return convolution(width, width, 3, side), convolution(narrow, narrow, 3, side), strided


def mixing(side: int) -> Mixing:
    """Measure a convolution of 8 to 6 channels on a 9 x 9 map; always the same numbers."""
    generator = torch.Generator().manual_seed(0)
    with Seeded(0):  # else construction draws from the global generator
        layer = Convolution(8, 6, side).double()
    weight = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
    layer.weight = nn.Parameter(weight)
    x = torch.randn(1, 8, 9, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    order = torch.randperm(81, generator=generator)
    before = layer(x.flatten(2)[..., order].view_as(x)).flatten(2)
    after = layer(x).flatten(2)[..., order]
    difference = float((before - after).detach().abs().max())
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 4, 4].sum(), x)
    read = gradient[0] != 0
    pixels, channels = int(read.any(0).sum()), int(read.flatten(1).any(1).sum())
    return Mixing(side, difference, float(after.detach().abs().max()), pixels, channels)
