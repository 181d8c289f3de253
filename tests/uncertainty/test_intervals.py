"""Intervals that are to contain the true figure in 95 of 100 draws, counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import ResiduaError
from residua.uncertainty.intervals import clustered_interval, wilson_interval

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


def test_no_images_no_interval() -> None:
    with pytest.raises(ResiduaError, match="no images"):
        clustered_interval(np.zeros(0, bool), np.zeros(0, np.int64))
