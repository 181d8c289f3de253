"""Scores -> their softmax, compared with tutorial 0's claims; trains nothing.

softmax(s)_i = exp(s_i / T) / sum_j exp(s_j / T) for K scores s and a temperature T, 1 by default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from residua.report.page import Figure, Page, Section, Table
from residua.report.page_figures import lines
from residua.report.style import COLOURS, FAINT
from residua.studies.study import computed
from residua.studies.text import Values
from residua.system.words import joined
from residua.uncertainty import softmax as uncertainty

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


def study() -> Page:
    """Softmax of the tutorial's scores, of differences, shifts and large numbers."""
    example, gaps, temperature = _example(), _gaps(), _temperature()
    shifts, overflow = _shifts(), _overflow()
    return Page(
        title=STUDY.title,
        claim="Softmax turns scores into probabilities, cat 70 % in the example; exp spreads "
        "scores that are close together, such as 1.9 and 2.1; negative scores are almost ignored.",
        source="Tutorial 0, the passage on softmax.",
        findings=[*gaps.findings, *shifts.findings, *example.findings, *overflow.findings],
        sections=[example, gaps, temperature, shifts, overflow],
    )


STUDY = computed("softmax", "The effect of softmax on scores", lambda seeds, report: study())


def softmax(scores: Sequence[float], temperature: float = 1.0) -> Values:
    """K scores -> K probabilities, float64 [K]."""
    return uncertainty.softmax(np.asarray(scores, np.float64) / temperature)


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


def _example() -> Section:
    probabilities, powers = softmax(SCORES), np.exp(SCORES)
    rows = zip(CLASSES, SCORES, powers.tolist(), probabilities.tolist(), strict=True)
    total = ("sum", None, float(powers.sum()), float(probabilities.sum()))
    columns = ("class", "score", "exp(score)", "probability")
    scores = [f"{name} {score}" for name, score in zip(CLASSES, SCORES, strict=True)]
    return Section(
        "The example",
        ["Each exponential is divided by the sum of all."],
        [Table("example", "Three scores", columns, [*rows, total])],
        findings=[
            f"{joined(scores)} become {joined([f'{p:.3f}' for p in probabilities])}, which sum to "
            f"{probabilities.sum():.3f}: {CLASSES[0]} has {100 * probabilities[0]:.1f} %, about "
            "the 70 % of the tutorial, which prints no scores; these were chosen to match."
        ],
    )


def _gaps() -> Section:
    rows = []
    for a, b in PAIRS:
        powers, probabilities = np.exp((a, b)).tolist(), softmax((a, b)).tolist()
        differences = (powers[1] - powers[0], powers[1] / powers[0])
        change = probabilities[1] - probabilities[0]
        rows.append((a, b, b - a, *powers, *differences, *probabilities, change))
    columns = ["a", "b", "b - a", "exp(a)", "exp(b)", "exp(b) - exp(a)", "exp(b) / exp(a)"]
    columns += ["p(a)", "p(b)", "p(b) - p(a)"]
    low, high, gap, exp_low, exp_high, _, ratio, p_low, p_high, change = rows[PAIRS.index(PAIR)]
    ratios = largest_ratios()
    title = "Difference of probabilities over difference of random scores"
    random = [(classes, DRAWS, largest) for classes, largest in ratios.items()]
    return Section(
        "Differences and ratios",
        [
            "exp turns a difference of scores into a ratio: exp(b) / exp(a) = exp(b - a), for any "
            "a and b. Differences between the exponentials do not matter, since all are divided by "
            "their sum.",
            "Two classes have the probabilities sigmoid(d) and sigmoid(-d), where d is the "
            "difference of their scores. The slope of the sigmoid is at most 1/4, so the "
            "probabilities differ by at most d / 2; more classes increase the sum and reduce the "
            "difference. At temperature T the bound is d / 2T.",
        ],
        [
            Table("gaps", "Two scores", columns, rows),
            Table("ratios", title, ("classes", "draws", "largest ratio"), random),
        ],
        _gap_figures(),
        [
            f"Softmax does not spread {low} and {high}: their probabilities are {p_low:.3f} and "
            f"{p_high:.3f}, a difference of {change:.4f}, smaller than the {gap:.1f} between the "
            f"scores. exp gives {exp_low:.3f} and {exp_high:.3f}, but only their ratio, "
            f"{ratio:.4f}, survives the division by the sum.",
            "At temperature 1 probabilities never differ by more than their scores: in "
            f"{DRAWS * len(ratios):,} random draws with {min(ratios)} to {max(ratios)} classes the "
            f"difference of probabilities is at most {max(ratios.values()):.4f} times that of the "
            "scores, and the slope of the sigmoid bounds it by 0.5. A temperature can spread them: "
            f"a difference of {gap:.1f} grows below T = {turning_temperature(gap):.3f}.",
        ],
    )


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


