"""The decoded images of DATA, their splits, and settings without any "auto"."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from residua.config import auto, parse
from residua.config.auto import Choice
from residua.config.schema import Config
from residua.data import split
from residua.data.assignment import by_split
from residua.data.batches import DecodedImages, SampleWeights, TrainingBatches
from residua.data.dataset import Dataset, Header, Pixels, SplitName
from residua.data.measurements import Measured
from residua.data.neighbours import Pairs
from residua.data.random import Integers
from residua.data.split import Member


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs of the data.

    config: no value is "auto"; choices: those that were, with their reasons.
    headers, pixels, labels: a row per entry; pixels uint8 [N, S, S, C], labels int64 [N].
    measured: the same, or empty, see Decoded.
    splits: indices of the readable entries of each split.
    members: the lines of split.csv. groups: a key of each, equal for images that must share a split
    or a fold. near: pairs of positions in `members`, near-duplicates; empty if not searched.
    duplicates: readable images whose pixels another image has too.
    notes: warnings about the data.
    """

    config: Config
    choices: tuple[Choice, ...]
    dataset: Dataset
    device: torch.device
    headers: Sequence[Header | None]
    pixels: Pixels
    measured: Sequence[Measured | None]
    labels: Integers
    splits: dict[SplitName, Integers]
    members: tuple[Member, ...]
    groups: tuple[str, ...]
    near: Pairs
    unreadable: tuple[tuple[str, str], ...]
    duplicates: int
    notes: tuple[str, ...]

    def counts(self, name: SplitName) -> list[int]:
        """Images per output of the network in a split; outputs beyond the classes count 0."""
        outputs = max(len(self.dataset.classes), self.config.network.classes)
        counts: list[int] = np.bincount(self.labels[self.splits[name]], minlength=outputs).tolist()
        return counts

    @property
    def readable(self) -> Integers:
        """Indices of the readable entries, ascending: those of `members`."""
        return np.sort(np.concatenate(list(self.splits.values())))

    def groups_of(self, samples: Integers) -> list[str]:
        """The group of each of these readable entries."""
        return [self.groups[at] for at in np.searchsorted(self.readable, samples)]

    def group_numbers(self, samples: Integers) -> Integers:
        """A number for each of these readable entries, equal within a group; int64 [N]."""
        return np.unique(self.groups_of(samples), return_inverse=True)[1].astype(np.int64)

    @property
    def has_own_splits(self) -> bool:
        """Whether the dataset itself assigns images to splits."""
        return any(entry.split for entry in self.dataset.entries)

    @property
    def training_members(self) -> Integers:
        """Entries that are trained on: the training set, or training.max_images of it."""
        return thinned(self.splits["train"], self.config.training.max_images)

    @cached_property
    def weights(self) -> SampleWeights | None:
        """The weight of each entry in training, float64 [N], with mean 1 over the training members;
        None if all weights are equal."""
        weights = np.array([entry.weight for entry in self.dataset.entries], np.float64)
        weights /= weights[self.training_members].mean()
        return None if np.ptp(weights[self.training_members]) == 0 else weights

    def weights_of(self, samples: Integers) -> SampleWeights | None:
        """`weights` of these entries."""
        return None if self.weights is None else self.weights[samples]

    def eval_splits(self, limit: int = 0) -> dict[str, Integers]:
        """The splits evaluated after each epoch: validation, test if training.curve_test is set.

        limit: of validation images, evenly spaced; 0: all.
        """
        splits: dict[str, Integers] = {"validation": thinned(self.splits["validation"], limit)}
        if self.config.training.curve_test:
            splits["test"] = self.splits["test"]
        return {name: members for name, members in splits.items() if len(members)}

    def training_batches(self) -> TrainingBatches:
        """Augmented batches of the training set on the device."""
        config = self.config
        return TrainingBatches(
            DecodedImages(self.pixels, self.device),
            self.labels,
            self.training_members,
            classes=config.network.classes,
            batch_size=config.training.batch_size,
            seed=config.training.seed,
            preprocessing=config.preprocessing,
            augmentation=config.augmentation,
            weights=self.weights,
        )

    def is_explicit(self, setting: str) -> bool:
        """Whether the user set this value, so that no automatic choice may change it."""
        return auto.is_explicit(self.config, self.choices, setting)

    def choose(self, setting: str, value: object, reason: str) -> Prepared:
        """The same with an automatic setting changed; an explicit one stays."""
        if self.is_explicit(setting):
            return self
        config = parse.with_settings(self.config, {setting: value})
        others = (choice for choice in self.choices if choice.setting != setting)
        choices = (*others, Choice(setting, value, reason))
        return dataclasses.replace(self, config=config, choices=choices)

    @property
    def summary(self) -> str:
        """One line: images, classes, splits, unreadable files, duplicates."""
        counts = ", ".join(
            f"{len(members):,} {name}"
            for name, members in self.splits.items()
            if name == "train" or len(members)
        )
        if (used := len(self.training_members)) < len(self.splits["train"]):
            counts = f"{used:,} of {counts}"
        return (
            f"{len(self.members):,} images in {len(self.dataset.classes):,} classes: {counts}; "
            f"{len(self.unreadable):,} unreadable, {self.duplicates:,} with identical pixels"
        )


def with_validation_set(prepared: Prepared, fraction: float, reason: str) -> Prepared:
    """Draw a validation set from the training set, as if data.val_fraction had been set at first;
    the test set stays as it is."""
    prepared = prepared.choose("data.val_fraction", fraction, reason)
    readable = prepared.readable.tolist()
    entries = [prepared.dataset.entries[at] for at in readable]
    names, _ = split.stratified(entries, prepared.groups, prepared.config.data)
    members = tuple(
        dataclasses.replace(member, split=name)
        for member, name in zip(prepared.members, names, strict=True)
    )
    return dataclasses.replace(prepared, members=members, splits=by_split(readable, members))


def without_validation_set(prepared: Prepared, reason: str) -> Prepared:
    """The validation images join the training set."""
    prepared = prepared.choose("data.val_fraction", 0.0, reason)
    members = tuple(
        dataclasses.replace(member, split="train") if member.split == "validation" else member
        for member in prepared.members
    )
    splits = by_split(prepared.readable.tolist(), members)
    return dataclasses.replace(prepared, members=members, splits=splits)


def thinned(members: Integers, limit: int) -> Integers:
    """At most `limit` members, evenly spaced; 0: all."""
    if not 0 < limit < len(members):
        return members
    return members[np.arange(limit) * len(members) // limit]
