"""Images [B, C, H, W] -> logits [B, K]: VGG (Simonyan and Zisserman 2014)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from residua.networks.layers import (
    Convolution,
    Dropout,
    Initialisation,
    MaxPool,
    Norm,
    chain,
    initialise,
)
from residua.networks.staged import Staged

WIDTHS = (64, 128, 256, 512, 512)
# table 1, columns A, B, D, E: convolutions per stage
VGG11, VGG13, VGG16, VGG19 = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


@dataclass(frozen=True)
class VGGConfig:
    """A VGG in full.

    convolutions: number of 3x3 convolutions in each of the five stages.
    norm: None for the network of the paper.
    pool: side of the map that the head reads; a larger map is averaged down to it.
    hidden: widths of the head's hidden layers.
    dropout, dropout_everywhere: after each hidden layer, or after the last one only.
    head_norm: a norm after every linear layer, the logits included.
    """

    convolutions: tuple[int, int, int, int, int]
    norm: Norm | None = None
    pool: int = 7
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    dropout_everywhere: bool = True
    head_norm: bool = False
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> VGG:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes]."""
        return VGG(self, classes, channels)


class VGG(Staged):
    """Five stages of 3x3 convolutions, each ending in a max pool, and a dense head.

    Its feature maps have the strides 2, 4, 8, 16, 32, each after its pool.
    """

    def __init__(self, config: VGGConfig, classes: int, channels: int) -> None:
        super().__init__()
        stages, norm = [], config.norm or Norm()
        for count, width in zip(config.convolutions, WIDTHS, strict=True):
            widths = [channels, *[width] * (count - 1)]
            convolutions = [Convolution(inputs, width, 3, bias=True) for inputs in widths]
            letters = "cna" if config.norm else "ca"
            stage = chain(letters * count, convolutions, norm=norm, numbered=True)
            stage.add_module("pool", MaxPool(2, 2, "valid"))
            stages.append(stage)
            channels = width
        self.stages = nn.ModuleList(stages)
        self.pool_size = config.pool
        self.head = _head(config, WIDTHS[-1] * config.pool**2, classes)
        initialise(self, config.initialisation)


def _head(config: VGGConfig, inputs: int, classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    norm = config.norm or Norm()
    for number, width in enumerate((*config.hidden, classes), start=1):
        layers[f"linear{number}"] = nn.Linear(inputs, width)
        if config.head_norm:
            layers[f"norm{number}"] = nn.BatchNorm1d(width, norm.epsilon, norm.momentum)
        if number <= len(config.hidden):
            layers[f"act{number}"] = nn.ReLU(inplace=True)
            if config.dropout_everywhere or number == len(config.hidden):
                layers[f"dropout{number}"] = Dropout(config.dropout)
        inputs = width
    return nn.Sequential(layers)
