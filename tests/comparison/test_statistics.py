"""A difference is stated no more strongly than its interval allows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, ttest_rel, tukey_hsd

from residua.comparison.statistics import (
    Difference,
    detectable_difference,
    difference_text,
    holm,
    image_difference,
    mcnemar,
    seed_differences,
    sign_flip,
)


def changes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of correct predictions, bool [N]."""
    return second.astype(np.float64) - first


def test_two_rows_are_compared_by_the_paired_t_test() -> None:
    values = np.array([[0.90, 0.91, 0.93, 0.90], [0.92, 0.925, 0.96, 0.91]])
    difference = seed_differences(values)[0, 1]
    expected = ttest_rel(values[1], values[0]).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(float((values[1] - values[0]).mean()))


def test_an_effect_of_a_seed_on_all_rows_alike_does_not_count() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0.9, 0.004, (4, 5))
    shifted = values + random.normal(0, 0.2, 5)
    for pair, difference in seed_differences(values).items():
        assert seed_differences(shifted)[pair].low == pytest.approx(difference.low)


def test_joint_intervals_are_tukeys_where_seeds_have_no_effect() -> None:
    """Without any effect of the seeds, blocks only cost degrees of freedom."""
    random = np.random.default_rng(1)
    values = random.normal(0, 1, (3, 400))
    ours = seed_differences(values)
    reference = tukey_hsd(*values).confidence_interval(0.95)
    for (i, j), difference in ours.items():
        assert difference.low == pytest.approx(reference.low[j, i], abs=0.02)
        assert difference.high == pytest.approx(reference.high[j, i], abs=0.02)


def test_joint_intervals_hold_jointly() -> None:
    """Of many studies of four equal rows and three seeds, 5 % claim any difference."""
    random = np.random.default_rng(2)
    studies = [seed_differences(random.normal(0, 1, (4, 3))).values() for _ in range(600)]
    false = sum(any(pair.significant for pair in pairs) for pairs in studies)
    assert 0.03 < false / 600 < 0.075


def test_intervals_over_images_contain_the_true_difference() -> None:
    random = np.random.default_rng(3)
    gained, lost, covered = 0.06, 0.03, 0
    for _ in range(2000):
        kind = random.choice(4, 250, p=(0.8, gained, lost, 1 - 0.8 - gained - lost))
        difference = image_difference((kind == 1) * 1.0 - (kind == 2))
        covered += difference.low <= gained - lost <= difference.high
    assert 0.935 < covered / 2000 < 0.975


def test_mcnemars_test_is_the_binomial_test() -> None:
    assert mcnemar(0, 0) == 1
    for gained in range(12):
        for lost in range(gained == 0, 12):
            expected = binomtest(gained, gained + lost, 0.5).pvalue
            assert mcnemar(gained, lost) == pytest.approx(expected)
    assert mcnemar(2300, 2700) == pytest.approx(binomtest(2300, 5000, 0.5).pvalue)


def test_copies_change_no_p_value_and_no_interval() -> None:
    """Whatever is copied, equally often or not: a group counts once."""
    random = np.random.default_rng(6)
    for _ in range(20):
        first, second = random.random((2, 60)) < np.array([[0.7], [0.85]])
        times = random.integers(1, 6, 60) if random.random() < 0.5 else np.full(60, 5)
        group = np.repeat(np.arange(60), times)
        shares = [np.bincount(group, np.repeat(row, times)) / times for row in (first, second)]
        single = changes(first, second)
        assert sign_flip(shares[1] - shares[0]) == pytest.approx(sign_flip(single))
        assert sign_flip(single) == mcnemar(int((single > 0).sum()), int((single < 0).sum()))
        naive = np.repeat(single, times)
        assert sign_flip(single) >= mcnemar(int((naive > 0).sum()), int((naive < 0).sum()))


def test_the_sign_flip_test_of_groups_is_that_of_scipy() -> None:
    random = np.random.default_rng(8)
    for number, tolerance in ((6, 1e-9), (14, 1e-9), (40, 0.015)):
        values = random.normal(0.1, 0.3, number).round(2)
        expected = permutation_test(
            (values,),
            np.sum,
            permutation_type="samples",
            n_resamples=2**number if number <= 14 else 20_000,
            rng=np.random.default_rng(0),
        ).pvalue
        assert sign_flip(values) == pytest.approx(expected, abs=tolerance)
    assert sign_flip(np.zeros(5)) == 1
    assert sign_flip(np.zeros(0)) == 1


