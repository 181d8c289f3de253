"""Two networks -> one whose only stage computes the later maps of both, from the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.networks.analysis.shapes import on_meta, weightless
from residua.networks.layers import Initialisation, initialise
from residua.networks.staged import Staged

if TYPE_CHECKING:
    from residua.networks.zoo.rows import NetworkConfig

FIRST, SECOND = "stages.0.first.", "stages.0.second."  # of the state dict
SCALE, SHIFT = "stages.0.scale", "stages.0.shift"
SIZE = 256  # px of images that every network reads, to count the channels of its maps


class SideBySide(nn.Module):
    """Images [B, C, H, W] -> the maps of the later half of both networks' stages, concatenated.

    All are average-pooled to the height and width of the first network's last map. Earlier stages
    add to what a linear probe recognises, as in `joint_layer`.
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
        maps = _later_maps(self.first, x)
        grid = maps[-1].shape[2:]
        maps += _later_maps(self.second, (x * self.scale + self.shift).to(x.dtype))
        return torch.cat([_pooled(each, grid) for each in maps], 1)


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
        for network in (first, second):
            network.head = network.dropout = nn.Identity()
        stage = SideBySide(first, second, channels)
        with on_meta():
            width = weightless(stage)(torch.empty(1, channels, SIZE, SIZE)).shape[1]
        return Staged(
            stages=[stage], head=initialise(nn.Linear(width, classes), self.initialisation)
        )


def _later_maps(network: Staged, x: Tensor) -> list[Tensor]:
    return network.features(x)[len(network.stages) // 2 :]


def _pooled(x: Tensor, grid: torch.Size) -> Tensor:
    return x if x.shape[2:] == grid else F.adaptive_avg_pool2d(x, (grid[0], grid[1]))
