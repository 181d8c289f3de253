"""How gradients and responses change with depth, beside tutorials 0 and 1; trains small networks.

Legend: S seeds, L layers, see `propagation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from residua.comparison.statistics import difference_text, seed_differences
from residua.networks.residual import Shortcut
from residua.report.page import Cell, Page, Section, Table
from residua.report.view import counted, joined
from residua.studies.claims.propagation import (
    HELD,
    IMAGES,
    SIDE,
    TRAINED_SIDE,
    Gradients,
    Responses,
    gradients,
    responses,
)
from residua.studies.claims.signal_figures import KINDS, STARTS, gradient_figures, response_figure
from residua.studies.study import ComputedStudy
from residua.system.console import Report, counting

Net = tuple[int, Shortcut]  # depth and kind

FIGURE = "Mean deviation of responses after a short training"
KNOWN = 0.5  # share of its images that a network must know to be compared with others
LOST = 1e-3  # a gradient vanishes below this share, explodes above its inverse, holds between

_GRADIENTS = [
    "He et al. 2015's networks of 6n + 2 layers for CIFAR-10, freshly initialised, with and "
    "without shortcuts (option A) and norms. A norm is left out by an identity in its place.",
    "The gradient of the loss with respect to the output of the first convolution, over that of "
    "the last, is what all layers between multiply. Gradients of kernels cannot show that where "
    "there is no norm: a kernel times a is the logits times a, so in a plain network the product "
    "of kernel and gradient is the same in each layer.",
    "Padding with zeros loses at the borders: a normalised 3x3 layer on n x n pixels hands back "
    "about (1 + 2 cos(pi / (n + 1))) / 3 of a gradient's length, and where a stage halves the map "
    "and doubles the width 1 / sqrt(2). The smaller the images, the more depth costs.",
    f"Below {LOST:g} times a gradient is said to vanish, above {1 / LOST:g} times to explode. He "
    "et al. (section 4.1) report healthy gradients of plain networks with BatchNorm; theirs had 18 "
    "and 34 layers.",
]
_RESPONSES = [
    "At initialisation a norm gives each channel the deviation 1, so all networks are alike: "
    "figure 7 of He et al. 2015 is about trained ones. These have been trained for a few hundred "
    "steps, the paper's for 64,000, so that what the figure shows can only begin to show here.",
]


def study(
    depths: Sequence[int] = (8, 20, 56, 110),
    trained: Sequence[int] = (20, 56),
    steps: int = 200,
    seeds: int = 3,
    report: Report | None = None,
) -> Page:
    """Gradients at initialisation for `depths`, responses after `steps` steps for `trained`."""
    started = list(product(depths, KINDS, (False, True), STARTS))
    taught = list(product(trained, KINDS))
    whole = len(started) + len(taught)
    found = [gradients(*each, range(seeds)) for each in counting(started, report, whole)]
    learnt = [
        responses(*each, steps, range(seeds))
        for each in counting(taught, report, whole, len(started))
    ]
    first = Section("Gradients at initialisation", _GRADIENTS, (), gradient_figures(found))
    second = Section("Responses", _RESPONSES, [_responses(learnt)], [response_figure(learnt)])
    third = Section("All gradients", (), [_table(found)])
    return Page(
        title=STUDY.title,
        claim="Stacking layers makes gradients vanish or explode; normalised initialisation and "
        "batch normalisation cure it. The responses of residual layers are weaker than those of "
        "plain ones, and weaker in deeper networks.",
        source="Tutorial 0 (why residual), tutorial 1 (questions 1 and 2); He et al. 2015, section "
        "4.1 and figure 7.",
        findings=[
            of_norms(found),
            of_starts(found),
            of_shortcuts(found),
            *of_responses(learnt),
            _of_both(found),
        ],
        sections=[first, second, third],
        conditions=[
            f"scikit-learn's digits, {counted(seeds, 'seed')}, which choose weights and images; "
            f"gradients of {IMAGES} images of {SIDE} px in float64; {steps} steps of training "
            f"and responses of {HELD} images at {TRAINED_SIDE} px.",
        ],
    )


def _said(each: Gradients) -> str:
    """What became of a gradient, with its ratio."""
    fate = "holds" if _holds(each) else "vanishes" if each.ratio < LOST else "explodes"
    return (
        f"with {STARTS[each.start]} it {fate} ({each.ratio:.2g} times, {_factor(each):.3f} a layer)"
    )


def _holds(each: Gradients) -> bool:
    return LOST <= each.ratio <= 1 / LOST


def _deepest(
    found: Sequence[Gradients], shortcut: Shortcut, norm: bool
) -> tuple[int, list[Gradients]]:
    """The greatest depth, and what was found there, one for each start."""
    depth = max(each.depth for each in found)
    return depth, [
        each for each in found if (each.depth, each.shortcut, each.norm) == (depth, shortcut, norm)
    ]


def of_starts(found: Sequence[Gradients]) -> str:
    """Whether normalised initialisation alone keeps the gradient of plain networks."""
    depth, bare = _deepest(found, "none", norm=False)
    said = [_said(each) for each in bare]
    normalised = [each for each in bare if each.start != "small"]
    held = [each.start for each in normalised if _holds(each)]
    what = f"normalised initialisation is {'a' if held else 'no'} cure"
    if 0 < len(held) < len(normalised):
        what = f"{joined([STARTS[each] for each in held])} initialisation alone is a cure"
    less = all(abs(np.log(a.ratio)) < abs(np.log(bare[-1].ratio)) for a in normalised)
    return (
        f"Without norms {what} at {depth} plain layers: from the last layer to the first "
        f"{joined(said)}. "
        f"{'Both are better' if less else 'Not both are better'} than {STARTS['small']}."
    )


def of_norms(found: Sequence[Gradients]) -> str:
    """Whether norms alone keep the gradient of plain networks at initialisation."""
    depth, normed = _deepest(found, "none", norm=True)
    ratios = [each.ratio for each in normed]
    _, bare = _deepest(found, "none", norm=False)
    spread, before = max(ratios) / min(ratios), max(e.ratio for e in bare) / _least(bare)
    alike = "hardly depends" if spread < 10 else "depends"
    held = [each for each in normed if _holds(each)]
    fate = "exploding" if min(ratios) > 1 else "vanishing"
    verdict = "keeps" if len(held) == len(normed) else "does not keep"
    plain = [each for each in found if each.shortcut == "none" and each.norm]
    lost = {each.depth for each in plain if not _holds(each)}
    reach = max({each.depth for each in plain} - lost, default=0)
    until = f"it holds up to {reach} layers" if reach else "it holds at no depth looked at"
    factor = _factor(normed[0])
    return (
        f"BatchNorm {verdict} the gradient of {depth} plain layers from {fate} at initialisation: "
        f"the first layer's is {min(ratios):.2g} to {max(ratios):.2g} times the last one's, "
        f"{factor:.3f} a layer with {STARTS[normed[0].start]}; {until}. With norms the ratio "
        f"{alike} on the initialisation: its largest is {spread:.2g} times its smallest, without "
        f"them {before:.2g} times."
    )


def _least(found: Sequence[Gradients]) -> float:
    """The smallest ratio; above zero, so that something can be divided by it."""
    return max(min(each.ratio for each in found), float(np.finfo(np.float64).tiny))


def _factor(each: Gradients) -> float:
    """By what one layer multiplies the gradient, on the average."""
    return float(each.ratio ** (1 / (each.responses.shape[1] - 1)))


def of_shortcuts(found: Sequence[Gradients]) -> str:
    """What shortcuts change, with norms and without."""
    depth, plain = _deepest(found, "none", norm=True)
    _, residual = _deepest(found, "A", norm=True)
    _, bare = _deepest(found, "A", norm=False)
    kept = all(_holds(each) for each in residual)
    lowest, highest = (f(each.ratio for each in residual) for f in (min, max))
    gain = plain[0].ratio / residual[0].ratio
    compared = f"{gain:.2g} times less than" if gain > 1 else f"{1 / gain:.2g} times more than"
    said = [_said(each) for each in bare]
    alone = "enough" if all(_holds(each) for each in bare) else "not enough"
    return (
        f"Shortcuts and BatchNorm together {'keep' if kept else 'do not keep'} it: at {depth} "
        f"layers the ratio is {lowest:.2g} to {highest:.2g}, with {STARTS[plain[0].start]} "
        f"{compared} in the plain network. Shortcuts without norms are {alone}: {joined(said)}."
    )


def _of_both(found: Sequence[Gradients]) -> str:
    depth = max(each.depth for each in found)
    deepest = [each for each in found if each.depth == depth]
    names = [_name(each) for each in deepest if _holds(each)]
    which = f": {'; '.join(names)}" if names else ""
    return (
        f"Of {len(deepest)} combinations of shortcuts, norms and initialisation {len(names)} keep "
        f"the gradient of {depth} layers between {LOST:g} and {1 / LOST:g} times{which}."
    )


def of_responses(learnt: Sequence[Responses]) -> list[str]:
    """Whether residual layers respond weaker, and weaker when deeper, as in figure 7.

    Networks that have hardly learnt are not compared.
    """
    at = {(each.depth, each.shortcut): each.after.mean(1) for each in learnt}
    untaught = {(e.depth, e.shortcut): e for e in learnt if e.accuracy.mean() < KNOWN}
    depths = sorted({depth for depth, _ in at})
    pairs: list[tuple[Net, Net]] = [((depth, "none"), (depth, "A")) for depth in depths]
    if len(depths) > 1:
        pairs.append(((depths[0], "A"), (depths[-1], "A")))
    said = []
    for first, second in pairs:
        if lost := [untaught[each] for each in (first, second) if each in untaught]:
            why = (
                f"that of {_net(lost[0].depth, lost[0].shortcut)} knows only "
                f"{lost[0].accuracy.mean():.0%} of its images by then"
            )
            said.append(f"{_net(*first)} and {_net(*second)} are not compared, for {why}.")
            continue
        found = seed_differences(np.stack([at[first], at[second]]))[0, 1]
        said.append(difference_text(_net(*first), _net(*second), FIGURE, found, ""))
    return said


def _net(depth: int, shortcut: Shortcut) -> str:
    return f"{KINDS[shortcut]}, {depth} layers"


def _name(each: Gradients) -> str:
    norm = "BatchNorm" if each.norm else "no norms"
    return f"{KINDS[each.shortcut]}, {norm}, {STARTS[each.start]}"


def _table(found: Sequence[Gradients]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for each in found:
        middle = [
            np.median(part[:, end]) for part in (each.weights, each.responses) for end in (0, -1)
        ]
        ratios = (each.ratio, each.ratios.min(), each.ratios.max(), _factor(each))
        names = (KINDS[each.shortcut], "BatchNorm" if each.norm else "none", STARTS[each.start])
        rows.append((each.depth, *names, *map(float, middle), *map(float, ratios)))
    columns = ["layers", "network", "norms", "initialisation", "first kernel", "last kernel"]
    columns += ["first response", "last response", "ratio of responses", "lowest", "highest"]
    note = "Norms of gradients, medians over the seeds; the ratio with its lowest and highest seed."
    title = "Gradients of the loss at initialisation"
    return Table("gradients", title, [*columns, "factor of a layer"], rows, 4, note)


def _responses(learnt: Sequence[Responses]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for each in learnt:
        seeds = each.after.mean(1)
        numbers = (each.before.mean(), each.mean, seeds.min(), seeds.max(), each.accuracy.mean())
        rows.append((each.depth, KINDS[each.shortcut], *map(float, numbers)))
    columns = ["layers", "network", "before training", "after", "lowest seed", "highest seed"]
    title = "Standard deviation of responses, mean over the 3x3 layers"
    return Table("responses", title, [*columns, "accuracy on its images"], rows)


STUDY = ComputedStudy(
    "signal",
    "Gradients and responses by depth",
    lambda seeds, report: study(seeds=seeds, report=report),
    frozenset({"seeds"}),
)
