"""What layers and units cost, beside what tutorials 0, 1, 3 and 4 say of it; trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from residua.report.page import Figure, Page, Section, Table
from residua.report.style import COLOURS, DASHES, FAINT, INK, MARKERS, tidy
from residua.report.view import joined
from residua.studies.claims.layer_costs import (
    REDUCTIONS,
    SIDE,
    STAGES,
    WIDTH,
    Mixing,
    Unit,
    compared,
    convolution,
    equal_inner,
    inner_widths,
    mixing,
    reduction,
    separable,
    stage_costs,
)
from residua.studies.study import ComputedStudy

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

SEARCHED = 256  # widths up to this are searched for equal costs
SEPARABLES = ((32, 64, 112), (128, 128, 56), (512, 512, 14), (728, 728, 19))  # in, out, side
GROUPED, GROUPS = 128, (1, 2, 8, 32, 128)

_UNITS = [
    "A bottleneck narrows with a 1x1 convolution to n channels, works with a 3x3 and widens with a "
    "1x1 to 4n. Behind an input of w channels it has wn + 9nn + 4nn weights, and where w and 4n "
    "differ a projection of 4wn. Two 3x3 of width w have 18ww, which is the same at n = w. Without "
    "a projection w is 4n, and it has 17nn.",
]
_STAGES = [
    "A 3x3 convolution of width w does 9ww multiply-adds at every pixel. The first layer of a "
    "stage strides, so it halves the map and doubles the width itself."
]
_REDUCTIONS = [
    "A 1x1 to r of C channels before N kernels of k x k pays if Cr + kkrN is less than kkCN."
]
_SEPARABLES = [
    "One 3x3 kernel for each input channel, then a 1x1 convolution: 9M + MN weights instead of "
    "9MN, a share of 1/N + 1/9. Groups divide the weights by their number."
]
_MIXING = [
    "Random float64 maps and kernels. The pixels of a map are put into a random order, before the "
    "convolution or behind it: what uses no neighbourhood gives the same both times."
]


def study() -> Page:
    """What bottlenecks, halving with doubling, 1x1 and separable convolutions cost."""
    units, inner, mixings = compared(), inner_widths(), [mixing(side) for side in (1, 3)]
    return Page(
        title=STUDY.title,
        claim="Two 3x3 convolutions and a bottleneck have equally many parameters, 73,728; a map "
        "of half the size with double the width keeps the cost of a layer; a 1x1 convolution "
        "reduces channels cheaply and extracts spatial information.",
        source="Tutorial 0 (units), 1 (units, questions), 3 (Inception, Xception), 4 (groups); He "
        "et al. 2015, figure 5.",
        findings=[
            _of_units(units),
            _of_equality(),
            _of_fewer(units),
            _of_stages(),
            _of_mixing(mixings),
            _of_reductions(),
            _of_separables(),
        ],
        sections=[
            Section(
                "Units", _UNITS, [_units(units), _parts(units), _widths(inner)], [_figure(inner)]
            ),
            Section("Half the size, double the width", _STAGES, [_stages()]),
            Section("What a 1x1 convolution sees", _MIXING, [_mixings(mixings)]),
            Section("1x1 before a larger kernel", _REDUCTIONS, [_reductions()]),
            Section("Separable and grouped", _SEPARABLES, [_separables(), _groups()]),
        ],
    )


def _units(units: Mapping[str, Unit]) -> Table:
    rows = [
        (name, each.inputs, each.inner, each.outputs, each.cost.weights, each.cost.multiply_adds)
        for name, each in units.items()
    ]
    columns = ("unit", "input", "inner", "output", "weights", f"multiply-adds at {SIDE} x {SIDE}")
    return Table("units", "Residual units, counted from modules", columns, rows)


def _parts(units: Mapping[str, Unit]) -> Table:
    rows = [
        (name, kernel, weights)
        for name, each in list(units.items())[:3]
        for kernel, weights in each.cost.kernels.items()
    ]
    return Table("kernels", "The kernels of the first three", ("unit", "kernel", "weights"), rows)


def _widths(inner: Sequence[tuple[int, int, int]]) -> Table:
    wanted = 18 * WIDTH**2
    rows = [(n, one, one / wanted, other, other / wanted) for n, one, other in inner]
    share = "share of two 3x3"
    columns = ("n", f"from {WIDTH}, projection", share, "from 4n, no projection", share)
    title = f"Bottlenecks of inner width n against two 3x3 of width {WIDTH}"
    return Table("inner-widths", title, columns, rows)


def _stages() -> Table:
    rows = []
    for place, (side, width) in enumerate(STAGES):
        layer, kept, first = stage_costs(side, width)
        strided = first.multiply_adds if place else None
        row = (f"{side} x {side}", width, layer.weights, layer.multiply_adds, strided)
        rows.append((*row, kept.multiply_adds))
    columns = ["map", "width", "weights", "multiply-adds", "of the stage's first layer"]
    columns += [f"if the width stays {STAGES[0][1]}"]
    return Table("stages", "One 3x3 layer of each stage", columns, rows)


def _mixings(mixings: Sequence[Mixing]) -> Table:
    rows = [
        (f"{each.side}x{each.side}", each.difference, each.largest, each.pixels, each.channels)
        for each in mixings
    ]
    columns = ("kernel", "largest difference", "largest output", "pixels read", "channels read")
    return Table("order-of-pixels", "Pixels in another order", columns, rows)


def _reductions() -> Table:
    rows = []
    for row in REDUCTIONS:
        alone, one, behind = reduction(row)
        weights, work = one.weights + behind.weights, one.multiply_adds + behind.multiply_adds
        numbers = (one.weights, row[2], behind.weights, alone.weights, alone.weights / weights)
        rows.append((row[0], *numbers, work, alone.multiply_adds))
    columns = ["reduction", "its weights", "its biases", "kernel behind", "kernel alone"]
    columns += ["times fewer weights", "multiply-adds", "of the kernel alone"]
    note = "Biases are counted in that column alone."
    return Table("reductions", "1x1 convolutions before others", columns, rows, 2, note)


def _separables() -> Table:
    rows = []
    for inputs, outputs, side in SEPARABLES:
        full, parts = convolution(inputs, outputs, 3, side), separable(inputs, outputs, side)
        share, expected = parts.weights / full.weights, 1 / outputs + 1 / 9
        work = (full.multiply_adds, parts.multiply_adds)
        rows.append((inputs, outputs, side, full.weights, parts.weights, *work, share, expected))
    columns = ["M", "N", "side of map", "weights, full", "separable", "multiply-adds, full"]
    columns += ["separable", "share", "1/N + 1/9"]
    title = "A 3x3 convolution of M to N channels, full and separable"
    return Table("separable", title, columns, rows)


def _groups() -> Table:
    rows = []
    for groups in GROUPS:
        cost = convolution(GROUPED, GROUPED, 3, SIDE, groups=groups)
        rows.append((groups, cost.weights, cost.multiply_adds))
    columns = ("groups", "weights", f"multiply-adds at {SIDE} x {SIDE}")
    return Table("groups", f"A 3x3 convolution, {GROUPED} to {GROUPED} channels", columns, rows)


def _of_units(units: Mapping[str, Unit]) -> str:
    two, projected, paper = list(units.values())[:3]
    projection = sum(w for name, w in projected.cost.kernels.items() if "shortcut" in name)
    equal = two.cost.weights == projected.cost.weights
    return (
        f"Two 3x3 of width {two.inputs} have {two.cost.weights:,} weights and a bottleneck of "
        f"{projected.inputs} to {projected.outputs} channels {projected.cost.weights:,}: "
        f"{'equal, but only with' if equal else 'not equal, even with'} the {projection:,} of its "
        f"projection. The paper's bottleneck, from {paper.inputs} channels and without projection, "
        f"has {paper.cost.weights:,}, {100 * paper.cost.weights / two.cost.weights:.1f} % of that."
    )


def _of_equality() -> str:
    widths = range(1, SEARCHED + 1)
    found = [equal_inner(width, projection=True) for width in widths]
    same = [width for width, inner in zip(widths, found, strict=True) if inner == [width]]
    plain = [width for width in widths if equal_inner(width, projection=False)]
    where = (
        f"at every width from 1 to {SEARCHED} if the inner width is that of the 3x3, and not else"
        if len(same) == SEARCHED
        else f"with the inner width of the 3x3 alone at {len(same)} of the widths to {SEARCHED}"
    )
    return (
        f"With the projection the two are equal {where}; without it they are equal "
        f"{f'at {len(plain)} widths' if plain else 'at none'}: the inner width would have to be "
        f"{(18 / 17) ** 0.5:.3f} times that of the 3x3."
    )


def _of_fewer(units: Mapping[str, Unit]) -> str:
    two, _, paper, wide, groups = units.values()
    ratio = wide.cost.weights / paper.cost.weights
    work = wide.cost.multiply_adds / paper.cost.multiply_adds
    fewer = "fewer" if ratio > 1 else "more"
    saved = paper.cost.weights / two.cost.weights - 1
    return (
        f"A bottleneck has {fewer} weights when compared at the same width of input and output: "
        f"{paper.cost.weights:,} against {wide.cost.weights:,} for two 3x3 of width {wide.inputs}, "
        f"a factor of {ratio:.1f}, and {work:.1f} in multiply-adds. Against two 3x3 of width "
        f"{two.inputs}, whose output has {paper.outputs // two.outputs} times fewer channels, it "
        f"has {100 * abs(saved):.1f} % {'fewer' if saved < 0 else 'more'}. ResNeXt's block of 32 "
        f"groups has {groups.cost.weights:,}."
    )


def _of_stages() -> str:
    counts = [stage_costs(*row) for row in STAGES]
    doubled = [layer.multiply_adds for layer, _, _ in counts]
    kept = [narrow.multiply_adds for _, narrow, _ in counts]
    first = [strided.multiply_adds for _, _, strided in counts[1:]]
    at = [f"{side} x {side} with {width}" for side, width in STAGES]
    cost = (
        f"are the same, {doubled[0]:,}"
        if len(set(doubled)) == 1
        else f"differ, {joined([f'{each:,}' for each in doubled])}"
    )
    shares = sorted({f"{each / doubled[0]:.2g}" for each in first})
    return (
        f"The multiply-adds of a 3x3 layer at {joined(at)} channels {cost}. Were the width not "
        f"doubled, they would fall to {joined([f'{each:,}' for each in kept[1:]])}. The first "
        f"layer of a stage, which doubles the width, takes {joined(shares)} of that."
    )


def _of_mixing(mixings: Sequence[Mixing]) -> str:
    one, three = mixings
    blind = one.difference < 1e-9 * one.largest and one.pixels == 1
    return (
        f"A 1x1 convolution extracts {'no ' if blind else ''}spatial information: each place of "
        f"its output reads {one.pixels} pixel in {one.channels} channels, and of pixels in another "
        f"order it makes the same in that order, within {one.difference:.1g} of outputs up to "
        f"{one.largest:.1f}. A 3x3 reads {three.pixels} pixels, and what it makes then differs by "
        f"up to {three.difference:.1f}."
    )


def _of_reductions() -> str:
    _, width, reduced, outputs, kernel, side = REDUCTIONS[0]
    alone, one, behind = reduction(REDUCTIONS[0])
    both = one.weights + behind.weights
    return (
        f"{reduced} filters of 1x1 turn {side} x {side} x {width} into {side} x {side} x {reduced} "
        f"with {one.weights:,} weights and {reduced} biases. Before a {kernel}x{kernel} with "
        f"{outputs} filters that {'saves' if both < alone.weights else 'costs more'}: {both:,} "
        f"weights instead of {alone.weights:,}, {alone.weights / both:.1f} times fewer."
    )


def _of_separables() -> str:
    shares, errors = [], []
    for inputs, outputs, side in SEPARABLES:
        full, parts = convolution(inputs, outputs, 3, side), separable(inputs, outputs, side)
        shares.append(parts.multiply_adds / full.multiply_adds)
        errors.append(abs(shares[-1] - 1 / outputs - 1 / 9))
    agrees = "exactly" if max(errors) < 1e-12 else f"within {max(errors):.1g} of"
    return (
        f"A separable 3x3 does {100 * min(shares):.1f} to {100 * max(shares):.1f} % of the "
        f"multiply-adds of a full one, {agrees} 1/N + 1/9 for N output channels."
    )


def _figure(inner: Sequence[tuple[int, int, int]]) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        widths, projected, identity = zip(*inner, strict=True)
        axes.axhline(18 * WIDTH**2, color=FAINT, lw=1, label=f"two 3x3 of width {WIDTH}")
        lines = ((f"from {WIDTH}, with projection", projected), ("from 4n, without", identity))
        for place, (label, weights) in enumerate(lines):
            colour, marker = COLOURS[place], MARKERS[place]
            axes.plot(widths, weights, marker, color=colour, ls=DASHES[place], label=label)
        axes.set_ylabel("weights", color=FAINT)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.legend(frameon=False, labelcolor=INK)
        tidy(axes, "Bottlenecks to 4n channels", "inner width n")

    said = "Where a curve meets the thin line, it costs what the two 3x3 cost."
    return Figure("inner-widths", said, draw, (8.0, 4.2))


STUDY = ComputedStudy(
    "bottleneck-cost",
    "What bottlenecks, halving and 1x1 convolutions cost",
    lambda seeds, report: study(),
)
