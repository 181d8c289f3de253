"""When a residual unit is the identity, linear, or preserves a gradient; trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from residua.config.schema import ORDERING_LETTERS
from residua.networks.residual import ORDERINGS
from residua.report.page import Figure, Page, Section, Table
from residua.report.style import COLOURS, FAINT, INK, MARKERS, tidy
from residua.studies.claims.mappings import (
    WIDE,
    gradient,
    linearities,
    network_difference,
    unit_difference,
    wide_gradient,
)
from residua.studies.study import computed
from residua.system.words import joined

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

ZERO = 1e-9  # smaller differences are rounding errors of float64
EPSILON = 1e-3  # and smaller ones than this come from the epsilon of a norm
DEPTHS = (1, 2, 5, 10, 20, 50, 100)
FACTORS = (0.9, 1.1, 0.01)
KINDS, DASHES = ("plain", "shortcuts"), ((0, (5, 2)), "-")
EXACT_B = "b without epsilon"
PLAIN = "plain network of identity kernels"
Gradients = dict[float, list[tuple[float, float]]]  # factor -> plain, shortcut at each depth


def study() -> Page:
    """Identity, linearity and gradients of residual units, measured on modules."""
    units, networks, linearity, gradients = _units(), _networks(), _linearity(), _gradients()
    return Page(
        title=STUDY.title,
        claim="A network with added identity layers has the same error; with all parameters of F "
        "zero, H(x) = F(x) + x is x; a shortcut over one layer is linear; shortcuts turn the "
        "product that vanishes or explodes into a sum.",
        source="Tutorial 0, the passage on residual units; tutorial 1, question 4; He et al. 2016, "
        "sections 2 and 3, and figure 4.",
        findings=[
            finding
            for section in (units, networks, gradients, linearity)
            for finding in section.findings
        ],
        sections=[units, networks, linearity, gradients],
    )


STUDY = computed("identity", "When a residual unit is the identity", lambda seeds, report: study())


def _units() -> Section:
    units = {letter: unit_difference(name) for letter, name in ORDERING_LETTERS.items()}
    units[EXACT_B] = unit_difference("bn_after_addition", exact=True)
    after = {name: ORDERINGS[ORDERING_LETTERS[name[0]]].after or "nothing" for name in units}
    columns = ["ordering", "after the addition", "from x, x >= 0", "from x, both signs"]
    columns += ["from ReLU(x), both signs", "from x >= 0, training mode"]
    title = "Largest difference of a unit's output"
    note = "n norm, a ReLU. Training mode: norms use the mean and variance of the batch."
    rows = [(name, after[name], *unit) for name, unit in units.items()]
    always = [name for name, unit in units.items() if unit.both < ZERO]
    cut = [name for name, unit in units.items() if unit.positive < ZERO <= unit.both]
    rest = [name for name in units if name not in (*always, *cut)]
    return Section(
        "One zero unit",
        [
            "unit(x) = after(branch(x) + x). With a zero branch it is after(x): the identity if "
            "nothing follows the addition. The input is random maps of 16 channels, or their "
            "absolute values."
        ],
        [Table("unit", title, columns, rows, note=note)],
        findings=[
            f"A unit whose branch is zero returns x for every x in {_orderings(always)}; in "
            f"{_orderings(cut)} only for x >= 0, since the ReLU after the addition removes "
            f"negative values (up to {max(units[name].both for name in cut):.2f} here); in "
            f"{_orderings(rest)} it differs by {max(units[name].positive for name in rest):.1g} "
            "for x >= 0 too, as the norm after the addition divides by sqrt(1 + epsilon)."
        ],
    )


def _networks() -> Section:
    networks = {letter: network_difference(name) for letter, name in ORDERING_LETTERS.items()}
    networks[EXACT_B] = network_difference("bn_after_addition", exact=True)
    networks[PLAIN] = network_difference("original", plain=True)
    columns = ("units", "evaluation", "training mode", "random branches", "largest logit of A")
    rows = [(name, *network) for name, network in networks.items()]
    same = [name for name, network in networks.items() if network.evaluation < ZERO]
    rest = [name for name in networks if name not in same]
    unchanged = [name for name, network in networks.items() if network.training <= ZERO]
    changed = [
        f"{network.training:.2f} in {_orderings([name])}"
        for name, network in networks.items()
        if network.training > EPSILON
    ]
    return Section(
        "Networks with added zero units",
        [
            "Network A has one unit in each of three stages, norms with statistics as after "
            "training, and random weights. Network B adds one more unit to each stage, whose "
            "branch has only zero parameters; in the plain network, without shortcuts, the added "
            "kernels are the identity. Added norms divide by sqrt(1 + epsilon), or by 1 in the "
            "rows without epsilon. The input is eight random images; the last but one column is "
            "the control, with random added branches."
        ],
        [Table("networks", "Largest difference between logits of A and B", columns, rows)],
        findings=[
            f"B, which is A plus a zero unit in each stage, has A's logits in {_orderings(same)}: "
            f"largest difference {max(networks[name].evaluation for name in same):.1g}, in "
            f"{_orderings(rest)} {max(networks[name].evaluation for name in rest):.1g}. With "
            "random branches it is at least "
            f"{min(network.random for network in networks.values()):.2f}.",
            "In training mode, where norms use the statistics of the batch, B still equals A in "
            f"{_orderings(unchanged)}; logits differ by {joined(changed)}, where a norm is on the "
            "path of x.",
        ],
    )


def _linearity() -> Section:
    linear = linearities()
    columns = ("shortcut over", "f(ax + by) - af(x) - bf(y)", "largest output", "from W + I")
    note = (
        "Largest differences, for a = 2 and b = -3; last column: from one layer without shortcut."
    )
    rows = [(name, *measured) for name, measured in linear.items()]
    limit = ZERO * max(f.outputs for f in linear.values())
    yes = [name for name, f in linear.items() if f.superposition < limit]
    no = [name for name in linear if name not in yes]
    folded = max(f.folded for f in linear.values() if f.folded is not None)
    return Section(
        "A shortcut over one layer",
        [
            "A function f is linear if f(ax + by) = af(x) + bf(y). A shortcut around one linear "
            "layer adds the identity to its matrix: Wx + x = (W + I)x. That is another layer of "
            "the same kind, so only the initialisation differs."
        ],
        [Table("superposition", "Superposition", columns, rows, note=note)],
        findings=[
            f"A shortcut is linear over {'; '.join(yes)}: superposition holds within "
            f"{max(linear[name].superposition for name in yes):.0e}. It is not linear over "
            f"{'; '.join(no)}: the error is at least "
            f"{min(linear[name].superposition for name in no):.2f}. Over one layer it equals one "
            f"layer with the weights W + I, also with a bias or a ReLU after the addition, within "
            f"{folded:.0e}."
        ],
    )


def _gradients() -> Section:
    scalars, wide = _by_depth(gradient), _by_depth(wide_gradient)
    small, last = min(FACTORS), DEPTHS[-1]
    changes = [
        f"for f = {factor} and {last} layers {scalars[factor][-1][0]:.3g} becomes "
        f"{scalars[factor][-1][1]:.3g}"
        for factor in FACTORS[:2]
    ]
    (plain, shortcut), (_, rotated) = scalars[small][-1], wide[small][-1]
    return Section(
        "Gradients through L layers",
        [
            "The gradient at the input of a chain is the product of its layers' factors. A "
            "shortcut turns a factor f into the sum 1 + f, and so the product f^L into the product "
            "(1 + f)^L, the sum over all paths through the chain; the path of shortcuts alone "
            "contributes the 1.",
            f"In the second table each layer is f times a random rotation of {WIDE} features, and "
            "the norm of the gradient is measured: on average f is orthogonal to 1, so the norm is "
            "about (1 + ff)^(L/2).",
        ],
        [
            _gradient_table("gradients", "layers of one number", scalars),
            _gradient_table("gradients-wide", f"layers of {WIDE} features", wide),
        ],
        [_gradient_figure(scalars)],
        [
            "A shortcut turns the factor of a layer into a sum 1 + f, and L of them give the "
            f"product (1 + f)^L of these sums, not one sum: {joined(changes)}. With factors of "
            "that size the gradient explodes, so branches have to start small.",
            f"With small branches shortcuts preserve the gradient: for f = {small} and {last} "
            f"layers it is {shortcut:.2f}, and {rotated:.2f} with rotations of {WIDE} features, "
            f"where without shortcuts {plain:.0e} is left.",
        ],
    )


def _by_depth(measure: Callable[..., float]) -> Gradients:
    return {
        factor: [
            (measure(factor, depth, shortcuts=False), measure(factor, depth, shortcuts=True))
            for depth in DEPTHS
        ]
        for factor in FACTORS
    }


def _gradient_table(name: str, title: str, gradients: Gradients) -> Table:
    rows = [
        (depth, *(value for factor in FACTORS for value in gradients[factor][index]))
        for index, depth in enumerate(DEPTHS)
    ]
    columns = ("L", *(f"f = {factor}, {kind}" for factor in FACTORS for kind in KINDS))
    return Table(name, f"Gradients by autograd: {title}", columns, rows)


def _gradient_figure(gradients: Gradients) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for factor, colour, marker in zip(FACTORS, COLOURS, MARKERS, strict=False):
            both = zip(*gradients[factor], strict=True)
            for kind, dash, values in zip(KINDS, DASHES, both, strict=True):
                label = f"f = {factor}, {kind}"
                axes.plot(DEPTHS, values, marker, color=colour, ls=dash, label=label)
        axes.set_yscale("log")
        axes.set_ylim(1e-12, 1e12)
        axes.set_ylabel("gradient, logarithmic", color=FAINT)
        axes.legend(frameon=False, labelcolor=INK, ncols=3, loc="lower right")
        tidy(axes, "Gradient at the input of a chain of one number", "layers L")

    caption = "Dashed: f^L. Solid: (1 + f)^L. Values beyond a factor of 1e12 are cut off."
    return Figure("gradients", caption, draw, (9.0, 4.6))


def _orderings(names: Sequence[str]) -> str:
    letters = [name for name in names if name != PLAIN]
    parts = [f"ordering{'s' * (len(letters) > 1)} {joined(letters)}"] if letters else []
    return " and in ".join([*parts, *([f"the {PLAIN}"] if PLAIN in names else [])])
