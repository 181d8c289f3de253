"""Two networks -> one whose only stage computes the last maps of both, from the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.networks.layers import Initialisation, initialise
from residua.networks.staged import Staged

if TYPE_CHECKING:
    from residua.networks.zoo.rows import NetworkConfig

FIRST, SECOND = "stages.0.first.", "stages.0.second."  # of the state dict
SCALE, SHIFT = "stages.0.scale", "stages.0.shift"


class SideBySide(nn.Module):
    """Images [B, C, H, W] -> the last maps of two networks, behind their tails, concatenated.

    The second map is average-pooled to the height and width of the first.
    scale, shift: [C, 1, 1], buffers, from the images as the first network needs them to images with
    the mean and standard deviation of the second.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, first: Staged, second: Staged, channels: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        other = (x * self.scale + self.shift).to(x.dtype)
        x = self.first.between(x, 0, len(self.first.stages))
        other = self.second.between(other, 0, len(self.second.stages))
        if other.shape[2:] != x.shape[2:]:
            other = F.adaptive_avg_pool2d(other, (x.shape[2], x.shape[3]))
        return torch.cat([x, other], 1)


@dataclass(frozen=True)
class SideBySideConfig:
    """Two networks side by side, under one linear head; implements NetworkConfig."""

    first: NetworkConfig
    second: NetworkConfig

    @property
    def initialisation(self) -> Initialisation:
        """That of the first network, for the head."""
        return self.first.initialisation

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes]."""
        first, second = (config.build(1, channels) for config in (self.first, self.second))
        head = nn.Linear(_width(first) + _width(second), classes)
        for network in (first, second):
            network.head = network.dropout = nn.Identity()
        stage = SideBySide(first, second, channels)
        return Staged(stages=[stage], head=initialise(head, self.initialisation))


def _width(network: Staged) -> int:
    """The channels of the last map, which the head reads on pool_size x pool_size fields."""
    linear = next(layer for layer in network.head.modules() if isinstance(layer, nn.Linear))
    return linear.in_features // network.pool_size**2
