"""Scores -> their softmax, compared with tutorial 0's claims; trains nothing.

softmax(s)_i = exp(s_i / T) / sum_j exp(s_j / T) for K scores s and a temperature T, 1 by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from residua.report.page import Figure, Page, Section, Table
from residua.report.page_figures import lines
from residua.report.style import COLOURS, FAINT
from residua.studies.study import computed
from residua.studies.text import Values
from residua.system.words import joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES = ("cat", "dog", "person")
SCORES = (2.0, 1.0, 0.1)
PAIR = (1.9, 2.1)  # the tutorial's example of the effect of exp
PAIRS = (PAIR, (-2.1, -1.9), (0.0, 1.0), (1.0, 2.0), (0.0, 4.0), (0.0, 8.0))
TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0)
SHIFTS = (0.0, -3.0, -1000.0, 100.0)
# The third score is negative with a large probability, or positive with a small one
THIRDS = ((2.0, 1.0, -1.0), (-1.0, -2.0, -0.5), (10.0, 9.0, 1.0), (2.0, 1.0, -7.0))
EXTREMES = ((2.0, 1.0), (88.0, 87.0), (89.0, 88.0), (1000.0, 999.0), (-1000.0, -1001.0))
LARGEST = math.log(float(np.finfo(np.float32).max))  # exp of more overflows in float32
DRAWS = 1000

GAPS = [
    "exp turns a difference of scores into a ratio: exp(b) / exp(a) = exp(b - a), for any a and b. "
    "Differences between the exponentials do not matter, since all are divided by their sum.",
    "Two classes have the probabilities sigmoid(d) and sigmoid(-d), where d is the difference of "
    "their scores. The slope of the sigmoid is at most 1/4, so the probabilities differ by at most "
    "d / 2; more classes increase the sum and reduce the difference. At temperature T the bound is "
    "d / 2T.",
]
TEMPERATURE = [
    "Scores are divided by a temperature T before exp: a low temperature leaves only the largest "
    "score, a high one makes all probabilities equal. The order of the classes does not change."
]
SHIFT = [
    "A constant added to all scores multiplies every exponential by the same factor, which cancels "
    "in the division. The sign of a score is irrelevant; its distance from the largest score "
    "determines its probability."
]
OVERFLOW = [
    f"In float32 exp overflows above a score of {LARGEST:.2f}, and for very negative scores every "
    "exponential is 0, and so is their sum. Subtracting the largest score first changes no "
    "probability and leaves no exponential above 1."
]


def study() -> Page:
    """Softmax of the tutorial's scores, of differences, shifts and large numbers."""
    ratios = largest_ratios()
    return Page(
        title=STUDY.title,
        claim="Softmax turns scores into probabilities, cat 70 % in the example; exp spreads "
        "scores that are close together, such as 1.9 and 2.1; negative scores are almost ignored.",
        source="Tutorial 0, the passage on softmax.",
        findings=[
            _pair_finding(),
            _gap_finding(ratios),
            _negative_finding(),
            _example_finding(),
            _overflow_finding(),
        ],
        sections=[
            Section(
                "The example", ["Each exponential is divided by the sum of all."], [_example()]
            ),
            Section("Differences and ratios", GAPS, [_gaps(), _ratios(ratios)], _gap_figures()),
            Section("Temperature", TEMPERATURE, [_temperatures()], [_temperature_figure()]),
            Section("Shifts and negative scores", SHIFT, [_shifts(), _thirds()]),
            Section("Large scores", OVERFLOW, [_extremes()]),
        ],
    )


STUDY = computed("softmax", "The effect of softmax on scores", lambda seeds, report: study())


def softmax(scores: Sequence[float], temperature: float = 1.0) -> Values:
    """K scores -> K probabilities, float64 [K]; the largest score is subtracted before exp."""
    scaled = np.asarray(scores, np.float64) / temperature
    powers = np.exp(scaled - scaled.max())
    return np.asarray(powers / powers.sum(), np.float64)


def naive(scores: Sequence[float], subtracted: float = 0.0) -> npt.NDArray[np.float32]:
    """The formula as printed, in float32 [K], after a subtraction; NaN beyond float32's range."""
    with np.errstate(all="ignore"):
        powers = np.exp(np.asarray(scores, np.float32) - np.float32(subtracted))
        return np.asarray(powers / powers.sum(), np.float32)


