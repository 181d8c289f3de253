"""The results of a study's rows -> its page."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from residua.comparison.statistics import seed_differences
from residua.report import page_figures
from residua.report.page import Cell, Figure, Page, Section, Table
from residua.studies.definition import Definition
from residua.studies.results import Outcome
from residua.studies.study import StudyOptions
from residua.studies.text import (
    Values,
    degradation_finding,
    diverged_findings,
    family_findings,
    time_findings,
    undertrained_findings,
)
from residua.system.words import counted, joined

CURVES: tuple[Literal["accuracy", "loss"], ...] = ("accuracy", "loss")
Metric = Literal["accuracy", "train_accuracy"]  # of an Outcome
SPREAD = (
    "Seeds differ in initialisation, data order and augmentation, and in the split where the "
    "dataset has no test set. Rows are compared in pairs, seed by seed. The spread is pooled over "
    "all rows of a comparison, assuming equal variance, and the intervals are simultaneous (Tukey)."
)

PAPER = "Epochs, batch size, schedule and weight decay are those of the paper (--paper)"
SMALL = (
    "Default settings suit a small machine: small networks and few epochs, so effects of long "
    "training do not appear. --epochs, --data, --seeds and --paper change that."
)


def build_page(
    study: Definition,
    outcomes: Sequence[Outcome],
    options: StudyOptions,
    extra: Page | None = None,
) -> Page:
    """The page of a study of trained rows. extra: the page of a computed study to append."""
    complete = {outcome.row.name: outcome for outcome in outcomes if not outcome.diverged}
    timed = all(len(outcome.seconds) == options.seeds for outcome in complete.values())
    lost = {o.row.name: (len(o.diverged), options.seeds) for o in outcomes if o.diverged}
    findings = [*_degradation(study, complete), *_families(study, complete)]
    sections = [_rows_section(study, outcomes, options), _differences_section(study, complete)]
    if study.time_to_accuracy and timed and len(complete) > 1:
        epochs, minutes, targets = _times_to_accuracy(complete)
        findings += time_findings(epochs, minutes, targets)
        sections.append(_times_section(epochs, minutes, targets, complete))
    if study.published:
        text = "From the literature; data, networks and epochs differ unless stated otherwise."
        sections.append(Section("Published results", [text], study.published))
    findings += diverged_findings(lost)
    return Page(
        study.title,
        study.claim,
        study.source,
        [*findings, *(extra.findings if extra else ())],
        [*sections, *(extra.sections if extra else ())],
        _conditions(outcomes, options),
    )


def _degradation(study: Definition, complete: Mapping[str, Outcome]) -> list[str]:
    findings = []
    for pair in study.degradation:
        plain, residual = ([row.name for row in kind] for kind in (pair.plain, pair.residual))
        if complete.keys() >= {*plain, *residual}:
            (errors, step), (residual_errors, _) = (
                _stacked(complete, names, "train_accuracy") for names in (plain, residual)
            )
            findings.append(
                degradation_finding(pair.name, plain, 1 - errors, 1 - residual_errors, step)
            )
    return findings


def _families(study: Definition, complete: Mapping[str, Outcome]) -> list[str]:
    findings = []
    for family in study.families.values():
        rows = [name for name in family if name in complete]
        findings += undertrained_findings(
            {name: float(complete[name].train_accuracy.mean()) for name in rows}
        )
        if len(rows) > 1:
            values, step = _stacked(complete, rows, "accuracy")
            findings += family_findings(rows, values, "test accuracy", step)
    return findings


def _stacked(
    outcomes: Mapping[str, Outcome], rows: Sequence[str], metric: Metric
) -> tuple[Values, float]:
    """A metric of rows and seeds, [R, S], and its smallest step: one image."""
    first = outcomes[rows[0]]
    images = first.test_images if metric == "accuracy" else first.train_images
    return np.stack([getattr(outcomes[row], metric) for row in rows]), 1 / images


def _rows_section(study: Definition, outcomes: Sequence[Outcome], options: StudyOptions) -> Section:
    rows: list[list[Cell]] = []
    for outcome in outcomes:
        accuracies = [_mean(outcome.accuracy), _deviation(outcome.accuracy)]
        accuracies.append(_mean(outcome.train_accuracy))
        lost = len(outcome.diverged)
        rows.append([outcome.row.name, outcome.row.description, *accuracies, lost])
    columns = ("row", "description", "test accuracy %", "+-", "train accuracy %", "diverged")
    note = (
        "+-: standard deviation over the seeds, in points. Train accuracy: of the last epoch, on "
        "augmented images. Diverged: seeds whose loss became NaN or infinite; the other columns "
        "exclude them."
    )
    table = Table("rows", "Accuracy of each row", columns, rows, 2, note)
    tables = [table, _costs(outcomes, options.jobs)]
    return Section("Results", [SPREAD], tables, _figures(study, outcomes))


def _figures(study: Definition, outcomes: Sequence[Outcome]) -> list[Figure]:
    trained = {outcome.row.name: outcome for outcome in outcomes if outcome.curves}
    if not trained:
        return []
    figures = [
        page_figures.curves(
            {name: trained[name].curves for name in names},
            metric,
            group,
            _loss_note([trained[name] for name in names]) if metric == "loss" else "",
        )
        for group, names in _groups(study, trained).items()
        for metric in CURVES
    ]
    caption = "Each point is a seed, each bar the mean of a row."
    accuracies = {name: outcome.accuracy.tolist() for name, outcome in trained.items()}
    title = "test accuracy of each seed"
    figures.append(page_figures.dots(accuracies, "accuracies", title, caption))
    if study.degradation:
        errors = {name: (1 - outcome.train_accuracy).tolist() for name, outcome in trained.items()}
        title = "training error of each seed"
        figures.append(page_figures.dots(errors, "training-errors", title, caption))
    return figures


def _loss_note(outcomes: Sequence[Outcome]) -> str:
    """Which losses are drawn."""
    smoothing = {o.row.name: o.config.optimization.label_smoothing for o in outcomes}
    note = "The test loss is the cross entropy, the training loss includes label smoothing"
    if len(set(smoothing.values())) == 1:
        return f"{note} ({next(iter(smoothing.values())):g})."
    values = [f"{name} {value:g}" for name, value in smoothing.items()]
    return f"{note}, so training losses are not comparable ({joined(values)})."


def _groups(study: Definition, trained: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """Rows that share a figure: those of each degradation, and the rest."""
    groups = {
        pair.name: [row.name for row in pair.plain + pair.residual if row.name in trained]
        for pair in study.degradation
    }
    grouped = {name for names in groups.values() for name in names}
    groups[""] = [name for name in trained if name not in grouped]
    return {group: names for group, names in groups.items() if names}


def _costs(outcomes: Sequence[Outcome], jobs: int) -> Table:
    rows: list[list[Cell]] = []
    for outcome in outcomes:
        counts, size, seconds = outcome.counts, outcome.file_bytes, outcome.seconds
        times: list[Cell] = [
            float(pick(seconds)) for pick in (np.median, np.min, np.max) if len(seconds)
        ]
        rows.append(
            [
                outcome.row.name,
                counts.parameters,
                counts.multiply_adds,
                None if size is None else size / 1e6,
                *(times or (None, None, None)),
            ]
        )
    columns = ["row", "parameters", "multiply-adds", "file, MB", "seconds per epoch"]
    columns += ["fastest seed", "slowest seed"]
    note = (
        "Parameters: without BatchNorm statistics. Multiply-adds: of one image. "
        "Seconds: of training only, each seed's median epoch; the median, lowest and highest of "
        "these."
    )
    if jobs > 1:
        note += f" Up to {jobs} runs shared the machine: small differences in time are noise."
    return Table("costs", "Cost of each row", columns, rows, 2, note)


def _mean(values: Values) -> float | None:
    return 100 * float(values.mean()) if len(values) else None


def _deviation(values: Values) -> float | None:
    # Not NumPy's: its deviation of equal values may differ from zero
    return 100 * statistics.stdev(values.tolist()) if len(values) > 1 else None


def _differences_section(study: Definition, complete: Mapping[str, Outcome]) -> Section:
    groups: list[tuple[Metric, Sequence[str]]] = [
        ("accuracy", names) for names in study.families.values()
    ]
    for pair in study.degradation:
        for kind in (pair.plain, pair.residual):
            groups.append(("train_accuracy", [row.name for row in kind]))
    rows: list[list[Cell]] = []
    for metric, family in groups:
        names = [name for name in family if name in complete]
        if len(names) < 2:
            continue
        title = "test accuracy" if metric == "accuracy" else "train accuracy"
        differences = seed_differences(*_stacked(complete, names, metric))
        for (first, second), difference in differences.items():
            known = math.isfinite(difference.low)
            ends = [100 * difference.low, 100 * difference.high] if known else [None, None]
            verdict = ("yes" if difference.significant else "no") if known else "one seed"
            mean = 100 * difference.mean
            rows.append([title, names[first], names[second], mean, *ends, verdict])
    columns = ("metric", "from", "to", "difference, points", "low", "high", "significant")
    table = Table("differences", "Paired differences, 95 % CIs", columns, rows, 2)
    text = () if rows else ("No two rows are left to compare.",)
    return Section("Differences", text, [table])


def _times_to_accuracy(
    outcomes: Mapping[str, Outcome],
) -> tuple[dict[str, Values], dict[str, Values], Values]:
    """Epochs and minutes of each row to the target accuracies, and these in [0, 1]; all [S].

    The target of a seed is the lowest final test accuracy of all rows. A row has reached it in the
    epoch from which its test accuracy stays at or above it.
    """
    curves = {
        name: [np.array([epoch["test_accuracy"] for epoch in curve]) for curve in outcome.curves]
        for name, outcome in outcomes.items()
    }
    targets = np.min([[curve[-1] for curve in seeds] for seeds in curves.values()], axis=0)
    epochs, minutes = {}, {}
    for name, seeds in curves.items():
        below = [np.flatnonzero(c < target) for c, target in zip(seeds, targets, strict=True)]
        epochs[name] = np.array([last[-1] + 2 if len(last) else 1 for last in below], float)
        minutes[name] = epochs[name] * outcomes[name].seconds / 60
    return epochs, minutes, targets


def _times_section(
    epochs: Mapping[str, Values],
    minutes: Mapping[str, Values],
    targets: Values,
    outcomes: Mapping[str, Outcome],
) -> Section:
    rows: list[list[Cell]] = []
    for name, outcome in outcomes.items():
        spans = (float(epochs[name].mean()), int(epochs[name].min()), int(epochs[name].max()))
        rows.append([name, outcome.config.training.epochs, *spans, float(minutes[name].mean())])
    columns = ("row", "all epochs", "epochs, mean", "lowest", "highest", "minutes of training")
    title = f"Time to {100 * targets.mean():.2f} % test accuracy, the lowest final accuracy"
    note = "The epoch from which a seed's test accuracy stays at or above the target."
    table = Table("time-to-accuracy", title, columns, rows, 2, note)
    return Section("Time to equal accuracy", (), [table])


def _conditions(outcomes: Sequence[Outcome], options: StudyOptions) -> list[str]:
    """Data, settings and machine, in sentences."""
    first = outcomes[0]
    environments = [facts for outcome in outcomes for facts in outcome.environments]
    threads = ""
    if any(facts["device"] == "cpu" for facts in environments):
        threads = f", {_all(counted(facts['threads'], 'thread') for facts in environments)} per run"
    configs = [outcome.config for outcome in outcomes]
    return [
        f"Data: {Path(first.config.data.path).name}, {first.train_images:,} training images, "
        f"{first.test_images:,} test images, {_all(c.preprocessing.size for c in configs)} px, "
        f"channels: {_all(c.preprocessing.channels for c in configs)}; "
        f"epochs: {_all(c.training.epochs for c in configs)}; "
        f"batch size: {_all(c.training.batch_size for c in configs)}; "
        f"{counted(options.seeds, 'seed')}.",
        settings_sentence(options, any(config.optimization.steps for config in configs)),
        f"{datetime.date.today()}; {_all(facts['device_name'] for facts in environments)}{threads}"
        f", {_all(config.training.precision for config in configs)}; "
        f"residua {_all(facts['residua'] for facts in environments)}, "
        f"torch {_all(facts['torch'] for facts in environments)}.",
        (
            "The dataset's own validation set selected the epoch whose weights are evaluated."
            if first.validated
            else "The weights of the last epoch are evaluated; there was no model selection."
        ),
        "Every row and seed is an ordinary run under runs/, with its own report.",
    ]


def settings_sentence(options: StudyOptions, stepped: bool) -> str:
    """Whose settings the rows have, and what the user set. stepped: whether lr drops at milestones.

    A shorter training keeps the milestones at the same fractions of the epochs.
    """
    changes = [f"{name} = {value}" for name, value in options.settings.items()]
    shortened = bool(options.budget) or "training.epochs" in options.settings
    if options.budget:
        changes.append(f"as many epochs as fit into {options.budget}")
    if not options.paper:
        return SMALL + (f" Set for all rows: {joined(changes)}." if changes else "")
    scaled = stepped and shortened and "optimization.steps" not in options.settings
    note = " (learning-rate milestones at the same fractions of the epochs)" if scaled else ""
    return PAPER + (f", except: {joined(changes)}{note}." if changes else ".")


def _all(values: Iterable[object]) -> str:
    """All different values, in words."""
    return joined([str(value) for value in dict.fromkeys(values)])
