"""Outcomes of rows -> figures that lay them over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from residua.report.figures import FAINT, INK, RULE
from residua.report.page import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Curves = Sequence[Sequence[Mapping[str, float]]]  # of each seed, a mapping for each epoch
# Okabe and Ito's colours, told apart by all eyes; beyond them the dashes change too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b6473", "#8c510a")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
MARKERS = "os^Dv<>P"
ZOOM = 0.4  # of the epochs, the last ones


def curves(
    rows: Mapping[str, Curves],
    figure: Literal["accuracy", "loss"],
    group: str = "",
    note: str = "",
) -> Figure:
    """Train and test curves of rows over the epochs, and the end of the test curves.

    group: what these rows are, where there are others. note: a sentence below the figure.
    """

    def draw(canvas: Canvas) -> None:
        whole, taught, end = canvas.subplots(1, 3)
        for axes, key, title in (
            (whole, f"test_{figure}", f"test {figure}"),
            (taught, figure, f"training {figure}"),
            (end, f"test_{figure}", f"test {figure}, the end"),
        ):
            for place, (name, seeds) in enumerate(rows.items()):
                _band(axes, seeds, key, name, place, axes is end)
            tidy(axes, f"{title}, %" if figure == "accuracy" else title, "epoch")
        legend(canvas, min(len(rows), 6))

    seeds = max(map(len, rows.values()))
    band = "" if seeds == 1 else " The band reaches from the lowest to the highest seed."
    return Figure(
        "-".join(["curves" if figure == "accuracy" else "losses", *group.lower().split()]),
        f"{group}{': ' * bool(group)}{'Means over the seeds' if band else 'One seed'}, with the "
        f"weights as they are after each epoch.{band}{' ' * bool(note)}{note}",
        draw,
        (13.0, 4.6 + 0.25 * (len(rows) // 6)),
    )


def dots(values: Mapping[str, Sequence[float]], name: str, title: str, caption: str) -> Figure:
    """One figure of each row and seed, as points under each other; shares are drawn in per cent."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for place, (_, seeds) in enumerate(values.items()):
            colour, shown = COLOURS[place % len(COLOURS)], 100 * np.asarray(seeds)
            axes.plot(shown, np.full(len(shown), place), "o", color=colour, ms=6, alpha=0.75)
            axes.plot([shown.mean()] * 2, [place - 0.3, place + 0.3], color=colour, lw=2.5)
        axes.set_yticks(range(len(values)), list(values), color=INK, parse_math=False)
        axes.invert_yaxis()
        tidy(axes, title, "%")
        axes.grid(axis="x", color=RULE, lw=0.8)
        axes.grid(axis="y", visible=False)

    return Figure(name, caption, draw, (9.0, 1.4 + 0.38 * len(values)))


def _band(axes: Axes, seeds: Curves, key: str, name: str, place: int, end: bool) -> None:
    rows = [np.array([epoch.get(key, np.nan) for epoch in curve]) for curve in seeds]
    count = min(map(len, rows))
    values = np.stack([row[:count] for row in rows]) * (100 if "accuracy" in key else 1)
    epochs = np.arange(1, count + 1)
    first = max(0, int(count * (1 - ZOOM)) - 1) if end else 0
    values, epochs = values[:, first:], epochs[first:]
    colour = COLOURS[place % len(COLOURS)]
    dash = DASHES[(place + place // len(COLOURS)) % len(DASHES)]
    axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.13, lw=0)
    axes.plot(
        epochs,
        values.mean(0),
        color=colour,
        ls=dash,
        lw=1.8,
        label=name,
        marker=MARKERS[place % len(MARKERS)] if count <= 30 else "",
        ms=3.5,
    )


def legend(canvas: Canvas, columns: int, length: float | None = None) -> None:
    """What the lines of the first axes mean, for all axes, below them. length: of the samples."""
    handles, labels = canvas.axes[0].get_legend_handles_labels()
    canvas.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        handlelength=length,
    )


def tidy(axes: Axes, title: str, along: str) -> None:
    """The manner of all figures here: a title, faint ticks, a grid of lines, no box."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, color=INK, fontsize=11, parse_math=False)
    axes.set_xlabel(along, color=FAINT)
    if along == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.grid(axis="y", color=RULE, lw=0.8)
    axes.tick_params(which="both", colors=FAINT, length=0)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=RULE)
