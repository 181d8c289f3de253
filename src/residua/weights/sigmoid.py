"""A head with one sigmoid output -> the same probability from two softmax outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from residua.config.schema import NetworkSpec
from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import build_from
from residua.weights.key_maps.layers import head_layers

if TYPE_CHECKING:
    from torch import Tensor

ASSUMED = (
    "it has a single output, which is read as the probability (sigmoid) of the second of two "
    "classes"
)


def with_two_outputs(
    spec: NetworkSpec, tensors: Mapping[str, Tensor]
) -> tuple[NetworkSpec, dict[str, Tensor]]:
    """The network with logits (0, z) instead of z: softmax gives the second sigmoid(z)."""
    with on_meta():
        layers = tuple(f"{name}." for name in head_layers(build_from(spec)))
    doubled = {
        name: _doubled(name, tensor) if name.startswith(layers) and tensor.ndim else tensor
        for name, tensor in tensors.items()
    }
    return dataclasses.replace(spec, classes=2), doubled


def _doubled(name: str, tensor: Tensor) -> Tensor:
    """[1, ...] -> [2, ...] with a first row that makes the output 0."""
    is_variance = name.endswith("running_var")
    return torch.cat([torch.ones_like(tensor) if is_variance else torch.zeros_like(tensor), tensor])
