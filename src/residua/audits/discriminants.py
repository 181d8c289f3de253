"""Features and labels -> classes by regularised linear discriminants, fast enough for many fits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residua.data.random import Integers

Floats = npt.NDArray[np.float32]


def classify(train: Floats, labels: Integers, rows: Floats, shrinkage: float) -> Integers:
    """Classes of float32 [R, D] by discriminants fitted on float32 [N, D] and labels int64 [N].

    shrinkage: of the common covariance towards a multiple of the identity, 0..1 (Friedman 1989,
    "Regularized discriminant analysis", equation 18).
    """
    present, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.zeros((len(present), len(train)), np.float32)
    members[numbers, np.arange(len(train))] = 1
    means = (members @ train) / counts[:, None].astype(np.float32)
    within = train - means[numbers]
    covariance = (within.T @ within).astype(np.float64) / len(train)
    size = len(covariance)
    scale = max(float(covariance.trace()) / size, 1e-12)
    covariance = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(size)
    weight = np.linalg.solve(covariance, means.T.astype(np.float64))
    bias = np.log(counts / len(train)) - 0.5 * (means.T * weight).sum(axis=0)
    return np.asarray(present[(rows @ weight + bias).argmax(axis=1)])
