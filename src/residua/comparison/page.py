"""Runs and pairs of runs -> the page of a comparison: tables, curves, sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from residua._version import __version__
from residua.comparison.curves import overlays
from residua.comparison.pairing import LEAST, Pair, RunPredictions
from residua.comparison.statistics import LEVEL, POWER, Difference
from residua.config.schema import Config
from residua.report.page import Cell, Page, Section, Table
from residua.runs.folder import RunFolder
from residua.system.words import agreeing, counted, joined, percent

FEW = 4  # settings that a sentence lists
TRAINING = (
    "The intervals reflect the choice of test images, not the training seed: `residua study` "
    "compares over seeds."
)
NOTE = (
    "Accuracy: of the saved weights on the run's own test or validation set. Parameters: without "
    "BatchNorm statistics. File: the weights on disk. Images/s: median over the epochs, training "
    "only. Seconds: the whole training, with validation and saving."
)
PAIRS_NOTE = (
    "Difference: second minus first. p: McNemar's exact test. Where images form groups, such as "
    "near-duplicates or those of --group-by, each group counts once, with its mean accuracy, and p "
    "is that of a sign-flip permutation test. Adjusted: for the number of comparisons (Holm); "
    "significant below 0.05. Detectable: the smallest true difference that would be significant in "
    f"{percent(POWER)} of all test sets of this size. Interval: Agresti and Min, of each "
    "comparison by itself."
)


@dataclass(frozen=True)
class RunFacts:
    """One run in figures. accuracy, interval (95 %): on its own split, in [0, 1], over that many
    images.

    None: no split was evaluated, or there is no history, as of a linear probe. multiply_adds: per
    image. seconds: of the whole training. device: the machine of the training.
    """

    name: str
    path: str
    network: str
    split: str | None
    accuracy: float | None
    interval: tuple[float, float] | None
    images: int
    parameters: int
    multiply_adds: int
    file_bytes: int
    epochs: int
    images_per_second: float | None
    seconds: float | None
    device: str


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run as read. history: rows of history.csv. classes: in the order of the logits."""

    folder: RunFolder
    config: Config
    predictions: RunPredictions
    history: list[dict[str, float]]
    classes: tuple[str, ...]
    facts: RunFacts


def comparison_page(
    runs: Sequence[ComparedRun],
    pairs: Sequence[Pair],
    settings: Mapping[str, tuple[object, ...]],
) -> Page:
    """The page. pairs: each further run with the first. settings: name -> a value for each run."""
    names = [run.facts.name for run in runs]
    curves = overlays({run.facts.name: run.history for run in runs})
    values = [[name, *map(_setting_text, row)] for name, row in settings.items()]
    table = Table("settings", "Settings that differ", ("setting", *names), values)
    sections = [
        Section("Results of each run", (), [_runs_table(runs)]),
        Section("Differences on the same images", (), [_pairs_table(pairs)]),
        *([Section("Curves", (), (), curves)] if curves else []),
        Section("Settings", () if values else ["All are equal."], [table] if values else []),
    ]
    return Page(
        f"{names[0]} against {joined(names[1:])}",
        "Results of each run, their differences with intervals, and the settings that differ.",
        f"Each run is compared with {names[0]}.",
        [*_findings(pairs), *_settings_sentences(settings, names), *_caveats(runs)],
        sections,
        [*(f"{run.facts.name}: {run.facts.path}" for run in runs), f"residua {__version__}."],
        kind="comparison",
    )


def _runs_table(runs: Sequence[ComparedRun]) -> Table:
    columns = [
        *("run", "network", "split", "accuracy %", "95 % CI", "images", "parameters"),
        *("multiply-adds", "file, MB", "epochs", "images/s", "seconds", "device"),
    ]
    rows: list[list[Cell]] = []
    for run in runs:
        facts = run.facts
        accuracy = None if facts.accuracy is None else 100 * facts.accuracy
        interval = facts.interval and " to ".join(f"{100 * end:.2f}" for end in facts.interval)
        rows.append(
            [
                *(facts.name, facts.network, facts.split, accuracy, interval, facts.images),
                *(facts.parameters, facts.multiply_adds, facts.file_bytes / 1e6),
                *(facts.epochs or None, facts.images_per_second, facts.seconds, facts.device),
            ]
        )
    return Table("compare", "Runs", columns, rows, 2, NOTE, transposed=True)


