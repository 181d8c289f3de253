"""Measurements and classes -> the classes that a small decision tree predicts for other images.

The tree is that of Breiman et al. 1984, "Classification and Regression Trees". scikit-learn's
differs in float32 and between equally good splits only, but importing it takes longer than all
other checks of 600 images.
Legend: N, M rows, D columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residua.data.random import Integers

Floats = npt.NDArray[np.float64]


def predict(known: Floats, labels: Integers, queries: Floats, *, depth: int, leaf: int) -> Integers:
    """The classes, int64 [M], of `queries` [M, D] by a tree that is grown on `known` [N, D].

    labels: int64 [N], N >= 1. All classes weigh the same, however frequent they are. depth: of the
    tree, at most. leaf: rows of `known` in a leaf, at least.
    """
    weights = 1.0 / np.bincount(labels)[labels]
    predicted = np.empty(len(queries), np.int64)

    def grow(rows: Integers, waiting: Integers, depth: int) -> None:
        """Predict the queries `waiting`, which reach the node of `rows`."""
        best = None
        if depth and len(waiting) and np.ptp(labels[rows]):
            best = _best_split(known[rows], labels[rows], weights[rows], leaf)
        if best is None:
            predicted[waiting] = np.bincount(labels[rows], weights[rows]).argmax()
            return
        column, threshold = best
        below, queries_below = (
            known[rows, column] <= threshold,
            queries[waiting, column] <= threshold,
        )
        grow(rows[below], waiting[queries_below], depth - 1)
        grow(rows[~below], waiting[~queries_below], depth - 1)

    grow(np.arange(len(known)), np.arange(len(queries)), depth)
    return predicted


def _best_split(
    table: Floats, labels: Integers, weights: Floats, leaf: int
) -> tuple[int, float] | None:
    """Column and threshold of the two sides with the least Gini impurity; None where no split
    leaves enough rows on both sides."""
    best, purest = None, -np.inf
    for column, values in enumerate(table.T):
        order = np.argsort(values, kind="stable")
        values = values[order]
        ends = np.flatnonzero(values[:-1] < values[1:])  # the last rows of a left side
        ends = ends[(ends >= leaf - 1) & (ends < len(values) - leaf)]
        if not len(ends):
            continue
        left, right = _squares(labels[order], weights[order])
        purity = left[ends] + right[ends]
        if (highest := purity.max()) > purest:
            end = ends[purity.argmax()]
            middle = (values[end] + values[end + 1]) / 2
            # of neighbouring floats it may be the larger one, which belongs to the other side
            threshold = float(values[end] if middle == values[end + 1] else middle)
            purest, best = highest, (column, threshold)
    return best


def _squares(labels: Integers, weights: Floats) -> tuple[Floats, Floats]:
    """For the first 1, 2, ... rows and for those after them: the sum over classes of the squared
    weight of a class, divided by the weight of all; higher is purer.

    A row of a class of which a side has the weight w adds (w + weight)^2 - w^2.
    """
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)  # of a row in its class
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    after = counts[labels] - rank - 1
    squared, total = np.square(weights), np.cumsum(weights)
    left = np.cumsum(squared * (2 * rank + 1))
    added = squared * (2 * after + 1)
    right = added.sum() - np.cumsum(added)
    rest = np.maximum(total[-1] - total, 1e-300)  # nothing is left after the last row
    return left / total, right / rest
