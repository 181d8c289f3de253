"""The rows of a study -> overlaid curves, or a grid of their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from residua.report.page import Figure
from residua.report.style import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    MARKERS,
    RULE,
    ZOOM,
    draw_curve,
    legend,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Curves = Sequence[Sequence[Mapping[str, float]]]  # seed -> epoch -> metrics


def curves(
    rows: Mapping[str, Curves],
    metric: Literal["accuracy", "loss"],
    group: str = "",
    note: str = "",
) -> Figure:
    """Test and training curves of rows over the epochs, and the last epochs of the test curves.

    group: the name of these rows among others. note: a sentence for the caption.
    """

    def draw(canvas: Canvas) -> None:
        panels = (
            (f"test_{metric}", f"test {metric}", 0.0),
            (metric, f"training {metric}", 0.0),
            (f"test_{metric}", f"test {metric}, last epochs", 1 - ZOOM),
        )
        for axes, (key, title, start) in zip(canvas.subplots(1, 3), panels, strict=True):
            for index, (name, seeds) in enumerate(rows.items()):
                values = _stacked(seeds, key)
                count = values.shape[1]
                first = max(0, int(count * start) - 1)
                draw_curve(
                    axes,
                    np.arange(first + 1, count + 1),
                    values[:, first:],
                    colour=COLOURS[index % len(COLOURS)],
                    dash=DASHES[(index + index // len(COLOURS)) % len(DASHES)],
                    marker=MARKERS[index % len(MARKERS)] if count <= 30 else "",
                    label=name,
                )
            tidy(axes, f"{title}, %" if metric == "accuracy" else title, "epoch")
        legend(canvas, min(len(rows), 6))

    several = max(map(len, rows.values())) > 1
    caption = [
        "Mean over the seeds after each epoch." if several else "One seed, after each epoch.",
        "The band spans all seeds." if several else "",
        note,
    ]
    return Figure(
        "-".join(["curves" if metric == "accuracy" else "losses", *group.lower().split()]),
        f"{group}{': ' * bool(group)}{' '.join(filter(None, caption))}",
        draw,
        (13.0, 4.6 + 0.25 * (len(rows) // 6)),
    )


def lines(
    name: str,
    caption: str,
    series: Mapping[str, Any],
    x: Any,
    title: str,
    labels: tuple[str, str],
    adjust: Callable[[Axes], None] = lambda axes: None,
) -> Figure:
    """A curve over x [X] for each entry of `series`: [X], or [S, X] for a mean with a band.

    labels: of the axes. adjust: sets scales and ticks, or draws more.
    """

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for index, (label, values) in enumerate(series.items()):
            style = {"dash": DASHES[index % len(DASHES)], "marker": MARKERS[index]}
            draw_curve(axes, x, values, colour=COLOURS[index], label=label, **style)
        axes.set_ylabel(labels[1], color=FAINT)
        tidy(axes, title, labels[0])
        adjust(axes)
        axes.legend(frameon=False, labelcolor=INK)

    return Figure(name, caption, draw, (8.0, 4.4))


def dots(values: Mapping[str, Sequence[float]], name: str, title: str, caption: str) -> Figure:
    """A point for each row and seed, one row per line; shares are drawn in per cent."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for index, seeds in enumerate(values.values()):
            colour, shares = COLOURS[index % len(COLOURS)], 100 * np.asarray(seeds)
            axes.plot(shares, np.full(len(shares), index), "o", color=colour, ms=6, alpha=0.75)
            axes.plot([shares.mean()] * 2, [index - 0.3, index + 0.3], color=colour, lw=2.5)
        axes.set_yticks(range(len(values)), list(values), color=INK, parse_math=False)
        axes.invert_yaxis()
        tidy(axes, title, "%")
        axes.grid(axis="x", color=RULE, lw=0.8)
        axes.grid(axis="y", visible=False)

    return Figure(name, caption, draw, (9.0, 1.4 + 0.38 * len(values)))


def _stacked(seeds: Curves, key: str) -> np.ndarray:
    """Values [S, E] of the epochs that all seeds have; accuracies in per cent."""
    count = min(map(len, seeds))
    rows = [[epoch.get(key, np.nan) for epoch in curve[:count]] for curve in seeds]
    return np.array(rows, float) * (100 if "accuracy" in key else 1)
