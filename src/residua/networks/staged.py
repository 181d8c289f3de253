"""Images [B, C, H, W] -> logits [B, K]: stem, stages, tail, pool and head of every network.

A network can be cut after any stage: `enter` computes the map at the cut, `leave` the logits from
it. The frozen layers before a cut need to run only once per image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.networks.layers import run_in_sequence


def pooled(x: Tensor, pool_size: int) -> Tensor:
    """[B, C, H, W] -> [B, C x pool_size x pool_size]: adaptive average pooling, flattened."""
    return torch.flatten(F.adaptive_avg_pool2d(x, pool_size), 1)


class Staged(nn.Module):
    """A network in stages.

    stages, head: set by every architecture. stem, tail, dropout (before the head): set by some.
    pool_size: side of the average-pooled map that the head reads.
    """

    stages: nn.ModuleList
    head: nn.Module
    pool_size = 1

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> one map per stage; the last one has passed the tail: the head pools it.

        H and W of the maps are those of x divided by the stage's stride, rounded as its padding
        requires.
        """
        maps = run_in_sequence(self.stages, self._optional("stem", x))
        maps[-1] = self._optional("tail", maps[-1])
        return maps

    def between(self, x: Tensor, first: int, last: int) -> Tensor:
        """The map after `first` stages (0: the image) -> the one after `last`, first <= last.

        The stem belongs to the first stage, the tail to the last.
        """
        if first == 0 < last:
            x = self._optional("stem", x)
        for stage in self.stages[first:last]:
            x = stage(x)
        return self._optional("tail", x) if first < last == len(self.stages) else x

    def enter(self, x: Tensor, stages: int) -> Tensor:
        """[B, C, H, W] -> the map after the first `stages` stages."""
        return self.between(x, 0, stages)

    def leave(self, x: Tensor, stages: int) -> Tensor:
        """The map after the first `stages` stages -> logits [B, K]."""
        return self.classify(self.between(x, stages, len(self.stages)))

    def classify(self, x: Tensor) -> Tensor:
        """The last map [B, C, H, W] -> logits [B, K]."""
        y = self._optional("dropout", pooled(x, self.pool_size))
        return self.head(y)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.enter(x, len(self.stages)))

    def _optional(self, name: str, x: Tensor) -> Tensor:
        layers = getattr(self, name, None)
        return x if layers is None else layers(x)
