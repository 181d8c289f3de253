"""Charts show the values of the history, in PNG and in SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from residua.report import charts
from residua.report.charts import History, chart_svg, spread


def row(epoch: int, **more: float | None) -> dict[str, float | None]:
    plain = {"epoch": epoch, "loss": 2 / epoch, "accuracy": 1 - 0.8 / epoch}
    return {**plain, "val_loss": 2.2 / epoch, "val_accuracy": 0.9 - 0.7 / epoch, **more}


def drawn(history: History, kind: str, best_epoch: int | None = None) -> Canvas:
    canvas = Canvas()
    charts._draw(canvas.subplots(), history, kind, best_epoch)
    return canvas


def test_curves_have_the_values_of_the_history() -> None:
    history = [row(epoch, test_loss=2.21 / epoch) for epoch in range(1, 11)]
    axes = drawn(history, "loss", best_epoch=4).axes[0]
    curves = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in curves] == ["Training", "Validation", "Test"]
    keys = ("loss", "val_loss", "test_loss")
    assert [list(line.get_ydata()) for line in curves] == [[r[k] for r in history] for k in keys]
    assert axes.get_title(loc="left") == "Training, validation and test loss"
    texts = [text.get_text() for text in axes.texts]
    assert {"best epoch 4", "0.2", "0.22", "0.221"} == set(texts)
    assert len({str(line.get_linestyle()) + line.get_marker() for line in curves}) == 3


def test_a_missing_value_leaves_a_gap() -> None:
    rows = [row(1, val_loss=4021.5), row(2, val_loss=None), row(3, val_loss=float("nan")), row(4)]
    axes = drawn(rows, "loss").axes[0]
    assert np.isnan(axes.lines[1].get_ydata()).tolist() == [False, True, True, False]
    assert axes.get_yscale() == "log"
    assert chart_svg([{"epoch": 1, "loss": float("nan")}], "loss") is None
    assert chart_svg([], "accuracy") is None


def test_an_accuracy_axis_stays_within_0_and_100_percent_and_does_not_exaggerate() -> None:
    perfect = drawn([row(1, accuracy=1.0, val_accuracy=1.0)], "accuracy").axes[0].get_ylim()
    assert perfect[1] <= 1.01
    close = [row(k, accuracy=0.9, val_accuracy=0.9001) for k in (1, 2)]
    low, high = drawn(close, "accuracy").axes[0].get_ylim()
    assert high - low >= 0.1 - 1e-9


@pytest.mark.parametrize(
    ("heights", "placed"),
    [
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5, 0.5], [0.5, 0.6, 0.7]),
        ([0.99, 1.0], [0.9, 1.0]),
        ([-0.2], [0.0]),
    ],
)
def test_labels_are_moved_apart_as_little_as_possible(
    heights: list[float], placed: list[float]
) -> None:
    assert spread(heights, 0.1) == pytest.approx(placed)


def test_an_svg_follows_the_theme_and_has_tooltips() -> None:
    svg = chart_svg([row(1), row(2)], "accuracy", best_epoch=2)
    assert svg is not None
    root = ET.fromstring(svg.replace("xlink:", ""))
    assert root.attrib["aria-label"] == "Training and validation accuracy per epoch"
    tooltips = {element.text for element in root.iter("title")}
    assert tooltips == {
        "Training, epoch 1: 20.0 %",
        "Training, epoch 2: 60.0 %",
        "Validation, epoch 1: 20.0 %",
        "Validation, epoch 2: 55.0 %",
    }
    assert not re.search(r"#[0-9a-f]{6}\b(?!\")|font-family|<style|https?:", svg)
    assert "var(--validation)" in svg
    many = chart_svg([row(epoch) for epoch in range(1, 100)], "loss")
    assert many is not None
    assert "<title>" not in many


def test_a_png_is_drawn_even_without_a_history() -> None:
    assert charts.both_charts([], "cifar_resnet20").png()[1:4] == b"PNG"
