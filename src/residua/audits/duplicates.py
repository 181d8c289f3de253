"""Thumbnails, pixel hashes and features of images -> findings about copies, and their groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from residua.audits.finding import Example, Finding, Severity
from residua.audits.images import AuditImages
from residua.data.dataset import SPLITS
from residua.data.fixes import Fix
from residua.data.near_duplicates import equal_pairs, find_near_duplicates, groups_of
from residua.data.neighbours import Pairs
from residua.data.random import Integers
from residua.system.words import counted


@dataclass(frozen=True, eq=False)
class Copies:
    """exact, near: pairs int64 [P, 2] of images with equal pixels, and of other near-duplicates.

    alike: a group of each image, int64 [N], of both. groups: the same, and of --group-by.
    """

    exact: Pairs
    near: Pairs
    alike: Integers
    groups: Integers


def find_copies(images: AuditImages, near: Pairs | None = None) -> Copies:
    """Compare all images of a data set. near: pairs of near-duplicates, if these are known."""
    count = len(images.rows)
    exact = equal_pairs(images.digests)
    found = _near_duplicates(images) if near is None else near
    known = {tuple(pair) for pair in exact.tolist()}
    first = np.arange(count)
    for low, high in exact.tolist():
        first[high] = min(first[high], low)
    is_new = [
        tuple(pair) not in known and first[pair[0]] != first[pair[1]] for pair in found.tolist()
    ]
    near = found[np.array(is_new, np.bool_)]
    named = equal_pairs([name or f"\0{row}" for row, name in enumerate(images.group_names)])
    pairs = np.concatenate([exact, near])
    groups = groups_of(count, np.concatenate([pairs, named]))
    return Copies(exact, near, groups_of(count, pairs), groups)


def _near_duplicates(images: AuditImages) -> Pairs:
    is_complete = len(images.featured) == len(images.rows)
    features = images.features if is_complete else None
    return find_near_duplicates(images.thumbnails, features)


def check_duplicates(images: AuditImages, copies: Copies) -> list[Finding]:
    """Copies under two labels, in two splits, and within a class."""
    labels, splits = images.labels, np.array([split or "" for split in images.splits])
    findings = []
    for pairs, what, is_exact in (
        (copies.exact, "identical pixels", True),
        (copies.near, "near-duplicates", False),
    ):
        first, second = pairs[:, 0], pairs[:, 1]
        contradicts = labels[first] != labels[second]
        crosses = splits[first] != splits[second]
        prefix = "identical" if is_exact else "near-duplicates"
        findings += [
            _contradictions(images, pairs[contradicts], prefix, what, is_exact),
            _across_splits(images, pairs[crosses], prefix, what),
            _within(images, pairs[~contradicts & ~crosses], prefix, what, is_exact),
        ]
    findings.append(_groups_across_splits(images, copies))
    return [finding for finding in findings if finding is not None]


def _contradictions(
    images: AuditImages, pairs: Pairs, prefix: str, what: str, is_exact: bool
) -> Finding | None:
    members = np.unique(pairs)
    reason = f"{what} under two labels"
    return _finding(
        images,
        pairs,
        f"{prefix}-across-classes",
        "error" if is_exact else "warning",
        f"{counted(len(members), 'image')} with {what} in different classes",
        "At least one label of each pair is wrong: correct it, or exclude both."
        if is_exact
        else "Look at both images: if they show the same thing, a label is wrong.",
        [Fix(images.paths[row], "exclude", reason=reason) for row in members] if is_exact else (),
    )


def _across_splits(images: AuditImages, pairs: Pairs, prefix: str, what: str) -> Finding | None:
    """The copy in the earlier split (training first) is the one to exclude."""
    order = {split: n for n, split in enumerate(SPLITS)}
    paths, splits = images.paths, images.splits
    fixes, excluded = [], set()
    for pair in pairs.tolist():
        row = min(pair, key=lambda row: order.get(splits[row] or "train", 0))
        if row not in excluded:
            excluded.add(row)
            fixes.append(Fix(paths[row], "exclude", reason=f"{what} in another split"))
    return _finding(
        images,
        pairs,
        f"{prefix}-across-splits",
        "error",
        f"{counted(len(np.unique(pairs)), 'image')} with {what} in different splits",
        "Metrics on such images are too optimistic: exclude the copy in the training set.",
        fixes,
    )


def _within(
    images: AuditImages, pairs: Pairs, prefix: str, what: str, is_exact: bool
) -> Finding | None:
    members = np.unique(pairs)
    group_of = groups_of(len(images.rows), pairs)
    extra = [int(row) for row in members if group_of[row] != row]
    reason = f"{what} of another image"
    return _finding(
        images,
        pairs,
        f"{prefix}-within-class",
        "note",
        f"{counted(len(members), 'image')} with {what} in the same class",
        "A split that `train` draws keeps them together."
        if is_exact
        else "A split that `train` draws keeps the near-duplicates together that it finds at the "
        "network's input size. If they are of one patient, object or burst, use --group-by: other "
        "images of it may differ more.",
        [Fix(images.paths[row], "exclude", reason=reason) for row in extra] if is_exact else (),
    )


def _groups_across_splits(images: AuditImages, copies: Copies) -> Finding | None:
    """Groups of --group-by in several splits."""
    splits: dict[str, dict[str, int]] = {}
    for row, (name, split) in enumerate(zip(images.group_names, images.splits, strict=True)):
        if name and split:
            splits.setdefault(name, {}).setdefault(split, row)
    crossing = {name: rows for name, rows in splits.items() if len(rows) > 1}
    if not crossing:
        return None
    return Finding(
        "groups-across-splits",
        "error",
        f"{counted(len(crossing), 'group')} of --group-by with images in different splits",
        len(crossing),
        "Metrics are too optimistic: move each group into one split.",
        tuple(
            Example(images.paths[row], f"group {name}, {split}")
            for name, rows in crossing.items()
            for split, row in rows.items()
        ),
    )


def _finding(
    images: AuditImages,
    pairs: Pairs,
    kind: str,
    severity: Severity,
    title: str,
    action: str,
    fixes: Sequence[Fix],
) -> Finding | None:
    """A finding about the images of `pairs`, each listed once, copies of each other in a row: the
    first and an image that it is paired with, then the others."""
    if not len(pairs):
        return None
    examples = []
    for rows in copies_by_group(len(images.rows), pairs):
        first, second, *others = (images.paths[row] for row in rows)
        more = f" and {len(others)} more" if others else ""
        examples += [Example(first, f"= {second}{more}"), *map(Example, (second, *others))]
    count = len(np.unique(pairs))
    return Finding(kind, severity, title, count, action, tuple(examples), tuple(fixes))


def copies_by_group(count: int, pairs: Pairs) -> list[list[int]]:
    """The images that `pairs` connect, of all `count`: of each group the lowest index, the image
    that it is paired with first, and the others in order."""
    partners: dict[int, int] = {}
    for one, other in pairs.tolist():
        partners.setdefault(one, other)
        partners.setdefault(other, one)
    group_of = groups_of(count, pairs).tolist()
    groups: dict[int, list[int]] = {}
    for row in np.unique(pairs).tolist():
        groups.setdefault(group_of[row], []).append(row)
    return [
        [row, partners[row], *(other for other in rest if other != partners[row])]
        for row, *rest in groups.values()
    ]
