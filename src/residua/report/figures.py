"""Histories, images and confusion matrices -> PNG bytes, in the manner of the tutorials' figures.

Every function draws on a figure of its own with the Agg canvas and sets every font itself, so that
neither pyplot's state nor a user's matplotlibrc changes what comes out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from residua.report.charts import SERIES, History, finite, joined, percent, wants_log
from residua.report.fonts import Lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.uint8]

INK, FAINT, RULE = "#1d2330", "#667085", "#d5d9e0"
RIGHT, WRONG = "#1a7f4b", "#c4320a"
# Colour, line style, marker: the parts are told apart without colour too.
STYLES: dict[str, tuple[str, Any, str]] = {
    "train": ("#2f6fde", (0, (5, 2)), "o"),
    "validation": ("#d9730d", "-", "s"),
    "test": ("#1a7f4b", (0, (1, 1.5)), "^"),
}
NUMBERED = 30  # classes up to which a confusion matrix holds its numbers
NAMED = 60  # and up to which it names every class


def curves(history: History, lettering: Lettering, title: str = "") -> bytes:
    """Accuracy and loss over the epochs, 12 x 4 inches, as tutorial 0 draws them (A 0.13).

    history: rows with epoch (from 1), loss, accuracy, val_loss, val_accuracy, test_loss,
    test_accuracy; keys may be missing, values None or NaN: such a point is left out.
    """
    figure = _figure(12, 4)
    for place, kind in enumerate(("accuracy", "loss")):
        axes = figure.add_subplot(1, 2, place + 1)
        _curve(axes, history, kind, lettering)
    if title:
        figure.suptitle(title, color=INK, fontsize=13, parse_math=False)
    return _png(figure, lettering)


def samples(pixels: Pixels, labels: Sequence[int], lettering: Lettering, title: str = "") -> bytes:
    """Images uint8 [N, S, S, C] with their class names, 2 x 4 for eight (A 0.7). N at least 1."""
    figure, grid = _grid(len(pixels), title)
    for axes, image, label in zip(grid, pixels, labels, strict=False):
        _show(axes, image)
        axes.set_title(lettering.name(label, 20), fontsize=10, color=INK, parse_math=False)
    return _png(figure, lettering)


def predictions(
    pixels: Pixels,
    truth: Sequence[int],
    predicted: Sequence[int],
    probability: Sequence[float],
    lettering: Lettering,
    title: str = "",
) -> bytes:
    """Images uint8 [N, S, S, C] with what the network takes them for (A 0.14).

    Right and wrong differ by the colour of the frame, its line (solid, dashed), a mark and a second
    line that says what it is. Probabilities in [0, 1]. N at least 1.
    """
    figure, grid = _grid(len(pixels), title, lines=2)
    rows = zip(grid, pixels, truth, predicted, probability, strict=False)
    for axes, image, label, guess, chance in rows:
        _show(axes, image)
        right = guess == label
        text = f"{'✓' if right else '✗'} {lettering.name(guess, 16)} {percent(chance)}"
        text += "\n" if right else f"\nis {lettering.name(label, 18)}"
        colour = RIGHT if right else WRONG
        axes.set_title(text, fontsize=10, color=colour, parse_math=False, linespacing=1.25)
        for spine in axes.spines.values():
            spine.set(visible=True, color=colour, linewidth=3, linestyle="-" if right else "--")
    return _png(figure, lettering)


def confusion(matrix: npt.NDArray[np.int64], lettering: Lettering, title: str = "") -> bytes:
    """Counts [K, K], rows the truth: shares of each row as colour, right blue and wrong orange.

    With numbers up to 30 classes, beyond that a heat map, which names every class up to 60.
    """
    count = len(matrix)
    side = min(max(4.5, 1.9 + 0.42 * count), 14.5)
    figure = _figure(side + 0.6, side)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(cell_colours(shares), interpolation="nearest")
    if count <= NUMBERED:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if shares[row, column] > 0.55 else INK
                axes.text(column, row, f"{number}", ha="center", va="center", color=colour)
        axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
    step = math.ceil(count / NAMED)
    names = [lettering.name(label, 22) for label in range(0, count, step)]
    axes.set_xticks(range(0, count, step), names, rotation=90, parse_math=False)
    axes.set_yticks(range(0, count, step), names, parse_math=False)
    axes.tick_params(which="both", length=0, labelsize=10 if count <= NUMBERED else 7)
    axes.set_xlabel("Predicted", color=FAINT)
    axes.set_ylabel("Truth", color=FAINT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=12, color=INK, parse_math=False)
    return _png(figure, lettering)


def cell_colours(shares: npt.NDArray[np.floating]) -> Pixels:
    """Shares [K, K] in [0, 1] -> uint8 [K, K, 3]: white to blue on the diagonal, else to orange."""
    strength = np.sqrt(shares)[..., None]  # one error in fifty must be seen
    right, wrong = np.array([31, 94, 201]), np.array([201, 76, 6])
    ink = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    return np.asarray(255 - (255 - ink) * strength, np.uint8)


def _curve(axes: Axes, history: History, kind: str, lettering: Lettering) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    epochs = [int(row.get("epoch") or index + 1) for index, row in enumerate(history)]
    everything: list[float] = []
    drawn = []
    for part, (prefix, name) in SERIES.items():
        colour, style, marker = STYLES[part]
        values = [finite(row, prefix + kind) for row in history]
        if np.isfinite(values).any():
            label = f"{name} {kind.capitalize()}"
            few = marker if len(epochs) <= 30 else ""
            axes.plot(epochs, values, color=colour, ls=style, marker=few, ms=3.5, label=label)
            everything += values
            drawn.append(name)
    axes.set_title(f"{joined(drawn)} {kind.capitalize()}".strip(), color=INK, fontsize=12)
    axes.set_xlabel("Epoch", color=FAINT)
    axes.set_xlim(min(epochs, default=1) - 0.5, max(epochs, default=1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    if kind == "accuracy" and len(epochs) < 2:
        axes.set_ylim(0, 1)
    if kind == "loss" and wants_log(everything):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("logarithmic", color=FAINT)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.tick_params(which="both", colors=FAINT, length=0)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=RULE)
    if drawn:
        axes.legend(
            loc="lower right" if kind == "accuracy" else "upper right",
            framealpha=0.85,
            edgecolor="none",
            labelcolor=INK,
        )


def _grid(number: int, title: str, lines: int = 1) -> tuple[Figure, list[Axes]]:
    """Axes for images in four columns for up to eight, wider beyond; the tutorials' 10 x 5."""
    columns = min(number, 4) if number <= 8 else min(8, math.ceil(math.sqrt(1.6 * number)))
    rows = math.ceil(number / columns)
    width = max(10 * columns / 4 if columns <= 4 else 1.9 * columns, 3.0)
    side = width / columns
    figure = _figure(width, rows * (side + 0.2 * (lines - 1)) + (0.4 if title else 0))
    if title:
        figure.suptitle(title, color=INK, fontsize=11, parse_math=False)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(number)]


def _show(axes: Axes, image: Pixels) -> None:
    """An image without axes; small ones as the squares that they are."""
    grey = image.shape[-1] == 1
    axes.imshow(
        image[..., 0] if grey else image,
        cmap="gray" if grey else None,
        vmin=0,
        vmax=255,
        interpolation="nearest" if image.shape[0] < 100 else "antialiased",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure, lettering: Lettering) -> bytes:
    from matplotlib.text import Text

    families: Any = list(lettering.families)
    for axes in figure.axes:
        axes.tick_params(which="both", labelfontfamily=families)
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    stream = io.BytesIO()
    # The dates and versions that matplotlib would add make equal figures differ.
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
