"""Figures are independent of a user's matplotlib settings, and share one drawer of curves."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from residua.report import style


def line(canvas: Canvas) -> None:
    axes = canvas.subplots()
    style.draw_curve(axes, [1, 2, 3], [0.1, np.nan, 0.3], colour=style.COLOURS[0], label="_a $x$")
    style.tidy(axes, "accuracy, $", "epoch")
    style.legend(canvas, 1, labels=["_a $x$"])


@pytest.mark.parametrize("form", ["png", "svg"])
def test_equal_figures_have_equal_bytes(form: str) -> None:
    first = style.render(line, (3, 2), form)  # type: ignore[arg-type]
    with matplotlib.rc_context({"figure.facecolor": "red", "font.size": 30, "lines.linewidth": 9}):
        second = style.render(line, (3, 2), form)  # type: ignore[arg-type]
    assert first == second


def test_several_runs_are_a_mean_with_a_band() -> None:
    axes = Canvas().subplots()
    style.draw_curve(axes, [1, 2], np.array([[0.0, 1.0], [1.0, 2.0]]), colour="#0072b2")
    assert list(axes.lines[0].get_ydata()) == [0.5, 1.5]
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.0, 2.0)
    style.draw_curve(axes, [1, 2], [0.0, 1.0], colour="#0072b2", hollow=True)
    assert len(axes.collections) == 1
    assert axes.lines[1].get_markerfacecolor() == "white"


def test_a_legend_shows_labels_as_they_are() -> None:
    canvas = Canvas()
    line(canvas)
    canvas.draw_without_rendering()
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["_a $x$"]


def test_an_inline_svg_describes_itself_and_escapes_the_description() -> None:
    svg = style.inline_svg(line, (2, 1), 'a "b" <c>')
    assert svg.startswith(
        '<svg viewBox="0 0 144 72" role="img" aria-label="a &#34;b&#34; &lt;c&gt;">'
    )
    assert svg.count("<svg") == svg.count("</svg>") == 1
    assert ' id="figure' not in svg
