"""A network -> the order of its layers in Keras' model.layers, which is not that of creation.

Keras sorts layers by depth, the longest way to the output, and equals by when a walk from the
output, first input first, meets them. Keras 3 numbers the groups of a .weights.h5 in that order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from residua.networks.analysis.cost import Layer, measure
from residua.weights.key_maps.layers import Place

SIDE = 128  # px: large enough for every network, and the order is the same at any size


def keras_order(network: nn.Module, found: Sequence[Place], shortcut_first: bool) -> list[Place]:
    """`found` in that order. shortcut_first: whether an addition names the shortcut first."""
    channels = next(each.in_channels for each in network.modules() if isinstance(each, nn.Conv2d))
    layers = measure(network, (channels, SIDE, SIDE)).layers
    depths, met = _depths(layers), _walk_back(layers, shortcut_first)
    ranks = {each.name: (-depths[each.name], met[each.name]) for each in layers}

    def rank(place: Place) -> tuple[int, int]:
        name = f"{place.name}.pointwise" if place.kind == "separable_conv2d" else place.name
        return ranks[name]

    return sorted(found, key=rank)


def _depths(layers: Sequence[Layer]) -> dict[str, int]:
    depths = {each.name: 0 for each in layers}
    for each in reversed(layers):
        for maker in each.connected_to:
            depths[maker] = max(depths[maker], depths[each.name] + 1)
    return depths


def _walk_back(layers: Sequence[Layer], shortcut_first: bool) -> dict[str, int]:
    makers = {each.name: list(each.connected_to) for each in layers}
    for each in layers:
        if each.kind == "Add" and shortcut_first:
            makers[each.name].reverse()
    met: dict[str, int] = {}
    waiting = [layers[-1].name]
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met[name] = len(met)
        waiting.extend(reversed(makers[name]))
    return met
