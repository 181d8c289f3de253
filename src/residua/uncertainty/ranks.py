"""Values -> their ranks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def average_ranks(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Ranks from 1 of values [N], float64 [N]; equal values get their mean rank.

    scipy.stats.rankdata does the same, but takes half a second to import.
    """
    _, member, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[member])
