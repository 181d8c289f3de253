"""The expected accuracy is that of the final head, and its interval contains it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import ResiduaError
from residua.inference.logistic import fit_logistic, folds_of
from residua.transfer.cross_validation import Targets, race
from residua.transfer.expected_accuracy import Estimate, estimate


def estimate_of(layers: list[np.ndarray], labels: np.ndarray, classes: int) -> Estimate:
    """The estimate after cross-validating several layers."""
    folds = folds_of(labels, [str(n) for n in range(len(labels))], 0)
    probes = race(layers, Targets(labels, classes), folds)
    correct = np.concatenate([probe.correct for probe in probes], axis=1)
    losses = np.concatenate([probe.loss for probe in probes], axis=1)
    return estimate(correct, losses, 0)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.floats(0, 1), st.integers(0, 1000))
def test_the_interval_contains_the_accuracy_and_stays_within_0_and_1(
    images: int, number: int, share: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    correct = random.uniform(size=(images, number)) < share
    losses = random.exponential(size=correct.shape)
    estimated = estimate(correct, losses, seed)
    low, high = estimated.interval
    assert 0 <= low <= estimated.accuracy <= high <= 1
    assert low < high  # never certain
    assert estimated.images == images
    assert estimated == estimate(correct, losses, seed)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_the_interval_narrows_with_more_images(share: float) -> None:
    widths = []
    for images in (10, 40, 160, 640):
        correct = (np.arange(images) < share * images)[:, None]
        low, high = estimate(correct, np.where(correct, 0.1, 2.0), 0).interval
        widths.append(high - low)
    assert all(few > 1.5 * many for few, many in itertools.pairwise(widths))


def test_without_selection_the_accuracy_is_hardly_corrected() -> None:
    correct = (np.arange(1_000) % 4 > 0)[:, None]
    estimated = estimate(correct, np.where(correct, 0.2, 2.0), 0)
    assert estimated.accuracy == pytest.approx(0.75, abs=0.01)
    assert estimated.interval[0] == pytest.approx(0.72, abs=0.015)
    assert estimated.interval[1] == pytest.approx(0.78, abs=0.015)


def test_the_best_of_many_coins_is_still_a_coin() -> None:
    plain, honest = [], []
    for seed in range(30):
        correct = np.random.default_rng(seed).uniform(size=(80, 60)) < 0.5
        losses = 1.0 - correct
        plain.append(correct[:, losses.mean(axis=0).argmin()].mean())
        honest.append(estimate(correct, losses, seed).accuracy)
    assert np.mean(plain) > 0.6  # the selection bias
    assert np.mean(honest) < 0.5 + (np.mean(plain) - 0.5) / 2


@pytest.mark.slow
def test_features_of_noise_have_chance_accuracy() -> None:
    covered, accuracies = [], []
    for seed in range(8):
        random = np.random.default_rng(seed)
        labels = np.arange(80) % 4
        layers = [random.normal(size=(80, 30)).astype(np.float32) for _ in range(3)]
        estimated = estimate_of(layers, labels, 4)
        accuracies.append(estimated.accuracy)
        covered.append(estimated.interval[0] <= 0.25 <= estimated.interval[1])
    assert np.mean(accuracies) == pytest.approx(0.25, abs=0.05)
    assert np.mean(covered) > 0.8


@pytest.mark.slow
def test_the_interval_covers_the_accuracy_of_the_final_head() -> None:
    random = np.random.default_rng(0)
    centres = 0.6 * random.normal(size=(3, 12))
    many = np.arange(3_000) % 3
    new = (centres[many] + random.normal(size=(3_000, 12))).astype(np.float32)
    labels = np.arange(45) % 3
    covered = []
    for _ in range(30):
        features = (centres[labels] + random.normal(size=(45, 12))).astype(np.float32)
        folds = folds_of(labels, [str(n) for n in range(45)], 0)
        (scores,) = race([features], Targets(labels, 3), folds)
        head = fit_logistic(features, labels, 3, scores.c)
        truth = ((new @ head.weight.T + head.bias).argmax(axis=1) == many).mean()
        low, high = estimate(scores.correct, scores.loss, 0).interval
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.83  # 95 % less three standard errors


def test_an_estimate_without_images_is_refused() -> None:
    with pytest.raises(ResiduaError, match="no images"):
        estimate(np.zeros((0, 3), np.bool_), np.zeros((0, 3)), 0)
