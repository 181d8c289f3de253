"""Networks with accuracy, cost and speed -> figures whose points carry their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residua.report.page import Figure
from residua.report.style import COLOURS, DASHES, FAINT, INK, MARKERS, legend, tidy
from residua.studies.claims.published import FAMILIES, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.transforms import Bbox

GAPS = (6, 11, 18, 28, 40, 54, 70)  # points between a name and what it names; the first that fits
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
SLACK = 1.0  # pixels that names keep from each other


def cost_figure(points: Sequence[Point]) -> Figure:
    """Accuracy against multiply-adds and against parameters."""

    def draw(canvas: Canvas) -> None:
        left, right = canvas.subplots(2, 1)
        _scatter(left, points, [each.multiply_adds / 1e9 for each in points])
        _scatter(right, points, [each.parameters / 1e6 for each in points])
        tidy(left, "Accuracy against work", "billion multiply-adds for an image, logarithmic")
        tidy(right, "Accuracy against size", "million parameters, logarithmic")
        legend(canvas, 4, 4)
        name_points(canvas, [[each.label for each in points]] * 2)

    said = "Published top-1 accuracy on ImageNet; a line joins the networks of a family."
    return Figure("history", said, draw, (11.0, 13.0))


def speed_figure(shown: Sequence[tuple[Point, float]]) -> Figure:
    """Accuracy against images a second, of (network, images a second)."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        points = [each for each, _ in shown]
        _scatter(axes, points, [speed for _, speed in shown])
        tidy(axes, "Accuracy against speed", "images a second on this machine, logarithmic")
        legend(canvas, 4, 4)
        name_points(canvas, [[each.label for each in points]])

    return Figure("speed", "Up and to the right is better.", draw, (9.0, 5.5))


def _scatter(axes: Axes, points: Sequence[Point], along: Sequence[float]) -> None:
    """A line and markers for each family; then all points alone, in the order given."""
    from matplotlib.ticker import LogLocator

    for place, family in enumerate(FAMILIES):  # one has the same colour in all figures
        chosen = sorted(
            (x, each.accuracy)
            for x, each in zip(along, points, strict=True)
            if each.published.family == family
        )
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        dash = DASHES[place % len(DASHES)]
        if chosen:
            values = zip(*chosen, strict=True)
            axes.plot(*values, marker, color=colour, ls=dash, lw=1, ms=7, label=family)
    axes.scatter(along, [each.accuracy for each in points], s=0)  # what names belong to
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.margins(0.12)
    axes.set_ylabel("top-1 accuracy, %", color=FAINT)


def name_points(canvas: Canvas, names: Sequence[Sequence[str]]) -> None:
    """Write the names of each axes' points where they cover no point and no other name."""
    from matplotlib.transforms import Bbox

    canvas.draw_without_rendering()  # places the axes, on which all distances depend
    canvas.set_layout_engine("none")  # so that they stay where the names were fitted
    scale = canvas.dpi / 72
    for axes, texts in zip(canvas.axes, names, strict=True):
        where = axes.transData.transform(axes.collections[-1].get_offsets())
        reach = 4.5 * scale
        taken = [Bbox.from_bounds(x - reach, y - reach, 2 * reach, 2 * reach) for x, y in where]
        for (x, y), text in zip(where, texts, strict=True):
            _place(axes, (float(x), float(y)), text, taken)


def _place(axes: Axes, at: tuple[float, float], text: str, taken: list[Bbox]) -> None:
    """Write one name at the first place that is free, and remember that it is taken."""
    x, y = axes.transData.inverted().transform(at)
    place = (float(x), float(y))
    said = axes.annotate(
        text, place, (0, 0), textcoords="offset points", fontsize=8, color=INK, parse_math=False
    )
    frame = axes.get_window_extent()
    for gap in GAPS:
        for right, up in SIDES:
            said.set_horizontalalignment(("right", "center", "left")[right + 1])
            said.set_verticalalignment(("top", "center", "bottom")[up + 1])
            said.set_position((gap * right, gap * up))
            box = said.get_window_extent().padded(SLACK)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(each) for each in taken):
                taken.append(box)
                if gap > GAPS[1]:  # too far away to be understood without a line
                    _thread(axes, place, said.get_position(), gap)
                return


def _thread(
    axes: Axes, place: tuple[float, float], offset: tuple[float, float], gap: float
) -> None:
    """A thin line from a point to its name."""
    arrow = {"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkA": 0, "shrinkB": gap / 20}
    axes.annotate("", place, offset, textcoords="offset points", arrowprops=arrow)
