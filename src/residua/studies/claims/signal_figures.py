"""Gradients and responses of networks of several depths -> figures.

Legend: S seeds, L layers, see `propagation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from residua.networks.residual import Shortcut
from residua.report.page import Figure
from residua.report.style import COLOURS, DASHES, FAINT, MARKERS, legend, tidy
from residua.studies.claims.propagation import SMALL, Gradients, Responses, Start, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

KINDS: dict[Shortcut, str] = {"none": "plain", "A": "residual"}
STARTS: dict[Start, str] = {
    "he": "normalised (He)",
    "glorot": "normalised (Glorot)",
    "small": f"N(0, {SMALL})",
}
SHOWN = (1e-18, 1e18)  # what the figures show of ratios


def gradient_figures(found: Sequence[Gradients]) -> list[Figure]:
    """The gradient that reaches the first layer by depth, and by layer in the deepest networks."""
    deepest = max(each.depth for each in found)

    def by_depth(canvas: Canvas) -> None:
        for axes, shortcut in zip(canvas.subplots(1, 2, sharey=True), KINDS, strict=True):
            for place, (norm, start) in enumerate(_lines()):
                row = [e for e in found if (e.shortcut, e.norm, e.start) == (shortcut, norm, start)]
                ratios = np.array([each.ratios for each in row]).T
                _band(axes, [each.depth for each in row], ratios, place, markers=True)
            axes.set_ylim(*SHOWN)
            _finish(axes, KINDS[shortcut], "layers", shortcut, "gradient, first over last layer")
        legend(canvas, 3)

    def by_layer(canvas: Canvas) -> None:
        for axes, shortcut in zip(canvas.subplots(1, 2, sharey=True), KINDS, strict=True):
            for place, (norm, start) in enumerate(_lines()):
                wanted = (deepest, shortcut, norm, start)
                each = next(e for e in found if (e.depth, e.shortcut, e.norm, e.start) == wanted)
                shares = each.responses / each.responses[:, -1:]
                _band(axes, range(1, shares.shape[1] + 1), shares, place, markers=False)
            axes.set_ylim(*SHOWN)
            _finish(axes, KINDS[shortcut], "layer", shortcut, "gradient over the last layer's")
        legend(canvas, 3)

    band, out = "The band holds all seeds.", "What leaves the frame is in the table."
    return [
        Figure("gradients", f"The gradient that reaches the first layer. {band} {out}", by_depth),
        Figure("layers", f"The same, layer by layer, at {deepest} layers. {band}", by_layer),
    ]


def _lines() -> list[tuple[bool, Start]]:
    return [(norm, start) for norm in (False, True) for start in STARTS]


def _band(axes: Axes, along: Sequence[int], values: Values, place: int, markers: bool) -> None:
    norm, start = _lines()[place]
    colour, dash = COLOURS[place], DASHES[0] if norm else DASHES[1 + place % 3]
    values = np.maximum(values, SHOWN[0] / 1e3)  # zero has no place on a logarithmic axis
    label = f"{'BatchNorm' if norm else 'no norms'}, {STARTS[start]}"
    axes.fill_between(along, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
    every = 1 if markers else max(1, len(along) // 8)
    axes.plot(
        along,
        np.median(values, 0),
        marker=MARKERS[place],
        markevery=every,
        color=colour,
        ls=dash,
        label=label,
    )


def _finish(axes: Axes, title: str, along: str, shortcut: Shortcut, upward: str) -> None:
    axes.set_yscale("log")
    if shortcut == "none":  # the left one of two
        axes.set_ylabel(upward, color=FAINT)
    tidy(axes, title, along)


def response_figure(learnt: Sequence[Responses]) -> Figure:
    """Responses by layer after training, a panel for each depth."""

    def draw(canvas: Canvas) -> None:
        from matplotlib.ticker import MaxNLocator

        depths = sorted({each.depth for each in learnt})
        grid = canvas.subplots(1, len(depths), squeeze=False, sharey=True)[0]
        for axes, depth in zip(grid, depths, strict=True):
            for place, each in enumerate(e for e in learnt if e.depth == depth):
                layers = range(1, each.after.shape[1] + 1)
                colour, dash = COLOURS[place], DASHES[place]
                low, high = each.after.min(0), each.after.max(0)
                axes.fill_between(layers, low, high, color=colour, alpha=0.15, lw=0)
                name = KINDS[each.shortcut]
                values, marker, every = each.after.mean(0), MARKERS[place], (depth // 9) | 1
                axes.plot(
                    layers, values, marker, ls=dash, color=colour, label=name, markevery=every
                )
            tidy(axes, f"{depth} layers", "3x3 layer")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_yscale("log", subs=())
            axes.set_yticks([0.5, 0.7, 1, 1.5, 2, 3, 5], minor=False)
            axes.yaxis.set_major_formatter("{x:g}")
        grid[0].set_ylabel("standard deviation, logarithmic", color=FAINT)
        legend(canvas, 3)

    said = "Responses behind the norms after a short training, as in figure 7 of He et al. 2015. "
    return Figure("responses", said + "Mean over the seeds; the band holds all of them.", draw)
