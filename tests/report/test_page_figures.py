"""Figures of a study's rows have the values of its seeds."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas

from residua.report.page_figures import curves, dots, lines


def seed(epochs: int, offset: float) -> list[dict[str, float]]:
    return [
        {"accuracy": 0.5 + offset, "test_accuracy": 0.1 * k + offset, "test_loss": 1 / k}
        for k in range(1, epochs + 1)
    ]


def test_curves_are_means_over_the_seeds_up_to_the_shortest() -> None:
    figure = curves(
        {"plain": [seed(5, 0.0), seed(4, 0.02)], "residual": [seed(5, 0.1)]}, "accuracy"
    )
    canvas = Canvas()
    figure.draw(canvas)
    test, training, end = canvas.axes
    assert np.allclose(test.lines[0].get_ydata(), [11, 21, 31, 41])
    assert np.allclose(training.lines[1].get_ydata(), [60] * 5)
    assert list(end.lines[1].get_xdata()) == [3, 4, 5]
    assert len(test.collections) == 1  # the band of the row with two seeds
    assert figure.name == "curves"
    assert "Mean over the seeds" in figure.caption


def test_a_figure_of_losses_names_its_group_and_note() -> None:
    figure = curves({"a": [seed(3, 0.0)]}, "loss", "Plain nets", "A note.")
    assert figure.name == "losses-plain-nets"
    assert figure.caption == "Plain nets: One seed, after each epoch. A note."
    canvas = Canvas()
    figure.draw(canvas)
    assert list(canvas.axes[0].lines[0].get_ydata()) == [1, 1 / 2, 1 / 3]
    assert np.isnan(canvas.axes[1].lines[0].get_ydata()).all()  # no training loss was recorded


def test_dots_show_each_seed_and_the_mean_of_each_row() -> None:
    canvas = Canvas()
    dots({"$a_1$": [0.5, 0.7], "b": [0.9]}, "n", "accuracy", "c").draw(canvas)
    (axes,) = canvas.axes
    assert list(axes.lines[0].get_xdata()) == [50, 70]
    assert np.allclose(axes.lines[1].get_xdata(), [60, 60])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$a_1$", "b"]


def test_lines_are_curves_over_any_axis_and_can_be_adjusted() -> None:
    canvas = Canvas()
    series = {"a": [1.0, 4.0], "b": [[0.0, 2.0], [2.0, 4.0]]}
    figure = lines("n", "c", series, [10, 20], "t", ("x", "y"), lambda axes: axes.set_yscale("log"))
    figure.draw(canvas)
    (axes,) = canvas.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 4], [1, 3]]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("x", "y", "log")
