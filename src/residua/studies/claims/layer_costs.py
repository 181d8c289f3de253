"""Layers and residual units, built without memory -> what they cost; the numbers of a study.

Weights are those of the convolutions' kernels; norms and biases are left out. Multiply-adds are
those of one image. Widths count channels, sides pixels; every map is square.
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

WIDTH = 64  # of the units in tutorial 1's drawing
SIDE = 56  # of the map in ResNet's first stage
INNER = (24, 32, 48, 64, 65, 66, 96)  # inner widths of the bottlenecks that are compared
STAGES = ((32, 16), (16, 32), (8, 64))  # side and width, of ResNets for CIFAR
Reduction = tuple[str, int, int, int, int, int]
# Name, width, reduced width, width behind, side of the kernel behind, side of the map.
REDUCTIONS: tuple[Reduction, ...] = (
    ("tutorial 3's 1x1, before a 5x5", 100, 20, 32, 5, 64),
    ("GoogLeNet 3a, before the 5x5", 192, 16, 32, 5, 28),
    ("GoogLeNet 3a, before the 3x3", 192, 96, 128, 3, 28),
)


@dataclass(frozen=True)
class Cost:
    """Of one module: weights of its kernels, multiply-adds, and the weights of each kernel."""

    weights: int
    multiply_adds: int
    kernels: Mapping[str, int]


@dataclass(frozen=True)
class Unit:
    """A residual unit: widths of its input, inside of its branch and of its output; its counts."""

    inputs: int
    inner: int
    outputs: int
    cost: Cost


@dataclass(frozen=True)
class Mixing:
    """What a convolution with a kernel of `side` pixels makes of the order of the pixels.

    difference: the largest one between permuting before and behind it; largest: of its outputs.
    pixels, channels: how many of its input one place of the output reads.
    """

    side: int
    difference: float
    largest: float
    pixels: int
    channels: int


def counted(module: nn.Module, channels: int, side: int) -> Cost:
    """Counts of a module for one map of [channels, side, side]."""
    kernels = {
        name: each.weight.numel()
        for name, each in module.named_modules()
        if isinstance(each, nn.Conv2d)
    }
    # Wrapped, since a layer that is the whole network would have no name in its table.
    work = measure(nn.Sequential(module), (channels, side, side)).multiply_adds
    return Cost(sum(kernels.values()), work, kernels)


def convolution(
    inputs: int, outputs: int, kernel: int, side: int, *, stride: int = 1, groups: int = 1
) -> Cost:
    """Counts of a convolution whose input has `side` pixels a side."""
    with on_meta():
        layer = Convolution(inputs, outputs, kernel, stride=stride, groups=groups)
    return counted(layer, inputs, side)


def separable(inputs: int, outputs: int, side: int) -> Cost:
    """Counts of the 3x3 depthwise and 1x1 pointwise convolution of Xception and MobileNet."""
    with on_meta():
        layer = Separable(inputs, outputs)
    return counted(layer, inputs, side)


def unit(branch: Branch, inputs: int, inner: int, outputs: int, groups: int = 1) -> Unit:
    """Counts of a residual unit, which has a projection where inputs and outputs differ."""
    config = ResNetConfig((1,), (outputs,), branch, (inner,), groups=groups)
    with on_meta():
        built = ResidualUnit(unit_plan(config, 0, inputs, 1, first=False))
    return Unit(inputs, inner, outputs, counted(built, inputs, SIDE))


def compared() -> dict[str, Unit]:
    """Name -> counts of the units of tutorials 1 and 4 and of the paper."""
    wide = 4 * WIDTH
    return {
        f"two 3x3, {WIDTH} wide": unit(BASIC, WIDTH, WIDTH, WIDTH),
        f"bottleneck from {WIDTH}, with projection": unit(BOTTLENECK, WIDTH, WIDTH, wide),
        f"bottleneck from {wide}, the paper's": unit(BOTTLENECK, wide, WIDTH, wide),
        f"two 3x3, {wide} wide": unit(BASIC, wide, wide, wide),
        "ResNeXt, 32 groups of 4": unit(BOTTLENECK, wide, 2 * WIDTH, wide, groups=32),
    }


def equal_inner(width: int, *, projection: bool) -> list[int]:
    """Inner widths at which a bottleneck has the 18ww weights of two 3x3 of `width`.

    With a projection its input has that width, without one four times its inner width; its output
    always has the latter.
    """
    wanted = 18 * width**2
    costs = {n: 5 * width * n + 13 * n**2 if projection else 17 * n**2 for n in range(1, 2 * width)}
    return [n for n, cost in costs.items() if cost == wanted]


def inner_widths() -> list[tuple[int, int, int]]:
    """Inner width n, weights from WIDTH channels with a projection, from 4n without one."""
    return [
        (
            n,
            unit(BOTTLENECK, WIDTH, n, 4 * n).cost.weights,
            unit(BOTTLENECK, 4 * n, n, 4 * n).cost.weights,
        )
        for n in INNER
    ]


def stage_costs(side: int, width: int) -> tuple[Cost, Cost, Cost]:
    """Counts of a 3x3 layer of a stage, of one as wide as the first stage, of its first layer."""
    narrow = STAGES[0][1]
    strided = convolution(width // 2, width, 3, 2 * side, stride=2)
    return convolution(width, width, 3, side), convolution(narrow, narrow, 3, side), strided


def reduction(row: Reduction) -> tuple[Cost, Cost, Cost]:
    """Counts of the larger kernel alone, of the 1x1 before it, of the kernel behind that."""
    _, width, reduced, outputs, kernel, side = row
    return (
        convolution(width, outputs, kernel, side),
        convolution(width, reduced, 1, side),
        convolution(reduced, outputs, kernel, side),
    )


def mixing(side: int) -> Mixing:
    """Measure a convolution of 8 to 6 channels on a map of 9 x 9; always the same numbers."""
    chance = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # building draws from the global generator
        layer = Convolution(8, 6, side).double()
    weight = torch.randn(layer.weight.shape, generator=chance, dtype=torch.float64)
    layer.weight = nn.Parameter(weight)
    x = torch.randn(1, 8, 9, 9, generator=chance, dtype=torch.float64, requires_grad=True)
    order = torch.randperm(81, generator=chance)
    before = layer(x.flatten(2)[..., order].view_as(x)).flatten(2)
    behind = layer(x).flatten(2)[..., order]
    difference = float((before - behind).detach().abs().max())
    (reads,) = torch.autograd.grad(layer(x)[0, :, 4, 4].sum(), x)
    read = reads[0] != 0
    pixels, channels = int(read.any(0).sum()), int(read.flatten(1).any(1).sum())
    return Mixing(side, difference, float(behind.detach().abs().max()), pixels, channels)
