"""MobileNetV2 and EfficientNet-Lite: published counts, plans, and an independent reading."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from references import efficientnet_lite

from residua.networks.inverted_residual import (
    EFFICIENTNET_LITE0,
    MOBILENET_V2,
    InvertedResidualConfig,
    scaled,
    unit_plans,
)
from residua.networks.zoo import catalogue

PARAMETERS = {
    "mobilenet_v2": 3_504_872,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_published(name: str) -> None:
    with torch.device("meta"):
        network = catalogue.build(name)
    assert sum(weight.numel() for weight in network.parameters()) == PARAMETERS[name]


def test_widths_are_multiples_of_8_and_at_most_10_percent_narrower() -> None:
    assert [scaled(width, 1.1) for width in (16, 24, 40, 320)] == [16, 24, 48, 352]
    for width in range(8, 400, 8):
        for factor in (0.35, 0.75, 1.1, 1.4):
            assert scaled(width, factor) % 8 == 0
            assert scaled(width, factor) >= 0.9 * width * factor


@pytest.mark.parametrize("config", [MOBILENET_V2, EFFICIENTNET_LITE0])
def test_bottlenecks_are_linear_and_shortcuts_keep_the_shape(
    config: InvertedResidualConfig,
) -> None:
    for stage in unit_plans(config):
        for number, unit in enumerate(stage):
            assert unit.branch.endswith("cn")
            assert unit.after == ""
            keeps_shape = unit.stride == 1 and unit.inputs == unit.outputs
            assert unit.shortcut == ("identity" if keeps_shape else "none")
            assert keeps_shape or number == 0
            depthwise = unit.convolutions[-2]
            assert depthwise.groups == depthwise.inputs == depthwise.outputs


def test_depth_scales_all_but_the_first_and_last_stage() -> None:
    deeper = unit_plans(dataclasses.replace(EFFICIENTNET_LITE0, depth=1.8))
    assert [len(stage) for stage in deeper] == [1, 4, 4, 6, 6, 8, 1]


@pytest.mark.parametrize("size", [64, 75])
def test_every_stage_equals_an_independent_reading(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    network = catalogue.build("efficientnet_lite0", seed=0).eval()
    state, names = network.state_dict(), package_names()
    with torch.no_grad():
        for name, tensor in state.items():
            if "running" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    stored = dict(zip(names, state.values(), strict=True))
    x = torch.randn(2, 3, size, size, generator=generator)
    with torch.inference_mode():
        ours = [*network.features(x), network(x)]
        expected = list(efficientnet_lite.outputs(x, stored))
    assert len(ours) == 8
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def package_names() -> list[str]:
    """Names of the weights package, in the order of its file, which is that of the layers."""

    def norm(name: str) -> list[str]:
        keys = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{name}.{key}" for key in keys]

    names = ["_conv_stem.weight", *norm("_bn0")]
    for block in range(16):
        prefix = f"_blocks.{block}."
        if block:
            names += [f"{prefix}_expand_conv.weight", *norm(f"{prefix}_bn0")]
        names += [f"{prefix}_depthwise_conv.weight", *norm(f"{prefix}_bn1")]
        names += [f"{prefix}_project_conv.weight", *norm(f"{prefix}_bn2")]
    return [*names, "_conv_head.weight", *norm("_bn1"), "_fc.weight", "_fc.bias"]
