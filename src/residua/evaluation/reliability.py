"""Logits, labels, and what is stored with the weights -> how far probabilities carry.

Where temperature and thresholds were fitted on the evaluated images themselves, each fifth of these
is evaluated with those of the other four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.evaluation.metrics import group_numbers
from residua.uncertainty.calibration import Calibration, calibration_of
from residua.uncertainty.intervals import clustered_interval
from residua.uncertainty.prediction_sets import (
    COVERAGE,
    PredictionSets,
    Selective,
    accuracy_against_coverage,
    confidence_threshold,
)
from residua.uncertainty.record import Uncertainty
from residua.uncertainty.softmax import softmax
from residua.uncertainty.temperature import fit_temperature, group_folds

Probabilities = npt.NDArray[np.float64]

WANTED = (0.9, 0.95, 0.99)  # accuracies that a threshold of confidence is searched for
FOLDS = 5
LEAST = 20  # images, below which a calibration error means nothing


@dataclass(frozen=True)
class SetSummary:
    """Prediction sets on the evaluated images.

    coverage: as stated. covered: share of images whose set contains the right class.
    interval: 95 %, clustered. size: classes in a set, on average. single: share of sets of one
    class.
    """

    coverage: float
    covered: float
    interval: tuple[float, float]
    size: float
    single: float


@dataclass(frozen=True)
class Threshold:
    """A confidence from which on predictions have an accuracy, with 95 % certainty.

    share: of the images that are predicted with it.
    """

    accuracy: float
    confidence: float
    share: float


@dataclass(frozen=True)
class Reliability:
    """How far probabilities carry, on the evaluated images.

    temperature: that the logits are divided by. cross_fitted: whether it was fitted on these
    images, see above. before, after: without and with the temperature. sets: None where the data
    are too few. thresholds: those that can be shown. selective: accuracy against coverage.
    """

    temperature: float
    cross_fitted: bool
    before: Calibration
    after: Calibration
    sets: SetSummary | None
    thresholds: tuple[Threshold, ...]
    selective: Selective

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the curve."""
        return {
            "temperature": self.temperature,
            "cross_fitted": self.cross_fitted,
            "calibration_before": self.before.to_json(),
            "calibration": self.after.to_json(),
            "prediction_sets": None if self.sets is None else asdict(self.sets),
            "thresholds": [asdict(threshold) for threshold in self.thresholds],
        }


def reliability_of(
    logits: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
    groups: Sequence[str],
    uncertainty: Uncertainty | None,
    *,
    is_own: bool,
) -> Reliability | None:
    """Of calibrated logits [N, K] and labels [N]; None of fewer than LEAST usable images.

    groups: see `compute_metrics`. uncertainty: of the weights. is_own: whether it was fitted on
    these images.
    """
    usable = np.isfinite(logits).all(axis=1)
    if usable.sum() < LEAST:
        return None
    logits, labels = logits[usable], labels[usable]
    numbers = group_numbers(groups)
    groups_of = np.arange(len(labels)) if numbers is None else numbers[usable]
    temperature = 1.0 if uncertainty is None else uncertainty.temperature
    before, probabilities = softmax(logits * temperature), softmax(logits)
    members, is_own = None, is_own and uncertainty is not None
    if is_own:
        probabilities, members = _cross_fitted(logits * temperature, labels, groups_of, temperature)
    elif (sets := uncertainty and uncertainty.sets) and sets.highest_coverage >= COVERAGE:
        members = sets.sets(probabilities, COVERAGE)
    return Reliability(
        temperature,
        is_own,
        calibration_of(before, labels, groups_of),
        calibration_of(probabilities, labels, groups_of),
        None if members is None else _summary(members, labels, groups_of),
        _thresholds(probabilities, labels, groups_of),
        accuracy_against_coverage(probabilities, labels),
    )


def _cross_fitted(
    logits: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    temperature: float,
) -> tuple[Probabilities, npt.NDArray[np.bool_] | None]:
    """Probabilities [N, K] and set members [N, K], each fifth by what was fitted on the others."""
    fold = group_folds(groups, FOLDS, seed=0)
    probabilities = np.zeros(logits.shape)
    members: npt.NDArray[np.bool_] | None = np.zeros(logits.shape, np.bool_)
    for number in np.unique(fold):
        here = fold == number
        fitted = fit_temperature(logits[~here], labels[~here]) if temperature != 1 else 1.0
        probabilities[here] = softmax(logits[here] / fitted)
        sets = PredictionSets.fit(softmax(logits[~here] / fitted), labels[~here], groups[~here])
        if sets.highest_coverage < COVERAGE:
            members = None
        elif members is not None:
            members[here] = sets.sets(probabilities[here], COVERAGE)
    return probabilities, members


def _summary(
    members: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> SetSummary:
    covered = members[np.arange(len(labels)), labels]
    sizes = members.sum(axis=1)
    return SetSummary(
        COVERAGE,
        float(covered.mean()),
        clustered_interval(covered, groups),
        float(sizes.mean()),
        float((sizes == 1).mean()),
    )


def _thresholds(
    probabilities: Probabilities, labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> tuple[Threshold, ...]:
    confidence, found = probabilities.max(axis=1), []
    for accuracy in WANTED:
        lowest = confidence_threshold(probabilities, labels, accuracy, groups)
        if lowest is not None:
            share = float((confidence >= lowest).mean())
            found.append(Threshold(accuracy, lowest, share))
    return tuple(found)
