"""A run or weights, and a data set with known classes -> metrics, and the run's evaluations/."""

from __future__ import annotations

import dataclasses
import itertools
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from residua.config.auto import too_costly_to_compare
from residua.config.schema import Data
from residua.data.cache import Decoded, Survey, load, median_size, survey
from residua.data.columns import Columns
from residua.data.dataset import Dataset, Entry, Selection, SplitName
from residua.data.grouping import split_groups
from residua.data.near_duplicates import near_duplicates_of
from residua.data.open import NO_CHOICE, open_dataset, open_recorded
from residua.data.random import Integers
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.evaluation.score import (
    CROSS_VALIDATION,
    EvaluatedSplit,
    Evaluation,
    score_images,
    with_slices,
)
from residua.runs.folder import RunFolder
from residua.runs.provenance import earlier_images, images_seen, images_seen_by
from residua.runs.sources import run_weights
from residua.system.console import Console
from residua.system.files import csv_text, short_name, user_path
from residua.system.words import agreeing, counted, decimals, joined
from residua.weights.load import Weights
from residua.weights.network import default_device
from residua.weights.published.classes import class_indices, outputs_of

PREDICTION_COLUMNS = ("path", "class", "predicted", "probability", "correct")
HELD_OUT: tuple[SplitName, ...] = ("test", "validation")  # the better one first


@dataclass(frozen=True, eq=False)
class Images:
    """Images of known classes.

    dataset: only these images.
    split: "train", "validation", "test", or "all" of a data set without splits.
    labels: int64 [N], in the order of the network's outputs.
    """

    dataset: Dataset
    split: EvaluatedSplit
    labels: Integers


