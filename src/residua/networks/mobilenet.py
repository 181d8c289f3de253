"""Batch [B, C, H, W] -> logits [B, K]: MobileNet (Howard et al. 2017) in that alphabet.

    unit(x) = branch(x)

A plain network: no unit has a shortcut. Its separable convolutions have norm and activation between
depthwise and pointwise too, and the activation is ReLU6 everywhere.

Keys of the state dict: stem.{conv,norm}; stages.S.units.U.branch.{conv1,norm1,conv2,end_norm}, of
which conv1 is the depthwise and conv2 the pointwise convolution; head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from residua.networks.layers import (
    KERAS_NORM,
    PLAIN_NORM,
    Convolution,
    Initialisation,
    Norm,
    Padding,
    chain,
    initialise,
)
from residua.networks.staged import Staged, pooled

STEM = 32
# table 1: per stage, the width and the number of its units; the first one strides, but in stage 0
STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))


@dataclass(frozen=True)
class MobileNet:
    """A MobileNet in full.

    keras_padding: where a convolution strides; False: symmetric. Keras pads the stem by its rule
    "same" and the depthwise convolutions below and to the right by one pixel, whatever the size.
    """

    keras_padding: bool = False
    norm: Norm = PLAIN_NORM
    dropout: float = 0.0
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> MobileNetwork:
        """A freshly initialised network for [B, channels, H, W] with `classes` logits.

        H and W are at least 31 pixels with Keras' padding, 1 with symmetric padding.
        """
        return MobileNetwork(self, classes, channels)


MOBILENET_V1 = MobileNet()
KERAS_MOBILENET = MobileNet(True, KERAS_NORM, dropout=1e-3, initialisation="glorot")


class MobileNetwork(Staged):
    """Any network of that kind: [B, C, H, W] -> logits [B, K]."""

    def __init__(self, plan: MobileNet, classes: int, channels: int) -> None:
        super().__init__()
        padding: Padding = "same" if plan.keras_padding else "symmetric"
        first = Convolution(channels, STEM, 3, stride=2, padding=padding)
        self.stem = chain("cna", [first], norm=plan.norm, activation=nn.ReLU6)
        stages, inputs = [], STEM
        for stage, (width, count) in enumerate(STAGES):
            units = nn.Sequential()
            for number in range(count):
                stride = 2 if stage and number == 0 else 1
                units.append(nn.Sequential())
                units[-1].add_module("branch", _branch(plan, inputs, width, stride))
                inputs = width
            stages.append(nn.Sequential())
            stages[-1].add_module("units", units)
        self.stages = nn.ModuleList(stages)
        self.dropout = nn.Dropout(plan.dropout) if plan.dropout else nn.Identity()
        self.head = nn.Linear(inputs, classes)
        initialise(self, plan.initialisation)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> one map per stage, at strides 2, 4, 8, 16, 32; the head pools the last.

        Symmetric padding rounds up in each stage; Keras' rounds up in the stem and then down.
        """
        return super().features(x)

    def classify(self, x: Tensor) -> Tensor:
        """See Staged."""
        return self.head(self.dropout(pooled(x, self.pool_size)))  # type: ignore[no-any-return]


def _branch(plan: MobileNet, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    layers = nn.Sequential()
    padding: Padding = "symmetric"
    if plan.keras_padding and stride > 1:
        layers.add_module("pad", nn.ZeroPad2d((0, 1, 0, 1)))
        padding = "valid"
    convolutions = [
        Convolution(inputs, inputs, 3, stride=stride, groups=inputs, padding=padding),
        Convolution(inputs, outputs, 1),
    ]
    letters = chain("cnacna", convolutions, norm=plan.norm, numbered=True, activation=nn.ReLU6)
    for name, layer in letters.named_children():
        layers.add_module(name, layer)
    return layers
