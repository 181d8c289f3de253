"""Settings and DATA -> decoded images, their parts, and settings without any "auto"."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from residua.config import auto, parse
from residua.config.auto import Choice, Chooser
from residua.config.schema import AUTO, Config, NetworkSpec, Preprocessing
from residua.data import split
from residua.data.batches import DecodedImages, TrainingBatches, measure_colours
from residua.data.cache import Survey, grey, load, median_size, survey
from residua.data.dataset import SPLITS, Dataset, Header, Pixels, SplitName
from residua.data.folder import FolderDataset, keras_listing
from residua.data.open import EMBEDDED, open_dataset
from residua.data.random import Integers
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.system.console import Console
from residua.system.device import device_named, fast_bf16


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs of the data.

    headers, pixels (uint8 [N, S, S, C]) and labels (int64 [N]) have a row for each entry of the
    source. parts: entry numbers of the readable images of each part. members: the lines of
    split.csv. duplicates: readable images beyond the first of each group of equal bytes.
    """

    config: Config
    choices: list[Choice]
    source: Dataset
    device: torch.device
    headers: Sequence[Header | None]
    pixels: Pixels
    labels: Integers
    splits: dict[SplitName, Integers]
    members: list[Member]
    unreadable: list[tuple[str, str]]
    duplicates: int
    notes: list[str]

    def counts(self, part: SplitName) -> list[int]:
        """Images of each output of the network in a part; the classes come first."""
        outputs = max(len(self.source.classes), self.config.network.classes)
        found = np.bincount(self.labels[self.splits[part]], minlength=outputs)
        return [int(each) for each in found]

    @property
    def has_own_splits(self) -> bool:
        """Whether the data set says of images to which part they belong."""
        return any(each.split for each in self.source.entries)

    def training_batches(
        self, device: torch.device, members: Integers | None = None
    ) -> TrainingBatches:
        """The training part, or `members` of it, as the settings want it, on a device."""
        config = self.config
        return TrainingBatches(
            DecodedImages(self.pixels, device),
            self.labels,
            self.splits["train"] if members is None else members,
            classes=config.network.classes,
            batch=config.training.batch_size,
            seed=config.training.seed,
            preprocessing=config.preprocessing,
            augmentation=config.augmentation,
        )

    @property
    def summary(self) -> str:
        """What was found, in a line."""
        counts = ", ".join(
            f"{len(members):,} for {'training' if part == 'train' else part}"
            for part, members in self.splits.items()
            if part == "train" or len(members)
        )
        duplicates = "duplicate" if self.duplicates == 1 else "duplicates"
        return (
            f"Found {len(self.members):,} images in {len(self.source.classes)} classes; "
            f"{counts}; {len(self.unreadable):,} unreadable, "
            f"{self.duplicates:,} exact {duplicates}"
        )


