"""The page of a study or comparison as files: HTML, CSV, Markdown, PNG, SVG."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Canvas

from residua.errors import ResiduaError
from residua.report.page import Cell, Figure, Page, Section, Table, markdown, write


def draw(canvas: Canvas) -> None:
    canvas.subplots().plot([1, 2], [3, 4])


TABLE = Table("rows", "Rows", ("name", "value"), [["a|b", 0.123456], ["<i>", None]], 2, "Source.")
PAGE = Page(
    "A <title>",
    "A claim.",
    "Its source.",
    ["A finding & another."],
    [Section("Evidence", ["A paragraph."], [TABLE], [Figure("plot", "A caption.", draw, (3, 2))])],
    ["A condition."],
)


@pytest.mark.slow
def test_a_page_is_written_as_files_for_people_and_programs(tmp_path: Path) -> None:
    index = write(PAGE, tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert names == ["figures/plot.png", "figures/plot.svg", "index.html", "rows.csv", "tables.md"]
    with (tmp_path / "rows.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [["name", "value"], ["a|b", "0.123456"], ["<i>", ""]]
    assert ET.parse(tmp_path / "figures" / "plot.svg").getroot().tag.endswith("svg")
    html = index.read_text("utf-8")
    for text in ("A &lt;title&gt;", "A finding &amp; another.", "<td>&lt;i&gt;</td>", "0.12</td>"):
        assert text in html
    assert "http" not in html.replace("http-equiv", "")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    write(PAGE, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_markdown_has_findings_tables_and_figures() -> None:
    text = markdown(PAGE)
    assert text.startswith("# A \\<title>\n\n> A claim.\n\nIts source.\n\n- A finding & another.\n")
    table = "| name | value |\n| --- | ---: |\n| a\\|b | 0.12 |\n| \\<i> |  |\n\nSource.\n"
    assert f"\n## Rows\n\n{table}" in text
    assert "\n![A caption.](figures/plot.png)\n" in text
    assert text.endswith("\nA condition.\n")


def test_a_transposed_table_is_shown_with_rows_as_columns() -> None:
    table = Table("t", "T", ("run", "accuracy"), [["a", 0.5], ["b", None]], transposed=True)
    assert list(table.lines) == [("run", "a", "b"), ("accuracy", 0.5, None)]
    assert table.numeric == [False, True, False]
    assert Table("t", "T", ("run",), []).numeric == [False]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        ("a", "a"),
        (True, "True"),
        (1234567, "1,234,567"),
        (0.12345, "0.123"),
        (0.0, "0.000"),
        (0.00012345, "0.000123"),
        (12345678.9, "1.23e+07"),
        (float("nan"), "nan"),
    ],
)
def test_cells_are_short_and_never_rounded_to_zero(cell: Cell, text: str) -> None:
    assert Table("name", "title", (), (), 3).text(cell) == text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResiduaError, match="file"):
        write(PAGE, tmp_path / "file")


def test_names_in_markdown_are_neither_html_nor_links_nor_lines() -> None:
    name = "a|b <script> [x](http://x)\n# heading \x1b[2J"
    page = Page(name, "", "", [f"`residua resume {name}`"], [Section("", (), [TABLE])])
    text = markdown(page)
    assert not re.search(r"(?<!\\)<|(?<!\\)\[|^# heading|\x1b", text, re.M)
    assert r"| a\|b | 0.12 |" in text
