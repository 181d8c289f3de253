"""Scores of calibration images -> the level that a new score exceeds as rarely as stated."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_ROUNDING = 1e-9  # of sums of weights


def conformal_quantile(
    scores: npt.NDArray[np.floating], groups: npt.NDArray[np.integer] | None, coverage: float
) -> float:
    """The smallest score that a new image's score exceeds with probability <= 1 - coverage.

    scores: float [N], exchangeable with the new one; groups: int [N], or None if each image is a
    group. Infinite if there are too few groups: G / (G + 1) must be at least `coverage`.

    Split conformal prediction (Vovk et al. 2005); with groups, that of hierarchical data (Lee,
    Barber and Willett 2023, "HCP"): each group has weight 1 / (G + 1), shared equally by its
    images, and infinity has the last. Holds for an image of a new group, however alike the images
    of a group are.
    """
    if len(scores) == 0:
        return math.inf
    if groups is None:
        weights = np.full(len(scores), 1 / (len(scores) + 1))
    else:
        _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        weights = 1 / (sizes[group] * (len(sizes) + 1))
    order = np.argsort(scores, kind="stable")
    index = int(np.searchsorted(np.cumsum(weights[order]), coverage - _ROUNDING))
    return float(scores[order[index]]) if index < len(scores) else math.inf
