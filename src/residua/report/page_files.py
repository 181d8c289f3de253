"""A page -> index.html, a CSV for each table, all of them as Markdown, figures as PNG and SVG."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

from residua.report.page import Cell, Figure, Page, Table
from residua.report.view import templates
from residua.system.files import csv_text, write_atomically

DPI = 144
FONTS = {
    "font.family": ["DejaVu Sans"],
    "svg.fonttype": "path",  # looks the same everywhere
    "svg.hashsalt": "residua",  # and is the same file at each writing
}


def write(page: Page, folder: Path) -> Path:
    """Write all files of a page into `folder`, each whole or not at all; gives index.html.

    Raises ResiduaError that names a file that cannot be written.
    """
    drawings: dict[str, str] = {}
    for section in page.sections:
        for table in section.tables:
            write_atomically(folder / f"{table.name}.csv", csv_text(table.columns, table.rows))
        for figure in section.figures:
            made = {form: _drawn(figure, form) for form in ("png", "svg")}
            for form, content in made.items():
                write_atomically(folder / "figures" / f"{figure.name}.{form}", content)
            drawings[figure.name] = base64.b64encode(made["svg"]).decode()
    write_atomically(folder / "tables.md", markdown(page))
    write_atomically(folder / "index.html", _html(page, drawings))
    return folder / "index.html"


def markdown(page: Page) -> str:
    """Title, claim, findings and all tables as Markdown."""
    lines = [f"# {page.title}", "", f"> {page.claim}", "", page.source, ""]
    lines += [f"- {finding}" for finding in page.findings]
    for section in page.sections:
        for table in section.tables:
            lines += ["", f"## {table.title}", "", *table_lines(table)]
    lines += ["", *page.conditions]
    return "\n".join(lines).rstrip() + "\n"


def table_lines(table: Table) -> list[str]:
    """One table as lines of Markdown."""
    places = range(len(table.lines[0]))
    numeric = [any(isinstance(row[k], int | float) for row in table.lines[1:]) for k in places]
    rows = [
        [said(cell, table.digits).replace("|", "\\|").replace("\n", " ") for cell in row]
        for row in table.lines
    ]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|" + "|".join(" ---: " if each else " --- " for each in numeric) + "|"
    return [head, rule, *body, *(["", table.note] if table.note else [])]


def said(cell: Cell, digits: int) -> str:
    """A cell as a reader sees it."""
    if cell is None:
        return ""
    if isinstance(cell, bool | str):
        return str(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell and math.isfinite(cell) and not 10**-digits <= abs(cell) < 1e7:
        return f"{cell:.3g}"
    return f"{cell:.{digits}f}"


def _drawn(figure: Figure, form: str) -> bytes:
    """PNG or SVG, the same bytes for the same data, whatever a user's matplotlibrc says."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    settings: Any = {**matplotlib.rcParamsDefault, **FONTS}
    del settings["backend"]  # has nothing to do with how a figure looks
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=figure.inches, layout="constrained")
        FigureCanvasAgg(canvas)
        figure.draw(canvas)
        stream = io.BytesIO()
        facts: dict[str, Any] = {"Date": None} if form == "svg" else {}
        canvas.savefig(stream, format=form, dpi=DPI, facecolor="white", metadata=facts)
    return stream.getvalue()


def _html(page: Page, drawings: dict[str, str]) -> str:
    environment = templates()
    environment.filters["said"] = said
    environment.tests["number_cell"] = lambda cell: isinstance(cell, int | float)
    text: str = environment.get_template("study.html.j2").render(page=page, drawings=drawings)
    return text
