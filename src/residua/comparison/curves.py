"""Histories of several runs -> figures that overlay their curves.

A run has a colour and a marker. Training curves are dashed with hollow markers, those of the
evaluated split solid with filled ones, so that all differ without colour too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from residua.report import style
from residua.report.charts import KINDS, SPLITS, History, finite, log_if_wide
from residua.report.fonts import lettering, shorten
from residua.report.page import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

NAME = 40  # columns of a run's name in a legend
COLUMNS = 3  # of the legend


@dataclass(frozen=True, eq=False)
class RunCurve:
    """The curve of one split of a run. index: of the run. rows: of its history.csv."""

    index: int
    split: str
    label: str
    rows: History


def overlays(histories: Mapping[str, History]) -> list[Figure]:
    """Accuracy and loss of all runs, and their last epochs on the evaluated split.

    histories: name of the run -> rows of its history.csv. No figure without any row.
    """
    curves = _curves(histories)
    if not curves:
        return []
    evaluated = [curve for curve in curves if curve.split != "train"]
    ends = [replace(curve, rows=_last_epochs(curve.rows)) for curve in evaluated or curves]
    whole = (
        "Dashed, hollow markers: augmented training images, each run with its own loss. "
        "Solid: validation or test set."
    )
    end = f"The last {style.ZOOM:.0%} of the epochs of each run"
    return [
        _figure("curves", whole, curves),
        _figure("end", f"{end}, validation or test set." if evaluated else f"{end}.", ends),
    ]


def _curves(histories: Mapping[str, History]) -> list[RunCurve]:
    names = _drawable(list(histories))
    curves = []
    for index, rows in enumerate(histories.values()):
        if rows:
            curves.append(RunCurve(index, "train", f"{names[index]}, training", rows))
        if split := _evaluated_split(rows, list(histories.values())):
            curves.append(RunCurve(index, split, f"{names[index]}, {split}", rows))
    return curves


def _evaluated_split(rows: History, histories: Sequence[History]) -> str | None:
    """Test where all runs have recorded it, else validation, else the one that this run has."""
    splits = ("test", "validation")
    common = [
        split for split in splits if all(_has(history, split) for history in histories if history)
    ]
    return next((split for split in (*common, *splits) if _has(rows, split)), None)


def _has(rows: History, split: str) -> bool:
    return any(SPLITS[split].prefix + "accuracy" in row for row in rows)


def _last_epochs(rows: History) -> History:
    """At least two where there are two."""
    return rows[max(0, min(int(len(rows) * (1 - style.ZOOM)), len(rows) - 2)) :]


def _drawable(names: Sequence[str]) -> list[str]:
    """Short names; "run 2" where no installed font has the characters."""
    shown = lettering(names).classes
    return [
        f"run {index + 1}" if text == f"class {index}" != name else shorten(text, NAME)
        for index, (name, text) in enumerate(zip(names, shown, strict=True))
    ]


def _figure(name: str, caption: str, curves: Sequence[RunCurve]) -> Figure:
    labels = [curve.label for curve in curves]
    markers, colours = style.MARKERS, style.COLOURS

    def draw(canvas: Canvas) -> None:
        for axes, kind in zip(canvas.subplots(1, 2), KINDS, strict=True):
            for curve in curves:
                key = SPLITS[curve.split].prefix + kind
                scale = 100 if kind == "accuracy" else 1
                style.draw_curve(
                    axes,
                    [int(row.get("epoch") or 0) for row in curve.rows],
                    [scale * finite(row, key) for row in curve.rows],
                    colour=colours[curve.index % len(colours)],
                    dash=style.DASHES[1] if curve.split == "train" else "-",
                    marker=markers[(curve.index + curve.index // len(colours)) % len(markers)],
                    hollow=curve.split == "train",
                )
            style.tidy(axes, "accuracy, %" if kind == "accuracy" else kind, "epoch")
            if kind == "loss":
                log_if_wide(axes)
        families = lettering(labels).families
        style.legend(canvas, min(len(curves), COLUMNS), 3.5, labels, families)

    return Figure(name, caption, draw, (11.0, 4.4 + 0.24 * (len(curves) // COLUMNS)))
