"""A data set, or a run's own split -> its images and their labels in the order of the outputs."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from residua.data.dataset import Dataset, Entry, SplitName
from residua.data.open import open_recorded
from residua.data.random import Integers
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.evaluation.score import EvaluatedSplit
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.words import agreeing, counted
from residua.weights.published.classes import class_indices, outputs_of

HELD_OUT: tuple[SplitName, ...] = ("test", "validation")  # the better one first


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of known classes.

    dataset: only these images.
    split: "train", "validation", "test", or "all" of a data set without splits.
    labels: int64 [N], in the order of the network's outputs.
    """

    dataset: Dataset
    split: EvaluatedSplit
    labels: Integers


def held_out_split(members: Iterable[Member]) -> SplitName | None:
    """The split to evaluate a run on: "test", else "validation"; None without either. members: the
    lines of its split.csv."""
    present = {member.split for member in members}
    return next((name for name in HELD_OUT if name in present), None)


def split_images(
    run: RunFolder, members: Iterable[Member], split: SplitName, data_path: str | None = None
) -> LabelledImages:
    """The images of a run's split, in the order of split.csv. Raises ResiduaError without one.

    members: the lines of split.csv. data_path: where the run's data are, if moved.
    """
    data = data_path or run.config.data.path
    dataset = open_recorded(data, run.config.data)
    index_of = {entry.path: index for index, entry in enumerate(dataset.entries)}
    paths = [member.path for member in members if member.split == split]
    missing = [path for path in paths if path not in index_of]
    if missing:
        raise ResiduaError(
            f"{data}: {counted(len(missing), 'image')} of the run's {split} split "
            f"{agreeing(len(missing), 'is', 'are')} missing, the first is {missing[0]}. Restore "
            "the data, or give other images to evaluate on."
        )
    selection = dataset.selected([index_of[path] for path in paths])
    labels = _labels(selection.entries, dataset.classes, run.classes)
    return LabelledImages(selection, split, labels)


def labelled_images(dataset: Dataset, classes: tuple[str, ...], console: Console) -> LabelledImages:
    """A data set's test split, else its validation split, else all of it."""
    present = {entry.split for entry in dataset.entries}
    split: EvaluatedSplit = next((name for name in HELD_OUT if name in present), "all")
    indices = [i for i, entry in enumerate(dataset.entries) if split in ("all", entry.split)]
    selection = dataset.selected(indices)
    folders = {entry.path.split("/")[0] for entry in selection.entries}
    rejected = [
        (path, reason)
        for path, reason in dataset.rejected
        if split == "all" or path.split("/")[0] in folders
    ]
    selection = dataclasses.replace(selection, rejected=rejected)
    labels = _labels(selection.entries, dataset.classes, classes)
    numbers = set(map(str, range(len(classes))))
    if numbers == set(dataset.classes) and not numbers <= class_indices(classes).keys():
        console.caution(f"the classes of {dataset.name} are read as the numbers of the outputs")
    for note in dataset.warnings:
        console.warn(note)
    missing = [name for label, name in enumerate(classes) if label not in labels]
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        console.warn(f"{dataset.name}: has no images of {names}")
    return LabelledImages(selection, split, labels)


def _labels(entries: Sequence[Entry], names: tuple[str, ...], classes: tuple[str, ...]) -> Integers:
    """Labels in the order of the outputs, int64 [N]. Raises ResiduaError on an unknown class.

    entries: their labels are indices into `names`. classes: of the outputs. Names are compared in
    Unicode NFC, since macOS writes file names in NFD. ImageNet's classes may be given by wnid or
    by label.
    """
    outputs = outputs_of(names, classes)
    if outputs is not None:
        return np.array([outputs[entry.label] for entry in entries], np.int64)
    index_of = class_indices(classes)
    keys = [unicodedata.normalize("NFC", names[entry.label]) for entry in entries]
    unknown = sorted({key for key in keys if key not in index_of})
    if unknown:
        known = ", ".join(classes[:20]) + (", ..." if classes[20:] else "")
        raise ResiduaError(
            f"class {unknown[0]!r} is not among the {len(classes):,} classes of the weights: "
            f"{known}. The names of class folders must be classes of the weights."
        )
    return np.array([index_of[key] for key in keys], np.int64)
