"""Studies that measure: what they count and say agrees with what is computed here another way."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation
from scipy.stats import t
from torch import Tensor, nn

from residua.networks.zoo import catalogue
from residua.report.page import Figure, Page, write
from residua.studies.claims import cardinality, history, published, signal
from residua.studies.claims.cardinality import Reading, Unit
from residua.studies.claims.propagation import (
    Gradients,
    Responses,
    deviations,
    gradients,
    images,
    network,
    responses,
    without_norms,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def signal_page(one_thread: None) -> Page:
    return signal.study(depths=(8, 14), trained=(8, 14), steps=4, seeds=2)


@pytest.fixture(scope="module")
def history_page(one_thread: None) -> Page:
    return history.study(("alexnet", "mobilenet_v1"), batch=1, repeats=1, side=64)


@pytest.fixture(scope="module")
def cardinality_page(one_thread: None) -> Page:
    return cardinality.study(batch=1, side=6, repeats=2)


@pytest.fixture(params=["signal", "history", "cardinality"])
def page(request: pytest.FixtureRequest) -> Page:
    found: Page = request.getfixturevalue(f"{request.param}_page")
    return found


def test_pages_are_whole(page: Page, tmp_path: Path) -> None:
    tables = [table for section in page.sections for table in section.tables]
    figures = [figure for section in page.sections for figure in section.figures]
    assert tables
    assert figures
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.name
        numbers = [cell for row in table.rows for cell in row if isinstance(cell, float)]
        assert all(math.isfinite(each) for each in numbers), table.name
    for names in ([each.name for each in tables], [each.name for each in figures]):
        assert len(set(names)) == len(names)
    write(page, tmp_path)
    for figure in figures:
        assert (tmp_path / "figures" / f"{figure.name}.png").stat().st_size > 5_000
        assert b"</svg>" in (tmp_path / "figures" / f"{figure.name}.svg").read_bytes()


# The signal


def test_gradients_are_those_of_finite_differences() -> None:
    """Of a kernel: the loss a small step along the gradient grows by step times its norm."""
    found = gradients(8, "A", norm=True, start="he", seeds=(3,))
    built = network(8, "A", 3).double()
    x, labels = images(32, 3)
    kernel = built.stem.get_submodule("conv").weight
    assert isinstance(kernel, nn.Parameter)
    loss = F.cross_entropy(built(x.double()), labels)
    (gradient,) = torch.autograd.grad(loss, kernel)
    with torch.no_grad():
        step = 1e-8 * gradient / gradient.norm()
        losses = []
        for sign in (1, -1):
            kernel.add_(sign * step)
            losses.append(float(F.cross_entropy(built(x.double()), labels)))
            kernel.sub_(sign * step)
    assert (losses[0] - losses[1]) / 2e-8 == pytest.approx(found.weights[0, 0], rel=1e-4)


@pytest.mark.parametrize(("depth", "layers"), [(8, 7), (20, 19)])
def test_without_norms_kernel_times_gradient_is_the_same_in_each_plain_layer(
    depth: int, layers: int
) -> None:
    """A ReLU network is homogeneous in each kernel: why responses are compared, not kernels."""
    built = network(depth, "none", 0).double()
    without_norms(built)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in built.modules())
    x, labels = images(32, 0)
    loss = F.cross_entropy(built(x.double()), labels)
    kernels = [each.weight for each in built.modules() if isinstance(each, nn.Conv2d)]
    found = torch.autograd.grad(loss, kernels)
    products = [float((a * b).sum().detach()) for a, b in zip(kernels, found, strict=True)]
    assert len(products) == layers
    np.testing.assert_allclose(products, products[0], rtol=1e-9)
    measured = gradients(depth, "none", norm=False, start="he", seeds=(0,))
    np.testing.assert_allclose(measured.weights[0], [float(each.norm()) for each in found])


def test_first_response_counts_all_paths() -> None:
    """The gradient of the first convolution's output, against a stem that is cut off by hand."""
    built = network(8, "A", 1).double()
    without_norms(built)
    x, labels = images(32, 1)
    output = built.stem.get_submodule("conv")(x.double()).detach().requires_grad_()
    maps = torch.relu(output)
    for stage in built.stages:
        maps = stage(maps)
    loss = F.cross_entropy(built.head(built.tail(maps).mean((2, 3))), labels)
    (gradient,) = torch.autograd.grad(loss, output)
    found = gradients(8, "A", norm=False, start="he", seeds=(1,))
    assert found.responses[0, 0] == pytest.approx(float(gradient.norm()), rel=1e-9)


