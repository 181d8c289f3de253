"""Features, labels and groups -> accuracy for fewer images, extrapolated to more.

The error of classifiers on n images a class is fitted by a x n^-b (Hestness et al. 2017, "Deep
learning scaling is predictable, empirically", section 3). Legend: M images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.audits.discriminants import classify
from residua.audits.finding import Finding
from residua.data.random import Integers, uniform
from residua.transfer.logistic import Floats, folds_of

REPEATS = 4  # draws of each subset
FRACTIONS = (0.125, 0.25, 0.5, 1.0)  # of the images of each class, left after holding out a fold
MIN_CLASS = 16  # images of the smallest class, without which there is no curve
MOST = 5_000  # images that are used
SHRINKAGE = 0.3  # of the covariance of the linear discriminants
MORE = 20  # images a class that the gain is given for; or as many again, if these are fewer
_RESAMPLES = 200
_FLOOR = 0.5  # errors that a perfect score counts as


@dataclass(frozen=True)
class LearningCurve:
    """images: of each class, on average. accuracy: cross-validated at these numbers.

    more: images a class that are added. gain, interval: of accuracy by these, extrapolated.
    class_gains: of each class's recall, in the order of the classes.
    """

    images: tuple[float, ...]
    accuracy: tuple[float, ...]
    more: int
    gain: float
    interval: tuple[float, float]
    class_gains: tuple[float, ...]


def learning_curve(
    features: Floats, labels: Integers, groups: Integers, classes: int, seed: int = 0
) -> LearningCurve | None:
    """The curve from subsets of features float32 [M, D <= 256]; None with too few images."""
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < MIN_CLASS or classes < 2:
        return None
    if len(labels) > MOST:
        chance = uniform(seed, 0, np.arange(len(labels)), 1, "curve")[:, 0]
        rows = np.sort(np.argsort(chance)[:MOST])
        features, labels, groups = features[rows], labels[rows], groups[rows]
        counts = np.bincount(labels, minlength=classes)
        if counts.min() < MIN_CLASS:
            return None
    folds = folds_of(labels, [str(group) for group in groups], seed) % 4
    errors = np.zeros((len(FRACTIONS), len(labels)))  # mean over the repeats
    for at, fraction in enumerate(FRACTIONS):
        repeats = REPEATS if fraction < 1 else 1
        for repeat in range(repeats):
            wrong = _wrong(features, labels, folds, fraction, seed + repeat)
            errors[at] += wrong / repeats
    images = np.array([fraction * 0.75 * len(labels) / classes for fraction in FRACTIONS])
    now = len(labels) / classes
    more = int(min(MORE, now))
    gain = _gain(images, errors.mean(axis=1), len(labels), now, more)
    chance = uniform(seed, 0, np.arange(_RESAMPLES), len(labels), "bootstrap")
    gains = []
    for row in chance:
        drawn = (row * len(labels)).astype(np.int64)
        gains.append(_gain(images, errors[:, drawn].mean(axis=1), len(labels), now, more))
    low, high = np.quantile(gains, [0.025, 0.975])
    per_class = [
        _gain(images, errors[:, labels == label].mean(axis=1), int(counts[label]), now, more)
        for label in range(classes)
    ]
    return LearningCurve(
        tuple(images.tolist()),
        tuple((1 - errors.mean(axis=1)).tolist()),
        more,
        gain,
        (float(low), float(high)),
        tuple(per_class),
    )


def check_size(curve: LearningCurve | None, classes: Sequence[str]) -> list[Finding]:
    """A note on what more images would bring, if that is surely something."""
    if curve is None or curve.gain < 0.005 or curve.interval[0] <= 0:
        return []
    best = int(np.argmax(curve.class_gains))
    low, high = (100 * max(0.0, bound) for bound in curve.interval)
    return [
        Finding(
            "more-images",
            "note",
            f"{curve.more} more images a class: about +{100 * curve.gain:.1f} points of accuracy "
            f"({low:.1f} to {high:.1f}); most for {classes[best]} "
            f"(+{100 * curve.class_gains[best]:.1f})",
            curve.more,
            "Collect more images, first of the classes that gain most.",
        )
    ]


def _wrong(
    values: Floats, labels: Integers, folds: Integers, fraction: float, seed: int
) -> npt.NDArray[np.float64]:
    """1 where linear discriminants err that were fitted on a fraction of the other folds."""
    wrong = np.zeros(len(labels))
    chance = uniform(seed, 0, np.arange(len(labels)), 1, "subset")[:, 0]
    for fold in np.unique(folds):
        train = np.flatnonzero(folds != fold)
        ranks = np.zeros(len(train))
        for label in np.unique(labels[train]):
            members = np.flatnonzero(labels[train] == label)
            order = np.argsort(np.argsort(chance[train[members]]))
            ranks[members] = (order + 0.5) / len(members)
        few = train[ranks < max(fraction, 2 / np.bincount(labels[train]).min())]
        out = folds == fold
        wrong[out] = classify(values[few], labels[few], values[out], SHRINKAGE) != labels[out]
    return wrong


def _gain(
    images: npt.NDArray[np.float64],
    errors: npt.NDArray[np.float64],
    evaluated: int,
    now: float,
    more: int,
) -> float:
    """The fall of the error from `now` to `now + more` images a class, by a x n^-b, b in 0..1.

    evaluated: images that the errors are of; the error of larger subsets has more weight.
    """
    floor = _FLOOR / max(evaluated, 1)
    x, y = np.log(images), np.log(np.maximum(errors, floor))
    weights = np.sqrt(np.maximum(errors, floor) * images)
    slope = float(np.clip(-np.polyfit(x, y, 1, w=weights)[0], 0.0, 1.0))
    level = float(np.exp(np.average(y + slope * x, weights=weights)))
    return float(level * (now**-slope - (now + more) ** -slope))
