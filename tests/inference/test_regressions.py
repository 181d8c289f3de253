"""The regressions of all folds at once are scikit-learn's of each fold by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.clouds import clouds
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from residua.inference import regressions
from residua.inference.logistic import FINAL
from residua.inference.regressions import Regressions

EXACT = 1e-6, 2_000


def probabilities(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def standard(
    rows: int, width: int, classes: int, seed: int = 0, distance: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    features, labels = clouds(rows, width, classes, distance, seed)
    return (features - features.mean(axis=0)) / features.std(axis=0), labels


def of_folds(count: int, folds: int, weights: np.ndarray) -> list[np.ndarray]:
    fold = np.arange(count) // 5 % folds
    return [np.where(fold == number, 0.0, weights) for number in range(folds)]


@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(30, 120),
    width=st.integers(1, 90),
    classes=st.integers(2, 5),
    folds=st.integers(2, 6),
    c=st.sampled_from([1e-4, 1e-2, 1.0]),
    is_weighted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_each_fold_is_fitted_like_by_scikit_learn(
    rows: int, width: int, classes: int, folds: int, c: float, is_weighted: bool, seed: int
) -> None:
    features, labels = standard(rows, width, classes, seed)
    weights = np.ones(rows)
    if is_weighted:
        weights = np.random.default_rng(seed).uniform(0.1, 3.0, rows)
    of_each = of_folds(rows, folds, weights)
    fitted = Regressions(features, labels, classes, of_each)
    fitted.fit(c, *EXACT)
    for number, given_weights in enumerate(of_each):
        train = given_weights > 0
        head = LogisticRegression(C=c, tol=1e-7, max_iter=3_000)
        head.fit(features[train].astype(np.float64), labels[train], given_weights[train])
        out = np.flatnonzero(~train)
        found = probabilities(fitted.logits(number, features[out]))
        assert not found[:, np.setdiff1d(np.arange(classes), head.classes_)].any()
        expected = head.predict_proba(features[out].astype(np.float64))
        assert found[:, head.classes_] == pytest.approx(expected, abs=2e-3)


def test_a_larger_c_continues_from_the_last_solution() -> None:
    features, labels = standard(80, 20, 3)
    weights = of_folds(80, 4, np.ones(80))
    path, direct = (Regressions(features, labels, 3, weights) for _ in range(2))
    for c in (1e-3, 1e-1, 1.0):
        path.fit(c, *EXACT)
    direct.fit(1.0, *EXACT)
    for fold in range(4):
        expected = probabilities(direct.logits(fold, features))
        assert probabilities(path.logits(fold, features)) == pytest.approx(expected, abs=2e-3)


def test_folds_in_blocks_have_the_same_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many classes, few folds are fitted at once."""
    features, labels = standard(60, 10, 3)
    weights = of_folds(60, 5, np.ones(60))
    whole, blocks = (Regressions(features, labels, 3, weights) for _ in range(2))
    whole.fit(0.1, *EXACT)
    monkeypatch.setattr(regressions, "_BLOCK", 2 * 3)
    blocks.fit(0.1, *EXACT)
    assert blocks.solution == pytest.approx(whole.solution, abs=1e-3)


def test_many_classes_are_fitted_as_closely_as_few() -> None:
    """The elements of their gradient are small far from the optimum, too."""
    features, labels = standard(600, 128, 100, distance=3.0)
    fitted = Regressions(features, labels, 100, [np.ones(600)])
    fitted.fit(10.0, *FINAL)
    head = LogisticRegression(C=10.0, tol=1e-6, max_iter=1_000)
    head.fit(features.astype(np.float64), labels)
    expected, found = (
        10 * log_loss(labels, chance, normalize=False) + np.square(weight).sum() / 2
        for chance, weight in (
            (head.predict_proba(features.astype(np.float64)), head.coef_),
            (probabilities(fitted.logits(0, features)), fitted.solution[0, :, :-1]),
        )
    )
    assert found == pytest.approx(expected, rel=0.05)
