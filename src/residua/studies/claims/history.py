"""Published accuracies and counted costs -> convolutional networks from AlexNet on, compared.

Trains nothing; the speed of the networks is measured on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from residua.networks.zoo import catalogue
from residua.report.page import Cell, Figure, Page, Section, Table
from residua.report.style import COLOURS, DASHES, FAINT, INK, MARKERS, legend, tidy
from residua.studies.claims.imagenet_accuracies import COMPARED, CONTRIBUTIONS, ROWS, Point, counted
from residua.studies.study import computed
from residua.system.console import Report, counting
from residua.system.words import joined, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.transforms import Bbox

BATCH = 8
TIMED = (
    *("alexnet", "vgg16", "vgg19", "googlenet", "inception_v3", "resnet18", "resnet50"),
    *("resnet152", "resnext50_32x4d", "densenet121", "mobilenet_v1", "keras_xception"),
)
# Of the names of points in figures
GAPS = (6, 11, 18, 28, 40, 54, 70)  # distances in points; the first that fits is used
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
MARGIN = 1.0  # pixels between names


@dataclass(frozen=True)
class Timing:
    """Seconds of each measured batch of a network."""

    point: Point
    batch: int
    seconds: tuple[float, ...]

    @property
    def images(self) -> float:
        """Images per second, the median."""
        return self.batch / median(self.seconds)

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds per second."""
        return self.images * self.point.multiply_adds


def study(
    names: Sequence[str] = TIMED,
    batch: int = BATCH,
    repeats: int = 3,
    side: int | None = None,
    report: Report | None = None,
) -> Page:
    """Accuracy against cost for all published rows; speed of `names`.

    side: of the images for timing, None for each network's own.
    """
    points = [counted(row) for row in ROWS]
    timed = [point for point in points if point.name in names]
    timings = [time_network(p, batch, repeats, side) for p in counting(timed, report, len(timed))]
    costs, speed = _costs(points), _speed(timings, batch)
    return Page(
        title=STUDY.title,
        claim="Convolutional networks from AlexNet over VGG, GoogLeNet, ResNet and ResNeXt to "
        "DenseNet became more accurate, by other means than cost.",
        source="Tutorial 0, the figure of accuracy against complexity; the papers of the networks.",
        findings=[*costs.findings, *speed.findings],
        sections=[costs, speed],
    )


STUDY = computed(
    "history", "Accuracy against cost, from AlexNet on", lambda seeds, report: study(report=report)
)