def _pairs_table(pairs: Sequence[Pair]) -> Table:
    columns = [
        *("first", "second", "shared images", "groups"),
        *("accuracy of the first, %", "accuracy of the second, %"),
        *("difference, points", "95 % CI, low", "95 % CI, high"),
        *("significant", "correct in the first only", "correct in the second only"),
        *("p", "adjusted p", "detectable, points"),
    ]
    rows: list[list[Cell]] = []
    for pair in pairs:
        difference = pair.difference
        cells: list[Cell] = [None] * 11
        if difference is not None and pair.accuracies is not None:
            shares = (*pair.accuracies, difference.mean, difference.low, difference.high)
            significant = "yes" if pair.significant else "no"
            detectable = None if pair.detectable is None else 100 * pair.detectable
            cells = [*(100 * share for share in shares), significant, pair.lost, pair.gained]
            cells += [_p_text(pair.p_value), _p_text(pair.adjusted_p_value), detectable]
        groups = None if pair.groups == pair.images else pair.groups
        rows.append([pair.first, pair.second, pair.images, groups, *cells])
    title = "Paired differences"
    return Table("differences", title, columns, rows, 2, PAIRS_NOTE, transposed=True)


def _findings(pairs: Sequence[Pair]) -> list[str]:
    findings = []
    for pair in pairs:
        if pair.difference is None:
            findings.append(
                f"{pair.first} and {pair.second} are not compared: "
                f"{counted(pair.images, f'common {_split_of(pair)}image')}{_in_groups(pair)} "
                f"outside both training sets, {LEAST} needed."
            )
        else:
            findings.append(_difference_text(pair, pair.difference))
    compared = sum(pair.difference is not None for pair in pairs)
    if compared > 1:
        findings.append(
            f"The p values are adjusted for {compared} comparisons (Holm); each interval covers "
            "its own difference with 95 % confidence."
        )
    return [*findings, *([TRAINING] if compared else []), *_excluded(pairs)]


def _difference_text(pair: Pair, difference: Difference) -> str:
    """One sentence, no stronger than the test."""
    first, second = pair.first, pair.second
    split = " and ".join(dict.fromkeys(map(str, pair.splits)))
    figure = f"{split.capitalize()} accuracy on the same {pair.images:,} images{_in_groups(pair)}"
    points, low, high = map(_points, (difference.mean, difference.low, difference.high))
    interval = f"95 % CI {low} to {high}"
    p_text = _p_text(pair.adjusted_p_value)
    test = f"p {p_text}" if p_text.startswith("<") else f"p = {p_text}"
    if pair.groups < pair.images:
        test += ", sign-flip permutation test in which each group counts once"
    if pair.significant:
        more = "better" if difference.mean > 0 else "worse"
        return (
            f"{figure}: {second} is {more} than {first} by {100 * abs(difference.mean):.2f} points "
            f"({interval}): {counted(pair.gained, 'error')} of {first} "
            f"{agreeing(pair.gained, 'is', 'are')} correct in {second}, {pair.lost:,} the other "
            f"way round ({test})."
        )
    if difference.significant and pair.p_value is not None and pair.p_value >= 1 - LEVEL:
        test += "; the test decides, the interval is approximate"
    detectable = (
        "no difference would be significant on so few images"
        if pair.detectable is None
        else f"only a true difference of {100 * pair.detectable:.1f} points or more would be "
        f"significant in at least {percent(POWER)} of all test sets of this size"
    )
    return (
        f"{figure}: no significant difference between {first} and {second} "
        f"({second} minus {first}: {points} points, {interval}; {counted(pair.gained, 'image')} "
        f"{agreeing(pair.gained, 'is', 'are')} correct in {second} only, {pair.lost:,} in {first} "
        f"only, {test}); {detectable}."
    )


