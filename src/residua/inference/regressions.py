"""Rows, labels and weights -> logistic regressions, one for each set of weights.

Multinomial logistic regression with an L2 penalty, as scikit-learn's, whose solver spends most of
its time on checks where rows are few. All folds of a cross-validation share the rows, so one matrix
product serves several, all where classes are few; a fold gives the rows that it leaves out weight
0. The solver is L-BFGS with a line search for each fold (Nocedal and Wright 2006, "Numerical
Optimization", algorithms 7.4 and 3.1).
Legend: N rows, R columns, K classes, F folds, P = K (R + 1) parameters of a fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
_MEMORY = 10  # pairs of steps and changes of the gradient
_SHORTEST = 1e-4  # step of a line search, below which a fold is done
_SUFFICIENT = 1e-4  # share of the predicted decrease that a step must reach
_ROUNDING = 1e-7  # of the loss, in float32
_BLOCK = 128  # logits of a row that one matrix product computes, of as many folds


class Regressions:
    """The regressions of some folds; `fit` continues from the last solution."""

    def __init__(
        self, rows: Floats, labels: Labels, classes: int, weights: Sequence[Reals]
    ) -> None:
        """rows: float32 [N, R]. labels: int64 [N]. weights: of each fold float64 [N], 0 of rows
        that it leaves out; a class without any weight is never predicted."""
        constant = np.ones((len(rows), 1), np.float32)
        self.rows, self.labels, self.classes = np.hstack([rows, constant]), labels, classes
        stacked = np.reshape(weights, (len(weights), len(rows)))
        totals = stacked.sum(axis=1, keepdims=True)
        self.shares = (stacked / totals).astype(np.float32)
        self.present = np.zeros((len(weights), classes), np.bool_)  # of each fold
        for fold, weight in enumerate(stacked):
            self.present[fold, labels[weight > 0]] = True
        self.barred = np.where(self.present, 0, -np.inf).astype(np.float32)
        # of two classes, scikit-learn penalises the difference of both logits
        self.strength = np.where(self.present.sum(axis=1) == 2, 2.0, 1.0) / totals[:, 0]
        self.solution = np.zeros((len(weights), classes, self.rows.shape[1]), np.float32)
        self.steepest = np.zeros(len(weights))  # norm of each fold's gradient at the solution 0

    @property
    def blocks(self) -> list[slice]:
        """The folds, those together that are fitted at once; blocks may be fitted concurrently."""
        count, at_once = len(self.solution), max(1, _BLOCK // self.classes)
        return [slice(start, min(start + at_once, count)) for start in range(0, count, at_once)]

    def fit(self, c: float, tolerance: float, iterations: int) -> None:
        """Minimise for an inverse regularisation strength, as scikit-learn's C. tolerance: of the
        largest element of the gradient, and three times it of its norm, as a share of that at the
        solution 0: with many classes, all elements are small far from the optimum, too."""
        for folds in self.blocks:
            self.fit_block(folds, c, tolerance, iterations)

    def logits(self, fold: int, rows: Floats) -> Floats:
        """Of rows [n, R], float32 [n, K]; -inf of classes that the fold has no rows of."""
        weight, bias = self.solution[fold, :, :-1], self.solution[fold, :, -1]
        return np.asarray(rows @ weight.T + (bias + self.barred[fold]))

    def fit_block(self, folds: slice, c: float, tolerance: float, iterations: int) -> None:
        """`fit` for one of `blocks`."""
        objective = self._objective(folds, c)
        x = self.solution[folds].reshape(folds.stop - folds.start, -1)
        loss, gradient = objective(x)
        if not x.any():
            self.steepest[folds] = _norm(gradient)
        least = 3 * tolerance * self.steepest[folds]
        history: list[tuple[Floats, Floats, Reals]] = []
        active = np.ones(len(x), np.bool_)
        for _ in range(iterations):
            active &= (np.abs(gradient).max(axis=1) > tolerance) | (_norm(gradient) > least)
            if not active.any():
                break
            step = _direction(gradient, history)
            slope = _dot(step, gradient)
            size = np.where(active & (slope < 0), 1.0, 0.0)
            if not history:
                size /= np.maximum(np.sqrt(-slope), 1.0)
            while True:  # shorten the steps that do not decrease the loss enough
                moved = x + size[:, None].astype(np.float32) * step
                new_loss, new_gradient = objective(moved)
                bound = loss + _SUFFICIENT * size * slope + _ROUNDING * np.abs(loss)
                too_long = (size > 0) & ~(new_loss <= bound)
                if not too_long.any():
                    break
                size[too_long] /= 2
                size[size < _SHORTEST] = 0
            active &= size > 0
            history.append(_pair(moved - x, new_gradient - gradient))
            del history[:-_MEMORY]
            x, loss, gradient = moved, new_loss, new_gradient
        self.solution[folds] = x.reshape(self.solution[folds].shape)

    def _objective(self, folds: slice, c: float) -> _Objective:
        shares = self.shares[folds]
        used = (shares > 0).any(axis=0)
        rows, labels = self.rows, self.labels
        if not used.all():
            rows, labels, shares = rows[used], labels[used], shares[:, used]
        return _Objective(rows, labels, shares, self.barred[folds], self.strength[folds] / c)


@dataclass(frozen=True, eq=False)
class _Objective:
    """The losses of some folds as a function of their parameters; see Regressions."""

    rows: Floats
    labels: Labels
    shares: Floats
    barred: Floats
    penalty: Reals

    def __call__(self, x: Floats) -> tuple[Reals, Floats]:
        """Losses [F] and gradients float32 [F, P] at the parameters [F, P]."""
        shares, every = self.shares, np.arange(len(self.rows))
        (count, classes), width = self.barred.shape, self.rows.shape[1]
        flat = x.reshape(count * classes, width)
        logits = (flat @ self.rows.T).reshape(count, classes, -1)
        logits += self.barred[:, :, None]
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[:, self.labels, every]
        probabilities = np.exp(logits, out=logits)
        sums = probabilities.sum(axis=1, keepdims=True)
        losses = np.where(shares > 0, np.log(sums[:, 0]) - own, 0)
        probabilities /= sums
        probabilities[:, self.labels, every] -= 1
        probabilities *= shares[:, None]
        gradient = (probabilities.reshape(len(flat), -1) @ self.rows).reshape(x.shape)
        penalised = x.reshape(count, classes, width).copy()
        penalised[:, :, -1] = 0  # the constants
        weight = penalised.reshape(x.shape)
        gradient += self.penalty[:, None].astype(np.float32) * weight
        loss = _dot(losses, shares) + self.penalty * _dot(weight, weight) / 2
        return loss, gradient


def _dot(one: Floats, other: Floats) -> Reals:
    """Products [F] of [F, P]."""
    return np.asarray((one[:, None] @ other[:, :, None])[:, 0, 0], np.float64)


def _norm(values: Floats) -> Reals:
    """Euclidean norms [F] of [F, P]."""
    return np.sqrt(_dot(values, values))


def _pair(step: Floats, change: Floats) -> tuple[Floats, Floats, Reals]:
    """A pair for the history; its last value is 0 of folds that did not move along a valley."""
    curvature = _dot(step, change)
    valid = curvature > 1e-10 * _dot(change, change)
    return step, change, np.divide(1.0, curvature, out=np.zeros_like(curvature), where=valid)


def _direction(gradient: Floats, history: list[tuple[Floats, Floats, Reals]]) -> Floats:
    """The step [F, P] of L-BFGS at gradients [F, P]."""
    step, factors = -gradient, []
    for moved, change, inverse in reversed(history):
        factor = inverse * _dot(moved, step)
        factors.append(factor)
        step -= factor[:, None].astype(np.float32) * change
    if history:
        _, change, inverse = history[-1]
        squares = inverse * _dot(change, change)
        scale = np.divide(1.0, squares, out=np.ones_like(squares), where=squares > 0)
        step *= scale[:, None].astype(np.float32)
    for (moved, change, inverse), factor in zip(history, reversed(factors), strict=True):
        correction = factor - inverse * _dot(change, step)
        step += correction[:, None].astype(np.float32) * moved
    return step
