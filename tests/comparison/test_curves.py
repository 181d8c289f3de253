"""The curves of several runs are those of their histories, over each other."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure as Canvas

from residua.comparison.curves import overlays


def history(epochs: int, worse: float) -> list[dict[str, float]]:
    return [
        {"epoch": k, "loss": worse / k, "accuracy": 0.5 + k / 40, "test_loss": worse / k + 0.1}
        | {"test_accuracy": 0.4 + k / 40, "val_accuracy": 0.3 + k / 40}
        for k in range(1, epochs + 1)
    ]


def drawn(histories: Mapping[str, list[dict[str, float]]], figure: int) -> Canvas:
    canvas = Canvas()
    overlays(histories)[figure].draw(canvas)
    canvas.draw_without_rendering()
    return canvas


def test_curves_have_the_values_of_the_history() -> None:
    histories = {"_a $x$": history(4, 1.0), "c": history(3, 2.0)}
    canvas = drawn(histories, 0)
    accuracy, loss = canvas.axes
    for index, rows in enumerate(histories.values()):
        training, test = accuracy.lines[2 * index : 2 * index + 2]
        assert list(training.get_ydata()) == [100 * row["accuracy"] for row in rows]
        assert list(test.get_ydata()) == [100 * row["test_accuracy"] for row in rows]
        assert list(loss.lines[2 * index + 1].get_ydata()) == [row["test_loss"] for row in rows]
        assert (training.get_linestyle(), test.get_linestyle()) == ("--", "-")
        assert training.get_color() == test.get_color()
    assert len({line.get_color() for line in accuracy.lines}) == 2
    assert len({line.get_marker() for line in accuracy.lines}) == 2
    texts = [text.get_text() for text in canvas.legends[0].get_texts()]
    assert texts == ["_a $x$, training", "_a $x$, test", "c, training", "c, test"]


def test_the_split_that_all_runs_have_recorded_is_drawn() -> None:
    both = [{"epoch": 1.0, "accuracy": 0.5, "val_accuracy": 0.2, "test_accuracy": 0.3}]
    one = [{"epoch": 1.0, "accuracy": 0.5, "val_accuracy": 0.4}]
    canvas = drawn({"both": both, "one": one}, 1)
    assert [list(line.get_ydata()) for line in canvas.axes[0].lines] == [[20.0], [40.0]]
    assert overlays({"probe": []}) == []


def test_the_second_figure_shows_the_last_epochs() -> None:
    canvas = drawn({"m": history(20, 1.0)}, 1)
    assert list(canvas.axes[0].lines[0].get_xdata()) == list(range(13, 21))


def test_a_loss_that_begins_far_too_high_gets_a_log_scale() -> None:
    rows = history(9, 1.0)
    assert drawn({"m": rows}, 0).axes[1].get_yscale() == "linear"
    rows[0]["loss"] = 4e4
    assert drawn({"m": rows}, 0).axes[1].get_yscale() == "log"
