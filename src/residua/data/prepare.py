"""Settings and DATA -> decoded images, their splits, and settings without any "auto"."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from residua.config import auto, parse
from residua.config.auto import Choice, Chooser
from residua.config.schema import AUTO, Config, NetworkSpec, Preprocessing
from residua.data import split
from residua.data.assignment import assign_splits, by_split
from residua.data.batches import measure_colours
from residua.data.cache import Decoded, Survey, grey, load, median_size, survey, value_range
from residua.data.dataset import Dataset, Pixels
from residua.data.fixes import Fix, read_fixes, with_fixes
from residua.data.grouping import split_groups
from residua.data.image import is_deep
from residua.data.near_duplicates import near_duplicates_of
from residua.data.neighbours import Pairs
from residua.data.open import open_dataset, open_recorded, resolved
from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.data.split import Member
from residua.data.store import is_stored
from residua.errors import ResiduaError, UnreadableImages
from residua.system.console import Console
from residua.system.device import device_named, fast_bf16
from residua.system.files import user_path
from residua.system.words import agreeing, counted


def prepare(
    config: Config,
    console: Console,
    required: tuple[NetworkSpec, Preprocessing] | None = None,
    choices: Iterable[Choice] = (),
    recorded: Sequence[Member] | None = None,
    *,
    measured: bool = True,
) -> Prepared:
    """Scan the data, decode it once, assign splits, resolve every "auto". Raises ResiduaError.

    required: by the initial weights; chosen before anything else. choices: made already. recorded:
    the images and splits of the run that is resumed; ResiduaError if the data differ. measured:
    whether to measure images for an audit.
    """
    chooser = Chooser(config, choices)
    if required is not None:
        auto.choose_from_weights(chooser, *required)
    device = _choose_device(chooser)
    dataset, fixes = _open(chooser, console, is_recorded=recorded is not None)
    is_installed = auto.is_prepared_as_installed(chooser.config)
    size = required[1].size if required is not None and is_installed else None
    surveyed = _survey(chooser, dataset, size, console)
    if recorded is None:
        _choose_value_range(chooser, surveyed, console)
    decoded = _decode(chooser, surveyed, console, measured)
    readable, unreadable = _readable(config, dataset, decoded)
    near = _near_duplicates(chooser, surveyed, decoded, readable)
    groups = split_groups(
        chooser.config.data.group_by,
        [dataset.entries[at] for at in readable],
        [decoded.digests[at] for at in readable],
        near,
    )
    members, split_notes = assign_splits(chooser, surveyed, decoded, groups, readable, recorded)
    splits = by_split(readable, members)
    labels = np.array([entry.label for entry in dataset.entries], np.int64)
    _choose_the_rest(chooser, decoded.pixels, labels, splits["train"], dataset, grey(surveyed))
    notes = [
        *dataset.warnings,
        *split_notes,
        *split.near_duplicate_notes(members, near.tolist()),
        *_fixes_notes(chooser.config, fixes, members),
        *_range_notes(chooser.config, surveyed, decoded),
    ]
    if config.training.curve_test and not len(splits["test"]):
        notes.append("--curve-test has no effect: there is no test set")
    return Prepared(
        config=chooser.config,
        choices=tuple(chooser.choices),
        dataset=dataset,
        device=device,
        headers=surveyed.headers,
        pixels=decoded.pixels,
        measured=decoded.measured,
        labels=labels,
        splits=splits,
        members=members,
        groups=tuple(groups),
        near=near,
        unreadable=unreadable,
        duplicates=split.shared([member.pixels for member in members]),
        notes=tuple(dict.fromkeys(notes)),
    )


def with_size(prepared: Prepared, size: int, reason: str, console: Console) -> Prepared:
    """The same images and splits, decoded again at another size.

    Raises ResiduaError if the images have changed, or memory and disk do not suffice.
    """
    if not prepared.is_explicit("data.cache"):
        prepared = prepared.choose("data.cache", AUTO, "")
    prepared = prepared.choose("preprocessing.size", size, reason)
    chooser = Chooser(prepared.config, prepared.choices)
    surveyed = survey(prepared.dataset, prepared.config.data.max_pixels)
    decoded = _decode(chooser, surveyed, console, measured=False)
    digests = [decoded.digests[index] for index in prepared.readable]
    if digests != [member.pixels for member in prepared.members]:
        raise ResiduaError(f"{prepared.config.data.path}: images have changed during the run.")
    return dataclasses.replace(
        prepared,
        config=chooser.config,
        choices=tuple(chooser.choices),
        pixels=decoded.pixels,
    )


def _choose_device(chooser: Chooser) -> torch.device:
    if torch.cuda.is_available():
        chooser.choose("training.device", "cuda", "GPU available")
    else:
        chooser.choose("training.device", "cpu", "no GPU available")
    device = device_named(chooser.config.training.device)
    is_fast, reason = fast_bf16(device)
    chooser.choose("training.precision", "bf16" if is_fast else "fp32", reason)
    return device


def _open(
    chooser: Chooser, console: Console, *, is_recorded: bool
) -> tuple[Dataset, Sequence[Fix]]:
    """The data set as its fix list changes it, and that list."""
    path, fixes = chooser.config.data.path, []
    opened = open_recorded if is_recorded else open_dataset
    dataset = opened(path, settings=chooser.config.data)
    if chooser.config.data.fixes:
        file = user_path(chooser.config.data.fixes).absolute()  # found from any working directory
        fixes = read_fixes(file)
        dataset = with_fixes(dataset, fixes, file)
        chooser.config = parse.with_settings(chooser.config, {"data.fixes": str(file)})
    console.print(f"{path}: {dataset.description}")
    if not is_recorded:  # absolute, so that it is found from any working directory
        chooser.config = parse.with_settings(chooser.config, {"data.path": resolved(path)})
    count, outputs = len(dataset.classes), chooser.config.network.classes
    if count < 2:
        name = "the data given" if is_stored(user_path(path)) else path
        message = (
            f"{name}: has the single class {dataset.classes[0]!r}: a classifier needs at least two "
            f"classes. {' '.join(dataset.warnings)}"
        ).rstrip()
        if dataset.rejected:  # perhaps all images of the other classes
            unusable = counted(len(dataset.rejected), "file")
            message += f" Not used: {unusable}, the first {': '.join(dataset.rejected[0])}."
            raise UnreadableImages(message, len(dataset.rejected), dataset.rejected[0])
        raise ResiduaError(message)
    if outputs != AUTO and outputs < count:
        raise ResiduaError(
            f"network.classes = {outputs}: the data has {count} classes, so the head needs at "
            "least as many outputs."
        )
    return dataset, fixes


def _survey(
    chooser: Chooser, dataset: Dataset, installed_size: int | None, console: Console
) -> Survey:
    """Read every header; choose the geometry of the preprocessing from them. installed_size: that
    the installed weights were trained at, if training starts from them."""
    data = chooser.config.data
    with console.bar("scanning") as move:
        surveyed = survey(dataset, data.max_pixels, move)
    if not any(surveyed.headers):
        first = next(iter(surveyed.failures.items()), None)
        example = f" The first is {dataset.entries[first[0]].path}: {first[1]}." if first else ""
        raise ResiduaError(
            f"{data.path}: none of its {len(dataset.entries)} images can be read.{example}"
        )
    side = min(median_size(surveyed))
    if installed_size is not None and chooser.config.transfer.strategy not in (None, "none"):
        readable = sum(header is not None for header in surveyed.headers)
        auto.choose_installed_size(chooser, side, readable, installed_size)
    auto.choose_geometry(chooser, side, grey(surveyed))
    parse.check_colours(chooser.config.preprocessing, "preprocessing")
    return surveyed


def _choose_value_range(chooser: Chooser, surveyed: Survey, console: Console) -> None:
    """One scale for all images of more than 8 bits, so that no single pixel decides it."""
    if chooser.config.preprocessing.value_range is None and any(
        header and is_deep(header.mode) for header in surveyed.headers
    ):
        with console.bar("measuring the range of values") as move:
            low, high, images = value_range(surveyed, move)
        reason = f"one scale for all, measured on {images:,} images of 16 bits or float"
        chooser.choose("preprocessing.value_range", [low, high], reason)


def _near_duplicates(
    chooser: Chooser, surveyed: Survey, decoded: Decoded, readable: Sequence[int]
) -> Pairs:
    """Pairs of near-duplicates among the readable images, none where they are not searched."""
    auto.choose_duplicates(chooser, len(readable), min(median_size(surveyed)))
    if chooser.config.data.duplicates == "near":
        return near_duplicates_of(decoded.pixels, readable)
    return np.zeros((0, 2), np.int64)


def _fixes_notes(config: Config, fixes: Sequence[Fix], members: Sequence[Member]) -> list[str]:
    """The number of changes by the fix list, and of those that evaluated images have."""
    if not config.data.fixes:
        return []
    relabelled, excluded = (
        {fix.path for fix in fixes if fix.action == action} for action in ("relabel", "exclude")
    )
    note = (
        f"{Path(config.data.fixes).name}: images relabelled: {len(relabelled):,}, "
        f"excluded: {len(excluded):,}"
    )
    splits: list[str] = [member.split for member in members if member.path in relabelled]
    for split_name in ("validation", "test"):
        if count := splits.count(split_name):
            are = agreeing(count, "image is", "images are")
            note += (
                f"; {count:,} relabelled {are} in the {split_name} set: unless a person has "
                f"checked {agreeing(count, 'its label', 'their labels')}, {split_name} metrics are "
                "too optimistic"
            )
    return [note]


def _range_notes(config: Config, surveyed: Survey, decoded: Decoded) -> list[str]:
    """A note on images of few grey levels."""
    if not decoded.flat:
        return []
    first, entries = decoded.flat[0], surveyed.dataset.entries
    uses = agreeing(len(decoded.flat), "uses", "use")
    note = (
        f"{len(decoded.flat):,} of {len(entries):,} images {uses} less than a tenth of the "
        f"range from black to white, for example {entries[first].path}"
    )
    header, scale = surveyed.headers[first], config.preprocessing.value_range
    if header and is_deep(header.mode) and scale is not None:
        note += (
            f" (0 to 255 are the values {scale[0]:g} to {scale[1]:g}: --set "
            "preprocessing.value_range=[LOW,HIGH] changes that)"
        )
    return [f"{note}."]


def _decode(chooser: Chooser, surveyed: Survey, console: Console, measured: bool) -> Decoded:
    config = chooser.config
    with console.bar("decoding") as move:
        decoded = load(surveyed, config.preprocessing, config.data.cache, move, measured=measured)
    cache = "file" if isinstance(decoded.pixels, np.memmap) else "memory"
    chooser.choose("data.cache", cache, decoded.where)
    return decoded


def _readable(
    config: Config, dataset: Dataset, decoded: Decoded
) -> tuple[list[int], tuple[tuple[str, str], ...]]:
    """Indices of the readable entries; path and reason of the files that are not."""
    path, entries = config.data.path, dataset.entries
    failures = ((entries[at].path, reason) for at, reason in decoded.failures.items())
    unreadable = (*dataset.rejected, *failures)
    if unreadable and config.data.unreadable == "fail":
        raise UnreadableImages(
            f"{path}: {counted(len(unreadable), 'file')} cannot be read, the first is "
            f"{unreadable[0][0]}: {unreadable[0][1]}. --unreadable list leaves such files out.",
            len(unreadable),
            unreadable[0],
        )
    readable = [at for at in range(len(entries)) if at not in decoded.failures]
    if not readable:
        raise ResiduaError(f"{path}: none of its images can be read.")
    lost = set(range(len(dataset.classes))) - {entries[at].label for at in readable}
    if lost:
        raise ResiduaError(
            f"{path}: no image of class {dataset.classes[min(lost)]!r} can be read, so it cannot "
            "be trained. Repair its files, or remove its folder."
        )
    return readable, unreadable


def _choose_the_rest(
    chooser: Chooser,
    pixels: Pixels,
    labels: Integers,
    train: Integers,
    dataset: Dataset,
    is_grey: bool,
) -> None:
    """Colour statistics, network, training and augmentation, from the training set."""
    preprocessing, classes = chooser.config.preprocessing, len(dataset.classes)
    if AUTO in (preprocessing.mean, preprocessing.std):
        mean, std = measure_colours(pixels, train)
        if preprocessing.channel_order == "bgr":
            mean, std = mean[::-1], std[::-1]
        for name, values in (("mean", mean), ("std", std)):
            rounded = [round(value, 3) for value in values]
            chooser.choose(f"preprocessing.{name}", rounded, "measured on the training set")
    counts = np.bincount(labels[train], minlength=classes).tolist()
    auto.choose_network(chooser, classes, sum(counts))
    auto.choose_training(chooser, counts)
    auto.choose_augmentation(chooser, is_grey or preprocessing.channels == 1)
    padding, size = chooser.config.augmentation.crop_padding, chooser.config.preprocessing.size
    if padding >= size:
        raise ResiduaError(
            f"augmentation.crop_padding = {padding}: expected less than the image size, {size} px."
        )
