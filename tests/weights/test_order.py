"""Keras' order of layers: by depth, then by a walk from the output."""

from __future__ import annotations

from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import build
from residua.weights.key_maps.layers import weight_layers
from residua.weights.key_maps.order import keras_order


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
