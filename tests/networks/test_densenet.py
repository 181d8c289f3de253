"""DenseNet against its papers' maps, real Keras and a plain reading of torchvision's files."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch
from references.architecture_checks import STATE, check_keras, check_torch_reading, sides

from residua.networks import densenet
from residua.networks.analysis.shapes import on_meta
from residua.networks.layers import Convolution, MaxPool, Norm
from residua.networks.zoo.catalogue import row

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS: dict[str, Any] = {
    name: row(name).config for name in ("densenet121", "densenet161", "keras_densenet121")
}


@pytest.mark.parametrize(("size", "expected"), [(224, [56, 28, 14, 7]), (225, [57, 28, 14, 7])])
def test_maps_are_at_strides_4_to_32(size: int, expected: list[int]) -> None:
    """Table 1; the stem rounds up, as ResNet's, and the transitions round down."""
    assert sides(CONFIGS["densenet121"], size) == expected


def test_any_classes_and_channels_at_the_smallest_size() -> None:
    with on_meta():
        network = CONFIGS["densenet121"].build(5, 1).eval()
        assert network(torch.empty(2, 1, 29, 29)).shape == (2, 5)
        with pytest.raises(RuntimeError):
            network(torch.empty(2, 1, 28, 28))


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_adds_channels_and_leaves_its_input_alone(training: bool) -> None:
    layer = densenet.DenseLayer(CONFIGS["densenet121"], 8).train(training)
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


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_of_weights_name_stage_and_layer(name: str) -> None:
    with torch.device("meta"):
        keys = CONFIGS[name].build(10, 3).state_dict()
    assert all(re.fullmatch(KEYS + STATE, key) for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("densenet121", 32), ("densenet161", 33)])
def test_it_is_the_network_of_torchvision(name: str, size: int) -> None:
    check_torch_reading(name, CONFIGS[name], size)


def with_tensorflows_epsilon() -> Any:
    config = CONFIGS["keras_densenet121"]
    return dataclasses.replace(config, norm=Norm(epsilon=1e-3)).build(10, 3)


def with_same_stem() -> Any:
    network: Any = CONFIGS["keras_densenet121"].build(10, 3)
    network.stem.conv = Convolution(3, 64, 7, stride=2, padding="same")
    return network


def with_same_pool() -> Any:
    network: Any = CONFIGS["keras_densenet121"].build(10, 3)
    network.stem.pool = MaxPool(3, 2, "same")
    return network


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__", "ignore:The structure of `inputs`")
def test_it_is_the_network_of_keras_and_planted_errors_are_seen(keras: Any) -> None:
    config = CONFIGS["keras_densenet121"]
    planted = (with_tensorflows_epsilon, with_same_stem, with_same_pool)
    check_keras("keras_densenet121", config, 32, keras, planted)