def turning_temperature(gap: float) -> float:
    """The T below which the probabilities of two classes differ by more than their scores.

    It solves tanh(gap / 2T) = gap, for a difference of scores in (0, 1).
    """
    return gap / 2 / math.atanh(gap)


def largest_ratios() -> dict[int, float]:
    """Number of classes -> the largest (difference of probabilities) / (difference of scores).

    Of the two largest of random scores, where exp is steepest.
    """
    generator = np.random.default_rng(0)
    largest: dict[int, float] = {}
    for classes in (2, 3, 10, 100):
        largest[classes] = 0.0
        for spread in np.geomspace(0.01, 10, DRAWS):
            scores = np.sort(generator.normal(0, spread, classes))
            ratio = float(np.diff(softmax(scores.tolist()))[-1] / np.diff(scores)[-1])
            largest[classes] = max(largest[classes], ratio)
    return largest


def _example() -> Table:
    probabilities, powers = softmax(SCORES).tolist(), np.exp(SCORES).tolist()
    rows = list(zip(CLASSES, SCORES, powers, probabilities, strict=True))
    total = ("sum", None, sum(powers), sum(probabilities))
    columns = ("class", "score", "exp(score)", "probability")
    return Table("example", "Three scores", columns, [*rows, total])


def _gaps() -> Table:
    rows = []
    for scores in PAIRS:
        (a, b), powers, probabilities = scores, np.exp(scores), softmax(scores)
        ratio, gap = float(powers[1] / powers[0]), float(powers[1] - powers[0])
        difference = float(probabilities[1] - probabilities[0])
        rows.append(
            (a, b, b - a, *powers.tolist(), gap, ratio, *probabilities.tolist(), difference)
        )
    columns = ["a", "b", "b - a", "exp(a)", "exp(b)", "exp(b) - exp(a)", "exp(b) / exp(a)"]
    columns += ["p(a)", "p(b)", "p(b) - p(a)"]
    return Table("gaps", "Two scores", columns, rows)


def _ratios(ratios: Mapping[int, float]) -> Table:
    rows = [(classes, DRAWS, largest) for classes, largest in ratios.items()]
    columns = ("classes", "draws", "largest ratio")
    title = "Difference of probabilities over difference of random scores"
    return Table("ratios", title, columns, rows)


def _temperatures() -> Table:
    rows = [(temperature, *softmax(SCORES, temperature).tolist()) for temperature in TEMPERATURES]
    return Table("temperature", f"Scores {joined(_texts(SCORES))}", ("T", *CLASSES), rows)


def _shifts() -> Table:
    rows = []
    for shift in SHIFTS:
        scores = [score + shift for score in SCORES]
        rows.append((shift, *scores, *softmax(scores).tolist(), _change(shift)))
    names = [f"score of {name}" for name in CLASSES] + [f"p({name})" for name in CLASSES]
    columns = ("added", *names, "largest change")
    return Table("shifts", "A constant added to all scores", columns, rows)


def _thirds() -> Table:
    rows = [(*scores, max(scores) - scores[2], float(softmax(scores)[2])) for scores in THIRDS]
    columns = ("first", "second", "third", "largest minus third", "p(third)")
    return Table("thirds", "A third score of either sign", columns, rows, digits=6)


def _extremes() -> Table:
    rows = [
        (*pair, float(naive(pair)[0]), float(naive(pair, max(pair))[0]), float(softmax(pair)[0]))
        for pair in EXTREMES
    ]
    columns = ("a", "b", "p(a), as printed, float32", "p(a), shifted, float32", "p(a), float64")
    return Table("overflow", "The formula in float32", columns, rows, digits=6)


def _change(shift: float) -> float:
    """The largest change of a probability when `shift` is added to all scores."""
    return float(np.abs(softmax([score + shift for score in SCORES]) - softmax(SCORES)).max())


def _pair_finding() -> str:
    (low, high), powers, probabilities = PAIR, np.exp(PAIR), softmax(PAIR)
    return (
        f"Softmax does not spread {low} and {high}: their probabilities are {probabilities[0]:.3f} "
        f"and {probabilities[1]:.3f}, a difference of {probabilities[1] - probabilities[0]:.4f}, "
        f"smaller than the {high - low:.1f} between the scores. exp gives {powers[0]:.3f} and "
        f"{powers[1]:.3f}, but only their ratio, {powers[1] / powers[0]:.4f}, survives the "
        "division by the sum."
    )


