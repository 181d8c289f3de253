"""Entries of readable images and their groups -> the split of each; reads no pixels.

Two strategies: `stratified`, equal on every platform, and `keras`, which selects the validation
files of Keras' image_dataset_from_directory.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter

import numpy as np

from residua.config.schema import Data
from residua.data.dataset import SPLITS, Entry, SplitName
from residua.errors import ResiduaError
from residua.system.words import agreeing, counted


@dataclass(frozen=True)
class Member:
    """A row of split.csv: one readable image of the data set.

    path: relative to the data set. label: name of its class. sha256: of its content. pixels:
    SHA-256 of its decoded pixels; "" in runs that did not record it. group: equal for images that
    belong together, such as near-duplicates; "" for an image by itself.
    """

    path: str
    label: str
    split: SplitName
    sha256: str
    pixels: str = ""
    group: str = ""

    @property
    def digests(self) -> frozenset[str]:
        """The image's identity: two with a common digest have the same pixels."""
        return frozenset((self.sha256, self.pixels)) - {""}


@dataclass(frozen=True, eq=False)
class _Group:
    """Images that stay together; members: indices, counts: images per label."""

    members: tuple[int, ...]
    counts: Counter[int]


def stratified(
    entries: Sequence[Entry], groups: Sequence[str], data: Data
) -> tuple[list[SplitName], list[str]]:
    """Draw the splits that the data set does not define itself; and notes on their sizes.

    entries: of the readable images; splits that they define never change. groups: a key per image,
    equal for images that must share a split. data: fractions and seed.

    A missing split is drawn from the N images that are for training or in no split, test first:
    floor(fraction x N) of the decimal as written. Classes share it by largest remainder. Within a
    class the order is that of SHA-256(seed, split, path), so the result depends on no platform, no
    library and no order of the input, and changes little when images are added. Images of a
    group stay together; if the last group does not fit, the split is smaller, with a note.

    Raises ResiduaError if a fraction is outside [0, 1) or no image is left for training.
    """
    pool = [index for index, entry in enumerate(entries) if entry.split in (None, "train")]
    present = {entry.split for entry in entries}
    fractions: dict[SplitName, float] = {
        "test": data.test_fraction,
        "validation": data.val_fraction,
    }
    targets = {
        split: _share(fraction, len(pool), split)
        for split, fraction in fractions.items()
        if split not in present
    }
    if sum(targets.values()) >= len(pool):
        taken = " and ".join(f"{number} for {split}" for split, number in targets.items())
        raise ResiduaError(
            f"Of {len(pool)} readable images, {taken or 'predefined splits'} leave none for "
            "training: add images, or use a smaller --val-fraction or --test-fraction."
        )
    result: list[SplitName] = [entry.split or "train" for entry in entries]
    notes = []
    counts = Counter(entries[index].label for index in pool)
    for split, target in targets.items():
        left = [index for index in pool if result[index] == "train"]
        drawable = _groups(left, entries, groups, f"{data.split_seed}/{split}")
        drawn = [member for group in _draw(drawable, counts, target) for member in group.members]
        for member in drawn:
            result[member] = split
        notes += _size_notes(split, len(drawn), target, fractions[split], len(pool))
    return result, notes


def keras(listing: Sequence[str], *, val_fraction: float, seed: int) -> list[str]:
    """The validation paths of image_dataset_from_directory(validation_split, seed, shuffle=True).

    listing: paths in Keras' order: by class, then folder, then file name. Keras 3
    (keras/src/utils/dataset_utils.py, index_directory and get_training_or_validation_split)
    shuffles them with NumPy's legacy generator and takes the last int(fraction x N), computed in
    floating point; so does this.

    Raises ResiduaError if the fraction is outside [0, 1) or selects no image, where Keras would
    leave nothing for training.
    """
    _share(val_fraction, len(listing), "validation")
    if val_fraction == 0:
        return []
    size = int(val_fraction * len(listing))
    if size == 0:
        raise ResiduaError(
            f"--split keras: {val_fraction} of {len(listing)} images is none, and Keras would "
            "train on nothing. Use a larger --val-fraction, or --split stratified."
        )
    shuffled = list(listing)
    np.random.RandomState(seed).shuffle(shuffled)
    return shuffled[len(shuffled) - size :]