def test_small_weights_lose_the_gradient_and_norms_take_the_scale_out() -> None:
    bare = gradients(20, "none", norm=False, start="small", seeds=(0, 1))
    he = gradients(20, "none", norm=False, start="he", seeds=(0, 1))
    normed = gradients(20, "none", norm=True, start="small", seeds=(0, 1))
    assert bare.ratio < 1e-12 < 1e-3 < he.ratio
    assert normed.ratio > 1
    assert bare.ratios.shape == (2,)
    assert bare.ratios[0] != bare.ratios[1]


def test_responses_are_one_before_training_and_the_factors_of_the_norms_after() -> None:
    found = responses(8, "A", steps=6, seeds=(0,))
    assert found.before.shape == found.after.shape == (1, 6)
    np.testing.assert_allclose(found.before, 1, atol=1e-3)
    assert np.abs(found.after - 1).max() > 1e-3

    built = network(8, "none", 0)
    with torch.no_grad():
        for name, each in built.named_modules():
            if name.endswith("norm1"):
                assert isinstance(each.weight, nn.Parameter)
                each.weight.fill_(3)
            elif name.endswith("end_norm"):
                assert isinstance(each.weight, nn.Parameter)
                each.weight[::2].fill_(0)  # half of the channels: root of a half
                assert isinstance(each.bias, nn.Parameter)
                each.bias.copy_(torch.arange(len(each.bias)))  # moves means and no deviation
    found_now = deviations(built, images(64, 0)[0])
    np.testing.assert_allclose(found_now, [3, math.sqrt(0.5)] * 3, rtol=1e-3)