def test_of_equal_runs_on_groups_at_most_5_percent_are_called_different() -> None:
    """Twelve patients of five images each, all of which one run or the other mistakes."""
    random, naive, found = np.random.default_rng(9), 0, 0
    for _ in range(400):
        shares = random.integers(-5, 6, 12) / 5
        found += sign_flip(shares) < 0.05
        images = np.rint(5 * shares)
        naive += mcnemar(int(images[images > 0].sum()), int(-images[images < 0].sum())) < 0.05
    assert found / 400 < 0.075
    assert naive / 400 > 0.2


def test_of_equal_runs_at_most_5_percent_are_called_different_also_of_several() -> None:
    random = np.random.default_rng(4)
    single = several = 0
    for _ in range(1000):
        first = random.random(120) < 0.8
        p_values = []
        for _ in range(3):  # equally good, each with other errors
            other = np.where(random.random(120) < 0.5, first, random.random(120) < 0.8)
            p_values.append(mcnemar(int((other & ~first).sum()), int((first & ~other).sum())))
        single += p_values[0] < 0.05
        several += min(holm(p_values)) < 0.05
    assert 0.015 < single / 1000 < 0.055
    assert several / 1000 < 0.055


def test_holms_adjustment_by_hand() -> None:
    """Holm 1979, worked: 0.01 x 4, then 0.015 x 3, 0.03 x 2, and never below the one before."""
    assert holm([0.03, 0.01, 0.5, 0.015]) == pytest.approx((0.06, 0.04, 0.5, 0.045))
    assert holm([0.04, 0.03]) == pytest.approx((0.06, 0.06))


def test_a_detectable_difference_is_found_in_four_of_five_test_sets() -> None:
    random = np.random.default_rng(5)
    images, gained, lost = 400, 30, 25
    difference = detectable_difference(images, gained + lost)
    assert difference is not None
    share = (gained + lost + 1) / (images + 2)
    better, worse = (share + difference) / 2, (share - difference) / 2
    counts = random.multinomial(images, (better, worse, 1 - share), 1500)
    found = sum(mcnemar(int(row[0]), int(row[1])) < 0.05 for row in counts)
    assert 0.765 < found / 1500 < 0.835


def test_more_images_show_smaller_differences() -> None:
    detectable = [detectable_difference(10**power, 10 ** (power - 1)) for power in (2, 3, 4, 5)]
    sizes = [size for size in detectable if size is not None]
    assert len(sizes) == 4
    assert sizes == sorted(sizes, reverse=True)
    assert detectable_difference(5, 0) is None  # 2 x 0.5^5 > 0.05
    assert detectable_difference(30, 0) == pytest.approx(0.24, abs=0.05)  # 6 of 30 are needed


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_an_interval_is_symmetric_in_the_runs(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    difference = image_difference(changes(first, second))
    back = image_difference(changes(second, first))
    assert -1 <= difference.low <= difference.mean <= difference.high <= 1
    assert difference.mean == pytest.approx(second.mean() - first.mean())
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low))


def test_equal_counts_of_few_images_are_not_significant() -> None:
    values = np.array([[0.90, 0.92], [0.91, 0.93]])  # one image of a hundred more, twice
    assert seed_differences(values)[0, 1].significant
    assert not seed_differences(values, 1 / 100)[0, 1].significant


def test_empty_figures_are_refused() -> None:
    with pytest.raises(ValueError, match="changes"):
        image_difference(np.zeros(0))
    with pytest.raises(ValueError, match="rows"):
        seed_differences(np.zeros((1, 3)))


def test_sentences_follow_the_interval() -> None:
    none = difference_text("a", "b", "Test accuracy", Difference(0.004, -0.002, 0.010))
    assert "no significant difference" in none
    assert "the smallest detectable one is 0.60 points" in none
    more = difference_text("a", "b", "Test accuracy", Difference(0.02, 0.01, 0.03))
    assert "b is 2.00 points higher than a" in more
    assert "b is 2.00 points lower than a" in difference_text(
        "a", "b", "Test accuracy", Difference(-0.02, -0.03, -0.01)
    )
    assert "one seed" in difference_text("a", "b", "x", Difference(0.5, -math.inf, math.inf))
