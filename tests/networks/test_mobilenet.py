"""MobileNets against their counts, real Keras and independent readings of published files."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import pytest
import torch
from references import efficientnet_lite
from references.architecture_checks import (
    STATE,
    check_keras,
    check_torch_reading,
    check_training,
    sides,
)
from torch import nn

from residua.networks.analysis.shapes import on_meta
from residua.networks.layers import PLAIN_NORM, BatchNorm, Convolution
from residua.networks.mobilenet import (
    EFFICIENTNET_LITE0,
    KERAS_MOBILENET,
    MOBILENET_V1,
    MOBILENET_V2,
    MobileNetConfig,
    scaled,
)
from residua.networks.zoo import catalogue

pytestmark = pytest.mark.usefixtures("one_thread")
both = pytest.mark.parametrize("config", [MOBILENET_V1, KERAS_MOBILENET], ids=["timm", "keras"])


def test_maps_are_at_strides_2_to_32() -> None:
    """Table 1; Keras' padding rounds up in the stem and then down."""
    assert sides(MOBILENET_V1, 224) == sides(KERAS_MOBILENET, 224) == [112, 56, 28, 14, 7]
    assert sides(MOBILENET_V1, 225) == [113, 57, 29, 15, 8]
    assert sides(KERAS_MOBILENET, 225) == [113, 56, 28, 14, 7]


@pytest.mark.parametrize(("config", "smallest"), [(MOBILENET_V1, 1), (KERAS_MOBILENET, 31)])
def test_any_classes_and_channels_at_the_smallest_size(
    config: MobileNetConfig, smallest: int
) -> None:
    with on_meta():
        network = config.build(5, 1).eval()
        assert network(torch.empty(2, 1, smallest, smallest)).shape == (2, 5)
        with pytest.raises(RuntimeError):
            network(torch.empty(2, 1, smallest - 1, smallest - 1))


@both
def test_every_parameter_trains(config: MobileNetConfig) -> None:
    check_training(config, 33)


@both
def test_keys_of_weights_name_stage_and_layer(config: MobileNetConfig) -> None:
    with torch.device("meta"):
        keys = config.build(10, 3).state_dict()
    units = r"(stem\.(conv|norm)|stages\.\d\.units\.\d\.branch\.(conv1|norm1|conv2|end_norm)|head)"
    assert all(re.fullmatch(units + STATE, key) for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 33])
def test_it_is_the_network_of_timm(size: int) -> None:
    check_torch_reading("mobilenet_v1", MOBILENET_V1, size)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__", "ignore:The structure of `inputs`")
@pytest.mark.parametrize("size", [32, 33])
def test_it_is_the_network_of_keras_and_planted_errors_are_seen(size: int, keras: Any) -> None:
    changes: list[dict[str, Any]] = [{"padding": "symmetric"}, {"norm": PLAIN_NORM}]
    wrong = [dataclasses.replace(KERAS_MOBILENET, **change) for change in changes]
    planted = [partial(config.build, 10, 3) for config in wrong]
    check_keras("keras_mobilenet", KERAS_MOBILENET, size, keras, planted)


@pytest.mark.slow
def test_dropout_is_keras(keras: Any) -> None:
    network: Any = KERAS_MOBILENET.build(10, 3)
    assert network.dropout.p == keras.build("keras_mobilenet", 10, 32).get_layer("dropout").rate


# MobileNetV2 and EfficientNet-Lite ----------------------------------------------------------------

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
def test_bottlenecks_are_linear_and_shortcuts_keep_the_shape(config: MobileNetConfig) -> None:
    for stage in units_of(config):
        for number, unit in enumerate(stage):
            assert isinstance(unit.branch[-1], BatchNorm)
            assert not len(unit.after)
            first, depthwise, last = (
                [layer for layer in unit.branch if isinstance(layer, Convolution)][index]
                for index in (0, -2, -1)
            )
            keeps_shape = depthwise.stride == (1, 1) and first.in_channels == last.out_channels
            assert isinstance(unit.shortcut, nn.Identity) == keeps_shape
            assert keeps_shape or (unit.shortcut is None and number == 0)
            assert depthwise.groups == depthwise.in_channels == depthwise.out_channels


def test_depth_scales_all_but_the_first_and_last_stage() -> None:
    deeper = units_of(dataclasses.replace(EFFICIENTNET_LITE0, depth=1.8))
    assert [len(stage) for stage in deeper] == [1, 4, 4, 6, 6, 8, 1]


def units_of(config: MobileNetConfig) -> list[list[Any]]:
    with on_meta():
        return [list(stage.units) for stage in config.build(10, 3).stages]  # type: ignore[arg-type]


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
