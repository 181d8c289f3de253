"""Probabilities and labels -> how far the probabilities can be trusted: error, bins, Brier score.

The probability of the predicted class is compared with how often the prediction is right. Legend: N
images, K classes, B bins, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError
from residua.uncertainty.intervals import clustered_interval, design_effect
from residua.uncertainty.softmax import check_labels

Floats = npt.NDArray[np.float64]

BINS = 15
FEWEST_ERRORS = 5  # with fewer, calibration errors and their intervals are near 0 by chance
FEWEST_IMAGES = 40  # with fewer, whether the interval holds was not measured
_IMAGES_PER_BIN = 25  # fewer bins where there are few images; near-copies count once
_CANDIDATES = np.linspace(0, 1, 1001)  # errors that an interval is searched among
_LEAST_VARIANCE = 1e-4  # of a prediction whose accuracy would be 0 or 1


@dataclass(frozen=True)
class Bin:
    """Images of similar confidence: mean confidence, accuracy with its 95 % interval, number."""

    confidence: float
    accuracy: float
    interval: tuple[float, float]
    images: int


@dataclass(frozen=True)
class Calibration:
    """How far the probability of the predicted class is from the share of right predictions.

    error: calibration error in [0, 1], the root mean square over bins, debiased: about 0 for
    calibrated probabilities. interval: its 95 % interval, (low, high); None for a
    `reason`.
    plain_error: the usual mean absolute error over bins, above 0 for calibrated probabilities too.
    brier: mean squared distance of the probabilities from the label, in [0, 2].
    confidence: mean probability of the predicted class. accuracy: share of right predictions.
    bins: of equal numbers of images, by increasing confidence. images: evaluated images.
    groups: of these, near-copies counting once. wrong_groups: with a wrong prediction.
    """

    error: float
    interval: tuple[float, float] | None
    plain_error: float
    brier: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]
    images: int
    groups: int
    wrong_groups: int

    @property
    def errors(self) -> int:
        """The number of wrong predictions."""
        return round((1 - self.accuracy) * self.images)

    @property
    def is_measured(self) -> bool:
        """Whether images and wrong predictions suffice for `error` and `interval` to mean much."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why `is_measured` is false, "" if it is true."""
        if self.wrong_groups < FEWEST_ERRORS:
            reason = f"too few errors (at least {FEWEST_ERRORS} are needed"
        elif self.groups < FEWEST_IMAGES:
            reason = f"too few images (at least {FEWEST_IMAGES} are needed"
        else:
            return ""
        copies = "; near-duplicates and groups count once" if self.groups < self.images else ""
        return f"{reason}{copies})"

    def to_json(self) -> dict[str, object]:
        """Plain data that is valid JSON, with the names of the fields, `is_measured`, `reason`."""
        return asdict(self) | {"is_measured": self.is_measured, "reason": self.reason}


class _Sums(NamedTuple):
    """Sums over the groups of each bin; [..., B].

    gap: of confidence minus correctness. images, groups: numbers. gap2, images2, product: of the
    squares and products of the sums of a group.
    """

    gap: Floats
    images: Floats
    groups: Floats
    gap2: Floats
    images2: Floats
    product: Floats


def calibration_of(
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer] | None = None,
) -> Calibration:
    """The calibration of probabilities float [N, K] against labels int [N] in [0, K).

    groups: int [N], of near-copies. Rows that are not finite are left out.

    Bins have equal numbers of images (Nguyen and O'Connor 2015). The square of each bin's gap is
    lessened by its variance, which makes their mean unbiased (Broecker 2012; Kumar et al. 2019,
    section 4; with groups, by the variance of their sums). Interval: see `_interval`. plain_error:
    Naeini et al. 2015.
    Raises ResiduaError if no row is finite, ValueError if shapes or labels do not fit.
    """
    check_labels(probabilities, labels)
    if groups is not None and groups.shape != labels.shape:
        raise ValueError(f"groups {groups.shape}, labels {labels.shape}")
    usable = np.isfinite(probabilities).all(axis=1)
    if not usable.any():
        raise ResiduaError("No image has finite probabilities: calibration cannot be measured.")
    rows, labels = probabilities[usable].astype(np.float64), labels[usable]
    group = np.unique(
        np.arange(len(rows)) if groups is None else groups[usable], return_inverse=True
    )[1]
    confidence, correct = rows.max(axis=1), rows.argmax(axis=1) == labels
    bins = _bins(confidence, int(group.max()) + 1)
    terms = _group_terms(confidence, correct, bins, group)
    sums = _Sums(*(term.sum(axis=0) for term in terms))
    rows_of_bins = _rows(confidence, correct, bins, group)
    calibration = Calibration(
        error=_root(float(_mean_square(sums))),
        interval=None,
        plain_error=float(np.abs(sums.gap).sum() / sums.images.sum()),
        brier=brier_score(rows, labels),
        confidence=float(confidence.mean()),
        accuracy=float(correct.mean()),
        bins=rows_of_bins,
        images=len(rows),
        groups=len(terms.gap),
        wrong_groups=len(np.unique(group[~correct])),
    )
    if not calibration.is_measured:
        return calibration
    effect = design_effect(correct, group) if calibration.groups < calibration.images else 1.0
    interval = _interval(calibration.error, rows_of_bins, effect)
    return replace(calibration, interval=interval)


