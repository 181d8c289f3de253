"""Batch [B, C, H, W] -> logits [B, K]: AlexNet, of 2012 in two groups and of 2014 in one column."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from residua.networks.layers import (
    PLAIN_NORM,
    Convolution,
    Initialisation,
    MaxPool,
    chain,
    initialise,
)
from residua.networks.staged import Staged

KERNELS = (11, 5, 3, 3, 3)
STAGES = ((0,), (1,), (2, 3, 4), ())  # the convolutions between max pools
SIDE, HIDDEN = 6, 4096


@dataclass(frozen=True)
class AlexNet:
    """An AlexNet in full.

    widths, groups: of the five convolutions. response_norm: local response normalisation behind
    the first two. dropout_first: before the hidden layers of the head, not behind them.
    """

    widths: tuple[int, int, int, int, int]
    groups: tuple[int, int, int, int, int] = (1, 1, 1, 1, 1)
    response_norm: bool = False
    dropout: float = 0.5
    dropout_first: bool = True
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> AlexNetwork:
        """A freshly initialised network for [B, channels, H, W] with `classes` logits."""
        return AlexNetwork(self, classes, channels)


# Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", as torchvision
# trained it; and Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural
# networks", whose 224 pixels give its 55 places only with 2 pixels of padding.
ALEXNET = AlexNet((64, 192, 384, 256, 256))
ALEXNET_2012 = AlexNet(
    (96, 256, 384, 384, 256), groups=(1, 2, 1, 2, 2), response_norm=True, dropout_first=False
)


class AlexNetwork(Staged):
    """Five convolutions with biases, three overlapping max pools, a dense head."""

    def __init__(self, plan: AlexNet, classes: int, channels: int) -> None:
        super().__init__()
        stages = (_stage(plan, number, channels) for number in range(len(STAGES)))
        self.stages = nn.ModuleList(stages)
        self.pool_size = SIDE
        self.head = _head(plan, plan.widths[-1] * SIDE**2, classes)
        initialise(self, plan.initialisation)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> four maps: before each of the three pools, and what the head reads.

        Their sides are about 1/4, 1/8, 1/16, 1/32 of the input's: 55, 27, 13, 6 of 224.
        """
        return super().features(x)


class ResponseNorm(nn.LocalResponseNorm):
    """x / (2 + 1e-4 * sum of 5 squares)^.75 over neighbouring channels (2012, section 3.3).

    PyTorch divides its alpha by the number of squares, the paper does not.
    """

    def __init__(self) -> None:
        super().__init__(5, alpha=5 * 1e-4, beta=0.75, k=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)  # the CPU has none for bfloat16


def _stage(plan: AlexNet, number: int, channels: int) -> nn.Sequential:
    widths = (channels, *plan.widths)
    convolutions = [
        Convolution(
            widths[place],
            widths[place + 1],
            KERNELS[place],
            stride=1 if place else 4,
            groups=plan.groups[place],
            bias=True,
            padding="symmetric" if place else 2,
        )
        for place in STAGES[number]
    ]
    stage = nn.Sequential()
    if number:
        stage.add_module("pool", MaxPool(3, 2, "valid"))
    layers = chain("ca" * len(convolutions), convolutions, norm=PLAIN_NORM, numbered=True)
    for name, layer in layers.named_children():
        stage.add_module(name, layer)
    if plan.response_norm and number < 2:
        stage.add_module("response_norm", ResponseNorm())
    return stage


def _head(plan: AlexNet, inputs: int, classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in (1, 2):
        if plan.dropout_first:
            layers[f"dropout{number}"] = nn.Dropout(plan.dropout)
        layers[f"linear{number}"] = nn.Linear(inputs, HIDDEN)
        layers[f"act{number}"] = nn.ReLU(inplace=True)
        if not plan.dropout_first:
            layers[f"dropout{number}"] = nn.Dropout(plan.dropout)
        inputs = HIDDEN
    layers["linear3"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)