def test_training_learns_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    learnt = responses(8, "A", steps=100, seeds=(0,))
    assert torch.equal(before, torch.random.get_rng_state())
    assert learnt.accuracy[0] > 0.4  # of ten classes
    first, again = (responses(8, "A", steps=3, seeds=(0, 1)).after for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()


def made(depth: int, shortcut: str, norm: bool, start: str, ratio: float) -> Gradients:
    layers = np.geomspace(ratio, 1, depth - 1)[None]
    return Gradients(depth, shortcut, norm, start, np.ones_like(layers), layers)  # type: ignore[arg-type]


def all_made(ratios: dict[tuple[str, bool], tuple[float, float, float]]) -> list[Gradients]:
    return [
        made(20, shortcut, norm, start, ratio)
        for (shortcut, norm), three in ratios.items()
        for start, ratio in zip(("he", "glorot", "small"), three, strict=True)
    ]


BAD = {
    ("none", False): (1e-9, 1e-20, 1e-90),
    ("none", True): (1e7, 2e7, 3e7),
    ("A", False): (1e8, 1e2, 0.4),
    ("A", True): (1e2, 2e2, 3e2),
}
GOOD = {
    ("none", False): (0.5, 0.2, 1e-90),
    ("none", True): (0.9, 1.1, 1.2),
    ("A", False): (2.0, 1.5, 0.4),
    ("A", True): (1.0, 1.0, 1.0),
}


def test_sentences_on_gradients_follow_the_numbers() -> None:
    bad, good = all_made(BAD), all_made(GOOD)
    assert "does not keep the gradient of 20 plain layers from exploding" in signal.of_norms(bad)
    assert "holds at no depth looked at" in signal.of_norms(bad)
    assert f"{1e7 ** (1 / 18):.3f} a layer" in signal.of_norms(bad)
    assert "keeps the gradient" in signal.of_norms(good)
    assert "holds up to 20 layers" in signal.of_norms(good)
    one = all_made({**GOOD, ("none", True): (0.9, 1e7, 1.2)})
    assert "holds at no depth looked at" in signal.of_norms(one)
    assert "is no cure at 20 plain layers" in signal.of_starts(bad)
    assert "with N(0, 0.01) it vanishes (1e-90 times" in signal.of_starts(bad)
    assert "is a cure at 20 plain layers" in signal.of_starts(good)
    assert f"with normalised (He) it holds (0.5 times, {0.5 ** (1 / 18):.3f}" in signal.of_starts(
        good
    )
    assert "with normalised (He) it explodes (1e+08 times" in signal.of_shortcuts(bad)
    half = all_made({**GOOD, ("none", False): (0.5, 1e-5, 1e-90)})
    assert "normalised (He) initialisation alone is a cure at 20" in signal.of_starts(half)
    assert "together keep it" in signal.of_shortcuts(bad)
    assert "Shortcuts without norms are not enough" in signal.of_shortcuts(bad)
    assert "Shortcuts without norms are enough" in signal.of_shortcuts(good)
    worse = all_made({**GOOD, ("A", True): (1e-9, 1.0, 1.0)})
    assert "together do not keep it" in signal.of_shortcuts(worse)


def test_sentence_on_responses_follows_the_numbers() -> None:
    def net(depth: int, shortcut: str, level: float, accuracy: float = 1.0) -> Responses:
        values = np.full((2, depth - 2), level)
        return Responses(depth, shortcut, values, values, np.full(2, accuracy))  # type: ignore[arg-type]

    shown = [net(20, "none", 0.99), net(20, "A", 0.9), net(56, "none", 1.1), net(56, "A", 0.8)]
    first, second, third = signal.of_responses(shown)
    assert "residual, 20 layers is 0.09 lower than plain, 20 layers" in first
    assert "residual, 56 layers is 0.30 lower than plain, 56 layers" in second
    assert "residual, 56 layers is 0.10 lower than residual, 20 layers" in third
    turned = [net(20, "none", 0.8), net(20, "A", 0.9), net(56, "none", 0.9), net(56, "A", 1.0, 0.2)]
    first, second, third = signal.of_responses(turned)
    assert "residual, 20 layers is 0.10 higher than plain, 20 layers" in first
    for said in (second, third):
        assert "not compared" in said
        assert "residual, 56 layers knows only 20% of its images" in said
    apart = Responses(20, "A", np.ones((2, 18)), np.array([[0.5], [1.4]]) * np.ones(18), np.ones(2))
    assert "no significant difference" in signal.of_responses([shown[0], apart])[0]


# The history


@pytest.fixture(scope="module")
def points() -> list[published.Point]:
    return [published.point(row) for row in published.ROWS]


def test_costs_are_those_of_the_publishers(points: Sequence[published.Point]) -> None:
    """GFLOPS as torchvision's table of weights gives them, parameters of the papers' rows."""
    work = {"alexnet": 0.71, "vgg16": 15.47, "googlenet": 1.5, "inception_v3": 5.71}
    work |= {"resnet50": 4.09, "resnext50_32x4d": 4.23, "densenet161": 7.73}
    at = {each.published.name: each for each in points}
    for name, expected in work.items():
        assert at[name].multiply_adds / 1e9 == pytest.approx(expected, abs=0.006), name
    for name, each in at.items():
        if name is not None:
            assert each.parameters == catalogue.row(name).trainable
            assert each.side == catalogue.row(name).size
    head = nn.Linear(2048, 1000)
    weights = sum(each.numel() for each in head.parameters())
    assert at["resnet50"].linear == pytest.approx(weights / at["resnet50"].parameters)


def test_every_accuracy_has_a_source_and_every_cost_a_network_or_a_source(
    history_page: Page,
) -> None:
    for row in published.ROWS:
        assert 50 < row.accuracy < 85
        assert row.source
        assert (row.name is None) == (row.multiply_adds is not None)
    table = history_page.sections[0].tables[0]
    assert [row[0] for row in table.rows] == [row.label for row in published.ROWS]
    assert all(isinstance(row[-1], str) and row[-1] for row in table.rows)


def test_frontier_is_what_nothing_cheaper_equals(points: Sequence[published.Point]) -> None:
    found = history.frontier(points)
    expected = [
        each
        for each in points
        if not any(
            other.accuracy >= each.accuracy
            and (other.multiply_adds, -other.accuracy) < (each.multiply_adds, -each.accuracy)
            for other in points
        )
    ]
    assert sorted(found, key=lambda e: e.label) == sorted(expected, key=lambda e: e.label)
    assert "vgg19" not in {each.published.name for each in found}


def priced(points: Sequence[published.Point], sign: int) -> list[published.Point]:
    """The same networks with costs that rise (1) or fall (-1) with accuracy."""
    return [
        dataclasses.replace(
            each,
            multiply_adds=int(1e9 * (100 + sign * each.accuracy)),
            parameters=int(1e6 * (100 - sign * each.accuracy)),
        )
        for each in points
    ]


def test_sentences_on_costs_follow_the_numbers(points: Sequence[published.Point]) -> None:
    rising, falling = priced(points, 1), priced(points, -1)
    assert "follows multiply-adds (rank correlation +1.00)" in history.of_order(rising)
    assert "runs against parameters (-1.00)" in history.of_order(rising)
    assert "runs against multiply-adds" in history.of_order(falling)
    assert "is also the most accurate" in history.of_frontier(rising)
    assert f"Of {len(points)} networks 1 are" in history.of_frontier(falling)
    assert f"{len(points) - 1} cheaper ones reach that" in history.of_frontier(falling)
    for family in history.BROUGHT:
        texts = {history.of_family(family, each) for each in (points, rising, falling)}
        assert len(texts) == 3, family
    new = next(each for each in points if each.published.name == "resnext50_32x4d")
    worse = dataclasses.replace(new.published, accuracy=70.0)
    others = [each for each in points if each is not new]
    text = history.of_family("ResNeXt", [*others, dataclasses.replace(new, published=worse)])
    assert "ResNeXt-50 against ResNet-50: -6.1 points" in text


def test_speed_is_images_over_the_median(points: Sequence[published.Point]) -> None:
    cheap, dear = (dataclasses.replace(points[0], multiply_adds=k) for k in (1_000, 1_100))
    one, other = (history.Timed(each, 8, (2.0, 9.0, 4.0)) for each in (cheap, dear))
    assert one.images == 2
    assert one.rate == 2_000
    other = dataclasses.replace(other, batch=7)
    assert "give about the time" in history.of_speed([one, other])
    assert "correlation of +1.00" in history.of_speed([one, other])
    apart = history.of_speed([one, dataclasses.replace(other, batch=80)])
    assert "do not give the time" in apart
    assert "a factor of 11.0" in apart
    assert "correlation of -1.00" in apart


def drawn(figure: Figure) -> Canvas:
    canvas = Canvas(figsize=figure.inches, layout="constrained")
    FigureCanvasAgg(canvas)
    figure.draw(canvas)
    canvas.savefig(io.BytesIO(), format="png", dpi=144)
    canvas.draw_without_rendering()
    return canvas


def test_names_in_figures_cover_no_other_name(history_page: Page) -> None:
    for section in history_page.sections:
        for axes in drawn(section.figures[0]).axes:
            names = [
                each
                for each in axes.findobj(Annotation)
                if isinstance(each, Annotation) and each.get_text()
            ]
            assert len(names) == len(section.tables[0].rows)
            boxes = [each.get_window_extent() for each in names]
            for (a, one), (b, other) in combinations(zip(names, boxes, strict=True), 2):
                assert not one.overlaps(other), (a.get_text(), b.get_text())


# Cardinality


def test_units_have_the_weights_of_the_paper(cardinality_page: Page) -> None:
    table = cardinality_page.sections[0].tables[0]
    kernels = {row[0]: row[table.columns.index("kernels")] for row in table.rows}
    for groups, width in ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4)):
        inner = groups * width
        expected = 256 * inner + 9 * width * width * groups + inner * 256
        assert kernels[f"{groups}x{width}d"] == expected
    assert (kernels["1x64d"], kernels["32x4d"]) == (69_632, 70_144)
    place = table.columns.index("multiply-adds")
    assert [row[place] for row in table.rows] == [6 * 6 * each for each in kernels.values()]
    weights = dict(cardinality_page.sections[0].tables[1].rows)  # type: ignore[arg-type]
    assert (weights[1], weights[32]) == (147_456, 4_608)


