"""Scores and images -> what the template of the report shows: cells, orders, thumbnails."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.evaluation.metrics import ClassScore, Scores

Pixels = npt.NDArray[np.uint8]

THUMBNAIL = 128  # largest side of an image inside the HTML, in pixels
MAP = 800  # side of the heat map that stands for a large confusion matrix, in pixels
TABLE = 40  # classes up to which the confusion matrix is a table of numbers


@dataclass(frozen=True)
class Confusion:
    """Images of one class taken for another; `of` is how many images the class has."""

    truth: str
    predicted: str
    number: int
    of: int


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion table: its number, CSS classes and opacity of the ground."""

    number: int
    style: str
    strength: float


def templates() -> Any:
    """The jinja2 environment of the package's templates: everything escaped, nothing undefined."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("residua"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def confusions(scores: Scores, classes: Sequence[str], most: int = 8) -> list[Confusion]:
    """The most frequent mistakes, largest number first, then largest share of the class."""
    matrix = scores.confusion
    found = [
        Confusion(
            classes[row],
            classes[column],
            int(matrix[row, column]),
            scores.per_class[row].support,
        )
        for row, column in zip(*np.nonzero(matrix), strict=True)
        if row != column
    ]
    return sorted(found, key=lambda one: (-one.number, one.of, one.truth, one.predicted))[:most]


def confusion_cells(scores: Scores) -> list[list[Cell]] | None:
    """The confusion matrix for a table; None where it has more than TABLE classes.

    Opacities between 0.66 and 0.88 are left out: on them neither dark nor white numbers would have
    a contrast of 4.5 (WCAG 2.1, 1.4.3).
    """
    if len(scores.confusion) > TABLE:
        return None
    return [
        [_cell(int(number), own.support, row == column) for column, number in enumerate(numbers)]
        for row, (own, numbers) in enumerate(zip(scores.per_class, scores.confusion, strict=True))
    ]


def confusion_map(scores: Scores) -> str | None:
    """A large confusion matrix as a heat map on a transparent ground; None up to TABLE classes."""
    count = len(scores.confusion)
    if count <= TABLE:
        return None
    shares = scores.confusion / np.maximum(scores.confusion.sum(axis=1, keepdims=True), 1)
    cells = np.zeros((count, count, 4), np.uint8)
    cells[..., :3] = (201, 76, 6)
    cells[np.arange(count), np.arange(count), :3] = (47, 111, 222)
    cells[..., 3] = np.round(255 * np.sqrt(shares))  # one error in fifty must be seen
    cell = max(1, MAP // count)
    return data_uri(cells.repeat(cell, axis=0).repeat(cell, axis=1), side=max(MAP, count))


def weakest(scores: Scores) -> list[ClassScore]:
    """Classes by F1, the smallest first; those without judged images come last."""
    return sorted(
        scores.per_class, key=lambda own: (own.f1 is None, own.f1 or 0.0, -own.support, own.name)
    )


def most_instructive(
    truth: Sequence[int], predicted: Sequence[int], probability: Sequence[float], most: int
) -> list[int]:
    """Indices for a grid: wrong ones first, the surest first, but a quarter kept for right ones."""
    guesses = list(zip(truth, predicted, strict=True))
    wrong = [index for index, (label, guess) in enumerate(guesses) if label != guess]
    right = [index for index, (label, guess) in enumerate(guesses) if label == guess]
    sure = [chance if math.isfinite(chance) else -1.0 for chance in probability]
    wrong.sort(key=lambda index: (-sure[index], index))
    kept = min(len(right), max(most // 4, most - len(wrong)))
    return wrong[: most - kept] + right[:kept]


def data_uri(pixels: Pixels, side: int = THUMBNAIL) -> str:
    """An image uint8 [H, W, C], C 1, 3 or 4, as a PNG data URI, shrunk to `side` pixels."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def duration(seconds: float) -> str:
    """Seconds as "48.3 s", "3 min 12 s" or "2 h 05 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def number(value: float | None) -> str:
    """A figure with four digits; nothing where there is none, "n/a" where it is not finite."""
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else "n/a"


def _cell(count: int, support: int, hit: bool) -> Cell:
    share = count / max(support, 1)
    style = "hit" if hit else "miss"
    if share >= 0.6:
        return Cell(count, f"{style} deep", 0.88 + 0.3 * (share - 0.6))
    return Cell(count, style, 0.08 + 0.58 * math.sqrt(share / 0.6))
