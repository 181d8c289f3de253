"""Images [B, C, H, W] -> logits [B, K]: Xception (Chollet 2016).

    unit(x) = branch(before(x)) + shortcut(x)

The units have the ordering relu_only_preactivation, with separable convolutions; one that strides
ends in a max pool, and its projection reads x itself, without the ReLU.

State dict keys: stem.{conv1,norm1,conv2,end_norm}; stages.S.units.U.shortcut.{conv,norm} in a unit
that strides; stages.S.units.U.branch.convN.{depthwise,pointwise}, .branch.normN and, behind the
last convolution, .branch.end_norm; tail.convN.{depthwise,pointwise}, tail.norm1, tail.end_norm;
head.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
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
class XceptionConfig:
    """An Xception in full.

    pool_padding: "symmetric" and "same" differ on maps of even sides.
    """

    pool_padding: Padding = "symmetric"
    norm: Norm = PLAIN_NORM
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        H and W are at least 7 pixels: the stem's two convolutions have no padding. Its feature
        maps have the strides 4, 8, 16, 32: 299 pixels give sides 74, 37, 19, 10.
        """
        convolutions = [
            Convolution(channels, STEM[0], 3, stride=2, padding="valid"),
            Convolution(*STEM, 3, padding="valid"),
        ]
        stem = chain("cnacna", convolutions, norm=self.norm, numbered=True)
        stages, inputs = [], STEM[-1]
        for stage, rows in enumerate(STAGES):
            units = nn.Sequential()
            for number, widths in enumerate(rows):
                first = number == 0
                units.append(XceptionUnit(self, inputs, widths, 1 + first, first and stage == 0))
                inputs = widths[-1]
            stages.append(nn.Sequential(OrderedDict(units=units)))
        tail = chain("cnacna", _separables(inputs, TAIL), norm=self.norm, numbered=True)
        head = nn.Linear(TAIL[-1], classes)
        network = Staged(stem=stem, stages=stages, tail=tail, head=head)
        return initialise(network, self.initialisation)


XCEPTION = XceptionConfig()
KERAS_XCEPTION = XceptionConfig("same", KERAS_NORM, "glorot")


class XceptionUnit(nn.Module):
    """branch(before(x)) + shortcut(x): [B, C, H, W] -> [B, widths[-1], H / stride, W / stride].

    activated: x is the output of a ReLU already (the stem's), so `before` is empty.
    """

    def __init__(
        self,
        config: XceptionConfig,
        inputs: int,
        widths: Sequence[int],
        stride: int,
        activated: bool,
    ) -> None:
        super().__init__()
        letters, outputs = ORDERINGS["relu_only_preactivation"], widths[-1]
        # before the branch: Keras numbers its layers in the order of their creation
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            projection = Convolution(inputs, outputs, 1, stride=stride)
            self.shortcut = chain("cn", [projection], norm=config.norm)
        self.before = chain("" if activated else letters.before, norm=config.norm)
        self.branch = chain(
            "na".join("c" * len(widths)) + letters.end + "p" * (stride > 1),
            _separables(inputs, widths),
            norm=config.norm,
            numbered=True,
            pool=MaxPool(3, stride, config.pool_padding),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(self.before(x))
        return y + self.shortcut(x)  # type: ignore[no-any-return]


def _separables(inputs: int, widths: Sequence[int]) -> list[Separable]:
    return [Separable(*pair) for pair in itertools.pairwise((inputs, *widths))]