def prepare(
    config: Config, console: Console, start: tuple[NetworkSpec, Preprocessing] | None = None
) -> Prepared:
    """Look at the data, decode it once, split it and resolve every "auto". Raises ResiduaError.

    start: of the weights that a training begins with; what belongs to them is chosen first.
    """
    chooser = Chooser(config)
    if start is not None:
        auto.choose_from_weights(chooser, *start)
    auto.choose_device(chooser, torch.cuda.is_available())
    device = device_named(chooser.config.training.device)
    auto.choose_precision(chooser, fast_bf16(device))
    source = open_dataset(config.data.path)
    console.print(f"{config.data.path}: {source.description}")
    if config.data.path != EMBEDDED:
        absolute = str(Path(config.data.path).expanduser().absolute())  # to be found from anywhere
        data = dataclasses.replace(config.data, path=absolute)
        chooser.config = dataclasses.replace(chooser.config, data=data)
    if len(source.classes) < 2:
        raise ResiduaError(
            f"{config.data.path}: has the single class {source.classes[0]!r}: a classifier "
            "needs at least two class folders."
        )
    with console.bar("looking") as move:
        surveyed = survey(source, config.data.max_pixels, console.reporter(move))
    if not any(surveyed.headers):
        raise ResiduaError(_nothing_readable(config.data.path, surveyed))
    is_grey = grey(surveyed)
    auto.choose_geometry(chooser, min(median_size(surveyed)), is_grey)
    preprocessing = chooser.config.preprocessing
    parse.check_colours(preprocessing, "preprocessing")
    with console.bar("decoding") as move:
        decoded = load(
            surveyed,
            preprocessing,
            config.data.max_pixels,
            config.data.cache,
            console.reporter(move),
        )
    cache = "file" if isinstance(decoded.pixels, np.memmap) else "memory"
    chooser.choose("data.cache", cache, decoded.where)
    unreadable = list(source.rejected)
    unreadable += [(source.entries[each].path, why) for each, why in decoded.failures.items()]
    if unreadable and config.data.unreadable == "fail":
        raise ResiduaError(
            f"{config.data.path}: {len(unreadable)} files cannot be read, the first is "
            f"{unreadable[0][0]}: {unreadable[0][1]}. --unreadable list leaves them out."
        )
    readable = [each for each in range(len(source.entries)) if each not in decoded.failures]
    if not readable:
        raise ResiduaError(f"{config.data.path}: none of its images can be read.")
    lost = set(range(len(source.classes))) - {source.entries[each].label for each in readable}
    if lost:
        raise ResiduaError(
            f"{config.data.path}: no image of class {source.classes[min(lost)]!r} can be read, "
            "so it cannot be learnt. Repair its files, or remove its folder."
        )
    given = {source.entries[each].split for each in readable}
    auto.choose_validation(chooser, len(readable), len(source.classes), given)
    explicit = config.data.val_fraction != AUTO
    parts, notes = _split(chooser.config, source, surveyed.sha256, readable, explicit)
    labels = np.array([entry.label for entry in source.entries], np.int64)
    members_of = {
        part: np.array(
            [each for each, its in zip(readable, parts, strict=True) if its == part], np.int64
        )
        for part in SPLITS
    }
    members = [
        Member(
            source.entries[each].path,
            source.classes[source.entries[each].label],
            part,
            surveyed.sha256[each],
        )
        for each, part in zip(readable, parts, strict=True)
    ]
    if AUTO in (preprocessing.mean, preprocessing.std):
        mean, std = measure_colours(decoded.pixels, members_of["train"])
        if preprocessing.channel_order == "bgr":
            mean, std = mean[::-1], std[::-1]
        auto.choose_colours(chooser, mean, std)
    counts = np.bincount(labels[members_of["train"]], minlength=len(source.classes)).tolist()
    classes = config.network.classes
    if classes != AUTO and classes < len(source.classes):
        raise ResiduaError(
            f"network.classes = {classes}: the data has {len(source.classes)} classes, so the head "
            "needs at least as many outputs."
        )
    auto.choose_network(chooser, len(source.classes), sum(counts))
    auto.choose_training(chooser, counts)
    auto.choose_augmentation(chooser, is_grey or chooser.config.preprocessing.channels == 1)
    if config.training.curve_test and not len(members_of["test"]):
        notes = [*notes, "there is no test part for --curve-test to record"]
    copies = {surveyed.sha256[each] for each in readable}
    return Prepared(
        config=chooser.config,
        choices=chooser.choices,
        source=source,
        device=device,
        headers=surveyed.headers,
        pixels=decoded.pixels,
        labels=labels,
        splits=members_of,
        members=members,
        unreadable=unreadable,
        duplicates=len(readable) - len(copies),
        notes=[*source.warnings, *notes],
    )


def _split(
    config: Config, source: Dataset, sha256: Sequence[str], readable: Sequence[int], explicit: bool
) -> tuple[Sequence[SplitName], Sequence[str]]:
    """The part of each readable image, and what to say about it.

    explicit: whether the user gave the validation's fraction.
    """
    entries = [source.entries[each] for each in readable]
    if config.data.split == "keras":
        paths = [entry.path for entry in entries]
        parts = _keras_split(config, source, paths)
        contents, labels = [sha256[each] for each in readable], [entry.label for entry in entries]
        notes = split.class_notes(paths, labels, parts, source.classes)
        return parts, [*notes, *split.overlap_notes(paths, contents, parts)]
    found = split.stratified(
        [entry.path for entry in entries],
        [entry.label for entry in entries],
        [sha256[each] for each in readable],
        [entry.split for entry in entries],
        val_fraction=config.data.val_fraction,
        test_fraction=config.data.test_fraction,
        seed=config.data.split_seed,
        classes=source.classes,
    )
    given = {entry.split for entry in entries}
    unused = [
        f"the data set brings its own {part} part, so {flag} {fraction:g} is not used"
        for part, flag, fraction, asked in (
            ("validation", "--val-fraction", config.data.val_fraction, explicit),
            ("test", "--test-fraction", config.data.test_fraction, True),
        )
        if part in given and asked and fraction > 0
    ]
    return found.parts, [*found.notes, *unused]


def _keras_split(config: Config, source: Dataset, paths: Sequence[str]) -> list[SplitName]:
    """What Keras' image_dataset_from_directory picks from a class folder."""
    flat = all(entry.split is None for entry in source.entries)
    if not isinstance(source, FolderDataset) or not flat or config.data.test_fraction:
        raise ResiduaError(
            f"{config.data.path}: --split keras divides a folder of class folders into training "
            "and validation, and nothing else. Use --split stratified."
        )
    chosen = split.keras(
        keras_listing(Path(config.data.path).expanduser()),
        val_fraction=config.data.val_fraction,
        seed=config.data.split_seed,
    )
    validation = set(chosen)
    return ["validation" if path in validation else "train" for path in paths]


def _nothing_readable(path: str, surveyed: Survey) -> str:
    entries = surveyed.source.entries
    first = next(iter(surveyed.failures.items()), None)
    example = f" The first is {entries[first[0]].path}: {first[1]}." if first else ""
    return f"{path}: none of its {len(entries)} images can be read.{example}"
