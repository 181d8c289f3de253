"""Cross-validated probabilities and labels -> the share of wrong labels, with its interval.

A model's own errors become rare where it is confident; wrong labels do not, as the model never saw
them. So the disagreement that remains where the model is most confident is due to wrong labels.
Legend: N images, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_BINS = 40  # of equal numbers of images, by confidence
_LOWEST, _HIGHEST, _COUNT = 3e-4, 0.6, 150  # shares of wrong labels that are tried, beside 0
_LEVELS = -8.0, 6.0  # log-odds of the model's error at median confidence
_SCALES = math.log(0.1), math.log(0.8)  # of the log of the confidence at which these fall by 1
_GRID, _REFINEMENTS = (29, 8), 4  # levels and scales that are tried, in each refinement
_DROP = 1.92  # of the log-likelihood at the ends of the 95 % interval: half of chi2's 3.84


def wrong_share(
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating],
) -> tuple[float, tuple[float, float]]:
    """The maximum-likelihood share of wrong labels, and its 95 % interval; all in [0, 0.6].

    probabilities: float [N, K] of images that the model was not fitted on; labels: int [N].
    weights: float [N], how many images each counts as: 1, or less for copies.

    The prediction disagrees with the label with probability s + (1 - s) / (1 + exp(b c - a)):
    s is the share of wrong labels, c the confidence, log of the best over the second best
    probability. It is the psychometric function with a lapse rate (Wichmann and Hill 2001, "The
    psychometric function: I", equation 1). The interval is that of the profile likelihood. b is
    at least 1.25: a strongly regularised model, whose errors fall with its confidence at least so
    fast (benchmarks/results/audit-labels.txt). Otherwise s could not be identified.
    """
    disagrees = probabilities.argmax(axis=1) != labels
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T.astype(np.float64)
    confidence = np.log(np.maximum(first, 1e-12) / np.maximum(second, 1e-12))
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, min(_BINS, len(order)))
    centres = np.array([confidence[rows].mean() for rows in bins]) - np.median(confidence)
    total = np.array([weights[rows].sum() for rows in bins])
    wrong = np.array([weights[rows][disagrees[rows]].sum() for rows in bins])
    lowest = min(_LOWEST, 1 / total.sum())
    shares = np.append(0.0, np.geomspace(lowest, _HIGHEST, _COUNT))
    profile = np.array([_likelihood(share, centres, total, wrong) for share in shares])
    inside = shares[profile >= profile.max() - _DROP]
    return float(shares[profile.argmax()]), (float(inside[0]), float(inside[-1]))


def _likelihood(
    share: float,
    confidence: npt.NDArray[np.float64],
    total: npt.NDArray[np.float64],
    wrong: npt.NDArray[np.float64],
) -> float:
    """The highest log-likelihood at this share, over the model's errors; by refined grids."""
    (low, high), (small, large) = _LEVELS, _SCALES
    best = -math.inf
    for _ in range(_REFINEMENTS):
        levels, scales = np.linspace(low, high, _GRID[0]), np.linspace(small, large, _GRID[1])
        odds = levels[:, None, None] - confidence / np.exp(scales)[:, None]
        errors = 1 / (1 + np.exp(np.minimum(-odds, 700)))
        disagree = np.clip(share + (1 - share) * errors, 1e-9, 1 - 1e-9)
        fit = np.log(disagree) @ wrong + np.log1p(-disagree) @ (total - wrong)
        level, scale = np.unravel_index(int(fit.argmax()), fit.shape)
        best = max(best, float(fit[level, scale]))
        step, width = levels[1] - levels[0], scales[1] - scales[0]
        low, high = levels[level] - step, levels[level] + step
        small = max(_SCALES[0], scales[scale] - width)
        large = min(_SCALES[1], scales[scale] + width)
    return best
