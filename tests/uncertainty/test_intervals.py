"""Intervals that are to contain the true figure in 95 of 100 draws, counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import ResiduaError
from residua.uncertainty.intervals import (
    balanced_accuracy,
    bootstrap_interval,
    clustered_interval,
    macro_f1,
    wilson_interval,
)

DRAWS = 1000


def outcomes(
    seed: int, groups: int, share: float, copies: int, alike: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Correct predictions: a copy is as its image with probability `alike`, else independent."""
    random = np.random.default_rng(seed)
    image = np.repeat(random.random(groups) < share, copies)
    own = random.random(groups * copies) < share
    correct = np.where(random.random(groups * copies) < alike, image, own)
    return correct, np.repeat(np.arange(groups), copies)


@pytest.mark.parametrize(
    ("groups", "share", "copies", "alike"),
    [(150, 0.9, 1, 1.0), (100, 0.85, 5, 1.0), (100, 0.85, 5, 0.9), (60, 0.8, 5, 0.6)],
)
def test_clustered_intervals_cover(groups: int, share: float, copies: int, alike: float) -> None:
    clustered = naive = 0
    for seed in range(DRAWS):
        correct, group = outcomes(seed, groups, share, copies, alike)
        low, high = clustered_interval(correct, group)
        clustered += low <= share <= high
        low, high = wilson_interval(float(correct.mean()), len(correct))
        naive += low <= share <= high
    assert 0.93 <= clustered / DRAWS <= 0.97
    assert copies == 1 or naive / DRAWS < 0.85


def test_without_copies_it_is_wilsons() -> None:
    correct = np.arange(40) % 4 > 0
    assert clustered_interval(correct, np.arange(40)) == wilson_interval(0.75, 40)


def test_one_group_is_little_evidence_however_large() -> None:
    low, high = clustered_interval(np.ones(500, bool), np.zeros(500, np.int64))
    assert low < 0.3
    assert high == 1


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("statistic", [balanced_accuracy, macro_f1])
def test_bootstrap_intervals_cover(statistic, copies: int) -> None:  # type: ignore[no-untyped-def]
    truth = np.array([[0.9, 0.1, 0], [0.05, 0.9, 0.05], [0.2, 0.1, 0.7]])
    sizes, covered, draws = np.array([60, 40, 25]), 0, 60
    expected = float(statistic(truth * sizes[:, None]))
    for seed in range(draws):
        random = np.random.default_rng(seed)
        labels = np.repeat([0, 1, 2], sizes)
        predicted = (truth.cumsum(1)[labels] < random.random((len(labels), 1))).sum(axis=1)
        groups = np.repeat(np.arange(len(labels)), copies)
        low, high = bootstrap_interval(
            statistic, np.repeat(labels, copies), np.repeat(predicted, copies), groups, seed
        )
        covered += low <= expected <= high
    assert covered / draws > 0.86  # 0.95 less three standard errors


def test_statistics_are_scikit_learns() -> None:
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

    random = np.random.default_rng(0)
    labels, predicted = random.integers(0, 5, (2, 300))
    confusion = confusion_matrix(labels, predicted).astype(np.float64)
    assert balanced_accuracy(confusion) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert macro_f1(confusion) == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_perfect_predictions_still_have_an_interval() -> None:
    labels = np.arange(60) % 3
    low, high = bootstrap_interval(balanced_accuracy, labels, labels)
    assert 0.9 < low < 0.96
    assert high == 1


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 99))
def test_every_input_gives_an_interval_around_the_estimate(
    images: int, groups: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels, predicted = random.integers(0, 3, (2, images))
    predicted[random.random(images) < 0.1] = -1
    group = random.integers(0, groups, images)
    low, high = clustered_interval(labels == predicted, group)
    assert 0 <= low <= (labels == predicted).mean() <= high <= 1
    low, high = bootstrap_interval(macro_f1, labels, predicted, group)
    assert 0 <= low <= high <= 1


def test_no_images_no_interval() -> None:
    with pytest.raises(ResiduaError, match="no images"):
        clustered_interval(np.zeros(0, bool), np.zeros(0, np.int64))