def _share(fraction: float, total: int, split: str) -> int:
    """floor(fraction x total) of the decimal as written: 0.1 of 30 is 3, despite binary floats."""
    exact = Fraction(str(fraction))
    if not 0 <= exact < 1:
        raise ResiduaError(f"The {split} fraction is {fraction}: expected at least 0, below 1.")
    return int(exact * total)


def _groups(
    indices: Iterable[int], entries: Sequence[Entry], keys: Sequence[str], purpose: str
) -> list[_Group]:
    """Groups of equal keys, in hash order: this order is the random choice of the split.

    Each has the rank of one image, its first path: by the lowest of all its images, large groups
    would come first.
    """
    members: dict[str, list[int]] = {}
    for index in indices:
        members.setdefault(keys[index], []).append(index)

    def name(index: int) -> str:
        # NFC: macOS may list the same name decomposed.
        return unicodedata.normalize("NFC", entries[index].path)

    def rank(group: Sequence[int]) -> tuple[bytes, str]:
        first = min(group, key=name)
        text = f"{purpose}/{name(first)}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        return digest, entries[first].path

    ordered = sorted(members.values(), key=rank)
    return [_Group(tuple(group), Counter(entries[i].label for i in group)) for group in ordered]


def _draw(groups: Sequence[_Group], counts: Mapping[int, int], target: int) -> list[_Group]:
    """At most `target` images in whole groups; counts: label -> images of all groups before.

    First, in order, the groups of each class until one exceeds the class's quota. The largest that
    fit fill the quotas: if small ones did, they would be drawn more often than large ones. Then, by
    the largest lack of a class, groups that exceed it, then any that fit `target`: no group that
    still fits is left, unless a class would have no training image.
    """
    left: Counter[int] = Counter()
    for group in groups:
        left.update(group.counts)
    room = _quotas(counts, left, target)
    drawn: list[_Group] = []
    rest: list[_Group] = []

    def take(group: _Group) -> None:
        drawn.append(group)
        room.subtract(group.counts)
        left.subtract(group.counts)

    def fits(group: _Group) -> bool:
        return all(count <= room[label] for label, count in group.counts.items())

    full: set[int] = set()
    for group in groups:
        if not fits(group):
            full |= group.counts.keys()
        if full.isdisjoint(group.counts):
            take(group)
        else:
            rest.append(group)
    rest.sort(key=lambda group: -len(group.members))
    for group in list(rest):
        if fits(group):
            take(group)
            rest.remove(group)
    rest.sort(key=lambda group: -max(room[label] for label in group.counts))
    missing = target - sum(len(group.members) for group in drawn)
    for only_lacking in (True, False):
        for group in list(rest):
            if (
                len(group.members) <= missing
                and all(left[label] > count for label, count in group.counts.items())
                and (not only_lacking or any(room[label] > 0 for label in group.counts))
            ):
                take(group)
                rest.remove(group)
                missing -= len(group.members)
    return drawn


