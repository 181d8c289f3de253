"""Features and logits of known images -> five scores of how unlike them an image is.

Each score is fitted on reference images and is a function of a new image's features and logits;
higher is more unknown. `SCORES` has them by name. Legend: N images, D features, K classes, M
reference images, R directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from residua.uncertainty.softmax import softmax
from residua.uncertainty.stored import checked_array

Floats = npt.NDArray[np.floating]
Arrays = dict[str, npt.NDArray[Any]]
Fitted = Mapping[str, npt.NDArray[Any]]

MOST_REFERENCES = 2000
MOST_DIRECTIONS = 256
NEIGHBOURS = 5
_BLOCK = 2048  # images at a time, which bounds memory
_SHRINKAGE = 0.1  # of eigenvalues towards their mean
_NORM_SHARE = 0.1  # of the mean projection that the mean norm counts


class Head(NamedTuple):
    """logits = features @ weight.T + bias, without temperature. weight [K, D], bias [K]."""

    weight: Floats
    bias: Floats


class Score(NamedTuple):
    """fit: of features [M, D], labels [M] and the head -> arrays. score: of these, features [N, D]
    and logits [N, K] -> [N]. title, reason: the score, and why an image is unknown, for users.
    uses_head: or only features. stored: type and shape of each array."""

    fit: Callable[[Floats, npt.NDArray[np.int64], Head], Arrays]
    score: Callable[[Fitted, Floats, Floats], Floats]
    title: str
    reason: str
    uses_head: bool
    stored: Mapping[str, tuple[Any, ...]]


def _fit_boundaries(features: Floats, labels: npt.NDArray[np.int64], head: Head) -> Arrays:
    weight = head.weight.astype(np.float64)
    squares = np.square(weight).sum(axis=1)
    gaps = squares[:, None] + squares - 2 * weight @ weight.T
    gaps = np.sqrt(np.maximum(gaps, 0)).astype(np.float32)
    return {"mean": features.mean(axis=0, dtype=np.float64).astype(np.float32), "gaps": gaps}


def _boundaries(fitted: Fitted, features: Floats, logits: Floats) -> Floats:
    """Minus the mean distance to the boundaries with other classes, relative to the distance from
    the mean feature: fDBD (Liu and Qin 2024, equation 6)."""
    best = logits.argmax(axis=1)
    gaps = fitted["gaps"].astype(np.float64)[best]
    behind = logits.max(axis=1, keepdims=True) - logits
    distances = np.where(gaps > 0, behind / np.where(gaps > 0, gaps, 1), 0).sum(axis=1)
    others = max(1, logits.shape[1] - 1)
    return np.asarray(-distances / (others * _length(features - fitted["mean"])))


def _fit_collapse(features: Floats, labels: npt.NDArray[np.int64], head: Head) -> Arrays:
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    weight = head.weight.astype(np.float32)
    logits = features @ head.weight.T + head.bias
    toward = _projection(mean, weight, features, logits)
    norm = np.abs(features).sum(axis=1).mean()
    factor = _NORM_SHARE * abs(float(toward.mean())) / norm if norm > 0 else 0.0
    return {"mean": mean, "weight": weight, "factor": np.array([factor], np.float64)}


def _collapse(fitted: Fitted, features: Floats, logits: Floats) -> Floats:
    """Minus the projection of the weight of the predicted class on the centred feature, and a
    share of its L1 norm: NCI (Liu and Qin 2025, equations 5 and 6)."""
    toward = _projection(fitted["mean"], fitted["weight"], features, logits)
    return np.asarray(-toward - fitted["factor"][0] * np.abs(features).sum(axis=1))


def _projection(mean: Floats, weight: Floats, features: Floats, logits: Floats) -> Floats:
    centred = features - mean
    toward = np.einsum("nd,nd->n", weight[logits.argmax(axis=1)], centred)
    return np.asarray(toward / _length(centred))


def _fit_neighbours(features: Floats, labels: npt.NDArray[np.int64], head: Head) -> Arrays:
    return {"reference": _unit(features).astype(np.float16)}


def _neighbours(fitted: Fitted, features: Floats, logits: Floats) -> Floats:
    """Distance to the k-th nearest reference, of features of length 1 (Sun et al. 2022)."""
    reference = fitted["reference"].astype(np.float32)
    count = min(NEIGHBOURS, len(reference))
    distances = []
    for start in range(0, len(features), _BLOCK):
        similarity = _unit(features[start : start + _BLOCK]) @ reference.T
        similarity.partition(len(reference) - count, axis=1)
        nearest = similarity[:, len(reference) - count]
        distances.append(np.sqrt(np.maximum(2 - 2 * nearest.astype(np.float64), 0)))
    return np.concatenate(distances) if distances else np.zeros(0)


def _fit_mahalanobis(features: Floats, labels: npt.NDArray[np.int64], head: Head) -> Arrays:
    rows = _unit(features).astype(np.float64)
    names, label = np.unique(labels, return_inverse=True)
    means = np.stack([rows[label == k].mean(axis=0) for k in range(len(names))])
    centred = rows - means[label]
    freedom = max(1, len(rows) - len(names))
    variance = float(np.square(centred).sum()) / freedom / rows.shape[1]
    squares, basis = _directions(centred)
    within = (1 - _SHRINKAGE) * squares / freedom + _SHRINKAGE * variance
    rest = _SHRINKAGE * variance + (1 - _SHRINKAGE) * max(
        0.0, variance * rows.shape[1] - float(squares.sum()) / freedom
    ) / max(1, rows.shape[1] - len(squares))
    scales = np.append(within, rest) if rest > 0 else np.append(np.ones_like(within), 1.0)
    return {
        "means": means.astype(np.float32),
        "basis": basis.astype(np.float16),
        "variances": scales.astype(np.float64),
    }


def _directions(centred: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    """The largest squared singular values [R] of [M, D], and their directions [R, D]."""
    rows, columns = centred.shape
    wide = columns > rows
    product = centred @ centred.T if wide else centred.T @ centred
    squares, vectors = np.linalg.eigh(product.astype(np.float32))  # twice as fast as in float64
    squares, vectors = squares.astype(np.float64), vectors.astype(np.float64)
    used = np.flatnonzero(squares > 1e-5 * max(float(squares[-1]), 1e-30))[-MOST_DIRECTIONS:]
    basis = vectors[:, used].T
    if wide:
        basis = (basis / np.sqrt(squares[used])[:, None]) @ centred
    return squares[used], basis


def _mahalanobis(fitted: Fitted, features: Floats, logits: Floats) -> Floats:
    """Mahalanobis distance to the nearest class mean, with one covariance, of features of length 1
    (Mueller and Hein 2025). Beyond the R main directions the covariance is isotropic (Tipping and
    Bishop 1999): R D numbers instead of D D."""
    basis, scales = fitted["basis"].astype(np.float64), fitted["variances"]
    means = fitted["means"].astype(np.float64)
    rows = _unit(features).astype(np.float64)
    # |x|^2 / rest + sum over directions b of (1 / scale - 1 / rest) (b x)^2; x = row - mean
    change = 1 / scales[:-1] - 1 / scales[-1]
    inside, centre = rows @ basis.T, means @ basis.T
    whole = np.square(rows).sum(1)[:, None] + np.square(means).sum(1) - 2 * rows @ means.T
    within = (
        (np.square(inside) @ change)[:, None]
        + np.square(centre) @ change
        - 2 * (inside * change) @ centre.T
    )
    return np.asarray((whole / scales[-1] + within).min(axis=1))


def _fit_probability(features: Floats, labels: npt.NDArray[np.int64], head: Head) -> Arrays:
    return {}


def _probability(fitted: Fitted, features: Floats, logits: Floats) -> Floats:
    """One minus the maximum probability (Hendrycks and Gimpel 2017)."""
    return np.asarray(1 - softmax(logits).max(axis=1))


def _length(rows: Floats) -> Floats:
    return np.asarray(np.maximum(np.linalg.norm(rows, axis=1), 1e-12))


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / _length(rows)[:, None])


_SINGLE, _HALF, _DOUBLE = np.float32, np.float16, np.float64
_MEAN = {"mean": (_SINGLE, "D")}
SCORES: Mapping[str, Score] = {
    "fdbd": Score(
        _fit_boundaries,
        _boundaries,
        "distance to the decision boundaries (fDBD)",
        "no class clearly preferred",
        True,
        {**_MEAN, "gaps": (_SINGLE, "K", "K")},
    ),
    "nci": Score(
        _fit_collapse,
        _collapse,
        "neural collapse (NCI)",
        "unlike its predicted class",
        True,
        {**_MEAN, "weight": (_SINGLE, "K", "D"), "factor": (_DOUBLE, 1)},
    ),
    "knn": Score(
        _fit_neighbours,
        _neighbours,
        "distance to the nearest training images",
        "far from every training image",
        False,
        {"reference": (_HALF, "M", "D")},
    ),
    "mahalanobis": Score(
        _fit_mahalanobis,
        _mahalanobis,
        "Mahalanobis distance to the nearest class",
        "far from every class",
        False,
        {"means": (_SINGLE, "C", "D"), "basis": (_HALF, "R", "D"), "variances": (_DOUBLE, "S")},
    ),
    "probability": Score(
        _fit_probability,
        _probability,
        "maximum probability",
        "no class clearly preferred",
        True,
        {},
    ),
}


def combined(parts: Sequence[Floats], centres: Floats, scales: Floats) -> npt.NDArray[np.float64]:
    """One score [N] of the scores [N] of each part.

    A part alone counts as it is. Several are standardised, by mean and standard deviation of known
    images, and added as exponentials of half of them: high if one of them is high, so that a
    foreign image to which the network assigns a class with confidence does not become known. The
    first, a distance, counts as much as the others together.
    """
    if len(parts) == 1:
        return parts[0].astype(np.float64)
    standard = [(part - c) / (2 * s) for part, c, s in zip(parts, centres, scales, strict=True)]
    standard[0] = standard[0] + math.log(len(standard) - 1)
    return np.asarray(np.logaddexp.reduce(standard, axis=0))


def standardisation(parts: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Centres and scales of finite scores [N] of each part; a constant one has scale 1."""
    values = [part[np.isfinite(part)] for part in parts]
    centres = np.array([part.mean() if len(part) else 0.0 for part in values])
    scales = np.array([part.std() if len(part) else 0.0 for part in values])
    return centres, np.where(scales > 0, scales, 1.0)


def checked_arrays(name: str, columns: int, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The arrays that the score needs, and no others. Raises ValueError."""
    names = name.split("+")
    sizes: dict[str, int] = {"D": columns}
    checked = {
        key: checked_array(arrays, key, np.float64, (len(names),)) for key in ("centres", "scales")
    }
    for part in names:
        for field, (dtype, *shape) in SCORES[part].stored.items():
            expected = tuple(sizes.get(size) if isinstance(size, str) else size for size in shape)
            key = f"{part}.{field}"
            checked[key] = checked_array(arrays, key, dtype, expected)
            sizes.update(
                (size, length)
                for size, length in zip(shape, checked[key].shape, strict=True)
                if isinstance(size, str)
            )
    variances, basis = checked.get("mahalanobis.variances"), checked.get("mahalanobis.basis")
    fits = variances is None or basis is None or len(variances) == len(basis) + 1
    if not fits or (variances is not None and not (variances > 0).all()):
        raise ValueError("unknown images: variances are not positive, or not one a direction.")
    if not (checked["scales"] > 0).all() or 0 in {sizes.get(size) for size in "KCM"}:
        raise ValueError("unknown images: a scale is not positive, or an array is empty.")
    return checked
