"""Scores -> what softmax makes of them, beside what tutorial 0 says of it; trains nothing.

softmax(s)_i = exp(s_i / T) / sum_j exp(s_j / T) over K scores s; the temperature T is 1 where none
is named. Every number on the page comes from this formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from residua.report.page import Figure, Page, Section, Table
from residua.report.style import COLOURS, DASHES, FAINT, INK, MARKERS, tidy
from residua.report.view import joined
from residua.studies.study import ComputedStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Values = npt.NDArray[np.float64]

CLASSES = ("cat", "dog", "person")
SCORES = (2.0, 1.0, 0.1)
PAIR = (1.9, 2.1)  # the tutorial's example of what exp does
PAIRS = (PAIR, (-2.1, -1.9), (0.0, 1.0), (1.0, 2.0), (0.0, 4.0), (0.0, 8.0))
TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0)
SHIFTS = (0.0, -3.0, -1000.0, 100.0)
# Looked at is the third score: below zero and well alive, above zero and almost ignored.
THIRDS = ((2.0, 1.0, -1.0), (-1.0, -2.0, -0.5), (10.0, 9.0, 1.0), (2.0, 1.0, -7.0))
EXTREMES = ((2.0, 1.0), (88.0, 87.0), (89.0, 88.0), (1000.0, 999.0), (-1000.0, -1001.0))
LARGEST = math.log(float(np.finfo(np.float32).max))  # exp of more is infinite in float32
DRAWS = 1000


def study() -> Page:
    """What softmax does to scores, gaps, shifts and large numbers."""
    ratios = largest_ratios()
    return Page(
        title=STUDY.title,
        claim="Softmax turns scores into probabilities, cat 70 % in the example; exp spreads "
        "scores that lie close together, such as 1.9 and 2.1; negative scores are almost ignored.",
        source="Tutorial 0, the passage on softmax.",
        findings=[_of_pair(), _of_gaps(ratios), _of_negatives(), _of_example(), _of_overflow()],
        sections=[
            Section("The example", ["Each exp is divided by the sum of all."], [_example()]),
            Section("Gaps and ratios", _GAPS, [_gaps(), _ratios(ratios)], [_exps(), _curves()]),
            Section("Temperature", _TEMPERATURE, [_temperatures()], [_temperature_curves()]),
            Section("Shifts and negative scores", _SHIFT, [_shifts(), _thirds()]),
            Section("Large scores", _OVERFLOW, [_extremes()]),
        ],
    )


_GAPS = [
    "exp turns a gap of scores into a ratio: exp(b) / exp(a) = exp(b - a), wherever the two lie. "
    "How far apart the exps are says nothing, for their sum divides both.",
    "Two classes alone have the probabilities sigmoid(d) and sigmoid(-d), where d is the gap of "
    "their scores. The slope of the sigmoid is at most 1/4, so the probabilities lie at most d / 2 "
    "apart; more classes make the sum larger and the gap smaller. At temperature T the bound is "
    "d / 2T.",
]
_TEMPERATURE = [
    "Scores are divided by a temperature T before exp: a small T leaves the largest alone, a large "
    "one makes all alike. The order of the classes stays."
]
_SHIFT = [
    "A constant added to all scores multiplies every exp by the same number, which the division "
    "takes out again. The sign of a score says nothing; its distance from the largest does."
]
_OVERFLOW = [
    f"In float32 exp is infinite above a score of {LARGEST:.2f}, and far below zero every exp is "
    "0, and so is their sum. Subtracting the largest score first changes no probability and leaves "
    "no exp above 1."
]


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
    """The T below which two classes' probabilities lie further apart than their scores do.

    It solves tanh(gap / 2T) = gap, for a gap of scores in (0, 1); from 1 on there is none, since
    probabilities are less than 1 apart.
    """
    return gap / 2 / math.atanh(gap)


def largest_ratios() -> dict[int, float]:
    """Number of classes -> the largest (gap of probabilities) / (gap of scores) of random scores.

    Only the two largest scores of a draw are looked at: exp is steepest between them.
    """
    chance = np.random.default_rng(0)
    largest: dict[int, float] = {}
    for classes in (2, 3, 10, 100):
        largest[classes] = 0.0
        for spread in np.geomspace(0.01, 10, DRAWS):
            scores = np.sort(chance.normal(0, spread, classes))
            gap = float(np.diff(softmax(scores.tolist()))[-1] / np.diff(scores)[-1])
            largest[classes] = max(largest[classes], gap)
    return largest


def _example() -> Table:
    shares, powers = softmax(SCORES).tolist(), np.exp(SCORES).tolist()
    rows = list(zip(CLASSES, SCORES, powers, shares, strict=True))
    total = ("sum", None, sum(powers), sum(shares))
    columns = ("class", "score", "exp(score)", "probability")
    return Table("example", "Three scores", columns, [*rows, total])


def _gaps() -> Table:
    rows = []
    for scores in PAIRS:
        (a, b), powers, shares = scores, np.exp(scores), softmax(scores)
        ratio, gap = float(powers[1] / powers[0]), float(powers[1] - powers[0])
        apart = float(shares[1] - shares[0])
        rows.append((a, b, b - a, *powers.tolist(), gap, ratio, *shares.tolist(), apart))
    columns = ["a", "b", "b - a", "exp(a)", "exp(b)", "exp(b) - exp(a)", "exp(b) / exp(a)"]
    columns += ["p(a)", "p(b)", "p(b) - p(a)"]
    return Table("gaps", "Two scores alone", columns, rows)


def _ratios(ratios: Mapping[int, float]) -> Table:
    rows = [(classes, DRAWS, largest) for classes, largest in ratios.items()]
    columns = ("classes", "draws", "largest ratio")
    return Table("ratios", "Gap of probabilities over that of random scores", columns, rows)


def _temperatures() -> Table:
    rows = [(each, *softmax(SCORES, each).tolist()) for each in TEMPERATURES]
    return Table("temperature", f"Scores {joined(_texts(SCORES))}", ("T", *CLASSES), rows)


def _shifts() -> Table:
    rows = []
    for shift in SHIFTS:
        scores = [each + shift for each in SCORES]
        rows.append((shift, *scores, *softmax(scores).tolist(), _change(shift)))
    names = [f"score of {each}" for each in CLASSES] + [f"p({each})" for each in CLASSES]
    columns = ("added", *names, "largest change")
    return Table("shifts", "A constant added to all scores", columns, rows)


def _thirds() -> Table:
    rows = [(*each, max(each) - each[2], float(softmax(each)[2])) for each in THIRDS]
    columns = ("first", "second", "third", "third below the largest", "p(third)")
    return Table("thirds", "A third score of either sign", columns, rows, digits=6)


def _extremes() -> Table:
    rows = [
        (*each, float(naive(each)[0]), float(naive(each, max(each))[0]), float(softmax(each)[0]))
        for each in EXTREMES
    ]
    columns = ("a", "b", "p(a), as printed, float32", "p(a), shifted, float32", "p(a), float64")
    return Table("overflow", "The formula in float32", columns, rows, digits=6)


def _change(shift: float) -> float:
    """How far a shift of all scores moves the probability that it moves most."""
    return float(np.abs(softmax([each + shift for each in SCORES]) - softmax(SCORES)).max())


def _of_pair() -> str:
    (low, high), powers, shares = PAIR, np.exp(PAIR), softmax(PAIR)
    gap, apart = high - low, float(shares[1] - shares[0])
    verdict = "larger" if apart > gap else "smaller"
    return (
        f"Softmax {'spreads' if apart > gap else 'does not spread'} {low} and {high}: it gives "
        f"{shares[0]:.3f} and {shares[1]:.3f}, a gap of {apart:.4f}, {verdict} than the {gap:.1f} "
        f"between the scores. exp gives {powers[0]:.3f} and {powers[1]:.3f}, but of these only the "
        f"ratio, {powers[1] / powers[0]:.4f}, outlives the division by their sum."
    )


def _of_gaps(ratios: Mapping[int, float]) -> str:
    largest, gap = max(ratios.values()), PAIR[1] - PAIR[0]
    return (
        f"At temperature 1 probabilities {'can' if largest > 1 else 'never'} lie further apart "
        f"than their scores: of {DRAWS * len(ratios):,} random draws with {min(ratios)} to "
        f"{max(ratios)} classes none has a gap of probabilities above {largest:.4f} of the gap of "
        f"scores, and the slope of the sigmoid bounds it by 0.5. A temperature can spread: a gap "
        f"of {gap:.1f} grows below T = {turning_temperature(gap):.3f}."
    )


def _of_negatives() -> str:
    lowest = min(SHIFTS)
    change = _change(lowest)
    shares = {scores: float(softmax(scores)[2]) for scores in THIRDS}
    alive = max((each for each in THIRDS if each[2] < 0), key=lambda each: shares[each])
    ignored = min((each for each in THIRDS if each[2] > 0), key=lambda each: shares[each])
    wrong = change < 1e-9 and shares[alive] > shares[ignored]
    return (
        f"That negative scores are almost ignored is {'false in general' if wrong else 'right'}: "
        f"with {lowest:g} added, which makes all three scores negative, no probability changes "
        f"by more than {change:.1g}. What counts is the distance from the largest: {alive[2]:g} "
        f"among ({', '.join(_texts(alive))}) has probability {shares[alive]:.3f}, the positive "
        f"{ignored[2]:g} among ({', '.join(_texts(ignored))}) has {shares[ignored]:.6f}."
    )


def _of_example() -> str:
    shares = softmax(SCORES)
    first = int(np.argmax(shares))
    percent = 100 * float(shares[first])
    agrees = "about" if round(float(shares[first]), 1) == 0.7 else "not"
    given = [f"{name} {score}" for name, score in zip(CLASSES, SCORES, strict=True)]
    return (
        f"{joined(given)} become {joined([f'{each:.3f}' for each in shares])}, which sum to "
        f"{shares.sum():.3f}: {CLASSES[first]} has {percent:.1f} %, {agrees} the 70 % of "
        "the tutorial, which prints no scores; these were chosen to fit."
    )


def _of_overflow() -> str:
    lost = [each for each in EXTREMES if not np.isfinite(naive(each)).all()]
    error = max(float(np.abs(naive(each, max(each)) - softmax(each)).max()) for each in EXTREMES)
    pairs = joined([f"({', '.join(_texts(each))})" for each in lost]) if lost else "none"
    return (
        f"In float32 the formula as printed gives no number for {len(lost)} of {len(EXTREMES)} "
        f"pairs of scores, {pairs}; with the largest score subtracted first it is "
        f"{'right' if error < 1e-6 else 'wrong'} for all, the largest error is {error:.1g}."
    )


def _texts(scores: Sequence[float]) -> list[str]:
    return [f"{each:g}" for each in scores]


def _exps() -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        line = np.linspace(-4, 3, 200)
        axes.plot(line, np.exp(line), color=COLOURS[0], lw=1.8)
        for score, marker, colour in zip(PAIR, "os", COLOURS[1:], strict=False):
            label = f"exp({score}) = {math.exp(score):.3f}"
            axes.plot(score, math.exp(score), marker, color=colour, ms=7, label=label)
        _finish(axes, "exp", "score", "exp(score)")

    return Figure("exp", "exp and the two scores of the tutorial's example.", draw, (7.0, 4.0))


def _curves() -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        gaps = np.linspace(0, 3, 121)
        axes.plot(gaps, gaps, color=FAINT, lw=1, label="as far apart as the scores")
        for place, temperature in enumerate((1.0, 0.5, 0.25)):
            _line(axes, gaps, np.tanh(gaps / 2 / temperature), place, f"T = {temperature:g}")
        axes.set_ylim(0, 1.05)
        _finish(axes, "Two classes", "gap of the scores", "gap of the probabilities")

    said = "Softmax spreads two scores where a curve lies above the thin grey line."
    return Figure("gaps", said, draw, (7.0, 4.0))


def _temperature_curves() -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        line = np.geomspace(TEMPERATURES[0], TEMPERATURES[-1], 121)
        shares = np.array([softmax(SCORES, each) for each in line])
        for place, name in enumerate(CLASSES):
            _line(axes, line, shares[:, place], place, f"{name} {SCORES[place]}")
        axes.set_xscale("log")
        axes.set_xticks(TEMPERATURES, _texts(TEMPERATURES))
        axes.minorticks_off()
        _finish(axes, "Three scores", "temperature T, logarithmic", "probability")

    said = "A low temperature gives all to the largest score, a high one the same to each."
    return Figure("temperature", said, draw, (7.0, 4.0))


def _line(axes: Axes, along: Values, values: Values, place: int, label: str) -> None:
    colour, marker = COLOURS[place], MARKERS[place]
    axes.plot(along, values, marker, color=colour, ls=DASHES[place], label=label, markevery=15)


def _finish(axes: Axes, title: str, along: str, upward: str) -> None:
    axes.set_ylabel(upward, color=FAINT)
    axes.legend(frameon=False, labelcolor=INK)
    tidy(axes, title, along)


STUDY = ComputedStudy("softmax", "What softmax does to scores", lambda seeds, report: study())
