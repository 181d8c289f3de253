"""Copies of evaluated images are no more evidence of how far probabilities carry."""

from __future__ import annotations

import numpy as np

from residua.evaluation.reliability import Reliability, reliability_of
from residua.uncertainty.record import Uncertainty


def reliability(copies: int, *, grouped: bool = True) -> Reliability:
    """Of 120 images that are repeated: three classes, a third of the predictions wrong."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    shown = np.where(random.random(120) < 1 / 3, random.integers(0, 3, 120), labels)
    logits = (2 * np.eye(3)[shown] + random.normal(size=(120, 3))).astype(np.float32)
    rows = np.repeat(np.arange(120), copies)
    groups = [str(row) for row in rows] if grouped else ()
    uncertainty = Uncertainty("cross-validation", 120)
    found = reliability_of(logits[rows], labels[rows], groups, uncertainty, is_own=True)
    assert found is not None
    return found


def test_copies_do_not_narrow_the_interval_of_prediction_sets() -> None:
    widths = []
    for found in (reliability(1), reliability(5), reliability(5, grouped=False)):
        assert found.sets is not None
        low, high = found.sets.interval
        assert low < found.sets.covered < high
        widths.append(high - low)
    plain, copied, naive = widths
    assert 0.8 * plain < copied < 1.3 * plain
    assert naive < 0.6 * plain


def test_images_without_a_group_are_each_by_themselves() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    logits = (2 * np.eye(3)[labels] + random.normal(size=(200, 3))).astype(np.float32)
    alone, named = (
        reliability_of(logits, labels, groups, None, is_own=False)
        for groups in ([""] * 198 + ["x"] * 2, [*map(str, range(199)), "198"])
    )
    assert alone is not None
    assert named is not None
    assert alone.after.interval == named.after.interval
