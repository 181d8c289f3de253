"""Figures of two or more runs, paired -> how much they differ, how surely, and in which words.

Two kinds of pairs. `of_images`: two networks name the same images; the interval says what other
images of the same kind would give, and nothing of another training. `of_seeds`: several networks
are trained with the same seeds; the interval says what other seeds would give.
Legend: R rows (networks), S seeds, N images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its 95 % interval, in the unit of what was compared.

    The interval is infinite where a single pair says nothing of the spread.
    """

    mean: float
    low: float
    high: float

    @property
    def seen(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    @property
    def smallest(self) -> float:
        """The smallest difference that could have been seen: half the interval's width."""
        return (self.high - self.low) / 2


def of_images(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Difference:
    """Of two accuracies on the same N images; bool [N] each: named rightly or not.

    Agresti and Min 2005 ("Simple improved confidence intervals for comparing matched proportions"):
    Wald's interval after half a pair was added to each of the four cells, in [-1, 1]; the mean is
    the plain one. Raises ValueError without images, or if the arrays do not match.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"right answers {first.shape} and {second.shape}")
    number = len(first) + 2
    gained = float((second & ~first).sum()) + 0.5
    lost = float((first & ~second).sum()) + 0.5
    centre = (gained - lost) / number
    variance = (gained + lost - (gained - lost) ** 2 / number) / number**2
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(max(0.0, variance))
    mean = float(second.mean() - first.mean())
    return Difference(mean, min(mean, max(-1.0, centre - half)), max(mean, min(1.0, centre + half)))


def of_seeds(
    values: npt.NDArray[np.float64], resolution: float = 0.0
) -> dict[tuple[int, int], Difference]:
    """Of every pair of rows (i < j), from float64 [R, S]: one figure of each row and seed.

    resolution: the smallest step of a figure, such as 1 / N of N images; no spread is taken for
    smaller, so that a few equal counts do not look like certainty.

    A seed is a block: what it does to all rows alike does not count. The spread is the mean square
    of what rows and seeds together leave unexplained, with (R - 1)(S - 1) degrees of freedom, and
    the intervals hold jointly, for all pairs at once (Tukey's range); with two rows this is the
    paired t-test. Raises ValueError unless there are two rows or more and a seed.
    """
    rows, seeds = values.shape
    if rows < 2 or seeds < 1:
        raise ValueError(f"{rows} rows, {seeds} seeds")
    half = math.inf
    if seeds > 1:
        rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
        freedom = (rows - 1) * (seeds - 1)
        spread = max(resolution, math.sqrt(float((rest**2).sum()) / freedom))
        half = _range(rows, freedom) * spread / math.sqrt(seeds)
    means = values.mean(axis=1)
    found = {}
    for first in range(rows):
        for second in range(first + 1, rows):
            mean = float(means[second] - means[first])
            found[first, second] = Difference(mean, mean - half, mean + half)
    return found


@cache
def _range(rows: int, freedom: int) -> float:
    """Tukey's studentised range at LEVEL, which takes long to find and is asked for again."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(LEVEL, rows, freedom))


def in_words(first: str, second: str, figure: str, found: Difference, unit: str = "points") -> str:
    """One sentence about a difference, no stronger than its interval.

    first, second: names of the rows; figure: what was compared, such as "test accuracy". unit
    "points": shares are said as hundredths of the whole; "" for a pure number.
    """
    scale = 100.0 if unit == "points" else 1.0
    unit = f" {unit}" if unit else ""
    interval = f"{scale * found.low:+.2f} to {scale * found.high:+.2f}"
    if not math.isfinite(found.low):
        return (
            f"{figure}: {second} {scale * found.mean:+.2f}{unit} against {first}, one seed, which "
            "says nothing of the spread; give more seeds."
        )
    if not found.seen:
        return (
            f"{figure}: no difference seen between {first} and {second} "
            f"({scale * found.mean:+.2f}{unit}, 95 % interval {interval}); the smallest that could "
            f"have been seen is {scale * found.smallest:.2f}{unit}."
        )
    more = "higher" if found.mean > 0 else "lower"
    return (
        f"{figure}: {second} is {scale * abs(found.mean):.2f}{unit} {more} than {first} "
        f"(95 % interval {interval})."
    )
