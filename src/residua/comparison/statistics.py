"""Paired figures of two or more models -> their differences with intervals, and in sentences.

`image_difference`, `sign_flip`: two models predict the same images; interval and test cover other
images of the same kind, not another training. `seed_differences`: several models are trained with
the same seeds; the intervals cover other seeds. Legend: R rows (models), S seeds, U units: images,
or groups of images that belong together, each counted once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from residua.uncertainty.intervals import student_quantile

LEVEL = 0.95
POWER = 0.8
EXACT = 16  # unequal groups, up to which all flips of their signs are counted
FLIPS = 10_000  # random ones of more groups


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its 95 % interval, in the unit of the figures.

    The interval is infinite where a single pair leaves the spread unknown.
    """

    mean: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def detectable(self) -> float:
        """The smallest significant difference: half the width of the interval."""
        return (self.high - self.low) / 2


def image_difference(changes: npt.NDArray[np.float64], *, grouped: bool = False) -> Difference:
    """The difference of two accuracies on the same images.

    changes: accuracy of the second minus that of the first on each unit, [U] in [-1, 1].

    Agresti and Min 2005 ("Simple improved confidence intervals for comparing matched proportions"):
    Wald's interval after adding half a pair to each of the four cells, in [-1, 1]; the mean is the
    plain one. grouped: units are groups: Student's quantile with U - 1 degrees of freedom, as there
    may be few. Raises ValueError without units.
    """
    if changes.ndim != 1 or not len(changes):
        raise ValueError(f"changes {changes.shape}")
    number, total = len(changes) + 2, float(changes.sum())
    variance = (float(np.square(changes).sum()) + 1 - total**2 / number) / number**2
    quantile = student_quantile(len(changes) - 1) if grouped else NormalDist().inv_cdf(0.975)
    half = quantile * math.sqrt(max(0.0, variance))
    centre, mean = total / number, float(changes.mean())
    return Difference(mean, min(mean, max(-1.0, centre - half)), max(mean, min(1.0, centre + half)))


