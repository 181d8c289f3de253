"""A decision tree predicts what scikit-learn's predicts."""

import numpy as np
import numpy.typing as npt
import pytest

from residua.audits.decision_tree import predict


def scikit_learn(
    known: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float64],
    depth: int,
    leaf: int,
) -> npt.NDArray[np.int64]:
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=depth, min_samples_leaf=leaf, class_weight="balanced", random_state=0
    )
    return np.asarray(tree.fit(known, labels).predict(queries), np.int64)


def random_rows(
    seed: int, rows: int, columns: int, classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Measurements that depend on the class, classes of unequal size, and queries."""
    chance = np.random.default_rng(seed)
    labels = np.unique(chance.integers(0, classes, rows) ** 2 // classes, return_inverse=True)[1]
    # scikit-learn stores float32
    known = chance.normal(labels[:, None], size=(rows, columns)).astype(np.float32)
    queries = chance.normal(1, size=(50, columns)).astype(np.float32)
    return known.astype(np.float64), labels, queries.astype(np.float64)


@pytest.mark.parametrize("columns", [1, 6])
@pytest.mark.parametrize("seed", range(5))
def test_the_tree_is_that_of_scikit_learn(seed: int, columns: int) -> None:
    """Leaves are large, as a few rows can be split equally well in several ways."""
    known, labels, queries = random_rows(seed, 400, columns, 5)
    expected = scikit_learn(known, labels, queries, 4, 15)
    assert predict(known, labels, queries, depth=4, leaf=15).tolist() == expected.tolist()


@pytest.mark.parametrize("texts", [1, 3])
def test_columns_of_zeros_and_ones_recognise_the_rare_class(texts: int) -> None:
    labels = np.repeat([0, 1], [200, 8])
    known = np.zeros((208, texts))
    known[:, -1] = labels
    assert predict(known, labels, known, depth=1, leaf=4).tolist() == labels.tolist()


def test_every_leaf_has_the_least_number_of_rows() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    known = np.arange(8.0)[:, None]
    assert predict(known, labels, known, depth=3, leaf=3).tolist() == labels.tolist()
    assert predict(known, labels, known, depth=3, leaf=4).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_without_queries_there_are_no_predictions() -> None:
    known, labels = np.arange(4.0)[:, None], np.array([0, 0, 1, 1])
    assert predict(known, labels, known[:0], depth=2, leaf=1).shape == (0,)


def test_neighbouring_floats_are_told_apart() -> None:
    known = np.repeat([np.nextafter(1, 0), 1.0], 6)[:, None]
    labels = np.repeat([0, 1], 6)
    assert predict(known, labels, known, depth=2, leaf=4).tolist() == labels.tolist()
