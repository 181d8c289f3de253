"""Batch [B, C, H, W] -> logits [B, K]: VGG (Simonyan and Zisserman 2014) in that alphabet."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from residua.networks.layers import Convolution, Initialisation, MaxPool, Norm, chain, initialise
from residua.networks.staged import Staged

WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class VGG:
    """A VGG in full.

    convolutions: 3x3 convolutions in each of the five stages. norm: None for the network of the
    paper. pool: side of the map that the head reads; a larger map is averaged down to it. hidden:
    widths of the head's hidden layers. dropout: after each hidden layer, or after the last alone.
    head_norm: a norm behind every linear layer, the logits included.
    """

    convolutions: tuple[int, int, int, int, int]
    norm: Norm | None = None
    pool: int = 7
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    dropout_everywhere: bool = True
    head_norm: bool = False
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> VGGNet:
        """A freshly initialised network for [B, channels, H, W] with `classes` logits."""
        return VGGNet(self, classes, channels)


class VGGNet(Staged):
    """Five stages of 3x3 convolutions, each closed by a max pool, and a dense head."""

    def __init__(self, plan: VGG, classes: int, channels: int) -> None:
        super().__init__()
        stages = []
        for count, width in zip(plan.convolutions, WIDTHS, strict=True):
            inputs = [channels, *[width] * (count - 1)]
            convolutions = [Convolution(each, width, 3, bias=True) for each in inputs]
            letters = "cna" if plan.norm else "ca"
            stage = chain(letters * count, convolutions, norm=plan.norm or Norm(), numbered=True)
            stage.add_module("pool", MaxPool(2, 2, "valid"))
            stages.append(stage)
            channels = width
        self.stages = nn.ModuleList(stages)
        self.pool_size = plan.pool
        self.head = _head(plan, WIDTHS[-1] * plan.pool**2, classes)
        initialise(self, plan.initialisation)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> five maps at strides 2, 4, 8, 16, 32, each after its pool."""
        return super().features(x)


def _head(plan: VGG, inputs: int, classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    norm = plan.norm or Norm()
    for number, width in enumerate((*plan.hidden, classes), start=1):
        last = number > len(plan.hidden)
        layers[f"linear{number}"] = nn.Linear(inputs, width)
        if plan.head_norm:
            layers[f"norm{number}"] = nn.BatchNorm1d(width, norm.epsilon, norm.momentum)
        if not last:
            layers[f"act{number}"] = nn.ReLU(inplace=True)
            if plan.dropout_everywhere or number == len(plan.hidden):
                layers[f"dropout{number}"] = nn.Dropout(plan.dropout)
        inputs = width
    return nn.Sequential(layers)
