"""Images, predictions and confusion matrices -> figures, drawn when they are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from residua.data.dataset import Pixels
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.report.fonts import Lettering, lettering
from residua.report.style import FAINT, INK, Drawing
from residua.system.files import write_atomically
from residua.system.words import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from residua.evaluation.predictor import Prediction


RIGHT, WRONG = "#1a7f4b", "#c4320a"
NUMBERED = 30  # classes up to which a confusion matrix shows its counts
GRID = 64  # images of `predict --grid`
NAMED = 60  # and up to which every class is named
LINE, GAP = 0.2, 0.12  # inches: a line of a caption, and what is free around an image


@dataclass(frozen=True)
class Caption:
    """The text above an image of a grid, its colour, and the line of a frame; "" without one."""

    text: str
    colour: str = INK
    frame: str = ""


def samples(pixels: Pixels, labels: Sequence[int], lettering: Lettering) -> Drawing:
    """Images uint8 [N, S, S, C] with their class names, 2 x 4 for eight (A 0.7). N at least 1."""
    return _grid(pixels, [Caption(lettering.name(label, 20)) for label in labels], lettering)


def predictions(
    pixels: Pixels,
    truth: Integers,
    predicted: Integers,
    probability: npt.NDArray[np.float64],
    lettering: Lettering,
) -> Drawing:
    """Images uint8 [N, S, S, C] with the predicted class and its probability (A 0.14), [N] each.

    Correct and wrong predictions differ by the colour of the frame, its line (solid, dashed), a
    mark, and a second line with the true class. Probabilities in [0, 1]. N at least 1.
    """

    def caption(index: int) -> Caption:
        right = predicted[index] == truth[index]
        text = f"{'✓' if right else '✗'} {lettering.name(predicted[index], 16)}"
        text += f" {percent(probability[index], 1)}\n"
        text += "" if right else f"is {lettering.name(truth[index], 18)}"
        return Caption(text, RIGHT if right else WRONG, "-" if right else "--")

    return _grid(pixels, [caption(index) for index in range(len(pixels))], lettering, lines=2)


def confusion(matrix: npt.NDArray[np.int64], lettering: Lettering) -> Drawing:
    """Counts [K, K], rows are true classes: shares of each row as colour, blue on the diagonal.

    With counts up to 30 classes; beyond that a heat map, which names every class up to 60.
    """
    count = len(matrix)
    step = math.ceil(count / NAMED)
    names = [lettering.name(label, 22) for label in range(0, count, step)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.imshow(cell_colours(shares), interpolation="nearest")
        if count <= NUMBERED:
            for (row, column), number in np.ndenumerate(matrix):
                if number:
                    colour = "white" if shares[row, column] > 0.55 else INK
                    axes.text(column, row, f"{number}", ha="center", va="center", color=colour)
            axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
            axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.5)
        axes.set_xticks(range(0, count, step), names, rotation=90, parse_math=False)
        axes.set_yticks(range(0, count, step), names, parse_math=False)
        axes.tick_params(which="both", length=0, labelsize=10 if count <= NUMBERED else 7)
        axes.set_xlabel("predicted class", color=FAINT)
        axes.set_ylabel("true class", color=FAINT)
        for spine in axes.spines.values():
            spine.set_visible(False)

    side = min(max(4.5, 1.9 + 0.42 * count), 14.5)
    return Drawing(draw, (side + 0.6, side), lettering.families)


def cell_colours(shares: npt.NDArray[np.floating]) -> Pixels:
    """Shares [K, K] in [0, 1] -> uint8 [K, K, 3]: white to blue on the diagonal, else to orange."""
    strength = np.sqrt(shares)[..., None]  # makes one error in fifty visible
    right, wrong = np.array([31, 94, 201]), np.array([201, 76, 6])
    ink = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    return np.asarray(255 - (255 - ink) * strength, np.uint8)


def write_prediction_grid(rows: Sequence[tuple[Prediction, Pixels]], file: Path) -> str | None:
    """Write at most GRID images, as the network sees them, under their class and file name.

    An image of none of the classes has a dashed frame and "unknown" before its class, instead of a
    probability after it.

    Returns a warning where no font has a name, or why there is no grid: predictions are worth more
    than their image, so nothing is raised.
    """
    if not rows:
        return f"{file}: no grid: none of the files is readable."
    names = [row.top[0][0] for row, _ in rows]
    files = [PurePath(row.file).name for row, _ in rows]
    distinct = list(dict.fromkeys(names))
    letters, of_files = lettering(distinct), lettering(files, "image")

    def caption(index: int) -> Caption:
        row = rows[index][0]
        label, probability = distinct.index(names[index]), percent(row.top[0][1], 1)
        file = of_files.name(index, 20)
        if row.unknown is None:
            return Caption(f"{letters.name(label, 14)} {probability}\n{file}")
        return Caption(f"unknown: {letters.name(label, 10)}\n{file}", WRONG, "--")

    try:
        drawing = _grid(
            np.stack([pixels for _, pixels in rows]),
            [caption(index) for index in range(len(rows))],
            replace(letters, families=tuple(dict.fromkeys(letters.families + of_files.families))),
            lines=2,
        )
        write_atomically(file, drawing.png())
    except ResiduaError as error:
        return str(error)
    return letters.warning


def _grid(
    pixels: Pixels, captions: Sequence[Caption], lettering: Lettering, lines: int = 1
) -> Drawing:
    """Images in four columns for up to eight, more beyond. lines: of text above each.

    All are drawn in one Axes, whose unit is an inch: an Axes each takes most of a report's time.
    """
    number = len(pixels)
    columns = min(number, 4) if number <= 8 else min(8, math.ceil(math.sqrt(1.6 * number)))
    rows = math.ceil(number / columns)
    width = max(10 * columns / 4 if columns <= 4 else 1.9 * columns, 3.0)
    column, text = width / columns, LINE * lines + GAP
    side = column - LINE - GAP
    height = rows * (text + side) + GAP / 2

    def draw(canvas: Canvas) -> None:
        from matplotlib.patches import Rectangle

        canvas.set_layout_engine("none")
        axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for index, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
            left = (index % columns) * column + (column - side) / 2
            top = (index // columns) * (text + side) + text
            grey = image.shape[-1] == 1
            axes.imshow(
                image[..., 0] if grey else image,
                cmap="gray" if grey else None,
                vmin=0,
                vmax=255,
                interpolation="nearest" if image.shape[0] < 100 else "antialiased",
                extent=(left, left + side, top + side, top),
                aspect="auto",
            )
            if caption.frame:
                look: Any = {"color": caption.colour, "lw": 3, "ls": caption.frame, "fill": False}
                axes.add_patch(Rectangle((left, top), side, side, **look))
            axes.text(
                left + side / 2,
                top - GAP / 2,
                caption.text,
                fontsize=10,
                color=caption.colour,
                ha="center",
                va="bottom",
                linespacing=1.25,
                parse_math=False,
            )

    return Drawing(draw, (width, height), lettering.families)
