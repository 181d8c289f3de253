"""Predictions of two runs, or of files exported from them -> their difference on equal images."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residua.comparison.statistics import (
    LEVEL,
    Difference,
    detectable_difference,
    holm,
    image_difference,
    sign_flip,
)
from residua.data.near_duplicates import equal_pairs, groups_of
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.evaluation.evaluate import evaluate_exported
from residua.evaluation.labelled_images import held_out_split
from residua.runs.folder import RunFolder
from residua.runs.sources import open_source
from residua.system.console import Console
from residua.uncertainty.intervals import clustered_interval

SPLITS = ("test", "validation")  # the first one that a run has is compared
LEAST = 2  # shared images, or groups of them, that a comparison needs
COLUMNS = ("path", "class", "correct")


@dataclass(frozen=True)
class ImageResult:
    """An evaluated image: its row of split.csv, its true class, whether it is predicted."""

    member: Member
    label: str
    correct: bool


@dataclass(frozen=True, eq=False)
class RunPredictions:
    """The predictions of a run on its own images.

    results: split -> its images; empty if all images were used for training. trained_on: digests of
    the training images. validation_selected: validation was used for model selection.
    """

    name: str
    results: Mapping[str, Sequence[ImageResult]]
    trained_on: frozenset[str]
    validation_selected: bool = True

    @property
    def split(self) -> str | None:
        """The split that the run is evaluated on."""
        return next(iter(self.results), None)

    @property
    def accuracy(self) -> float | None:
        """On that split, in [0, 1]."""
        if self.split is None:
            return None
        return float(np.mean([result.correct for result in self.results[self.split]]))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy, as in the run's evaluation; in [0, 1]."""
        if self.split is None:
            return None
        results = self.results[self.split]
        names = [result.member.group or f"\0{row}" for row, result in enumerate(results)]
        groups = np.unique(names, return_inverse=True)[1]
        return clustered_interval(np.array([result.correct for result in results]), groups)


@dataclass(frozen=True)
class Pair:
    """Two runs, compared on images that both evaluated and neither was trained on.

    splits: of each run. evaluated: images of each split. trained_on: how many of these are in a
    training set, so excluded. trained_by: the runs whose training sets these are.
    relabelled: shared images with different classes, excluded too. images: shared images that
    count; selected_on: how many of them are validation images that were used for model selection.
    groups: of images that belong together in either run, such as near-duplicates; `images` if none
    do. gained: images correct in the second run only; lost: in the first only. accuracies: in [0,
    1], the mean over the groups. p_value: of `sign_flip`; adjusted_p_value: for all comparisons
    with the first run. detectable: see `detectable_difference`. All four, and the difference, are
    None with fewer than two groups.
    """

    first: str
    second: str
    splits: tuple[str | None, str | None]
    evaluated: tuple[int, int]
    trained_on: tuple[int, int]
    relabelled: int
    images: int
    groups: int
    selected_on: int
    gained: int
    lost: int
    accuracies: tuple[float, float] | None
    difference: Difference | None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    detectable: float | None = None
    trained_by: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def significant(self) -> bool:
        """Whether the runs differ, at 5 % for all comparisons with the first run together."""
        return self.adjusted_p_value is not None and self.adjusted_p_value < 1 - LEVEL


def read_predictions(run: RunFolder, name: str) -> RunPredictions:
    """The predictions of a run on its test and validation set.

    Raises ResiduaError with the command to run if a run with such a set has no predictions.
    """
    members = run.read_split()
    results = {}
    for split in SPLITS:
        file = run.path / "evaluations" / split / "predictions.csv"
        if file.is_file():
            results[split] = _read_results(file, members, run)
    if not results and any(member.split in SPLITS for member in members):
        if run.is_finished:
            raise ResiduaError(
                f"{run.path}: has no predictions. `residua evaluate {run.path}` writes them."
            )
        raise ResiduaError(
            f"{run.path}: has no predictions yet: its training is unfinished. "
            f"`residua resume {run.path}` continues it."
        )
    return _of_run(run, name, members, results)


def file_predictions(
    run: RunFolder, name: str, file: Path, *, allow_code: bool = False
) -> RunPredictions:
    """The predictions of a file that was exported from a run, on the run's held-out images.

    allow_code: see `load_exported`. Raises ResiduaError if the file has other classes.
    """
    console, members = Console(quiet=True), run.read_split()
    weights, _ = open_source(file, None, None, None, console, allow_code=allow_code)
    if held_out_split(members) is None:
        return _of_run(run, name, members, {})
    evaluation = evaluate_exported(run, weights, console)
    correct = evaluation.correct.tolist()
    labels = [evaluation.classes[label] for label in evaluation.labels]
    rows = zip(evaluation.paths, labels, correct, strict=True)
    return _of_run(run, name, members, {evaluation.split: _results(rows, members)})


def _of_run(
    run: RunFolder,
    name: str,
    members: Sequence[Member],
    results: Mapping[str, Sequence[ImageResult]],
) -> RunPredictions:
    training = (member for member in members if member.split == "train")
    trained_on = frozenset(digest for member in training for digest in member.digests)
    return RunPredictions(name, results, trained_on, run.selected_on_validation)


def pair_runs(first: RunPredictions, others: Sequence[RunPredictions]) -> tuple[Pair, ...]:
    """Compare each of the others with the first run; p values are adjusted for their number."""
    pairs = [_pair(first, other) for other in others]
    known = [pair.p_value for pair in pairs if pair.p_value is not None]
    adjusted = iter(holm(known))
    return tuple(
        pair if pair.p_value is None else replace(pair, adjusted_p_value=next(adjusted))
        for pair in pairs
    )


