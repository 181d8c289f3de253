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

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        H and W are at least 29 pixels. The feature maps have the strides 4, 8, 16, 32; each of the
        three transitions rounds down: 33 pixels give sides 9, 4, 2, 1.
        """
        first = Convolution(channels, self.width, 7, stride=2)
        stem = chain("cnap", [first], norm=self.norm, pool=MaxPool(3, 2))
        stages, inputs = [], self.width
        for stage, count in enumerate(self.layers):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            if stage:
                halving = Convolution(inputs, inputs // 2, 1)
                blocks["transition"] = chain(
                    "nacp", [halving], channels=inputs, norm=self.norm, pool=nn.AvgPool2d(2)
                )
                inputs //= 2
            widths = [inputs + layer * self.growth for layer in range(count)]
            blocks["layers"] = nn.Sequential(*(DenseLayer(self, width) for width in widths))
            inputs += count * self.growth
            stages.append(nn.Sequential(blocks))
        tail = chain("na", channels=inputs, norm=self.norm)
        head = nn.Linear(inputs, classes)
        network = Staged(stem=stem, stages=stages, tail=tail, head=head)
        return initialise(network, self.initialisation)


class DenseLayer(nn.Module):
    """[B, C, H, W] -> [B, C + growth, H, W]: the input, then the output of the branch."""

    def __init__(self, config: DenseNetConfig, inputs: int) -> None:
        super().__init__()
        inner = 4 * config.growth
        convolutions = [Convolution(inputs, inner, 1), Convolution(inner, config.growth, 3)]
        branch = chain("nacnac", convolutions, channels=inputs, norm=config.norm, numbered=True)
        for name, layer in branch.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return torch.cat((x, y), 1)
