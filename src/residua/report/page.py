"""A result as plain data: sentences, tables, figures -> HTML, CSV, Markdown, PNG and SVG files."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from residua.report import style, view
from residua.system.console import printable
from residua.system.files import csv_text, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Columns and rows of one table.

    name: stem of its file. title: a heading of a few words. Numbers stay numbers: a float is
    written in full to the CSV and with `digits` decimals to the page, an int with separators; None
    is an empty cell. note: a sentence below it, such as a source. transposed: shown with rows as
    columns, for many columns and few rows; the CSV is not.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: int = 4
    note: str = ""
    transposed: bool = False

    @property
    def lines(self) -> Sequence[Sequence[Cell]]:
        """A heading and lines, as they are shown; transposed, without those of empty cells."""
        lines: list[Sequence[Cell]] = [self.columns, *self.rows]
        if not self.transposed:
            return lines
        columns = list(zip(*lines, strict=True))
        return [line for line in columns if any(cell is not None for cell in line[1:])]

    @property
    def numeric(self) -> list[bool]:
        """Whether each shown column has numbers."""
        return [
            any(isinstance(cell, int | float) for cell in column)
            for column in zip(*self.lines[1:], strict=True)
        ] or [False] * len(self.lines[0])

    def text(self, cell: Cell) -> str:
        """A cell as it is shown."""
        if cell is None:
            return ""
        if isinstance(cell, bool | str):
            return str(cell)
        if isinstance(cell, int):
            return f"{cell:,}"
        if cell and math.isfinite(cell) and not 10**-self.digits <= abs(cell) < 1e7:
            return f"{cell:.3g}"
        return f"{cell:.{self.digits}f}"


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn when it is written.

    name: stem of its files. caption: what it shows, in a sentence or two. draw: draws on an empty
    canvas. inches: width and height.
    """

    name: str
    caption: str
    draw: Callable[[Canvas], None]
    inches: tuple[float, float] = (9.0, 4.5)


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, then tables, then figures.

    findings: sentences that follow from its numbers, for the top of the page.
    """

    heading: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    findings: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """The result of a study or a comparison.

    claim: the statement of a tutorial or paper that was tested. source: its reference. findings:
    sentences that follow from the numbers, the most important first. sections: the evidence.
    conditions: machine, versions, data, epochs, date, ... as sentences. kind: "study" or
    "comparison".
    """

    title: str
    claim: str
    source: str
    findings: Sequence[str]
    sections: Sequence[Section]
    conditions: Sequence[str] = ()
    kind: str = "study"

    @property
    def tables(self) -> list[Table]:
        """The tables of all sections."""
        return [table for section in self.sections for table in section.tables]

    @property
    def figures(self) -> list[Figure]:
        """The figures of all sections."""
        return [figure for section in self.sections for figure in section.figures]


def write(page: Page, folder: Path, text: str = "tables.md") -> Path:
    """Write index.html, a CSV per table, all tables as Markdown, and each figure as PNG and SVG.

    text: name of the Markdown file. Returns the path of index.html. Each file is written whole or
    not at all. Raises ResiduaError that names a file that cannot be written.
    """
    drawings: dict[str, str] = {}
    for table in page.tables:
        write_atomically(folder / f"{table.name}.csv", csv_text(table.columns, table.rows))
    for figure in page.figures:
        png = style.render(figure.draw, figure.inches)
        svg = style.render(figure.draw, figure.inches, "svg")
        write_atomically(folder / "figures" / f"{figure.name}.png", png)
        write_atomically(folder / "figures" / f"{figure.name}.svg", svg)
        drawings[figure.name] = base64.b64encode(svg).decode()
    write_atomically(folder / text, markdown(page))
    write_atomically(folder / "index.html", view.html("study", page=page, drawings=drawings))
    return folder / "index.html"


def markdown(page: Page) -> str:
    """Title, claim, findings, tables and figures as Markdown."""
    lines = [f"# {page.title}", "", f"> {page.claim}", "", page.source, ""]
    lines += [f"- {finding}" for finding in page.findings]
    for table in page.tables:
        lines += ["", f"## {table.title}", "", *table_lines(table)]
    for figure in page.figures:
        lines += ["", f"![{figure.caption}](figures/{figure.name}.png)"]
    lines += ["", *page.conditions]
    return "\n".join(map(_plain_line, lines)).rstrip() + "\n"


def _plain_line(line: str) -> str:
    """A line in which names of the user's are neither HTML, links nor further lines."""
    return re.sub(r"(?<!!)([<\[])", r"\\\1", " ".join(printable(line).split("\n")))


def table_lines(table: Table) -> list[str]:
    """One table as lines of Markdown."""
    rows = [
        [table.text(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        for row in table.lines
    ]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|" + "|".join(" ---: " if numeric else " --- " for numeric in table.numeric) + "|"
    return [head, rule, *body, *(["", table.note] if table.note else [])]
