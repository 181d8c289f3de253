"""Metrics, images and numbers -> what the templates of HTML pages show, and these pages."""

from __future__ import annotations

import base64
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup, escape

from residua.data.dataset import Pixels
from residua.data.random import Integers
from residua.evaluation.metrics import MAJORITY, ClassMetrics, Metrics, group_numbers
from residua.report.text import (
    calibration_text,
    false_alarms_text,
    headline,
    images_text,
    limits,
    slice_text,
    unknown_text,
)
from residua.system.console import short_count
from residua.system.words import agreeing, at_least, counted, decimals, percent

if TYPE_CHECKING:
    from residua.evaluation.score import Evaluation

THUMBNAIL = 128  # largest side of an image inside the HTML, in pixels
MAP = 800  # side of the heat map that replaces a large confusion matrix, in pixels
# Controls, and the halves of undecodable file names: HTML forbids them
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
CONFUSIONS = 8  # pairs of classes that are listed
TABLE = 40  # classes up to which the confusion matrix is a table of counts


@dataclass(frozen=True)
class Confusion:
    """Images of one class predicted as another. support: images of the true class."""

    truth: str
    predicted: str
    count: int
    support: int


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion table: its count, CSS classes, opacity of the background."""

    count: int
    style: str
    opacity: float


@cache
def templates() -> Any:
    """The jinja2 environment of the package's templates; it escapes all text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("residua"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda *args: percent(*args).replace(" ", "\u00a0"),
        "at_least": lambda share: at_least(share, 1).replace(" ", "\u00a0"),
        "decimals": decimals,
        "duration": duration,
        "image": data_uri,
        "number": number,
        "short": short_count,
        "integer": "{:,}".format,
        "counted": counted,
        "agreeing": agreeing,
        "among": images_text,
        "calibration": calibration_text,
        "unknown": unknown_text,
        "false_alarms": false_alarms_text,
        "sentence": slice_text,
        "code": code,
        "markdown": markdown,
        "headline": headline,
        "limits": limits,
        "confusions": confusions,
        "confusion_cells": confusion_cells,
        "confusion_map": confusion_map,
        "majority_accuracy": majority_accuracy,
        "weakest": weakest,
    }
    return environment


def markdown(text: str) -> str:
    """A name as text of Markdown, in one line."""
    return re.sub(r"[\\`*_\[\]<>|#]", r"\\\g<0>", " ".join(text.split()))


def html(template: str, **values: object) -> str:
    """The HTML of a template, with replacement characters for those that HTML may not contain."""
    text: str = templates().get_template(f"{template}.html.j2").render(**values)
    return _FORBIDDEN.sub("\ufffd", text)


def code(text: str) -> Markup:
    """A text, escaped, with what is in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def confusions(metrics: Metrics, classes: Sequence[str]) -> list[Confusion]:
    """The most frequent confusions, largest count first, then largest share of the class."""
    matrix = metrics.confusion
    confusions = [
        Confusion(
            classes[row],
            classes[column],
            int(matrix[row, column]),
            metrics.per_class[row].support,
        )
        for row, column in zip(*np.nonzero(matrix), strict=True)
        if row != column
    ]
    confusions.sort(key=lambda pair: (-pair.count, pair.support, pair.truth, pair.predicted))
    return confusions[:CONFUSIONS]


def confusion_cells(metrics: Metrics) -> list[list[Cell]] | None:
    """The cells of the confusion matrix; None beyond TABLE classes.

    No opacity is between 0.66 and 0.88, where neither dark nor white numbers would reach a contrast
    of 4.5 (WCAG 2.1, 1.4.3).
    """
    if len(metrics.confusion) > TABLE:
        return None
    return [
        [_cell(int(count), score.support, row == column) for column, count in enumerate(counts)]
        for row, (score, counts) in enumerate(
            zip(metrics.per_class, metrics.confusion, strict=True)
        )
    ]


def confusion_map(metrics: Metrics) -> str | None:
    """The confusion matrix as a heat map on a transparent background; None up to TABLE classes."""
    classes = len(metrics.confusion)
    if classes <= TABLE:
        return None
    shares = metrics.confusion / np.maximum(metrics.confusion.sum(axis=1, keepdims=True), 1)
    cells = np.zeros((classes, classes, 4), np.uint8)
    cells[..., :3] = (201, 76, 6)
    cells[np.arange(classes), np.arange(classes), :3] = (47, 111, 222)
    cells[..., 3] = np.round(255 * np.sqrt(shares))  # makes one error in fifty visible
    side = max(1, MAP // classes)
    return data_uri(
        cells.repeat(side, axis=0).repeat(side, axis=1), side=max(MAP, classes), kind="png"
    )


def majority_accuracy(evaluation: Evaluation) -> float:
    """The accuracy of predicting one class for all images: the largest class of the training set;
    where that is not known, of the evaluated images."""
    largest = max(score.support for score in evaluation.metrics.per_class)
    return evaluation.baselines.get(MAJORITY, largest / evaluation.metrics.images)


def weakest(metrics: Metrics) -> list[ClassMetrics]:
    """Classes by ascending F1; those without images come last."""
    return sorted(
        metrics.per_class,
        key=lambda score: (score.f1 is None, score.f1 or 0.0, -score.support, score.name),
    )


def most_instructive(evaluation: Evaluation, most: int) -> list[int]:
    """Indices for a grid: wrong predictions, the surest first, then a quarter of correct ones, of
    each class in turn. A second error of a group comes after those of other groups."""
    labels, is_right = evaluation.labels, evaluation.correct
    sure = np.nan_to_num(evaluation.confidence, nan=-1.0)
    groups = group_numbers(evaluation.groups)
    wrong = np.lexsort((-sure, is_right))[: int((~is_right).sum())]
    errors = _in_turn(wrong, np.arange(len(labels)) if groups is None else groups)
    right = _in_turn(np.flatnonzero(is_right), labels)
    reserved = min(len(right), max(most // 4, most - len(errors)))
    return errors[: most - reserved] + right[:reserved]


def _in_turn(indices: Integers, keys: Integers) -> list[int]:
    """The first index of each key, then the second of each, and so on."""
    counts: Counter[int] = Counter()
    turns = {}
    for index in indices.tolist():
        key = int(keys[index])
        turns[index] = counts[key]
        counts[key] += 1
    return sorted(turns, key=lambda index: turns[index])


def data_uri(
    pixels: Pixels, side: int = THUMBNAIL, kind: Literal["png", "jpeg"] | None = None
) -> str:
    """An image uint8 [H, W, C], C 1, 3 or 4 (PNG), as a data URI, shrunk to `side` pixels.

    kind: None: JPEG for what has more than 64 pixels a side, PNG for the exact pixels of the rest.
    """
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    kind = kind or ("jpeg" if min(pixels.shape[:2]) > 64 else "png")
    image.save(stream, kind, optimize=kind == "png", quality=80)
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def duration(seconds: float) -> str:
    """Seconds as "48.3 s", "3 min 12 s" or "2 h 05 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def number(value: float | None) -> str:
    """A figure with three digits, more where less than 1 would be shown as 1; nothing where there
    is none, "n/a" where it is not finite."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "n/a"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if value >= 1 or float(text) < 1)


def _cell(count: int, support: int, hit: bool) -> Cell:
    share = count / max(support, 1)
    style = "hit" if hit else "miss"
    if share >= 0.6:
        return Cell(count, f"{style} deep", 0.88 + 0.3 * (share - 0.6))
    return Cell(count, style, 0.08 + 0.58 * math.sqrt(share / 0.6))
