"""Correct predictions and properties of images -> slices in which the accuracy is lower.

Many slices are compared, so that the worst one is low by chance alone. The test takes this into
account: correctness is permuted, and the worst slice of each permutation is the yardstick (the
maximum statistic: Westfall and Young 1993, section 2.3). Permuted within classes, so that a
difficult class is no slice. Legend: N images, U units (groups of images that belong together), B
permutations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from residua.data.dataset import ColumnValues, Header, Pixels
from residua.data.properties import FEW
from residua.data.random import Integers
from residua.uncertainty.intervals import wilson_interval

LEVEL = 0.05  # of a false alarm, for all slices together
SHARES = (0.1, 0.25, 0.5)  # of the images, that are a slice at either end of a number
LEAST = 10  # units of a slice
LONGEST = 60  # characters of a description
SHOWN = 3
MOST = 10_000  # units that are examined, evenly spaced
PERMUTATIONS, BLOCK = 1000, 50
SPLIT_FOLDERS = {"train", "training", "test", "val", "valid", "validation"}


@dataclass(frozen=True)
class Slice:
    """Images in which the accuracy is significantly lower than their classes explain.

    description: such as "brightness below 41". images: in the slice, counting images that belong
    together once. accuracy: there. interval: 95 % for all examined slices together. elsewhere:
    accuracy of the other images. p_value: adjusted for the search. examined: slices.
    """

    description: str
    images: int
    accuracy: float
    interval: tuple[float, float]
    elsewhere: float
    p_value: float
    examined: int

    def to_json(self) -> dict[str, object]:
        """Plain data with the keys of the fields."""
        return {**asdict(self), "interval": list(self.interval)}


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A slice to examine. inside: bool [U]."""

    name: str
    description: str
    inside: npt.NDArray[np.bool_]


def find_slices(
    correct: npt.NDArray[np.bool_],
    labels: Integers,
    properties: Mapping[str, ColumnValues],
    groups: Sequence[str] = (),
) -> tuple[Slice, ...]:
    """The worst slices, the worst first: at most one for each property, and 3; usually none.

    correct: bool [N]. labels: int64 [N]. properties: name -> a value for each image, "" or NaN
    where there is none. groups: see `compute_metrics`; a group counts as one image.
    """
    first, shares = _units(correct, groups)
    if len(first) > MOST:
        kept = np.arange(MOST) * len(first) // MOST
        first, shares = first[kept], shares[kept]
    classes = labels[first]
    residuals = shares - _class_means(shares, classes)
    candidates = [
        candidate
        for name, values in properties.items()
        for candidate in _candidates(name, values, first)
    ]
    inside = np.array([candidate.inside for candidate in candidates], np.float32)
    if not residuals.any() or not len(candidates):
        return ()
    spread = _spread(inside, residuals, classes)
    usable = spread > 1e-6
    candidates = [candidate for candidate, use in zip(candidates, usable, strict=True) if use]
    inside, spread = inside[usable], spread[usable]
    if not len(candidates):
        return ()
    scores = -(inside @ residuals.astype(np.float32)) / spread
    worst = _worst_of_permutations(inside, residuals, classes, spread)
    critical = float(np.quantile(worst, 1 - LEVEL, method="higher"))
    found: dict[str, Slice] = {}
    for index in np.argsort(-scores, kind="stable").tolist():
        p_value = float((1 + (worst >= scores[index] - 1e-6).sum()) / (1 + PERMUTATIONS))
        candidate = candidates[index]
        if p_value > LEVEL or len(found) == SHOWN:
            break
        if candidate.name not in found:
            found[candidate.name] = _slice(candidate, shares, p_value, critical, len(candidates))
    return tuple(found.values())


