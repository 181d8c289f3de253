"""What is said of a difference is what its interval allows."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel, tukey_hsd

from residua.comparison.statistics import (
    Difference,
    difference_text,
    image_difference,
    seed_differences,
)
from residua.studies.text import of_beginners, of_degradation, of_diverged, of_family, of_reach


def test_two_rows_are_compared_by_the_paired_t_test() -> None:
    values = np.array([[0.90, 0.91, 0.93, 0.90], [0.92, 0.925, 0.96, 0.91]])
    found = seed_differences(values)[0, 1]
    expected = ttest_rel(values[1], values[0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(float((values[1] - values[0]).mean()))


def test_what_a_seed_does_to_all_rows_alike_does_not_count() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0.9, 0.004, (4, 5))
    shifted = values + random.normal(0, 0.2, 5)
    for pair, found in seed_differences(values).items():
        assert seed_differences(shifted)[pair].low == pytest.approx(found.low)


def test_joint_intervals_are_tukeys_where_seeds_do_nothing() -> None:
    """Without any effect of the seeds, blocks only cost degrees of freedom."""
    random = np.random.default_rng(1)
    values = random.normal(0, 1, (3, 400))
    ours = seed_differences(values)
    theirs = tukey_hsd(*values).confidence_interval(0.95)
    for (i, j), found in ours.items():
        assert found.low == pytest.approx(theirs.low[j, i], abs=0.02)
        assert found.high == pytest.approx(theirs.high[j, i], abs=0.02)


def test_joint_intervals_hold_together() -> None:
    """Of many studies of four equal rows and three seeds, 5 % claim any difference."""
    random = np.random.default_rng(2)
    wrong = sum(
        any(each.significant for each in seed_differences(random.normal(0, 1, (4, 3))).values())
        for _ in range(600)
    )
    assert 0.03 < wrong / 600 < 0.075


def test_intervals_of_images_hold_the_true_difference() -> None:
    random = np.random.default_rng(3)
    gained, lost, held = 0.06, 0.03, 0
    for _ in range(2000):
        kind = random.choice(4, 250, p=(0.8, gained, lost, 1 - 0.8 - gained - lost))
        found = image_difference((kind == 0) | (kind == 2), (kind == 0) | (kind == 1))
        held += found.low <= gained - lost <= found.high
    assert 0.935 < held / 2000 < 0.975


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_images_in_any_case(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    found, back = image_difference(first, second), image_difference(second, first)
    assert -1 <= found.low <= found.mean <= found.high <= 1
    assert found.mean == pytest.approx(second.mean() - first.mean())
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_equal_counts_of_few_images_are_no_certainty() -> None:
    values = np.array([[0.90, 0.92], [0.91, 0.93]])  # one image of a hundred more, twice
    assert seed_differences(values)[0, 1].significant
    assert not seed_differences(values, 1 / 100)[0, 1].significant


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="right answers"):
        image_difference(np.zeros(0, bool), np.zeros(0, bool))
    with pytest.raises(ValueError, match="rows"):
        seed_differences(np.zeros((1, 3)))


def test_words_of_a_difference() -> None:
    none = difference_text("a", "b", "Test accuracy", Difference(0.004, -0.002, 0.010))
    assert "no difference seen" in none
    assert "the smallest that could have been seen is 0.60 points" in none
    more = difference_text("a", "b", "Test accuracy", Difference(0.02, 0.01, 0.03))
    assert "b is 2.00 points higher than a" in more
    assert "b is 2.00 points lower than a" in difference_text(
        "a", "b", "Test accuracy", Difference(-0.02, -0.03, -0.01)
    )
    assert "one seed" in difference_text("a", "b", "x", Difference(0.5, -math.inf, math.inf))


def constructed(means: list[float], spread: float, seeds: int = 3) -> np.ndarray:
    """Rows with these means, whose residuals are known and orthogonal to rows and seeds."""
    waves = np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1]])[: len(means)]
    rest = waves - waves.mean(0)
    return np.array(means)[:, None] + spread * rest[:, :seeds]


def test_words_of_a_family_follow_its_numbers() -> None:
    alike = of_family(["a", "b", "c"], constructed([0.900, 0.901, 0.902], 0.01), "test accuracy")
    assert len(alike) == 1
    assert "no difference seen among a, b and c" in alike[0]
    could = re.search(r"smallest that could have been seen is ([\d.]+) points", alike[0])
    values = constructed([0.900, 0.901, 0.902], 0.01)
    assert could is not None
    assert float(could[1]) == pytest.approx(
        100 * seed_differences(values)[0, 1].detectable, abs=0.005
    )

    apart = of_family(["a", "b", "c"], constructed([0.80, 0.801, 0.90], 0.001), "test accuracy")
    assert "2 of 3 pairs among a, b and c differ" in apart[0]
    assert "in the other 1 no difference is seen" in apart[0]
    assert any("c is 10.00 points higher than a" in each for each in apart)
    assert not any("b is" in each for each in apart[1:])

    single = of_family(["a", "b"], np.array([[0.1], [0.9]]), "test accuracy")
    assert "one seed" in single[0]
    assert "nothing is claimed" in single[0]


@pytest.mark.parametrize(
    ("plain", "residual", "words"),
    [
        ([0.10, 0.20], [0.10, 0.10], "SGD: degradation."),
        ([0.10, 0.20], [0.10, 0.05], "SGD: degradation."),
        ([0.10, 0.20], [0.10, 0.20], "both kinds learn worse when deeper"),
        ([0.20, 0.10], [0.10, 0.10], "no degradation, the deeper plain network learns better"),
        ([0.100, 0.101], [0.10, 0.10], "no degradation seen"),
    ],
)
def test_degradation_is_claimed_only_where_it_is_seen(
    plain: list[float], residual: list[float], words: str
) -> None:
    said = of_degradation(
        "SGD", ["plain20", "plain44"], constructed(plain, 0.002), constructed(residual, 0.002)
    )
    assert words in said
    if words != "SGD: degradation.":
        assert "SGD: degradation" not in said


def test_degradation_is_not_claimed_of_one_seed() -> None:
    said = of_degradation("SGD", ["a", "b"], np.array([[0.1], [0.9]]), np.array([[0.1], [0.1]]))
    assert "nothing is claimed" in said


def test_words_of_rows_that_diverged_and_of_equal_accuracy() -> None:
    assert of_diverged({}) == []
    (said,) = of_diverged({"deep": (1, 3), "deeper": (3, 3)})
    assert (
        "deep (1 of 3 seeds) and deeper (3 of 3 seeds), so they are compared with nothing" in said
    )


def test_words_of_equal_accuracy_follow_their_minutes() -> None:
    epochs = {"steps": np.array([16.0, 17.0, 18.0]), "cosine": np.array([8.0, 8.0, 8.0])}
    minutes = {"steps": np.array([4.0, 4.1, 4.2]), "cosine": np.array([2.0, 2.05, 2.1])}
    targets = np.array([0.94, 0.95, 0.96])
    first, second = of_reach(epochs, minutes, targets)
    assert "To the 95.00 % at which the lowest row ends" in first
    assert "cosine in 8.0 epochs and 2.05 minutes and steps in 17.0 epochs and 4.10" in first
    assert "steps takes 2.00 times as long as cosine (95 % interval 1." in second
    minutes["steps"] = np.array([1.0, 8.0, 4.0])
    assert "no difference seen: it takes" in of_reach(epochs, minutes, targets)[1]
    single = {name: each[:1] for name, each in minutes.items()}
    assert "One seed" in of_reach(epochs, single, targets[:1])[-1]


def test_one_wrong_image_in_every_seed_is_no_degradation() -> None:
    plain = np.array([[0.0, 0.0, 0.0], [0.01, 0.01, 0.01]])
    none = np.zeros((2, 3))
    assert "no degradation seen" in of_degradation("SGD", ["a", "b"], plain, none, 0.01)
    assert "SGD: degradation." in of_degradation("SGD", ["a", "b"], plain, none, 0.0001)


def test_rows_that_have_only_begun_are_named() -> None:
    assert of_beginners({"a": 0.5, "b": 0.99}) == []
    (said,) = of_beginners({"a": 0.9, "b": 0.304, "c": 0.2})
    assert "b 30 % and c 20 % are named rightly at the end" in said
    assert "how fast these begin, not how good they get" in said
