"""Published accuracies and counted costs -> convolutional networks from AlexNet on, compared.

Trains nothing; how fast the networks are is measured on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from residua.networks.zoo import catalogue
from residua.report.page import Cell, Page, Section, Table
from residua.report.view import joined
from residua.studies.claims.history_figures import cost_figure, speed_figure
from residua.studies.claims.published import (
    ALEXNET,
    DENSENET,
    INCEPTION,
    RESNET,
    RESNET_V2,
    RESNEXT,
    ROWS,
    SEPARABLE,
    VGG,
    Point,
    point,
)
from residua.studies.study import ComputedStudy
from residua.system.console import Report, counting

BATCH = 8
TIMED = (
    "alexnet",
    "vgg16",
    "vgg19",
    "googlenet",
    "inception_v3",
    "resnet18",
    "resnet50",
    "resnet152",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v1",
    "keras_xception",
)
# What a family brought, from its paper; what it gained is computed.
BROUGHT = {
    ALEXNET: "ReLU, local response normalisation (left out in 2014), dropout and augmentation",
    VGG: "groups of 3x3 convolutions in place of large kernels",
    INCEPTION: "parallel branches of several kernel sizes, behind 1x1 reductions",
    RESNET: "shortcuts, so that depth can be trained",
    RESNET_V2: "norm and ReLU before each convolution and a bare shortcut",
    RESNEXT: "many equal branches, as grouped convolutions",
    DENSENET: "reuse of features: each layer reads all layers before it",
    SEPARABLE: "convolutions over places and over channels one after the other",
}
# Compared to what: newer and older network of one sentence, of one publisher.
COMPARED = {
    VGG: ("vgg19", "vgg16"),
    INCEPTION: ("googlenet", "alexnet"),
    RESNET: ("resnet50", "vgg16"),
    RESNET_V2: ("keras_resnet152v2", "keras_resnet152"),
    RESNEXT: ("resnext50_32x4d", "resnet50"),
    DENSENET: ("densenet201", "resnet50"),
    SEPARABLE: ("keras_xception", "keras_inception_v3"),
}

_COSTS = [
    "Parameters that learn and multiply-adds of convolutions and linear layers are counted on the "
    "networks as they are built here, for one image of the size in the table. Accuracies are "
    "those of their publishers, whose recipes, crops and years differ; differences of a point "
    "between publishers say nothing. Torchvision's are its first weights, before its longer "
    "recipes; GoogLeNet, there with BatchNorm, and Inception V3 came to it from TensorFlow.",
]
_SPEED = [
    f"Images per second in float32 on the processor of this machine: {BATCH} images, "
    "evaluation mode, one batch to warm up, then the median of three.",
]


@dataclass(frozen=True)
class Timed:
    """Seconds of each measured batch of a network."""

    point: Point
    batch: int
    seconds: tuple[float, ...]

    @property
    def images(self) -> float:
        """Images per second, the median."""
        return self.batch / median(self.seconds)

    @property
    def rate(self) -> float:
        """Multiply-adds per second."""
        return self.images * self.point.multiply_adds


def study(
    names: Sequence[str] = TIMED,
    batch: int = BATCH,
    repeats: int = 3,
    side: int | None = None,
    report: Report | None = None,
) -> Page:
    """Accuracy against cost for all published rows; speed of `names`.

    side: of the images that are timed, where not each network's own.
    """
    points = [point(row) for row in ROWS]
    asked = [each for each in points if each.published.name in names]
    times = [timed(each, batch, repeats, side) for each in counting(asked, report, len(asked))]
    costs = Section("Accuracy against cost", _COSTS, [_costs(points)], [cost_figure(points)])
    shown = [(each.point, each.images) for each in times]
    return Page(
        title=STUDY.title,
        claim="Convolutional networks from AlexNet over VGG, GoogLeNet, ResNet and ResNeXt to "
        "DenseNet became more accurate, by other means than cost.",
        source="Tutorial 0, the figure of accuracy against complexity; the papers of the networks.",
        findings=[
            of_frontier(points),
            of_order(points),
            *(of_family(family, points) for family in BROUGHT),
            of_speed(times),
        ],
        sections=[costs, Section("Speed", _SPEED, [_speeds(times)], [speed_figure(shown)])],
    )


def timed(each: Point, batch: int, repeats: int, side: int | None) -> Timed:
    """Time a network on random images. The global random generator stays as it is."""
    name = each.published.name or ""
    built = catalogue.build(name, seed=0).eval()
    wide = side or catalogue.row(name).size
    x = torch.randn(batch, 3, wide, wide, generator=torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            built(x)
            seconds.append(time.perf_counter() - begun)
    return Timed(each, batch, tuple(seconds[1:]))


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no cheaper one equals in accuracy, from the fewest multiply-adds to the most."""
    best: list[Point] = []
    for each in sorted(points, key=lambda e: (e.multiply_adds, -e.accuracy)):
        if not best or each.accuracy > best[-1].accuracy:
            best.append(each)
    return best


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: how alike two orders are, from -1 to 1."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def of_frontier(points: Sequence[Point]) -> str:
    """Which networks are worth their multiply-adds, and how far the dearest one is from them."""
    best = frontier(points)
    dearest = max(points, key=lambda each: each.multiply_adds)
    better = [
        each
        for each in points
        if each.accuracy >= dearest.accuracy and each.multiply_adds < dearest.multiply_adds
    ]
    names = joined([each.label for each in best])
    start = f"Of {len(points)} networks {len(best)} are worth their multiply-adds, {names}: no "
    start += "cheaper one is as accurate. "
    if not better:
        return start + f"The dearest, {dearest.label}, is also the most accurate."
    cheap = min(better, key=lambda each: each.multiply_adds)
    return (
        f"{start}The dearest, {dearest.label}, reaches {dearest.accuracy:.1f} % with "
        f"{_billions(dearest)} multiply-adds; {len(better)} cheaper ones reach that, {cheap.label} "
        f"with {dearest.multiply_adds / cheap.multiply_adds:.1f} times fewer."
    )


