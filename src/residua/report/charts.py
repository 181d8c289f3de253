"""History rows -> charts of accuracy and loss over the epochs, as a figure and as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from residua.report.style import FAINT, INK, TOOLTIP, Drawing, draw_curve, inline_svg, tidy
from residua.system.words import joined, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

History = Sequence[Mapping[str, float | None]]

KINDS = ("accuracy", "loss")
LABEL_GAP = 0.075  # least distance of the last values' labels, of the height of the axes
LABELLED = 80  # epochs up to which every point has a tooltip
NARROWEST = 0.1  # span of an accuracy axis


@dataclass(frozen=True)
class SplitStyle:
    """How a split is drawn, also without colour, and the prefix of its keys in history rows."""

    prefix: str
    name: str
    colour: str
    dash: Any
    marker: str


SPLITS = {
    "train": SplitStyle("", "Training", "#2f6fde", (0, (5, 2)), "o"),
    "validation": SplitStyle("val_", "Validation", "#c2620a", "-", "s"),
    "test": SplitStyle("test_", "Test", "#14713f", (0, (1, 1.5)), "^"),
}


def chart_svg(history: History, kind: str, best_epoch: int | None = None) -> str | None:
    """The chart of "accuracy" or "loss" as an <svg> element; None without any value."""
    if not (curves := _values(history, kind)):
        return None
    label = f"{joined([SPLITS[split].name for split in curves])} {kind} per epoch".capitalize()
    return inline_svg(
        lambda canvas: _draw(canvas.subplots(), history, kind, best_epoch), (5, 3.25), label
    )


def both_charts(history: History, title: str = "", best_epoch: int | None = None) -> Drawing:
    """Accuracy and loss side by side, 12 x 4 inches.

    history: rows with epoch (from 1), loss, accuracy, val_loss, val_accuracy, test_loss,
    test_accuracy. A missing, None, NaN or infinite value leaves a gap.
    """

    def draw(canvas: Canvas) -> None:
        for axes, kind in zip(canvas.subplots(1, 2), KINDS, strict=True):
            _draw(axes, history, kind, best_epoch)
        if title:
            canvas.suptitle(title, color=INK, fontsize=13, parse_math=False)

    return Drawing(draw, (12, 4))


def finite(row: Mapping[str, float | None], key: str) -> float:
    """A number of a history row, NaN where it is missing or not finite."""
    value = row.get(key)
    return float(value) if value is not None and math.isfinite(value) else math.nan


def log_if_wide(axes: Axes) -> None:
    """Give a loss a logarithmic axis where a linear one would show only its worst epoch."""
    from matplotlib.ticker import FuncFormatter

    values: list[float] = [v for line in axes.lines for v in np.asarray(line.get_ydata(), float)]
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 30 * median(positive):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("log scale", color=FAINT)


def _values(history: History, kind: str) -> dict[str, list[float]]:
    """Split -> a value for each row, of the splits that have any."""
    rows = {
        split: [finite(row, style.prefix + kind) for row in history]
        for split, style in SPLITS.items()
    }
    return {split: values for split, values in rows.items() if np.isfinite(values).any()}


def _draw(axes: Axes, history: History, kind: str, best_epoch: int | None) -> None:
    """One chart: curves, their last values beside them, the best epoch, tooltips."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    epochs = [int(row.get("epoch") or index + 1) for index, row in enumerate(history)]
    curves = _values(history, kind)
    for split, values in curves.items():
        style = SPLITS[split]
        marker = style.marker if len(epochs) <= 30 else ""
        look = {"colour": style.colour, "dash": style.dash, "marker": marker}
        draw_curve(axes, epochs, values, label=style.name, **look)
    names = joined([SPLITS[split].name for split in curves])
    tidy(axes, "", "epoch")
    title = f"{names} {kind}".strip().capitalize()
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=16)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    if kind == "accuracy":
        low, high = axes.get_ylim()
        middle = (low + high) / 2
        low, high = min(low, middle - NARROWEST / 2), max(high, middle + NARROWEST / 2)
        axes.set_ylim(max(low, -0.01), min(high, 1.01))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    else:
        log_if_wide(axes)
    if best_epoch in epochs:
        axes.axvline(best_epoch, color=FAINT, lw=0.8, ls=(0, (2, 3)), zorder=0)
        axes.annotate(
            f"best epoch {best_epoch}",
            (best_epoch, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=FAINT,
        )
    _label_ends(axes, epochs, curves, kind)
    _add_tooltips(axes, epochs, curves, kind)
    if curves:
        axes.legend(
            loc="best",
            framealpha=0.85,
            edgecolor="none",
            labelcolor=INK,
            fontsize=9,
        )


def _label_ends(
    axes: Axes, epochs: Sequence[int], curves: Mapping[str, Sequence[float]], kind: str
) -> None:
    """Write the last value of each curve right of the axes, moved apart where they would touch."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = []
    for split, values in curves.items():
        epoch, value = [(e, v) for e, v in zip(epochs, values, strict=True) if v == v][-1]
        height = float(to_axes.transform((epoch, value))[1])
        ends.append((height if math.isfinite(height) else 0.0, split, value))
    heights = spread([height for height, *_ in sorted(ends)], LABEL_GAP)
    for height, (_, split, value) in zip(heights, sorted(ends), strict=True):
        axes.annotate(
            _text(value, kind),
            (1, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=SPLITS[split].colour,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights in [0, 1], moved as little as possible to be at least `gap` apart."""
    placed: list[float] = []
    for index, height in enumerate(heights):
        room = 1 - gap * (len(heights) - 1 - index)  # for those above
        placed.append(max(min(height, room), placed[-1] + gap if placed else 0.0))
    return placed


def _add_tooltips(
    axes: Axes, epochs: Sequence[int], curves: Mapping[str, Sequence[float]], kind: str
) -> None:
    """An invisible point on each point of the curves, for SVG."""
    for split, values in curves.items() if len(epochs) <= LABELLED else ():
        for epoch, value in zip(epochs, values, strict=True):
            if math.isfinite(value):
                text = f"{TOOLTIP}{SPLITS[split].name}, epoch {epoch}: {_text(value, kind)}"
                (point,) = axes.plot(epoch, value, "o", ms=9, color=INK, alpha=0, gid=text)
                point.set_in_layout(False)


def _text(value: float, kind: str) -> str:
    return percent(value, 1) if kind == "accuracy" else f"{value:.3g}"
