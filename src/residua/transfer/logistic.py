"""Cached features and labels -> a linear head, its strength, and how it did on rows left out.

Knows no files, no images and no torch. The head is multinomial logistic regression with an L2
penalty on standardised features, scikit-learn's, folded into one matrix.
Legend: N rows, D features, K classes, F folds, S strengths.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_KEPT = 1e-4, 300  # tolerance of the gradient, iterations: of a head that is kept
_SPANNED = 1e-10  # share of the largest variance, below which a direction is rounding
_WORTH = 2  # times fewer rows than columns: then turning them takes less time than it saves
_NEVER = -30.0  # bias of a class that was never seen; the other logits sum to 0


@dataclass(frozen=True, eq=False)
class Linear:
    """A head: logits = features @ weight.T + bias. weight: float32 [K, D], bias: float32 [K].

    strength: its C, as in scikit-learn's LogisticRegression on standardised features.
    """

    weight: Floats
    bias: Floats
    strength: float


def class_weights(labels: Labels) -> npt.NDArray[np.float64]:
    """Of each row, so that all classes that have rows weigh the same; float64 [N], 1 on average."""
    counts = np.bincount(labels)
    return len(labels) / (np.count_nonzero(counts) * counts[labels])


def fit(
    features: Floats, labels: Labels, classes: int, strength: float, *, balanced: bool = False
) -> Linear:
    """The head on all rows; features float32 [N, D], labels int64 [N] in 0..classes-1.

    balanced: weigh each class by the inverse of its rows. A class without a row gets weight 0 and a
    bias so low that it is never the answer. Raises ResiduaError if fewer than two classes have rows
    or a feature is not finite.
    """
    check(features, labels, classes)
    with one_thread(), unwarned():
        plane = Plane.of(features)
        model = regression(balanced, _KEPT)
        solve(model, strength, plane.rows.astype(np.float32), labels)
    weight, bias = _expanded(model.coef_, model.intercept_, model.classes_, classes)
    weight = plane.outward(weight) / plane.std
    return Linear(
        weight.astype(np.float32), (bias - weight @ plane.mean).astype(np.float32), strength
    )


def check(features: Floats, labels: Labels, classes: int) -> None:
    """Raise ResiduaError, or ValueError for shapes, if no head can be fitted on these."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"features {features.shape}, labels {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, {classes} classes")
    present = len(np.unique(labels))
    if present < 2:
        raise ResiduaError(
            f"The {len(labels)} images to learn from are of {present} class"
            f"{'' if present == 1 else 'es'}: a head needs images of at least two."
        )
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise ResiduaError(
            f"The features of {int(broken.sum())} of {len(labels)} images are not finite (the "
            f"first is number {int(broken.argmax())}): the weights are damaged, or expect other "
            "pixels; see how the images are prepared for them."
        )


@dataclass(frozen=True, eq=False)
class Plane:
    """Standardised rows, in as few dimensions as they span where these are few: [N, R].

    An L2 penalty does not see a rotation, and its optimum lies in the span of the rows. standard:
    [N, D], the rows before they were turned; the same array where nothing was. mean, std: [D], of
    the rows; constant columns count as 1.
    """

    rows: npt.NDArray[np.floating]
    standard: npt.NDArray[np.floating]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    @classmethod
    def of(cls, features: Floats) -> Plane:
        """Of features float32 [N, D]."""
        mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
        rows = (features - mean) / std
        if rows.shape[0] * _WORTH > rows.shape[1]:
            return cls(rows, rows, mean, std)
        squares, turns = np.linalg.eigh(rows @ rows.T)  # sooner than by svd(rows)
        kept = squares >= _SPANNED * squares[-1]
        scale = np.sqrt(np.maximum(squares[kept], np.finfo(np.float64).tiny))
        return cls(turns[:, kept] * scale, rows, mean, std)

    def outward(self, weight: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Weights on the turned rows [K, R] -> on the standardised ones [K, D], same answers."""
        if self.rows is self.standard:
            return weight
        squares = np.square(self.rows).sum(axis=0)
        return np.asarray((weight / squares) @ self.rows.T @ self.standard)


def one_thread() -> Any:
    """Within it BLAS has one; more would wait for each other longer than its products take."""
    import sklearn.linear_model  # noqa: F401 - only libraries that are there can be limited
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def regression(balanced: bool, precision: tuple[float, int]) -> Any:
    """scikit-learn's, which goes on from where the last fit ended and says nothing."""
    from sklearn.linear_model import LogisticRegression

    weights = "balanced" if balanced else None
    return LogisticRegression(
        tol=precision[0], max_iter=precision[1], warm_start=True, class_weight=weights
    )


def solve(model: Any, strength: float, rows: npt.NDArray[np.floating], labels: Labels) -> None:
    """Fit in place, without checking again what has been checked."""
    from sklearn import config_context

    with config_context(assume_finite=True, skip_parameter_validation=True):
        model.set_params(C=strength).fit(rows, labels)


@contextmanager
def unwarned() -> Iterator[None]:
    """An optimum that is reached but for rounding is no reason for a warning. Not for threads."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _expanded(
    weight: npt.NDArray[np.floating],
    bias: npt.NDArray[np.floating],
    known: Labels,
    classes: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights [K, R] and biases [K] for all classes; of two, scikit-learn keeps one row alone."""
    if len(known) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    all_weights, all_biases = np.zeros((classes, weight.shape[1])), np.full(classes, _NEVER)
    all_weights[known], all_biases[known] = weight - weight.mean(0), bias - bias.mean()
    return all_weights, all_biases
