"""The share of wrong labels, from predictions whose own errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from residua.uncertainty.label_noise import wrong_share


def drawn(images: int, sharpness: float, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that understate how often they are right, and labels of which some are wrong.

    A cross-validated, regularised model is like this. sharpness: of the true probabilities.
    """
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(images, 4))
    true = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    wrong = random.random(images) < share
    labels = np.where(wrong, (true + random.integers(1, 4, images)) % 4, true)
    values = np.exp(0.5 * logits)
    return values / values.sum(axis=1, keepdims=True), labels


@pytest.mark.slow
@pytest.mark.parametrize(("images", "sharpness", "share"), [(100, 5, 0.05), (3000, 2, 0.05)])
def test_the_interval_holds(images: int, sharpness: float, share: float) -> None:
    inside = 0
    for seed in range(20):
        probabilities, labels = drawn(images, sharpness, share, seed)
        estimate, (low, high) = wrong_share(probabilities, labels, np.ones(images))
        assert low <= estimate <= high
        inside += low <= share <= high
    assert inside >= 17  # of 19 expected; fewer by chance in one of 60 tests


def test_more_images_narrow_the_interval() -> None:
    widths = []
    for images in (100, 400, 1600):
        probabilities, labels = drawn(images, 5, 0.1, 0)
        _, (low, high) = wrong_share(probabilities, labels, np.ones(images))
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    assert widths[0] > 2 * widths[2]
