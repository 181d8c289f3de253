"""Readable images (path, label, content key, given part) -> the part of each; knows no pixels.

Two rules: `stratified`, the same on every platform, and `keras`, which repeats the choice of Keras'
image_dataset_from_directory.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from residua.data.dataset import SPLITS, SplitName
from residua.errors import ResiduaError


@dataclass(frozen=True)
class Member:
    """A line of split.csv: one readable image of the data set."""

    path: str
    label: str
    split: SplitName
    sha256: str


@dataclass(frozen=True)
class Split:
    """The part of every image, in the order they were given, and what the user should know."""

    parts: tuple[SplitName, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Group:
    """Images of equal content, which are never separated; `counts` is label -> images."""

    members: tuple[int, ...]
    counts: Counter[int]
    size: int


def stratified(
    paths: Sequence[str],
    labels: Sequence[int],
    contents: Sequence[str],
    parts: Sequence[SplitName | None],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    classes: Sequence[str] = (),
) -> Split:
    """Cut the parts that the data set does not give itself.

    The four sequences run over the readable images: relative path with '/', class index, a key
    that is equal for equal bytes, and the part given by the data set or None. A missing part is cut
    from the images given for training or not given at all, N in number: exactly
    floor(fraction x N) of the decimal that was typed. Classes share it by largest remainder; within
    a class SHA-256 of seed, part and path decides, so that the choice depends on no platform, no
    library and no order of the input, and a grown set keeps most of its parts. Images of equal
    content stay together; where that forbids the exact number, the part gets the nearest attainable
    number below (test first, then validation from what it leaves) and a note says so. Given parts
    are never changed. `classes` are names for the messages.

    Raises ResiduaError if a fraction is outside [0, 1) or a class has no training image left.
    """
    pool = [index for index, part in enumerate(parts) if part in (None, "train")]
    fractions: dict[SplitName, float] = {"test": test_fraction, "validation": val_fraction}
    targets = {
        part: _share(fraction, len(pool), part)
        for part, fraction in fractions.items()
        if part not in parts
    }
    if sum(targets.values()) >= len(pool):
        taken = " and ".join(f"{number} for {part}" for part, number in targets.items())
        raise ResiduaError(
            f"Of {len(pool)} readable images, {taken or 'given parts'} leave none for training: "
            "add images, or give a smaller --val-fraction or --test-fraction."
        )
    result: list[SplitName] = [part or "train" for part in parts]
    notes = []
    counts = Counter(labels[index] for index in pool)
    for part, target in targets.items():
        left = [index for index in pool if result[index] == "train"]
        groups = _groups(left, paths, labels, contents, f"{seed}/{part}")
        cut = [member for group in _cut(groups, counts, target) for member in group.members]
        for member in cut:
            result[member] = part
        notes += _size_notes(part, len(cut), target, fractions[part], len(pool))
    notes += class_notes(paths, labels, result, classes)
    notes += overlap_notes(paths, contents, result)
    return Split(tuple(result), tuple(notes))


def keras(listing: Sequence[str], *, val_fraction: float, seed: int) -> list[str]:
    """The validation paths of image_dataset_from_directory(validation_split, seed, shuffle=True).

    `listing`: the paths in Keras' order, that is classes sorted by name, within a class the folders
    sorted, then their files sorted. Keras 3 (keras/src/utils/dataset_utils.py, index_directory and
    get_training_or_validation_split) shuffles them with NumPy's frozen legacy generator and takes
    the last int(fraction x N), computed in floating point; so does this, in that order.

    Raises ResiduaError if the fraction is outside [0, 1) or gives no image at all, where Keras
    would leave nothing for training.
    """
    _share(val_fraction, len(listing), "validation")
    if val_fraction == 0:
        return []
    size = int(val_fraction * len(listing))
    if size == 0:
        raise ResiduaError(
            f"--split keras: {val_fraction} of {len(listing)} images is none, and Keras would "
            "train on nothing. Give a larger --val-fraction, or use --split stratified."
        )
    shuffled = list(listing)
    np.random.RandomState(seed).shuffle(shuffled)
    return shuffled[len(shuffled) - size :]


def _share(fraction: float, total: int, part: str) -> int:
    """floor(fraction x total) of the decimal as typed: .1 of 30 is 3, whatever binary says."""
    exact = Fraction(str(fraction))
    if not 0 <= exact < 1:
        raise ResiduaError(f"A {part} fraction of {fraction} is not at least 0 and below 1.")
    return int(exact * total)


def _groups(
    indices: Iterable[int],
    paths: Sequence[str],
    labels: Sequence[int],
    contents: Sequence[str],
    purpose: str,
) -> list[_Group]:
    """Groups of equal content in hash order; the order is the random choice of the split."""
    members: dict[str, list[int]] = {}
    for index in indices:
        members.setdefault(contents[index], []).append(index)

    def place(path: str) -> tuple[bytes, str]:
        # NFC, because macOS may list the same name decomposed
        text = f"{purpose}/{unicodedata.normalize('NFC', path)}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest(), path

    ordered = sorted(members.values(), key=lambda group: min(place(paths[i]) for i in group))
    return [_Group(tuple(own), Counter(labels[i] for i in own), len(own)) for own in ordered]


def _cut(groups: Sequence[_Group], counts: Mapping[int, int], target: int) -> list[_Group]:
    """Groups of `target` images in all, or the nearest below; `counts` are the class sizes."""
    left: Counter[int] = Counter()
    for group in groups:
        left.update(group.counts)
    room = _quotas(counts, left, target)
    chosen: list[_Group] = []
    rest: list[_Group] = []
    for group in groups:
        if all(n <= room[label] for label, n in group.counts.items()):
            chosen.append(group)
            room.subtract(group.counts)
            left.subtract(group.counts)
        else:
            rest.append(group)
    missing = target - sum(group.size for group in chosen)
    # Groups larger than what their class still lacks: the largest lack first, a class at most once.
    for group in sorted(rest, key=lambda group: -max(room[label] for label in group.counts)):
        fits = group.size <= missing and any(room[label] > 0 for label in group.counts)
        if fits and all(left[label] > n for label, n in group.counts.items()):
            chosen.append(group)
            rest.remove(group)
            room.subtract(group.counts)
            left.subtract(group.counts)
            missing -= group.size
    return _nearest(chosen, rest, target) if missing else chosen


def _quotas(counts: Mapping[int, int], left: Mapping[int, int], target: int) -> Counter[int]:
    """Images of each class in a part of `target`: largest remainder of target x count / total.

    Ties go to the lower label. A seat that would take the last training image of a class is given
    only when no other is free.
    """
    total = sum(counts.values())
    quotas: Counter[int] = Counter()
    for label, count in sorted(counts.items()):
        quotas[label] = min(target * count // total, max(left.get(label, 0) - 1, 0))
    for _ in range(target - sum(quotas.values())):
        free = [label for label in quotas if quotas[label] < left.get(label, 0)]
        lack = {label: target * counts[label] - quotas[label] * total for label in free}
        best = min(free, key=lambda label: (left[label] - quotas[label] == 1, -lack[label], label))
        quotas[best] += 1
    return quotas


def _nearest(chosen: list[_Group], rest: list[_Group], target: int) -> list[_Group]:
    """Groups with the largest attainable sum up to `target`, as like `chosen` as that allows.

    The smallest group of each class is held back for training if the sum can do without.
    """
    by_size = sorted((*chosen, *rest), key=lambda group: -group.size)
    held = set({label: group for group in by_size for label in group.counts}.values())
    first, then = ([group for group in some if group not in held] for some in (chosen, rest))
    sizes, sparing = _sizes(chosen, rest, target), _sizes(first, then, target)
    if sum(sparing.elements()) == sum(sizes.elements()):
        sizes, chosen, rest = sparing, first, then
    picked = []
    for group in (*chosen, *rest):
        if sizes[group.size]:
            sizes[group.size] -= 1
            picked.append(group)
    return picked


def _sizes(chosen: Sequence[_Group], rest: Sequence[_Group], target: int) -> Counter[int]:
    """Exact subset sum: size -> number of groups, with the largest sum up to `target`.

    Dynamic programming over bit sets (bit s: sum s can be reached). Equal sizes are bundled,
    so that 50,000 pairs are 16 items.
    """
    preferred = _bundles(chosen)
    items = [*preferred, *_bundles(rest)]
    reach = [1]
    for size, times in items:
        reach.append((reach[-1] | reach[-1] << size * times) & ((2 << target) - 1))
    total = reach[-1].bit_length() - 1
    taken: Counter[int] = Counter()
    for position in reversed(range(len(items))):
        size, times = items[position]
        before = total - size * times
        skip = reach[position] >> total & 1 and position >= len(preferred)
        if before >= 0 and reach[position] >> before & 1 and not skip:
            taken[size] += times
            total = before
    return taken


def _bundles(groups: Iterable[_Group]) -> list[tuple[int, int]]:
    """(size, times) such that sums of some of them are all the sums of some of the groups."""
    bundles = []
    for size, number in sorted(Counter(group.size for group in groups).items()):
        while number:
            bundles.append((size, (number + 1) // 2))
            number //= 2
    return bundles


def _size_notes(part: SplitName, size: int, target: int, fraction: float, total: int) -> list[str]:
    if size < target:
        return [
            f"The {part} part has {size} images, not {target}: images with equal bytes stay in "
            f"one part, and {size} is the nearest number below that whole groups of them give."
        ]
    if target == 0 and fraction > 0:
        return [f"There is no {part} part: {fraction} of {total} images is less than one."]
    return []


def class_notes(
    paths: Sequence[str], labels: Sequence[int], result: Sequence[SplitName], classes: Sequence[str]
) -> list[str]:
    """Notes on classes missing from a part; raises ResiduaError if one is missing from training."""
    example = dict(sorted(zip(labels, paths, strict=True), reverse=True))  # its first path
    present: dict[SplitName, set[int]] = {part: set() for part in SPLITS}
    for label, part in zip(labels, result, strict=True):
        present[part].add(label)

    def missing(part: SplitName) -> str:
        return ", ".join(
            repr(classes[label]) if label < len(classes) else f"{label} (like {example[label]})"
            for label in sorted(example.keys() - present[part])
        )

    if lost := missing("train"):
        raise ResiduaError(
            f"No training image of class {lost}: a network cannot learn it. "
            "Add images, take the class out, or give smaller fractions."
        )
    return [
        f"The {part} part has no image of class {lost}."
        for part in SPLITS
        if present[part] and (lost := missing(part))
    ]


def overlap_notes(
    paths: Sequence[str], contents: Sequence[str], result: Sequence[SplitName]
) -> list[str]:
    """Notes on equal content in two parts, which only parts given by the data set can bring."""
    ordered = sorted(zip(paths, contents, result, strict=True))
    notes = []
    for first, second in itertools.combinations(SPLITS, 2):
        known = {content: path for path, content, part in reversed(ordered) if part == first}
        twins = [(p, known[c]) for p, c, part in ordered if part == second and c in known]
        if twins:
            notes.append(
                f"In both the {first} and the {second} part, byte for byte: {len(twins)} of "
                f"{result.count(second)} {second} images, for example {twins[0][0]} = "
                f"{twins[0][1]}. The parts are given, so they stay; {second} figures "
                "look better than they are."
            )
    return notes
