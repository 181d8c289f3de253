"""Training and evaluated images -> accuracies that need no network: of the majority class, and of
thumbnails of 8 x 8 px.

A network that is no better than a thumbnail has found colours or layout, not what an image shows.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from residua.data.dataset import Pixels
from residua.data.prepared import Prepared, thinned
from residua.data.random import Integers
from residua.evaluation.metrics import MAJORITY
from residua.inference.logistic import fit_logistic
from residua.inference.regressions import Floats

SIDE = 8  # px of a thumbnail
MOST = 5000  # training images
MOST_CLASSES = 100  # for logistic regression, whose time grows with classes
C = 0.01  # inverse regularisation strength on standardised pixels
BLOCK = 256  # thumbnails whose distances are computed at once
CHUNK = 16  # images that are averaged at once: more are not faster, and take memory as float32


def baselines(prepared: Prepared, evaluated: Integers) -> dict[str, float]:
    """Accuracies in [0, 1] on the entries `evaluated`, int64 [N], of predictions without a network
    that are fitted on the training set, by name."""
    train = thinned(prepared.splits["train"], MOST)
    labels, truth = prepared.labels[train], prepared.labels[evaluated]
    counts = np.bincount(prepared.labels[prepared.splits["train"]])
    found = {MAJORITY: float((truth == counts.argmax()).mean())}
    known, queries = (thumbnails(prepared.pixels, rows) for rows in (train, evaluated))
    nearest = labels[_nearest(known, queries)]
    found[f"{SIDE} x {SIDE} thumbnail, 1-NN"] = float((nearest == truth).mean())
    classes = len(prepared.dataset.classes)
    if classes <= MOST_CLASSES:
        head = fit_logistic(known, labels, classes, C)
        predicted = (queries @ head.weight.T + head.bias).argmax(axis=1)
        name = f"{SIDE} x {SIDE} thumbnail, logistic regression"
        found[name] = float((predicted == truth).mean())
    return found


def thumbnails(pixels: Pixels, rows: Integers) -> Floats:
    """Rows of images uint8 [M, S, S, C], averaged to 8 x 8 px: float32 [N, 64 C] in 0..1."""
    found = []
    for start in range(0, len(rows), CHUNK):
        block = torch.from_numpy(np.ascontiguousarray(pixels[rows[start : start + CHUNK]]))
        small = F.adaptive_avg_pool2d(block.permute(0, 3, 1, 2).float(), SIDE)
        found.append(small.flatten(1).numpy() / 255)
    return np.concatenate(found)


def _nearest(known: Floats, queries: Floats) -> Integers:
    """The nearest of `known` [M, D] for each of `queries` [N, D], int64 [N]."""
    squares = np.square(known).sum(axis=1)
    found = []
    for start in range(0, len(queries), BLOCK):
        distances = squares - 2 * queries[start : start + BLOCK] @ known.T
        found.append(distances.argmin(axis=1))
    return np.concatenate(found).astype(np.int64)
