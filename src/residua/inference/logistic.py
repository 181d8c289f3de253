"""Features and labels -> a logistic regression head, and folds for its cross-validation.

Independent of files, images and torch. Multinomial logistic regression with an L2 penalty on
standardised features, as one linear layer on the features as they are.
Legend: N rows, D features, K classes, R <= N dimensions.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.random import uniform
from residua.errors import ResiduaError
from residua.inference.regressions import Floats, Labels, Regressions

SampleWeights = npt.NDArray[np.float64]

FINAL = 1e-4, 300  # tolerance of the gradient, iterations: of a head that is saved
_RANK_TOLERANCE = 1e-10  # variance relative to the largest, below which it is rounding
_WIDE = 2  # D >= so many times N: rotating the rows takes less time than it saves
_UNSEEN_BIAS = -30.0  # of a class without rows; the other logits sum to 0


@dataclass(frozen=True, eq=False)
class LinearHead:
    """logits = features @ weight.T + bias. weight: float32 [K, D], bias: float32 [K]."""

    weight: Floats
    bias: Floats


def class_weights(labels: Labels) -> npt.NDArray[np.float64]:
    """A weight per row that gives all present classes equal weight; float64 [N], mean 1."""
    counts = np.bincount(labels)
    return len(labels) / (np.count_nonzero(counts) * counts[labels])


def fit_logistic(
    features: Floats,
    labels: Labels,
    classes: int,
    c: float,
    *,
    balanced: bool = False,
    weights: SampleWeights | None = None,
) -> LinearHead:
    """The head fitted on all rows; features float32 [N, D], labels int64 [N] in 0..classes-1.

    c: inverse regularisation strength, scikit-learn's C.
    balanced: weight each class by its inverse frequency. weights: float64 [N], factors of the
    losses of the rows; None: all 1.
    A class without rows gets weight 0 and a bias so low that it is never predicted. Raises
    ResiduaError if fewer than two classes have rows or a feature is not finite.
    """
    check(features, labels, classes)
    weights = np.ones(len(labels)) if weights is None else weights
    if balanced:
        weights = weights * class_weights(labels)
    with single_blas_thread():
        rows = StandardRows.of(features)
        regressions = Regressions(rows.reduced.astype(np.float32), labels, classes, [weights])
        regressions.fit(c, *FINAL)
        solution, present = regressions.solution[0].astype(np.float64), regressions.present[0]
        solution[present] -= solution[present].mean(axis=0)
        weight = rows.unreduced(solution[:, :-1]) / rows.std
    bias = np.full(classes, _UNSEEN_BIAS)
    bias[present] = solution[present, -1]
    bias -= weight @ rows.mean
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def check(features: Floats, labels: Labels, classes: int) -> None:
    """Raise ResiduaError, or ValueError for shapes, if no head can be fitted on these."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"features {features.shape}, labels {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, {classes} classes")
    present = len(np.unique(labels))
    if present < 2:
        raise ResiduaError(
            f"The {len(labels)} training images are of {present} class"
            f"{'' if present == 1 else 'es'}: a head needs images of at least two."
        )
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise ResiduaError(
            f"The features of {int(broken.sum())} of {len(labels)} images are not finite (the "
            f"first is number {int(broken.argmax())}): the weights are damaged, or were trained "
            "with other preprocessing."
        )


@dataclass(frozen=True, eq=False)
class StandardRows:
    """Standardised features, rotated into the dimensions that they span where these are few.

    An L2 penalty is invariant under rotation, and its optimum is in the span of the rows.
    reduced: [N, R], what is fitted; `standard` itself where it is not worth a rotation.
    standard: [N, D]. mean, std: [D], of the features; the std of a constant column counts as 1,
    a small one as a tenth of the lower quartile: what is almost constant here, as some features are
    after a ReLU, may be large in a new image, and would outweigh all others.
    """

    reduced: npt.NDArray[np.floating]
    standard: npt.NDArray[np.floating]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    @classmethod
    def of(cls, features: Floats) -> StandardRows:
        """Of features float32 [N, D]."""
        mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
        varies = std > 1e-6 * np.maximum(np.abs(mean), 1e-6)
        least = np.quantile(std[varies], 0.25) / 10 if varies.any() else 1.0
        std = np.where(varies, np.maximum(std, least), 1.0)
        rows = (features - mean) / std
        if rows.shape[0] * _WIDE > rows.shape[1]:
            return cls(rows, rows, mean, std)
        squares, vectors = np.linalg.eigh(rows @ rows.T)  # faster than svd(rows)
        spanned = squares >= _RANK_TOLERANCE * squares[-1]
        scale = np.sqrt(np.maximum(squares[spanned], np.finfo(np.float64).tiny))
        return cls(vectors[:, spanned] * scale, rows, mean, std)

    def unreduced(self, weight: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Weights [K, R] of reduced rows -> [K, D] of standardised ones, with the same logits."""
        if self.reduced is self.standard:
            return weight
        squares = np.square(self.reduced).sum(axis=0)
        return np.asarray((weight / squares) @ self.reduced.T @ self.standard)


def single_blas_thread() -> Any:
    """A context in which BLAS has one thread; more would only wait for one another."""
    return _thread_pools().limit(limits=1)


@functools.cache  # to search a process for its libraries takes longer than to fit a small head
def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def folds_of(labels: Labels, contents: Sequence[str], seed: int) -> Labels:
    """The fold of each row, int64 [N]: a function of (seed, contents), whatever their order.

    Equal contents share a fold, that of the lowest label among them. Folds are dealt to the
    contents class by class in turn: they differ by at most one content in each class, and a class
    of two or more contents is never left out entirely.
    """
    first: dict[str, int] = {}
    for label, content in zip(labels.tolist(), contents, strict=True):
        first[content] = min(label, first.get(content, label))
    names = list(first)
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    numbers = np.array([int.from_bytes(digest, "little", signed=True) for digest in digests])
    chance = uniform(seed, 0, numbers.astype(np.int64), 1, "folds")[:, 0]
    order = sorted(range(len(names)), key=lambda n: (first[names[n]], chance[n], names[n]))
    count = _fold_count(np.bincount(list(first.values())))
    fold = {names[n]: turn % count for turn, n in enumerate(order)}
    return np.array([fold[content] for content in contents], np.int64)


def _fold_count(contents: npt.NDArray[np.int64]) -> int:
    """The number of folds for classes of these numbers of contents [K].

    With F folds a head misses 1 / F of its rows, so F grows as the data shrinks; but not beyond
    the contents of the smallest class: a training set that lacks one row of the left-out class
    only is biased against it, the more so the fewer it has.
    """
    total, smallest = int(contents.sum()), int(contents[contents > 0].min())
    return max(2, min(total, max(5, smallest), 10 if total <= 1_000 else 5))
