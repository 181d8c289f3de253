"""A built network -> its layers with weights, in order, and how each stores its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from residua.networks.layers import Separable

Kind = Literal["conv2d", "depthwise_conv2d", "separable_conv2d", "batch_normalization", "dense"]


@dataclass(frozen=True)
class Place:
    """One layer: its name in the network, and Keras' class of such a layer.

    side: of the map that a dense layer reads flattened; 1 where it reads a pooled one.
    """

    name: str
    kind: Kind
    module: nn.Module
    side: int = 1


def places(network: nn.Module, *, separable: bool) -> list[Place]:
    """Every layer with weights, in the order of registration, the head last.

    separable: a depthwise with its pointwise convolution is one layer, as Keras sees it.
    """
    return list(_walk(network, "", separable, [getattr(network, "pool_size", 1)]))


def _walk(module: nn.Module, name: str, separable: bool, side: list[int]) -> Iterator[Place]:
    if separable and isinstance(module, Separable):
        yield Place(name, "separable_conv2d", module)
    elif isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels > 1
        yield Place(name, "depthwise_conv2d" if depthwise else "conv2d", module)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        yield Place(name, "batch_normalization", module)
    elif isinstance(module, nn.Linear):
        yield Place(name, "dense", module, side[0])
        side[0] = 1  # only the first one reads a map
    else:
        for key, child in module.named_children():
            yield from _walk(child, f"{name}.{key}" if name else key, separable, side)


def head_layers(network: nn.Module) -> list[str]:
    """Names of the layers that depend on the number of classes: the last dense one, its norm."""
    found = places(network, separable=False)
    last = max(place for place, each in enumerate(found) if each.kind == "dense")
    return [each.name for each in found[last:]]


def from_keras(place: Place, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keras' tensors of one layer, in its order, as the state dict of ours.

    A kernel [h, w, inputs, outputs] becomes [outputs, inputs, h, w], a depthwise one
    [h, w, channels, multiplier] becomes [channels x multiplier, 1, h, w]; a dense one
    [inputs, outputs] is transposed, and its inputs turned from (h, w, channels) to (channels, h, w)
    where it reads a map. Raises ValueError if the tensors are too many, too few or of odd ranks.
    """
    stored = list(parts.values())
    if place.kind == "batch_normalization":
        return dict(zip(tensors_of(place), stored, strict=True))
    if place.kind == "separable_conv2d":
        depthwise, pointwise, *rest = stored
        found = {
            "depthwise.weight": depthwise.permute(2, 3, 0, 1).flatten(0, 1)[:, None],
            "pointwise.weight": pointwise.permute(3, 2, 0, 1),
        }
        return found | dict(zip(["pointwise.bias"] * len(rest), rest, strict=True))
    kernel, *rest = stored
    bias = dict(zip(["bias"] if rest else [], rest, strict=True))
    if place.kind == "depthwise_conv2d":
        return {"weight": kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None], **bias}
    if place.kind == "conv2d":
        return {"weight": kernel.permute(3, 2, 0, 1), **bias}
    if kernel.ndim == 4 and kernel.shape[:2] == (1, 1):  # MobileNet's head is a 1x1 convolution
        kernel = kernel[0, 0]
    if place.side > 1:
        maps = kernel.reshape(place.side, place.side, -1, kernel.shape[-1])
        kernel = maps.permute(2, 0, 1, 3).flatten(0, 2)
    return {"weight": kernel.T, **bias}


def to_keras(place: Place, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The inverse: our tensors of one layer as Keras stores them, in its order."""
    if place.kind == "batch_normalization":
        return [tensors[name] for name in tensors_of(place)]
    bias = [each for name, each in tensors.items() if name.endswith("bias")]
    if place.kind == "separable_conv2d":
        depthwise, pointwise = tensors["depthwise.weight"], tensors["pointwise.weight"]
        return [depthwise.permute(2, 3, 0, 1), pointwise.permute(2, 3, 1, 0), *bias]
    kernel = tensors["weight"]
    if place.kind == "depthwise_conv2d":
        return [kernel.permute(2, 3, 0, 1), *bias]
    if place.kind == "conv2d":
        return [kernel.permute(2, 3, 1, 0), *bias]
    if place.side > 1:
        maps = kernel.reshape(len(kernel), -1, place.side, place.side)
        kernel = maps.permute(0, 2, 3, 1).flatten(1)
    return [kernel.T, *bias]


def tensors_of(place: Place) -> dict[str, Tensor]:
    """The state dict of one layer; BatchNorm's counter of batches is no weight."""
    state = place.module.state_dict()
    return {name: each for name, each in state.items() if name != "num_batches_tracked"}


def with_counters(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with BatchNorm's counters, which Keras and old checkpoints do not have, at 0."""
    missing = {
        name: torch.zeros((), dtype=torch.int64)
        for name in network.state_dict()
        if name.endswith("num_batches_tracked") and name not in tensors
    }
    return {**tensors, **missing}
