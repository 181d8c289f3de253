"""predictions.csv and split.csv of two runs -> how they differ on the images both have judged."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from residua.comparison.statistics import Difference, of_images
from residua.errors import ResiduaError
from residua.runs.folder import RunFolder, current_columns

SPLITS = ("test", "validation")  # that judge; the first that there is counts
LEAST = 2  # images, below which nothing is said of a difference
COLUMNS = ("path", "class", "correct")


@dataclass(frozen=True)
class Answer:
    """One judged image: path and content as in split.csv, its class, whether it was named so."""

    path: str
    sha256: str
    label: str
    right: bool


@dataclass(frozen=True, eq=False)
class Judged:
    """What a run said of its own images. taught: contents, sha256, of its training part.

    answers: part -> its images; empty if it trained on all images. validation_chose: whether
    the validation part chose what the run keeps.
    """

    name: str
    answers: Mapping[str, Sequence[Answer]]
    taught: frozenset[str]
    validation_chose: bool = True

    @property
    def split(self) -> str | None:
        """The split that the run is evaluated on."""
        return next(iter(self.answers), None)

    @property
    def accuracy(self) -> float | None:
        """Of that part, in [0, 1]."""
        if self.split is None:
            return None
        return float(np.mean([each.right for each in self.answers[self.split]]))


@dataclass(frozen=True)
class Pair:
    """Two runs on the images that both have judged and neither has learnt from.

    parts: of each run. judged: images of its part. taught: how many of these are in a training
    part, so left out. relabelled: common images that bear another class, left out too. chose: of
    those that count, how many are validation images that chose what a run keeps. accuracies: in
    [0, 1], None with fewer than two images, as the difference. gained: right in the second run
    only; lost: in the first only.
    """

    first: str
    second: str
    parts: tuple[str | None, str | None]
    judged: tuple[int, int]
    taught: tuple[int, int]
    relabelled: int
    images: int
    chose: int
    gained: int
    lost: int
    accuracies: tuple[float, float] | None
    difference: Difference | None


def read(run: RunFolder, name: str) -> Judged:
    """The predictions of a run's own parts.

    Raises ResiduaError that says what to do if it has such a part and no predictions of it.
    """
    members = run.read_split()
    contents = {each.path: each.sha256 for each in members}
    answers = {}
    for part in SPLITS:
        file = run.path / "evaluations" / part / "predictions.csv"
        if file.is_file():
            answers[part] = _answers(file, contents, run)
    if not answers and any(each.split in SPLITS for each in members):
        ended = (run.path / "report.html").exists()
        todo = "evaluate" if ended else "resume"
        why = "" if ended else " yet: its training has not ended"
        does = "judges it again" if ended else "goes on with it"
        raise ResiduaError(
            f"{run.path}: has no predictions{why}. `residua {todo} {run.path}` {does}."
        )
    taught = frozenset(each.sha256 for each in members if each.split == "train")
    return Judged(name, answers, taught, run.selected_on_validation)


def pair(first: Judged, second: Judged) -> Pair:
    """Compare two runs: the second against the first."""
    parts = _parts(first, second)
    both = [
        () if part is None else each.answers[part]
        for each, part in zip((first, second), parts, strict=True)
    ]
    known = first.taught | second.taught
    unseen = [[each for each in answers if each.sha256 not in known] for answers in both]
    matched = _matched(*unseen)
    alike = [each for each in matched if _plain(each[0].label) == _plain(each[1].label)]
    right = np.array([(a.right, b.right) for a, b in alike], bool).reshape(-1, 2).T
    enough = len(alike) >= LEAST
    chosen = [
        part == "validation" and each.validation_chose
        for each, part in zip((first, second), parts, strict=True)
    ]
    return Pair(
        first=first.name,
        second=second.name,
        parts=parts,
        judged=(len(both[0]), len(both[1])),
        taught=(len(both[0]) - len(unseen[0]), len(both[1]) - len(unseen[1])),
        relabelled=len(matched) - len(alike),
        images=len(alike),
        chose=len(alike) if any(chosen) else 0,
        gained=int((right[1] & ~right[0]).sum()),
        lost=int((right[0] & ~right[1]).sum()),
        accuracies=(float(right[0].mean()), float(right[1].mean())) if enough else None,
        difference=of_images(right[0], right[1]) if enough else None,
    )


def _parts(first: Judged, second: Judged) -> tuple[str | None, str | None]:
    """The test part where both have one, else validation, else what each has."""
    for part in SPLITS:
        if part in first.answers and part in second.answers:
            return part, part
    return first.split, second.split


def _matched(first: Sequence[Answer], second: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """The same images: by path and content, then by content alone, each taken once."""
    left = {(each.path, each.sha256): each for each in second}
    found, rest = [], []
    for each in first:
        other = left.pop((each.path, each.sha256), None)
        if other is None:
            rest.append(each)
        else:
            found.append((each, other))
    by_content: dict[str, list[Answer]] = {}
    for each in left.values():
        by_content.setdefault(each.sha256, []).append(each)
    for each in rest:
        if others := by_content.get(each.sha256):
            found.append((each, others.pop(0)))
    return found


def _plain(label: str) -> str:
    return unicodedata.normalize("NFC", label)  # a Mac writes the same name in another form


def _answers(file: Path, contents: Mapping[str, str], run: RunFolder) -> list[Answer]:
    """The rows of a predictions.csv. Raises ResiduaError if they do not fit the run's split.csv."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = [current_columns(row) for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResiduaError(f"{file}: cannot be read: {error}.") from error
    again = f"`residua evaluate {run.path}` writes it again."
    if not rows or any(row.get(name) is None for name in COLUMNS for row in rows):
        raise ResiduaError(f"{file}: expected rows with {', '.join(COLUMNS)}. {again}")
    strange = next((row["path"] for row in rows if row["path"] not in contents), None)
    if strange is not None:
        raise ResiduaError(f"{file}: names {strange}, which split.csv does not hold. {again}")
    if odd := [row["correct"] for row in rows if row["correct"] not in ("true", "false")]:
        raise ResiduaError(f"{file}: correct is {odd[0]!r}, expected true or false. {again}")
    return [
        Answer(row["path"], contents[row["path"]], row["class"], row["correct"] == "true")
        for row in rows
    ]
