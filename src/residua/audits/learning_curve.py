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
from residua.inference.logistic import folds_of
from residua.inference.regressions import Floats

REPEATS = 4  # draws of each subset
FRACTIONS = (0.125, 0.25, 0.5, 1.0)  # of the images of each class, left after holding out a fold
# (at least two of the smallest class)
MIN_CLASS = 16  # images of the smallest class, without which there is no curve
MOST = 5_000  # images that are used
SHRINKAGE = 0.3  # of the covariance of the linear discriminants
MORE = 20  # images a class that the gain is given for; or as many again, if these are fewer
_RESAMPLES = 200
_FLOOR = 0.5  # errors that a perfect score counts as


@dataclass(frozen=True)
class LearningCurve:
    """images: of each class that were trained on, on average. accuracy: cross-validated with these.

    more: images a class that are added. gain, interval: of accuracy by these, extrapolated. The
    95 % interval allows for the evaluated images, the drawn training images and the extrapolation.
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
    now = len(labels) / classes
    more = int(min(MORE, now))
    if len(labels) > MOST:
        chance = uniform(seed, 0, np.arange(len(labels)), 1, "curve")[:, 0]
        rows = np.sort(np.argsort(chance)[:MOST])
        features, labels, groups = features[rows], labels[rows], groups[rows]
        counts = np.bincount(labels, minlength=classes)
        if counts.min() < MIN_CLASS:
            return None
    folds = folds_of(labels, [str(group) for group in groups], seed) % 4
    wrong, images = np.zeros((len(FRACTIONS), REPEATS, len(labels))), np.zeros(len(FRACTIONS))
    for at, fraction in enumerate(FRACTIONS):
        for repeat in range(REPEATS if fraction < 1 else 1):
            wrong[at, repeat], used = _wrong(features, labels, folds, fraction, seed + repeat)
            images[at] = used / classes
    wrong[-1] = wrong[-1, 0]  # all images: there is one draw
    errors = wrong.mean(axis=1)
    gain = _gain(images, errors.mean(axis=1), len(labels), now, more)
    sampled = _bootstrapped(images, wrong, groups, now, more, seed)
    # Between training sets of `now` images the variance of the error is that between the repeats,
    # in proportion to 1 / images; a larger set that has the same images differs by this part
    variance = (wrong[1:-1].mean(axis=2).var(axis=1, ddof=1) * images[1:-1]).mean() / now
    drawn = 1.96 * (2 * variance * more / (now + more)) ** 0.5
    low = gain - np.hypot(gain - min(sampled[0], gain), drawn)
    high = gain + np.hypot(max(sampled[1], gain) - gain, drawn)
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
    """A note on what more images would bring, if that is expected to be half a point."""
    if curve is None or curve.gain < 0.005:
        return []
    best = int(np.argmax(curve.class_gains))
    low, high = (100 * bound for bound in curve.interval)
    return [
        Finding(
            "more-images",
            "note",
            f"{curve.more} more images a class: about +{100 * curve.gain:.1f} points of accuracy "
            f"(95 % CI {low:.1f} to {high:.1f}); most for {classes[best]} "
            f"(+{100 * curve.class_gains[best]:.1f})",
            curve.more,
            "Collect more images, first of the classes that gain most."
            if low > 0
            else "The interval includes 0, so a gain is uncertain.",
        )
    ]


def _wrong(
    values: Floats, labels: Integers, folds: Integers, fraction: float, seed: int
) -> tuple[npt.NDArray[np.float64], float]:
    """1 where linear discriminants err that were fitted on a fraction of the other folds, [M], and
    on how many images they were fitted, on average of those that they predict."""
    wrong, used = np.zeros(len(labels)), 0.0
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
        used += len(few) * float(out.mean())
    return wrong, used


def _bootstrapped(
    images: npt.NDArray[np.float64],
    wrong: npt.NDArray[np.float64],
    groups: Integers,
    now: float,
    more: int,
    seed: int,
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the gain. wrong: [fractions, repeats, M].

    Each resample draws groups of images, one of the repeats for each fraction, and the smallest
    fraction that is fitted, as the curve may bend: a fit of all fractions alone is far too sure.
    """
    count, fractions = len(groups), len(images)
    names, group = np.unique(groups, return_inverse=True)
    chance = uniform(seed, 0, np.arange(_RESAMPLES), len(names) + fractions + 1, "bootstrap")
    gains = []
    for row in chance:
        drawn = np.bincount((row[: len(names)] * len(names)).astype(np.int64), minlength=len(names))
        weights = drawn[group] / drawn[group].sum()
        repeats = (row[len(names) : -1] * wrong.shape[1]).astype(np.int64)
        errors = wrong[np.arange(fractions), repeats] @ weights
        first = int(row[-1] * (fractions - 1))
        gains.append(_gain(images[first:], errors[first:], count, now, more))
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


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
