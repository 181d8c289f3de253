"""The curve rises with the images, its extrapolation is near what more images really give."""

from __future__ import annotations

import numpy as np

from residua.audits.discriminants import classify
from residua.audits.images import main_axes
from residua.audits.learning_curve import MOST, SHRINKAGE, check_size, learning_curve
from residua.data.random import uniform

CLASSES = 3


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(CLASSES, 64)) * 0.45
    labels = np.repeat(np.arange(CLASSES), count)
    features = centres[labels] + generator.normal(size=(len(labels), 64))
    return main_axes(features.astype(np.float32)), labels.astype(np.int64)


def test_hard_classes_would_gain_from_more_images() -> None:
    features, labels = drawn(40)
    curve = learning_curve(features, labels, np.arange(len(labels)), CLASSES)
    assert curve is not None
    assert curve.accuracy[0] < curve.accuracy[-1]
    assert curve.interval[0] <= curve.gain <= curve.interval[1]
    larger = learning_curve(*drawn(60), np.arange(180), CLASSES)
    assert larger is not None
    rise = larger.accuracy[-1] - curve.accuracy[-1]
    assert abs(curve.gain - rise) < 0.06
    (finding,) = check_size(curve, ["a", "b", "c"])
    assert "20 more images a class" in finding.title


def test_the_interval_has_the_gain_that_is_measured_with_more_images() -> None:
    """Twelve training sets of 40 images a class, then 60, each evaluated on 3,000 other images."""
    inside = 0
    for seed in range(12):
        features, labels = drawn(1060, seed)
        numbers = np.arange(len(labels)) % 1060
        few, more, rest = numbers < 40, numbers < 60, numbers >= 60
        curve = learning_curve(features[few], labels[few], np.arange(few.sum()), CLASSES)
        assert curve is not None
        before, after = (
            classify(features[used], labels[used], features[rest], SHRINKAGE) == labels[rest]
            for used in (few, more)
        )
        gain = after.mean() - before.mean()
        inside += curve.interval[0] <= gain <= curve.interval[1]
    assert inside >= 10


def test_separate_classes_gain_nothing() -> None:
    features, labels = drawn(30)
    features[np.arange(len(labels)), labels] += 30
    curve = learning_curve(features, labels, np.arange(len(labels)), CLASSES)
    assert check_size(curve, ["a", "b", "c"]) == []


def test_few_images_have_no_curve() -> None:
    features, labels = drawn(10)
    assert learning_curve(features, labels, np.arange(len(labels)), CLASSES) is None


def test_the_curve_is_at_the_images_that_were_trained_on() -> None:
    """An eighth of 12 images of a class would be 1.5: two are used."""
    features, labels = drawn(16)
    curve = learning_curve(features, labels, np.arange(len(labels)), CLASSES)
    assert curve is not None
    assert curve.images[0] == 2
    assert curve.images[-1] < 12  # folds are merged, so that two of four are larger


def test_more_images_are_added_to_all_of_a_large_data_set() -> None:
    """The curve is of 5,000 of 12,000 images, but 20 more are added to the 4,000 of each class."""
    features, labels = drawn(4000)
    groups = np.arange(len(labels))
    curve = learning_curve(features, labels, groups, CLASSES)
    rows = np.sort(np.argsort(uniform(0, 0, groups, 1, "curve")[:, 0])[:MOST])
    few = learning_curve(features[rows], labels[rows], groups[rows], CLASSES)
    assert curve is not None
    assert few is not None
    assert curve.accuracy == few.accuracy
    assert 0 < curve.gain < 0.6 * few.gain
