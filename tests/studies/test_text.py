"""A finding claims no more than its interval allows."""

from __future__ import annotations

import re

import numpy as np
import pytest

from residua.comparison.statistics import seed_differences
from residua.studies.text import (
    degradation_finding,
    diverged_findings,
    family_findings,
    time_findings,
    undertrained_findings,
)


def constructed(means: list[float], spread: float, seeds: int = 3) -> np.ndarray:
    """Rows with these means, whose residuals are known and orthogonal to rows and seeds."""
    waves = np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1]])[: len(means)]
    rest = waves - waves.mean(0)
    return np.array(means)[:, None] + spread * rest[:, :seeds]


def test_findings_on_a_family_follow_its_numbers() -> None:
    alike = family_findings(
        ["a", "b", "c"], constructed([0.900, 0.901, 0.902], 0.01), "test accuracy"
    )
    assert len(alike) == 1
    assert "no significant difference among a, b and c" in alike[0]
    could = re.search(r"the smallest detectable difference is ([\d.]+) points", alike[0])
    values = constructed([0.900, 0.901, 0.902], 0.01)
    assert could is not None
    assert float(could[1]) == pytest.approx(
        100 * seed_differences(values)[0, 1].detectable, abs=0.005
    )

    apart = family_findings(
        ["a", "b", "c"], constructed([0.80, 0.801, 0.90], 0.001), "test accuracy"
    )
    assert "2 of 3 pairs among a, b and c differ" in apart[0]
    assert "no significant difference in the other 1" in apart[0]
    assert any("c is 10.00 points higher than a" in each for each in apart)
    assert not any("b is" in each for each in apart[1:])

    single = family_findings(["a", "b"], np.array([[0.1], [0.9]]), "test accuracy")
    assert "one seed" in single[0]
    assert "nothing is claimed" in single[0]


@pytest.mark.parametrize(
    ("plain", "residual", "words"),
    [
        ([0.10, 0.20], [0.10, 0.10], "SGD: degradation."),
        ([0.10, 0.20], [0.10, 0.05], "SGD: degradation."),
        (
            [0.10, 0.20],
            [0.10, 0.20],
            "shortcuts do not prevent degradation, both kinds train worse",
        ),
        ([0.20, 0.10], [0.10, 0.10], "no degradation, the deeper plain network trains better"),
        ([0.100, 0.101], [0.10, 0.10], "no significant degradation"),
    ],
)
def test_degradation_is_claimed_only_where_it_is_seen(
    plain: list[float], residual: list[float], words: str
) -> None:
    finding = degradation_finding(
        "SGD", ["plain20", "plain44"], constructed(plain, 0.002), constructed(residual, 0.002)
    )
    assert words in finding
    if words != "SGD: degradation.":
        assert "SGD: degradation" not in finding


def test_degradation_is_not_claimed_from_one_seed() -> None:
    finding = degradation_finding(
        "SGD", ["a", "b"], np.array([[0.1], [0.9]]), np.array([[0.1], [0.1]])
    )
    assert "nothing is claimed" in finding


def test_diverged_rows_are_reported() -> None:
    assert diverged_findings({}) == []
    (finding,) = diverged_findings({"deep": (1, 3), "deeper": (3, 3)})
    assert (
        "Diverged: deep (1 of 3 seeds) and deeper (3 of 3 seeds), excluded from all claims"
        in finding
    )


def test_findings_on_times_follow_the_minutes() -> None:
    epochs = {"steps": np.array([16.0, 17.0, 18.0]), "cosine": np.array([8.0, 8.0, 8.0])}
    minutes = {"steps": np.array([4.0, 4.1, 4.2]), "cosine": np.array([2.0, 2.05, 2.1])}
    targets = np.array([0.94, 0.95, 0.96])
    first, second = time_findings(epochs, minutes, targets)
    assert "Time to 95.00 % test accuracy, the lowest final accuracy" in first
    assert "cosine 2.05 minutes (8.0 epochs) and steps 4.10 minutes (17.0" in first
    assert "steps takes 2.00 times as long as cosine (95 % CI 1." in second
    minutes["steps"] = np.array([1.0, 8.0, 4.0])
    assert (
        "no significant difference between cosine and steps (ratio"
        in time_findings(epochs, minutes, targets)[1]
    )
    assert "smallest detectable ratio" in time_findings(epochs, minutes, targets)[1]
    single = {name: each[:1] for name, each in minutes.items()}
    assert "One seed" in time_findings(epochs, single, targets[:1])[-1]


def test_one_wrong_image_in_every_seed_is_no_degradation() -> None:
    plain = np.array([[0.0, 0.0, 0.0], [0.01, 0.01, 0.01]])
    none = np.zeros((2, 3))
    assert "no significant degradation" in degradation_finding("SGD", ["a", "b"], plain, none, 0.01)
    assert "SGD: degradation." in degradation_finding("SGD", ["a", "b"], plain, none, 0.0001)


def test_undertrained_rows_are_named() -> None:
    assert undertrained_findings({"a": 0.5, "b": 0.99}) == []
    (finding,) = undertrained_findings({"a": 0.9, "b": 0.304, "c": 0.2})
    assert "still below 50 % for b (30 %) and c (20 %)" in finding
    assert "early progress, not final accuracy" in finding
