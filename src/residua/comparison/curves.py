"""Histories of several runs -> figures that lay their curves over each other.

A run has a colour and a marker, a part of its data a line: training dashed with hollow markers, the
judged part solid with filled ones; so all of it is told apart without colour too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from residua.report.charts import SERIES, History, finite, wants_log
from residua.report.figures import FAINT, INK
from residua.report.fonts import lettering, shorten
from residua.report.page import Figure
from residua.report.page_figures import COLOURS, MARKERS, ZOOM, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

DASHED: Any = (0, (4, 1.5))
MARKS = 12  # markers on a long curve, about
NAME = 40  # columns of a run's name in a legend
COLUMNS = 3  # of the legend


@dataclass(frozen=True, eq=False)
class Line:
    """One part of one run: its place among the runs, what the legend says, its rows."""

    place: int
    split: str
    label: str
    rows: History

    def plot(self, axes: Axes, kind: str) -> None:
        """Draw "accuracy", in per cent, or "loss" over the epochs; missing values leave gaps."""
        key, judged = SERIES[self.split][0] + kind, self.split != "train"
        scale = 100 if kind == "accuracy" else 1
        colour = COLOURS[self.place % len(COLOURS)]
        axes.plot(
            [int(row.get("epoch") or 0) for row in self.rows],
            [scale * finite(row, key) for row in self.rows],
            color=colour,
            ls="-" if judged else DASHED,
            lw=1.8 if judged else 1.2,
            marker=MARKERS[(self.place + self.place // len(COLOURS)) % len(MARKERS)],
            markevery=max(1, len(self.rows) // MARKS),
            mfc=colour if judged else "white",
            ms=4.5,
        )


def overlays(histories: Mapping[str, History]) -> list[Figure]:
    """Accuracy and loss of all runs over each other, and the end of the judged curves.

    histories: name of the run -> rows of its history.csv. No figure without any row.
    """
    lines = _lines(histories)
    if not lines:
        return []
    judged = [each for each in lines if each.split != "train"]
    ends = [replace(each, rows=_end(each.rows)) for each in judged or lines]
    whole = (
        "Over the epochs: dashed, hollow markers, on the training images as they were shown, "
        "augmented, under each run's own loss; solid, on the part that judges."
    )
    end = f"The last {ZOOM:.0%} of each run's epochs"
    return [
        _figure("curves", whole, lines),
        _figure("end", f"{end}, on the part that judges." if judged else f"{end}.", ends),
    ]


def _end(rows: History) -> History:
    """The last epochs, two at least where there are two."""
    return rows[max(0, min(int(len(rows) * (1 - ZOOM)), len(rows) - 2)) :]


def _lines(histories: Mapping[str, History]) -> list[Line]:
    names = _legible(list(histories))
    found = []
    for place, rows in enumerate(histories.values()):
        if rows:
            found.append(Line(place, "train", f"{names[place]}, training", rows))
        if part := _judged_part(rows, list(histories.values())):
            found.append(Line(place, part, f"{names[place]}, {part}", rows))
    return found


def _judged_part(rows: History, histories: Sequence[History]) -> str | None:
    """The test part where all runs have recorded it, else validation, else what this one has."""
    held = {
        part: [_holds(each, part) for each in histories if each] for part in ("test", "validation")
    }
    common = [part for part, each in held.items() if all(each)]
    return next((part for part in (*common, *held) if _holds(rows, part)), None)


def _holds(rows: History, part: str) -> bool:
    return any(SERIES[part][0] + "accuracy" in row for row in rows)


def _legible(names: Sequence[str]) -> list[str]:
    """Names as figures can write them; "run 2" where no installed font has the characters."""
    shown = lettering(names).classes
    return [
        f"run {place + 1}" if text == f"class {place}" != name else shorten(text, NAME)
        for place, (name, text) in enumerate(zip(names, shown, strict=True))
    ]


def _figure(name: str, caption: str, lines: Sequence[Line]) -> Figure:
    def draw(canvas: Canvas) -> None:
        for axes, kind in zip(canvas.subplots(1, 2), ("accuracy", "loss"), strict=True):
            for line in lines:
                line.plot(axes, kind)
            tidy(axes, "accuracy, %" if kind == "accuracy" else "loss", "epoch")
            drawn = [float(value) for each in axes.lines for value in each.get_ydata()]
            if kind == "loss" and wants_log(drawn):
                axes.set_yscale("log")
                axes.set_ylabel("logarithmic", color=FAINT)
        _legend(canvas, lines)

    return Figure(name, caption, draw, (11.0, 4.4 + 0.24 * (len(lines) // COLUMNS)))


def _legend(canvas: Canvas, lines: Sequence[Line]) -> None:
    labels = [each.label for each in lines]
    legend = canvas.legend(
        canvas.axes[0].lines,
        ["line"] * len(lines),
        loc="outside lower center",
        ncols=min(len(lines), COLUMNS),
        frameon=False,
        labelcolor=INK,
        handlelength=3.5,
    )
    families = list(lettering(labels).families)
    # Set afterwards: matplotlib leaves out labels that begin with "_", and typesets "$x$".
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
        text.set_fontfamily(families)
