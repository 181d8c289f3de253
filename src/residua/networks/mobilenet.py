"""Images [B, C, H, W] -> logits [B, K]: MobileNet (Howard et al. 2017).

    unit(x) = branch(x)

A plain network: no unit has a shortcut. Its separable convolutions have norm and activation also
between depthwise and pointwise, and every activation is ReLU6.

State dict keys: stem.{conv,norm}; stages.S.units.U.branch.{conv1,norm1,conv2,end_norm}, where conv1
is the depthwise and conv2 the pointwise convolution; head.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from residua.networks.layers import (
    KERAS_NORM,
    PLAIN_NORM,
    Convolution,
    Dropout,
    Initialisation,
    Norm,
    Padding,
    add_layers,
    chain,
    initialise,
)
from residua.networks.staged import Staged

STEM = 32
# table 1: per stage, width and number of units; the first unit strides, except in stage 0
STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))


@dataclass(frozen=True)
class MobileNetConfig:
    """A MobileNet in full.

    keras_padding: where a convolution strides; False: symmetric. Keras pads the stem by its rule
        "same", and the depthwise convolutions by one pixel below and to the right at any size.
    dropout: before the head.
    """

    keras_padding: bool = False
    norm: Norm = PLAIN_NORM
    dropout: float = 0.0
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> MobileNet:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        H and W are at least 31 pixels with Keras' padding, 1 with symmetric padding.
        """
        return MobileNet(self, classes, channels)


MOBILENET_V1 = MobileNetConfig()
KERAS_MOBILENET = MobileNetConfig(True, KERAS_NORM, dropout=1e-3, initialisation="glorot")


class MobileNet(Staged):
    """Any MobileNet: [B, C, H, W] -> logits [B, K].

    Its feature maps have the strides 2, 4, 8, 16, 32. Symmetric padding rounds up in each stage;
    Keras' rounds up in the stem and then down.
    """

    def __init__(self, config: MobileNetConfig, classes: int, channels: int) -> None:
        super().__init__()
        padding: Padding = "same" if config.keras_padding else "symmetric"
        first = Convolution(channels, STEM, 3, stride=2, padding=padding)
        self.stem = chain("cna", [first], norm=config.norm, activation=nn.ReLU6)
        stages, inputs = [], STEM
        for stage, (width, count) in enumerate(STAGES):
            units = nn.Sequential()
            for number in range(count):
                stride = 2 if stage and number == 0 else 1
                branch = _branch(config, inputs, width, stride)
                units.append(nn.Sequential(OrderedDict(branch=branch)))
                inputs = width
            stages.append(nn.Sequential(OrderedDict(units=units)))
        self.stages = nn.ModuleList(stages)
        self.dropout = Dropout(config.dropout) if config.dropout else nn.Identity()
        self.head = nn.Linear(inputs, classes)
        initialise(self, config.initialisation)


def _branch(config: MobileNetConfig, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    layers = nn.Sequential()
    padding: Padding = "symmetric"
    if config.keras_padding and stride > 1:
        layers.add_module("pad", nn.ZeroPad2d((0, 1, 0, 1)))
        padding = "valid"
    convolutions = [
        Convolution(inputs, inputs, 3, stride=stride, groups=inputs, padding=padding),
        Convolution(inputs, outputs, 1),
    ]
    norm, relu6 = config.norm, nn.ReLU6
    add_layers(layers, chain("cnacna", convolutions, norm=norm, numbered=True, activation=relu6))
    return layers