def time_network(point: Point, batch: int, repeats: int, side: int | None) -> Timing:
    """Time a network on random images."""
    name = point.name or ""
    network = catalogue.build(name, seed=0).eval()
    side = side or catalogue.row(name).size
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            network(x)
            seconds.append(time.perf_counter() - start)
    return Timing(point, batch, tuple(seconds[1:]))


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points more accurate than every cheaper one, cheapest first."""
    best: list[Point] = []
    for candidate in sorted(points, key=lambda p: (p.multiply_adds, -p.accuracy)):
        if not best or candidate.accuracy > best[-1].accuracy:
            best.append(candidate)
    return best


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, from -1 to 1."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def frontier_finding(points: Sequence[Point]) -> str:
    """Which networks are on the Pareto frontier, and how far the costliest one is from it."""
    best = frontier(points)
    costliest = max(points, key=lambda p: p.multiply_adds)
    cheaper = [
        point
        for point in points
        if point.accuracy >= costliest.accuracy and point.multiply_adds < costliest.multiply_adds
    ]
    summary = (
        f"{len(best)} of {len(points)} networks are on the Pareto frontier of accuracy and "
        f"multiply-adds: {joined([point.label for point in best])}. "
    )
    if not cheaper:
        return f"{summary}The costliest, {costliest.label}, is also the most accurate."
    cheapest = min(cheaper, key=lambda p: p.multiply_adds)
    return (
        f"{summary}The costliest, {costliest.label}, reaches {costliest.accuracy:.1f} % with "
        f"{_billions(costliest)} multiply-adds; {len(cheaper)} cheaper ones reach that, "
        f"{cheapest.label} with {costliest.multiply_adds / cheapest.multiply_adds:.1f} times fewer."
    )


def order_finding(points: Sequence[Point]) -> str:
    """How well cost predicts the order of accuracies."""
    accuracy = [point.accuracy for point in points]
    work = correlation(accuracy, [point.multiply_adds for point in points])
    size = correlation(accuracy, [point.parameters for point in points])
    return (
        f"Accuracy is {_strength(work)} with multiply-adds (rank correlation {work:+.2f}) and "
        f"{_strength(size)} with parameters ({size:+.2f})."
    )


def _strength(correlation: float) -> str:
    if correlation > 0.7:
        return "strongly correlated"
    if correlation > 0.3:
        return "weakly correlated"
    return "not correlated" if correlation > -0.3 else "negatively correlated"


def family_finding(family: str, points: Sequence[Point]) -> str:
    """The contribution of a family, and its gain over an older network."""
    members = [point for point in points if point.family == family]
    name = family.capitalize() if family.islower() else family
    contribution = f"{name}: {CONTRIBUTIONS[family]}."
    best = max(members, key=lambda p: p.accuracy)
    if family not in COMPARED:
        linear = max(point.linear or 0 for point in members)
        return (
            f"{contribution} {best.label} reaches {best.accuracy:.1f} % with "
            f"{best.parameters / 1e6:.1f} million parameters, {percent(linear)} of them in linear "
            f"layers, and {_billions(best)} multiply-adds."
        )
    new, old = (next(p for p in points if p.name == name) for name in COMPARED[family])
    work, size = new.multiply_adds / old.multiply_adds, new.parameters / old.parameters
    sentences = [
        f"{contribution} {new.label} against {old.label}: {new.accuracy - old.accuracy:+.1f} "
        f"points with {work:.2f} times the multiply-adds and {size:.2f} times the parameters."
    ]
    if new.source != old.source:
        sentences.append("The two have different publishers.")
    if best is not new:
        sentences.append(f"The family reaches {best.accuracy:.1f} % ({best.label}).")
    return " ".join(sentences)


def speed_finding(timings: Sequence[Timing]) -> str:
    """Whether multiply-adds predict the time of a network."""
    slow, fast = (choose(timings, key=lambda t: t.multiply_adds) for choose in (min, max))
    order = correlation(
        [timing.point.multiply_adds for timing in timings], [1 / t.images for t in timings]
    )
    ratio = fast.multiply_adds / slow.multiply_adds
    return (
        f"Multiply-adds {'do not predict' if ratio > 2 else 'roughly predict'} the time: networks "
        f"compute {slow.multiply_adds / 1e9:.0f} ({slow.point.label}) to "
        f"{fast.multiply_adds / 1e9:.0f} ({fast.point.label}) billion of them per second on this "
        f"machine, a factor of {ratio:.1f}; the rank correlation of time and multiply-adds is "
        f"{order:+.2f}."
    )


def _billions(point: Point) -> str:
    return f"{point.multiply_adds / 1e9:.1f} billion"


def _costs(points: Sequence[Point]) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for point in points:
        cost = (point.multiply_adds, point.parameters, point.side)
        origin = ("counted" if point.name else "as published", point.source)
        rows.append((point.label, point.family, point.accuracy, *cost, *origin))
    columns = ["network", "family", "top-1 %", "multiply-adds", "parameters", "side, px", "cost"]
    columns += ["source of the accuracy"]

    def draw(canvas: Canvas) -> None:
        upper, lower = canvas.subplots(2, 1)
        _scatter(upper, points, [point.multiply_adds / 1e9 for point in points])
        _scatter(lower, points, [point.parameters / 1e6 for point in points])
        tidy(upper, "Accuracy against multiply-adds", "billion multiply-adds per image")
        tidy(lower, "Accuracy against parameters", "million parameters")
        legend(canvas, 4, 4)
        _name_points(canvas, [[point.label for point in points]] * 2)

    caption = "Published top-1 accuracy on ImageNet; a line connects the networks of a family."
    return Section(
        "Accuracy against cost",
        [
            "Trainable parameters, and multiply-adds of convolutions and linear layers, are "
            "counted on the networks as they are built here, for one image of the size in the "
            "table. Accuracies are those of the publishers, with different recipes, crops and "
            "years; differences of a point between publishers are not meaningful. Torchvision's "
            "are its first weights, before its longer recipes; its GoogLeNet, with BatchNorm, and "
            "its Inception V3 were ported from TensorFlow.",
        ],
        [Table("history", "Published accuracy and cost", columns, rows, 1)],
        [Figure("history", caption, draw, (11.0, 13.0))],
        [
            frontier_finding(points),
            order_finding(points),
            *(family_finding(family, points) for family in CONTRIBUTIONS),
        ],
    )


def _speed(timings: Sequence[Timing], batch: int) -> Section:
    points = [timing.point for timing in timings]
    rows: list[tuple[Cell, ...]] = []
    for timing in timings:
        low, high = (timing.batch / end(timing.seconds) for end in (max, min))
        rates = (timing.images, low, high, timing.multiply_adds / 1e9)
        point = timing.point
        rows.append((point.label, point.accuracy, point.multiply_adds, *rates))
    columns = ["network", "top-1 %", "multiply-adds", "images per second", "lowest", "highest"]
    columns += ["billion multiply-adds per second"]

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        _scatter(axes, points, [timing.images for timing in timings])
        tidy(axes, "Accuracy against speed", "images per second on this machine")
        legend(canvas, 4, 4)
        _name_points(canvas, [[point.label for point in points]])

    return Section(
        "Speed",
        [
            f"Images per second in float32 on the CPU of this machine: {batch} images, evaluation "
            "mode, one warm-up batch, then the median of three."
        ],
        [Table("speed", "Speed", columns, rows, 1)],
        [Figure("speed", "Up and to the right is better.", draw, (9.0, 5.5))],
        [speed_finding(timings)],
    )


def _scatter(axes: Axes, points: Sequence[Point], x: Sequence[float]) -> None:
    """A line and markers for each family, then all points in the given order; logarithmic x."""
    from matplotlib.ticker import LogLocator

    for index, family in enumerate(CONTRIBUTIONS):  # the same colour in all figures
        members = sorted(
            (value, point.accuracy)
            for value, point in zip(x, points, strict=True)
            if point.family == family
        )
        if members:
            axes.plot(
                *zip(*members, strict=True),
                MARKERS[index % len(MARKERS)],
                color=COLOURS[index % len(COLOURS)],
                ls=DASHES[index % len(DASHES)],
                lw=1,
                ms=7,
                label=family,
            )
    axes.scatter(x, [point.accuracy for point in points], s=0)  # for `_name_points`
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.margins(0.12)
    axes.set_ylabel("top-1 accuracy, %", color=FAINT)


def _name_points(canvas: Canvas, names: Sequence[Sequence[str]]) -> None:
    """Write the names of each axes' points where they cover no point and no other name."""
    from matplotlib.transforms import Bbox

    canvas.draw_without_rendering()  # computes the layout, which determines all distances
    canvas.set_layout_engine("none")  # and keeps that layout
    radius = 4.5 * canvas.dpi / 72
    for axes, texts in zip(canvas.axes, names, strict=True):
        pixels = axes.transData.transform(axes.collections[-1].get_offsets())
        boxes = [
            Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius) for x, y in pixels
        ]
        for (x, y), text in zip(pixels, texts, strict=True):
            _place_name(axes, (float(x), float(y)), text, boxes)


def _place_name(axes: Axes, pixel: tuple[float, float], text: str, boxes: list[Bbox]) -> None:
    """Write a name at the first free position, and add its box to `boxes`."""
    x, y = axes.transData.inverted().transform(pixel)
    data = (float(x), float(y))
    name = axes.annotate(
        text, data, (0, 0), textcoords="offset points", fontsize=8, color=INK, parse_math=False
    )
    frame = axes.get_window_extent()
    for gap in GAPS:
        for right, up in DIRECTIONS:
            name.set_horizontalalignment(("right", "center", "left")[right + 1])
            name.set_verticalalignment(("top", "center", "bottom")[up + 1])
            name.set_position((gap * right, gap * up))
            box = name.get_window_extent().padded(MARGIN)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in boxes):
                boxes.append(box)
                if gap > GAPS[1]:  # too far away to be unambiguous without a line
                    line = {"arrowstyle": "-", "color": FAINT, "lw": 0.6}
                    arrow = {**line, "shrinkA": 0, "shrinkB": gap / 20}
                    offset = name.get_position()
                    axes.annotate("", data, offset, textcoords="offset points", arrowprops=arrow)
                return
