"""A network's layers -> the order of Keras' model.layers, which is not that of creation.

Keras sorts layers by depth, the longest path to the output, and ties by when a walk from the
output, first input first, reaches them. Keras 3 numbers the groups of a .weights.h5 in that order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from residua.networks.analysis.cost import Layer, measure
from residua.weights.key_maps.layers import WeightLayer

SIDE = 128  # px: large enough for every network; the order is the same at any size


def keras_order(
    network: nn.Module, layers: Sequence[WeightLayer], shortcut_first: bool
) -> list[WeightLayer]:
    """`layers` in that order. shortcut_first: whether additions list the shortcut first."""
    channels = next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    graph = measure(network, (channels, SIDE, SIDE)).layers
    depths, visits = _depths(graph), _visits(graph, shortcut_first)

    def rank(layer: WeightLayer) -> tuple[int, int]:
        name = f"{layer.name}.pointwise" if layer.kind == "separable_conv2d" else layer.name
        return -depths[name], visits[name]

    return sorted(layers, key=rank)


def _depths(graph: Sequence[Layer]) -> dict[str, int]:
    depths = {node.name: 0 for node in graph}
    for node in reversed(graph):
        for source in node.connected_to:
            depths[source] = max(depths[source], depths[node.name] + 1)
    return depths


def _visits(graph: Sequence[Layer], shortcut_first: bool) -> dict[str, int]:
    """When a depth-first walk from the output reaches each node."""
    sources = {node.name: list(node.connected_to) for node in graph}
    for node in graph:
        if node.kind == "Add" and shortcut_first:
            sources[node.name].reverse()
    visits: dict[str, int] = {}
    waiting = [graph[-1].name]
    while waiting:
        name = waiting.pop()
        if name not in visits:
            visits[name] = len(visits)
            waiting.extend(reversed(sources[name]))
    return visits
