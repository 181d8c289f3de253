"""Figures of rows and seeds -> the sentences of a page, no stronger than their intervals.

Legend: R rows, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from residua.comparison.statistics import Difference, difference_text, seed_differences
from residua.report.view import counted, joined

Values = npt.NDArray[np.float64]

LEARNT = 0.5  # of its training images; who knows fewer of them has only begun


def of_family(
    rows: Sequence[str], values: Values, figure: str, resolution: float = 0.0
) -> list[str]:
    """Whether rows differ; values: shares in [0, 1], float64 [R, S], rows in the same order.

    figure: what they are, such as "test accuracy". resolution: see `seed_differences`. The
    most important sentence comes first.
    """
    pairs, figure = seed_differences(values, resolution), _begun(figure)
    if values.shape[1] == 1:
        return [
            f"{figure}: one seed, which says nothing of the spread, so nothing is claimed of "
            f"{joined(rows)}; give more seeds."
        ]
    if len(rows) == 2:
        return [difference_text(rows[0], rows[1], figure, pairs[0, 1])]
    seen = {pair: found for pair, found in pairs.items() if found.significant}
    smallest = 100 * next(iter(pairs.values())).detectable
    means = 100 * values.mean(axis=1)
    if not seen:
        return [
            f"{figure}: no difference seen among {joined(rows)} (means {means.min():.2f} to "
            f"{means.max():.2f} %): all {len(pairs)} paired 95 % intervals, which hold jointly, "
            f"contain zero; the smallest that could have been seen is {smallest:.2f} points."
        ]
    rest = len(pairs) - len(seen)
    first = (
        f"{figure}: {len(seen)} of {len(pairs)} pairs among {joined(rows)} "
        + ("differs" if len(seen) == 1 else "differ")
        + (f"; in the other {rest} no difference is seen" if rest else "")
        + f" (the smallest that could have been seen is {smallest:.2f} points; the intervals hold "
        "jointly)."
    )
    largest = sorted(seen.items(), key=lambda item: -abs(item[1].mean))
    return [first, *(difference_text(rows[i], rows[j], figure, found) for (i, j), found in largest)]


def of_degradation(
    name: str,
    plain: Sequence[str],
    plain_errors: Values,
    residual_errors: Values,
    resolution: float = 0.0,
) -> str:
    """Whether depth makes plain networks learn their own images worse, and residual ones not.

    name: of the way of learning. plain: names of the plain rows. errors: on the training images,
    shares [R, S], from the shallowest to the deepest; those two are compared. It is claimed only
    where the interval of the plain pair lies above zero and that of the residual pair does not.
    resolution: see `seed_differences`.
    """
    among_plain, among_residual = (
        _ends(errors, resolution) for errors in (plain_errors, residual_errors)
    )
    facts = (
        f"training error from {plain[0]} to {plain[-1]} {_points(among_plain)}, of the residual "
        f"networks of the same depths {_points(among_residual)}"
    )
    if not math.isfinite(among_plain.low):
        return f"{name}: one seed, which says nothing of the spread, so nothing is claimed; {facts}"
    if among_plain.low > 0 and not among_residual.low > 0:
        return f"{name}: degradation. {_begun(facts)}."
    if among_plain.low > 0:
        return f"{name}: no cure by shortcuts seen, both kinds learn worse when deeper: {facts}."
    if among_plain.high < 0:
        return f"{name}: no degradation, the deeper plain network learns better: {facts}."
    return (
        f"{name}: no degradation seen: {facts}; the smallest that could have been seen is "
        f"{100 * among_plain.detectable:.2f} points."
    )


def of_beginners(accuracies: Mapping[str, float]) -> list[str]:
    """Rows -> accuracy in [0, 1] on the images that taught them; one sentence, or none."""
    said = [f"{name} {100 * each:.0f} %" for name, each in accuracies.items() if each < LEARNT]
    if not said:
        return []
    return [
        f"So short a training has not taught all rows: of the images that they learnt from "
        f"{joined(said)} are named rightly at the end. What follows says how fast these begin, not "
        "how good they get."
    ]


def of_diverged(rows: Mapping[str, tuple[int, int]]) -> list[str]:
    """Rows -> seeds that diverged, and seeds in all; one sentence, or none if no row did."""
    said = [f"{name} ({lost} of {counted(seeds, 'seed')})" for name, (lost, seeds) in rows.items()]
    if not said:
        return []
    return [
        f"Diverged: {joined(said)}, so {'it is' if len(said) == 1 else 'they are'} compared with "
        "nothing: without the seeds that failed the rest would flatter."
    ]


def of_reach(
    epochs: Mapping[str, Values], minutes: Mapping[str, Values], targets: Values
) -> list[str]:
    """Whether rows take as long to the accuracy at which the lowest row of each seed ends.

    epochs, minutes: of each row, [S]. targets: accuracies in [0, 1], [S].
    """
    names = sorted(minutes, key=lambda name: float(np.log(minutes[name]).mean()))
    each_row = [
        f"{name} in {epochs[name].mean():.1f} epochs and {minutes[name].mean():.2f} minutes"
        for name in names
    ]
    goal = f"the {100 * targets.mean():.2f} % at which the lowest row ends"
    said = [f"To {goal}, in the mean of the seeds: {joined(each_row)} of learning."]
    step = 1 / min(float(each.mean()) for each in epochs.values())  # an epoch, on that scale
    pairs = seed_differences(np.log(np.stack([minutes[name] for name in names])), step)
    for place, name in enumerate(names[1:], start=1):
        found = pairs[0, place]
        if not math.isfinite(found.low):
            return [*said, "One seed says nothing of the spread of these times."]
        low, mean, high = (f"{math.exp(each):.2f}" for each in (found.low, found.mean, found.high))
        verdict = "takes" if found.significant else "no difference seen: it takes"
        said.append(
            f"Minutes to {goal}: {name} {verdict} {mean} times as long as {names[0]} (95 % "
            f"interval {low} to {high})."
        )
    return said


def _begun(words: str) -> str:
    """As a sentence begins."""
    return words[:1].upper() + words[1:]


def _ends(errors: Values, resolution: float) -> Difference:
    """From the shallowest to the deepest, with the interval of all pairs of that kind."""
    return seed_differences(errors, resolution)[0, len(errors) - 1]


def _points(found: Difference) -> str:
    if not math.isfinite(found.low):
        return f"{100 * found.mean:+.2f} points"
    return (
        f"{100 * found.mean:+.2f} points (95 % interval {100 * found.low:+.2f} to "
        f"{100 * found.high:+.2f})"
    )
