"""Gradients and responses by depth, compared with tutorials 0 and 1; trains small networks.

Legend: S seeds, L layers, see `propagation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from residua.comparison.statistics import difference_text, seed_differences
from residua.config.schema import Shortcut
from residua.report.page import Cell, Figure, Page, Section, Table
from residua.report.style import COLOURS, DASHES, FAINT, MARKERS, draw_curve, legend, tidy
from residua.studies.claims.propagation import (
    GRADIENT_IMAGES,
    RESPONSE_IMAGES,
    SIDE,
    SMALL,
    TRAINED_SIDE,
    Gradients,
    Init,
    Responses,
    gradients,
    responses,
)
from residua.studies.study import computed
from residua.studies.text import TRAINED
from residua.system.console import Report, counting
from residua.system.words import counted, joined, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Network = tuple[int, Shortcut]  # depth and kind

KINDS: dict[Shortcut, str] = {"none": "plain", "A": "residual"}
INITS: dict[Init, str] = {
    "he": "normalised (He)",
    "glorot": "normalised (Glorot)",
    "small": f"N(0, {SMALL})",
}
VARIANTS = tuple(product((False, True), INITS))  # with norms, initialisation
METRIC = "Mean standard deviation of responses after a short training"
VANISHED = 1e-3  # a gradient below this ratio vanishes, above its inverse it explodes
RATIOS = (1e-18, 1e18)  # limits of the figures

GRADIENTS = [
    "Networks of 6n + 2 layers for CIFAR-10 (He et al. 2015) at initialisation, with and without "
    "shortcuts (option A) and norms. An identity replaces a norm that is left out.",
    "The gradient of the loss with respect to the output of the first convolution, divided by "
    "that of the last, is the factor contributed by all layers between them. Gradients of kernels "
    "do not show it without norms: scaling a kernel by a scales the logits by a, so in a plain "
    "network the product of kernel and gradient is the same in each layer.",
    "Zero padding loses gradient at the borders: a normalised 3x3 layer on n x n pixels returns "
    "about (1 + 2 cos(pi / (n + 1))) / 3 of a gradient's norm, and 1 / sqrt(2) where a stage "
    "halves the map and doubles the width. The smaller the images, the larger the effect of "
    "depth.",
    f"A gradient below {VANISHED:g} times counts as vanished, above {1 / VANISHED:g} times as "
    "exploded. He et al. (section 4.1) report healthy gradients of plain networks with BatchNorm "
    "of 18 and 34 layers.",
]
RESPONSES = [
    "At initialisation a norm gives each channel a standard deviation of 1, so all networks are "
    "alike: figure 7 of He et al. 2015 is about trained ones. These are trained for a few hundred "
    "steps, the paper's for 64,000, so an effect is only beginning to appear.",
]


def study(
    depths: Sequence[int] = (8, 20, 56, 110),
    trained: Sequence[int] = (20, 56),
    steps: int = 200,
    seeds: int = 3,
    report: Report | None = None,
) -> Page:
    """Gradients at initialisation for `depths`, responses after `steps` steps for `trained`."""
    cases = [(*case, *variant) for case in product(depths, KINDS) for variant in VARIANTS]
    nets = list(product(trained, KINDS))
    total = len(cases) + len(nets)
    initial = [gradients(*case, range(seeds)) for case in counting(cases, report, total)]
    after = [
        responses(*net, steps, range(seeds)) for net in counting(nets, report, total, len(cases))
    ]
    return Page(
        title=STUDY.title,
        claim="Stacking layers makes gradients vanish or explode; normalised initialisation and "
        "batch normalisation prevent it. The responses of residual layers are weaker than those of "
        "plain ones, and weaker in deeper networks.",
        source="Tutorial 0 (why residual), tutorial 1 (questions 1 and 2); He et al. 2015, section "
        "4.1 and figure 7.",
        findings=[
            norm_finding(initial),
            init_finding(initial),
            shortcut_finding(initial),
            *response_findings(after),
            _stable_finding(initial),
        ],
        sections=[
            Section("Gradients at initialisation", GRADIENTS, (), _gradient_figures(initial)),
            Section("Responses", RESPONSES, [_response_table(after)], [_response_figure(after)]),
            Section("All gradients", (), [_gradient_table(initial)]),
        ],
        conditions=[
            f"scikit-learn's digits; {counted(seeds, 'seed')} for weights and images; gradients of "
            f"{GRADIENT_IMAGES} images of {SIDE} px in float64; {steps} training steps and "
            f"responses of {RESPONSE_IMAGES} images at {TRAINED_SIDE} px.",
        ],
    )


STUDY = computed(
    "signal",
    "Gradients and responses by depth",
    lambda seeds, report: study(seeds=seeds, report=report),
    frozenset({"seeds"}),
)


def norm_finding(initial: Sequence[Gradients]) -> str:
    """Whether norms alone keep the gradient of plain networks stable at initialisation."""
    depth, normed = _deepest(initial, "none", norm=True)
    _, bare = _deepest(initial, "none", norm=False)
    ratios, spread = [case.ratio for case in normed], _spread(normed)
    verdict = "keeps" if all(map(_stable, normed)) else "does not keep"
    fate = "exploding" if min(ratios) > 1 else "vanishing"
    plain = [case for case in initial if case.shortcut == "none" and case.norm]
    unstable = {case.depth for case in plain if not _stable(case)}
    reach = max({case.depth for case in plain} - unstable, default=0)
    limit = f"it is stable up to {reach} layers" if reach else "it is stable at no tested depth"
    return (
        f"BatchNorm {verdict} the gradient of {depth} plain layers from {fate} at initialisation: "
        f"the first layer's is {min(ratios):.2g} to {max(ratios):.2g} times the last one's, "
        f"{_factor(normed[0]):.3f} per layer with {INITS[normed[0].init]}; {limit}. With norms the "
        f"ratio {'hardly depends' if spread < 10 else 'depends'} on the initialisation: the "
        f"largest is {spread:.2g} times the smallest, without them {_spread(bare):.2g} times."
    )


def init_finding(initial: Sequence[Gradients]) -> str:
    """Whether normalised initialisation alone keeps the gradient of plain networks stable."""
    depth, bare = _deepest(initial, "none", norm=False)
    normalised = [case for case in bare if case.init != "small"]
    stable = [INITS[case.init] for case in normalised if _stable(case)]
    verdict = f"normalised initialisation is {'' if stable else 'not '}enough"
    if 0 < len(stable) < len(normalised):
        verdict = f"{joined(stable)} initialisation alone is enough"
    small = abs(np.log(bare[-1].ratio))
    better = all(abs(np.log(case.ratio)) < small for case in normalised)
    return (
        f"Without norms {verdict} at {depth} plain layers: from the last layer to the first "
        f"{joined([_fate(case) for case in bare])}. "
        f"{'Both are better' if better else 'Not both are better'} than {INITS['small']}."
    )


def shortcut_finding(initial: Sequence[Gradients]) -> str:
    """The effect of shortcuts, with norms and without."""
    depth, plain = _deepest(initial, "none", norm=True)
    _, residual = _deepest(initial, "A", norm=True)
    _, bare = _deepest(initial, "A", norm=False)
    ratios = [case.ratio for case in residual]
    gain = plain[0].ratio / residual[0].ratio
    compared = f"{gain:.2g} times less than" if gain > 1 else f"{1 / gain:.2g} times more than"
    return (
        "Shortcuts and BatchNorm together "
        f"{'keep' if all(map(_stable, residual)) else 'do not keep'} it stable: at {depth} layers "
        f"the ratio is {min(ratios):.2g} to {max(ratios):.2g}, with {INITS[plain[0].init]} "
        f"{compared} in the plain network. Shortcuts without norms are "
        f"{'enough' if all(map(_stable, bare)) else 'not enough'}: "
        f"{joined([_fate(case) for case in bare])}."
    )


def _stable_finding(initial: Sequence[Gradients]) -> str:
    depth = max(case.depth for case in initial)
    deepest = [case for case in initial if case.depth == depth]
    stable = [_name(case) for case in deepest if _stable(case)]
    return (
        f"Of {len(deepest)} combinations of shortcuts, norms and initialisation {len(stable)} keep "
        f"the gradient of {depth} layers between {VANISHED:g} and {1 / VANISHED:g} times"
        f"{': ' * bool(stable)}{'; '.join(stable)}."
    )


def response_findings(after: Sequence[Responses]) -> list[str]:
    """Whether residual layers respond more weakly, and more so when deeper, as in figure 7.

    Undertrained networks are not compared.
    """
    means = {(net.depth, net.shortcut): net.after.mean(1) for net in after}
    accuracies = {(net.depth, net.shortcut): float(net.accuracy.mean()) for net in after}
    depths = sorted({net.depth for net in after})
    pairs: list[tuple[Network, Network]] = [((depth, "none"), (depth, "A")) for depth in depths]
    if len(depths) > 1:
        pairs.append(((depths[0], "A"), (depths[-1], "A")))
    findings = []
    for first, second in pairs:
        if lost := [net for net in (first, second) if accuracies[net] < TRAINED]:
            findings.append(
                f"{_net(*first)} and {_net(*second)} are not compared: {_net(*lost[0])} reaches "
                f"only {percent(accuracies[lost[0]])} training accuracy."
            )
            continue
        difference = seed_differences(np.stack([means[first], means[second]]))[0, 1]
        findings.append(difference_text(_net(*first), _net(*second), METRIC, difference, ""))
    return findings


def _deepest(
    initial: Sequence[Gradients], shortcut: Shortcut, norm: bool
) -> tuple[int, list[Gradients]]:
    """The largest depth, and the gradients of its networks, one for each initialisation."""
    depth, kind = max(case.depth for case in initial), (shortcut, norm)
    cases = [case for case in initial if case.depth == depth]
    return depth, [case for case in cases if (case.shortcut, case.norm) == kind]


def _stable(case: Gradients) -> bool:
    return VANISHED <= case.ratio <= 1 / VANISHED


def _factor(case: Gradients) -> float:
    """The factor of one layer, on average."""
    return float(case.ratio ** (1 / (case.outputs.shape[1] - 1)))


def _spread(cases: Sequence[Gradients]) -> float:
    """The largest ratio over the smallest."""
    ratios = [case.ratio for case in cases]
    return max(ratios) / max(min(ratios), float(np.finfo(np.float64).tiny))


def _fate(case: Gradients) -> str:
    fate = "is stable" if _stable(case) else "vanishes" if case.ratio < VANISHED else "explodes"
    return (
        f"with {INITS[case.init]} it {fate} ({case.ratio:.2g} times, {_factor(case):.3f} per layer)"
    )


def _net(depth: int, shortcut: Shortcut) -> str:
    return f"{KINDS[shortcut]}, {depth} layers"


def _variant(norm: bool, init: Init) -> str:
    return f"{'BatchNorm' if norm else 'no norms'}, {INITS[init]}"


def _name(case: Gradients) -> str:
    return f"{KINDS[case.shortcut]}, {_variant(case.norm, case.init)}"


def _gradient_table(initial: Sequence[Gradients]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for case in initial:
        medians = [
            np.median(norms[:, end]) for norms in (case.weights, case.outputs) for end in (0, -1)
        ]
        ratios = (case.ratio, case.ratios.min(), case.ratios.max(), _factor(case))
        names = (KINDS[case.shortcut], "BatchNorm" if case.norm else "none", INITS[case.init])
        rows.append((case.depth, *names, *map(float, medians), *map(float, ratios)))
    columns = ["layers", "network", "norms", "initialisation", "first kernel", "last kernel"]
    columns += ["first output", "last output", "ratio of outputs", "lowest", "highest"]
    note = "Norms of gradients, medians over the seeds; the ratio with its lowest and highest seed."
    title = "Gradients of the loss at initialisation"
    return Table("gradients", title, [*columns, "factor per layer"], rows, 4, note)


def _response_table(after: Sequence[Responses]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for net in after:
        seeds = net.after.mean(1)
        numbers = (net.before.mean(), net.mean, seeds.min(), seeds.max(), net.accuracy.mean())
        rows.append((net.depth, KINDS[net.shortcut], *map(float, numbers)))
    columns = ["layers", "network", "before training", "after", "lowest seed", "highest seed"]
    title = "Standard deviation of responses, mean over the 3x3 layers"
    return Table("responses", title, [*columns, "training accuracy"], rows)


def _gradient_figures(initial: Sequence[Gradients]) -> list[Figure]:
    """The gradient at the first layer by depth, and at each layer of the deepest networks."""
    deepest = max(case.depth for case in initial)

    def draw(canvas: Canvas, by_layer: bool) -> None:
        for axes, shortcut in zip(canvas.subplots(1, 2, sharey=True), KINDS, strict=True):
            for index, variant in enumerate(VARIANTS):
                kind = (shortcut, *variant)
                cases = [case for case in initial if (case.shortcut, case.norm, case.init) == kind]
                if by_layer:
                    case = next(case for case in cases if case.depth == deepest)
                    values = case.outputs / case.outputs[:, -1:]
                    x = list(range(1, values.shape[1] + 1))
                else:
                    values = np.array([case.ratios for case in cases]).T
                    x = [case.depth for case in cases]
                values = np.maximum(values, RATIOS[0] / 1e3)  # a logarithmic axis has no zero
                colour, norm = COLOURS[index], variant[0]
                axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
                axes.plot(
                    x,
                    np.median(values, 0),
                    marker=MARKERS[index],
                    markevery=max(1, len(x) // 8),
                    color=colour,
                    ls=DASHES[0] if norm else DASHES[1 + index % 3],
                    label=_variant(*variant),
                )
            axes.set_yscale("log")
            axes.set_ylim(*RATIOS)
            tidy(axes, KINDS[shortcut], "layer" if by_layer else "layers")
        ratio = "gradient over the last layer's" if by_layer else "gradient, first over last layer"
        canvas.axes[0].set_ylabel(ratio, color=FAINT)
        legend(canvas, 3)

    band = "The band spans all seeds."
    first = f"The gradient at the first layer. {band} Values beyond the frame are in the table."
    layers = f"The gradient at each layer, {deepest} layers. {band}"
    return [
        Figure("gradients", first, lambda canvas: draw(canvas, by_layer=False)),
        Figure("layers", layers, lambda canvas: draw(canvas, by_layer=True)),
    ]


def _response_figure(after: Sequence[Responses]) -> Figure:
    """Responses by layer after training, a panel for each depth."""

    def draw(canvas: Canvas) -> None:
        from matplotlib.ticker import MaxNLocator

        depths = sorted({net.depth for net in after})
        grid = canvas.subplots(1, len(depths), squeeze=False, sharey=True)[0]
        for axes, depth in zip(grid, depths, strict=True):
            for index, net in enumerate(net for net in after if net.depth == depth):
                draw_curve(
                    axes,
                    np.arange(1, net.after.shape[1] + 1),
                    net.after,
                    colour=COLOURS[index],
                    dash=DASHES[index],
                    marker=MARKERS[index],
                    label=KINDS[net.shortcut],
                )
            tidy(axes, f"{depth} layers", "3x3 layer")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_yscale("log", subs=())
            axes.set_yticks([0.5, 0.7, 1, 1.5, 2, 3, 5], minor=False)
            axes.yaxis.set_major_formatter("{x:g}")
        grid[0].set_ylabel("standard deviation, logarithmic", color=FAINT)
        legend(canvas, 3)

    caption = "Responses after the norms, after a short training, as in figure 7 of He et al. 2015."
    return Figure("responses", f"{caption} Mean over the seeds; the band spans all of them.", draw)