def test_late_slices_read_the_last_group_alone() -> None:
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(1, 128, 5, 5, generator=chance)
    kernel = torch.randn(128, 4, 3, 3, generator=chance)
    late = F.conv2d(x[:, 124:], kernel, padding=1)
    torch.testing.assert_close(cardinality.late_slices(x, kernel), late)
    parts = [
        F.conv2d(x[:, 4 * k : 4 * k + 4], kernel[4 * k : 4 * k + 4], padding=1) for k in range(32)
    ]
    torch.testing.assert_close(cardinality.true_groups(x, kernel), torch.cat(parts, 1))
    assert cardinality.reading(cardinality.late_slices) == Reading(0.0, 4)
    right = cardinality.reading(cardinality.true_groups)
    assert right.heard == 128
    assert right.silent > 0.5


def test_reading_hears_what_a_layer_reads() -> None:
    def half(x: Tensor, kernel: Tensor) -> Tensor:
        return x[:, 64:] * 2 + kernel.sum() * 0

    found = cardinality.reading(half)
    assert found.heard == 64
    assert found.silent > 0.5


def test_sentences_on_cardinality_follow_the_numbers() -> None:
    def made_unit(groups: int, width: int, kernels: int, *seconds: float) -> Unit:
        return Unit(groups, width, kernels, kernels, kernels, seconds)

    first = made_unit(1, 64, 1000, 1.0, 1.1, 1.2)
    slower = cardinality.findings([first, made_unit(32, 4, 1010, 2.0, 2.2, 2.1)])
    assert "about the same, +1.0%" in slower[0]
    assert "not equal times" in slower[2]
    assert "1.91 times as long" in slower[2]
    logs = np.log([2.0, 2.0, 1.75])
    half = t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    low, high = (math.exp(logs.mean() + sign * half) for sign in (-1, 1))
    assert f"95 % interval {low:.2f} to {high:.2f}, 3 rounds" in slower[2]
    alike = cardinality.findings([first, made_unit(32, 4, 1500, 0.9, 1.15, 1.3)])
    assert "not the same, +50.0%" in alike[0]
    assert "No difference of times is seen" in alike[2]
    once = [made_unit(1, 64, 1000, 1.0), made_unit(32, 4, 1010, 2.0)]
    assert "2.00 times as long as of 1x64d; a single time says" in cardinality.findings(once)[2]
    assert "is no grouped" in cardinality.of_slices(Reading(0.0, 4), Reading(1.0, 128))
    assert "is a grouped" in cardinality.of_slices(Reading(0.9, 128), Reading(1.0, 128))


def test_times_are_as_many_as_asked_for() -> None:
    found = cardinality.timed(batch=1, side=4, repeats=3)
    assert [len(each.seconds) for each in found] == [3] * 5
    assert all(min(each.seconds) > 0 for each in found)
