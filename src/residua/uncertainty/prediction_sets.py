"""Probabilities and labels of calibration images -> sets of classes that contain the right one as
often as stated, and the confidence above which predictions are as accurate as wanted.

Legend: N images, K classes, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError, UsageError
from residua.uncertainty.quantiles import conformal_quantile
from residua.uncertainty.softmax import check_labels
from residua.uncertainty.stored import checked_array

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

COVERAGE = 0.9  # unless another one is requested
_MISSES = 2  # images of a class that are expected outside its sets, for a threshold of its own


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """Split conformal prediction with the score 1 - p of the true class ("LAC", Sadinle et al.
    2019), whose sets are the smallest on average.

    A set contains the right class of a new image with at least the stated probability, whatever the
    network, if the image is drawn like the calibration images, which were not used for training.
    With groups this holds for an image of a new group. A class with enough images has its own
    threshold, so that the coverage holds for this class (Vovk 2012, "Mondrian"); the others share
    one.

    scores: float64 [N], 1 - p; labels, groups: int64 [N]. classes: K.
    """

    scores: Floats
    labels: Integers
    groups: Integers
    classes: int

    @classmethod
    def fit(
        cls,
        probabilities: npt.NDArray[np.floating],
        labels: npt.NDArray[np.integer],
        groups: npt.NDArray[np.integer] | None = None,
    ) -> PredictionSets:
        """Of calibration images: probabilities float [N, K], labels int [N] in [0, K).

        groups: int [N], of near-copies. A row that is not finite counts as never covered. Raises
        ValueError if shapes or labels do not fit.
        """
        check_labels(probabilities, labels)
        rows = probabilities.astype(np.float64)
        if groups is not None and groups.shape != labels.shape:
            raise ValueError(f"groups {groups.shape}, labels {labels.shape}")
        scores = 1 - np.where(np.isfinite(rows), rows, 0.0)[np.arange(len(rows)), labels]
        group = (
            np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
        )
        return cls(
            np.clip(scores, 0, 1), labels.astype(np.int64), group.astype(np.int64), rows.shape[1]
        )

    @cached_property
    def highest_coverage(self) -> float:
        """The highest coverage that these images support, G / (G + 1); 0 without images."""
        groups = len(np.unique(self.groups))
        return groups / (groups + 1) if groups else 0.0

    def threshold(self, coverage: float = 0.9) -> Floats:
        """float64 [K]: a class is in the set if 1 - its probability is at most this.

        Raises ResiduaError for a coverage that is not in (0, 1) or that the images cannot support.
        """
        self._check(coverage)
        everything = conformal_quantile(self.scores, self.groups, coverage)
        thresholds = np.full(self.classes, np.nan)
        rest = np.ones(len(self.labels), np.bool_)
        for label in self.own_thresholds(coverage):
            here = self.labels == label
            thresholds[label] = conformal_quantile(self.scores[here], self.groups[here], coverage)
            rest &= ~here
        shared = conformal_quantile(self.scores[rest], self.groups[rest], coverage)
        if not math.isfinite(shared):  # too few images for a threshold of their own
            shared = max(everything, self.scores[rest].max(initial=0.0))
        return np.where(np.isnan(thresholds), shared, thresholds)

    def own_thresholds(self, coverage: float) -> list[int]:
        """Classes with enough images for a threshold of their own."""
        pairs = np.unique(np.stack([self.labels, self.groups], axis=1), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=self.classes)
        enough = counts * (1 - coverage) + 1e-9 >= _MISSES
        return [int(label) for label in np.flatnonzero(enough)]

    def sets(
        self, probabilities: npt.NDArray[np.floating], coverage: float = 0.9
    ) -> npt.NDArray[np.bool_]:
        """bool [N, K]: the classes in the set of each image; at least its predicted class.

        probabilities: float [N, K]; a row that is not finite gets all classes. Raises ResiduaError
        as `threshold`, ValueError if there are not K columns.
        """
        if probabilities.ndim != 2 or probabilities.shape[1] != self.classes:
            raise ValueError(f"probabilities {probabilities.shape}, {self.classes} classes")
        rows = probabilities.astype(np.float64)
        chosen = 1 - rows <= self.threshold(coverage)
        if len(rows):
            chosen[np.arange(len(rows)), rows.argmax(axis=1)] = True
        chosen[~np.isfinite(rows).all(axis=1)] = True
        return np.asarray(chosen)

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Plain data and arrays, from which `from_arrays` makes the same object."""
        arrays = {"scores": self.scores, "labels": self.labels, "groups": self.groups}
        return {"classes": self.classes}, dict(arrays)

    @classmethod
    def from_arrays(
        cls, values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> PredictionSets:
        """The object of `to_arrays`. Raises ValueError with a sentence if anything is damaged."""
        classes = values.get("classes") if isinstance(values, Mapping) else None
        if type(classes) is not int or not 1 <= classes <= 1_000_000:
            raise ValueError(f"prediction sets: classes is {classes!r}, expected a whole number.")
        scores = checked_array(arrays, "scores", np.float64, (None,))
        labels = checked_array(arrays, "labels", np.int64, scores.shape)
        groups = checked_array(arrays, "groups", np.int64, scores.shape)
        if ((scores < 0) | (scores > 1)).any():
            raise ValueError("prediction sets: scores are not in [0, 1].")
        if ((labels < 0) | (labels >= classes)).any():
            raise ValueError(f"prediction sets: labels are not in [0, {classes}).")
        return cls(scores, labels, groups, classes)

    def _check(self, coverage: float) -> None:
        if not 0 < coverage < 1:
            share = coverage / 100 if 50 <= coverage < 100 else 0.9
            raise UsageError(
                f"coverage {coverage:g}: expected a number between 0 and 1, such as {share:g}."
            )
        if coverage > self.highest_coverage + 1e-9:
            groups = len(np.unique(self.groups))
            needed = math.ceil(coverage / (1 - coverage) - 1e-6)
            highest = math.floor(1000 * self.highest_coverage) / 1000
            raise ResiduaError(
                f"{groups:,} calibration images, not counting near-duplicates, cannot support "
                f"prediction sets with a coverage of {coverage:g}: {needed:,} are needed. Use a "
                f"coverage of at most {highest:g}, or more images."
            )


class Selective(NamedTuple):
    """Accuracy if only the most confident images are predicted; float64 [N], by coverage.

    coverage: share of images that are predicted. accuracy: of these. confidence: the lowest of
    theirs.
    """

    coverage: Floats
    accuracy: Floats
    confidence: Floats


def accuracy_against_coverage(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> Selective:
    """Of probabilities float [N, K] and labels int [N] (El-Yaniv and Wiener 2010).

    Rows that are not finite have confidence 0 and are wrong. Images of equal confidence are
    predicted together. Raises ValueError if shapes or labels do not fit.
    """
    confidence, correct = _outcomes(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], np.cumsum(correct[order])
    last = np.searchsorted(-confidence, -confidence, side="right") - 1  # of equal confidence
    count = last + 1
    return Selective(count / max(1, len(count)), right[last] / count, confidence)


def confidence_threshold(
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    accuracy: float,
    groups: npt.NDArray[np.integer] | None = None,
    confidence: float = 0.95,
) -> float | None:
    """The lowest probability of the predicted class from which on predictions are that accurate.

    With probability `confidence`, predictions at or above the threshold have at least this accuracy
    on images like these. None if no threshold can be shown to.

    Fixed-sequence testing (Angelopoulos et al. 2021, sections 2 and 5): thresholds
    are tested from the highest on, by the exact binomial bound (Clopper and Pearson 1934), until
    one fails. Of the images of a group the first alone counts. Raises ResiduaError for an accuracy
    that is not in (0, 1), ValueError if shapes or labels do not fit.
    """
    from scipy.special import bdtr  # scipy.stats takes half a second to import

    if not 0 < accuracy < 1:
        raise ResiduaError(
            f"An accuracy of {accuracy:g} cannot be guaranteed: expected a number between 0 and 1, "
            "such as 0.95."
        )
    if groups is not None:
        first = np.unique(groups, return_index=True)[1]
        probabilities, labels = probabilities[first], labels[first]
    curve = accuracy_against_coverage(probabilities, labels)
    images = np.rint(curve.coverage * len(labels)).astype(np.int64)
    wrong = np.rint((1 - curve.accuracy) * images).astype(np.int64)
    least = math.ceil(math.log(1 - confidence) / math.log(accuracy))  # all right: just enough
    tested = np.flatnonzero(images >= least)[:: max(1, len(labels) // 100)]
    passed = bdtr(wrong[tested], images[tested], 1 - accuracy) <= 1 - confidence
    count = int(np.argmin(passed)) if not passed.all() else len(passed)
    return float(curve.confidence[tested[count - 1]]) if count else None


def _outcomes(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Probability of the predicted class, and whether it is right; [N] each."""
    check_labels(probabilities, labels)
    rows = probabilities.astype(np.float64)
    usable = np.isfinite(rows).all(axis=1)
    confidence = np.where(usable, rows.max(axis=1, initial=0.0), 0.0)
    return confidence, (rows.argmax(axis=1) == labels) & usable
