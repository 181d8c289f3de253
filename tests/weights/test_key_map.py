"""The grammar of key maps: rules, offsets, letters and numbered sequences."""

from __future__ import annotations

import pytest
from torch import nn

from residua.weights.key_maps.key_map import UNIT, KeyMap
from residua.weights.key_maps.layers import WeightLayer, weight_layers

pytestmark = pytest.mark.usefixtures("one_thread")


def names(key_map: KeyMap, *ours: str) -> dict[str, str]:
    network = nn.Module()
    return key_map.names(network, [WeightLayer(name, "conv2d", nn.Identity()) for name in ours])


@pytest.mark.parametrize(
    ("rule", "ours", "theirs"),
    [
        ((r"stem\.conv", "conv1"), "stem.conv", "conv1"),
        ((UNIT + r"\.conv", "layer{0:+1}.{1}.conv"), "stages.0.units.12.conv", "layer1.12.conv"),
        ((UNIT + r"\.conv", "res{0:+2}{1:a}"), "stages.3.units.2.conv", "res5c"),
        ((r"stages\.(\d)\.(.*)", "Mixed_{0:a-1}.{1}"), "stages.1.conv", "Mixed_a.conv"),
    ],
)
def test_a_rule_names_a_layer(rule: tuple[str, str], ours: str, theirs: str) -> None:
    assert names(KeyMap("a program", ("*",), "", (rule,)), ours) == {ours: theirs}


def test_rules_apply_one_after_another_to_whole_names() -> None:
    key_map = KeyMap("a program", ("*",), "", (("a", "b"), ("b", "c"), ("cc", "d")))
    assert names(key_map, "a", "b", "ab") == {"a": "c", "b": "c"}


def test_a_layer_without_a_rule_has_no_fixed_name_unless_it_stays_unchanged() -> None:
    assert names(KeyMap("a program", ("*",), ""), "stem") == {}
    assert names(KeyMap("a program", ("*",), "", unchanged="st.*"), "stem", "head") == {
        "stem": "stem"
    }


def test_layers_in_a_sequence_are_numbered_with_their_activations() -> None:
    network = nn.Sequential()
    network.stages = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 1)))
    key_map = KeyMap("a program", ("*",), "", sequences=(("stages", "features"),))
    layers = weight_layers(network, separable=False)
    assert key_map.names(network, layers) == {
        "stages.0": "features.0",
        "stages.2.0": "features.2",
    }


def test_it_covers_networks_and_ignores_layers_by_patterns() -> None:
    key_map = KeyMap("a program", ("vgg*", "resnet18"), "", ignored=r"aux\d\.")
    assert key_map.covers("vgg16")
    assert key_map.covers("resnet18")
    assert not key_map.covers("resnet34")
    assert key_map.ignores("aux1.conv")
    assert not key_map.ignores("conv.aux1.")
    assert not KeyMap("a program", ("*",), "").ignores("anything")


def test_dense_layers_can_be_stored_as_convolutions() -> None:
    layers = [WeightLayer(name, "dense", nn.Identity()) for name in ("head.a", "head.b")]
    stored = KeyMap("a program", ("*",), "", convolutions=("head.a",)).as_stored(layers)
    assert [layer.kind for layer in stored] == ["conv2d", "dense"]
