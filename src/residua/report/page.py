"""What a study found, as plain data: sentences, tables and figures; knows no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Columns and rows of one table.

    name: stem of its file. title: a heading of a few words. Numbers stay numbers: a float is
    written in full to the CSV and with `digits` places to the page, an int with separators; None is
    an empty cell. note: a sentence under it, such as a source. turned: many columns and few rows,
    which are read on their side; its CSV is not.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: int = 4
    note: str = ""
    turned: bool = False

    @property
    def lines(self) -> Sequence[Sequence[Cell]]:
        """As it is read: a heading and lines."""
        lines = [self.columns, *self.rows]
        return list(zip(*lines, strict=True)) if self.turned else lines


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn when it is written.

    name: stem of its files. caption: what is to be seen, a sentence or two. draw: draws on an empty
    canvas. inches: width and height.
    """

    name: str
    caption: str
    draw: Callable[[Canvas], None]
    inches: tuple[float, float] = (9.0, 4.5)


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, then tables, then figures."""

    heading: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Page:
    """A study's result.

    claim: what the tutorial or paper says. source: where. findings: sentences that follow from the
    numbers, the most important first. sections: the evidence. conditions: machine, versions, data,
    epochs, date, ... as sentences. kind: what made the page, "study" or "comparison".
    """

    title: str
    claim: str
    source: str
    findings: Sequence[str]
    sections: Sequence[Section]
    conditions: Sequence[str] = ()
    kind: str = "study"
