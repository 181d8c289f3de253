"""Calibration error of draws whose true error is known."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import ResiduaError
from residua.uncertainty.calibration import calibration_of


def draw(
    images: int, gap: float, seed: int, copies: int = 1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two-class probabilities that exceed the true ones by `gap`, labels, and groups."""
    random = np.random.default_rng(seed)
    true = random.uniform(0.55, 0.9, images)
    labels = (random.random(images) > true).astype(np.int64)
    top = np.repeat(true + gap, copies)
    return (
        np.stack([top, 1 - top], axis=1),
        np.repeat(labels, copies),
        np.repeat(np.arange(images), copies),
    )


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 5])
def test_calibrated_probabilities_have_no_error(copies: int) -> None:
    found = [calibration_of(*draw(250, 0.0, seed, copies)) for seed in range(40)]
    assert np.mean([c.plain_error for c in found]) > 0.05  # the bias that is removed
    assert np.median([c.error for c in found]) < 0.03
    assert np.mean([c.error == 0 for c in found]) > 0.35  # as often below the truth as above
    assert np.mean([c.interval is not None and c.interval[0] == 0 for c in found]) > 0.9


@pytest.mark.slow
def test_a_planted_error_is_measured_and_its_interval_contains_it() -> None:
    found = [calibration_of(*draw(400, 0.09, seed)) for seed in range(40)]
    squares = np.mean([c.error**2 for c in found])
    assert squares == pytest.approx(0.09**2, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("images", "copies"), [(40, 1), (40, 5), (150, 1)])
def test_intervals_contain_the_true_error_of_few_images_and_of_copies_too(
    images: int, copies: int
) -> None:
    """Three standard errors of 150 draws are allowed for. The upper end of a bootstrap was too low,
    so it contained the true error in about 69 % of draws of 40 images."""
    found = [calibration_of(*draw(images, 0.09, seed, copies)).interval for seed in range(150)]
    intervals = [interval for interval in found if interval is not None]  # of too few errors
    assert len(intervals) > 120
    assert np.mean([low <= 0.09 <= high for low, high in intervals]) > 0.95 - 3 * 0.018


@pytest.mark.slow
def test_intervals_of_rare_errors_contain_the_true_error() -> None:
    """12 errors of 400 images are expected; without their skewness, 89 % of draws contained it."""
    inside = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        top = random.uniform(0.98, 1, 400)
        labels = (random.random(400) > top - 0.02).astype(np.int64)
        interval = calibration_of(np.stack([top, 1 - top], axis=1), labels).interval
        inside.append(interval is None or interval[0] <= 0.0205 <= interval[1])  # a step is .001
    assert np.mean(inside) > 0.93


def test_copies_of_each_image_are_no_more_evidence() -> None:
    plain = calibration_of(*draw(200, 0.05, 1))
    copied = calibration_of(*draw(200, 0.05, 1, copies=6))
    naive = calibration_of(*draw(200, 0.05, 1, copies=6)[:2])
    assert plain.interval is not None
    assert copied.interval is not None
    assert naive.interval is not None
    width, wide, narrow = (
        high - low for low, high in (plain.interval, copied.interval, naive.interval)
    )
    assert wide >= 0.9 * width
    assert narrow < 0.75 * width
    for interval in zip(*([b.interval for b in c.bins[:1]] for c in (copied, naive)), strict=True):
        (wide_low, wide_high), (low, high) = interval
        assert wide_high - wide_low > 1.5 * (high - low)


def test_the_brier_score_is_scikit_learns_and_bins_are_equal() -> None:
    from sklearn.metrics import brier_score_loss

    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), 450)
    labels = random.integers(0, 4, 450)
    calibration = calibration_of(probabilities, labels)
    expected = brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert calibration.brier == pytest.approx(expected)
    assert [b.images for b in calibration.bins] == [30] * 15
    confidences = [b.confidence for b in calibration.bins]
    assert confidences == sorted(confidences)
    gaps = [abs(b.confidence - b.accuracy) * b.images for b in calibration.bins]
    assert calibration.plain_error == pytest.approx(sum(gaps) / 450)
    json.dumps(calibration.to_json(), allow_nan=False)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 4), st.floats(0, 3), st.integers(0, 99))
def test_every_input_gives_finite_figures(
    images: int, classes: int, power: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 10**-power), images)
    probabilities[1:][random.random(images - 1) < 0.1] = np.nan
    if not np.isfinite(probabilities).all(axis=1).any():
        probabilities[0] = 1 / classes
    calibration = calibration_of(probabilities, random.integers(0, classes, images))
    json.dumps(calibration.to_json(), allow_nan=False)
    assert (calibration.interval is None) == (calibration.reason != "")
    low, high = calibration.interval or (0, 1)
    assert 0 <= low <= calibration.error <= high <= 1


def test_without_finite_probabilities_nothing_is_measured() -> None:
    with pytest.raises(ResiduaError, match="finite"):
        calibration_of(np.full((3, 2), np.nan), np.zeros(3, np.int64))


@pytest.mark.parametrize(("errors", "is_measured"), [(0, False), (4, False), (5, True)])
def test_a_handful_of_errors_is_no_measurement(errors: int, is_measured: bool) -> None:
    labels = np.zeros(200, np.int64)
    labels[:errors] = 1
    calibration = calibration_of(np.tile([0.99, 0.01], (200, 1)), labels)
    assert (calibration.errors, calibration.is_measured) == (errors, is_measured)
    written = calibration.to_json()
    assert (written["interval"] is not None) == is_measured
    assert is_measured or "too few errors" in str(written["reason"])


def test_few_images_are_no_measurement_and_copies_of_them_are_none() -> None:
    for images, copies, is_measured in ((39, 1, False), (40, 1, True), (39, 5, False)):
        groups = np.repeat(np.arange(images), copies)
        probabilities = np.tile([0.4, 0.3, 0.3], (len(groups), 1))
        calibration = calibration_of(probabilities, groups % 3, groups)
        assert calibration.is_measured == is_measured
        assert (calibration.interval is not None) == is_measured
        assert ("near-duplicates" in calibration.reason) == (copies > 1)