def _pair(first: RunPredictions, second: RunPredictions) -> Pair:
    runs, splits = (first, second), _splits(first, second)
    evaluated = [
        () if split is None else run.results[split] for run, split in zip(runs, splits, strict=True)
    ]
    known = first.trained_on | second.trained_on
    unseen = [
        [result for result in results if known.isdisjoint(result.member.digests)]
        for results in evaluated
    ]
    seen_by = [
        tuple(
            run.name
            for run in runs
            if any(not run.trained_on.isdisjoint(result.member.digests) for result in results)
        )
        for results in evaluated
    ]
    matched = _matched(*unseen)
    # A Mac writes the same name in another form.
    normal = [[unicodedata.normalize("NFC", result.label) for result in pair] for pair in matched]
    same = [pair for pair, (a, b) in zip(matched, normal, strict=True) if a == b]
    correct = np.array([(a.correct, b.correct) for a, b in same], bool).reshape(-1, 2).T
    shares = _by_group(correct, same)
    changes, groups = shares[1] - shares[0], shares.shape[1]
    enough = groups >= LEAST
    gained, lost = (int((correct[at] & ~correct[1 - at]).sum()) for at in (1, 0))
    selected = any(
        split == "validation" and run.validation_selected
        for run, split in zip(runs, splits, strict=True)
    )
    return Pair(
        first=first.name,
        second=second.name,
        splits=splits,
        evaluated=(len(evaluated[0]), len(evaluated[1])),
        trained_on=(len(evaluated[0]) - len(unseen[0]), len(evaluated[1]) - len(unseen[1])),
        trained_by=(seen_by[0], seen_by[1]),
        relabelled=len(matched) - len(same),
        images=len(same),
        groups=groups,
        selected_on=len(same) if selected else 0,
        gained=gained,
        lost=lost,
        accuracies=(float(shares[0].mean()), float(shares[1].mean())) if enough else None,
        difference=image_difference(changes, grouped=groups < len(same)) if enough else None,
        p_value=sign_flip(changes) if enough else None,
        detectable=(
            detectable_difference(groups, float(np.square(changes).sum())) if enough else None
        ),
    )


def _by_group(
    correct: npt.NDArray[np.bool_], images: Sequence[tuple[ImageResult, ImageResult]]
) -> npt.NDArray[np.float64]:
    """The accuracy of both runs on each group, float64 [2, G]; correct: of the images, [2, N].

    Images with a common group in either run, or equal pixels, are in one group.
    """
    keys = [
        [image.member.group or f"\0{at}" for at, image in enumerate(run)]
        for run in zip(*images, strict=True)
    ]
    keys.append([first.member.pixels or first.member.sha256 for first, _ in images])
    connected = groups_of(len(images), np.concatenate([equal_pairs(row) for row in keys]))
    _, group, sizes = np.unique(connected, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(group, row, len(sizes)) / sizes for row in correct])


def _splits(first: RunPredictions, second: RunPredictions) -> tuple[str | None, str | None]:
    """The test set where both have one, else validation, else what each has."""
    for split in SPLITS:
        if split in first.results and split in second.results:
            return split, split
    return first.split, second.split


def _matched(
    first: Sequence[ImageResult], second: Sequence[ImageResult]
) -> list[tuple[ImageResult, ImageResult]]:
    """The same images: by path and content, then by content alone, each matched once."""
    by_path = {(image.member.path, image.member.sha256): image for image in second}
    matched, rest = [], []
    for result in first:
        other = by_path.pop((result.member.path, result.member.sha256), None)
        if other is None:
            rest.append(result)
        else:
            matched.append((result, other))
    by_content: dict[str, list[ImageResult]] = {}
    for result in by_path.values():
        by_content.setdefault(result.member.sha256, []).append(result)
    for result in rest:
        if others := by_content.get(result.member.sha256):
            matched.append((result, others.pop(0)))
    return matched


def _read_results(file: Path, members: Sequence[Member], run: RunFolder) -> list[ImageResult]:
    """The rows of a predictions.csv. Raises ResiduaError if they do not fit split.csv."""
    rows = run.read_csv(str(file.relative_to(run.path)), ())
    again = f"`residua evaluate {run.path}` writes it again."
    if not rows or any(row.get(name) is None for name in COLUMNS for row in rows):
        raise ResiduaError(f"{file}: expected rows with {', '.join(COLUMNS)}. {again}")
    paths = {member.path for member in members}
    if unknown := [row["path"] for row in rows if row["path"] not in paths]:
        raise ResiduaError(f"{file}: lists {unknown[0]}, which is not in split.csv. {again}")
    if odd := [row["correct"] for row in rows if row["correct"] not in ("true", "false")]:
        raise ResiduaError(f"{file}: correct is {odd[0]!r}, expected true or false. {again}")
    return _results(
        ((row["path"], row["class"], row["correct"] == "true") for row in rows), members
    )


def _results(rows: Iterable[tuple[str, str, bool]], members: Sequence[Member]) -> list[ImageResult]:
    """Path, class and whether it was predicted, of images of a split -> with their digests."""
    of_path = {member.path: member for member in members}
    return [ImageResult(of_path[path], label, correct) for path, label, correct in rows]
