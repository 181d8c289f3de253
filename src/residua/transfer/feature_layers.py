"""Images -> what a frozen network makes of them, at one or more places, as fast as it can.

A tap is a place where features can be taken: the map after a stage, averaged over a grid.
Legend: B batch, S side of the images, C channels, D = channels x grid side squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.networks.staged import Staged, pooled
from residua.networks.surgery.folding import fold_norms

FINER = 4  # times as many fields in each direction, over which a wide map is averaged first
WIDEST = 1024  # numbers that a grid finer than one field may give
SIDES = (4, 2)  # of such grids, the finest first


@dataclass(frozen=True, order=True)
class Tap:
    """The map after stage `stage` (from 1), averaged over side x side fields."""

    stage: int
    side: int

    def __str__(self) -> str:
        grid = "" if self.side == 1 else f", {self.side} x {self.side}"
        return f"stage {self.stage}{grid}"


class Front:
    """A frozen network, folded, on its device; gives features and maps without any gradient."""

    def __init__(self, network: Staged, preprocessing: Preprocessing, precision: str) -> None:
        self.device = next(network.parameters()).device
        self.preprocessing, self.precision = preprocessing, precision
        self.network = fold_norms(network, precision)
        self.stages = len(self.network.stages)
        self.type = torch.bfloat16 if precision == "bf16" else torch.float32

    @torch.inference_mode()
    def features(self, images: Tensor, taps: Sequence[Tap]) -> dict[Tap, Tensor]:
        """float [B, C, S, S], normalised -> float32 [B, D] for each tap, on the CPU."""
        x, found, place = images.to(self.type), {}, 0
        for tap in sorted(taps):
            if tap.stage > place:
                x = self.network.between(x, place, tap.stage)
                place = tap.stage
            found[tap] = _means(x, tap.side).cpu()
        return found

    @torch.inference_mode()
    def map(self, images: Tensor, stages: int) -> Tensor:
        """float [B, C, S, S], normalised -> the map after so many stages, in our precision."""
        return self.network.between(images.to(self.type), 0, stages)

    def plain(self, pixels: Tensor) -> Tensor:
        """uint8 [B, S, S, C] -> what `features` and `map` take."""
        return normalise(pixels.to(self.device), self.preprocessing)

    def widths(self, taps: Sequence[Tap], height: int, width: int, channels: int) -> dict[Tap, int]:
        """D of each tap, for images of that size."""
        x = torch.zeros(1, channels, height, width, device=self.device)
        found = self.features(x.contiguous(memory_format=torch.channels_last), taps)
        return {tap: each.shape[1] for tap, each in found.items()}

    def taps(self, size: int, channels: int) -> list[Tap]:
        """Where features are worth taking, for images of `size` px, from the first stage on.

        After each stage: the finest grid that gives at most WIDEST numbers; after the last also the
        plain mean, which is what the network itself was trained to use.
        """
        x = torch.zeros(1, channels, size, size, device=self.device, dtype=self.type)
        x = x.contiguous(memory_format=torch.channels_last)
        found = []
        for stage in range(1, self.stages + 1):
            with torch.inference_mode():
                x = self.network.between(x, stage - 1, stage)
            width, side = x.shape[1], min(x.shape[2:])
            fitting = [each for each in SIDES if each <= side and width * each**2 <= WIDEST]
            if fitting:
                found.append(Tap(stage, fitting[0]))
            if stage == self.stages or not fitting:
                found.append(Tap(stage, 1))
        return found


def _means(x: Tensor, side: int) -> Tensor:
    """`pooled` of x in float32. Of a wide bfloat16 map only means over finer fields are converted,
    which are far fewer than its numbers."""
    fine = FINER * side
    if x.dtype == torch.bfloat16 and not any(length % fine for length in x.shape[2:]):
        x = F.adaptive_avg_pool2d(x, fine)
    return pooled(x.float(), side)
