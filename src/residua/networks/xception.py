"""Batch [B, C, H, W] -> logits [B, K]: Xception (Chollet 2016) in that alphabet.

    unit(x) = branch(before(x)) + shortcut(x)

The units are those of ordering d, ReLU-only pre-activation, with separable convolutions; one that
strides ends in a max pool, and its projection reads x itself, without the ReLU.

Keys of the state dict: stem.{conv1,norm1,conv2,end_norm}; stages.S.units.U.shortcut.{conv,norm} in
a unit that strides; stages.S.units.U.branch.convN.{depthwise,pointwise}, .branch.normN and, behind
the last convolution, .branch.end_norm; tail.convN.{depthwise,pointwise}, tail.norm1, tail.end_norm;
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from residua.networks.layers import (
    KERAS_NORM,
    PLAIN_NORM,
    Convolution,
    Initialisation,
    MaxPool,
    Norm,
    Padding,
    Separable,
    chain,
    in_turn,
    initialise,
)
from residua.networks.residual import ORDERINGS
from residua.networks.staged import Staged

STEM = (32, 64)
# figure 5: per stage, per unit, the widths of its separable convolutions; the first unit strides
STAGES = (
    ((128, 128),),
    ((256, 256),),
    ((728, 728), *[(728, 728, 728)] * 8),
    ((728, 1024),),
)
TAIL = (1536, 2048)


@dataclass(frozen=True)
class Xception:
    """An Xception in full. pool_padding: "symmetric" and "same" differ at maps of even sides."""

    pool_padding: Padding = "symmetric"
    norm: Norm = PLAIN_NORM
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> XceptionNetwork:
        """A freshly initialised network for [B, channels, H, W] with `classes` logits.

        H and W are at least 7 pixels: the stem's two convolutions have no padding.
        """
        return XceptionNetwork(self, classes, channels)


XCEPTION = Xception()
KERAS_XCEPTION = Xception("same", KERAS_NORM, "glorot")


class XceptionUnit(nn.Module):
    """branch(before(x)) + shortcut(x): [B, C, H, W] -> [B, widths[-1], H / stride, W / stride].

    activated: x comes from a ReLU already, as the stem's does, and `before` is empty.
    """

    def __init__(
        self, plan: Xception, inputs: int, widths: Sequence[int], stride: int, activated: bool
    ) -> None:
        super().__init__()
        letters, outputs = ORDERINGS["d"], widths[-1]
        # before the branch, because Keras makes it first and numbers its layers as it makes them
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            projection = Convolution(inputs, outputs, 1, stride=stride)
            self.shortcut = chain("cn", [projection], norm=plan.norm)
        self.before = chain("" if activated else letters.before, norm=plan.norm)
        between = "na".join("c" * len(widths))
        convolutions = _separables(inputs, widths)
        self.branch = chain(between + letters.end, convolutions, norm=plan.norm, numbered=True)
        if stride > 1:
            self.branch.add_module("pool", MaxPool(3, stride, plan.pool_padding))

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(self.before(x))
        return y + self.shortcut(x)  # type: ignore[no-any-return]


class XceptionNetwork(Staged):
    """Xception: [B, C, H, W] -> logits [B, K]."""

    def __init__(self, plan: Xception, classes: int, channels: int) -> None:
        super().__init__()
        convolutions = [
            Convolution(channels, STEM[0], 3, stride=2, padding="valid"),
            Convolution(*STEM, 3, padding="valid"),
        ]
        self.stem = chain("cnacna", convolutions, norm=plan.norm, numbered=True)
        stages, inputs = [], STEM[-1]
        for stage, rows in enumerate(STAGES):
            units = nn.Sequential()
            for number, widths in enumerate(rows):
                first = number == 0
                units.append(XceptionUnit(plan, inputs, widths, 1 + first, first and stage == 0))
                inputs = widths[-1]
            stages.append(nn.Sequential())
            stages[-1].add_module("units", units)
        self.stages = nn.ModuleList(stages)
        self.tail = chain("cnacna", _separables(inputs, TAIL), norm=plan.norm, numbered=True)
        self.head = nn.Linear(TAIL[-1], classes)
        initialise(self, plan.initialisation)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> the stem's map and one per stage, at strides 2, 4, 8, 16, 32.

        The stem's loses a border of up to three pixels: 299 pixels give sides 147, 74, 37, 19, 10.
        The last map has passed the tail, so that it is what the head pools.
        """
        maps = in_turn((self.stem, *self.stages), x)
        maps[-1] = self.tail(maps[-1])
        return maps


def _separables(inputs: int, widths: Sequence[int]) -> list[Separable]:
    return [Separable(each, width) for each, width in zip((inputs, *widths), widths, strict=False)]
