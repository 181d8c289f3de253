"""Labels and contents of rows -> the fold of each, for cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from residua.data.random import uniform

Labels = npt.NDArray[np.int64]


def folds_of(labels: Labels, contents: Sequence[str], seed: int) -> Labels:
    """The fold of each row, int64 [N], a function of (seed, contents) whatever the order of rows.

    Equal contents share a fold, that of the lowest label among them. Within a class the contents
    are dealt in turn, and the next class goes on where this one ended; so folds differ by at most
    one content in each class, and a class of two or more is never wholly left out.
    """
    first: dict[str, int] = {}
    for label, content in zip(labels.tolist(), contents, strict=True):
        first[content] = min(label, first.get(content, label))
    names = list(first)
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    numbers = np.array([int.from_bytes(each, "little", signed=True) for each in digests])
    chance = uniform(seed, 0, numbers.astype(np.int64), 1, "folds")[:, 0]
    order = sorted(range(len(names)), key=lambda n: (first[names[n]], chance[n], names[n]))
    count = _fold_count(np.bincount(list(first.values())))
    fold = {names[place]: turn % count for turn, place in enumerate(order)}
    return np.array([fold[content] for content in contents], np.int64)


def _fold_count(contents: npt.NDArray[np.int64]) -> int:
    """How many folds suit classes of so many contents [K].

    With F folds a head misses 1 / F of its rows, so the less data the more folds; but not more
    than the smallest class has contents: a training set that lacks one row of the left-out class
    alone is biased against it, the more so the fewer there are.
    """
    total, least = int(contents.sum()), int(contents[contents > 0].min())
    return max(2, min(total, max(5, least), 10 if total <= 1_000 else 5))
