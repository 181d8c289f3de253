"""Grouped convolutions -> what they cost, how fast they are, and what a loop of slices gets wrong.

Legend: B batch, C channels, H height, W width. Trains nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.comparison.statistics import seed_differences
from residua.networks.analysis.cost import measure
from residua.networks.analysis.shapes import on_meta
from residua.networks.residual import BOTTLENECK, ResidualUnit, ResNetConfig, unit_plan
from residua.report.page import Cell, Figure, Page, Section, Table
from residua.report.style import COLOURS, FAINT, INK, MARKERS, tidy
from residua.report.view import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

INPUT, SIDE, BATCH = 256, 28, 16
CARDINALITIES = ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4))  # groups, width: Xie 2017, table 2
CHANNELS, GROUPS = 128, 32  # of the tutorial's grouped convolution
WIDTH = CHANNELS // GROUPS
EXACT = 1e-9

_COST = [
    f"Bottleneck units of {INPUT} channels, as in ResNet-50's first stage: a 1x1 to groups times "
    "width, a grouped 3x3, a 1x1 back. The widths are those that Xie et al. 2017 (table 2) chose "
    "so that all units cost about the same. Kernels are counted alone, as in the paper; parameters "
    "include the norms. Times are of forward and backward in float32 on this machine, all units in "
    "turn.",
]
_SLICES = [
    "Tutorial 4 builds its groups in a loop of lambdas that slice the input. A lambda looks up the "
    "loop's counter when it runs, not when it is made; a model that runs its layers after the loop "
    "slices at the last counter every time. Both are rebuilt here with the same kernels, in "
    "float64: a loop of such slices, and one convolution with 32 groups.",
]


@dataclass(frozen=True)
class Unit:
    """A bottleneck unit of some cardinality.

    kernels: weights of its convolutions; parameters: with those of the norms. multiply_adds: of one
    image. seconds: of forward and backward of a batch, each time measured.
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


@dataclass(frozen=True)
class Reading:
    """What a grouped convolution makes of its input.

    silent: the largest change of its outputs if all channels but the last group's are zeroed, as a
    share of the largest output. heard: how many channels of the input get a gradient.
    """

    silent: float
    heard: int


def study(batch: int = BATCH, side: int = SIDE, repeats: int = 5) -> Page:
    """Costs and times of units of all cardinalities; late slices against true groups."""
    units = timed(batch, side, repeats)
    late, right = reading(late_slices), reading(true_groups)
    tables, figures = [_units(units), _layers()], [_figure(units)]
    return Page(
        "Cardinality at equal cost",
        "Grouping costs less, not more.",
        "Tutorial 4 (grouped convolutions)",
        [*findings(units), of_slices(late, right)],
        [
            Section("Cardinality at equal cost", _COST, tables, figures),
            Section("Slices in a loop", _SLICES, [_readings(late, right)]),
        ],
    )


def unit(groups: int, width: int) -> ResidualUnit:
    """A bottleneck of INPUT channels with `groups` groups of `width` channels, option B."""
    config = ResNetConfig((1,), (INPUT,), BOTTLENECK, (groups * width,), groups=groups)
    return ResidualUnit(unit_plan(config, 0, INPUT, 1, first=False))


