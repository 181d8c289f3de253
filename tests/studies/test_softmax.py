"""The numbers on softmax agree with SciPy's, and its findings with the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
from references.study_pages import check_page, column, row, table

from residua.report.page import Page
from residua.studies.claims import softmax

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def page() -> Page:
    return softmax.study()


def test_the_page_is_complete(page: Page) -> None:
    check_page(page)


def test_softmax_agrees_with_scipy(page: Page) -> None:
    shares = scipy.special.softmax([2.0, 1.0, 0.1])
    assert column(page, "example", 3)[:3] == pytest.approx(shares)
    assert shares == pytest.approx([0.659, 0.242, 0.099], abs=5e-4)
    for temperature, *probabilities in table(page, "temperature").rows:
        expected = scipy.special.softmax(np.array([2.0, 1.0, 0.1]) / temperature)
        assert probabilities == pytest.approx(expected)
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


def test_softmax_corrects_the_tutorial(page: Page) -> None:
    pair = row(page, "gaps", 1.9)
    assert pair[3:5] == pytest.approx([6.6859, 8.1662], abs=1e-4)
    assert pair[6:] == pytest.approx([1.2214, 0.4502, 0.5498, 0.0997], abs=1e-4)
    assert all(0 < row[-1] < row[2] for row in table(page, "gaps").rows)
    assert all(0.45 < each <= 0.5 + 1e-9 for each in column(page, "ratios", 2))
    for text in ("0.450", "0.550", "0.0997", "smaller than the 0.2", "6.686", "8.166", "1.2214"):
        assert text in page.findings[0]
    # Below that temperature, and only below it, the difference grows
    turning = float(page.findings[1].split("T = ")[1].rstrip("."))
    for temperature, grows in ((turning - 0.01, True), (turning + 0.01, False)):
        low, high = scipy.special.softmax(np.array([1.9, 2.1]) / temperature)
        assert bool(high - low > 0.2) is grows
    assert "false in general" in page.findings[2]
    assert f"{scipy.special.softmax([-1, -2, -0.5])[2]:.3f}" in page.findings[2]