def of_order(points: Sequence[Point]) -> str:
    """How well cost orders the networks by accuracy."""
    accuracy = [each.accuracy for each in points]
    work = correlation(accuracy, [each.multiply_adds for each in points])
    size = correlation(accuracy, [each.parameters for each in points])
    return (
        f"Accuracy {_follows(work)} multiply-adds (rank correlation {work:+.2f}) and "
        f"{_follows(size)} parameters ({size:+.2f})."
    )


def _follows(value: float) -> str:
    if value > 0.7:
        return "follows"
    if value > 0.3:
        return "loosely follows"
    return "does not follow" if value > -0.3 else "runs against"


def of_family(family: str, points: Sequence[Point]) -> str:
    """What a family brought, and what it gained over an older network."""
    own = [each for each in points if each.published.family == family]
    start = f"{family.capitalize() if family.islower() else family}: {BROUGHT[family]}. "
    best = max(own, key=lambda each: each.accuracy)
    if family not in COMPARED:
        large = max(each.linear or 0 for each in own)
        return (
            f"{start}{best.label} reaches {best.accuracy:.1f} % with {_millions(best)} parameters, "
            f"of which {large:.0%} are in its linear layers, and {_billions(best)} multiply-adds."
        )
    new, old = (next(e for e in points if e.published.name == name) for name in COMPARED[family])
    work, size = new.multiply_adds / old.multiply_adds, new.parameters / old.parameters
    text = (
        f"{start}{new.label} against {old.label}: {new.accuracy - old.accuracy:+.1f} points with "
        f"{work:.2f} times the multiply-adds and {size:.2f} times the parameters."
    )
    if new.published.source != old.published.source:
        text += " The two have different publishers."
    return (
        text if best is new else f"{text} The family reaches {best.accuracy:.1f} % ({best.label})."
    )


def of_speed(times: Sequence[Timed]) -> str:
    """Whether multiply-adds say how long a network takes."""
    slow, fast = (f(times, key=lambda each: each.rate) for f in (min, max))
    order = correlation(
        [each.point.multiply_adds for each in times], [1 / each.images for each in times]
    )
    ratio = fast.rate / slow.rate
    said = "do not give the time" if ratio > 2 else "give about the time"
    return (
        f"Multiply-adds {said}, for networks do {slow.rate / 1e9:.0f} ({slow.point.label}) to "
        f"{fast.rate / 1e9:.0f} ({fast.point.label}) billion of them a second on this machine, a "
        f"factor of {ratio:.1f}; in order of time the networks are those of multiply-adds with a "
        f"rank correlation of {order:+.2f}."
    )


def _billions(each: Point) -> str:
    return f"{each.multiply_adds / 1e9:.1f} billion"


def _millions(each: Point) -> str:
    return f"{each.parameters / 1e6:.1f} million"


def _costs(points: Sequence[Point]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            each.label,
            each.published.family,
            each.accuracy,
            each.multiply_adds,
            each.parameters,
            each.side,
            "counted" if each.published.name else "as published",
            each.published.source,
        )
        for each in points
    ]
    columns = ("network", "family", "top-1 %", "multiply-adds", "parameters", "side, px", "cost")
    return Table("history", "Published accuracy and cost", (*columns, "accuracy from"), rows, 1)


def _speeds(times: Sequence[Timed]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for each in times:
        low, high = (each.batch / f(each.seconds) for f in (max, min))
        rates = (each.images, low, high, each.rate / 1e9)
        rows.append((each.point.label, each.point.accuracy, each.point.multiply_adds, *rates))
    columns = ["network", "top-1 %", "multiply-adds", "images a second", "lowest", "highest"]
    return Table("speed", "Speed", [*columns, "billion multiply-adds a second"], rows, 1)


STUDY = ComputedStudy(
    "history", "Accuracy against cost, from AlexNet on", lambda seeds, report: study(report=report)
)
