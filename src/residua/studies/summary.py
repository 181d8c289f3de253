"""What the rows of a study came to -> its page."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence

import numpy as np

from residua import __version__
from residua.charts import joined
from residua.differences import of_seeds
from residua.studies import drawing
from residua.studies.definition import Definition
from residua.studies.page import Cell, Page, Section, Table
from residua.studies.training import Asked, Outcome
from residua.studies.words import Values, of_degradation, of_family

SPREAD = (
    "Seeds differ in initialisation, order and augmentation, and in the split where the data "
    "brings no test part. A paired interval compares rows seed by seed; the spread is pooled over "
    "all rows of a comparison, as if these were equally steady, and its intervals hold jointly "
    "(Tukey's range)."
)


def page_of(
    study: Definition,
    outcomes: Sequence[Outcome],
    asked: Asked,
    environment: Mapping[str, object],
    extra: Sequence[Section] = (),
) -> Page:
    """All that a study of trained rows has to say. extra: sections of a closed study."""
    by_name = {each.row.name: each for each in outcomes}
    sections = [_accuracy_section(study, outcomes), _differences_section(study, by_name)]
    if study.reach:
        sections.append(_reach_section(outcomes))
    if study.published:
        tables = [
            Table(f"published-{number}", each.title, each.columns, each.rows, 2, each.source)
            for number, each in enumerate(study.published, start=1)
        ]
        said = "Other networks, data and numbers of epochs than here: an order to compare with."
        sections.append(Section("What was published", [said], tables))
    return Page(
        study.title,
        study.claim,
        study.source,
        _findings(study, by_name),
        [each for each in sections if each.tables or each.figures] + list(extra),
        _conditions(outcomes, asked, environment),
    )


def _findings(study: Definition, by_name: Mapping[str, Outcome]) -> list[str]:
    found = []
    for each in study.degradation:
        plain = _stacked(by_name, each.plain, "train_accuracy")
        residual = _stacked(by_name, each.residual, "train_accuracy")
        found.append(of_degradation(each.name, each.plain, 1 - plain, 1 - residual))
    for rows in study.families.values():
        step = 1 / by_name[rows[0]].tested
        found += of_family(rows, _stacked(by_name, rows, "accuracy"), "test accuracy", step)
    return found


def _stacked(by_name: Mapping[str, Outcome], rows: Sequence[str], figure: str) -> Values:
    """[R, S]"""
    return np.stack([getattr(by_name[row], figure) for row in rows])


def _accuracy_section(study: Definition, outcomes: Sequence[Outcome]) -> Section:
    columns = (
        "row",
        "what it is",
        "test accuracy %",
        "+-",
        "training accuracy %",
    )
    rows: list[list[Cell]] = [
        [
            each.row.name,
            each.row.what,
            100 * float(each.accuracy.mean()),
            _deviation(each.accuracy),
            100 * float(each.train_accuracy.mean()),
        ]
        for each in outcomes
    ]
    note = (
        "+-: standard deviation over the seeds, in points. Training accuracy: of the last epoch's "
        "pictures as they were shown, augmented."
    )
    table = Table("rows", "Rows of the study", columns, rows, 2, note)
    accuracies = {each.row.name: each.accuracy.tolist() for each in outcomes}
    caption = "Each point is a seed, each bar the mean of a row."
    figures = [
        drawing.curves({each.row.name: each.curves for each in outcomes}),
        drawing.dots(accuracies, "accuracies", "test accuracy of each seed", caption),
    ]
    if study.degradation:
        errors = {each.row.name: (1 - each.train_accuracy).tolist() for each in outcomes}
        figures.append(
            drawing.dots(errors, "training-errors", "training error of each seed", caption)
        )
    return Section("What each row came to", [SPREAD], [table, _costs(outcomes)], figures)


def _costs(outcomes: Sequence[Outcome]) -> Table:
    columns = ("row", "parameters", "multiply-adds", "file, MB", "seconds an epoch")
    rows: list[list[Cell]] = [
        [
            each.row.name,
            each.counts.total,
            each.counts.multiply_adds,
            each.size / 1e6,
            float(np.median(each.seconds)),
        ]
        for each in outcomes
    ]
    note = (
        "Parameters as Keras counts them, with BatchNorm's statistics; multiply-adds of one "
        "picture; seconds of learning alone, the median epoch."
    )
    return Table("costs", "What each row costs", columns, rows, 2, note)


def _deviation(values: Values) -> float | None:
    return 100 * float(values.std(ddof=1)) if len(values) > 1 else None


def _differences_section(study: Definition, by_name: Mapping[str, Outcome]) -> Section:
    asked = [("test accuracy", "accuracy", rows) for rows in study.families.values()]
    for each in study.degradation:
        asked += [("training accuracy", "train_accuracy", each.plain)]
        asked += [("training accuracy", "train_accuracy", each.residual)]
    rows: list[list[Cell]] = []
    for title, figure, names in asked:
        if len(names) < 2:
            continue
        outcome = by_name[names[0]]
        step = 1 / (outcome.tested if figure == "accuracy" else outcome.taught)
        for (first, second), found in of_seeds(_stacked(by_name, names, figure), step).items():
            known = math.isfinite(found.low)
            ends = [100 * found.low, 100 * found.high] if known else [None, None]
            seen = ("yes" if found.seen else "no") if known else "one seed"
            rows.append([title, names[first], names[second], 100 * found.mean, *ends, seen])
    columns = ("figure", "from", "to", "difference, points", "low", "high", "seen")
    table = Table("differences", "Paired differences, 95 % intervals", columns, rows, 2)
    return Section("Which differences are seen", (), [table] if rows else ())


def _reach_section(outcomes: Sequence[Outcome]) -> Section:
    """When each row's mean curve is first as high as the lowest row ends."""
    means = {}
    for each in outcomes:
        shortest = min(map(len, each.curves))
        values = [[epoch["test_accuracy"] for epoch in curve[:shortest]] for curve in each.curves]
        means[each.row.name] = np.mean(values, 0)
    target = min(float(curve[-1]) for curve in means.values())
    rows: list[list[Cell]] = []
    for each in outcomes:
        first = int(np.argmax(means[each.row.name] >= target)) + 1
        minutes = first * float(np.median(each.seconds)) / 60
        rows.append([each.row.name, each.config.training.epochs, first, minutes])
    columns = ("row", "epochs in all", "epochs until it is reached", "minutes of learning")
    title = f"When {100 * target:.2f} % of the test part are right, where the lowest row ends"
    return Section(
        "Epochs and minutes at equal accuracy", (), [Table("reach", title, columns, rows, 2)]
    )


def _conditions(
    outcomes: Sequence[Outcome], asked: Asked, environment: Mapping[str, object]
) -> list[str]:
    first = outcomes[0]
    config = first.config
    epochs = joined(sorted({str(each.config.training.epochs) for each in outcomes}, key=int))
    return [
        f"Data: {config.data.path}, {first.taught:,} pictures to learn from, {first.tested:,} to "
        f"judge by, {config.preprocessing.size} px, {config.preprocessing.channels} channels; "
        f"{epochs} epochs, batch {config.training.batch}, {asked.seeds} seeds.",
        (
            "Defaults of a study suit a small machine: few epochs and small networks, so what "
            "needs long training does not show here. --epochs, --data, --seeds and --paper change "
            "that."
        ),
        f"{datetime.date.today()}; {environment['device_name']}, {environment['threads']} threads, "
        f"{config.training.precision}; residua {__version__}, torch {environment['torch']}.",
        (
            "The data's own validation part chose the epoch whose weights are judged."
            if first.chosen
            else "The last weights are judged; nothing was chosen."
        ),
        "Every row and seed is an ordinary run under runs/, with its own report.",
    ]
