"""What is known of runs and pairs of runs -> a page: tables, curves, sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from residua._version import __version__
from residua.comparison.curves import overlays
from residua.comparison.pairing import LEAST, Judged, Pair
from residua.comparison.statistics import in_words
from residua.config.schema import Config
from residua.report.charts import joined
from residua.report.page import Cell, Page, Section, Table
from residua.runs.folder import RunFolder

FEW = 4  # settings that a sentence names
TRAINING = (
    "An interval over images says what other images of the same kind would give, and nothing "
    "of another training: with another seed each of these networks would give other figures; "
    "`residua study` compares over seeds."
)
NOTE = (
    "Accuracy: of the run's own part, by the weights that it kept. Parameters as Keras counts "
    "them, with BatchNorm's statistics. File: the weights on disk. Images a second: median over "
    "the epochs, learning alone; seconds: all of the training, judging and saving too."
)


@dataclass(frozen=True)
class Facts:
    """One run in figures. accuracy: of its own part, in [0, 1], over that many images.

    None: it judged no part, or has no history, as a head solved on features. multiply_adds: of one
    image. seconds: of the whole training. device: the machine it was trained on.
    """

    name: str
    path: str
    network: str
    split: str | None
    accuracy: float | None
    images: int
    parameters: int
    multiply_adds: int
    file_bytes: int
    epochs: int
    images_per_second: float | None
    seconds: float | None
    device: str


@dataclass(frozen=True, eq=False)
class Subject:
    """A run as it was read. history: rows of history.csv. classes: in the order of the logits."""

    folder: RunFolder
    config: Config
    judged: Judged
    history: list[dict[str, float]]
    classes: tuple[str, ...]
    facts: Facts


def page_of(
    subjects: Sequence[Subject], pairs: Sequence[Pair], settings: Mapping[str, tuple[object, ...]]
) -> Page:
    """All that there is to say. pairs: each further run against the first; settings: what differs,
    a value for each run.
    """
    names = [each.facts.name for each in subjects]
    columns = [
        *("run", "network", "part", "accuracy %", "images", "parameters", "multiply-adds"),
        *("file, MB", "epochs", "images/s", "seconds", "device"),
    ]
    rows = [_row(each.facts) for each in subjects]
    curves = overlays({each.facts.name: each.history for each in subjects})
    values = [[name, *map(_shown, each)] for name, each in settings.items()]
    table = Table("compare", "Runs", columns, rows, 2, NOTE, turned=True)
    sections = [
        Section("What each came to", (), [table]),
        Section("How they differ on the same images", (), [_differences(pairs)]),
        Section("Curves over each other", (), (), curves),
        Section(
            "What differs in their settings",
            () if values else ["Nothing."],
            [Table("settings", "Settings that differ", ("setting", *names), values)]
            if values
            else [],
        ),
    ]
    return Page(
        f"{names[0]} against {joined(names[1:])}",
        "What each run came to, how surely they differ, and what differs in how they were made.",
        "Differences are those to the first run, "
        + (f"{names[0]}." if len(names) == 2 else f"{names[0]}, each by itself."),
        [*_findings(pairs), *_of_settings(settings, names), *_notes(subjects)],
        [each for each in sections if each.tables or each.figures or each.text],
        [f"{each.facts.name}: {each.folder.path}" for each in subjects]
        + [f"residua {__version__}."],
        kind="comparison",
    )


def _row(facts: Facts) -> list[Cell]:
    accuracy = None if facts.accuracy is None else 100 * facts.accuracy
    return [
        *(facts.name, facts.network, facts.split, accuracy, facts.images, facts.parameters),
        *(facts.multiply_adds, facts.file_bytes / 1e6, facts.epochs or None),
        *(facts.images_per_second, facts.seconds, facts.device),
    ]


def _differences(pairs: Sequence[Pair]) -> Table:
    rows: list[list[Cell]] = []
    for each in pairs:
        found = each.difference
        numbers: list[Cell] = [None] * 8
        if found is not None and each.accuracies is not None:
            shares = (*each.accuracies, found.mean, found.low, found.high)
            seen = "yes" if found.seen else "no"
            numbers = [*(100 * share for share in shares), seen, each.lost, each.gained]
        rows.append([each.first, each.second, each.images, *numbers])
    columns = [
        *("from", "to", "common images", "from %", "to %", "difference, points", "low", "high"),
        *("seen", "right in the first only", "right in the second only"),
    ]
    return Table("differences", "Paired differences, 95 % intervals", columns, rows, 2, turned=True)


def _findings(pairs: Sequence[Pair]) -> list[str]:
    found = []
    for each in pairs:
        if each.difference is None:
            found.append(
                f"{each.first} and {each.second}: {each.images or 'no'} "
                f"image{'s' * (each.images != 1)} judged by both and learnt by neither, and "
                f"{LEAST} are the least, so nothing can be said of their accuracies."
            )
        else:
            part = " and ".join(dict.fromkeys(str(part) for part in each.parts))
            figure = f"{part.capitalize()} accuracy on the same {each.images:,} images"
            found.append(in_words(each.first, each.second, figure, each.difference))
    compared = sum(each.difference is not None for each in pairs)
    if compared > 1:
        found.append(
            f"Each of these {compared} intervals holds alone; that all of them hold at once is "
            "less sure than 95 %."
        )
    return [*found, *([TRAINING] if compared else []), *_left_out(pairs)]


def _left_out(pairs: Sequence[Pair]) -> list[str]:
    """Which images do not count, and which count too much."""
    found = []
    for each in pairs:
        names = (each.first, each.second)
        said_of = [
            f"{taught:,} of the {judged:,} images that {name} judged"
            for name, taught, judged in zip(names, each.taught, each.judged, strict=True)
            if taught
        ]
        if said_of:
            found.append(
                f"{' and '.join(said_of)} taught {' or '.join(names)}, so they are left out."
            )
        if each.relabelled:
            found.append(
                f"{each.relabelled:,} images bear another class in {each.first} than in "
                f"{each.second}, so they are left out."
            )
        if each.chose and each.difference is not None:
            found.append(
                f"{' and '.join(names)}: validation images chose the weights that a run keeps, "
                "so its accuracy on them is a little too good; --test-fraction keeps a test part."
            )
    return found


def _of_settings(settings: Mapping[str, tuple[object, ...]], names: Sequence[str]) -> list[str]:
    """What differs between each run and the first, in a sentence."""
    found = []
    for place, name in enumerate(names[1:], start=1):
        own = [key for key, values in settings.items() if values[place] != values[0]]
        if not own:
            what = "have the same settings"
        elif len(own) <= FEW:
            what = f"differ in {joined(own)} only"
        else:
            what = f"differ in {len(own)} settings"
        found.append(f"{names[0]} and {name} {what}.")
    return found


def _notes(subjects: Sequence[Subject]) -> list[str]:
    """What makes runs less alike than they seem."""
    found, first = [], subjects[0]
    for each in subjects[1:]:
        if set(each.classes) != set(first.classes):
            found.append(
                f"{first.facts.name} tells {len(first.classes)} classes apart and "
                f"{each.facts.name} {len(each.classes)}, not the same ones: theirs are other tasks."
            )
    for each in subjects:
        name = each.facts.name
        if not each.history:
            found.append(f"{name} has no history.csv, so neither curves nor speed.")
        if not (each.folder.path / "report.html").exists():
            found.append(
                f"{name} is not finished: {each.facts.epochs} of {each.config.training.epochs} "
                f"epochs; `residua resume {each.folder.path}` goes on with it."
            )
    if len({each.facts.device for each in subjects}) > 1:
        found.append(
            "Machines or threads were not the same for all runs, so their speeds say little."
        )
    return found


def _shown(value: object) -> str:
    """A setting as config.yaml writes it."""
    return value if isinstance(value, str) else json.dumps(value)
