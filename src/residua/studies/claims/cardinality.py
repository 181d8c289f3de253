"""Grouped convolutions -> their cost and speed, and the error of a loop of slices; trains nothing.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from residua.comparison.statistics import seed_differences
from residua.networks.residual import BOTTLENECK, ResidualUnit, ResNetConfig, unit_plan
from residua.report.page import Cell, Figure, Page, Section, Table
from residua.report.page_figures import lines
from residua.report.style import COLOURS
from residua.studies.claims.bottleneck_cost import convolution, cost_of
from residua.system.generators import Seeded
from residua.system.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUT, SIDE, BATCH = 256, 28, 16
CARDINALITIES = ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4))  # groups, width: Xie 2017, table 2
CHANNELS, GROUPS = 128, 32  # of the tutorial's grouped convolution
WIDTH = CHANNELS // GROUPS
ZERO = 1e-9  # smaller changes are rounding errors


@dataclass(frozen=True)
class Unit:
    """A bottleneck unit of one cardinality.

    kernels: weights of its convolutions. parameters: with those of the norms. multiply_adds: of one
    image. seconds: of forward and backward of a batch, for each round.
    """

    groups: int
    width: int
    kernels: int
    parameters: int
    multiply_adds: int
    seconds: tuple[float, ...]

    @property
    def name(self) -> str:
        """As in the paper: 32x4d."""
        return f"{self.groups}x{self.width}d"


class Sensitivity(NamedTuple):
    """Which input channels affect the output of a grouped convolution.

    change: the largest change of an output if all channels but the last group's are set to zero, as
    a fraction of the largest output. channels: number of input channels with a gradient.
    """

    change: float
    channels: int


def study(batch: int = BATCH, side: int = SIDE, repeats: int = 5) -> Page:
    """Costs and times of units of all cardinalities; late slices against grouped convolutions."""
    cost, slices = _cost(timed_units(batch, side, repeats)), _slices()
    return Page(
        "Cardinality at equal cost",
        "Grouping costs less, not more.",
        "Tutorial 4 (grouped convolutions)",
        [*cost.findings, *slices.findings],
        [cost, slices],
    )


def timed_units(batch: int, side: int, repeats: int) -> list[Unit]:
    """Costs and times of all units. Leaves the global random generator unchanged."""
    with Seeded(0):
        modules = [_unit(groups, width) for groups, width in CARDINALITIES]
        x = torch.randn(batch, INPUT, side, side, requires_grad=True)
    seconds: list[list[float]] = [[] for _ in modules]
    for _ in range(repeats + 1):  # in turn, so that other load affects all of them
        for module, times in zip(modules, seconds, strict=True):
            start = time.perf_counter()
            module(x).sum().backward()
            times.append(time.perf_counter() - start)
    units = []
    for row, module, times in zip(CARDINALITIES, modules, seconds, strict=True):
        cost = cost_of(module, INPUT, side)
        parameters = sum(weight.numel() for weight in module.parameters())
        measured = tuple(times[1:])  # without the warm-up
        units.append(Unit(*row, cost.weights, parameters, cost.multiply_adds, measured))
    return units


def _unit(groups: int, width: int) -> ResidualUnit:
    """A bottleneck of INPUT channels with `groups` groups of `width` channels, option B."""
    config = ResNetConfig((1,), (INPUT,), BOTTLENECK, (groups * width,), groups=groups)
    return unit_plan(config, 0, INPUT, 1).build()


def late_slices(x: Tensor, kernel: Tensor) -> Tensor:
    """The tutorial's loop: [B, C, H, W] and kernels [C, WIDTH, 3, 3] -> [B, C, H, W].

    All lambdas are created before one runs, as in Keras models that are built in a loop.
    """
    slices: list[Callable[[Tensor], Tensor]] = []
    for group in range(GROUPS):
        slices.append(lambda z: z[:, group * WIDTH : (group + 1) * WIDTH])  # noqa: B023 - the bug
    kernels = torch.split(kernel, WIDTH)
    outputs = [F.conv2d(cut(x), part, padding=1) for cut, part in zip(slices, kernels, strict=True)]
    return torch.cat(outputs, 1)


def grouped_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """The intended layer; shapes as in `late_slices`."""
    return F.conv2d(x, kernel, padding=1, groups=GROUPS)


def sensitivity(layer: Callable[[Tensor, Tensor], Tensor]) -> Sensitivity:
    """Measure which input channels a layer reads; always the same numbers."""
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(2, CHANNELS, 8, 8, **options)
    kernel = torch.randn(CHANNELS, WIDTH, 3, 3, **options)
    zeroed = x.clone()
    zeroed[:, :-WIDTH] = 0
    x.requires_grad_()
    output = layer(x, kernel)
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    output = output.detach()
    change = (output - layer(zeroed, kernel)).abs().max() / output.abs().max()
    return Sensitivity(float(change), int((gradient.abs().amax((0, 2, 3)) > 0).sum()))


def _cost(units: Sequence[Unit]) -> Section:
    first, last = units[0], units[-1]
    rows: list[tuple[Cell, ...]] = []
    for unit in units:
        costs = (unit.kernels, unit.parameters, unit.multiply_adds)
        times = [1e3 * statistic(unit.seconds) for statistic in (median, min, max)]
        relative = median(unit.seconds) / median(first.seconds)
        rows.append((unit.name, unit.groups, unit.groups * unit.width, *costs, *times, relative))
    columns = ["unit", "groups", "width of 3x3", "weights", "parameters", "multiply-adds"]
    columns += ["ms, median", "lowest", "highest", "times the first"]
    grouped = {
        groups: convolution(CHANNELS, CHANNELS, 3, SIDE, groups=groups).weights
        for groups, _ in CARDINALITIES
    }
    title = f"A 3x3 convolution, {CHANNELS} to {CHANNELS} channels"
    largest = max(abs(unit.kernels / first.kernels - 1) for unit in units)
    wider = last.groups * last.width / (first.groups * first.width)
    return Section(
        "Cardinality at equal cost",
        [
            f"Bottleneck units of {INPUT} channels, as in ResNet-50's first stage: a 1x1 to groups "
            "times width, a grouped 3x3, a 1x1 back. Xie et al. 2017 (table 2) chose the widths so "
            "that all units cost about the same. Weights are those of the kernels, as in the "
            "paper; parameters include the norms. Times are of forward and backward in float32 on "
            "this machine, the units taking turns.",
        ],
        [
            Table("cardinality", "Units of equal cost", columns, rows, 2),
            Table("grouped-kernels", title, ("groups", "weights"), list(grouped.items())),
        ],
        [_figure(units)],
        [
            f"A unit {last.name} has {last.kernels:,} weights, {first.name} has "
            f"{first.kernels:,} ({last.kernels / first.kernels - 1:+.1%}), while its 3x3 is "
            f"{wider:g} times as wide. All {len(units)} cardinalities are within {largest:.1%} of "
            "the first.",
            f"A 3x3 convolution of {CHANNELS} to {CHANNELS} channels has {grouped[1]:,} weights, "
            f"with {GROUPS} groups {grouped[GROUPS]:,}: 1/{grouped[1] / grouped[GROUPS]:g} of "
            "them.",
            time_finding(units),
        ],
    )


def _slices() -> Section:
    sliced, grouped = sensitivity(late_slices), sensitivity(grouped_convolution)
    columns = ("layer", "largest change / output", "channels with gradient", "channels")
    rows = [("32 slices, as printed", *sliced, CHANNELS), (f"groups={GROUPS}", *grouped, CHANNELS)]
    title = f"Channels 0 to {CHANNELS - WIDTH - 1} set to zero"
    return Section(
        "Slices in a loop",
        [
            "Tutorial 4 builds its groups in a loop of lambdas that slice the input. A lambda "
            "reads the loop variable when it runs, not when it is created; a model that runs its "
            "layers after the loop uses the last value every time. Both are rebuilt here with the "
            "same kernels, in float64: a loop of such slices, and one convolution with 32 groups.",
        ],
        [Table("slices", title, columns, rows)],
        findings=[slice_finding(sliced, grouped)],
    )


def time_finding(units: Sequence[Unit]) -> str:
    """Whether the last unit takes as long as the first, at about equal multiply-adds."""
    first, last = units[0], units[-1]
    ratio = seed_differences(np.log([unit.seconds for unit in units]))[0, len(units) - 1]
    work = last.multiply_adds / first.multiply_adds - 1
    threads = counted(torch.get_num_threads(), "thread")
    facts = (
        f"forward and backward of {last.name} take {math.exp(ratio.mean):.2f} times as long as of "
        f"{first.name} on this CPU ({threads}"
    )
    if not math.isfinite(ratio.low):
        return f"In one round, {facts}); the spread is unknown."
    interval = f"95 % CI {math.exp(ratio.low):.2f} to {math.exp(ratio.high):.2f}"
    verdict, note = "Equal cost is not equal time", ""
    if not ratio.significant:
        verdict = "No significant difference in time"
        note = f"; the smallest detectable ratio is {math.exp(ratio.detectable):.2f}"
    return (
        f"{verdict}: {facts}, {len(first.seconds)} rounds, {interval}{note}) with {work:+.1%} "
        "multiply-adds."
    )


def slice_finding(sliced: Sensitivity, grouped: Sensitivity) -> str:
    """Whether the printed loop is a grouped convolution."""
    broken = sliced.change < ZERO and sliced.channels == WIDTH
    change = "changes nothing" if sliced.change < ZERO else f"changes up to {sliced.change:.0%}"
    return (
        f"The loop as printed {'is not a' if broken else 'is a'} grouped convolution: zeroing "
        f"channels 0 to {CHANNELS - WIDTH - 1} {change}, and {sliced.channels} of {CHANNELS} "
        f"channels have a gradient. With groups={GROUPS} the same zeros change outputs by up to "
        f"{grouped.change:.0%} of the largest, and {grouped.channels} of {CHANNELS} have one."
    )


def _figure(units: Sequence[Unit]) -> Figure:
    def mark_range(axes: Axes) -> None:
        scale = 100 / median(units[0].seconds)
        low, high = ([scale * end(unit.seconds) for unit in units] for end in (min, max))
        axes.vlines(range(len(units)), low, high, COLOURS[2], lw=1)
        axes.set_xticks(range(len(units)), [unit.name for unit in units])
        axes.set_ylim(0, 1.3 * max(100, *high))  # the legend is at the top
        axes.lines[0].set_markersize(9)  # the second line may coincide with it

    costs: dict[str, list[float]] = {
        "weights": [unit.kernels for unit in units],
        "multiply-adds": [unit.multiply_adds for unit in units],
        "median time": [median(unit.seconds) for unit in units],
    }
    series = {
        label: [100 * value / values[0] for value in values] for label, values in costs.items()
    }
    caption = "Weights, multiply-adds and time of each unit; thin lines span all measured times."
    labels = ("groups x width of a group", f"% of {units[0].name}")
    x = np.arange(len(units))
    return lines("cardinality", caption, series, x, "Units of equal cost", labels, mark_range)