def _temperature() -> Section:
    def scale(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xticks(TEMPERATURES, _texts(TEMPERATURES))
        axes.minorticks_off()

    rows = [(temperature, *softmax(SCORES, temperature).tolist()) for temperature in TEMPERATURES]
    temperatures = np.geomspace(TEMPERATURES[0], TEMPERATURES[-1], 121)
    probabilities = np.array([softmax(SCORES, t) for t in temperatures]).T
    names = [f"{name} {score}" for name, score in zip(CLASSES, SCORES, strict=True)]
    series = dict(zip(names, probabilities, strict=True))
    caption = "A low temperature selects the largest score, a high one makes all equal."
    labels = ("temperature T, logarithmic", "probability")
    return Section(
        "Temperature",
        [
            "Scores are divided by a temperature T before exp: a low temperature leaves only the "
            "largest score, a high one makes all probabilities equal. The order of the classes "
            "does not change."
        ],
        [Table("temperature", f"Scores {joined(_texts(SCORES))}", ("T", *CLASSES), rows)],
        [lines("temperature", caption, series, temperatures, "Three scores", labels, scale)],
    )


def _shifts() -> Section:
    rows = []
    for shift in SHIFTS:
        scores = [score + shift for score in SCORES]
        probabilities = softmax(scores)
        change = float(np.abs(probabilities - softmax(SCORES)).max())
        rows.append((shift, *scores, *probabilities.tolist(), change))
    names = [f"score of {name}" for name in CLASSES] + [f"p({name})" for name in CLASSES]
    columns = ("added", *names, "largest change")
    thirds = [(*scores, max(scores) - scores[2], float(softmax(scores)[2])) for scores in THIRDS]
    third_columns = ("first", "second", "third", "largest minus third", "p(third)")
    lowest = min(rows)
    alive = max((row for row in thirds if row[2] < 0), key=lambda row: row[-1])
    ignored = min((row for row in thirds if row[2] > 0), key=lambda row: row[-1])
    return Section(
        "Shifts and negative scores",
        [
            "A constant added to all scores multiplies every exponential by the same factor, which "
            "cancels in the division. The sign of a score is irrelevant; its distance from the "
            "largest score determines its probability."
        ],
        [
            Table("shifts", "A constant added to all scores", columns, rows),
            Table("thirds", "A third score of either sign", third_columns, thirds, digits=6),
        ],
        findings=[
            f"That negative scores are almost ignored is false in general: adding {lowest[0]:g}, "
            "which makes all three scores negative, changes no probability by more than "
            f"{lowest[-1]:.1g}. The distance from the largest score counts: {alive[2]:g} among "
            f"({', '.join(_texts(alive[:3]))}) has probability {alive[-1]:.3f}, the positive "
            f"{ignored[2]:g} among ({', '.join(_texts(ignored[:3]))}) has {ignored[-1]:.6f}."
        ],
    )


def _overflow() -> Section:
    rows, lost, errors = [], [], []
    for pair in EXTREMES:
        printed, shifted, exact = naive(pair), naive(pair, max(pair)), softmax(pair)
        rows.append((*pair, float(printed[0]), float(shifted[0]), float(exact[0])))
        errors.append(float(np.abs(shifted - exact).max()))
        if not np.isfinite(printed).all():
            lost.append(f"({', '.join(_texts(pair))})")
    columns = ("a", "b", "p(a), as printed, float32", "p(a), shifted, float32", "p(a), float64")
    return Section(
        "Large scores",
        [
            f"In float32 exp overflows above a score of {LARGEST:.2f}, and for very negative "
            "scores every exponential is 0, and so is their sum. Subtracting the largest score "
            "first changes no probability and leaves no exponential above 1."
        ],
        [Table("overflow", "The formula in float32", columns, rows, digits=6)],
        findings=[
            f"In float32 the formula as printed gives NaN for {len(lost)} of {len(EXTREMES)} pairs "
            f"of scores, {joined(lost)}; with the largest score subtracted first it is right for "
            f"all of them, with an error of at most {max(errors):.1g}."
        ],
    )


def _texts(scores: Sequence[float]) -> list[str]:
    return [f"{score:g}" for score in scores]
