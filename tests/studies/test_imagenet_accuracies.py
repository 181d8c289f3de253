"""Published accuracies have sources, and costs are those of their publishers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import nn

from residua.networks.zoo import catalogue
from residua.studies.claims.imagenet_accuracies import ROWS, Point

pytestmark = pytest.mark.slow


def test_costs_are_those_of_the_publishers(points: Sequence[Point]) -> None:
    """GFLOPS as torchvision's table of weights gives them, parameters of the papers' rows."""
    work = {"alexnet": 0.71, "vgg16": 15.47, "googlenet": 1.5, "inception_v3": 5.71}
    work |= {"resnet50": 4.09, "resnext50_32x4d": 4.23, "densenet161": 7.73}
    at = {point.name: point for point in points}
    for name, expected in work.items():
        assert at[name].multiply_adds / 1e9 == pytest.approx(expected, abs=0.006), name
    for name, point in at.items():
        if name is not None:
            assert point.parameters == catalogue.row(name).trainable
            assert point.side == catalogue.row(name).size
    head = nn.Linear(2048, 1000)
    weights = sum(parameter.numel() for parameter in head.parameters())
    assert at["resnet50"].linear == pytest.approx(weights / at["resnet50"].parameters)


def test_every_accuracy_has_a_source_and_every_cost_a_network_or_a_source() -> None:
    for row in ROWS:
        assert 50 < row.accuracy < 85
        assert row.source
        assert (row.name is None) == (row.multiply_adds > 0)
