"""Temperatures against planted ones, and on the inputs that break a plain minimiser."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.uncertainty.softmax import softmax
from residua.uncertainty.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature


def calibrated(
    images: int, classes: int, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Logits, and labels drawn from their softmax."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, classes))
    labels = (softmax(logits).cumsum(axis=1) < random.random((images, 1))).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_a_planted_temperature_is_recovered(temperature: float) -> None:
    logits, labels = calibrated(6000, 5, 0)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_a_few_extreme_logits_do_not_decide() -> None:
    """Foreign images among 2,000: the likelihood alone would give a temperature above 5."""
    logits, labels = calibrated(2000, 5, 1)
    logits[:20] = np.random.default_rng(0).normal(0, 300, (20, 5))
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.1)


def test_a_few_images_that_are_all_right_are_no_reason_for_certainty() -> None:
    logits = np.tile([4.0, 0.0, 0.0], (10, 1))
    labels = np.zeros(10, np.int64)
    probability = softmax(logits / fit_temperature(logits, labels))[0, 0]
    assert 0.9 < probability < 0.97  # about half an error in 11
    few = fit_temperature(logits[:1], labels[:1])
    assert (
        few
        > fit_temperature(logits, labels)
        > fit_temperature(np.tile(logits, (99, 1)), np.zeros(990, int))
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 400), st.integers(2, 6), st.integers(0, 99))
def test_without_errors_about_half_an_error_is_still_expected(
    images: int, classes: int, seed: int
) -> None:
    """Margins of all sizes: a certain answer for most images would gain with the few others."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] = logits.max(axis=1) + random.exponential(4, images)
    confidence = softmax(logits / fit_temperature(logits, labels)).max(axis=1)
    assert (1 - confidence).sum() > 0.25


def test_rows_that_are_not_finite_do_not_matter() -> None:
    logits, labels = calibrated(300, 3, 2)
    damaged = np.concatenate([logits, [[np.nan, 0, 0], [np.inf, 0, 0], [0, -np.inf, 0]]])
    more = np.concatenate([labels, [0, 1, 2]])
    assert fit_temperature(damaged, more) == fit_temperature(logits, labels)
    probabilities = cross_fitted(damaged, more)
    assert np.isfinite(probabilities[:300]).all()
    assert np.isnan(probabilities[300]).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 12), st.integers(1, 5), st.floats(-3, 4), st.integers(0, 99))
def test_every_input_gives_a_temperature_in_range(
    images: int, classes: int, power: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 10**power, (images, classes)).astype(np.float32)
    logits[random.random(logits.shape) < 0.1] = np.nan
    labels = random.integers(0, classes, images)
    assert LOWEST <= fit_temperature(logits, labels) <= HIGHEST
    probabilities = cross_fitted(logits, labels)
    usable = np.isfinite(logits).all(axis=1)
    np.testing.assert_allclose(probabilities[usable].sum(axis=1), 1)


def test_no_image_is_calibrated_by_its_own_group() -> None:
    """Changing labels of a group changes the probabilities of other images alone."""
    logits, labels = calibrated(200, 3, 3)
    groups = np.arange(200) // 4
    changed = labels.copy()
    changed[groups == 7] = (labels[groups == 7] + 1) % 3
    before, after = (cross_fitted(logits, given, groups=groups) for given in (labels, changed))
    np.testing.assert_array_equal(before[groups == 7], after[groups == 7])
    assert (before != after).any()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="logits"):
        fit_temperature(np.zeros((2, 3)), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="labels"):
        fit_temperature(np.zeros((2, 3)), np.array([0, 3]))
