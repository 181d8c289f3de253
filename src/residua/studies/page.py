"""What the rows of a study came to -> its page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from residua.comparison.statistics import seed_differences
from residua.report import page_figures
from residua.report.page import Cell, Figure, Page, Section, Table
from residua.report.view import joined
from residua.studies.definition import Definition
from residua.studies.plan import Asked
from residua.studies.provenance import conditions_of
from residua.studies.results import Outcome
from residua.studies.text import (
    Values,
    of_beginners,
    of_degradation,
    of_diverged,
    of_family,
    of_reach,
)

CURVES: tuple[Literal["accuracy", "loss"], ...] = ("accuracy", "loss")
SPREAD = (
    "Seeds differ in initialisation, order and augmentation, and in the split where the data "
    "brings no test part. A paired interval compares rows seed by seed; the spread is pooled over "
    "all rows of a comparison, as if these were equally steady, and its intervals hold jointly "
    "(Tukey's range)."
)


def page_of(
    study: Definition, outcomes: Sequence[Outcome], asked: Asked, extra: Page | None = None
) -> Page:
    """All that a study of trained rows has to say. extra: the page of a closed study to add."""
    by_name = {each.row.name: each for each in outcomes}
    whole = {name: each for name, each in by_name.items() if not each.diverged}
    timed = len(whole) > 1 and all(len(e.seconds) == asked.seeds for e in whole.values())
    reached = _reached(whole) if study.reach and timed else None
    sections = [_accuracy_section(study, outcomes, asked), _differences_section(study, whole)]
    if reached is not None:
        sections.append(_reach_section(*reached, whole))
    if study.published:
        tables = [
            Table(f"published-{number}", each.title, each.columns, each.rows, 2, each.source)
            for number, each in enumerate(study.published, start=1)
        ]
        said = "As others published it; other data, networks and epochs than here where not said."
        sections.append(Section("What was published", [said], tables))
    findings = _findings(study, whole)
    if reached is not None:
        findings += of_reach(*reached)
    lost = {name: (len(each.diverged), asked.seeds) for name, each in by_name.items()}
    findings += of_diverged({name: each for name, each in lost.items() if each[0]})
    return Page(
        study.title,
        study.claim,
        study.source,
        [*findings, *(extra.findings if extra else ())],
        [*sections, *(extra.sections if extra else ())],
        conditions_of(outcomes, asked),
    )


def _findings(study: Definition, whole: Mapping[str, Outcome]) -> list[str]:
    """What follows from the rows of which no seed diverged."""
    found = []
    for each in study.degradation:
        plain, residual = ([row.name for row in kind] for kind in (each.plain, each.residual))
        if whole.keys() >= {*plain, *residual}:
            errors, cure = (1 - _stacked(whole, k, "train_accuracy") for k in (plain, residual))
            step = 1 / whole[plain[0]].taught
            found.append(of_degradation(each.name, plain, errors, cure, step))
    for names in study.families.values():
        found += of_beginners(
            {name: float(whole[name].train_accuracy.mean()) for name in names if name in whole}
        )
        if len(rows := [name for name in names if name in whole]) > 1:
            values, step = _stacked(whole, rows, "accuracy"), 1 / whole[rows[0]].tested
            found += of_family(rows, values, "test accuracy", step)
    return found


def _stacked(by_name: Mapping[str, Outcome], rows: Sequence[str], figure: str) -> Values:
    """[R, S]"""
    return np.stack([getattr(by_name[row], figure) for row in rows])


def _accuracy_section(study: Definition, outcomes: Sequence[Outcome], asked: Asked) -> Section:
    columns = (
        "row",
        "what it is",
        "test accuracy %",
        "+-",
        "training accuracy %",
        "diverged",
    )
    rows: list[list[Cell]] = [
        [
            each.row.name,
            each.row.what,
            _mean(each.accuracy),
            _deviation(each.accuracy),
            _mean(each.train_accuracy),
            len(each.diverged),
        ]
        for each in outcomes
    ]
    note = (
        "+-: standard deviation over the seeds, in points. Training accuracy: of the last epoch's "
        "images as they were shown, augmented. Diverged: seeds whose loss did not stay finite; "
        "the other figures leave them out."
    )
    table = Table("rows", "Rows of the study", columns, rows, 2, note)
    learnt = {each.row.name: each for each in outcomes if each.curves}
    figures: list[Figure] = []
    if learnt:
        accuracies = {name: each.accuracy.tolist() for name, each in learnt.items()}
        caption = "Each point is a seed, each bar the mean of a row."
        figures = [
            page_figures.curves(
                {name: learnt[name].curves for name in names},
                figure,
                group,
                _of_losses([learnt[name] for name in names]) if figure == "loss" else "",
            )
            for group, names in _groups(study, learnt).items()
            for figure in CURVES
        ]
        title = "test accuracy of each seed"
        figures.append(page_figures.dots(accuracies, "accuracies", title, caption))
        if study.degradation:
            errors = {name: (1 - each.train_accuracy).tolist() for name, each in learnt.items()}
            title = "training error of each seed"
            figures.append(page_figures.dots(errors, "training-errors", title, caption))
    return Section(
        "What each row came to", [SPREAD], [table, _costs(outcomes, asked.jobs)], figures
    )


def _of_losses(outcomes: Sequence[Outcome]) -> str:
    """Which losses are drawn."""
    smoothing = {e.row.name: e.config.optimization.label_smoothing for e in outcomes}
    said = "Test losses are cross entropies; training losses are those that each row learns by"
    if len(set(smoothing.values())) == 1:
        return f"{said}, with label smoothing {next(iter(smoothing.values())):g}."
    each = [f"{name} {value:g}" for name, value in smoothing.items()]
    return f"{said}, which do not compare: they smooth labels by {joined(each)}."


def _groups(study: Definition, learnt: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """Rows whose curves stand in one figure: those that learn in the same way, and the rest."""
    groups = {
        each.name: [row.name for row in each.plain + each.residual if row.name in learnt]
        for each in study.degradation
    }
    grouped = {name for names in groups.values() for name in names}
    groups[""] = [name for name in learnt if name not in grouped]
    return {group: names for group, names in groups.items() if names}


def _costs(outcomes: Sequence[Outcome], jobs: int) -> Table:
    columns = (
        *("row", "parameters", "multiply-adds", "file, MB", "seconds an epoch"),
        *("fastest seed", "slowest seed"),
    )
    rows: list[list[Cell]] = [
        [
            each.row.name,
            each.counts.total,
            each.counts.multiply_adds,
            None if each.size is None else each.size / 1e6,
            *_seconds(each),
        ]
        for each in outcomes
    ]
    note = (
        "Parameters as Keras counts them, with BatchNorm's statistics; multiply-adds of one "
        "image; seconds of learning alone: each seed's median epoch, and of these the median, "
        "the lowest and the highest."
    )
    if jobs > 1:
        note += f" Up to {jobs} runs shared the machine, so small differences of time say nothing."
    return Table("costs", "What each row costs", columns, rows, 2, note)


def _seconds(each: Outcome) -> list[Cell]:
    """Median, lowest and highest over the seeds; None where none is known."""
    if not len(each.seconds):
        return [None] * 3
    return [float(of(each.seconds)) for of in (np.median, np.min, np.max)]


def _mean(values: Values) -> float | None:
    return 100 * float(values.mean()) if len(values) else None


def _deviation(values: Values) -> float | None:
    # Not NumPy's, whose deviation of equal values need not be zero
    return 100 * statistics.stdev(values.tolist()) if len(values) > 1 else None


def _differences_section(study: Definition, whole: Mapping[str, Outcome]) -> Section:
    asked = [("test accuracy", "accuracy", rows) for rows in study.families.values()]
    for each in study.degradation:
        for kind in (each.plain, each.residual):
            names = tuple(row.name for row in kind)
            asked.append(("training accuracy", "train_accuracy", names))
    rows: list[list[Cell]] = []
    for title, figure, names in asked:
        names = tuple(name for name in names if name in whole)
        if len(names) < 2:
            continue
        outcome = whole[names[0]]
        step = 1 / (outcome.tested if figure == "accuracy" else outcome.taught)
        for (first, second), found in seed_differences(
            _stacked(whole, names, figure), step
        ).items():
            known = math.isfinite(found.low)
            ends = [100 * found.low, 100 * found.high] if known else [None, None]
            seen = ("yes" if found.significant else "no") if known else "one seed"
            rows.append([title, names[first], names[second], 100 * found.mean, *ends, seen])
    columns = ("figure", "from", "to", "difference, points", "low", "high", "seen")
    table = Table("differences", "Paired differences, 95 % intervals", columns, rows, 2)
    said = () if rows else ("No two rows are left to compare.",)
    return Section("Which differences are seen", said, [table])


def _reached(whole: Mapping[str, Outcome]) -> tuple[dict[str, Values], dict[str, Values], Values]:
    """Epochs and minutes of each row, and accuracies in [0, 1]; all of them [S].

    Of each seed: the accuracy at which the lowest row ends, and the epoch from which on a row's
    test curve does not fall below it again.
    """
    curves = {
        name: [np.array([epoch["test_accuracy"] for epoch in curve]) for curve in each.curves]
        for name, each in whole.items()
    }
    targets = np.min([[curve[-1] for curve in each] for each in curves.values()], axis=0)
    epochs, minutes = {}, {}
    for name, each in curves.items():
        below = [np.flatnonzero(c < target) for c, target in zip(each, targets, strict=True)]
        epochs[name] = np.array([places[-1] + 2 if len(places) else 1 for places in below], float)
        minutes[name] = epochs[name] * whole[name].seconds / 60
    return epochs, minutes, targets


def _reach_section(
    epochs: Mapping[str, Values],
    minutes: Mapping[str, Values],
    targets: Values,
    whole: Mapping[str, Outcome],
) -> Section:
    rows: list[list[Cell]] = []
    for name, each in whole.items():
        ends = [int(epochs[name].min()), int(epochs[name].max())]
        means = [float(epochs[name].mean()), float(minutes[name].mean())]
        rows.append([name, each.config.training.epochs, means[0], *ends, means[1]])
    columns = ("row", "epochs in all", "epochs, mean", "lowest", "highest", "minutes of learning")
    title = f"Where the lowest row ends: {100 * targets.mean():.2f} % in the mean of the seeds"
    note = "From that epoch on the test curve of the seed does not fall below it again."
    table = Table("reach", title, columns, rows, 2, note)
    return Section("Epochs and minutes at equal accuracy", (), [table])
