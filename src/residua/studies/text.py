"""Results of rows and seeds -> the findings of a page, worded by their intervals.

Legend: R rows, S seeds. resolution: the smallest step of a metric, see `seed_differences`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from residua.comparison.statistics import Difference, difference_text, seed_differences
from residua.system.words import counted, joined

Values = npt.NDArray[np.float64]

TRAINED = 0.5  # training accuracy below which a network is undertrained


def family_findings(
    rows: Sequence[str], values: Values, metric: str, resolution: float = 0.0
) -> list[str]:
    """Whether rows differ, the most important sentence first.

    values: fractions in [0, 1], float64 [R, S]. metric: such as "test accuracy".
    """
    pairs, metric = seed_differences(values, resolution), _capitalised(metric)
    if values.shape[1] == 1:
        return [
            f"{metric}: one seed shows no spread, so nothing is claimed about {joined(rows)}; use "
            "more seeds."
        ]
    if len(rows) == 2:
        return [difference_text(rows[0], rows[1], metric, pairs[0, 1])]
    seen = {pair: difference for pair, difference in pairs.items() if difference.significant}
    smallest = _smallest(next(iter(pairs.values())))
    means = 100 * values.mean(axis=1)
    if not seen:
        return [
            f"{metric}: no significant difference among {joined(rows)} (means {means.min():.2f} to "
            f"{means.max():.2f} %): all {len(pairs)} simultaneous 95 % CIs of the paired "
            f"differences contain zero; {smallest}."
        ]
    rest = len(pairs) - len(seen)
    summary = (
        f"{metric}: {len(seen)} of {len(pairs)} pairs among {joined(rows)} "
        f"{'differs' if len(seen) == 1 else 'differ'}"
        f"{f'; no significant difference in the other {rest}' if rest else ''} "
        f"(simultaneous 95 % CIs; {smallest})."
    )
    largest = sorted(seen.items(), key=lambda item: -abs(item[1].mean))
    return [summary, *(difference_text(rows[i], rows[j], metric, pair) for (i, j), pair in largest)]


def degradation_finding(
    name: str,
    plain: Sequence[str],
    plain_errors: Values,
    residual_errors: Values,
    resolution: float = 0.0,
) -> str:
    """Whether depth increases the training error of plain networks, but not of residual ones.

    name: of the training settings. plain: names of the plain rows. errors: training errors in
    [0, 1], [R, S], from the shallowest to the deepest row; these two are compared. Degradation is
    claimed only if the interval of the plain pair is above zero and that of the residual one not.
    """
    deeper, residual = (
        seed_differences(errors, resolution)[0, len(errors) - 1]
        for errors in (plain_errors, residual_errors)
    )
    facts = (
        f"training error from {plain[0]} to {plain[-1]} {_points(deeper)}, for the residual "
        f"networks of the same depths {_points(residual)}"
    )
    if not math.isfinite(deeper.low):
        return f"{name}: one seed shows no spread, so nothing is claimed; {facts}."
    if deeper.low > 0 and not residual.low > 0:
        return f"{name}: degradation. {_capitalised(facts)}."
    if deeper.low > 0:
        return f"{name}: shortcuts do not prevent degradation, both kinds train worse: {facts}."
    if deeper.high < 0:
        return f"{name}: no degradation, the deeper plain network trains better: {facts}."
    return f"{name}: no significant degradation: {facts}; {_smallest(deeper)}."


def undertrained_findings(accuracies: Mapping[str, float]) -> list[str]:
    """Row -> training accuracy in [0, 1]; one sentence about rows below TRAINED, or none."""
    rows = [
        f"{name} ({100 * value:.0f} %)" for name, value in accuracies.items() if value < TRAINED
    ]
    if not rows:
        return []
    return [
        f"Training accuracy is still below {100 * TRAINED:.0f} % for {joined(rows)}: with so few "
        "epochs the comparisons show early progress, not final accuracy."
    ]


def diverged_findings(rows: Mapping[str, tuple[int, int]]) -> list[str]:
    """Row -> (diverged seeds, all seeds), for rows that diverged; one sentence, or none."""
    if not rows:
        return []
    names = [f"{name} ({lost} of {counted(seeds, 'seed')})" for name, (lost, seeds) in rows.items()]
    return [
        f"Diverged: {joined(names)}, excluded from all claims: the remaining seeds alone would be "
        "biased."
    ]


def time_findings(
    epochs: Mapping[str, Values], minutes: Mapping[str, Values], targets: Values
) -> list[str]:
    """Whether rows take equally long to the lowest final accuracy of each seed.

    epochs, minutes: of each row, [S]. targets: accuracies in [0, 1], [S].
    """
    names = sorted(minutes, key=lambda name: float(np.log(minutes[name]).mean()))
    rows = [
        f"{name} {minutes[name].mean():.2f} minutes ({epochs[name].mean():.1f} epochs)"
        for name in names
    ]
    goal = f"Time to {100 * targets.mean():.2f} % test accuracy"
    findings = [f"{goal}, the lowest final accuracy of a row (mean over seeds): {joined(rows)}."]
    step = 1 / min(float(values.mean()) for values in epochs.values())  # an epoch, as a log ratio
    pairs = seed_differences(np.log(np.stack([minutes[name] for name in names])), step)
    for index, name in enumerate(names[1:], start=1):
        pair = pairs[0, index]
        if not math.isfinite(pair.low):
            return [*findings, "One seed shows no spread of these times."]
        low, ratio, high = (f"{math.exp(value):.2f}" for value in (pair.low, pair.mean, pair.high))
        interval = f"95 % CI {low} to {high}"
        findings.append(
            f"{goal}: {name} takes {ratio} times as long as {names[0]} ({interval})."
            if pair.significant
            else f"{goal}: no significant difference between {names[0]} and {name} (ratio {ratio}, "
            f"{interval}; the smallest detectable ratio is {math.exp(pair.detectable):.2f})."
        )
    return findings


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]


def _smallest(difference: Difference) -> str:
    return f"the smallest detectable difference is {100 * difference.detectable:.2f} points"


def _points(difference: Difference) -> str:
    points = f"{100 * difference.mean:+.2f} points"
    if not math.isfinite(difference.low):
        return points
    low, high = 100 * difference.low, 100 * difference.high
    return f"{points} (95 % CI {low:+.2f} to {high:+.2f})"