def evaluate_run(
    run: RunFolder,
    data: str | None,
    console: Console,
    weights: Weights | None = None,
    data_path: str | None = None,
    columns: Columns = NO_CHOICE,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate a run on DATA, or on its own test split, else its validation split.

    weights: the run's, if already read. data_path: where its own data are, if moved. columns: of
    DATA, if it is a table. device: None: see `default_device`. Writes to the run's evaluations/.
    Raises ResiduaError if the run has no such split, if its images have changed since, or if DATA
    has a class that is not the run's.
    """
    weights = weights or run_weights(run)
    if data is None:
        evaluation = evaluate_held_out(run, weights, console, data_path, device)
        name: str = evaluation.split
        location = None
    else:
        dataset = open_dataset(data, training=False, columns=columns)
        images = _labelled_images(dataset, run.classes, console)
        max_pixels = run.config.data.max_pixels
        surveyed = _read(images.dataset, max_pixels, console)
        seen = images_seen(run)
        evaluation = _evaluate(weights, images, surveyed, max_pixels, console, seen, device=device)
        path = user_path(data)
        location = {"data": str(path.resolve()) if path.exists() else data}
    try:
        if location is not None:
            name = _folder_name(run, images.dataset.name, location)
            run.write_json(f"evaluations/{name}/data.json", location)
        record(run, name, evaluation)
        console.print(
            f"saved in {run.path / 'evaluations' / name}: scores.json, predictions.csv, "
            "confusion.csv"
        )
    except ResiduaError as error:  # such as a run on a disk that is read-only
        console.caution(f"the evaluation is not recorded in the run: {error}")
    return evaluation


def evaluate_held_out(
    run: RunFolder,
    weights: Weights,
    console: Console,
    data_path: str | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate weights with a run's classes, such as a file exported from it, on its test split,
    else its validation split; nothing is written. Raises as `evaluate_run`."""
    lines = run.read_split()
    split = held_out_split(lines)
    if split is None:
        is_probe = (run.path / "transfer.json").exists()
        crossed = "; its cross-validated accuracy is in report.html" if is_probe else ""
        raise ResiduaError(
            f"{run.path} used all its images for training, so it has no test or validation "
            f"set{crossed}. To evaluate it on other labelled images: residua evaluate "
            f"{run.path} DATA"
        )
    images, max_pixels = split_images(run, lines, split, data_path), run.config.data.max_pixels
    surveyed = _read(images.dataset, max_pixels, console)
    members = {member.path: member for member in lines}
    _check_unchanged(members, surveyed)
    groups = {path: member.group for path, member in members.items()}
    evaluation = _evaluate(
        weights, images, surveyed, max_pixels, console, earlier_images(run), groups, device
    )
    return dataclasses.replace(
        evaluation, caveat=caveat_of(run, lines, split), baselines=_baselines(run, split)
    )


def evaluate_exported(
    run: RunFolder, weights: Weights, console: Console, device: torch.device | None = None
) -> Evaluation:
    """Evaluate the weights of a file exported from a run on the run's held-out images; nothing is
    written. Raises as `evaluate_run`, and if they have other classes."""
    if weights.metadata.classes != run.classes:
        raise ResiduaError(
            f"{weights.path}: has other classes than {run.path}: expected a file exported from it."
        )
    return evaluate_held_out(run, weights, console, device=device)


def evaluate_weights(
    weights: Weights,
    data: str,
    console: Console,
    columns: Columns = NO_CHOICE,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate weights of any origin on DATA; nothing is written. Raises ResiduaError.

    columns: of DATA, if it is a table. device: None: see `default_device`.

    If the weights have no class names and DATA has as many classes as they have outputs, its sorted
    class names are assumed, as Keras and torchvision number folders; a warning states it. Names
    that are the numbers of all outputs are these, see `class_indices`.
    """
    if not weights.has_head:
        raise ResiduaError(f"{weights.path}: {weights.no_head_reason}, so it cannot classify.")
    dataset = open_dataset(data, training=False, columns=columns)
    classes = weights.metadata.classes
    outputs = weights.metadata.network.classes
    if weights.assumed_classes and outputs_of(dataset.classes, classes) is None:
        classes = ()  # the assumption is refuted
    if not classes:
        numbers = tuple(map(str, range(outputs)))
        if set(dataset.classes) == set(numbers):
            classes = numbers
        elif len(dataset.classes) == outputs:
            classes = tuple(sorted(dataset.classes))
            console.caution(f"its outputs are assumed to be the sorted class names of {data}")
        else:
            raise ResiduaError(
                f"{weights.path}: has no class names for its {outputs} outputs, and {data} has "
                f"{len(dataset.classes)} classes. Expected one folder per output, or the class "
                "names with --classes."
            )
        weights = weights.with_classes(classes)
    images = _labelled_images(dataset, classes, console)
    surveyed = _read(images.dataset, Data.max_pixels, console)
    seen = images_seen_by(weights)
    return _evaluate(weights, images, surveyed, Data.max_pixels, console, seen, device=device)


def record(run: RunFolder, name: str, evaluation: Evaluation) -> Evaluation:
    """Write scores.json (the metrics), predictions.csv and confusion.csv to the run's
    evaluations/<name>/."""
    run.write_json(f"evaluations/{name}/scores.json", evaluation.to_json())
    rows = [
        (*names, decimals(probability, 6), str(correct).lower())
        for *names, probability, correct in evaluation.rows()
    ]
    run.write_text(f"evaluations/{name}/predictions.csv", csv_text(PREDICTION_COLUMNS, rows))
    confusion = [
        (actual, *counts)
        for actual, counts in zip(
            evaluation.classes, evaluation.metrics.confusion.tolist(), strict=True
        )
    ]
    header = ("actual", *evaluation.classes)  # of the predicted classes
    run.write_text(f"evaluations/{name}/confusion.csv", csv_text(header, confusion))
    return evaluation


def _read(dataset: Dataset, max_pixels: int, console: Console) -> Survey:
    with console.bar("reading") as move:
        return survey(dataset, max_pixels, move)


def _evaluate(
    weights: Weights,
    images: Images,
    surveyed: Survey,
    max_pixels: int,
    console: Console,
    used: Collection[str] = (),
    groups: Mapping[str, str] | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Decode the images and evaluate the weights on those that are readable.

    used: digests of images to warn of. groups: path -> group, see `compute_metrics`; None: those
    of the data set, images with equal pixels, and near-duplicates as `prepare` finds them.
    """
    dataset, preprocessing = images.dataset, weights.metadata.preprocessing
    with console.bar("decoding") as move:
        decoded = load(surveyed, preprocessing, max_pixels, progress=move)
    _warn_of_leakage(used, surveyed, decoded, console)
    failures = [(dataset.entries[index].path, why) for index, why in decoded.failures.items()]
    unreadable = [*dataset.rejected, *failures]
    for path, reason in unreadable:
        console.warn(f"{path} is left out: {reason}")
    readable = [index for index in range(len(dataset.entries)) if index not in decoded.failures]
    if not readable:
        raise ResiduaError(f"{dataset.name}: none of its images can be read.")
    samples = np.array(readable, np.int64)
    paths = [dataset.entries[index].path for index in readable]
    if groups is None:
        entries = [dataset.entries[index] for index in readable]
        near = None
        if not too_costly_to_compare(len(readable), min(median_size(surveyed))):
            near = near_duplicates_of(decoded.pixels, readable)
        keys = split_groups("", entries, [decoded.digests[index] for index in readable], near)
        groups = dict(zip(paths, keys, strict=True))
    evaluation = score_images(
        weights,
        decoded.pixels,
        samples,
        images.labels[samples],
        paths,
        images.split,
        device or default_device(),
        console,
        unreadable=unreadable,
        groups=[groups[path] for path in paths],
    )
    return with_slices(evaluation, samples, surveyed.headers, dataset.columns)


def _folder_name(run: RunFolder, dataset: str, location: Mapping[str, str]) -> str:
    """The folder in evaluations/ for a data set; data sets of equal names get different ones."""
    for number in itertools.count(1):
        name = f"data-{short_name(dataset)}" + (f"-{number}" if number > 1 else "")
        folder = run.path / "evaluations" / name
        if not folder.exists():
            break
        if (folder / "data.json").exists() and (
            run.read_json(f"evaluations/{name}/data.json") == location
        ):
            break
    return name


def caveat_of(run: RunFolder, members: Sequence[Member], split: EvaluatedSplit) -> str:
    """Why metrics of a run on its own split are optimistic; "" if nothing is known.

    members: the lines of split.csv. CROSS_VALIDATION: of the training set.
    """
    own = [member for member in members if member.split == split]
    others: set[str] = set()  # digests and groups of images that were used for the weights
    reasons: list[str] = []
    name, advice = str(split), ""
    if split == CROSS_VALIDATION:
        own = [member for member in members if member.split == "train"]
        name = "training"
    elif split == "test":
        others = _keys(member for member in members if member.split != "test")
    else:
        others = _keys(member for member in members if member.split == "train")
        if run.selected_on_validation:
            reasons.append("the validation set was also used for model selection")
            advice = "; train with --test-fraction 0.2 for an unbiased estimate"
    seen = earlier_images(run)
    of_all = f"of {counted(len(own), f'{name} image')}"
    if leaked := sum(not seen.isdisjoint(member.digests) for member in own):
        was = agreeing(leaked, "was", "were")
        reasons.append(f"{leaked:,} {of_all} {was} used to train or select the initial weights")
    if copies := sum(not others.isdisjoint(_keys([member])) for member in own):
        are = agreeing(copies, "is a near-duplicate", "are near-duplicates")
        reasons.append(f"{copies:,} {of_all} {are} of images in other splits, or in their groups")
    if not reasons:
        return ""
    return f"optimistic, because {joined(reasons)}{advice if len(reasons) == 1 else ''}"


def _keys(members: Iterable[Member]) -> set[str]:
    """The digests and groups of images."""
    return {key for member in members for key in (*member.digests, member.group) if key}


def held_out_split(members: Iterable[Member]) -> SplitName | None:
    """The split to evaluate a run on: "test", else "validation"; None without either. members: the
    lines of its split.csv."""
    present = {member.split for member in members}
    return next((name for name in HELD_OUT if name in present), None)


def recorded_scores(run: RunFolder) -> tuple[str, dict[str, Any]]:
    """The split that a run was evaluated on when it ended, and its scores.json; {} if there is
    none with accuracy, interval and images. Raises ResiduaError."""
    split = held_out_split(run.read_split()) or CROSS_VALIDATION
    return split, _scores(run, split)


def _scores(run: RunFolder, split: EvaluatedSplit) -> dict[str, Any]:
    name = f"evaluations/{split}/scores.json"
    scores = run.read_json(name, dict) if (run.path / name).exists() else {}
    is_complete = {"accuracy", "interval", "images"} <= scores.keys()  # not of other versions
    return {"caveat": "", **scores} if is_complete else {}


def _baselines(run: RunFolder, split: SplitName) -> Mapping[str, float]:
    """The baselines that training recorded for the run's own split, if it did."""
    try:
        found = _scores(run, split).get("baselines")
    except ResiduaError:  # a damaged file, which is written again
        found = None
    return found if isinstance(found, dict) else {}


def split_images(
    run: RunFolder, members: Iterable[Member], split: SplitName, data_path: str | None = None
) -> Images:
    """The images of a run's split, in the order of split.csv. Raises ResiduaError without one.

    members: the lines of split.csv. data_path: where the run's data are, if moved.
    """
    data = data_path or run.config.data.path
    dataset = open_recorded(data, Columns.of(run.config.data))
    index_of = {entry.path: index for index, entry in enumerate(dataset.entries)}
    paths = [member.path for member in members if member.split == split]
    missing = [path for path in paths if path not in index_of]
    if missing:
        raise ResiduaError(
            f"{data}: {counted(len(missing), 'image')} of the run's {split} split "
            f"{agreeing(len(missing), 'is', 'are')} missing, the first is {missing[0]}. Restore "
            "the data, or give other images to evaluate on."
        )
    selection = Selection(dataset, [index_of[path] for path in paths])
    labels = _labels(selection.entries, dataset.classes, run.classes)
    return Images(selection, split, labels)


def _labelled_images(dataset: Dataset, classes: tuple[str, ...], console: Console) -> Images:
    """A data set's test split, else its validation split, else all of it."""
    present = {entry.split for entry in dataset.entries}
    split: EvaluatedSplit = next((name for name in HELD_OUT if name in present), "all")
    indices = [i for i, entry in enumerate(dataset.entries) if split in ("all", entry.split)]
    selection = Selection(dataset, indices)
    folders = {entry.path.split("/")[0] for entry in selection.entries}
    selection.rejected = [
        (path, reason)
        for path, reason in dataset.rejected
        if split == "all" or path.split("/")[0] in folders
    ]
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
    return Images(selection, split, labels)


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


def _warn_of_leakage(
    used: Collection[str], surveyed: Survey, decoded: Decoded, console: Console
) -> None:
    """Warn of images that the weights were trained on or that selected them, at any step."""
    digests = [
        pair
        for at, pair in enumerate(zip(surveyed.sha256, decoded.digests, strict=True))
        if at not in decoded.failures
    ]
    if leaked := sum(file in used or pixels in used for file, pixels in digests):
        console.caution(
            f"{leaked:,} of {counted(len(digests), 'image')} {agreeing(leaked, 'was', 'were')} "
            "used to train these weights, to select them, or by the weights that they started "
            "from, so metrics on them are too optimistic"
        )


def _check_unchanged(members: Mapping[str, Member], surveyed: Survey) -> None:
    """Raise ResiduaError if images differ from split.csv. members: path -> its line."""
    changed = [
        entry.path
        for entry, digest in zip(surveyed.dataset.entries, surveyed.sha256, strict=True)
        if members[entry.path].sha256 != digest
    ]
    if changed:
        raise ResiduaError(
            f"{surveyed.dataset.name}/{changed[0]}: has changed since the training ("
            f"{counted(len(changed), 'image')} in all), so the run's splits are no longer valid. "
            "Restore the images, or give the folder as new data to evaluate on."
        )
