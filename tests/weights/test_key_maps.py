"""The key maps of Keras and PyTorch programs (key_maps.keras, key_maps.torch), by their names."""

from __future__ import annotations

import re

import pytest

from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import ROWS, build
from residua.weights.key_maps.keras import KERAS_MAPS
from residua.weights.key_maps.key_map import OURS, KeyMap
from residua.weights.key_maps.layers import weight_layers
from residua.weights.key_maps.torch import TORCH_MAPS

KERAS = "keras.applications"
NAMES = {  # network -> the program, one of our layers, its name there
    "keras_resnet50": (KERAS, "stages.0.units.0.shortcut.conv", "conv2_block1_0_conv"),
    "tutorial_resnet50": ("tutorial 0", "stages.3.units.2.branch.conv3", "5c_identity_block_conv3"),
    "keras_vgg19": (KERAS, "head.linear3", "predictions"),
    "tutorial_vgg16_mnist": ("tutorial 3", "head.linear3", "prediction"),
    "tutorial_vgg19_cifar": ("tutorial 1", "head.linear1", "fc_cifa10"),
    "keras_xception": (KERAS, "stages.2.units.7.branch.conv3", "block11_sepconv3"),
    "keras_densenet121": (KERAS, "stages.1.transition.conv", "pool2_conv"),
    "keras_mobilenet": (KERAS, "stages.3.units.5.branch.conv2", "conv_pw_11"),
    "resnet18": ("torchvision", "stages.3.units.1.branch.end_norm", "layer4.1.bn2"),
    "resnet50": ("torchvision", "stages.0.units.0.shortcut.norm", "layer1.0.downsample.1"),
    "resnet18d": ("timm", "stem.conv3", "conv1.6"),
    "resnet34d": ("timm", "stem.end_norm", "bn1"),
    "resnet50d": ("timm", "stages.0.units.0.shortcut.conv", "layer1.0.downsample.1"),
    "cifar_resnet20": ("pytorch_resnet_cifar10", "head", "linear"),
    "vgg11": ("torchvision", "head.linear1", "classifier.0"),
    "preact_resnet50": ("timm", "stages.0.units.0.before.norm", "stages.0.blocks.0.norm1"),
    "googlenet": ("torchvision", "stages.3.blocks.5.branches.0.0.conv", "inception4e.branch1.conv"),
    "densenet121": ("torchvision", "tail.norm", "features.norm5"),
    "xception": ("timm", "stages.0.units.0.branch.end_norm", "block1.rep.4"),
    "mobilenet_v1": ("timm", "stages.0.units.0.branch.conv1", "blocks.0.0.conv_dw"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def mapped(key_map: KeyMap, network: str, separable: bool) -> dict[str, str]:
    with on_meta():
        built = build(network)
    return key_map.names(built, weight_layers(built, separable=separable))


@pytest.mark.parametrize("network", NAMES)
def test_layers_have_the_names_of_the_program(network: str) -> None:
    source, ours, theirs = NAMES[network]
    maps = KERAS_MAPS if re.match("keras|tutorial", network) else TORCH_MAPS
    (key_map,) = [m for m in maps if m.source == source and m.covers(network)]
    names = mapped(key_map, network, maps is KERAS_MAPS)
    assert names[ours] == theirs
    assert len(set(names.values())) == len(names)
    assert any(re.match(key_map.sign, name) for name in names.values())


def test_every_map_covers_a_network_of_the_catalogue() -> None:
    for key_map in (*KERAS_MAPS, *TORCH_MAPS):
        assert any(key_map.covers(name) for name in ROWS), key_map
        assert all(name in ROWS for name in key_map.also)


def test_state_dicts_of_our_networks_keep_their_names() -> None:
    (ours,) = [key_map for key_map in TORCH_MAPS if key_map.source == OURS]
    names = mapped(ours, "resnet18", separable=False)
    assert len(names) == 41
    assert all(name == stored for name, stored in names.items())
