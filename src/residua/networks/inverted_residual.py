"""Images [B, C, H, W] -> logits [B, K]: MobileNetV2 and EfficientNet-Lite.

    unit(x) = branch(x) + x      where the shapes agree, else branch(x)
    branch  = expand 1x1, depthwise kxk, project 1x1: "cnacnacn", without the first where t = 1

The inverted residual unit with a linear bottleneck (Sandler et al. 2018, section 3) in the grammar
of residual.py: the branch is wider than its input and output, and no activation follows the
projection. Every activation is ReLU6. EfficientNet-Lite (Liu 2020, tensorflow/tpu,
efficientnet/lite) is EfficientNet (Tan and Le 2019) without squeeze-and-excitation, its stem, head
and first and last stage unscaled.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from residua.networks.layers import (
    PLAIN_NORM,
    Convolution,
    Dropout,
    Initialisation,
    Norm,
    Padding,
    chain,
    initialise,
)
from residua.networks.residual import ConvPlan, ResidualUnit, UnitPlan
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
class InvertedResidualConfig:
    """A network of inverted residual units in full.

    rows: one for each stage.
    width, depth: multipliers of channels (rounded to multiples of 8) and units.
    fixed_ends: stem, head, and depth of the first and last row are not scaled (EfficientNet-Lite).
    dropout: before the head.
    """

    rows: tuple[BlockRow, ...]
    width: float = 1.0
    depth: float = 1.0
    fixed_ends: bool = False
    norm: Norm = PLAIN_NORM
    padding: Padding = "symmetric"
    dropout: float = 0.2
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> InvertedResidualNet:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes]."""
        return InvertedResidualNet(self, classes, channels)


STEM, HEAD = 32, 1280
MOBILENET_V2 = InvertedResidualConfig(  # table 2
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
EFFICIENTNET_LITE0 = InvertedResidualConfig(  # Tan and Le 2019, table 1
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


def unit_plans(config: InvertedResidualConfig) -> tuple[tuple[UnitPlan, ...], ...]:
    """The plans of all units, by stage."""
    stages = []
    inputs = STEM if config.fixed_ends else scaled(STEM, config.width)
    for number, row in enumerate(config.rows):
        is_end = config.fixed_ends and number in (0, len(config.rows) - 1)
        count = row.count if is_end else math.ceil(row.count * config.depth)
        units = []
        for unit in range(count):
            outputs, stride = scaled(row.width, config.width), row.stride if unit == 0 else 1
            units.append(_unit_plan(config, row, inputs, outputs, stride))
            inputs = outputs
        stages.append(tuple(units))
    return tuple(stages)


def _unit_plan(
    config: InvertedResidualConfig, row: BlockRow, inputs: int, outputs: int, stride: int
) -> UnitPlan:
    inner = inputs * row.expansion
    expand = (ConvPlan(inputs, inner, 1),) * (row.expansion > 1)
    depthwise = ConvPlan(inner, inner, row.kernel, stride, groups=inner, padding=config.padding)
    convolutions = (*expand, depthwise, ConvPlan(inner, outputs, 1))
    return UnitPlan(
        inputs=inputs,
        outputs=outputs,
        stride=stride,
        branch="na".join("c" * len(convolutions)) + "n",
        convolutions=convolutions,
        shortcut="identity" if stride == 1 and inputs == outputs else "none",
        norm=config.norm,
        activation="relu6",
    )


class InvertedResidualNet(Staged):
    """MobileNetV2 or EfficientNet-Lite: [B, C, H, W] -> logits [B, K].

    A stage is a row of the papers' tables; the strides of the seven feature maps are 2, 4, 8, 16,
    16, 32, 32. The last one has passed the 1x1 convolution of the tail.
    """

    def __init__(self, config: InvertedResidualConfig, classes: int, channels: int) -> None:
        super().__init__()
        plans = unit_plans(config)
        width, factor = plans[0][0].inputs, 1.0 if config.fixed_ends else config.width
        first = Convolution(channels, width, 3, stride=2, padding=config.padding)
        self.stem = chain("cna", [first], norm=config.norm, activation=nn.ReLU6)
        self.stages = nn.ModuleList(
            nn.Sequential(OrderedDict(units=nn.Sequential(*map(ResidualUnit, stage))))
            for stage in plans
        )
        head = HEAD if factor <= 1 else scaled(HEAD, factor)
        last = Convolution(plans[-1][-1].outputs, head, 1)
        self.tail = chain("cna", [last], norm=config.norm, activation=nn.ReLU6)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(head, classes)
        initialise(self, config.initialisation)
