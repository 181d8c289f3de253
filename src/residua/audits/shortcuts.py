"""Measurements, labels, groups -> findings about what predicts the class without the content.

A small decision tree per family of measurements is cross-validated; a class that it recognises far
above chance can be recognised by a network in the same way (Geirhos et al. 2020, "Shortcut learning
in deep neural networks"). Legend: N images, D measurements, K classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from residua.audits import decision_tree
from residua.audits.discriminants import classify
from residua.audits.finding import Example, Finding
from residua.audits.images import AuditImages, file_suffix
from residua.data.measurements import Measured
from residua.data.random import Integers, uniform
from residua.inference.logistic import folds_of
from residua.system.words import joined, percent

Table = npt.NDArray[np.float64]  # [N, D]

LEAF, DEPTH = 4, 4  # images at least in a leaf, and depth of the tree
MOST = 10_000  # images that are examined
MIN_CLASS = 10  # images of a class
RECOGNISED = 0.8  # F1 of a class, from which on a family predicts it
COLOUR_RECOGNISED = 0.9  # the same of the mean colour, which may be what the class means
VALUES = 12  # most frequent texts that become a column each
MEANINGFUL = 48  # px: median shorter side from which on 8 x 8 px or the border hide the content
BLURRED_GAP = 0.02  # accuracy that the network must gain over the blurred thumbnail
_SHRINKAGE = 0.1  # of the discriminants of thumbnails
_ADVICE = "Make it equal for all classes, such as by converting all images in the same way."
_OF_SOURCES = (
    "The network does not see it, but classes from different sources may differ in other ways that "
    "it does see: add images of each class from the other sources, or evaluate on new images."
)


def check_shortcuts(
    images: AuditImages, groups: Integers, network_accuracy: float | None
) -> list[Finding]:
    """Findings about metadata and thumbnails that predict classes.

    network_accuracy: cross-validated on features; None: not known.
    """
    labels = images.labels
    counts = np.bincount(labels, minlength=len(images.classes))
    rows = np.flatnonzero(counts[labels] >= MIN_CLASS)
    if len(rows) > MOST:
        chance = uniform(0, 0, rows, 1, "shortcuts")[:, 0]
        rows = np.sort(rows[np.argsort(chance)[:MOST]])
    if len(np.unique(labels[rows])) < 2:
        return []
    folds = folds_of(labels[rows], [str(groups[row]) for row in rows], 0)
    findings: list[Finding] = []
    paths = images.paths
    measured = [images.measured[row] for row in rows.tolist()]
    tables = _tables(measured, [paths[row] for row in rows.tolist()])
    tables["the file name"] = _names([paths[row] for row in rows.tolist()], images, labels[rows])
    short = np.median([min(m.header.width, m.header.height) for m in images.measured])
    if short < MEANINGFUL:
        del tables["the border"]
    for family, table in tables.items():
        if not len(table.T) or not np.ptp(table, axis=0).any():
            continue
        predicted = _predicted(table, labels[rows], folds)
        limit = COLOUR_RECOGNISED if family == "the mean colour" else RECOGNISED
        finding = _finding(family, images, rows, predicted, limit)
        findings += [finding] if finding else []
    if network_accuracy is not None and short >= MEANINGFUL:
        findings += _blurred(images, rows, folds, network_accuracy)
    return findings


def _tables(measured: Sequence[Measured], paths: Sequence[str]) -> dict[str, Table]:
    """Family -> its measurements."""
    headers = [m.header for m in measured]
    sizes = np.array([(h.width, h.height) for h in headers], np.float64)
    size = np.column_stack([sizes, sizes[:, 0] / sizes[:, 1]])
    texts = [f"{h.format} {h.mode} .{file_suffix(p)}" for h, p in zip(headers, paths, strict=True)]
    return {
        "the image size": size,
        "the file format": _columns(texts),
        "the JPEG compression": np.array([m.quantisation for m in measured])[:, None],
        "the mean colour": np.array([m.colour for m in measured]),
        "the colour cast": _white(measured),
        "the border": np.array(
            [
                ((m.border[0] + 1) / (m.brightness + 1), m.border[1] / (m.contrast + 1))
                for m in measured
            ]
        ),
        "the EXIF camera": _columns([m.camera for m in measured]),
    }


def _white(measured: Sequence[Measured]) -> Table:
    """Largest R, G, B, and their ratios, which a colour cast limits."""
    white = np.array([m.white for m in measured], np.float64)
    return np.column_stack([white, (white[:, [0, 2, 2]] + 1) / (white[:, [1, 1, 0]] + 1)])


def _columns(texts: Sequence[str]) -> Table:
    """A 0/1 column for each of the most frequent texts."""
    frequent = [text for text, _ in Counter(texts).most_common(VALUES)]
    return np.array([[float(text == value) for value in frequent] for text in texts])


def _names(paths: Sequence[str], images: AuditImages, labels: Integers) -> Table:
    """Letters, length and number of a file name, without an abbreviation of its class."""
    stems = [PurePosixPath(path).stem.casefold() for path in paths]
    letters = [re.sub(r"[\W\d_]+", " ", stem).strip() for stem in stems]
    first = [text.partition(" ")[0] for text in letters]
    names = [re.sub(r"[\W\d_]+", "", name.casefold()) for name in images.classes]
    is_class = [_abbreviates(word, names[label]) for word, label in zip(first, labels, strict=True)]
    # such as the b of batch_1, which is no abbreviation of bird
    shared = {word for word, is_own in zip(first, is_class, strict=True) if not is_own}
    words = [
        "" if is_own and word not in shared else text[:12]
        for text, word, is_own in zip(letters, first, is_class, strict=True)
    ]
    with_class = any(
        not word and re.search(r"[^\W\d_]", s) for word, s in zip(words, stems, strict=True)
    )
    numbers = [re.findall(r"\d+", stem) for stem in stems]
    digits = [float(sum(map(len, parts))) for parts in numbers]
    if with_class:  # named after their class, so that length and numbers follow from the class
        return _columns(words)
    return np.column_stack([_columns(words), digits, [float(len(stem)) for stem in stems]])


def _abbreviates(word: str, name: str) -> bool:
    """Whether the letters of `word` are in `name` in this order, from its first letter on."""
    rest = iter(name)
    return bool(word) and name[:1] == word[:1] and all(letter in rest for letter in word)


def _predicted(table: Table, labels: Integers, folds: Integers) -> Integers:
    """Classes predicted by a small tree that was trained on the other folds."""
    predicted = np.zeros_like(labels)
    for fold in np.unique(folds):
        train = folds != fold
        predicted[~train] = decision_tree.predict(
            table[train], labels[train], table[~train], depth=DEPTH, leaf=LEAF
        )
    return predicted


def _finding(
    family: str, images: AuditImages, rows: Integers, predicted: Integers, limit: float
) -> Finding | None:
    """A finding if the predictions recognise a class."""
    labels = images.labels[rows]
    shares = {}
    for label in np.unique(labels):
        true, called = labels == label, predicted == label
        hits = int((true & called).sum())
        f1 = 2 * hits / (true.sum() + called.sum())
        if f1 >= limit and f1 > _by_chance(float(true.mean())):
            shares[int(label)] = f1
    if not shares:
        return None
    names = joined([images.classes[label] for label in shares])
    majority = np.bincount(labels).max() / len(labels)
    accuracy = (predicted == labels).mean()
    found = np.flatnonzero(np.isin(labels, list(shares)) & (predicted == labels))
    verb = "recognises" if len(shares) < len(images.classes) else "predicts the class:"
    return Finding(
        f"shortcut-{family.split()[-1]}",
        "warning",
        f"{family[0].upper() + family[1:]} alone {verb} {names} (cross-validated "
        f"accuracy of a decision tree {percent(accuracy)}; always the largest class: "
        f"{percent(majority)})",
        len(found),
        _OF_SOURCES if family in ("the file name", "the EXIF camera") else _ADVICE,
        tuple(Example(images.paths[rows[n]], images.classes[labels[n]]) for n in found),
    )


def _by_chance(share: float) -> float:
    """An F1 that no one would call recognition: calling every image a frequent class, and more."""
    always = 2 * share / (1 + share)
    return always + 0.5 * (1 - always)


def _blurred(
    images: AuditImages, rows: Integers, folds: Integers, network_accuracy: float
) -> list[Finding]:
    """Whether the nearest blurred thumbnail predicts the class as well as the network."""
    labels = images.labels[rows]
    pixels = np.float32(1 / 255) * images.blurred[rows].reshape(len(rows), -1)
    accuracy = float((_linear(pixels, labels, folds) == labels).mean())
    majority = float(np.bincount(labels).max() / len(labels))
    if accuracy < network_accuracy - BLURRED_GAP or accuracy < majority + 0.5 * (1 - majority):
        return []
    return [
        Finding(
            "shortcut-thumbnail",
            "warning",
            "Thumbnails of 8 x 8 px predict the class as well as the network: "
            f"{percent(accuracy)} against {percent(network_accuracy)} cross-validated accuracy",
            len(rows),
            "Colour or layout alone separate the classes: check that this holds where the model "
            "will be used.",
        )
    ]


def _linear(values: npt.NDArray[np.float32], labels: Integers, folds: Integers) -> Integers:
    """Classes predicted by linear discriminants that were fitted on the other folds."""
    predicted = np.zeros_like(labels)
    for fold in np.unique(folds):
        train = folds != fold
        predicted[~train] = classify(values[train], labels[train], values[~train], _SHRINKAGE)
    return predicted
