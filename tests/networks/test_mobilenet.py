"""MobileNet against its count, real Keras and a plain reading of timm's files."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import pytest
import torch
from references.architecture_checks import (
    STATE,
    check_keras,
    check_torch_reading,
    check_training,
    sides,
)

from residua.networks.analysis.shapes import on_meta
from residua.networks.layers import PLAIN_NORM
from residua.networks.mobilenet import KERAS_MOBILENET, MOBILENET_V1, MobileNetConfig

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
def test_state_dict_keys(config: MobileNetConfig) -> None:
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
    changes: list[dict[str, Any]] = [{"keras_padding": False}, {"norm": PLAIN_NORM}]
    wrong = [dataclasses.replace(KERAS_MOBILENET, **change) for change in changes]
    planted = [partial(config.build, 10, 3) for config in wrong]
    check_keras("keras_mobilenet", KERAS_MOBILENET, size, keras, planted)


@pytest.mark.slow
def test_dropout_is_keras(keras: Any) -> None:
    network: Any = KERAS_MOBILENET.build(10, 3)
    assert network.dropout.p == keras.build("keras_mobilenet", 10, 32).get_layer("dropout").rate
