"""When a residual unit is the identity, linear, or keeps a gradient; trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from residua.config.schema import ORDERING_LETTERS
from residua.networks.residual import ORDERINGS
from residua.report.page import Figure, Page, Section, Table
from residua.report.style import COLOURS, FAINT, INK, MARKERS, tidy
from residua.report.view import joined
from residua.studies.claims.passing import (
    WIDE,
    Grown,
    Linearity,
    Passed,
    gradient,
    grown,
    linearities,
    passed,
    wide_gradient,
)
from residua.studies.study import ComputedStudy

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

EXACT = 1e-9  # differences below are float64's rounding of numbers about 1
ALIKE = 1e-3  # and those below come from a norm's epsilon
DEPTHS = (1, 2, 5, 10, 20, 50, 100)
FACTORS = (0.9, 1.1, 0.01)
EXACT_B = "b without epsilon"
PLAIN = "plain network of identity kernels"
Gradients = Mapping[float, Sequence[tuple[float, float]]]  # factor -> plain, shortcut at each depth

_GROWN = [
    "Network A has one unit in each of three stages, norms with statistics as if it had learnt, "
    "and random weights. Network B has the same and behind each of them one more unit, all "
    "parameters of whose branch are zero; in the plain network, without shortcuts, its kernels are "
    "the identity. New norms divide by sqrt(1 + epsilon), in the rows without epsilon by 1. "
    "Eight random images; the last column is the control, where the new branches stay random.",
]
_PASSED = [
    "unit(x) = after(branch(x) + x). With a branch of zeros it is after(x): the identity where "
    "nothing stands behind the addition. Random maps of 16 channels, their absolute values for "
    "x >= 0.",
]
_LINEAR = [
    "A function f is linear if f(ax + by) = af(x) + bf(y). With one linear layer beside it, a "
    "shortcut adds the identity to its matrix: Wx + x = (W + I)x. That is another layer of the "
    "same kind, so nothing is gained but the starting point.",
]
_GRADIENT = [
    "The gradient at the input of a chain is the product of its layers' factors. A shortcut makes "
    "of a factor f the sum 1 + f, and so of the product f^L the product (1 + f)^L, which is the "
    "sum over all paths through the chain; the path of shortcuts alone gives the 1.",
    f"In the second table each layer is a random rotation of {WIDE} features times f, and the "
    "length of a gradient is measured: across directions f adds to 1 at a right angle, about "
    "(1 + ff)^(L/2) in all.",
]


def study() -> Page:
    """Identity, linearity and gradients of residual units, measured on modules."""
    nets: dict[str, Grown] = {letter: grown(name) for letter, name in ORDERING_LETTERS.items()}
    units: dict[str, Passed] = {letter: passed(name) for letter, name in ORDERING_LETTERS.items()}
    nets |= {EXACT_B: grown("bn_after_addition", exact=True), PLAIN: grown("original", plain=True)}
    units[EXACT_B] = passed("bn_after_addition", exact=True)
    linear, scalars, wide = linearities(), _gradients(gradient), _gradients(wide_gradient)
    return Page(
        title=STUDY.title,
        claim="A network with identity layers added has the error of the one without; with all "
        "parameters of F zero H(x) = F(x) + x is x; a shortcut over one layer is linear; shortcuts "
        "make a sum of the product that vanishes or explodes.",
        source="Tutorial 0, the passage on residual units; tutorial 1, question 4; He et al. 2016, "
        "sections 2 and 3, and figure 4.",
        findings=[
            _of_units(units),
            _of_nets(nets),
            _of_training(nets),
            _of_products(scalars),
            _of_small(scalars, wide),
            _of_linear(linear),
        ],
        sections=[
            Section("One unit of zeros", _PASSED, [_passed(units)]),
            Section("Networks with units of zeros added", _GROWN, [_grown(nets)]),
            Section("A shortcut over one layer", _LINEAR, [_linearities(linear)]),
            Section(
                "Gradients through L layers",
                _GRADIENT,
                [
                    _gradient_table("gradients", "Layers of one number", scalars),
                    _gradient_table("gradients-wide", f"Layers of {WIDE} features", wide),
                ],
                [_gradient_figure(scalars)],
            ),
        ],
    )


def _gradients(measured: Callable[..., float]) -> Gradients:
    return {
        factor: [
            (measured(factor, depth, shortcuts=False), measured(factor, depth, shortcuts=True))
            for depth in DEPTHS
        ]
        for factor in FACTORS
    }


def _passed(units: Mapping[str, Passed]) -> Table:
    rows = [
        (name, _after(name) or "nothing", each.positive, each.both, each.rectified, each.trained)
        for name, each in units.items()
    ]
    columns = ["ordering", "behind the addition", "from x, x >= 0", "from x, both signs"]
    columns += ["from ReLU(x), both signs", "from x >= 0, training mode"]
    note = "n norm, a ReLU. Training mode: norms use the mean and variance of the batch."
    return Table("unit", "Largest difference of a unit's output", columns, rows, note=note)


def _grown(nets: Mapping[str, Grown]) -> Table:
    rows = [
        (name, each.evaluated, each.trained, each.random, each.logits)
        for name, each in nets.items()
    ]
    columns = ("units", "evaluation", "training mode", "new branches random", "largest logit of A")
    return Table("networks", "Largest difference between logits of A and B", columns, rows)


def _linearities(linear: Mapping[str, Linearity]) -> Table:
    rows = [(name, each.superposition, each.outputs, each.folded) for name, each in linear.items()]
    columns = ("beside a shortcut", "f(ax + by) - af(x) - bf(y)", "largest output", "from W + I")
    note = "Largest differences, for a = 2 and b = -3; the last column, from a layer without one."
    return Table("superposition", "Superposition", columns, rows, note=note)


def _gradient_table(name: str, title: str, gradients: Gradients) -> Table:
    rows = [
        (depth, *(value for factor in FACTORS for value in gradients[factor][place]))
        for place, depth in enumerate(DEPTHS)
    ]
    kinds = ("plain", "shortcuts")
    columns = ("L", *(f"f = {factor}, {kind}" for factor in FACTORS for kind in kinds))
    return Table(name, f"Gradients by autograd: {title.lower()}", columns, rows)


def _after(name: str) -> str:
    """Letters behind the addition of an ordering, whatever is said of it."""
    return ORDERINGS[ORDERING_LETTERS[name[0]]].after


def _of_units(units: Mapping[str, Passed]) -> str:
    always = [name for name, each in units.items() if each.both < EXACT]
    cut = [
        name
        for name, each in units.items()
        if each.positive < EXACT <= each.both and each.rectified < EXACT
    ]
    rest = [name for name in units if name not in always and name not in cut]
    text = f"A unit whose branch is zero gives x for every x in {_orderings(always)}"
    if cut:
        text += (
            f"; in {_orderings(cut)} only for x >= 0, since its ReLU behind the addition cuts the "
            f"rest (by up to {max(units[name].both for name in cut):.2f} here)"
        )
    if rest:
        off = max(units[name].positive for name in rest)
        text += (
            f"; in {_orderings(rest)} it is off by {off:.1g} for x >= 0 too, as the norm behind "
            f"the addition divides by sqrt(1 + epsilon){'' if off < ALIKE else ' and shifts'}"
        )
    return f"{text}."


def _of_nets(nets: Mapping[str, Grown]) -> str:
    same = [name for name, each in nets.items() if each.evaluated < EXACT]
    rest = [name for name in nets if name not in same]
    control = min(nets[name].random for name in nets)
    text = (
        f"B, which is A and a unit of zeros in each stage, has A's logits in {_orderings(same)}: "
        f"largest difference {max((nets[name].evaluated for name in same), default=0):.1g}"
    )
    if rest:
        text += f", in {_orderings(rest)} {max(nets[name].evaluated for name in rest):.1g}"
    return f"{text}. With random branches instead it is {control:.2f} or more."


def _of_training(nets: Mapping[str, Grown]) -> str:
    broken = {name: each.trained for name, each in nets.items() if each.trained > ALIKE}
    kept = [name for name, each in nets.items() if each.trained <= EXACT]
    if not broken:
        return f"In training mode B stays A in {_orderings(kept)}."
    parts = [f"{difference:.2f} in {_orderings([name])}" for name, difference in broken.items()]
    return (
        f"While training, where norms use the batch's statistics, B is still A in "
        f"{_orderings(kept)}; logits differ by {joined(parts)}, where a norm stands in the way "
        "of x."
    )


def _of_products(gradients: Gradients) -> str:
    parts = []
    for factor in FACTORS[:2]:
        plain, shortcut = gradients[factor][-1]
        parts.append(f"for f = {factor} and {DEPTHS[-1]} layers {plain:.3g} becomes {shortcut:.3g}")
    grows = all(gradients[factor][-1][1] > 1e6 for factor in FACTORS[:2])
    sums = [factor for factor in FACTORS[:2] if _is_product_of_sums(gradients, factor)]
    verdict = (
        "A shortcut makes a sum 1 + f of one layer's factor, and L of them the product (1 + f)^L "
        "of these sums, not one sum"
        if len(sums) == 2
        else "What is measured is not the product (1 + f)^L"
    )
    return (
        f"{verdict}: {joined(parts)}. The gradient {'explodes' if grows else 'is kept'} with "
        f"factors of that size{', so branches have to start small' if grows else ''}."
    )


def _is_product_of_sums(gradients: Gradients, factor: float) -> bool:
    expected = [(1 + factor) ** depth for depth in DEPTHS]
    measured = [shortcut for _, shortcut in gradients[factor]]
    return all(math.isclose(*pair, rel_tol=1e-9) for pair in zip(measured, expected, strict=True))


def _of_small(scalars: Gradients, wide: Gradients) -> str:
    factor = min(FACTORS)
    (plain, shortcut), (_, turned) = scalars[factor][-1], wide[factor][-1]
    kept = 0.1 < shortcut < 10 and 0.1 < turned < 10
    return (
        f"With small branches shortcuts {'keep' if kept else 'do not keep'} the gradient: for "
        f"f = {factor} and {DEPTHS[-1]} layers it is {shortcut:.2f}, and {turned:.2f} with "
        f"rotations of {WIDE} features, where without shortcuts {plain:.0e} is left."
    )


def _of_linear(linear: Mapping[str, Linearity]) -> str:
    limit = EXACT * max(each.outputs for each in linear.values())
    yes = [name for name, each in linear.items() if each.superposition < limit]
    no = [name for name in linear if name not in yes]
    folded = [each.folded for each in linear.values() if each.folded is not None]
    same = "is" if max(folded) < limit else "is not"
    return (
        f"A shortcut is linear over {'; '.join(yes)}: superposition holds within "
        f"{max((linear[name].superposition for name in yes), default=0):.0e}. It is not over "
        f"{'; '.join(no)}: off by {min(linear[name].superposition for name in no):.2f} or more. "
        f"Over one layer it {same} one layer with the weights W + I, also with a bias or a ReLU "
        f"behind the addition, within {max(folded):.0e}."
    )


def _orderings(names: Sequence[str]) -> str:
    letters = [name for name in names if name != PLAIN]
    parts = (
        [f"{'orderings' if len(letters) > 1 else 'ordering'} {joined(letters)}"] if letters else []
    )
    parts += [f"the {PLAIN}"] * (PLAIN in names)
    return " and in ".join(parts) or "no ordering"


def _gradient_figure(gradients: Gradients) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for place, factor in enumerate(FACTORS):
            for kind, dash in enumerate(((0, (5, 2)), "-")):
                values = [each[kind] for each in gradients[factor]]
                label = f"f = {factor}, {('plain', 'shortcuts')[kind]}"
                colour, marker = COLOURS[place], MARKERS[place]
                axes.plot(DEPTHS, values, marker, color=colour, ls=dash, label=label)
        axes.set_yscale("log")
        axes.set_ylim(1e-12, 1e12)
        axes.set_ylabel("gradient, logarithmic", color=FAINT)
        axes.legend(frameon=False, labelcolor=INK, ncols=3, loc="lower right")
        tidy(axes, "Gradient at the input of a chain of one number", "layers L")

    said = "Dashed: f^L. Solid: (1 + f)^L. What lies beyond a factor of 1e12 is cut off."
    return Figure("gradients", said, draw, (9.0, 4.6))


STUDY = ComputedStudy(
    "identity", "When a residual unit is the identity", lambda seeds, report: study()
)
