"""Layers with weights, and their tensors in Keras' layout: there and back, same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import build
from residua.weights.key_maps.layers import (
    WeightLayer,
    from_keras,
    head_layers,
    keras_order,
    tensors_of,
    to_keras,
    weight_layers,
    with_counters,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_layers_are_listed_in_order_with_their_kinds() -> None:
    network = build("keras_mobilenet", seed=0)
    layers = weight_layers(network, separable=True)
    assert [layer.name for layer in layers[:3]] == [
        "stem.conv",
        "stem.norm",
        "stages.0.units.0.branch.conv1",
    ]
    assert [layer.kind for layer in layers[:3]] == [
        "conv2d",
        "batch_normalization",
        "depthwise_conv2d",
    ]
    assert layers[-1].kind == "dense"
    assert head_layers(network) == ["head"]


def test_separable_convolutions_are_one_layer_in_keras_and_two_in_pytorch() -> None:
    network = build("keras_xception", seed=0)
    one = [layer for layer in weight_layers(network, separable=True) if "separ" in layer.kind]
    both = weight_layers(network, separable=False)
    assert len(both) == len(weight_layers(network, separable=True)) + len(one)
    assert {"depthwise_conv2d", "conv2d"} <= {layer.kind for layer in both}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("keras_mobilenet", {"conv2d", "depthwise_conv2d", "batch_normalization", "dense"}),
        ("keras_xception", {"separable_conv2d"}),
    ],
)
def test_tensors_come_back_from_keras_layout(name: str, kinds: set[str]) -> None:
    layers = weight_layers(build(name, seed=0), separable=True)
    assert kinds <= {layer.kind for layer in layers}
    for layer in layers:
        stored = to_keras(layer, tensors_of(layer))
        parts = {str(number): tensor for number, tensor in enumerate(stored)}
        again = from_keras(layer, parts)
        assert again.keys() == tensors_of(layer).keys()
        for part, tensor in tensors_of(layer).items():
            assert torch.equal(again[part], tensor), (layer.name, part)


def test_a_dense_layer_reads_a_map_in_keras_order() -> None:
    """Keras flattens (h, w, channels), PyTorch (channels, h, w)."""
    layer = WeightLayer("head", "dense", nn.Linear(7 * 7 * 4, 5), side=7)
    kernel, image = random(7 * 7 * 4, 5), random(2, 4, 7, 7)
    weight = from_keras(layer, {"0": kernel})["weight"]
    expected = image.movedim(1, -1).flatten(1) @ kernel
    torch.testing.assert_close(image.flatten(1) @ weight.T, expected)
    assert torch.equal(to_keras(layer, {"weight": weight})[0], kernel)
    with on_meta():
        network = build("keras_vgg16", classes=2)
    sides = [
        layer.side for layer in weight_layers(network, separable=True) if layer.kind == "dense"
    ]
    assert sides == [7, 1, 1]


def test_a_depthwise_multiplier_becomes_more_channels() -> None:
    layer = WeightLayer("conv", "depthwise_conv2d", nn.Conv2d(4, 8, 3, groups=4))
    kernel = random(3, 3, 4, 2)
    weight = from_keras(layer, {"0": kernel})["weight"]
    assert weight.shape == (8, 1, 3, 3)
    assert torch.equal(weight[2 * 3 + 1, 0], kernel[:, :, 3, 1])


@pytest.mark.parametrize("shapes", [[], [(3,)], [(3, 3, 4)], [(2, 2)] * 3])
@pytest.mark.parametrize("kind", ["conv2d", "dense", "separable_conv2d", "depthwise_conv2d"])
def test_odd_tensors_are_an_error(kind: str, shapes: list[tuple[int, ...]]) -> None:
    layer = WeightLayer("layer", kind, nn.Identity())  # type: ignore[arg-type]
    parts = {str(number): torch.zeros(shape) for number, shape in enumerate(shapes)}
    with pytest.raises((ValueError, RuntimeError)):
        from_keras(layer, parts)


def test_missing_batch_counters_are_zero() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(2))
    tensors = with_counters(norm, {"0.weight": torch.ones(2)})
    assert tensors["0.num_batches_tracked"] == 0
    assert with_counters(norm, {"0.num_batches_tracked": torch.tensor(3)}) == {
        "0.num_batches_tracked": torch.tensor(3)
    }


# Keras' order: by depth, then by a walk from the output ------------------------------------------


def ordered(name: str, shortcut_first: bool) -> list[str]:
    with on_meta():
        network = build(name)
    layers = weight_layers(network, separable=True)
    names = [layer.name for layer in keras_order(network, layers, shortcut_first)]
    assert sorted(names) == sorted(layer.name for layer in layers)
    return names


def test_a_chain_keeps_its_order() -> None:
    network = build("keras_mobilenet", seed=0)
    names = [layer.name for layer in weight_layers(network, separable=True)]
    assert ordered("keras_mobilenet", True) == ordered("keras_mobilenet", False) == names


def test_a_shortcut_comes_beside_the_last_layer_of_its_branch() -> None:
    """As model.layers of Keras' ResNet50: conv2_block1_2_relu, _0_conv, _3_conv, _0_bn, _3_bn."""
    unit = "stages.0.units.0"
    first, second = ordered("keras_resnet50", True), ordered("keras_resnet50", False)
    at = first.index(f"{unit}.shortcut.conv")
    assert first[at : at + 4] == [
        f"{unit}.shortcut.conv",
        f"{unit}.branch.conv3",
        f"{unit}.shortcut.norm",
        f"{unit}.branch.end_norm",
    ]
    assert second[at : at + 4] == [first[at + 1], first[at], first[at + 3], first[at + 2]]