def properties_of(
    paths: Sequence[str],
    headers: Sequence[Header | None],
    pixels: Pixels,
    classes: Sequence[str],
    columns: Mapping[str, ColumnValues],
) -> dict[str, ColumnValues]:
    """The properties by which images are divided: size, aspect, brightness, format, folder.

    pixels: uint8 [N, S, S, C], as decoded for the network. classes: names of class folders, which
    are no property. columns: further ones, of a table.
    """
    sizes = np.array([(h.width, h.height) if h else (math.nan, math.nan) for h in headers])
    sizes = sizes.reshape(-1, 2).astype(np.float64)
    step = max(1, pixels.shape[1] // 32)
    brightness = np.array([image[::step, ::step].mean() for image in pixels], np.float64)
    return {
        "shorter side in px": sizes.min(axis=1),
        "width / height": sizes[:, 0] / sizes[:, 1],
        "brightness (0 to 255)": brightness,
        "file format": [header.format if header else "" for header in headers],
        "folder": _folders(paths, classes),
        **columns,
    }


def _folders(paths: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The folders of a path without those of its class and split."""
    known = {*classes, *SPLIT_FOLDERS}
    parents = (PurePosixPath(path).parent.parts for path in paths)
    return ["/".join(part for part in parts if part not in known) for parts in parents]


def _units(
    correct: npt.NDArray[np.bool_], groups: Sequence[str]
) -> tuple[Integers, npt.NDArray[np.float64]]:
    """The first image of each unit, int64 [U], and the share of its images that are correct."""
    keys = [group or f"\0{index}" for index, group in enumerate(groups)] or range(len(correct))
    numbers: dict[object, int] = {}
    unit_of = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    _, first = np.unique(unit_of, return_index=True)
    return first, np.bincount(unit_of, correct) / np.bincount(unit_of)


def _class_means(values: npt.NDArray[np.float64], classes: Integers) -> npt.NDArray[np.float64]:
    sums, counts = np.bincount(classes, values), np.bincount(classes)
    return np.asarray((sums / np.maximum(counts, 1))[classes])


def _candidates(name: str, values: ColumnValues, first: Integers) -> list[_Candidate]:
    """The slices of a property: both ends of a number, each frequent text."""
    if isinstance(values, np.ndarray):
        return _ends(name, values[first])
    texts = [values[index] for index in first.tolist()]
    frequent = Counter(text for text in texts if text).most_common(FEW)
    slices = [
        _Candidate(name, _line(f"{name} {text}"), np.array([other == text for other in texts]))
        for text, _ in frequent
    ]
    return [candidate for candidate in slices if _is_sizable(candidate.inside)]


def _ends(name: str, numbers: npt.NDArray[np.float64]) -> list[_Candidate]:
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return []
    slices = []
    for share in SHARES:
        low, high = np.quantile(known, share), np.quantile(known, 1 - share)
        below, above = (_line(f"{name} {text}") for text in ("below", "above"))
        slices.append(_Candidate(name, f"{below} {_figure(low)}", numbers < low))
        slices.append(_Candidate(name, f"{above} {_figure(high)}", numbers > high))
    return [candidate for candidate in slices if _is_sizable(candidate.inside)]


def _line(text: str) -> str:
    """A text of any origin as one short line."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _figure(number: float) -> str:
    """A number with three digits, or all of its whole digits, as of a year."""
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def _is_sizable(inside: npt.NDArray[np.bool_]) -> bool:
    return LEAST <= int(inside.sum()) <= len(inside) - LEAST


def _spread(
    inside: npt.NDArray[np.float32], residuals: npt.NDArray[np.float64], classes: Integers
) -> npt.NDArray[np.float32]:
    """Standard deviation of each slice's sum of residuals under permutation within classes [S].

    Of m of the n residuals of a class, drawn without replacement: m (1 - m / n) times their
    variance.
    """
    variance = np.zeros(len(inside))
    for label in np.unique(classes):
        members = classes == label
        number = int(members.sum())
        if number > 1:
            drawn = inside[:, members].sum(axis=1)
            variance += drawn * (1 - drawn / number) * residuals[members].var(ddof=1)
    return np.sqrt(variance).astype(np.float32)


def _worst_of_permutations(
    inside: npt.NDArray[np.float32],
    residuals: npt.NDArray[np.float64],
    classes: Integers,
    spread: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """The largest score of any slice in each permutation, float32 [B]."""
    random = np.random.default_rng(0)
    order = np.argsort(classes, kind="stable")
    by_class = residuals[order].astype(np.float32)
    offsets = classes[order].astype(np.float32)
    ordered = inside[:, order]
    worst = []
    for _ in range(0, PERMUTATIONS, BLOCK):
        keys = offsets + 0.999 * random.random((BLOCK, len(order)), np.float32)
        shuffled = by_class[np.argsort(keys, axis=1)]
        worst.append((-(ordered @ shuffled.T) / spread[:, None]).max(axis=0))
    return np.concatenate(worst)


def _slice(
    candidate: _Candidate,
    shares: npt.NDArray[np.float64],
    p_value: float,
    critical: float,
    examined: int,
) -> Slice:
    inside = candidate.inside
    accuracy = float(shares[inside].mean())
    confidence = 2 * NormalDist().cdf(max(critical, NormalDist().inv_cdf(0.975))) - 1
    return Slice(
        candidate.description,
        int(inside.sum()),
        accuracy,
        wilson_interval(accuracy, int(inside.sum()), min(confidence, 1 - 1e-9)),
        float(shares[~inside].mean()),
        p_value,
        examined,
    )
