"""Studies that train nothing: their numbers, from other computations, and what they say of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from importlib import import_module

import numpy as np
import pytest
import scipy.special
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from torch import nn

from residua.report.page import Cell, Page, Table

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("softmax", "bottleneck_cost", "identity")


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """Each study, conducted once."""
    return {name: import_module(f"residua.studies.claims.{name}").study() for name in NAMES}


def table(page: Page, name: str) -> Table:
    found = {each.name: each for section in page.sections for each in section.tables}
    return found[name]


def row(page: Page, name: str, first: Cell) -> Sequence[Cell]:
    return next(each for each in table(page, name).rows if each[0] == first)


def column(page: Page, name: str, place: int) -> list[Cell]:
    return [each[place] for each in table(page, name).rows]


@pytest.mark.parametrize("name", NAMES)
def test_every_page_can_be_written(pages: dict[str, Page], name: str) -> None:
    page, stems = pages[name], []
    assert page.findings
    assert all(each.endswith(".") and "  " not in each for each in page.findings)
    for section in page.sections:
        for each in section.tables:
            stems.append(f"{each.name}.csv")
            assert each.rows
            assert {len(cells) for cells in each.rows} == {len(each.columns)}
            # an array's scalar would be written to the page as if it were text
            kinds = {type(cell) for cells in each.rows for cell in cells}
            assert kinds <= {str, int, float, type(None)}
        for figure in section.figures:
            stems.append(f"{figure.name}.svg")
            canvas = Canvas(figsize=figure.inches, layout="constrained")
            FigureCanvasAgg(canvas)
            figure.draw(canvas)
            for axes in canvas.axes:
                assert axes.get_xlabel()
                assert axes.get_ylabel()
                lines = [each for each in axes.lines if len(each.get_xdata()) > 1]
                looks = {(each.get_color(), str(each.get_linestyle())) for each in lines}
                assert len(looks) == len(lines)
            for form, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
                stream = io.BytesIO()
                canvas.savefig(stream, format=form)
                assert stream.getvalue().startswith(start)
    assert len(set(stems)) == len(stems) > 1


def test_softmax_agrees_with_scipy(pages: dict[str, Page]) -> None:
    page = pages["softmax"]
    shares = scipy.special.softmax([2.0, 1.0, 0.1])
    assert column(page, "example", 3)[:3] == pytest.approx(shares)
    assert shares == pytest.approx([0.659, 0.242, 0.099], abs=5e-4)
    for temperature, *found in table(page, "temperature").rows:
        expected = scipy.special.softmax(np.array([2.0, 1.0, 0.1]) / temperature)
        assert found == pytest.approx(expected)
    for added, *cells, change in table(page, "shifts").rows:
        assert cells[:3] == pytest.approx([2 + added, 1 + added, 0.1 + added])
        assert cells[3:] == pytest.approx(shares)
        assert change < 1e-12
    for a, b, naive, shifted, exact in table(page, "overflow").rows:
        assert exact == pytest.approx(scipy.special.softmax([a, b])[0])
        assert shifted == pytest.approx(exact, rel=1e-6)
        with np.errstate(all="ignore"):
            powers = np.exp(np.array([a, b], np.float32))
            assert naive == pytest.approx(float(powers[0] / powers.sum()), rel=1e-6, nan_ok=True)
    assert any(math.isnan(each) for each in column(page, "overflow", 2))


def test_softmax_corrects_the_tutorial(pages: dict[str, Page]) -> None:
    page = pages["softmax"]
    pair = row(page, "gaps", 1.9)
    assert pair[3:5] == pytest.approx([6.6859, 8.1662], abs=1e-4)
    assert pair[6:] == pytest.approx([1.2214, 0.4502, 0.5498, 0.0997], abs=1e-4)
    assert all(0 < row[-1] < row[2] for row in table(page, "gaps").rows)
    assert all(0.45 < each <= 0.5 + 1e-9 for each in column(page, "ratios", 2))
    for said in ("0.450", "0.550", "0.0997", "smaller than the 0.2", "6.686", "8.166", "1.2214"):
        assert said in page.findings[0]
    # below that temperature, and only below it, the gap grows
    turning = float(page.findings[1].split("T = ")[1].rstrip("."))
    for temperature, grows in ((turning - 0.01, True), (turning + 0.01, False)):
        low, high = scipy.special.softmax(np.array([1.9, 2.1]) / temperature)
        assert bool(high - low > 0.2) is grows
    assert "false in general" in page.findings[2]
    assert f"{scipy.special.softmax([-1, -2, -0.5])[2]:.3f}" in page.findings[2]


def test_bottlenecks_cost_what_tutorial_and_paper_say(pages: dict[str, Page]) -> None:
    page = pages["bottleneck_cost"]
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
    for said in ("73,728", "only with the 16,384", "69,632", "94.4 %"):
        assert said in page.findings[0]
    assert "at every width from 1 to 256" in page.findings[1]
    assert "without it they are equal at none" in page.findings[1]


def test_layers_cost_what_a_built_one_multiplies(pages: dict[str, Page]) -> None:
    page = pages["bottleneck_cost"]
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
    assert f"does {min(shares):.1f} to {max(shares):.1f} %" in page.findings[6]
    assert "exactly 1/N + 1/9" in page.findings[6]
    assert row(page, "groups", 1)[1] == 147_456
    assert row(page, "groups", 32)[1] == 4_608


def test_a_pointwise_convolution_sees_no_neighbours(pages: dict[str, Page]) -> None:
    page = pages["bottleneck_cost"]
    _, difference, largest, *read = row(page, "order-of-pixels", "1x1")
    assert difference < 1e-12 < 1 < largest
    assert read == [1, 8]
    _, difference, largest, *read = row(page, "order-of-pixels", "3x3")
    assert difference > 1
    assert read == [9, 8]
    assert "extracts no spatial information" in page.findings[4]


def test_units_of_zeros_are_the_identity_where_nothing_follows(pages: dict[str, Page]) -> None:
    page = pages["identity"]
    for name in "cde":
        _, after, positive, both, rectified, trained = row(page, "unit", name)
        assert (after, positive, both, trained) == ("nothing", 0, 0, 0)
        assert rectified > 1
    for name in ("a", "b without epsilon"):
        _, _, positive, both, rectified, _ = row(page, "unit", name)
        assert max(positive, rectified) < 1e-12
        assert both > 1
    # the norm of a new unit scales x by 1 / sqrt(1 + 1e-5)
    largest = row(page, "unit", "a")[3]  # the largest negative x, which the ReLU cuts
    _, _, positive, _, _, trained = row(page, "unit", "b")
    assert largest * 4.9e-6 < positive < 1e-4
    assert trained > 1
    assert "every x in orderings c, d and e" in page.findings[0]
    assert "orderings a and b without epsilon only for x >= 0" in page.findings[0]


def test_a_network_with_units_of_zeros_has_the_same_logits(pages: dict[str, Page]) -> None:
    page = pages["identity"]
    for name, evaluated, trained, random, logits in table(page, "networks").rows:
        assert evaluated < (1e-3 if name == "b" else 1e-12), name
        assert (trained < 1e-12) == (name in ("a", "c", "d", "e")), name
        assert min(random, logits) > 0.1
    assert len(table(page, "networks").rows) == 7
    assert "has A's logits in orderings a, c, d, e and b without epsilon" in page.findings[1]


def test_shortcuts_over_one_layer_are_linear(pages: dict[str, Page]) -> None:
    rows = table(pages["identity"], "superposition").rows
    assert [name for name, off, *_ in rows if off < 1e-9] == [
        "one linear layer",
        "one 3x3 convolution",
        "two linear layers",
    ]
    assert all(off > 0.1 for _, off, *_ in rows[3:])
    folded = [each for *_, each in rows if each is not None]
    assert len(folded) == 4
    assert max(folded) < 1e-12


def test_gradients_are_products_with_shortcuts_too(pages: dict[str, Page]) -> None:
    page = pages["identity"]
    for depth, *found in table(page, "gradients").rows:
        expected = [g for f in (0.9, 1.1, 0.01) for g in (f**depth, (1 + f) ** depth)]
        assert found == pytest.approx(expected, rel=1e-9, abs=0)
    for depth, *found in table(page, "gradients-wide").rows:
        for place, factor in enumerate((0.9, 1.1, 0.01)):
            plain, shortcut = found[2 * place : 2 * place + 2]
            assert plain == pytest.approx(factor**depth, rel=1e-9, abs=0)
            growth = math.log(shortcut) / depth
            assert growth == pytest.approx(math.log(1 + factor**2) / 2, abs=0.1)
    assert "2.66e-05 becomes 7.51e+27" in page.findings[3]
    assert "it is 2.70" in page.findings[4]
