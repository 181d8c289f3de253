"""Grey thumbnails -> vectors of what is fine in each image and in its crops; pairs that are alike.

A copy that was cropped is the nearest neighbour of a crop of its original, also where all images
have the same coarse layout, as scans do. Legend: N images, V = 10 views of each: the image and nine
crops of about nine tenths, D = 64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from residua.data.alignment import SIDE, UNMOVED, Motions, Thumbnails, equal_contrast
from residua.data.neighbours import Axes, Floats, Pairs, nearest, principal_axes, unit

_CROP = 58  # px of 64
_STARTS = (0, 3, 6)  # px from the left and the top
_BOXES = ((0, 0, SIDE), *((top, left, _CROP) for top in _STARTS for left in _STARTS))
_CELLS = 12  # side of the grid that is compared
_DIMENSIONS = 64
_NEIGHBOURS = 10
_SIMILARITY = 0.6  # cosine; crops have .8 and more, few pairs of different photos .6
_BLOCK = 1024  # images
_SAMPLE = 4096  # images that give the axes, or all of fewer


class Candidates(NamedTuple):
    """pairs: int64 [P, 2]; a pair may occur twice, mirrored and not. mirrored: bool [P], whether
    the second image is to be mirrored. motions: float32 [P, 4], of the second image, from which
    alignment starts."""

    pairs: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]
    motions: Motions


def crop_candidates(thumbnails: Thumbnails) -> Candidates:
    """Pairs where the first image is like a view of the second; each once, or twice if mirrored."""
    sample = thumbnails[:: max(1, len(thumbnails) // _SAMPLE)]
    axes = principal_axes(_views(sample, mirrored=False)[0], _DIMENSIONS)
    vectors = _vectors(thumbnails, axes, mirrored=False)
    images = vectors[0].copy()
    found = [_similar(images, vectors)]
    del vectors  # before those of the mirrored images need as much memory
    found.append(_similar(images, _vectors(thumbnails, axes, mirrored=True)))
    pairs, views, similarities = (np.concatenate(parts) for parts in zip(*found, strict=True))
    mirrored = np.arange(len(pairs)) >= len(found[0][0])
    best = np.argsort(-similarities, kind="stable")
    keys = np.column_stack([np.sort(pairs, axis=1), mirrored])[best]
    rows = best[np.unique(keys, axis=0, return_index=True)[1]]
    motions = np.array([_motion(box) for box in _BOXES], np.float32)
    return Candidates(pairs[rows], mirrored[rows], motions[views[rows]])


def _vectors(thumbnails: Thumbnails, axes: Axes, *, mirrored: bool) -> Floats:
    """The views on the main axes, float32 [V, N, D], of unit length: 2.5 KB an image."""
    vectors = np.empty((len(_BOXES), len(thumbnails), axes.directions.shape[1]), np.float32)
    for start in range(0, len(thumbnails), _BLOCK):
        block = slice(start, start + _BLOCK)
        for number, view in enumerate(_views(thumbnails[block], mirrored=mirrored)):
            vectors[number, block] = unit((view - axes.mean) @ axes.directions)
    return vectors


def _views(thumbnails: Thumbnails, *, mirrored: bool) -> Floats:
    """float32 [V, n, 144]."""
    images = torch.from_numpy(thumbnails)[:, None].float()
    images = images.flip(-1) if mirrored else images
    views = [
        F.adaptive_avg_pool2d(images[..., top : top + side, left : left + side], _CELLS)
        for top, left, side in _BOXES
    ]
    return torch.stack([equal_contrast(view, 2).flatten(1) for view in views]).numpy()


def _similar(images: Floats, views: Floats) -> tuple[Pairs, npt.NDArray[np.int64], Floats]:
    """Pairs (image, image of the view), the views and similarities."""
    indices, similarities = nearest(images, views, _NEIGHBOURS)
    rows, columns = np.nonzero((indices >= 0) & (similarities >= _SIMILARITY))
    found, view = indices[rows, columns], np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK):
        pairs = slice(start, start + _BLOCK)
        products = np.einsum("vpd,pd->vp", views[:, rows[pairs]], images[found[pairs]])
        view[pairs] = products.argmax(axis=0)
    return np.stack([found, rows], axis=1), view, similarities[rows, columns]


def _motion(box: tuple[int, int, int]) -> tuple[float, ...]:
    """Scale x, y and shift x, y of the image that has the crop, in coordinates of -1..1."""
    top, left, side = box
    if side == SIDE:
        return UNMOVED
    scale = side / SIDE
    return scale, scale, (2 * left + side) / SIDE - 1, (2 * top + side) / SIDE - 1