def _points(difference: float) -> str:
    """A difference in points, with its sign if it is not 0."""
    text = f"{100 * difference:+.2f}"
    return "0.00" if float(text) == 0 else text


def _split_of(pair: Pair) -> str:
    """The split of both with a space; "" if they differ."""
    splits = {split for split in pair.splits if split is not None}
    return f"{splits.pop()} " if len(splits) == 1 else ""


def _in_groups(pair: Pair) -> str:
    """The number of groups, where images belong together."""
    return "" if pair.groups == pair.images else f" in {counted(pair.groups, 'group')}"


def _p_text(p_value: float | None) -> str:
    """A p value with two digits; with three beside 0.05, which decides."""
    if p_value is None:
        return ""
    if p_value < 0.001:
        return "<0.001"
    text = f"{p_value:.2g}" if p_value < 0.1 else f"{p_value:.2f}"
    return f"{p_value:.3g}" if text == f"{1 - LEVEL:.2g}" else text


def _excluded(pairs: Sequence[Pair]) -> list[str]:
    """The images that do not count, or flatter a run."""
    sentences = []
    for pair in pairs:
        names = (pair.first, pair.second)
        sentences += [
            f"{seen:,} of the {counted(evaluated, 'image')} that {name} was evaluated on "
            f"{agreeing(seen, 'is a training image', 'are training images')} of "
            f"{' or '.join(owners)}: excluded."
            for name, seen, evaluated, owners in zip(
                names, pair.trained_on, pair.evaluated, pair.trained_by, strict=True
            )
            if seen
        ]
        if pair.relabelled:
            sentences.append(
                f"{counted(pair.relabelled, 'image')} of another class in {pair.first} than in "
                f"{pair.second}: excluded."
            )
        if pair.selected_on and pair.difference is not None:
            sentences.append(
                f"{' and '.join(names)}: validation images were used for model selection, so the "
                "accuracies on them are optimistic; --test-fraction holds out a test set."
            )
    return sentences


def _settings_sentences(
    settings: Mapping[str, tuple[object, ...]], names: Sequence[str]
) -> list[str]:
    """The settings that differ between each run and the first."""
    sentences = []
    for index, name in enumerate(names[1:], start=1):
        changed = [key for key, values in settings.items() if values[index] != values[0]]
        if not changed:
            text = "have the same settings"
        elif len(changed) <= FEW:
            text = f"differ in {joined(changed)} only"
        else:
            text = f"differ in {len(changed)} settings"
        sentences.append(f"{names[0]} and {name} {text}.")
    return sentences


def _caveats(runs: Sequence[ComparedRun]) -> list[str]:
    """Limits of the comparison: other classes, missing epochs, other machines."""
    sentences, first = [], runs[0]
    for run in runs[1:]:
        if set(run.classes) != set(first.classes):
            sentences.append(
                f"{first.facts.name} and {run.facts.name} have different classes "
                f"({len(first.classes)} and {len(run.classes)}): they solve different tasks."
            )
    for run in runs:
        name = run.facts.name
        if not run.history:
            sentences.append(
                f"{name} has no history.csv (as a linear probe): no curves, no throughput."
            )
        if not run.folder.is_finished:
            sentences.append(
                f"{name} is unfinished: {run.facts.epochs} of {run.config.training.epochs} "
                f"epochs; `residua resume {run.folder.path}` continues it."
            )
    if len({run.facts.device for run in runs}) > 1:
        sentences.append("The runs used different machines or threads: do not compare speeds.")
    return sentences


def _setting_text(value: object) -> str:
    """A value as in config.yaml."""
    return value if isinstance(value, str) else json.dumps(value)
