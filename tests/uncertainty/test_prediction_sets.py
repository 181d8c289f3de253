"""Sets that contain the right class as often as stated, over repeated draws."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import ResiduaError
from residua.uncertainty.prediction_sets import (
    PredictionSets,
    accuracy_against_coverage,
    confidence_threshold,
)
from residua.uncertainty.softmax import softmax

Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def draw(images: int, random: np.random.Generator, hard: float = 1.0) -> Rows:
    """Probabilities of 4 classes and labels; class 3 is `hard` times as hard as the others."""
    labels = random.integers(0, 4, images)
    logits = random.normal(0, 1, (images, 4))
    logits[np.arange(images), labels] += np.where(labels == 3, 2.0 / hard, 2.0)
    return softmax(logits), labels


def covered(sets: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return sets[np.arange(len(labels)), labels]


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_cover_as_stated(coverage: float) -> None:
    shares = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        probabilities, labels = draw(30, random)
        sets = PredictionSets.fit(probabilities, labels)
        new, truth = draw(400, random)
        shares.append(covered(sets.sets(new, coverage), truth).mean())
    error = np.std(shares) / np.sqrt(len(shares))
    # At least as stated, and above by at most one image of those of a threshold.
    assert coverage - 3 * error <= np.mean(shares) <= coverage + 1 / 8 + 3 * error


def test_a_hard_class_is_covered_too_if_it_has_enough_images() -> None:
    shares = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        sets = PredictionSets.fit(*draw(400, random, hard=4))
        assert sets.own_thresholds(0.9) == [0, 1, 2, 3]
        new, truth = draw(400, random, hard=4)
        shares.append(covered(sets.sets(new), truth)[truth == 3].mean())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.03)


def test_copies_of_calibration_images_do_not_break_the_coverage() -> None:
    """Few images with many copies: counted as independent, they cover less than stated."""
    grouped, naive = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        probabilities, labels = draw(12, random)
        copies = np.repeat(np.arange(12), random.integers(1, 20, 12))
        copied = probabilities[copies], labels[copies]
        new, truth = draw(100, random)
        for found, groups in ((grouped, copies), (naive, None)):
            sets = PredictionSets.fit(*copied, groups)
            threshold = sets.threshold(0.9)[0]
            scores = 1 - new[np.arange(100), truth]
            found.append((scores <= threshold).mean())
    assert np.mean(grouped) >= 0.9 - 3 * np.std(grouped) / np.sqrt(300)
    assert np.mean(naive) < 0.88


def test_thresholds_of_few_images_are_exact() -> None:
    """9 images support 90 %: the threshold is the largest score; 8 do not."""
    scores = np.arange(1, 10) / 10
    probabilities = np.stack([1 - scores, scores], axis=1)
    sets = PredictionSets.fit(probabilities, np.zeros(9, np.int64))
    assert sets.highest_coverage == pytest.approx(0.9)
    np.testing.assert_allclose(sets.threshold(0.9), 0.9)
    np.testing.assert_allclose(sets.threshold(0.5), 0.5)
    with pytest.raises(ResiduaError, match=r"8 calibration images.* 9 are needed.*at most 0\.888"):
        PredictionSets.fit(probabilities[:8], np.zeros(8, np.int64)).threshold(0.9)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_impossible_coverages_are_refused(coverage: float) -> None:
    sets = PredictionSets.fit(*draw(50, np.random.default_rng(0)))
    with pytest.raises(ResiduaError, match="between 0 and 1"):
        sets.threshold(coverage)


def test_the_error_of_a_coverage_in_per_cent_suggests_the_fraction() -> None:
    sets = PredictionSets.fit(*draw(50, np.random.default_rng(0)))
    with pytest.raises(ResiduaError, match=r"coverage 95: .* such as 0\.95\.$"):
        sets.threshold(95)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 5), st.floats(0.05, 0.95), st.integers(0, 99))
def test_no_set_is_empty_and_a_higher_coverage_only_adds(
    images: int, classes: int, coverage: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.3), images)
    probabilities[random.random(images) < 0.1] = np.nan
    labels = random.integers(0, classes, images)
    sets = PredictionSets.fit(probabilities, labels, random.integers(0, images, images))
    if coverage > sets.highest_coverage:
        with pytest.raises(ResiduaError, match="cannot support"):
            sets.sets(probabilities, coverage)
        return
    chosen = sets.sets(probabilities, coverage)
    assert chosen.any(axis=1).all()
    assert chosen[np.isnan(probabilities).any(axis=1)].all()
    usable = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    assert chosen[usable, probabilities[usable].argmax(axis=1)].all()
    restored = PredictionSets.from_arrays(*sets.to_arrays())
    np.testing.assert_array_equal(restored.sets(probabilities, coverage), chosen)


def test_damaged_files_are_refused() -> None:
    values, arrays = PredictionSets.fit(*draw(20, np.random.default_rng(0))).to_arrays()
    damaged = (
        ({}, {}),
        ({"classes": 4.0}, {}),
        ({"classes": -1}, {}),
        ({"classes": True}, {}),
        ({"classes": 2}, {}),  # labels up to 3
        (values, {"scores": arrays["scores"] * np.nan}),
        (values, {"scores": arrays["scores"] + 1}),
        (values, {"scores": arrays["scores"].astype(np.float16)}),
        (values, {"scores": arrays["scores"][None]}),
        (values, {"labels": arrays["labels"][:-1]}),
        (values, {"labels": arrays["labels"] - 9}),
        (values, {"groups": arrays["groups"].astype(object)}),
        (values, {"groups": None}),
    )
    for wrong, change in damaged:
        with pytest.raises(ValueError, match=r"\.$"):
            PredictionSets.from_arrays(wrong, {**arrays, **change})  # type: ignore[dict-item]


def test_accuracy_against_coverage_is_counted() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.6])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    curve = accuracy_against_coverage(probabilities, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.75, 0.75, 1])
    np.testing.assert_allclose(curve.accuracy, [1, 2 / 3, 2 / 3, 0.5])
    np.testing.assert_allclose(curve.confidence, confidence)


def test_the_threshold_for_an_accuracy_fails_as_rarely_as_stated() -> None:
    """True accuracy above the threshold, known as labels are drawn from the probabilities."""
    failures, shares = 0, []
    for seed in range(150):
        random = np.random.default_rng(seed)
        top = random.uniform(0.5, 1, 1000)
        probabilities = np.stack([top, 1 - top], axis=1)
        labels = (random.random(1000) > top).astype(np.int64)
        threshold = confidence_threshold(probabilities, labels, 0.9)
        if threshold is not None:
            failures += (threshold + 1) / 2 < 0.9
            shares.append((top >= threshold).mean())
    assert failures / 150 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert len(shares) > 75
    assert np.mean(shares) > 0.2  # of the 40 % that are possible


def test_an_accuracy_that_cannot_be_shown_has_no_threshold() -> None:
    probabilities, labels = draw(20, np.random.default_rng(0))
    assert confidence_threshold(probabilities, labels, 0.99) is None
    assert confidence_threshold(probabilities[:0], labels[:0], 0.5) is None
    many = np.repeat([[0.99, 0.01]], 100, axis=0), np.zeros(100, np.int64)
    assert confidence_threshold(*many, 0.95) == 0.99
    assert confidence_threshold(*many, 0.95, groups=np.arange(100) // 10) is None
    with pytest.raises(ResiduaError, match="between 0 and 1"):
        confidence_threshold(*many, 1.0)
