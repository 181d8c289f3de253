"""The reliability of an evaluation -> its two charts, as inline SVG or as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from residua.report.charts import SPLITS
from residua.report.style import FAINT, INK, TOOLTIP, Drawing, inline_svg, tidy
from residua.system.words import at_least, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.figure import FigureBase

    from residua.evaluation.reliability import Reliability

SIZE = (5, 3.25)  # inches


def reliability_diagram(reliability: Reliability) -> str:
    """Accuracy against confidence in bins, with 95 % intervals, as an <svg> element."""
    return inline_svg(
        lambda canvas: _draw_bins(canvas, reliability),
        SIZE,
        "Accuracy against the probability of the predicted class",
    )


def selective_curve(reliability: Reliability) -> str:
    """Accuracy of the most confident images against their share, as an <svg> element."""
    return inline_svg(
        lambda canvas: _draw_curve(canvas, reliability),
        SIZE,
        "Accuracy against the share of images that are predicted, the most confident first",
    )


def both_charts(reliability: Reliability) -> Drawing:
    """The reliability diagram and the selective curve side by side."""

    def draw(canvas: Canvas) -> None:
        panels: Any = canvas.subfigures(1, 2)
        _draw_bins(panels[0], reliability)
        _draw_curve(panels[1], reliability)

    return Drawing(draw, (2 * SIZE[0], SIZE[1]))


def _draw_bins(canvas: FigureBase, reliability: Reliability) -> None:
    axes = canvas.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=(0, (2, 3)), zorder=0)
    for bin in reliability.after.bins:
        low, high = bin.interval
        axes.plot([bin.confidence] * 2, [low, high], color=SPLITS["validation"].colour, lw=1.2)
        text = f"confidence {percent(bin.confidence, 1)}: {percent(bin.accuracy, 1)} correct"
        axes.plot(
            bin.confidence,
            bin.accuracy,
            "o",
            ms=5,
            color=SPLITS["validation"].colour,
            gid=f"{TOOLTIP}{text} ({bin.images:,} images)",
        )
    lowest = min([0.9, *(min(bin.confidence, bin.interval[0]) for bin in reliability.after.bins)])
    axes.set_xlim(max(0.0, lowest - 0.02), 1.01)
    axes.set_ylim(max(0.0, lowest - 0.02), 1.01)
    tidy(axes, "accuracy", "probability of the predicted class")
    axes.set_title("Reliability diagram", loc="left", color=INK, fontsize=11, fontweight="bold")
    _in_percent(axes)


def _draw_curve(canvas: FigureBase, reliability: Reliability) -> None:
    axes, curve = canvas.subplots(), reliability.selective
    axes.plot(curve.coverage, curve.accuracy, color=SPLITS["train"].colour, lw=1.6)
    for threshold in reliability.thresholds:
        at = int((curve.confidence >= threshold.confidence).sum()) - 1
        lowest, share = at_least(threshold.confidence, 1), percent(threshold.share, 1)
        axes.plot(
            threshold.share,
            curve.accuracy[at],
            "o",
            ms=5,
            color=SPLITS["train"].colour,
            gid=f"{TOOLTIP}probability at least {lowest}: {share} of the images",
        )
    axes.set_xlim(0, 1.01)
    low, high = float(curve.accuracy.min()), float(curve.accuracy.max())
    axes.set_ylim(max(0.0, low - 0.05), min(1.01, high + 0.05))
    tidy(axes, "", "share of images that are predicted")
    title = "Accuracy if only the most confident are predicted"
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    _in_percent(axes)


def _in_percent(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
