"""Values -> their ranks; scores of two kinds of images -> the area under the ROC curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def average_ranks(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Ranks from 1 of values [N], float64 [N]; equal values get their mean rank.

    scipy.stats.rankdata does the same, but takes half a second to import.
    """
    _, member, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[member])


def area_under_roc(
    scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]
) -> tuple[float, npt.NDArray[np.float64]]:
    """The share of pairs of a positive and a negative image in order, ties counted half; and its
    first-order change by each image, [N] (DeLong et al. 1988). bool [N], both occur."""
    inside, outside = np.sort(scores[positive]), np.sort(scores[~positive])
    placements = np.empty(len(scores))
    placements[positive] = _share_below(scores[positive], outside)
    placements[~positive] = 1 - _share_below(scores[~positive], inside)
    area = float(placements[positive].mean())
    counts = np.where(positive, len(inside), len(outside))
    return area, (placements - area) / counts


def _share_below(
    values: npt.NDArray[np.float64], ordered: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The share of `ordered` below each value, equal ones counted half."""
    first, last = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.asarray((first + last) / (2 * len(ordered)))
