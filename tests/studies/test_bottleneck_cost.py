"""Costs of layers and units agree with those computed by hand."""

from __future__ import annotations

import pytest
import torch
from references.study_pages import check_page, column, row, table
from torch import nn

from residua.report.page import Page
from residua.studies.claims import bottleneck_cost

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def page() -> Page:
    return bottleneck_cost.study()


def test_the_page_is_complete(page: Page) -> None:
    check_page(page)


def test_bottlenecks_have_the_weights_of_tutorial_and_paper(page: Page) -> None:
    weights = column(page, "units", 4)
    by_hand = [
        64 * 3 * 3 * 64 * 2,
        64 * 64 + 64 * 9 * 64 + 64 * 256 + 64 * 256,
        256 * 64 + 64 * 9 * 64 + 64 * 256,
        256 * 9 * 256 * 2,
        256 * 128 + 128 * 9 * 4 + 128 * 256,
    ]
    assert weights == by_hand
    assert by_hand[:3] == [73_728, 73_728, 69_632]
    assert column(page, "units", 5) == [each * 56 * 56 for each in by_hand]
    for n, projected, _, identity, _ in table(page, "inner-widths").rows:
        assert projected == 64 * n + 9 * n * n + 4 * n * n + 64 * 4 * n
        assert identity == 4 * n * n + 9 * n * n + 4 * n * n
    for text in ("73,728", "only with the 16,384", "69,632", "94.4 %"):
        assert text in page.findings[0]
    assert "equal at 256 of the widths from 1 to 256" in page.findings[1]
    assert "Without it they are equal at none" in page.findings[1]


def test_costs_are_those_of_built_layers(page: Page) -> None:
    for side, (_, width, weights, work, first, kept) in zip(
        (32, 16, 8), table(page, "stages").rows, strict=True
    ):
        output = nn.Conv2d(width, width, 3, padding=1)(torch.zeros(1, width, side, side))
        assert weights == width * width * 9
        assert work == output.numel() * width * 9 == 2_359_296
        assert kept == 16 * 16 * 9 * side * side
        assert first == (None if width == 16 else work // 2)
    assert "2,359,296" in page.findings[3]
    assert "589,824 and 147,456" in page.findings[3]
    reduction = table(page, "reductions").rows[0]
    assert reduction[1:5] == (2_000, 20, 20 * 25 * 32, 100 * 25 * 32)
    assert reduction[6:] == ((2_000 + 16_000) * 64 * 64, 80_000 * 64 * 64)
    for m, n, side, full, separable, *work, share, expected in table(page, "separable").rows:
        assert (full, separable) == (9 * m * n, 9 * m + m * n)
        assert work == [full * side * side, separable * side * side]
        assert share == pytest.approx(expected) == pytest.approx(1 / n + 1 / 9)
    shares = [100 * each for each in column(page, "separable", 7)]
    assert f"needs {min(shares):.1f} to {max(shares):.1f} %" in page.findings[6]
    assert "exactly 1/N + 1/9" in page.findings[6]
    assert row(page, "groups", 1)[1] == 147_456
    assert row(page, "groups", 32)[1] == 4_608


def test_a_pointwise_convolution_reads_no_neighbours(page: Page) -> None:
    _, difference, largest, *read = row(page, "order-of-pixels", "1x1")
    assert difference < 1e-12 < 1 < largest
    assert read == [1, 8]
    _, difference, largest, *read = row(page, "order-of-pixels", "3x3")
    assert difference > 1
    assert read == [9, 8]
    assert "extracts no spatial information" in page.findings[4]
