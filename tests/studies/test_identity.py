"""Findings on identity, linearity and gradients follow from formulas."""

from __future__ import annotations

import math

import pytest
from references.study_pages import check_page, row, table

from residua.report.page import Page
from residua.studies.claims import identity

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def page() -> Page:
    return identity.study()


def test_the_page_is_complete(page: Page) -> None:
    check_page(page)


def test_zero_units_are_the_identity_if_nothing_follows_the_addition(page: Page) -> None:
    for name in "cde":
        _, after, positive, both, rectified, trained = row(page, "unit", name)
        assert (after, positive, both, trained) == ("nothing", 0, 0, 0)
        assert rectified > 1
    for name in ("a", "b without epsilon"):
        _, _, positive, both, rectified, _ = row(page, "unit", name)
        assert max(positive, rectified) < 1e-12
        assert both > 1
    # The norm of a new unit scales x by 1 / sqrt(1 + 1e-5)
    largest = row(page, "unit", "a")[3]  # the largest negative x, which the ReLU removes
    _, _, positive, _, _, trained = row(page, "unit", "b")
    assert largest * 4.9e-6 < positive < 1e-4
    assert trained > 1
    assert "every x in orderings c, d and e" in page.findings[0]
    assert "orderings a and b without epsilon only for x >= 0" in page.findings[0]


def test_a_network_with_zero_units_has_the_same_logits(page: Page) -> None:
    for name, evaluated, trained, random, logits in table(page, "networks").rows:
        assert evaluated < (1e-3 if name == "b" else 1e-12), name
        assert (trained < 1e-12) == (name in ("a", "c", "d", "e")), name
        assert min(random, logits) > 0.1
    assert len(table(page, "networks").rows) == 7
    assert "has A's logits in orderings a, c, d, e and b without epsilon" in page.findings[1]


def test_shortcuts_over_one_layer_are_linear(page: Page) -> None:
    rows = table(page, "superposition").rows
    assert [name for name, off, *_ in rows if off < 1e-9] == [
        "one linear layer",
        "one 3x3 convolution",
        "two linear layers",
    ]
    assert all(off > 0.1 for _, off, *_ in rows[3:])
    folded = [each for *_, each in rows if each is not None]
    assert len(folded) == 4
    assert max(folded) < 1e-12


def test_gradients_are_products_with_shortcuts_too(page: Page) -> None:
    for depth, *gradients in table(page, "gradients").rows:
        expected = [g for f in (0.9, 1.1, 0.01) for g in (f**depth, (1 + f) ** depth)]
        assert gradients == pytest.approx(expected, rel=1e-9, abs=0)
    for depth, *gradients in table(page, "gradients-wide").rows:
        for place, factor in enumerate((0.9, 1.1, 0.01)):
            plain, shortcut = gradients[2 * place : 2 * place + 2]
            assert plain == pytest.approx(factor**depth, rel=1e-9, abs=0)
            growth = math.log(shortcut) / depth
            assert growth == pytest.approx(math.log(1 + factor**2) / 2, abs=0.1)
    assert "2.66e-05 becomes 7.51e+27" in page.findings[3]
    assert "it is 2.70" in page.findings[4]
