"""Findings on gradients and responses follow the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from references.study_pages import all_finite, check_page

from residua.report.page import Page
from residua.studies.claims.propagation import Gradients, Responses
from residua.studies.claims.signal import (
    init_finding,
    norm_finding,
    response_findings,
    shortcut_finding,
    study,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def page(one_thread: None) -> Page:
    return study(depths=(8,), trained=(8,), steps=1, seeds=1)


@pytest.mark.slow
def test_the_page_is_complete(page: Page) -> None:
    check_page(page)
    assert all(map(all_finite, page.tables))


def made(depth: int, shortcut: str, norm: bool, init: str, ratio: float) -> Gradients:
    layers = np.geomspace(ratio, 1, depth - 1)[None]
    return Gradients(depth, shortcut, norm, init, np.ones_like(layers), layers)  # type: ignore[arg-type]


def all_made(ratios: dict[tuple[str, bool], tuple[float, float, float]]) -> list[Gradients]:
    return [
        made(20, shortcut, norm, init, ratio)
        for (shortcut, norm), three in ratios.items()
        for init, ratio in zip(("he", "glorot", "small"), three, strict=True)
    ]


BAD = {
    ("none", False): (1e-9, 1e-20, 1e-90),
    ("none", True): (1e7, 2e7, 3e7),
    ("A", False): (1e8, 1e2, 0.4),
    ("A", True): (1e2, 2e2, 3e2),
}
GOOD = {
    ("none", False): (0.5, 0.2, 1e-90),
    ("none", True): (0.9, 1.1, 1.2),
    ("A", False): (2.0, 1.5, 0.4),
    ("A", True): (1.0, 1.0, 1.0),
}


def test_findings_on_gradients_follow_the_numbers() -> None:
    bad, good = all_made(BAD), all_made(GOOD)
    assert "does not keep the gradient of 20 plain layers from exploding" in norm_finding(bad)
    assert "stable at no tested depth" in norm_finding(bad)
    assert f"{1e7 ** (1 / 18):.3f} per layer" in norm_finding(bad)
    assert "keeps the gradient" in norm_finding(good)
    assert "stable up to 20 layers" in norm_finding(good)
    one = all_made({**GOOD, ("none", True): (0.9, 1e7, 1.2)})
    assert "stable at no tested depth" in norm_finding(one)
    assert "is not enough at 20 plain layers" in init_finding(bad)
    assert "with N(0, 0.01) it vanishes (1e-90 times" in init_finding(bad)
    assert "is enough at 20 plain layers" in init_finding(good)
    assert f"with normalised (He) it is stable (0.5 times, {0.5 ** (1 / 18):.3f}" in init_finding(
        good
    )
    assert "with normalised (He) it explodes (1e+08 times" in shortcut_finding(bad)
    half = all_made({**GOOD, ("none", False): (0.5, 1e-5, 1e-90)})
    assert "normalised (He) initialisation alone is enough at 20" in init_finding(half)
    assert "together keep it stable" in shortcut_finding(bad)
    assert "Shortcuts without norms are not enough" in shortcut_finding(bad)
    assert "Shortcuts without norms are enough" in shortcut_finding(good)
    worse = all_made({**GOOD, ("A", True): (1e-9, 1.0, 1.0)})
    assert "together do not keep it stable" in shortcut_finding(worse)


def test_findings_on_responses_follow_the_numbers() -> None:
    def net(depth: int, shortcut: str, level: float, accuracy: float = 1.0) -> Responses:
        values = np.full((2, depth - 2), level)
        return Responses(depth, shortcut, values, values, np.full(2, accuracy))  # type: ignore[arg-type]

    shown = [net(20, "none", 0.99), net(20, "A", 0.9), net(56, "none", 1.1), net(56, "A", 0.8)]
    first, second, third = response_findings(shown)
    assert "residual, 20 layers is 0.09 lower than plain, 20 layers" in first
    assert "residual, 56 layers is 0.30 lower than plain, 56 layers" in second
    assert "residual, 56 layers is 0.10 lower than residual, 20 layers" in third
    turned = [net(20, "none", 0.8), net(20, "A", 0.9), net(56, "none", 0.9), net(56, "A", 1.0, 0.2)]
    first, second, third = response_findings(turned)
    assert "residual, 20 layers is 0.10 higher than plain, 20 layers" in first
    for text in (second, third):
        assert "not compared" in text
        assert "residual, 56 layers reaches only 20 % training accuracy" in text
    apart = Responses(20, "A", np.ones((2, 18)), np.array([[0.5], [1.4]]) * np.ones(18), np.ones(2))
    assert "no significant difference" in response_findings([shown[0], apart])[0]
