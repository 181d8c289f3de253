"""A run or weights, and a data set with known classes -> metrics, and the run's evaluations/."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from residua.config.auto import too_costly_to_compare
from residua.config.schema import Data
from residua.data.cache import Decoded, Survey, load, median_size, survey
from residua.data.dataset import values_at
from residua.data.grouping import split_groups
from residua.data.near_duplicates import near_duplicates_of
from residua.data.open import NO_CHOICE, open_dataset
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.evaluation.labelled_images import (
    LabelledImages,
    held_out_split,
    labelled_images,
    split_images,
)
from residua.evaluation.recorded import caveat_of, folder_name, record, recorded_baselines
from residua.evaluation.score import Evaluation, EvaluationSet, score_images
from residua.runs.folder import RunFolder
from residua.runs.provenance import earlier_images, images_seen, images_seen_by
from residua.runs.sources import run_weights
from residua.system.console import Console
from residua.system.files import user_path
from residua.system.words import agreeing, counted
from residua.weights.load import Weights
from residua.weights.network import default_device
from residua.weights.published.classes import outputs_of


def evaluate_run(
    run: RunFolder,
    data: str | None,
    console: Console,
    weights: Weights | None = None,
    data_path: str | None = None,
    settings: Data = NO_CHOICE,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate a run on DATA, or on its own test split, else its validation split.

    weights: the run's, if already read. data_path: where its own data are, if moved. settings:
    columns of DATA, if it is a table. device: None: see `default_device`. Writes to the run's
    evaluations/.
    Raises ResiduaError if the run has no such split, if its images have changed since, or if DATA
    has a class that is not the run's.
    """
    weights = weights or run_weights(run)
    if data is None:
        evaluation = evaluate_held_out(run, weights, console, data_path, device)
        name: str = evaluation.split
        location = None
    else:
        dataset = open_dataset(data, training=False, settings=settings)
        images = labelled_images(dataset, run.classes, console)
        max_pixels, seen = run.config.data.max_pixels, images_seen(run)
        read = _Read.of(images, max_pixels, seen, console)
        evaluation = _evaluate(weights, read, console, device)
        path = user_path(data)
        location = {"data": str(path.resolve()) if path.exists() else data}
    try:
        if location is not None:
            name = folder_name(run, images.dataset.name, location)
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
    read = _Read.of(images, max_pixels, earlier_images(run), console)
    members = {member.path: member for member in lines}
    _check_unchanged(members, read.survey)
    groups = {path: member.group for path, member in members.items()}
    evaluation = _evaluate(weights, dataclasses.replace(read, groups=groups), console, device)
    return dataclasses.replace(
        evaluation, caveat=caveat_of(run, lines, split), baselines=recorded_baselines(run, split)
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
    settings: Data = NO_CHOICE,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate weights of any origin on DATA; nothing is written. Raises ResiduaError.

    settings: columns of DATA, if it is a table. device: None: see `default_device`.

    If the weights have no class names and DATA has as many classes as they have outputs, its sorted
    class names are assumed, as Keras and torchvision number folders; a warning states it. Names
    that are the numbers of all outputs are these, see `class_indices`.
    """
    if not weights.has_head:
        raise ResiduaError(f"{weights.path}: {weights.no_head_reason}, so it cannot classify.")
    dataset = open_dataset(data, training=False, settings=settings)
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
    images = labelled_images(dataset, classes, console)
    read = _Read.of(images, Data.max_pixels, images_seen_by(weights), console)
    return _evaluate(weights, read, console, device)


@dataclass(frozen=True, eq=False)
class _Read:
    """Labelled images whose files are read, but not decoded.

    seen: digests of images that the weights were trained on or selected by. groups: path -> group,
    see `compute_metrics`; None: those of the data set, images with equal pixels, and
    near-duplicates as `prepare` finds them.
    """

    images: LabelledImages
    survey: Survey
    seen: Collection[str]
    groups: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls, images: LabelledImages, max_pixels: int, seen: Collection[str], console: Console
    ) -> _Read:
        """Read the files of `images`."""
        with console.bar("reading") as move:
            return cls(images, survey(images.dataset, max_pixels, move), seen)


def _evaluate(
    weights: Weights, read: _Read, console: Console, device: torch.device | None
) -> Evaluation:
    """Decode images, and evaluate weights on those that are readable."""
    images, surveyed, dataset = read.images, read.survey, read.images.dataset
    with console.bar("decoding") as move:
        decoded = load(surveyed, weights.metadata.preprocessing, progress=move)
    _warn_of_leakage(read.seen, surveyed, decoded, console)
    failures = [(dataset.entries[index].path, why) for index, why in decoded.failures.items()]
    unreadable = [*dataset.rejected, *failures]
    for path, reason in unreadable:
        console.warn(f"{path} is left out: {reason}")
    readable = [index for index in range(len(dataset.entries)) if index not in decoded.failures]
    if not readable:
        raise ResiduaError(f"{dataset.name}: none of its images can be read.")
    samples = np.array(readable, np.int64)
    paths = [dataset.entries[index].path for index in readable]
    known = read.groups
    found = EvaluationSet(
        images.split,
        decoded.pixels,
        samples,
        images.labels[samples],
        paths,
        [surveyed.headers[index] for index in readable],
        values_at(dataset.columns, readable),
        _groups(surveyed, decoded, readable) if known is None else [known[path] for path in paths],
        unreadable,
    )
    return score_images(weights, found, device or default_device(), console)


def _groups(surveyed: Survey, decoded: Decoded, readable: Sequence[int]) -> list[str]:
    """The group of each readable image of a data set without a split.csv."""
    entries = [surveyed.dataset.entries[index] for index in readable]
    near = np.zeros((0, 2), np.int64)
    if not too_costly_to_compare(len(readable), min(median_size(surveyed))):
        near = near_duplicates_of(decoded.pixels, readable)
    return split_groups("", entries, [decoded.digests[index] for index in readable], near)


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