def brier_score(probabilities: Floats, labels: npt.NDArray[np.integer]) -> float:
    """The mean squared distance of probabilities [N, K] from labels [N], in [0, 2]; N >= 1."""
    true = probabilities[np.arange(len(probabilities)), labels]
    return float((np.square(probabilities).sum(axis=1) - 2 * true + 1).mean())


def _bins(confidence: Floats, groups: int) -> npt.NDArray[np.int64]:
    """The bin of each image [N]: equal numbers of images, equal confidences together."""
    count = min(BINS, max(1, groups // _IMAGES_PER_BIN))
    edges = np.quantile(confidence, np.arange(1, count) / count)
    return np.unique(np.searchsorted(edges, confidence, side="right"), return_inverse=True)[1]


def _rows(
    confidence: Floats,
    correct: npt.NDArray[np.bool_],
    bins: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
) -> tuple[Bin, ...]:
    rows = []
    for number in range(bins.max() + 1):
        here = bins == number
        share, images = float(correct[here].mean()), int(here.sum())
        interval = clustered_interval(correct[here], group[here])
        rows.append(Bin(float(confidence[here].mean()), share, interval, images))
    return tuple(rows)


def _group_terms(
    confidence: Floats,
    correct: npt.NDArray[np.bool_],
    bins: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
) -> _Sums:
    """The sums of each group in each bin; [G, B]."""
    shape = int(group.max()) + 1, int(bins.max()) + 1
    cells = group * shape[1] + bins

    def summed(values: Floats) -> Floats:
        return np.bincount(cells, values, shape[0] * shape[1]).astype(np.float64).reshape(shape)

    gap, images = summed(confidence - correct), summed(np.ones(len(confidence)))
    return _Sums(gap, images, (images > 0).astype(np.float64), gap**2, images**2, gap * images)


def _mean_square(sums: _Sums) -> Floats:
    """The mean over the images of the squared gap of their bin, less its variance, [...]."""
    images = np.maximum(sums.images, 1)
    mean = sums.gap / images
    spread = sums.gap2 - 2 * mean * sums.product + mean**2 * sums.images2
    spread = spread * sums.groups / np.maximum(sums.groups - 1, 1)
    spread = np.where(sums.groups > 1, np.maximum(spread, 0), sums.gap**2)  # unknown of one group
    return np.asarray(((sums.gap**2 - spread) / images).sum(axis=-1) / sums.images.sum(axis=-1))


def _root(square: float) -> float:
    return math.sqrt(min(1.0, max(0.0, square)))


def _interval(error: float, bins: Sequence[Bin], effect: float) -> tuple[float, float]:
    """The errors at which a two-sided test of 5 % does not reject the gaps of the bins.

    effect: images that are worth one, see `design_effect`. A candidate error has gaps in the
    proportions of those that were seen, and the variances of the accuracies that follow: those that
    were seen are too small where errors are rare. The sum of squared gaps is then about a multiple
    of a noncentral chi-squared variable, with the same mean and variance; the latter with the third
    and fourth cumulants of the numbers of errors, which are not small where errors are rare.
    """
    images, confidence, accuracy = (
        np.array(column, np.float64)
        for column in zip(*((b.images, b.confidence, b.accuracy) for b in bins), strict=True)
    )
    gap, total = confidence - accuracy, images.sum()
    seen = float((images * gap**2).sum())
    shape = gap / math.sqrt(seen / total) if seen > 0 else np.ones(len(bins))
    gaps = _CANDIDATES[:, None] * shape
    expected = np.clip(confidence - gaps, 0, 1)
    variance = np.maximum(effect * expected * (1 - expected), _LEAST_VARIANCE)
    excess, noise = total * _CANDIDATES**2, variance.sum(axis=1)
    third = effect * variance * (2 * expected - 1)
    fourth = effect**2 * variance * (1 - 6 * expected * (1 - expected)) / images
    spread = variance**2 + 2 * gaps * (images * gaps * variance + third) + fourth / 2
    scale = spread.sum(axis=1) / (noise + 2 * excess)
    freedom, noncentrality = noise / scale, excess / scale
    limit = NormalDist().inv_cdf(0.975)
    low = _CANDIDATES[_normal_of(seen / scale, freedom, noncentrality) <= limit]
    seen = max(seen, float(noise[0]))  # gaps that are smaller than by chance do not exclude 0
    high = _CANDIDATES[_normal_of(seen / scale, freedom, noncentrality) >= -limit]
    return min([error, *low[:1].tolist()]), max([error, *high[-1:].tolist()])


def _normal_of(value: Floats, freedom: Floats, noncentrality: Floats) -> Floats:
    """The standard normal quantile that a noncentral chi-squared value is at (Sankaran 1963)."""
    mean, twice = freedom + noncentrality, freedom + 2 * noncentrality
    power = 1 - 2 / 3 * mean * (freedom + 3 * noncentrality) / twice**2
    spread = twice / mean**2
    bend = (power - 1) * (1 - 3 * power)
    centre = 1 + power * spread * (power - 1 - (2 - power) * bend * spread / 2)
    width = power * np.sqrt(2 * spread) * (1 + bend * spread / 2)
    return np.asarray(((value / mean) ** power - centre) / width)
