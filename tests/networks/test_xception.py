"""Xception against its count, real Keras and a plain reading of timm's files."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import pytest
import torch
from references.architecture_checks import STATE, check_keras, check_torch_reading, sides

from residua.networks.analysis.shapes import on_meta
from residua.networks.layers import PLAIN_NORM
from residua.networks.xception import KERAS_XCEPTION, XCEPTION, XceptionConfig, XceptionUnit

pytestmark = pytest.mark.usefixtures("one_thread")
both = pytest.mark.parametrize("config", [XCEPTION, KERAS_XCEPTION], ids=["timm", "keras"])


@both
def test_maps_are_at_strides_4_to_32(config: XceptionConfig) -> None:
    """Figure 5 has 19 x 19 x 728 and 10 x 10 x 2048."""
    assert sides(config, 299) == [74, 37, 19, 10]


@both
def test_any_classes_and_channels_at_the_smallest_size(config: XceptionConfig) -> None:
    with on_meta():
        network = config.build(5, 1).eval()
        assert network(torch.empty(2, 1, 7, 7)).shape == (2, 5)
        with pytest.raises(RuntimeError):
            network(torch.empty(2, 1, 6, 6))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("stride", "activated"), [(1, False), (2, False), (2, True)])
def test_a_unit_leaves_its_input_alone(stride: int, activated: bool, training: bool) -> None:
    unit = XceptionUnit(XCEPTION, 8, (12, 8), stride, activated).train(training)
    x = torch.randn(2, 8, 6, 6)
    before = x.clone()
    unit(x)
    assert torch.equal(x, before)


SEPARABLE = r"conv\d\.(depthwise|pointwise)"
KEYS = (
    r"(stem\.(conv1|norm1|conv2|end_norm)"
    rf"|stages\.[013]\.units\.0\.(shortcut\.(conv|norm)|branch\.({SEPARABLE}|norm1|end_norm))"
    rf"|stages\.2\.units\.\d\.(shortcut\.(conv|norm)|branch\.({SEPARABLE}|norm[12]|end_norm))"
    rf"|tail\.({SEPARABLE}|norm1|end_norm)|head)"
)


@both
def test_keys_of_weights_name_stage_and_layer(config: XceptionConfig) -> None:
    with torch.device("meta"):
        keys = config.build(10, 3).state_dict()
    assert all(re.fullmatch(KEYS + STATE, key) for key in keys)


@pytest.mark.slow
def test_it_is_the_network_of_timm() -> None:
    check_torch_reading("xception", XCEPTION, 75)  # 75 pixels: one pool reads an even map


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__", "ignore:The structure of `inputs`")
def test_it_is_the_network_of_keras_and_planted_errors_are_seen(keras: Any) -> None:
    changes: list[dict[str, Any]] = [{"pool_padding": "symmetric"}, {"norm": PLAIN_NORM}]
    wrong = [dataclasses.replace(KERAS_XCEPTION, **change) for change in changes]
    planted = [partial(config.build, 10, 3) for config in wrong]
    check_keras("keras_xception", KERAS_XCEPTION, 75, keras, planted)
