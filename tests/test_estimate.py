"""The expected accuracy of the finished head: honest after a choice, and as wide as it must be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from residua.transfer.estimate import Estimate, estimate
from residua.transfer.folds import folds_of

from residua.errors import ResiduaError
from residua.transfer.cross_validation import probe
from residua.transfer.logistic import fit


def tried(features: list[np.ndarray], labels: np.ndarray, classes: int) -> tuple[Estimate, float]:
    """The estimate after trying all stages, and what the best of them says of itself."""
    folds = folds_of(labels, [str(n) for n in range(len(labels))], 0)
    probes = [probe(each, labels, classes, folds) for each in features]
    rights = np.concatenate([each.right for each in probes], axis=1)
    losses = np.concatenate([each.loss for each in probes], axis=1)
    plain = float(rights[:, losses.mean(axis=0).argmin()].mean())
    return estimate(rights, losses, 0), plain


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.floats(0, 1), st.integers(0, 1000))
def test_the_interval_holds_the_accuracy_and_is_a_share(
    images: int, number: int, share: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rights = random.uniform(size=(images, number)) < share
    losses = random.exponential(size=rights.shape)
    found = estimate(rights, losses, seed)
    low, high = found.interval
    assert 0 <= low <= found.accuracy <= high <= 1
    assert low < high  # nobody is certain
    assert found.images == images
    assert found == estimate(rights, losses, seed)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_more_images_make_it_narrower(share: float) -> None:
    widths = []
    for images in (10, 40, 160, 640):
        rights = (np.arange(images) < share * images)[:, None]
        low, high = estimate(rights, np.where(rights, 0.1, 2.0), 0).interval
        widths.append(high - low)
    assert all(few > 1.5 * many for few, many in itertools.pairwise(widths))


def test_without_a_choice_nothing_is_corrected_much() -> None:
    rights = (np.arange(1_000) % 4 > 0)[:, None]
    found = estimate(rights, np.where(rights, 0.2, 2.0), 0)
    assert found.accuracy == pytest.approx(0.75, abs=0.01)
    assert found.interval[0] == pytest.approx(0.72, abs=0.015)
    assert found.interval[1] == pytest.approx(0.78, abs=0.015)


def test_the_best_of_many_coins_is_a_coin() -> None:
    plain, honest = [], []
    for seed in range(30):
        rights = np.random.default_rng(seed).uniform(size=(80, 60)) < 0.5
        losses = 1.0 - rights
        plain.append(rights[:, losses.mean(axis=0).argmin()].mean())
        honest.append(estimate(rights, losses, seed).accuracy)
    assert np.mean(plain) > 0.6  # what the choice alone would promise
    assert np.mean(honest) < 0.5 + (np.mean(plain) - 0.5) / 2


def test_features_of_noise_promise_nothing() -> None:
    covered, said = [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        labels = np.arange(80) % 4
        stages = [random.normal(size=(80, 30)).astype(np.float32) for _ in range(5)]
        found, _ = tried(stages, labels, 4)
        said.append(found.accuracy)
        covered.append(found.interval[0] <= 0.25 <= found.interval[1])
    assert np.mean(said) == pytest.approx(0.25, abs=0.05)
    assert np.mean(covered) > 0.8


def test_it_covers_the_accuracy_of_the_finished_head() -> None:
    random = np.random.default_rng(0)
    centres = 0.6 * random.normal(size=(3, 12))
    many = np.arange(3_000) % 3
    new = (centres[many] + random.normal(size=(3_000, 12))).astype(np.float32)
    labels = np.arange(45) % 3
    covered = []
    for _ in range(50):
        features = (centres[labels] + random.normal(size=(45, 12))).astype(np.float32)
        folds = folds_of(labels, [str(n) for n in range(45)], 0)
        found = probe(features, labels, 3, folds)
        head = fit(features, labels, 3, found.strengths[found.best])
        truth = ((new @ head.weight.T + head.bias).argmax(axis=1) == many).mean()
        low, high = estimate(found.right, found.loss, 0).interval
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.85  # 95 % less three standard errors


def test_no_images_are_explained() -> None:
    with pytest.raises(ResiduaError, match="no images"):
        estimate(np.zeros((0, 3), np.bool_), np.zeros((0, 3)), 0)
