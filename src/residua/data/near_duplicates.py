"""Grey thumbnails of images, perhaps their features -> pairs and groups of near-duplicates.

Near-duplicates are copies that were resized, recompressed, cropped by up to about a tenth,
mirrored, or made brighter or darker, and frames of the same scene. Candidates come from hashes of
64 and 256 bits and from nearest neighbours of coarse pixels, of crops and of features; a candidate
counts if its thumbnails match after alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from residua.data.alignment import SIDE, UNMOVED, Motions, Thumbnails, align
from residua.data.crops import Candidates, crop_candidates
from residua.data.dataset import Pixels
from residua.data.neighbours import (
    Bits,
    Floats,
    Pairs,
    close_hashes,
    nearest,
    reduced,
    unique_pairs,
    unit,
)
from residua.data.random import Integers, uniform

MATCH = 0.85, 0.8  # correlation, and that of the detail, of near-duplicates
IDENTICAL = 0.995, 0.985  # the same where different images align too, as drawings of digits do
_SIMILAR = 0.7  # correlation of detail, hardly ever reached by different photos
_DRAWINGS = 0.0025  # share of random pairs above it, from which on the images are such drawings
_RANDOM_PAIRS = 6000
_DISTANCES = {8: 6, 16: 15}  # side of a hash -> bits in which candidates may differ
_COARSE = 8  # px: side of the coarse pixels
_NEIGHBOURS, _SIMILARITY = 3, 0.5  # candidates by coarse pixels: at most 3, from this cosine on
_FEATURE_NEIGHBOURS, _FEATURE_SIMILARITY, _FEATURE_DIMENSIONS = 3, 0.5, 128
_CONTRAST = 2.0  # standard deviation, 0..255, below which an image is constant: equal to any other
_BLOCK = 4096  # images
_DECODED = 64  # images whose thumbnails are computed at once


@dataclass(frozen=True, eq=False)
class _Codes:
    """Of N images: hashes by side, and coarse pixels; usable: not constant."""

    hashes: dict[int, Bits]
    coarse: Floats
    usable: npt.NDArray[np.bool_]


def find_near_duplicates(
    thumbnails: Thumbnails, features: npt.NDArray[np.float32] | None = None
) -> Pairs:
    """Pairs of near-duplicates, int64 [P, 2], sorted, lower index first.

    thumbnails: uint8 [N, 64, 64], grey. features: float32 [N, D] of a pretrained network; with
    them, frames of a scene are found more reliably among many images.
    """
    if len(thumbnails) < 2:
        return np.zeros((0, 2), np.int64)
    codes = _codes(thumbnails)
    if _are_drawings(thumbnails, codes.usable):
        pairs = _hash_candidates(codes)
        return _matching(thumbnails, pairs, np.zeros(len(pairs), np.bool_), None, IDENTICAL)
    found = [
        _matching(thumbnails, *_usable(candidates, codes), MATCH)
        for candidates in (_candidates(codes, features), crop_candidates(thumbnails))
    ]
    return np.unique(np.concatenate(found), axis=0)


def near_duplicates_of(pixels: Pixels, rows: Sequence[int]) -> Pairs:
    """Pairs among the `rows` of decoded images uint8 [N, S, S, C], as positions in `rows`."""
    indices = np.array(rows, np.int64)
    thumbnails = np.empty((len(rows), SIDE, SIDE), np.uint8)
    for start in range(0, len(rows), _DECODED):
        chunk = slice(start, start + _DECODED)
        thumbnails[chunk] = thumbnails_of(pixels[indices[chunk]])
    return find_near_duplicates(thumbnails)


def groups_of(count: int, pairs: Pairs) -> Integers:
    """A group per image, int64 [count]: the lowest index that pairs connect it with."""
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    groups = np.arange(count)
    while True:
        before = groups.copy()
        np.minimum.at(groups, before[one], before[other])
        groups = groups[groups]  # members of a group that has joined another follow
        if np.array_equal(groups, before):
            return groups


def equal_pairs(keys: Sequence[object]) -> Pairs:
    """Pairs that connect each index with the first one of an equal key."""
    first: dict[object, int] = {}
    pairs = [(first.setdefault(key, row), row) for row, key in enumerate(keys)]
    return unique_pairs(np.array(pairs, np.int64).reshape(-1, 2))


def thumbnails_of(pixels: Pixels) -> Thumbnails:
    """uint8 [n, H, W, C] -> uint8 [n, 64, 64]: the mean of the channels, resized."""
    channels = torch.from_numpy(np.array(pixels)).unbind(dim=-1)
    # far faster than a mean over a dimension of three
    images = sum((channel.float() for channel in channels[1:]), channels[0].float())[:, None]
    images /= len(channels)
    larger = min(images.shape[2:]) >= SIDE
    size = (SIDE, SIDE)
    resized = (
        F.interpolate(images, size, mode="area")
        if larger
        else F.interpolate(images, size, mode="bilinear", align_corners=False)
    )
    return resized[:, 0].round().clamp(0, 255).byte().numpy()


def _codes(thumbnails: Thumbnails) -> _Codes:
    hashes: dict[int, list[Bits]] = {side: [] for side in _DISTANCES}
    coarse: list[Floats] = []
    usable: list[Bits] = []
    for start in range(0, len(thumbnails), _BLOCK):
        images = torch.from_numpy(thumbnails[start : start + _BLOCK]).float()
        for side, parts in hashes.items():
            cells = F.adaptive_avg_pool2d(images[:, None], (side, side + 1))[:, 0]
            parts.append((cells[:, :, 1:] > cells[:, :, :-1]).flatten(1).numpy())
        cells = F.avg_pool2d(images[:, None], SIDE // _COARSE)[:, 0]
        rows = cells.flatten(1)
        coarse.append(unit((rows - rows.mean(dim=1, keepdim=True)).numpy()))
        usable.append((images.flatten(1).std(dim=1) > _CONTRAST).numpy())
    joined = {side: np.concatenate(parts) for side, parts in hashes.items()}
    return _Codes(joined, np.concatenate(coarse), np.concatenate(usable))


def _are_drawings(thumbnails: Thumbnails, usable: npt.NDArray[np.bool_]) -> bool:
    """Whether alignment is no evidence, because different images align too."""
    images = np.flatnonzero(usable)
    if len(images) < 3:
        return False
    count = min(_RANDOM_PAIRS, 4 * len(images))
    chance = uniform(0, 0, np.arange(count), 2, "pairs")
    pairs = images[(chance * len(images)).astype(np.int64)]
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    _, detail = align(thumbnails, pairs, np.zeros(len(pairs), np.bool_))
    similar = (detail >= _SIMILAR) & (detail < MATCH[1])  # those above may be copies
    return float(similar.mean()) >= _DRAWINGS


def _matching(
    thumbnails: Thumbnails,
    pairs: Pairs,
    mirrored: npt.NDArray[np.bool_],
    motions: Motions | None,
    bounds: tuple[float, float],
) -> Pairs:
    """Those that match after alignment, the lower index first, sorted, each once."""
    correlation, detail = align(thumbnails, pairs, mirrored, motions)
    return unique_pairs(pairs[(correlation >= bounds[0]) & (detail >= bounds[1])])


def _usable(candidates: Candidates, codes: _Codes) -> Candidates:
    """Without constant images."""
    pairs, mirrored, motions = candidates
    rows = codes.usable[pairs].all(axis=1)
    return Candidates(pairs[rows], mirrored[rows], motions[rows])


def _hash_candidates(codes: _Codes) -> Pairs:
    pairs_by_side = [close_hashes(codes.hashes[side], bits) for side, bits in _DISTANCES.items()]
    pairs = np.unique(np.concatenate(pairs_by_side), axis=0)
    return pairs[codes.usable[pairs].all(axis=1)]


def _candidates(codes: _Codes, features: npt.NDArray[np.float32] | None) -> Candidates:
    """Pairs by coarse pixels, by hashes and by features; a pair may occur mirrored, too."""
    plain, flipped = [_hash_candidates(codes)], [np.zeros((0, 2), np.int64)]
    plain.append(_above(*nearest(codes.coarse, codes.coarse, _NEIGHBOURS), _SIMILARITY))
    if features is not None and len(features) > 1:
        vectors = reduced(features, min(_FEATURE_DIMENSIONS, features.shape[1]))
        neighbours = nearest(vectors, vectors, _FEATURE_NEIGHBOURS)
        similar = _above(*neighbours, _FEATURE_SIMILARITY)
        cells = codes.coarse.reshape(-1, _COARSE, _COARSE)
        first, second = (cells[similar[:, column]] for column in (0, 1))
        as_is = (first * second).sum(axis=(1, 2))
        is_plain = as_is >= (first * second[:, :, ::-1]).sum(axis=(1, 2))
        plain.append(similar[is_plain])
        flipped.append(similar[~is_plain])
    pairs, mirrored = [], []
    for flag, found_pairs in ((False, plain), (True, flipped)):
        unique = np.unique(np.sort(np.concatenate(found_pairs), axis=1), axis=0)
        pairs.append(unique)
        mirrored.append(np.full(len(unique), flag))
    motions = np.tile(np.array(UNMOVED, np.float32), (sum(map(len, pairs)), 1))
    return Candidates(np.concatenate(pairs), np.concatenate(mirrored), motions)


def _above(indices: Integers, similarities: Floats, least: float) -> Pairs:
    rows, columns = np.nonzero((indices >= 0) & (similarities >= least))
    return np.stack([rows, indices[rows, columns]], axis=1)
