"""Images [B, C, H, W] -> logits [B, K]: MobileNet, MobileNetV2 and EfficientNet-Lite.

MobileNet (Howard et al. 2017) is plain: its separable convolutions have norm and activation also
between depthwise and pointwise.

    unit(x) = branch(x)          branch = depthwise 3x3, pointwise 1x1: "cnacna"

MobileNetV2 has inverted residual units with a linear bottleneck (Sandler et al. 2018, section 3):
the branch is wider than its input and output, and no activation follows the projection.

    unit(x) = branch(x) + x      where the shapes agree, else branch(x)
    branch  = expand 1x1, depthwise kxk, project 1x1: "cnacnacn", without the first where t = 1

EfficientNet-Lite (Liu 2020, tensorflow/tpu, efficientnet/lite) is EfficientNet (Tan and Le 2019)
without squeeze-and-excitation, its stem, head and first and last stage unscaled. Every activation
of all three is ReLU6.

State dict keys: stem.{conv,norm}; stages.S.units.U.branch.{conv1,norm1,conv2,...,end_norm};
tail.{conv,norm}, not in MobileNet; head.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from residua.networks.layers import (
    KERAS_NORM,
    PLAIN_NORM,
    Convolution,
    Dropout,
    Initialisation,
    Norm,
    Padding,
    chain,
    initialise,
)
from residua.networks.residual import ResidualUnit
from residua.networks.staged import Staged


@dataclass(frozen=True)
class BlockRow:
    """One row of the papers' tables: `count` units, the first of which strides.

    expansion: width of the branch over that of its input (t). width: output channels (c).
    """

    expansion: int
    width: int
    count: int
    stride: int
    kernel: int = 3


@dataclass(frozen=True)
class MobileNetConfig:
    """A network of depthwise and pointwise convolutions in full.

    rows: one for each stage.
    inverted: inverted residual units and a tail; False: MobileNet's plain units.
    width, depth: multipliers of channels (rounded to multiples of 8) and units.
    fixed_ends: stem, head, and depth of the first and last row are not scaled (EfficientNet-Lite).
    padding: "keras" is the rule "same" in the stem, and at strided depthwise convolutions one pixel
        below and to the right at any size (keras.applications' MobileNet).
    dropout: before the head.
    """

    rows: tuple[BlockRow, ...]
    inverted: bool = True
    width: float = 1.0
    depth: float = 1.0
    fixed_ends: bool = False
    norm: Norm = PLAIN_NORM
    padding: Padding | Literal["keras"] = "symmetric"
    dropout: float = 0.2
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        A stage is a row of the papers' tables: the feature maps have the strides 2, 4, 8, 16, 32 in
        MobileNet, else 2, 4, 8, 16, 16, 32, 32, the last one behind the tail. H and W are at least
        31 pixels with Keras' padding: it rounds up in the stem and then down.
        """
        scale = 1.0 if self.fixed_ends else self.width
        inputs = scaled(STEM, scale)
        padding: Padding = "same" if self.padding == "keras" else self.padding
        first = Convolution(channels, inputs, 3, stride=2, padding=padding)
        stem = chain("cna", [first], norm=self.norm, activation=nn.ReLU6)
        stages = []
        for number, row in enumerate(self.rows):
            is_end = self.fixed_ends and number in (0, len(self.rows) - 1)
            outputs, units = scaled(row.width, self.width), nn.Sequential()
            for unit in range(row.count if is_end else math.ceil(row.count * self.depth)):
                units.append(_unit(self, row, inputs, outputs, row.stride if unit == 0 else 1))
                inputs = outputs
            stages.append(nn.Sequential(OrderedDict(units=units)))
        tail = None
        if self.inverted:
            outputs = scaled(HEAD, max(scale, 1.0))
            last = Convolution(inputs, outputs, 1)
            tail = chain("cna", [last], norm=self.norm, activation=nn.ReLU6)
        network = Staged(
            stem=stem,
            stages=stages,
            tail=tail,
            dropout=Dropout(self.dropout) if self.dropout else None,
            head=nn.Linear(outputs, classes),
        )
        return initialise(network, self.initialisation)


STEM, HEAD = 32, 1280
MOBILENET_V1 = MobileNetConfig(  # table 1
    (
        BlockRow(1, 64, 1, 1),
        BlockRow(1, 128, 2, 2),
        BlockRow(1, 256, 2, 2),
        BlockRow(1, 512, 6, 2),
        BlockRow(1, 1024, 2, 2),
    ),
    inverted=False,
    dropout=0.0,
)
KERAS_MOBILENET = replace(
    MOBILENET_V1, norm=KERAS_NORM, padding="keras", dropout=1e-3, initialisation="glorot"
)
MOBILENET_V2 = MobileNetConfig(  # table 2
    (
        BlockRow(1, 16, 1, 1),
        BlockRow(6, 24, 2, 2),
        BlockRow(6, 32, 3, 2),
        BlockRow(6, 64, 4, 2),
        BlockRow(6, 96, 3, 1),
        BlockRow(6, 160, 3, 2),
        BlockRow(6, 320, 1, 1),
    )
)
EFFICIENTNET_LITE0 = MobileNetConfig(  # Tan and Le 2019, table 1
    (
        BlockRow(1, 16, 1, 1),
        BlockRow(6, 24, 2, 2),
        BlockRow(6, 40, 2, 2, kernel=5),
        BlockRow(6, 80, 3, 2),
        BlockRow(6, 112, 3, 1, kernel=5),
        BlockRow(6, 192, 4, 2, kernel=5),
        BlockRow(6, 320, 1, 1),
    ),
    fixed_ends=True,
    norm=Norm(momentum=0.01, epsilon=1e-3),
    padding="same",
)


def scaled(width: int, factor: float) -> int:
    """Channels times a factor, the nearest multiple of 8, never more than 10 % below."""
    if factor == 1:
        return width
    exact = width * factor
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def _unit(
    config: MobileNetConfig, row: BlockRow, inputs: int, outputs: int, stride: int
) -> ResidualUnit:
    inner, padding = inputs * row.expansion, config.padding
    is_padded = padding == "keras" and stride > 1
    rule: Padding = "valid" if is_padded else "symmetric" if padding == "keras" else padding
    convolutions = [Convolution(inputs, inner, 1)] if row.expansion > 1 else []
    convolutions += [
        Convolution(inner, inner, row.kernel, stride=stride, groups=inner, padding=rule),
        Convolution(inner, outputs, 1),
    ]
    letters = "na".join("c" * len(convolutions)) + ("n" if config.inverted else "na")
    branch = chain(letters, convolutions, norm=config.norm, numbered=True, activation=nn.ReLU6)
    if is_padded:
        pad = nn.ZeroPad2d((0, 1, 0, 1))
        branch = nn.Sequential(OrderedDict([("pad", pad), *branch.named_children()]))
    keeps_shape = stride == 1 and inputs == outputs
    return ResidualUnit(branch, nn.Identity() if config.inverted and keeps_shape else None)