def sign_flip(changes: npt.NDArray[np.float64]) -> float:
    """Two-sided p value of two classifiers being equally good; changes: see `image_difference`.

    Under equality the two are exchangeable within each unit, so every sign of every change is
    equally probable (Fisher 1935; Good 2005, section 3.2): p is the share of flips whose sum is as
    far from 0 as the observed one. Changes of one size, as of single images, make it `mcnemar`.
    Exact for up to EXACT unequal units; else of FLIPS random flips, the same in each call.
    """
    unequal = changes[changes != 0]
    sizes = np.abs(unequal)
    if not len(sizes) or np.ptp(sizes) < 1e-9:
        return mcnemar(int((unequal > 0).sum()), int((unequal < 0).sum()))
    observed, number = abs(float(unequal.sum())) - 1e-9, len(unequal)
    if number <= EXACT:
        flips = (np.arange(2**number)[:, None] >> np.arange(number)) & 1
        return float((np.abs((2 * flips - 1) @ sizes) >= observed).mean())
    random, reached = np.random.default_rng(0), 1
    for _ in range(0, FLIPS, 1000):  # 1000 at once, to limit memory
        signs = 2 * random.integers(0, 2, (1000, number), np.int8) - 1
        reached += int((np.abs(signs @ sizes) >= observed).sum())
    return reached / (1 + FLIPS)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p value of two classifiers being equally good on the same images.

    gained, lost: images that only the second, only the first one classifies correctly. The exact
    test (McNemar 1947): under equality `gained` is binomial with probability 1/2.
    """
    from scipy.stats import binom

    return min(1.0, 2 * float(binom.cdf(min(gained, lost), gained + lost, 0.5)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p values adjusted for their number (Holm 1979): comparing each with 0.05 then claims a
    difference that does not exist in at most 5 % of all comparisons, taken together."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def detectable_difference(images: int, unequal: float) -> float | None:
    """The smallest true difference of two accuracies, in [0, 1], that `mcnemar` would find.

    Found: p < 0.05 with a probability of 0.8 on this many images. unequal: images that only one of
    the two classifies correctly, or the sum of squared changes of groups. Their share is as
    observed, with one image added, or as large as the difference, if that is larger. None: no
    difference would be found.
    """
    share = (unequal + 1) / (images + 2)
    if _power(images, share, 1.0) < POWER:  # even if the second is never worse
        low, high = share, 1.0
        if _power(images, high, 1.0) < POWER:
            return None
    else:
        low, high = 0.0, share
    while high - low > 1e-5:
        middle = (low + high) / 2
        enough = _power(images, max(share, middle), min(1.0, middle / share)) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def _power(images: int, share: float, excess: float) -> float:
    """The probability that `mcnemar` is below 0.05 in favour of the second.

    share: probability that exactly one is correct. excess: of these, gained minus lost.
    """
    from scipy.stats import binom

    low, high = binom.ppf((1e-9, 1 - 1e-9), images, share)
    unequal = np.arange(low, high + 1)
    fewest = binom.isf((1 - LEVEL) / 2, unequal, 0.5) + 1  # of `gained`, to be significant
    found = binom.sf(fewest - 1, unequal, (1 + excess) / 2)
    return float((binom.pmf(unequal, images, share) * found).sum())


def seed_differences(
    values: npt.NDArray[np.float64], resolution: float = 0.0
) -> dict[tuple[int, int], Difference]:
    """Differences of all pairs of rows (i < j); values float64 [R, S], a figure per row and seed.

    resolution: the smallest step of a figure, such as 1 / N of N images, and the least spread that
    is assumed, so that a few equal counts do not make a difference certain.

    A seed is a block: its effect on all rows alike does not count. The spread is the mean square
    of the residuals of rows and seeds, with (R - 1)(S - 1) degrees of freedom, and the intervals
    hold jointly, for all pairs at once (Tukey's range); with two rows this is the paired t-test.
    Raises ValueError unless there are two rows or more and a seed.
    """
    rows, seeds = values.shape
    if rows < 2 or seeds < 1:
        raise ValueError(f"{rows} rows, {seeds} seeds")
    half = math.inf
    if seeds > 1:
        residuals = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
        freedom = (rows - 1) * (seeds - 1)
        spread = max(resolution, math.sqrt(float((residuals**2).sum()) / freedom))
        half = _studentized_range(rows, freedom) * spread / math.sqrt(seeds)
    means = values.mean(axis=1)
    differences = {}
    for first, second in combinations(range(rows), 2):
        mean = float(means[second] - means[first])
        differences[first, second] = Difference(mean, mean - half, mean + half)
    return differences


@cache  # slow
def _studentized_range(rows: int, freedom: int) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(LEVEL, rows, freedom))


def difference_text(
    first: str, second: str, figure: str, difference: Difference, unit: str = "points"
) -> str:
    """One sentence about a difference, no stronger than its interval.

    first, second: names of the rows; figure: the compared figure, such as "test accuracy". unit
    "points": shares are given as percentage points; "" for a plain number.
    """
    scale = 100.0 if unit == "points" else 1.0
    unit = f" {unit}" if unit else ""
    mean = f"{scale * difference.mean:+.2f}{unit}"
    interval = f"95 % CI {scale * difference.low:+.2f} to {scale * difference.high:+.2f}"
    if not math.isfinite(difference.low):
        return (
            f"{figure}: {second} {mean} against {first}, from one seed: the spread is unknown; "
            "run more seeds."
        )
    if not difference.significant:
        return (
            f"{figure}: no significant difference between {first} and {second} ({mean}, "
            f"{interval}); the smallest detectable one is "
            f"{scale * difference.detectable:.2f}{unit}."
        )
    more = "higher" if difference.mean > 0 else "lower"
    size = f"{scale * abs(difference.mean):.2f}{unit}"
    return f"{figure}: {second} is {size} {more} than {first} ({interval})."