def _quotas(counts: Mapping[int, int], left: Mapping[int, int], target: int) -> Counter[int]:
    """Label -> images of the class in a split of `target`, by largest remainder.

    Ties go to the lower label. The last training image of a class is taken only if there is no
    other.
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


def _size_notes(split: SplitName, size: int, target: int, fraction: float, total: int) -> list[str]:
    if size < target:
        return [
            f"The {split} set has {counted(size, 'image')}, not {target}: identical images, near-"
            "duplicates and groups stay together, and the next of these does not fit."
        ]
    if target == 0 and fraction > 0:
        return [f"There is no {split} set: {fraction} of {total} images is less than one."]
    return []


def class_notes(members: Sequence[Member], classes: Sequence[str]) -> list[str]:
    """Notes on classes that a split lacks. Raises ResiduaError if the training set lacks one."""
    present = {split: {m.label for m in members if m.split == split} for split in SPLITS}
    readable = set().union(*present.values())

    def missing(split: SplitName) -> str:
        return ", ".join(name for name in classes if name in readable - present[split])

    if lost := missing("train"):
        raise ResiduaError(
            f"The training set has no images of: {lost}. Add images, remove the class, or use "
            "smaller fractions."
        )
    return [
        f"The {split} set has no images of: {lost}."
        for split in SPLITS
        if present[split] and (lost := missing(split))
    ]


def shared(contents: Sequence[str]) -> int:
    """The number of images whose content another one has too."""
    return sum(count for count in Counter(contents).values() if count > 1)


def label_notes(members: Sequence[Member]) -> list[str]:
    """A note on equal pixels in several classes."""
    copies: dict[str, list[Member]] = {}
    for member in sorted(members, key=attrgetter("path")):
        copies.setdefault(member.pixels, []).append(member)
    twins = [group for group in copies.values() if len({member.label for member in group}) > 1]
    if not twins:
        return []
    first, *others = twins[0]
    second = next(member for member in others if member.label != first.label)
    return [
        f"{sum(map(len, twins)):,} images with identical pixels in different classes, for example "
        f"{first.path} = {second.path}: their labels contradict each other. Remove the wrong "
        "copies."
    ]


def overlap_notes(members: Sequence[Member]) -> list[str]:
    """Notes on equal pixels in two splits, which only predefined splits can have."""
    ordered = sorted(members, key=attrgetter("path"))
    notes = []
    for earlier, later in itertools.combinations(SPLITS, 2):
        known = {
            member.pixels: member.path for member in reversed(ordered) if member.split == earlier
        }
        images = [member for member in ordered if member.split == later]
        twins = [(m.path, known[m.pixels]) for m in images if m.pixels in known]
        if twins:
            notes.append(
                f"{len(twins)} of {counted(len(images), f'{later} image')} "
                f"{agreeing(len(twins), 'is', 'are')} pixel for pixel in the {earlier} set too, "
                f"for example {twins[0][0]} = {twins[0][1]}. The splits are predefined and stay as "
                f"they are: {later} metrics are optimistic."
            )
    return notes


def near_duplicate_notes(members: Sequence[Member], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Notes on near-duplicates under two labels, and in two predefined splits.

    pairs: of indices of members. Those with equal pixels have notes of their own.
    """
    near = [(members[low], members[high]) for low, high in pairs]
    near = [(first, second) for first, second in near if first.pixels != second.pixels]
    notes = []
    contradicting = [(first, second) for first, second in near if first.label != second.label]
    if contradicting:
        first, second = contradicting[0]
        number = len({member.path for pair in contradicting for member in pair})
        notes.append(
            f"{number:,} images with near-duplicates in different classes, such as {first.path} "
            f"and {second.path}: if both show the same thing, a label is wrong."
        )
    for earlier, later in itertools.combinations(SPLITS, 2):
        across = {
            image.path: twin.path
            for pair in near
            for image, twin in (pair, pair[::-1])
            if (image.split, twin.split) == (later, earlier)
        }
        if across:
            path, twin_path = min(across.items())
            total = sum(member.split == later for member in members)
            notes.append(
                f"{len(across)} of {counted(total, f'{later} image')} "
                f"{agreeing(len(across), 'is a near-duplicate', 'are near-duplicates')} of images "
                f"in the {earlier} set, for example {path} of {twin_path}. The splits are "
                f"predefined and stay as they are: {later} metrics are optimistic."
            )
    return notes
