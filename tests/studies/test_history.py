"""Findings on accuracy and cost follow the numbers; names in figures are legible."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation
from references.study_pages import all_finite, check_page

from residua.report.page import Figure, Page
from residua.studies.claims.history import (
    Timing,
    family_finding,
    frontier,
    frontier_finding,
    order_finding,
    speed_finding,
    study,
)
from residua.studies.claims.imagenet_accuracies import CONTRIBUTIONS, ROWS, Point

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def page(one_thread: None) -> Page:
    return study(("googlenet", "mobilenet_v1"), batch=1, repeats=1, side=64)


def test_the_page_is_complete(page: Page) -> None:
    check_page(page)
    assert all(map(all_finite, page.tables))


def test_the_table_lists_every_accuracy_with_its_source(page: Page) -> None:
    table = page.tables[0]
    assert [row[0] for row in table.rows] == [row.label for row in ROWS]
    assert all(isinstance(row[-1], str) and row[-1] for row in table.rows)


def test_no_cheaper_network_equals_one_of_the_frontier(points: Sequence[Point]) -> None:
    found = frontier(points)
    expected = [
        each
        for each in points
        if not any(
            other.accuracy >= each.accuracy
            and (other.multiply_adds, -other.accuracy) < (each.multiply_adds, -each.accuracy)
            for other in points
        )
    ]
    assert sorted(found, key=lambda e: e.label) == sorted(expected, key=lambda e: e.label)
    assert "vgg19" not in {each.name for each in found}


def priced(points: Sequence[Point], sign: int) -> list[Point]:
    """The same networks with costs that rise (1) or fall (-1) with accuracy."""
    return [
        dataclasses.replace(
            each,
            multiply_adds=int(1e9 * (100 + sign * each.accuracy)),
            parameters=int(1e6 * (100 - sign * each.accuracy)),
        )
        for each in points
    ]


def test_findings_on_costs_follow_the_numbers(points: Sequence[Point]) -> None:
    rising, falling = priced(points, 1), priced(points, -1)
    assert "strongly correlated with multiply-adds (rank correlation +1.00)" in order_finding(
        rising
    )
    assert "negatively correlated with parameters (-1.00)" in order_finding(rising)
    assert "negatively correlated with multiply-adds" in order_finding(falling)
    assert "is also the most accurate" in frontier_finding(rising)
    assert f"1 of {len(points)} networks are" in frontier_finding(falling)
    assert f"{len(points) - 1} cheaper ones reach that" in frontier_finding(falling)
    for family in CONTRIBUTIONS:
        texts = {family_finding(family, each) for each in (points, rising, falling)}
        assert len(texts) == 3, family
    new = next(each for each in points if each.name == "resnext50_32x4d")
    others = [each for each in points if each is not new]
    text = family_finding("ResNeXt", [*others, dataclasses.replace(new, accuracy=70.0)])
    assert "ResNeXt-50 against ResNet-50: -6.1 points" in text


def test_speed_is_images_over_the_median(points: Sequence[Point]) -> None:
    cheap, dear = (dataclasses.replace(points[0], multiply_adds=k) for k in (1_000, 1_100))
    one, other = (Timing(each, 8, (2.0, 9.0, 4.0)) for each in (cheap, dear))
    assert one.images == 2
    assert one.multiply_adds == 2_000
    other = dataclasses.replace(other, batch=7)
    assert "roughly predict the time" in speed_finding([one, other])
    assert "multiply-adds is +1.00" in speed_finding([one, other])
    apart = speed_finding([one, dataclasses.replace(other, batch=80)])
    assert "do not predict the time" in apart
    assert "a factor of 11.0" in apart
    assert "multiply-adds is -1.00" in apart


def drawn(figure: Figure) -> Canvas:
    canvas = Canvas(figsize=figure.inches, layout="constrained")
    FigureCanvasAgg(canvas)
    figure.draw(canvas)
    canvas.savefig(io.BytesIO(), format="png", dpi=144)
    canvas.draw_without_rendering()
    return canvas


def test_names_in_figures_cover_no_other_name(page: Page) -> None:
    for section in page.sections:
        for axes in drawn(section.figures[0]).axes:
            names = [
                each
                for each in axes.findobj(Annotation)
                if isinstance(each, Annotation) and each.get_text()
            ]
            assert len(names) == len(section.tables[0].rows)
            boxes = [each.get_window_extent() for each in names]
            for (a, one), (b, other) in combinations(zip(names, boxes, strict=True), 2):
                assert not one.overlaps(other), (a.get_text(), b.get_text())
