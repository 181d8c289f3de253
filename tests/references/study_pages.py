"""Reads the tables of a page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from residua.report.page import Cell, Page, Table


def table(page: Page, name: str) -> Table:
    return next(table for table in page.tables if table.name == name)


def row(page: Page, name: str, first: Cell) -> Sequence[Cell]:
    return next(row for row in table(page, name).rows if row[0] == first)


def column(page: Page, name: str, index: int) -> list[Cell]:
    return [row[index] for row in table(page, name).rows]


def check_page(page: Page) -> None:
    """Findings are sentences, cells are plain values, files have different names.

    Figures have labelled axes and lines that differ also without colour, and can be saved.
    """
    assert page.findings
    assert all(text.endswith(".") and "  " not in text for text in page.findings)
    for table in page.tables:
        assert table.rows
        assert {len(cells) for cells in table.rows} == {len(table.columns)}, table.name
        cells = [cell for row in table.rows for cell in row]
        # A NumPy scalar would be written to the page as text
        assert {type(cell) for cell in cells} <= {str, int, float, type(None)}
    for names in ([table.name for table in page.tables], [f.name for f in page.figures]):
        assert len(set(names)) == len(names) > 0
    for figure in page.figures:
        canvas = Canvas(figsize=figure.inches, layout="constrained")
        FigureCanvasAgg(canvas)
        figure.draw(canvas)
        assert any(axes.get_ylabel() for axes in canvas.axes)
        for axes in canvas.axes:
            assert axes.get_xlabel()
            lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
            styles = {(line.get_color(), str(line.get_linestyle())) for line in lines}
            assert len(styles) == len(lines)
        stream = io.BytesIO()
        canvas.savefig(stream, format="svg")
        assert stream.getvalue().startswith(b"<?xml")


def all_finite(table: Table) -> bool:
    numbers = [cell for row in table.rows for cell in row if isinstance(cell, float)]
    return all(math.isfinite(number) for number in numbers)
