"""Probabilities and labels -> how far the probabilities can be trusted: error, bins, Brier score.

The probability of the predicted class is compared with how often the prediction is right. Legend: N
images, K classes, B bins, G groups, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError
from residua.uncertainty.intervals import clustered_interval, group_resamples
from residua.uncertainty.softmax import check_labels

Floats = npt.NDArray[np.float64]

BINS = 15
FEWEST_ERRORS = 5  # with fewer, calibration errors and their intervals are near 0 by chance
FEWEST_IMAGES = 100  # with fewer, the interval contains the true error too rarely
_IMAGES_PER_BIN = 25  # fewer bins where there are few images
_RESAMPLES = 1000
_BLOCK = 100  # resamples at a time, which bounds memory


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
    calibrated probabilities. interval: its 95 % bootstrap interval, (low, high).
    plain_error: the usual mean absolute error over bins, above 0 for calibrated probabilities too.
    brier: mean squared distance of the probabilities from the label, in [0, 2].
    confidence: mean probability of the predicted class. accuracy: share of right predictions.
    bins: of equal numbers of images, by increasing confidence. images: evaluated images.
    """

    error: float
    interval: tuple[float, float]
    plain_error: float
    brier: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]
    images: int

    @property
    def errors(self) -> int:
        """The number of wrong predictions."""
        return round((1 - self.accuracy) * self.images)

    @property
    def is_measured(self) -> bool:
        """Whether images and wrong predictions suffice for `error` and `interval` to mean much."""
        return self.images >= FEWEST_IMAGES and self.errors >= FEWEST_ERRORS

    def to_json(self) -> dict[str, object]:
        """Plain data that is valid JSON, with the names of the fields and of `is_measured`."""
        return asdict(self) | {"is_measured": self.is_measured}


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
    seed: int = 0,
) -> Calibration:
    """The calibration of probabilities float [N, K] against labels int [N] in [0, K).

    groups: int [N], of near-copies, resampled as a whole. Rows that are not finite are left out.

    Bins have equal numbers of images (Nguyen and O'Connor 2015). The square of each bin's gap is
    lessened by its variance, which makes their mean unbiased (Broecker 2012; Kumar et al. 2019,
    section 4; with groups, by the variance of their sums). Interval: basic bootstrap of this mean
    with the bins fixed. plain_error: Naeini et al. 2015.
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
    bins = _bins(confidence)
    terms = _group_terms(confidence, correct, bins, group)
    sums = _Sums(*(term.sum(axis=0) for term in terms))
    square, biased = float(_mean_square(sums)), float(_mean_square(sums, debiased=False))
    low, high = np.quantile(_resampled(terms, seed), [0.025, 0.975]).tolist()
    error = _root(square)
    interval = min(error, _root(square - high + biased)), max(error, _root(square - low + biased))
    return Calibration(
        error=error,
        interval=interval,
        plain_error=float(np.abs(sums.gap).sum() / sums.images.sum()),
        brier=brier_score(rows, labels),
        confidence=float(confidence.mean()),
        accuracy=float(correct.mean()),
        bins=_rows(confidence, correct, bins, group),
        images=len(rows),
    )


def brier_score(probabilities: Floats, labels: npt.NDArray[np.integer]) -> float:
    """The mean squared distance of probabilities [N, K] from labels [N], in [0, 2]; N >= 1."""
    true = probabilities[np.arange(len(probabilities)), labels]
    return float((np.square(probabilities).sum(axis=1) - 2 * true + 1).mean())


def _bins(confidence: Floats) -> npt.NDArray[np.int64]:
    """The bin of each image [N]: equal numbers of images, equal confidences together."""
    count = min(BINS, max(1, len(confidence) // _IMAGES_PER_BIN))
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


def _mean_square(sums: _Sums, debiased: bool = True) -> Floats:
    """The mean over the images of the squared gap of their bin, [...]."""
    images = np.maximum(sums.images, 1)
    mean = sums.gap / images
    spread = sums.gap2 - 2 * mean * sums.product + mean**2 * sums.images2
    spread = spread * sums.groups / np.maximum(sums.groups - 1, 1)
    spread = np.where(sums.groups > 1, np.maximum(spread, 0), sums.gap**2)  # unknown of one group
    squares = sums.gap**2 - spread if debiased else sums.gap**2
    return np.asarray((squares / images).sum(axis=-1) / sums.images.sum(axis=-1))


def _root(square: float) -> float:
    return math.sqrt(min(1.0, max(0.0, square)))


def _resampled(terms: _Sums, seed: int) -> Floats:
    """The debiased mean square of R resamples of the groups, [R]."""
    squares = []
    for start in range(0, _RESAMPLES, _BLOCK):
        weights = group_resamples(len(terms.gap), np.arange(start, start + _BLOCK), seed)
        squares.append(_mean_square(_Sums(*(weights @ term for term in terms))))
    return np.concatenate(squares)