def timed(batch: int, side: int, repeats: int) -> list[Unit]:
    """Counts and times of all units. The global random generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = [unit(*row) for row in CARDINALITIES]
        x = torch.randn(batch, INPUT, side, side, requires_grad=True)
    seconds: list[list[float]] = [[] for _ in built]
    for _ in range(repeats + 1):  # in turn, so that a busy minute hits all of them
        for each, times in zip(built, seconds, strict=True):
            begun = time.perf_counter()
            each(x).sum().backward()
            times.append(time.perf_counter() - begun)
    found = []
    for row, each, times in zip(CARDINALITIES, built, seconds, strict=True):
        cost = measure(each, (INPUT, side, side))
        kernels = sum(e.weight.numel() for e in each.modules() if isinstance(e, nn.Conv2d))
        measured = tuple(times[1:])  # the first one warms up
        found.append(Unit(*row, kernels, cost.trainable, cost.multiply_adds, measured))
    return found


def late_slices(x: Tensor, kernel: Tensor) -> Tensor:
    """The tutorial's loop: [B, C, H, W] and kernels [C, WIDTH, 3, 3] -> [B, C, H, W].

    All lambdas are made before one runs, as when Keras runs a model that was built in a loop.
    """
    slices: list[Callable[[Tensor], Tensor]] = []
    for group in range(GROUPS):
        slices.append(lambda z: z[:, group * WIDTH : (group + 1) * WIDTH])  # noqa: B023 - the bug
    own = torch.split(kernel, WIDTH)
    parts = [F.conv2d(cut(x), each, padding=1) for cut, each in zip(slices, own, strict=True)]
    return torch.cat(parts, 1)


def true_groups(x: Tensor, kernel: Tensor) -> Tensor:
    """What was meant; shapes as of `late_slices`."""
    return F.conv2d(x, kernel, padding=1, groups=GROUPS)


def reading(layer: Callable[[Tensor, Tensor], Tensor]) -> Reading:
    """Which channels of its input a layer reads; always the same numbers."""
    chance = torch.Generator().manual_seed(0)
    real: dict[str, Any] = {"generator": chance, "dtype": torch.float64}
    x, kernel = torch.randn(2, CHANNELS, 8, 8, **real), torch.randn(CHANNELS, WIDTH, 3, 3, **real)
    zeroed = x.clone()
    zeroed[:, :-WIDTH] = 0
    x.requires_grad_()
    output = layer(x, kernel)
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    output = output.detach()
    change = (output - layer(zeroed, kernel)).abs().max() / output.abs().max()
    heard = int((gradient.abs().amax((0, 2, 3)) > 0).sum())
    return Reading(float(change), heard)


def kernel_weights(groups: int) -> int:
    """Weights of a 3x3 convolution of CHANNELS to CHANNELS channels."""
    with on_meta():
        layer = nn.Conv2d(CHANNELS, CHANNELS, 3, groups=groups, bias=False)
    return layer.weight.numel()


def findings(units: Sequence[Unit]) -> list[str]:
    """Sentences on parameters, on equal cost, on time."""
    return [_of_weights(units), _of_grouping(), _of_time(units)]


def _of_weights(units: Sequence[Unit]) -> str:
    first, last = units[0], units[-1]
    off = max(abs(each.kernels / first.kernels - 1) for each in units)
    widths = [each.groups * each.width for each in units]
    wider = widths[-1] / widths[0]
    return (
        f"A unit {last.name} has {last.kernels:,} weights, {first.name} {first.kernels:,}: "
        f"{'about the same' if abs(last.kernels / first.kernels - 1) < 0.03 else 'not the same'}, "
        f"{last.kernels / first.kernels - 1:+.1%}, while its 3x3 is {wider:g} times as wide. All "
        f"{len(units)} cardinalities lie within {off:.1%} of the first."
    )


def _of_grouping() -> str:
    whole, grouped = kernel_weights(1), kernel_weights(GROUPS)
    exact = "exactly" if whole == GROUPS * grouped else "not exactly"
    return (
        f"A 3x3 convolution of {CHANNELS} to {CHANNELS} channels has {whole:,} weights, with "
        f"{GROUPS} groups {grouped:,}: {exact} 1/{GROUPS} of them."
    )


def _of_time(units: Sequence[Unit]) -> str:
    first, last = units[0], units[-1]
    found = seed_differences(np.log([each.seconds for each in units]))[0, len(units) - 1]
    work = last.multiply_adds / first.multiply_adds - 1
    threads = counted(torch.get_num_threads(), "thread")
    facts = (
        f"on this machine's CPU, {threads}, forward and backward of {last.name} take "
        f"{math.exp(found.mean):.2f} times as long as of {first.name}"
    )
    if not math.isfinite(found.low):
        return f"{facts[0].upper()}{facts[1:]}; a single time says nothing of its spread."
    verdict = "No difference of times is seen"
    if found.significant:
        verdict = "Equal counts are not equal times"
    low, high = math.exp(found.low), math.exp(found.high)
    return (
        f"{verdict}: {facts} (95 % interval {low:.2f} to {high:.2f}, {len(first.seconds)} rounds) "
        f"with {work:+.1%} multiply-adds."
    )


def of_slices(late: Reading, right: Reading) -> str:
    """What the printed loop reads, beside a grouped convolution."""
    deaf = late.silent < EXACT and late.heard == WIDTH
    change = "changes nothing" if late.silent < EXACT else f"changes up to {late.silent:.0%}"
    return (
        f"The loop as printed {'is no' if deaf else 'is a'} grouped convolution: zeroing channels "
        f"0 to {CHANNELS - WIDTH - 1} {change}, and {late.heard} of {CHANNELS} channels get a "
        f"gradient. With groups={GROUPS} the same zeros change outputs by up to "
        f"{right.silent:.0%} of the largest, and {right.heard} of {CHANNELS} get one."
    )


def _units(units: Sequence[Unit]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for each in units:
        counts = (each.kernels, each.parameters, each.multiply_adds)
        times = [1e3 * f(each.seconds) for f in (median, min, max)]
        relative = median(each.seconds) / median(units[0].seconds)
        rows.append((each.name, each.groups, each.groups * each.width, *counts, *times, relative))
    columns = ["unit", "groups", "width of 3x3", "kernels", "parameters", "multiply-adds"]
    columns += ["ms, median", "lowest", "highest", "times the first"]
    return Table("cardinality", "Units of equal cost", columns, rows, 2)


def _layers() -> Table:
    rows = [(groups, kernel_weights(groups)) for groups, _ in CARDINALITIES]
    title = f"A 3x3 convolution, {CHANNELS} to {CHANNELS} channels"
    return Table("grouped-kernels", title, ("groups", "weights"), rows)


def _readings(late: Reading, right: Reading) -> Table:
    rows = [
        (name, each.silent, each.heard, CHANNELS)
        for name, each in (("32 slices, as printed", late), (f"groups={GROUPS}", right))
    ]
    columns = ("layer", "largest change, share of outputs", "channels with gradient", "channels")
    return Table("slices", f"Channels 0 to {CHANNELS - WIDTH - 1} zeroed", columns, rows)


def _figure(units: Sequence[Unit]) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        lines: tuple[tuple[str, Sequence[float]], ...] = (
            ("kernels", [each.kernels for each in units]),
            ("multiply-adds", [each.multiply_adds for each in units]),
            ("median time", [median(each.seconds) for each in units]),
        )
        for place, (label, values) in enumerate(lines):
            shares = [100 * value / values[0] for value in values]
            dash, size = ("-", "--", ":")[place], (9, 5, 6)[place]  # the first two may coincide
            axes.plot(shares, MARKERS[place], color=COLOURS[place], ls=dash, label=label, ms=size)
        low, high = zip(*((min(e.seconds), max(e.seconds)) for e in units), strict=True)
        share = 100 / median(units[0].seconds)
        axes.vlines(
            range(len(units)), [share * e for e in low], [share * e for e in high], COLOURS[2], lw=1
        )
        axes.set_xticks(range(len(units)), [each.name for each in units])
        axes.set_ylim(0)
        axes.set_ylabel(f"% of {units[0].name}", color=FAINT)
        canvas.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
        tidy(axes, "Units of equal cost", "groups x width of a group")

    said = "Weights, multiply-adds and time of each unit; thin lines from fastest to slowest time."
    return Figure("cardinality", said, draw, (8.0, 4.2))
