"""Batch [B, C, H, W] -> logits [B, K]: DenseNet (Huang et al. 2016) in that alphabet.

    layer(x) = x beside branch(x)

The branch is the one of full pre-activation (ordering e), "nacnac"; what it makes is not added to x
but becomes further channels of it. This is DenseNet-BC: the 1x1 convolution has four times the
growth, and a transition halves the channels and the map between two stages.

Keys of the state dict: stem.{conv,norm}; stages.S.transition.{norm,conv}, from S = 1 on, in front
of the layers whose map it makes; stages.S.layers.L.{norm0,conv1,norm1,conv2}; tail.norm; head.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residua.networks.layers import (
    APPLICATIONS_NORM,
    PLAIN_NORM,
    Convolution,
    Initialisation,
    MaxPool,
    Norm,
    chain,
    initialise,
)
from residua.networks.staged import Staged


@dataclass(frozen=True)
class DenseNet:
    """A DenseNet in full.

    layers: dense layers in each stage. growth: channels that a layer adds. width: of the stem.
    """

    layers: tuple[int, ...]
    growth: int = 32
    width: int = 64
    norm: Norm = PLAIN_NORM
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> DenseNetwork:
        """A freshly initialised network for [B, channels, H, W] with `classes` logits.

        H and W are at least 29 pixels: each of the three transitions halves a map.
        """
        return DenseNetwork(self, classes, channels)


DENSENET121 = DenseNet((6, 12, 24, 16))
DENSENET161 = DenseNet((6, 12, 36, 24), growth=48, width=96)
DENSENET169 = DenseNet((6, 12, 32, 32))
DENSENET201 = DenseNet((6, 12, 48, 32))


def _keras(plan: DenseNet) -> DenseNet:
    """keras.applications' pads and pools are the same numbers; its constants are not."""
    return dataclasses.replace(plan, norm=APPLICATIONS_NORM, initialisation="glorot")


KERAS_DENSENET121 = _keras(DENSENET121)
KERAS_DENSENET169 = _keras(DENSENET169)
KERAS_DENSENET201 = _keras(DENSENET201)


class DenseLayer(nn.Module):
    """[B, C, H, W] -> [B, C + growth, H, W]: the input, and behind it what the branch makes."""

    def __init__(self, plan: DenseNet, inputs: int) -> None:
        super().__init__()
        inner = 4 * plan.growth
        convolutions = [Convolution(inputs, inner, 1), Convolution(inner, plan.growth, 3)]
        branch = chain("nacnac", convolutions, channels=inputs, norm=plan.norm, numbered=True)
        for name, layer in branch.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return torch.cat((x, y), 1)


class DenseNetwork(Staged):
    """Any network of that kind: [B, C, H, W] -> logits [B, K]."""

    def __init__(self, plan: DenseNet, classes: int, channels: int) -> None:
        super().__init__()
        first = Convolution(channels, plan.width, 7, stride=2)
        self.stem = chain("cna", [first], norm=plan.norm)
        self.stem.add_module("pool", MaxPool(3, 2))
        stages, inputs = [], plan.width
        for stage, count in enumerate(plan.layers):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            if stage:
                parts["transition"] = _transition(plan, inputs)
                inputs //= 2
            widths = [inputs + layer * plan.growth for layer in range(count)]
            parts["layers"] = nn.Sequential(*(DenseLayer(plan, width) for width in widths))
            inputs += count * plan.growth
            stages.append(nn.Sequential(parts))
        self.stages = nn.ModuleList(stages)
        self.tail = chain("na", channels=inputs, norm=plan.norm)
        self.head = nn.Linear(inputs, classes)
        initialise(self, plan.initialisation)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> one map per stage, at strides 4, 8, 16, 32.

        A transition rounds down: 33 pixels give sides 9, 4, 2, 1. The last map has passed the
        tail, so that it is what the head pools.
        """
        return super().features(x)


def _transition(plan: DenseNet, inputs: int) -> nn.Sequential:
    layers = chain("nac", [Convolution(inputs, inputs // 2, 1)], channels=inputs, norm=plan.norm)
    layers.add_module("pool", nn.AvgPool2d(2))
    return layers
