"""Costs of layers and units, compared with claims of tutorials 0, 1, 3, 4; trains nothing.

Weights are those of convolution kernels, without norms and biases. Multiply-adds are of one image.
Widths are numbers of channels, sides are pixels; every map is square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
from residua.report.page import Figure, Page, Section, Table
from residua.report.page_figures import lines
from residua.report.style import FAINT
from residua.studies.study import computed
from residua.system.generators import Seeded
from residua.system.words import joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 64  # of the units in tutorial 1's drawing
SIDE = 56  # of the map in ResNet's first stage
INNER = (24, 32, 48, 64, 65, 66, 96)  # inner widths of the compared bottlenecks
STAGES = ((32, 16), (16, 32), (8, 64))  # side and width, of ResNets for CIFAR
SEARCHED = 256  # largest width that is searched for equal costs
SEPARABLES = ((32, 64, 112), (128, 128, 56), (512, 512, 14), (728, 728, 19))  # in, out, side
GROUPED, GROUPS = 128, (1, 2, 8, 32, 128)

UNITS = [
    "A bottleneck reduces its input to n channels with a 1x1 convolution, applies a 3x3 and "
    "expands to 4n with a 1x1. With w input channels it has wn + 9nn + 4nn weights, and a "
    "projection of 4wn where w and 4n differ. Two 3x3 of width w have 18ww, which is the same at "
    "n = w. Without a projection w is 4n, and the bottleneck has 17nn.",
]
HALVING = [
    "A 3x3 convolution of width w needs 9ww multiply-adds per pixel. The first layer of a stage "
    "has stride 2: it halves the map and doubles the width itself."
]
BEFORE = ["A 1x1 to r of C channels before N kernels of k x k pays off if Cr + kkrN < kkCN."]
SEPARABLE = [
    "One 3x3 kernel per input channel, then a 1x1 convolution: 9M + MN weights instead of 9MN, a "
    "fraction of 1/N + 1/9. Groups divide the number of weights by theirs."
]
MIXING = [
    "Random float64 maps and kernels. The pixels of a map are permuted before the convolution or "
    "after it: a layer that uses no neighbourhood gives the same result both times."
]


def study() -> Page:
    """Costs of bottlenecks, of halving with doubling, of 1x1 and separable convolutions."""
    units, inner, mixings = compared_units(), inner_widths(), [mixing(side) for side in (1, 3)]
    tables = [_unit_table(units), _kernel_table(units), _inner_table(inner)]
    return Page(
        title=STUDY.title,
        claim="Two 3x3 convolutions and a bottleneck have equally many parameters, 73,728; a map "
        "of half the size with double the width keeps the cost of a layer; a 1x1 convolution "
        "reduces channels cheaply and extracts spatial information.",
        source="Tutorial 0 (units), 1 (units, questions), 3 (Inception, Xception), 4 (groups); He "
        "et al. 2015, figure 5.",
        findings=[
            _unit_finding(units),
            _equality_finding(),
            _width_finding(units),
            _stage_finding(),
            _mixing_finding(*mixings),
            _reduction_finding(),
            _separable_finding(),
        ],
        sections=[
            Section("Units", UNITS, tables, [_inner_figure(inner)]),
            Section("Half the size, double the width", HALVING, [_stage_table()]),
            Section("Receptive field of a 1x1 convolution", MIXING, [_mixing_table(mixings)]),
            Section("1x1 before a larger kernel", BEFORE, [_reduction_table()]),
            Section("Separable and grouped", SEPARABLE, [_separable_table(), _group_table()]),
        ],
    )


STUDY = computed(
    "bottleneck-cost",
    "Costs of bottlenecks, halving and 1x1 convolutions",
    lambda seeds, report: study(),
)


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


class Mixing(NamedTuple):
    """How a convolution depends on the order of the pixels. kernel: its sides, such as "3x3".

    difference: the largest between permuting pixels before and after it. largest: of its outputs.
    pixels, channels: how many of the input one output pixel reads.
    """

    kernel: str
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
    return Mixing(f"{side}x{side}", difference, float(after.detach().abs().max()), pixels, channels)


def _unit_table(units: Mapping[str, Unit]) -> Table:
    rows = [
        (name, unit.inputs, unit.inner, unit.outputs, unit.cost.weights, unit.cost.multiply_adds)
        for name, unit in units.items()
    ]
    columns = ("unit", "input", "inner", "output", "weights", f"multiply-adds at {SIDE} x {SIDE}")
    return Table("units", "Residual units, counted from modules", columns, rows)


def _kernel_table(units: Mapping[str, Unit]) -> Table:
    rows = [
        (name, kernel, weights)
        for name, unit in list(units.items())[:3]
        for kernel, weights in unit.cost.kernels.items()
    ]
    return Table("kernels", "Kernels of the first three units", ("unit", "kernel", "weights"), rows)


def _inner_table(inner: Sequence[tuple[int, int, int]]) -> Table:
    target = 18 * WIDTH**2
    rows = [(n, one, one / target, other, other / target) for n, one, other in inner]
    fraction = "fraction of two 3x3"
    columns = ("n", f"from {WIDTH}, projection", fraction, "from 4n, no projection", fraction)
    title = f"Bottlenecks of inner width n against two 3x3 of width {WIDTH}"
    return Table("inner-widths", title, columns, rows)


def _stage_table() -> Table:
    rows = []
    for index, (side, width) in enumerate(STAGES):
        layer, narrow, first = stage_costs(side, width)
        strided = first.multiply_adds if index else None
        row = (f"{side} x {side}", width, layer.weights, layer.multiply_adds, strided)
        rows.append((*row, narrow.multiply_adds))
    columns = ["map", "width", "weights", "multiply-adds", "of the stage's first layer"]
    columns += [f"with width {STAGES[0][1]} throughout"]
    return Table("stages", "One 3x3 layer of each stage", columns, rows)


def _mixing_table(mixings: Sequence[Mixing]) -> Table:
    columns = ("kernel", "largest difference", "largest output", "pixels read", "channels read")
    return Table("order-of-pixels", "Permuted pixels", columns, mixings)


def _reduction_table() -> Table:
    rows = []
    for row in REDUCTIONS:
        alone, one, after = row.costs()
        weights, work = one.weights + after.weights, one.multiply_adds + after.multiply_adds
        numbers = (one.weights, row.reduced, after.weights, alone.weights, alone.weights / weights)
        rows.append((row.name, *numbers, work, alone.multiply_adds))
    columns = ["reduction", "its weights", "its biases", "kernel after it", "kernel alone"]
    columns += ["times fewer weights", "multiply-adds", "of the kernel alone"]
    note = "Biases are counted in their column only."
    return Table("reductions", "1x1 convolutions before others", columns, rows, 2, note)


def _separable_table() -> Table:
    rows = []
    for inputs, outputs, side in SEPARABLES:
        full, parts = convolution(inputs, outputs, 3, side), separable(inputs, outputs, side)
        fraction, expected = parts.weights / full.weights, 1 / outputs + 1 / 9
        work = (full.multiply_adds, parts.multiply_adds)
        rows.append((inputs, outputs, side, full.weights, parts.weights, *work, fraction, expected))
    columns = ["M", "N", "side of map", "weights, full", "weights, separable"]
    columns += ["multiply-adds, full", "multiply-adds, separable", "fraction", "1/N + 1/9"]
    title = "A 3x3 convolution of M to N channels, full and separable"
    return Table("separable", title, columns, rows)


def _group_table() -> Table:
    rows = []
    for groups in GROUPS:
        cost = convolution(GROUPED, GROUPED, 3, SIDE, groups=groups)
        rows.append((groups, cost.weights, cost.multiply_adds))
    columns = ("groups", "weights", f"multiply-adds at {SIDE} x {SIDE}")
    return Table("groups", f"A 3x3 convolution, {GROUPED} to {GROUPED} channels", columns, rows)


def _unit_finding(units: Mapping[str, Unit]) -> str:
    two, projected, paper, *_ = units.values()
    kernels = projected.cost.kernels
    projection = sum(kernels[name] for name in kernels if "shortcut" in name)
    equal = two.cost.weights == projected.cost.weights
    return (
        f"Two 3x3 of width {two.inputs} have {two.cost.weights:,} weights, a bottleneck of "
        f"{projected.inputs} to {projected.outputs} channels {projected.cost.weights:,}: "
        f"{'equal, but only with' if equal else 'different, even with'} the {projection:,} of its "
        f"projection. The paper's bottleneck, from {paper.inputs} channels and without projection, "
        f"has {paper.cost.weights:,}, {100 * paper.cost.weights / two.cost.weights:.1f} % of that."
    )


def _equality_finding() -> str:
    widths = range(1, SEARCHED + 1)
    same = sum(equal_inner_widths(width, projection=True) == [width] for width in widths)
    plain = sum(bool(equal_inner_widths(width, projection=False)) for width in widths)
    return (
        f"With the projection the two are equal at {same} of the widths from 1 to {SEARCHED}, if "
        f"and only if the inner width is that of the 3x3. Without it they are equal at "
        f"{plain or 'none'}: the inner width would have to be "
        f"{(18 / 17) ** 0.5:.3f} times that of the 3x3."
    )


def _width_finding(units: Mapping[str, Unit]) -> str:
    two, _, paper, wide, groups = units.values()
    ratio = wide.cost.weights / paper.cost.weights
    work = wide.cost.multiply_adds / paper.cost.multiply_adds
    saved = 1 - paper.cost.weights / two.cost.weights
    return (
        "At the same width of input and output a bottleneck has fewer weights: "
        f"{paper.cost.weights:,} against {wide.cost.weights:,} for two 3x3 of width {wide.inputs}, "
        f"a factor of {ratio:.1f}, and of {work:.1f} in multiply-adds. Against two 3x3 of width "
        f"{two.inputs}, whose output has {paper.outputs // two.outputs} times fewer channels, it "
        f"has {100 * saved:.1f} % fewer. ResNeXt's block of 32 groups has "
        f"{groups.cost.weights:,}."
    )


def _stage_finding() -> str:
    costs = [[cost.multiply_adds for cost in stage_costs(*stage)] for stage in STAGES]
    stages = [f"{side} x {side} with {width}" for side, width in STAGES]
    doubled, narrow, first = zip(*costs, strict=True)
    same = "equal" if len(set(doubled)) == 1 else "different"
    fractions = sorted({f"{work / doubled[0]:.2g}" for work in first[1:]})
    return (
        f"The multiply-adds of a 3x3 layer at {joined(stages)} channels are {same}, "
        f"{joined([f'{work:,}' for work in dict.fromkeys(doubled)])}. At constant width they would "
        f"fall to {joined([f'{work:,}' for work in narrow[1:]])}. The first layer of a stage, "
        f"which doubles the width, needs {joined(fractions)} of them."
    )


def _mixing_finding(one: Mixing, three: Mixing) -> str:
    return (
        "A 1x1 convolution extracts no spatial information: each output pixel reads "
        f"{one.pixels} pixel in {one.channels} channels, and permuting the pixels only permutes "
        f"the outputs, within {one.difference:.1g} of outputs up to {one.largest:.1f}. A 3x3 reads "
        f"{three.pixels} pixels, and its outputs then differ by up to {three.difference:.1f}."
    )


def _reduction_finding() -> str:
    row = REDUCTIONS[0]
    alone, one, after = row.costs()
    both = one.weights + after.weights
    size = f"{row.side} x {row.side}"
    return (
        f"{row.reduced} filters of 1x1 turn {size} x {row.width} into {size} x {row.reduced} "
        f"with {one.weights:,} weights and {row.reduced} biases. Before a "
        f"{row.kernel}x{row.kernel} with {row.outputs} filters that saves weights: {both:,} "
        f"instead of {alone.weights:,}, {alone.weights / both:.1f} times fewer."
    )


def _separable_finding() -> str:
    fractions, errors = [], []
    for inputs, outputs, side in SEPARABLES:
        full, parts = convolution(inputs, outputs, 3, side), separable(inputs, outputs, side)
        fractions.append(parts.multiply_adds / full.multiply_adds)
        errors.append(abs(fractions[-1] - 1 / outputs - 1 / 9))
    exact = "exactly" if max(errors) < 1e-12 else f"within {max(errors):.1g} of"
    return (
        f"A separable 3x3 needs {100 * min(fractions):.1f} to {100 * max(fractions):.1f} % of the "
        f"multiply-adds of a full one, {exact} 1/N + 1/9 for N output channels."
    )


def _inner_figure(inner: Sequence[tuple[int, int, int]]) -> Figure:
    def mark_target(axes: Axes) -> None:
        axes.axhline(18 * WIDTH**2, color=FAINT, lw=1, label=f"two 3x3 of width {WIDTH}")
        axes.yaxis.set_major_formatter("{x:,.0f}")

    widths, projected, identity = zip(*inner, strict=True)
    series = {f"from {WIDTH}, with projection": projected, "from 4n, without": identity}
    caption = "Where a curve meets the thin line, its cost is that of two 3x3."
    labels = ("inner width n", "weights")
    title = "Bottlenecks to 4n channels"
    return lines("inner-widths", caption, series, widths, title, labels, mark_target)
