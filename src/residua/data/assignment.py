"""Settings and the readable images of a data set -> the lines of split.csv, and notes on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from residua.config import auto
from residua.config.auto import Chooser
from residua.config.schema import AUTO, Config
from residua.data import split
from residua.data.cache import Decoded, Survey
from residua.data.dataset import SPLITS, Dataset, SplitName
from residua.data.folder import FolderDataset, keras_listing
from residua.data.random import Integers
from residua.data.split import Member
from residua.errors import ResiduaError


def assign_splits(
    chooser: Chooser,
    surveyed: Survey,
    decoded: Decoded,
    groups: Sequence[str],
    readable: Sequence[int],
    recorded: Sequence[Member] | None,
) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    """The split of each readable image, and warnings about it."""
    dataset = surveyed.dataset
    entries = [dataset.entries[at] for at in readable]
    is_explicit = chooser.config.data.val_fraction != AUTO
    defined = {entry.split for entry in entries}
    auto.choose_validation(chooser, len(readable), len(dataset.classes), defined)
    data = chooser.config.data
    images = [
        (entry.path, dataset.classes[entry.label], surveyed.sha256[at])
        for at, entry in zip(readable, entries, strict=True)
    ]
    sizes: list[str] = []
    unused: list[str] = []
    if recorded is not None:
        names = _recorded_split(data.path, recorded, images)
    elif data.split == "keras":
        names = _keras_split(chooser.config, dataset, [entry.path for entry in entries])
    else:
        names, sizes = split.stratified(entries, groups, data)
        unused = [
            f"{flag} {fraction:g} has no effect: the data set has its own {name} set"
            for name, flag, fraction, was_set in (
                ("validation", "--val-fraction", data.val_fraction, is_explicit),
                ("test", "--test-fraction", data.test_fraction, True),
            )
            if name in defined and was_set and fraction > 0
        ]
    counts = Counter(groups)
    members = tuple(
        Member(path, label, name, sha256, decoded.digests[at], group if counts[group] > 1 else "")
        for at, (path, label, sha256), name, group in zip(
            readable, images, names, groups, strict=True
        )
    )
    class_notes = split.class_notes(members, dataset.classes)
    overlaps = split.overlap_notes(members)
    return members, (*split.label_notes(members), *sizes, *class_notes, *overlaps, *unused)


def _recorded_split(
    path: str, recorded: Sequence[Member], images: Sequence[tuple[str, str, str]]
) -> list[SplitName]:
    """The splits in split.csv. images: (path, label, SHA-256). Raises ResiduaError if changed."""
    splits = {(member.path, member.label, member.sha256): member.split for member in recorded}
    if different := sorted(splits.keys() ^ set(images)):
        number = len({image for image, *_ in different})
        raise ResiduaError(
            f"{path}: has changed since the run was created: {number:,} new, missing or changed "
            f"images differ from split.csv, the first is {different[0][0]}. Restore the data, or "
            "train again."
        )
    return [splits[image] for image in images]


def _keras_split(config: Config, dataset: Dataset, paths: Sequence[str]) -> list[SplitName]:
    """The split that Keras' image_dataset_from_directory would choose."""
    flat = all(entry.split is None for entry in dataset.entries)
    others = config.data.test_fraction or config.data.fixes
    if not isinstance(dataset, FolderDataset) or not flat or others:
        raise ResiduaError(
            f"{config.data.path}: --split keras divides a folder of class folders into training "
            "and validation, and nothing else. Use --split stratified."
        )
    validation = set(
        split.keras(
            keras_listing(dataset.root),
            val_fraction=config.data.val_fraction,
            seed=config.data.split_seed,
        )
    )
    return ["validation" if path in validation else "train" for path in paths]


def by_split(readable: Sequence[int], members: Sequence[Member]) -> dict[SplitName, Integers]:
    """The indices of the entries of each split."""
    names = np.array([member.split for member in members])
    return {name: np.array(readable, np.int64)[names == name] for name in SPLITS}
