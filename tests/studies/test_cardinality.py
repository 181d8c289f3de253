"""Cardinality as a setting of networks, and as the study of its cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references.runs import trained
from references.study_pages import all_finite, check_page
from scipy.stats import t
from torch import Tensor

import residua
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.report.page import Page
from residua.studies.claims.cardinality import (
    Sensitivity,
    Unit,
    grouped_convolution,
    late_slices,
    sensitivity,
    slice_finding,
    study,
    time_finding,
    timed_units,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def page(one_thread: None) -> Page:
    return study(batch=1, side=6, repeats=2)


def test_the_page_is_complete(page: Page) -> None:
    check_page(page)
    assert all(map(all_finite, page.tables))


def test_units_have_the_weights_of_the_paper(page: Page) -> None:
    table = page.sections[0].tables[0]
    kernels = {row[0]: row[table.columns.index("weights")] for row in table.rows}
    for groups, width in ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4)):
        inner = groups * width
        expected = 256 * inner + 9 * width * width * groups + inner * 256
        assert kernels[f"{groups}x{width}d"] == expected
    assert (kernels["1x64d"], kernels["32x4d"]) == (69_632, 70_144)
    place = table.columns.index("multiply-adds")
    assert [row[place] for row in table.rows] == [6 * 6 * each for each in kernels.values()]
    weights = dict(page.sections[0].tables[1].rows)  # type: ignore[arg-type]
    assert (weights[1], weights[32]) == (147_456, 4_608)


def test_late_slices_read_only_the_last_group() -> None:
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(1, 128, 5, 5, generator=chance)
    kernel = torch.randn(128, 4, 3, 3, generator=chance)
    late = F.conv2d(x[:, 124:], kernel, padding=1)
    torch.testing.assert_close(late_slices(x, kernel), late)
    parts = [
        F.conv2d(x[:, 4 * k : 4 * k + 4], kernel[4 * k : 4 * k + 4], padding=1) for k in range(32)
    ]
    torch.testing.assert_close(grouped_convolution(x, kernel), torch.cat(parts, 1))
    assert sensitivity(late_slices) == Sensitivity(0.0, 4)
    right = sensitivity(grouped_convolution)
    assert right.channels == 128
    assert right.change > 0.5


def test_sensitivity_finds_the_channels_that_a_layer_reads() -> None:
    def half(x: Tensor, kernel: Tensor) -> Tensor:
        return x[:, 64:] * 2 + kernel.sum() * 0

    found = sensitivity(half)
    assert found.channels == 64
    assert found.change > 0.5


def test_findings_on_time_follow_the_numbers() -> None:
    def made_unit(groups: int, width: int, kernels: int, *seconds: float) -> Unit:
        return Unit(groups, width, kernels, kernels, kernels, seconds)

    first = made_unit(1, 64, 1000, 1.0, 1.1, 1.2)
    slower = time_finding([first, made_unit(32, 4, 1010, 2.0, 2.2, 2.1)])
    assert "not equal time" in slower
    assert "1.91 times as long" in slower
    logs = np.log([2.0, 2.0, 1.75])
    half = t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    low, high = (math.exp(logs.mean() + sign * half) for sign in (-1, 1))
    assert f"3 rounds, 95 % CI {low:.2f} to {high:.2f}" in slower
    alike = time_finding([first, made_unit(32, 4, 1500, 0.9, 1.15, 1.3)])
    assert "No significant difference in time" in alike
    assert "smallest detectable ratio" in alike
    once = time_finding([made_unit(1, 64, 1000, 1.0), made_unit(32, 4, 1010, 2.0)])
    assert "2.00 times as long as of 1x64d" in once
    assert "the spread is unknown" in once
    assert "is not a grouped" in slice_finding(Sensitivity(0.0, 4), Sensitivity(1.0, 128))
    assert "is a grouped" in slice_finding(Sensitivity(0.9, 128), Sensitivity(1.0, 128))


def test_every_round_is_timed() -> None:
    found = timed_units(batch=1, side=4, repeats=3)
    assert [len(each.seconds) for each in found] == [3] * 5
    assert all(min(each.seconds) > 0 for each in found)


@pytest.mark.slow
def test_resnext_is_resnet_with_another_cardinality() -> None:
    ours = catalogue.build("resnet50", cardinality="32x4d", classes=5, seed=0).eval()
    published = catalogue.build("resnext50_32x4d", classes=5, seed=1).eval()
    published.load_state_dict(ours.state_dict())  # refuses another shape or name
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), published(images))


@pytest.mark.slow
def test_one_group_of_64_is_the_bottleneck_of_resnet() -> None:
    ours = catalogue.build("resnet50", cardinality="1x64d", seed=0).state_dict()
    plain = catalogue.build("resnet50", seed=0).state_dict()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("name", "cardinality", "words"),
    [
        ("resnet18", "32x4d", "resnet18 has no bottlenecks"),
        ("vgg16", "32x4d", "has no residual units"),
        ("resnet50", "32x4", "such as 32x4d"),
        ("resnet50", "0x4d", "such as 32x4d"),
    ],
)
def test_networks_without_a_cardinality_are_named(name: str, cardinality: str, words: str) -> None:
    with pytest.raises(ResiduaError, match=words):
        residua.build(name, cardinality=cardinality)


@pytest.mark.slow
def test_a_run_saves_the_cardinality_with_its_weights(shapes: Path, tmp_path: Path) -> None:
    settings = {"network.cardinality": "2x2d"}
    options = {"model": "cifar_resnext29_8x64d", "size": 8, "epochs": 1}
    run = trained(shapes, tmp_path / "run", settings, **options)
    again = residua.build(weights=run.path)
    groups = {layer.groups for layer in again.modules() if isinstance(layer, torch.nn.Conv2d)}
    assert groups == {1, 2}
    assert 0 <= run.evaluate().scores.accuracy <= 1
    with pytest.raises(ResiduaError, match=r"cardinality '2x2d', but .*4x1d"):
        residua.build("cifar_resnext29_8x64d", weights=run.path, cardinality="4x1d")
