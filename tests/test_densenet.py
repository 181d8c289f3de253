"""DenseNet against its published counts, real Keras and a plain reading of torchvision's files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_separable import (
    BOUND,
    STATE,
    beside_keras,
    check_keras,
    check_learning,
    check_torch_reading,
    count,
    logits_error,
    sides,
)

from residua.networks import densenet
from residua.networks.analysis.cost import smallest_input
from residua.networks.layers import Convolution, MaxPool, Norm

PLANS = {
    "densenet121": densenet.DENSENET121,
    "densenet161": densenet.DENSENET161,
    "densenet169": densenet.DENSENET169,
    "densenet201": densenet.DENSENET201,
    "keras_densenet121": densenet.KERAS_DENSENET121,
    "keras_densenet169": densenet.KERAS_DENSENET169,
    "keras_densenet201": densenet.KERAS_DENSENET201,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        ("densenet121", 7_978_856, None),
        ("densenet161", 28_681_000, None),
        ("densenet169", 14_149_480, None),
        ("densenet201", 20_013_928, None),
        ("keras_densenet121", 7_978_856, 8_062_504),
        ("keras_densenet169", 14_149_480, 14_307_880),
        ("keras_densenet201", 20_013_928, 20_242_984),
    ],
)
def test_published_counts(name: str, trainable: int, total: int | None) -> None:
    counted = count(PLANS[name])
    assert counted[0] == trainable
    assert total in (None, counted[1])


@pytest.mark.parametrize(("size", "expected"), [(224, [56, 28, 14, 7]), (225, [57, 28, 14, 7])])
def test_maps_are_at_strides_4_to_32(size: int, expected: list[int]) -> None:
    """Table 1; the stem rounds up, as ResNet's, and the transitions round down."""
    assert sides(PLANS["densenet121"], size) == expected


def test_any_classes_and_channels_at_the_smallest_size() -> None:
    with torch.device("meta"):
        network = PLANS["densenet121"].build(5, 1).eval()
        logits = network(torch.empty(2, 1, 29, 29))
    assert logits.shape == (2, 5)
    assert smallest_input(network) == 29


@pytest.mark.parametrize("size", [32, 33])
def test_learns(size: int) -> None:
    check_learning(PLANS["densenet121"], size)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_adds_channels_and_leaves_its_input_alone(training: bool) -> None:
    layer = densenet.DenseLayer(PLANS["densenet121"], 8).train(training)
    x = torch.randn(2, 8, 6, 6)
    before = x.clone()
    y = layer(x)
    assert torch.equal(x, before)
    assert torch.equal(y[:, :8], before)
    assert y.shape == (2, 8 + 32, 6, 6)


KEYS = (
    r"(stem\.(conv|norm)|stages\.[123]\.transition\.(norm|conv)"
    r"|stages\.[0123]\.layers\.\d+\.(norm0|conv1|norm1|conv2)|tail\.norm|head)"
)


@pytest.mark.parametrize("name", PLANS)
def test_checkpoint_keys(name: str) -> None:
    with torch.device("meta"):
        keys = PLANS[name].build(10, 3).state_dict()
    assert all(re.fullmatch(KEYS + STATE, key) for key in keys)


@pytest.mark.parametrize(("name", "size"), [("densenet121", 32), ("densenet161", 33)])
def test_is_the_network_of_torchvision(name: str, size: int) -> None:
    check_torch_reading(name, PLANS[name], size)


@pytest.mark.filterwarnings("ignore:__array__", "ignore:The structure of `inputs`")
@pytest.mark.parametrize("size", [32, 33])
def test_is_the_network_of_keras(size: int, keras: Any) -> None:
    check_keras("keras_densenet121", PLANS["keras_densenet121"], size, keras)


def with_tensorflows_epsilon() -> Any:
    plan = PLANS["keras_densenet121"]
    return dataclasses.replace(plan, norm=Norm(epsilon=1e-3)).build(10, 3)


def with_same_stem() -> Any:
    network: Any = PLANS["keras_densenet121"].build(10, 3)
    network.stem.conv = Convolution(3, 64, 7, stride=2, padding="same")
    return network


def with_same_pool() -> Any:
    network: Any = PLANS["keras_densenet121"].build(10, 3)
    network.stem.pool = MaxPool(3, 2, "same")
    return network


@pytest.mark.filterwarnings("ignore:__array__", "ignore:The structure of `inputs`")
@pytest.mark.parametrize("build", [with_tensorflows_epsilon, with_same_stem, with_same_pool])
def test_a_planted_error_is_far_beyond_the_bound(build: Callable[[], Any], keras: Any) -> None:
    plan = PLANS["keras_densenet121"]
    network, images, expected = beside_keras("keras_densenet121", plan, 32, keras)
    other = build().eval()
    other.load_state_dict(network.state_dict())
    assert logits_error(other, images, expected) > 20 * BOUND
