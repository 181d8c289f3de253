"""Heads that users trained with other programs -> the head of a network.

Dense layers that transfer learning added to a base network, and a single sigmoid output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from residua.config.schema import NetworkSpec
from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import build, outline_of
from residua.weights.formats.keras_config import ModelConfig
from residua.weights.formats.raw import RawWeights
from residua.weights.key_maps.layers import head_layers

OWN_HEAD = "its own head is read as average pooling and dense layers"
SINGLE_OUTPUT = (
    "it has a single output, which is read as the probability (sigmoid) of the second of two "
    "classes"
)
NO_OPERATION = {"Dropout", "InputLayer", "Softmax", "Functional", "Model", "Sequential"}


def own_head(
    raw: RawWeights, network: str, dense: tuple[str, ...]
) -> tuple[str | None, dict[str, Tensor]] | None:
    """The head as in NetworkSpec, and its tensors by our names; None if it is another.

    Keras' configuration must show global average pooling, and ReLU between dense layers; without
    one, a single dense layer as wide as the last feature map is read.
    """
    if raw.config is not None:
        if not _is_plain(raw.config, dense):
            return None
        dense = tuple(name for name in raw.config.layers if name in dense)
    elif len(dense) != 1:
        return None
    layers = [layer for name in dense if (layer := _weight_and_bias(raw, name)) is not None]
    if len(layers) < len(dense):
        return None
    with on_meta():
        usual = build(network)
        width = build(network, head="linear", classes=2).head.in_features
    inputs = [weight.shape[1] for weight, _ in layers]
    outputs = [weight.shape[0] for weight, _ in layers]
    if inputs[0] != width or any(a != b for a, b in zip(outputs, inputs[1:], strict=False)):
        return None
    head: str | None
    if len(layers) > 1:
        named = {f"head.linear{number}": layer for number, layer in enumerate(layers, start=1)}
        head = f"mlp:{','.join(map(str, outputs[:-1]))}"
    else:
        named = {"head": layers[0]}
        is_usual = isinstance(usual.head, nn.Linear) and usual.pool_size == 1
        head = None if is_usual and usual.head.in_features == width else "linear"
    tensors: dict[str, Tensor] = {}
    for name, (weight, bias) in named.items():
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return head, tensors


def unusable_outputs(activation: object, classes: int) -> str:
    """Why the outputs of a Keras model are not the logits of one class each; "" if they are.

    A single output may be a sigmoid: the probability of the second of two classes.
    """
    if activation == "softmax" and classes == 1:
        return "ends in a softmax over a single output, which is always 1"
    if activation == "sigmoid" and classes > 1:
        return f"ends in sigmoid: its {classes} outputs are independent of each other"
    if activation not in (None, "linear", "softmax", "sigmoid"):
        return f"ends in {str(activation)[:40]}, expected softmax or sigmoid"
    return ""


def with_two_outputs(
    spec: NetworkSpec, tensors: Mapping[str, Tensor]
) -> tuple[NetworkSpec, dict[str, Tensor]]:
    """The network with logits (0, z) instead of z: softmax gives the second sigmoid(z)."""
    layers = tuple(f"{name}." for name in head_layers(outline_of(spec)))
    doubled = {
        name: _doubled(name, tensor) if name.startswith(layers) and tensor.ndim else tensor
        for name, tensor in tensors.items()
    }
    return dataclasses.replace(spec, classes=2), doubled


def _doubled(name: str, tensor: Tensor) -> Tensor:
    """[1, ...] -> [2, ...] with a first row that makes the output 0."""
    is_variance = name.endswith("running_var")
    return torch.cat([torch.ones_like(tensor) if is_variance else torch.zeros_like(tensor), tensor])


def _is_plain(config: ModelConfig, dense: tuple[str, ...]) -> bool:
    """Whether nothing but average pooling, dropout and ReLU is around the dense layers."""
    order = list(config.layers)
    if not set(dense) <= set(order):
        return False
    chain = [name for name in order if name in dense]
    after = order[order.index(chain[0]) :]
    others = set(after) - {*dense, config.last_activation}
    kinds = {config.layers[name]["class"] for name in others}
    hidden = [config.layers[first].get("activation") for first, _ in pairwise(chain)]
    pools = {layer["class"] for layer in config.layers.values()}
    is_pooled = "GlobalAveragePooling2D" in pools and "GlobalMaxPooling2D" not in pools
    is_simple = kinds <= NO_OPERATION and all(activation == "relu" for activation in hidden)
    return is_pooled and is_simple and "Flatten" not in pools and not list(config.unsupported())


def _weight_and_bias(raw: RawWeights, name: str) -> tuple[Tensor, Tensor] | None:
    """The weight [outputs, inputs] and bias [outputs] of a dense layer; None if it has others."""
    parts = list(raw.layers[name].values())
    if len(parts) != 2 or parts[0].ndim != 2 or parts[1].ndim != 1:
        return None
    weight = parts[0].T if raw.framework == "keras" else parts[0]
    is_whole = len(weight) == len(parts[1]) and weight.is_floating_point()
    return (weight.contiguous(), parts[1]) if is_whole else None
