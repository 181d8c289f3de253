"""Right and wrong predictions -> intervals of their accuracy.

`groups` are images that are no independent evidence, such as near-copies or frames of one video:
the intervals count them by what they add. Legend: N images, G groups.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError

Integers = npt.NDArray[np.integer]


def wilson_interval(share: float, total: float, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share in [0, 1] of `total` trials, (low, high) in [0, 1].

    Wilson 1927, without continuity correction. The share need not be a ratio of whole numbers, nor
    `total` a whole number. Raises ResiduaError if `total` is 0, ValueError out of range.
    """
    if total == 0:
        raise ResiduaError("There are no images to evaluate, so there is no accuracy.")
    if not 0 <= share <= 1 or not total > 0 or not 0 < confidence < 1:
        raise ValueError(f"wilson_interval({share}, {total}, {confidence}): out of range")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The bounds at shares 0 and 1 are exact, where rounding would give 0.9999999999999999.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def clustered_interval(correct: npt.NDArray[np.bool_], groups: Integers) -> tuple[float, float]:
    """The 95 % interval of the accuracy where images of a group are alike; (low, high) in [0, 1].

    correct: bool [N]; groups: int [N], equal for images of one group.

    Wilson's interval at the effective sample size N / deff, deff = 1 + (sum of squared group sizes
    / N - 1) rho (Kish 1965, section 5.4; Korn and Graubard 1998 for small samples: Student's t of
    G - 1 degrees of freedom). rho is the intraclass correlation by analysis of variance, in [0, 1];
    1 where nothing was wrong, or right, so that nothing is known of it.
    Raises ResiduaError without images, ValueError for shapes that differ.
    """
    if correct.shape != groups.shape or correct.ndim != 1:
        raise ValueError(f"correct {correct.shape}, groups {groups.shape}")
    images = len(correct)
    if images == 0:
        return wilson_interval(0.0, 0)
    share, number = float(correct.mean()), len(np.unique(groups))
    if number == images:
        return wilson_interval(share, images)
    narrowing = (NormalDist().inv_cdf(0.975) / student_quantile(number - 1)) ** 2
    return wilson_interval(share, images / design_effect(correct, groups) * narrowing)


def design_effect(correct: npt.NDArray[np.bool_], groups: Integers) -> float:
    """The number of images with such groups that are worth one independent image; 1 or more.

    correct, groups: see `clustered_interval`.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=correct) / sizes
    excess = float(np.square(sizes).sum()) / len(correct) - 1
    return 1 + excess * _intraclass_correlation(float(correct.mean()), means, sizes)


def _intraclass_correlation(
    share: float, means: npt.NDArray[np.float64], sizes: npt.NDArray[np.integer]
) -> float:
    """Of right and wrong within groups, in [0, 1]: the ANOVA estimator (Donner 1986)."""
    images, groups = int(sizes.sum()), len(sizes)
    within = float((sizes * means * (1 - means)).sum())
    if groups == 1 or images == groups or share in (0, 1):
        return 1.0
    between = float((sizes * np.square(means - share)).sum()) / (groups - 1)
    within /= images - groups
    size = (images - float(np.square(sizes).sum()) / images) / (groups - 1)
    return min(1.0, max(0.0, (between - within) / (between + (size - 1) * within)))


def student_quantile(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t with at least one degree of freedom."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(max(1, freedom), 0.975))
