"""Images [B, C, H, W] -> logits [B, K]: DenseNet (Huang et al. 2016).

    layer(x) = concatenate(x, branch(x))

The branch is that of full pre-activation, "nacnac" (letters: see layers.py); its output is not
added to x but becomes further channels. This is DenseNet-BC: the 1x1 convolution is four times as
wide as the growth, and a transition halves the channels and the map between two stages.

State dict keys: stem.{conv,norm}; stages.S.transition.{norm,conv} from S = 1 on, before the layers
that read it; stages.S.layers.L.{norm0,conv1,norm1,conv2}; tail.norm; head.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residua.networks.layers import (
    PLAIN_NORM,
    Convolution,
    Initialisation,
    MaxPool,
    Norm,
    add_layers,
    chain,
    initialise,
)
from residua.networks.staged import Staged


@dataclass(frozen=True)
class DenseNetConfig:
    """A DenseNet in full.

    layers: number of dense layers in each stage.
    growth: channels that a layer adds.
    width: of the stem.
    """

    layers: tuple[int, ...]
    growth: int = 32
    width: int = 64
    norm: Norm = PLAIN_NORM
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> DenseNet:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        H and W are at least 29 pixels: each of the three transitions halves the map.
        """
        return DenseNet(self, classes, channels)


class DenseLayer(nn.Module):
    """[B, C, H, W] -> [B, C + growth, H, W]: the input, then the output of the branch."""

    def __init__(self, config: DenseNetConfig, inputs: int) -> None:
        super().__init__()
        inner = 4 * config.growth
        convolutions = [Convolution(inputs, inner, 1), Convolution(inner, config.growth, 3)]
        branch = chain("nacnac", convolutions, channels=inputs, norm=config.norm, numbered=True)
        add_layers(self, branch)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return torch.cat((x, y), 1)


class DenseNet(Staged):
    """Any DenseNet: [B, C, H, W] -> logits [B, K].

    Its feature maps have the strides 4, 8, 16, 32. A transition rounds down: 33 pixels give sides
    9, 4, 2, 1.
    """

    def __init__(self, config: DenseNetConfig, classes: int, channels: int) -> None:
        super().__init__()
        first = Convolution(channels, config.width, 7, stride=2)
        self.stem = chain("cna", [first], norm=config.norm)
        self.stem.add_module("pool", MaxPool(3, 2))
        stages, inputs = [], config.width
        for stage, count in enumerate(config.layers):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            if stage:
                blocks["transition"] = _transition(config, inputs)
                inputs //= 2
            widths = [inputs + layer * config.growth for layer in range(count)]
            blocks["layers"] = nn.Sequential(*(DenseLayer(config, width) for width in widths))
            inputs += count * config.growth
            stages.append(nn.Sequential(blocks))
        self.stages = nn.ModuleList(stages)
        self.tail = chain("na", channels=inputs, norm=config.norm)
        self.head = nn.Linear(inputs, classes)
        initialise(self, config.initialisation)


def _transition(config: DenseNetConfig, inputs: int) -> nn.Sequential:
    layers = chain("nac", [Convolution(inputs, inputs // 2, 1)], channels=inputs, norm=config.norm)
    layers.add_module("pool", nn.AvgPool2d(2))
    return layers
