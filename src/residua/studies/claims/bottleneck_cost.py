"""Costs of layers and units, compared with claims of tutorials 0, 1, 3, 4; trains nothing.

Weights are those of convolution kernels, without norms and biases. Multiply-adds are of one image.
Widths are numbers of channels, sides are pixels; every map is square.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from residua.networks.analysis.cost import measure
from residua.networks.analysis.shapes import on_meta
from residua.networks.layers import Convolution, Separable
from residua.networks.residual import BASIC, BOTTLENECK, Branch, ResNetConfig, unit_plan
from residua.report.page import Figure, Page, Section, Table
from residua.report.page_figures import lines
from residua.report.style import FAINT
from residua.studies.study import computed
from residua.system.generators import Seeded
from residua.system.words import joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, WIDE = 64, 256  # of the units in tutorial 1's drawing, and of their outputs
SIDE = 56  # of the map in ResNet's first stage
INNER = (24, 32, 48, 64, 65, 66, 96)  # inner widths of the compared bottlenecks
STAGES = ((32, 16), (16, 32), (8, 64))  # side and width, of ResNets for CIFAR
SEARCHED = 256  # largest width that is searched for equal costs
REDUCTIONS = {  # width, reduced to, outputs and side of the larger kernel, side of the map
    "tutorial 3's 1x1, before a 5x5": (100, 20, 32, 5, 64),
    "GoogLeNet 3a, before the 5x5": (192, 16, 32, 5, 28),
    "GoogLeNet 3a, before the 3x3": (192, 96, 128, 3, 28),
}
SEPARABLES = ((32, 64, 112), (128, 128, 56), (512, 512, 14), (728, 728, 19))  # in, out, side
GROUPED, GROUPS = 128, (1, 2, 8, 32, 128)


def study() -> Page:
    """Costs of bottlenecks, of halving with doubling, of 1x1 and separable convolutions."""
    sections = [_units(), _stages(), _mixing(), _reductions(), _separable()]
    return Page(
        title=STUDY.title,
        claim="Two 3x3 convolutions and a bottleneck have equally many parameters, 73,728; a map "
        "of half the size with double the width keeps the cost of a layer; a 1x1 convolution "
        "reduces channels cheaply and extracts spatial information.",
        source="Tutorial 0 (units), 1 (units, questions), 3 (Inception, Xception), 4 (groups); He "
        "et al. 2015, figure 5.",
        findings=[finding for section in sections for finding in section.findings],
        sections=sections,
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


def unit(branch: Branch, inputs: int, inner: int, outputs: int, groups: int = 1) -> Cost:
    """Cost of a residual unit, which has a projection if inputs and outputs differ."""
    config = ResNetConfig((1,), (outputs,), branch, (inner,), groups=groups)
    with on_meta():
        built = unit_plan(config, 0, inputs, 1).build()
    return cost_of(built, inputs, SIDE)


def _units() -> Section:
    """The units of tutorials 1 and 4 and of the paper."""
    shapes = {  # branch, widths of the input, inside the branch and of the output, groups
        f"two 3x3, {WIDTH} wide": (BASIC, WIDTH, WIDTH, WIDTH, 1),
        f"bottleneck from {WIDTH}, with projection": (BOTTLENECK, WIDTH, WIDTH, WIDE, 1),
        f"bottleneck from {WIDE}, the paper's": (BOTTLENECK, WIDE, WIDTH, WIDE, 1),
        f"two 3x3, {WIDE} wide": (BASIC, WIDE, WIDE, WIDE, 1),
        "ResNeXt, 32 groups of 4": (BOTTLENECK, WIDE, 2 * WIDTH, WIDE, 32),
    }
    costs = {name: unit(*shape) for name, shape in shapes.items()}
    rows = [
        (name, *shapes[name][1:4], cost.weights, cost.multiply_adds) for name, cost in costs.items()
    ]
    columns = ("unit", "input", "inner", "output", "weights", f"multiply-adds at {SIDE} x {SIDE}")
    kernels = [
        (name, kernel, weights)
        for name in list(costs)[:3]
        for kernel, weights in costs[name].kernels.items()
    ]
    titles = ("Residual units, counted from modules", "Kernels of the first three units")
    inner_table, inner_figure = _inner_widths()
    return Section(
        "Units",
        [
            "A bottleneck reduces its input to n channels with a 1x1 convolution, applies a 3x3 "
            "and expands to 4n with a 1x1. With w input channels it has wn + 9nn + 4nn weights, "
            "and a projection of 4wn where w and 4n differ. Two 3x3 of width w have 18ww, which is "
            "the same at n = w. Without a projection w is 4n, and the bottleneck has 17nn."
        ],
        [
            Table("units", titles[0], columns, rows),
            Table("kernels", titles[1], ("unit", "kernel", "weights"), kernels),
            inner_table,
        ],
        [inner_figure],
        _unit_findings(*costs.values()),
    )


def _unit_findings(two: Cost, projected: Cost, paper: Cost, wide: Cost, groups: Cost) -> list[str]:
    projection = sum(size for name, size in projected.kernels.items() if "shortcut" in name)
    is_equal = two.weights == projected.weights
    verdict = "equal, but only with" if is_equal else "different, even with"
    widths = range(1, SEARCHED + 1)
    same = sum(equal_inner_widths(width, projection=True) == [width] for width in widths)
    plain = sum(bool(equal_inner_widths(width, projection=False)) for width in widths)
    fraction = 100 * paper.weights / two.weights
    return [
        f"Two 3x3 of width {WIDTH} have {two.weights:,} weights, a bottleneck of {WIDTH} to {WIDE} "
        f"channels {projected.weights:,}: {verdict} the {projection:,} of its projection. The "
        f"paper's bottleneck, from {WIDE} channels and without projection, has {paper.weights:,}, "
        f"{fraction:.1f} % of that.",
        f"With the projection the two are equal at {same} of the widths from 1 to {SEARCHED}, if "
        f"and only if the inner width is that of the 3x3. Without it they are equal at "
        f"{plain or 'none'}: the inner width would have to be "
        f"{(18 / 17) ** 0.5:.3f} times that of the 3x3.",
        "At the same width of input and output a bottleneck has fewer weights: "
        f"{paper.weights:,} against {wide.weights:,} for two 3x3 of width {WIDE}, a factor of "
        f"{wide.weights / paper.weights:.1f}, and of "
        f"{wide.multiply_adds / paper.multiply_adds:.1f} in multiply-adds. Against two 3x3 of "
        f"width {WIDTH}, whose output has {WIDE // WIDTH} times fewer channels, it has "
        f"{100 - fraction:.1f} % fewer. ResNeXt's block of 32 groups has {groups.weights:,}.",
    ]


def equal_inner_widths(width: int, *, projection: bool) -> list[int]:
    """Inner widths n at which a bottleneck has the 18ww weights of two 3x3 of `width`.

    Its output has 4n channels, and its input `width` with a projection, 4n without.
    """
    target = 18 * width**2
    costs = {n: 5 * width * n + 13 * n**2 if projection else 17 * n**2 for n in range(1, 2 * width)}
    return [n for n, cost in costs.items() if cost == target]


def _inner_widths() -> tuple[Table, Figure]:
    """Weights of bottlenecks from WIDTH channels with a projection, and from 4n without."""
    target = 18 * WIDTH**2
    projected = [unit(BOTTLENECK, WIDTH, n, 4 * n).weights for n in INNER]
    identity = [unit(BOTTLENECK, 4 * n, n, 4 * n).weights for n in INNER]
    rows = [
        (n, one, one / target, other, other / target)
        for n, one, other in zip(INNER, projected, identity, strict=True)
    ]
    fraction = "fraction of two 3x3"
    columns = ("n", f"from {WIDTH}, projection", fraction, "from 4n, no projection", fraction)
    title = f"Bottlenecks of inner width n against two 3x3 of width {WIDTH}"

    def mark_target(axes: Axes) -> None:
        axes.axhline(target, color=FAINT, lw=1, label=f"two 3x3 of width {WIDTH}")
        axes.yaxis.set_major_formatter("{x:,.0f}")

    series = {f"from {WIDTH}, with projection": projected, "from 4n, without": identity}
    caption = "Where a curve meets the thin line, its cost is that of two 3x3."
    labels = ("inner width n", "weights")
    heading = "Bottlenecks to 4n channels"
    return (
        Table("inner-widths", title, columns, rows),
        lines("inner-widths", caption, series, INNER, heading, labels, mark_target),
    )


def _stages() -> Section:
    """A 3x3 layer of each stage, the stage's first layer, and a layer of constant width."""
    layers = [convolution(width, width, 3, side) for side, width in STAGES]
    narrow = [convolution(STAGES[0][1], STAGES[0][1], 3, side).multiply_adds for side, _ in STAGES]
    first = [
        convolution(width // 2, width, 3, 2 * side, stride=2).multiply_adds
        for side, width in STAGES[1:]
    ]
    rows = [
        (f"{side} x {side}", width, layer.weights, layer.multiply_adds, strided, constant)
        for (side, width), layer, strided, constant in zip(
            STAGES, layers, [None, *first], narrow, strict=True
        )
    ]
    columns = ["map", "width", "weights", "multiply-adds", "of the stage's first layer"]
    columns += [f"with width {STAGES[0][1]} throughout"]
    stages = [f"{side} x {side} with {width}" for side, width in STAGES]
    works = dict.fromkeys(layer.multiply_adds for layer in layers)
    fractions = sorted({f"{work / layers[0].multiply_adds:.2g}" for work in first})
    return Section(
        "Half the size, double the width",
        [
            "A 3x3 convolution of width w needs 9ww multiply-adds per pixel. The first layer of a "
            "stage has stride 2: it halves the map and doubles the width itself."
        ],
        [Table("stages", "One 3x3 layer of each stage", columns, rows)],
        findings=[
            f"The multiply-adds of a 3x3 layer at {joined(stages)} channels are "
            f"{'equal' if len(works) == 1 else 'different'}, "
            f"{joined([f'{work:,}' for work in works])}. At constant width they would "
            f"fall to {joined([f'{work:,}' for work in narrow[1:]])}. The first layer of a stage, "
            f"which doubles the width, needs {joined(fractions)} of them."
        ],
    )


def _mixing() -> Section:
    """How 1x1 and 3x3 convolutions depend on the order of the pixels."""
    rows = [("1x1", *permuted(1)), ("3x3", *permuted(3))]
    (_, rounding, largest, pixels, channels), (_, difference, _, read, _) = rows
    columns = ("kernel", "largest difference", "largest output", "pixels read", "channels read")
    return Section(
        "Receptive field of a 1x1 convolution",
        [
            "Random float64 maps and kernels. The pixels of a map are permuted before the "
            "convolution or after it: a layer that uses no neighbourhood gives the same result "
            "both times."
        ],
        [Table("order-of-pixels", "Permuted pixels", columns, rows)],
        findings=[
            f"A 1x1 convolution extracts no spatial information: each output pixel reads {pixels} "
            f"pixel in {channels} channels, and permuting the pixels only permutes the outputs, "
            f"within {rounding:.1g} of outputs up to {largest:.1f}. A 3x3 reads {read} pixels, "
            f"and its outputs then differ by up to {difference:.1f}."
        ],
    )


def permuted(side: int) -> tuple[float, float, int, int]:
    """Measure a convolution of 8 to 6 channels on a 9 x 9 map; always the same numbers.

    Returns the largest difference between permuting pixels before and after it, its largest output,
    and how many pixels and channels of the input one output pixel reads.
    """
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
    return difference, float(after.detach().abs().max()), pixels, channels


def _reductions() -> Section:
    """A kernel alone, a 1x1 convolution to fewer channels, and the kernel after it."""
    rows, findings = [], []
    for name, (width, reduced, outputs, kernel, side) in REDUCTIONS.items():
        alone = convolution(width, outputs, kernel, side)
        one = convolution(width, reduced, 1, side)
        after = convolution(reduced, outputs, kernel, side)
        both, work = one.weights + after.weights, one.multiply_adds + after.multiply_adds
        numbers = (one.weights, reduced, after.weights, alone.weights, alone.weights / both)
        rows.append((name, *numbers, work, alone.multiply_adds))
        size = f"{side} x {side}"
        findings.append(
            f"{reduced} filters of 1x1 turn {size} x {width} into {size} x {reduced} "
            f"with {one.weights:,} weights and {reduced} biases. Before a "
            f"{kernel}x{kernel} with {outputs} filters that saves weights: {both:,} "
            f"instead of {alone.weights:,}, {alone.weights / both:.1f} times fewer."
        )
    columns = ["reduction", "its weights", "its biases", "kernel after it", "kernel alone"]
    columns += ["times fewer weights", "multiply-adds", "of the kernel alone"]
    note = "Biases are counted in their column only."
    return Section(
        "1x1 before a larger kernel",
        ["A 1x1 to r of C channels before N kernels of k x k pays off if Cr + kkrN < kkCN."],
        [Table("reductions", "1x1 convolutions before others", columns, rows, 2, note)],
        findings=findings[:1],
    )


def _separable() -> Section:
    """Full, separable (3x3 depthwise, 1x1 pointwise) and grouped convolutions."""
    rows = []
    for inputs, outputs, side in SEPARABLES:
        full = convolution(inputs, outputs, 3, side)
        with on_meta():
            parts = cost_of(Separable(inputs, outputs), inputs, side)
        sizes = (full.weights, parts.weights, full.multiply_adds, parts.multiply_adds)
        fraction, expected = parts.weights / full.weights, 1 / outputs + 1 / 9
        rows.append((inputs, outputs, side, *sizes, fraction, expected))
    columns = ["M", "N", "side of map", "weights, full", "weights, separable"]
    columns += ["multiply-adds, full", "multiply-adds, separable", "fraction", "1/N + 1/9"]
    title = "A 3x3 convolution of M to N channels, full and separable"
    grouped = [convolution(GROUPED, GROUPED, 3, SIDE, groups=groups) for groups in GROUPS]
    group_table = Table(
        "groups",
        f"A 3x3 convolution, {GROUPED} to {GROUPED} channels",
        ("groups", "weights", f"multiply-adds at {SIDE} x {SIDE}"),
        [(n, cost.weights, cost.multiply_adds) for n, cost in zip(GROUPS, grouped, strict=True)],
    )
    works = [separable / full for *_, full, separable, _, _ in rows]
    error = max(abs(work - expected) for work, (*_, expected) in zip(works, rows, strict=True))
    exact = "exactly" if error < 1e-12 else f"within {error:.1g} of"
    return Section(
        "Separable and grouped",
        [
            "One 3x3 kernel per input channel, then a 1x1 convolution: 9M + MN weights instead of "
            "9MN, a fraction of 1/N + 1/9. Groups divide the number of weights by theirs."
        ],
        [Table("separable", title, columns, rows), group_table],
        findings=[
            f"A separable 3x3 needs {100 * min(works):.1f} to {100 * max(works):.1f} % of the "
            f"multiply-adds of a full one, {exact} 1/N + 1/9 for N output channels."
        ],
    )