def _gap_finding(ratios: Mapping[int, float]) -> str:
    gap = PAIR[1] - PAIR[0]
    return (
        "At temperature 1 probabilities never differ by more than their scores: in "
        f"{DRAWS * len(ratios):,} random draws with {min(ratios)} to {max(ratios)} classes the "
        f"difference of probabilities is at most {max(ratios.values()):.4f} times that of the "
        "scores, and the slope of the sigmoid bounds it by 0.5. A temperature can spread them: a "
        f"difference of {gap:.1f} grows below T = {turning_temperature(gap):.3f}."
    )


def _negative_finding() -> str:
    lowest = min(SHIFTS)
    alive = max((scores for scores in THIRDS if scores[2] < 0), key=lambda s: softmax(s)[2])
    ignored = min((scores for scores in THIRDS if scores[2] > 0), key=lambda s: softmax(s)[2])
    return (
        "That negative scores are almost ignored is false in general: adding "
        f"{lowest:g}, which makes all three scores negative, changes no probability by more than "
        f"{_change(lowest):.1g}. The distance from the largest score counts: {alive[2]:g} "
        f"among ({', '.join(_texts(alive))}) has probability {softmax(alive)[2]:.3f}, the positive "
        f"{ignored[2]:g} among ({', '.join(_texts(ignored))}) has {softmax(ignored)[2]:.6f}."
    )


def _example_finding() -> str:
    probabilities = softmax(SCORES)
    scores = [f"{name} {score}" for name, score in zip(CLASSES, SCORES, strict=True)]
    return (
        f"{joined(scores)} become {joined([f'{p:.3f}' for p in probabilities])}, which sum to "
        f"{probabilities.sum():.3f}: {CLASSES[0]} has {100 * probabilities[0]:.1f} %, about the "
        "70 % of the tutorial, which prints no scores; these were chosen to match."
    )


def _overflow_finding() -> str:
    lost = [pair for pair in EXTREMES if not np.isfinite(naive(pair)).all()]
    errors = [float(np.abs(naive(pair, max(pair)) - softmax(pair)).max()) for pair in EXTREMES]
    pairs = joined([f"({', '.join(_texts(pair))})" for pair in lost])
    return (
        f"In float32 the formula as printed gives NaN for {len(lost)} of {len(EXTREMES)} pairs of "
        f"scores, {pairs}; with the largest score subtracted first it is right for all of them, "
        f"with an error of at most {max(errors):.1g}."
    )


def _texts(scores: Sequence[float]) -> list[str]:
    return [f"{score:g}" for score in scores]


def _gap_figures() -> list[Figure]:
    def mark_pair(axes: Axes) -> None:
        for score, marker, colour in zip(PAIR, "os", COLOURS[1:], strict=False):
            label = f"exp({score}) = {math.exp(score):.3f}"
            axes.plot(score, math.exp(score), marker, color=colour, ms=7, label=label)

    def mark_scores(axes: Axes) -> None:
        axes.plot(gaps, gaps, color=FAINT, lw=1, label="difference of the scores")
        axes.set_ylim(0, 1.05)

    scores, gaps = np.linspace(-4, 3, 200), np.linspace(0, 3, 121)
    curves = {f"T = {t:g}": np.tanh(gaps / 2 / t) for t in (1.0, 0.5, 0.25)}
    caption = "exp and the two scores of the tutorial's example."
    spread = "Softmax spreads two scores where a curve is above the thin grey line."
    labels = ("difference of the scores", "difference of the probabilities")
    return [
        lines("exp", caption, {"exp": np.exp(scores)}, scores, "exp", ("score", "exp"), mark_pair),
        lines("gaps", spread, curves, gaps, "Two classes", labels, mark_scores),
    ]


def _temperature_figure() -> Figure:
    def scale(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xticks(TEMPERATURES, _texts(TEMPERATURES))
        axes.minorticks_off()

    temperatures = np.geomspace(TEMPERATURES[0], TEMPERATURES[-1], 121)
    probabilities = np.array([softmax(SCORES, t) for t in temperatures]).T
    series = {
        f"{name} {score}": values
        for name, score, values in zip(CLASSES, SCORES, probabilities, strict=True)
    }
    caption = "A low temperature selects the largest score, a high one makes all equal."
    labels = ("temperature T, logarithmic", "probability")
    return lines("temperature", caption, series, temperatures, "Three scores", labels, scale)
