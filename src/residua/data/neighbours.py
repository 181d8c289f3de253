"""Hashes and vectors of many images -> pairs that may be alike, in less than quadratic time.

Legend: N images, D dimensions of a vector.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from residua.data.random import Integers, shuffled

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]
Pairs = npt.NDArray[np.int64]  # [P, 2], the lower index first, no pair twice

_KEY_BITS = 16  # of a hash, equal in all entries of a bucket
_RUN = 8  # entries after one in its bucket that are compared with it
_EXHAUSTIVE = 20_000  # vectors up to which all are compared
_PROBES = 8  # nearest cells that are searched, of those that the vectors are divided into
_BLOCK = 1024  # vectors that are compared at once


class Axes(NamedTuple):
    """mean: float32 [D]. directions: float32 [D, dimensions], a column for each axis."""

    mean: Floats
    directions: Floats


def close_hashes(hashes: Bits, distance: int) -> Pairs:
    """Pairs of hashes bool [N, B] that differ in at most `distance` bits.

    Two hashes of B bits that differ in fewer bits than they have keys of 16 bits share a key
    (multi-index hashing: Norouzi et al. 2012, section 2). Within a bucket of equal keys, sorted by
    the whole hash, an entry is compared with the next 8 alone: of many equal images each is then
    connected with some others, and time stays proportional to N log N.
    """
    packed = np.packbits(hashes, axis=1)
    step = _KEY_BITS // 8
    pairs = []
    for start in range(0, packed.shape[1], step):
        key = packed[:, start : start + step]
        order = np.lexsort((*packed.T[::-1], *key.T[::-1]))
        ordered, keys = packed[order], key[order]
        for offset in range(1, min(_RUN, len(order) - 1) + 1):
            same = (keys[offset:] == keys[:-offset]).all(axis=1)
            at = np.flatnonzero(same)
            bits = np.bitwise_count(ordered[at] ^ ordered[at + offset]).sum(axis=1)
            at = at[bits <= distance]
            pairs.append(np.stack([order[at], order[at + offset]], axis=1))
    return unique_pairs(np.concatenate([np.zeros((0, 2), np.int64), *pairs]))


def nearest(vectors: Floats, queries: Floats, count: int) -> tuple[Integers, Floats]:
    """The `count` most similar vectors of each query, and their cosine similarities.

    vectors: float32 [N, D] of unit length or 0. queries: the same, or [V, N, D]: query i is a
    variant of vector i, or V of them, the most similar of which counts; vector i is left out.
    Returns int64 and float32 [N, count]; -1 where there is no further one. Above 20,000 vectors
    these are divided into about sqrt(N) cells, and the 8 cells nearest to the first variant are
    searched.
    """
    total, queries = len(vectors), queries.reshape(-1, *vectors.shape)
    indices = np.full((total, count), -1, np.int64)
    similarities = np.full((total, count), -1, np.float32)
    if total <= _EXHAUSTIVE:
        everything = np.arange(total)
        for start in range(0, total, _BLOCK):
            rows = everything[start : start + _BLOCK]
            _keep_best(indices, similarities, rows, everything, vectors, queries)
        return indices, similarities
    centres = vectors[shuffled(0, 0, np.arange(total))[: int(total**0.5)]]
    homes = _closest(vectors, centres, 1)
    probes = _closest(queries[0], centres, _PROBES)
    by_home = np.argsort(homes[:, 0], kind="stable")
    home_ends = np.searchsorted(homes[by_home, 0], np.arange(len(centres) + 1))
    for probe in range(_PROBES):
        by_probe = np.argsort(probes[:, probe], kind="stable")
        ends = np.searchsorted(probes[by_probe, probe], np.arange(len(centres) + 1))
        for cell in range(len(centres)):
            rows = by_probe[ends[cell] : ends[cell + 1]]
            members = by_home[home_ends[cell] : home_ends[cell + 1]]
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK]
                _keep_best(indices, similarities, block, members, vectors, queries)
    return indices, similarities


def reduced(vectors: Floats, dimensions: int) -> Floats:
    """Vectors [N, D] centred, projected on their `dimensions` main axes, with unit length."""
    axes = principal_axes(vectors, dimensions)
    return unit(np.asarray((vectors - axes.mean) @ axes.directions, np.float32))


def principal_axes(vectors: Floats, dimensions: int) -> Axes:
    """The main axes of at most 4,096 of the vectors [N, D], evenly spaced."""
    sample = vectors[:: max(1, len(vectors) // 4096)].astype(np.float64)
    mean = sample.mean(axis=0)
    sample = sample - mean
    if dimensions < len(sample) < sample.shape[1]:  # the smaller of two matrices of equal rank
        _, weights = np.linalg.eigh(sample @ sample.T)
        main = (sample.T @ weights[:, -dimensions:]).T
        axes = unit(main.astype(np.float32)).T
    else:
        axes = np.linalg.eigh(sample.T @ sample)[1].astype(np.float32)
    return Axes(mean.astype(np.float32), axes[:, -dimensions:])


def unit(vectors: Floats) -> Floats:
    """Vectors [N, D] scaled to length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), np.float32)


def unique_pairs(pairs: Pairs) -> Pairs:
    """The pairs with the lower index first, sorted, each once; no image with itself."""
    ordered = np.sort(pairs, axis=1)
    return np.unique(ordered[ordered[:, 0] != ordered[:, 1]], axis=0)


def _keep_best(
    indices: Integers,
    similarities: Floats,
    rows: Integers,
    members: Integers,
    vectors: Floats,
    queries: Floats,
) -> None:
    """Compare `rows` of queries [V, N, D] with the vectors `members`; keep the best, in place."""
    count = indices.shape[1]
    compared = vectors[members].T
    candidates = queries[0, rows] @ compared
    for variant in queries[1:]:
        np.maximum(candidates, variant[rows] @ compared, out=candidates)
    candidates[rows[:, None] == members[None, :]] = -1
    if len(members) > count:
        top = np.argpartition(candidates, -count, axis=1)[:, -count:]
        candidates, ids = np.take_along_axis(candidates, top, axis=1), members[top]
    else:
        ids = np.broadcast_to(members, candidates.shape)
    ids = np.concatenate([indices[rows], ids], axis=1)
    candidates = np.concatenate([similarities[rows], candidates], axis=1)
    best = np.argsort(-candidates, axis=1, kind="stable")[:, :count]
    similarities[rows] = np.take_along_axis(candidates, best, axis=1)
    indices[rows] = np.take_along_axis(ids, best, axis=1)
    indices[rows] = np.where(similarities[rows] > -1, indices[rows], -1)


def _closest(vectors: Floats, centres: Floats, count: int) -> Integers:
    """The `count` closest centres of each vector, the closest first."""
    indices = []
    for start in range(0, len(vectors), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ centres.T
        best = np.argpartition(similarity, -count, axis=1)[:, -count:]
        value = np.take_along_axis(similarity, best, axis=1)
        indices.append(np.take_along_axis(best, np.argsort(-value, axis=1), axis=1))
    return np.concatenate(indices).astype(np.int64)
