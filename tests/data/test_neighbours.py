"""Candidates among many images: as by comparing all pairs, in less time."""

from __future__ import annotations

import numpy as np
import pytest

from residua.data import neighbours
from residua.data.neighbours import close_hashes, nearest, reduced, unit


def test_hashes_that_differ_in_few_bits_are_found() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.random((2000, 256)) < 0.5
    copies = hashes[:50].copy()
    for row in copies:
        flips = generator.choice(256, 15, replace=False)
        row[flips] = ~row[flips]
    pairs = close_hashes(np.concatenate([hashes, copies]), 15)
    assert pairs.tolist() == [[n, 2000 + n] for n in range(50)]


def test_equal_hashes_are_all_connected() -> None:
    pairs = close_hashes(np.zeros((100, 64), bool), 6)
    assert set(pairs.ravel().tolist()) == set(range(100))
    assert len(pairs) < 100 * 10  # not the 4,950 of all pairs


def clusters() -> np.ndarray:
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(60, 16))
    rows = np.repeat(centres, 20, axis=0) + 0.3 * generator.normal(size=(1200, 16))
    return unit(rows.astype(np.float32))


def test_cells_find_the_neighbours_that_comparing_all_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = clusters()
    expected, _ = nearest(vectors, vectors, 5)
    monkeypatch.setattr(neighbours, "_EXHAUSTIVE", 100)
    indices, similarities = nearest(vectors, vectors, 5)
    shared = [len(set(a) & set(b)) / 5 for a, b in zip(indices, expected, strict=True)]
    assert np.mean(shared) > 0.95
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert (indices != np.arange(len(vectors))[:, None]).all()


def test_missing_neighbours_are_marked() -> None:
    vectors = clusters()[:3]
    indices, _ = nearest(vectors, vectors, 5)
    assert (indices[:, 2:] == -1).all()
    assert sorted(indices[0, :2].tolist()) == [1, 2]


def test_reduced_vectors_keep_the_neighbours() -> None:
    vectors = clusters()
    wide = np.concatenate([vectors, np.full((len(vectors), 30), 7, np.float32)], axis=1)
    before, _ = nearest(vectors, vectors, 1)
    values = reduced(wide, 16)
    after, _ = nearest(values, values, 1)
    assert (before == after).mean() > 0.9
