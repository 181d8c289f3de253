"""Logits and labels -> the temperature that calibrates them, and probabilities cross-fitted by it.

Legend: N images, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from residua.data.random import shuffled
from residua.uncertainty.softmax import check_labels, softmax

LOWEST, HIGHEST = 0.05, 20.0
FOLDS = 5
_GRID = 25  # temperatures that are tried first, and in each refinement
_REFINEMENTS = 3
_MOST_NUMBERS = 2_000_000  # logits that are used, of evenly spaced images: enough for one number


def fit_temperature(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """The temperature T in [0.05, 20]; probabilities are softmax(logits / T).

    logits: float [N, K]; labels: int [N] in [0, K). Rows that are not finite are ignored; without
    others, or with one class, T is 1.

    Temperature scaling (Guo et al. 2017, section 4.2) with two safeguards, each worth one image:
    - An image of median margin between its two best classes counts as half an error, in the spirit
      of the rule of succession (Platt 1999, section 2.2). So if all images are right, about half
      an error among them is still expected, and T does not approach 0.
    - Each label is unrelated to its image with probability 1 / (N + 1). So the few images far
      from all others, with extreme logits and a wrong class, do not decide T alone.
    Raises ValueError if shapes or labels do not fit.
    """
    check_labels(logits, labels)
    rows = np.flatnonzero(np.isfinite(logits).all(axis=1))
    classes = logits.shape[1]
    if len(rows) == 0 or classes < 2:
        return 1.0
    rows = rows[:: math.ceil(len(rows) * classes / _MOST_NUMBERS)]
    values = logits[rows].astype(np.float64)
    second, first = np.partition(values, classes - 2, axis=1)[:, -2:].T
    half_error = float(np.median(first - second)) / 2
    unrelated = 1 / (len(rows) + 1)
    low, high = math.log(LOWEST), math.log(HIGHEST)
    best = 0.0
    for _ in range(_REFINEMENTS):
        tried = np.linspace(low, high, _GRID)
        losses = []
        for temperature in np.exp(tried):
            right = softmax(values / temperature)[np.arange(len(rows)), labels[rows]]
            likelihood = (1 - unrelated) * right + unrelated / classes
            losses.append(half_error / temperature - np.log(likelihood).sum())
        best = float(tried[int(np.argmin(losses))])
        step = (high - low) / (_GRID - 1)
        low, high = max(low, best - step), min(high, best + step)
    return min(HIGHEST, max(LOWEST, math.exp(best)))


def cross_fitted(
    logits: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    seed: int = 0,
    groups: npt.NDArray[np.integer] | None = None,
) -> npt.NDArray[np.float64]:
    """Probabilities float64 [N, K], each by a temperature fitted on the other folds.

    So figures of these probabilities against `labels` are not optimistic.
    groups: int [N]; images of one group share a fold. Rows that are not finite give NaN.
    """
    check_labels(logits, labels)
    fold = group_folds(np.arange(len(labels)) if groups is None else groups, FOLDS, seed)
    probabilities = np.full(logits.shape, np.nan)
    for number in np.unique(fold):
        here = fold == number
        probabilities[here] = softmax(logits[here] / fit_temperature(logits[~here], labels[~here]))
    return probabilities


def group_folds(groups: npt.NDArray[np.integer], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each image, int64 [N] in [0, folds): groups int [N] are dealt in random order."""
    names, group = np.unique(groups, return_inverse=True)
    fold = np.empty(len(names), np.int64)
    fold[shuffled(seed, 0, np.arange(len(names)))] = np.arange(len(names)) % max(2, folds)
    return fold[group]
