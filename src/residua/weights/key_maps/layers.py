"""A network -> its layers with weights, in our order or Keras'; tensors in Keras' layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from residua.networks.analysis.cost import Layer, measure
from residua.networks.layers import Separable

Kind = Literal["conv2d", "depthwise_conv2d", "separable_conv2d", "batch_normalization", "dense"]
SIDE = 128  # px: large enough for every network; the order is the same at any size


@dataclass(frozen=True)
class WeightLayer:
    """name: in the network. kind: Keras' class of such a layer, in snake case.

    side: of the map in px that a dense layer reads flattened; 1 where it reads a pooled one.
    """

    name: str
    kind: Kind
    module: nn.Module
    side: int = 1


def weight_layers(network: nn.Module, *, separable: bool) -> list[WeightLayer]:
    """Every layer with weights, in the order of registration, the head last.

    separable: whether a depthwise and its pointwise convolution are one layer, as in Keras.
    """
    return list(_walk(network, "", separable, [getattr(network, "pool_size", 1)]))


def _walk(module: nn.Module, name: str, separable: bool, side: list[int]) -> Iterator[WeightLayer]:
    if separable and isinstance(module, Separable):
        yield WeightLayer(name, "separable_conv2d", module)
    elif isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels > 1
        yield WeightLayer(name, "depthwise_conv2d" if depthwise else "conv2d", module)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        yield WeightLayer(name, "batch_normalization", module)
    elif isinstance(module, nn.Linear):
        yield WeightLayer(name, "dense", module, side[0])
        side[0] = 1  # only the first dense layer reads a map
    else:
        for key, child in module.named_children():
            yield from _walk(child, f"{name}.{key}" if name else key, separable, side)


def head_layers(network: nn.Module) -> list[str]:
    """Names of the layers whose width is the number of classes: the last dense one, its norm."""
    layers = weight_layers(network, separable=False)
    last = max(index for index, layer in enumerate(layers) if layer.kind == "dense")
    return [layer.name for layer in layers[last:]]


def keras_order(
    network: nn.Module, layers: Sequence[WeightLayer], shortcut_first: bool
) -> list[WeightLayer]:
    """`layers` in the order of Keras' model.layers, which is not that of creation.

    Keras sorts layers by depth, the longest path to the output, and ties by when a walk from the
    output, first input first, reaches them. Keras 3 numbers the groups of a .weights.h5 in that
    order. shortcut_first: whether additions list the shortcut before the branch.
    """
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


def from_keras(layer: WeightLayer, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keras' tensors of a layer, in Keras' order -> our state dict of it.

    A kernel [h, w, inputs, outputs] becomes [outputs, inputs, h, w], a depthwise one
    [h, w, channels, multiplier] becomes [channels x multiplier, 1, h, w]. A dense kernel
    [inputs, outputs] is transposed; where it reads a map, its inputs are reordered from
    (h, w, channels) to (channels, h, w). Raises ValueError for a wrong number or rank of tensors.
    """
    stored = list(parts.values())
    if layer.kind == "batch_normalization":
        return dict(zip(tensors_of(layer), stored, strict=True))
    if layer.kind == "separable_conv2d":
        depthwise, pointwise, *rest = stored
        tensors = {
            "depthwise.weight": depthwise.permute(2, 3, 0, 1).flatten(0, 1)[:, None],
            "pointwise.weight": pointwise.permute(3, 2, 0, 1),
        }
        return tensors | dict(zip(["pointwise.bias"] * len(rest), rest, strict=True))
    kernel, *rest = stored
    bias = dict(zip(["bias"] if rest else [], rest, strict=True))
    if layer.kind == "depthwise_conv2d":
        return {"weight": kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None], **bias}
    if layer.kind == "conv2d":
        return {"weight": kernel.permute(3, 2, 0, 1), **bias}
    if kernel.ndim == 4 and kernel.shape[:2] == (1, 1):  # MobileNet's head is a 1x1 convolution
        kernel = kernel[0, 0]
    if layer.side > 1:
        maps = kernel.reshape(layer.side, layer.side, -1, kernel.shape[-1])
        kernel = maps.permute(2, 0, 1, 3).flatten(0, 2)
    if kernel.ndim != 2:
        raise ValueError("a dense kernel has two dimensions")
    return {"weight": kernel.T, **bias}


def to_keras(layer: WeightLayer, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The inverse of `from_keras`: our state dict of a layer -> Keras' tensors, in Keras' order."""
    if layer.kind == "batch_normalization":
        return [tensors[name] for name in tensors_of(layer)]
    bias = [tensor for name, tensor in tensors.items() if name.endswith("bias")]
    if layer.kind == "separable_conv2d":
        depthwise, pointwise = tensors["depthwise.weight"], tensors["pointwise.weight"]
        return [depthwise.permute(2, 3, 0, 1), pointwise.permute(2, 3, 1, 0), *bias]
    kernel = tensors["weight"]
    if layer.kind == "depthwise_conv2d":
        return [kernel.permute(2, 3, 0, 1), *bias]
    if layer.kind == "conv2d":
        return [kernel.permute(2, 3, 1, 0), *bias]
    if layer.side > 1:
        maps = kernel.reshape(len(kernel), -1, layer.side, layer.side)
        kernel = maps.permute(0, 2, 3, 1).flatten(1)
    return [kernel.T, *bias]


def tensors_of(layer: WeightLayer) -> dict[str, Tensor]:
    """A layer's state dict without BatchNorm's batch counter, which is no weight."""
    state = layer.module.state_dict()
    return {name: tensor for name, tensor in state.items() if name != "num_batches_tracked"}


def with_counters(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with BatchNorm's batch counters 0 where Keras or old checkpoints lack them."""
    missing = {
        name: torch.zeros((), dtype=torch.int64)
        for name in network.state_dict()
        if name.endswith("num_batches_tracked") and name not in tensors
    }
    return {**tensors, **missing}
