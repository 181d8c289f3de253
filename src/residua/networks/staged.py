"""Batch [B, C, H, W] -> logits [B, K]: what all networks share: stem, stages, tail, pool, head.

A network can be cut after any stage: `enter` computes what comes before the cut, `leave` what comes
behind it. So what is frozen in front of the cut needs to be computed only once for each image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.networks.layers import in_turn


def pooled(x: Tensor, pool_size: int) -> Tensor:
    """[B, C, H, W] -> [B, C x pool_size x pool_size]: adaptive average pooling, flattened."""
    return torch.flatten(F.adaptive_avg_pool2d(x, pool_size), 1)


class Staged(nn.Module):
    """A network in stages: `stages` and `head` are set by its family, `stem` and `tail` by some.

    pool_size: side of the average-pooled map that the head reads.
    """

    stages: nn.ModuleList
    head: nn.Module
    pool_size = 1

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> one map per stage; the last has passed the tail, as the head reads it."""
        found = in_turn(self.stages, self._optional("stem", x))
        found[-1] = self._optional("tail", found[-1])
        return found

    def between(self, x: Tensor, first: int, last: int) -> Tensor:
        """The map after `first` stages (0: the image) -> that after `last`, 0 <= first <= last.

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
        """What `enter` gave for the same number of stages -> logits [B, K]."""
        return self.classify(self.between(x, stages, len(self.stages)))

    def classify(self, x: Tensor) -> Tensor:
        """The last map [B, C, H, W] -> logits [B, K]."""
        return self.head(pooled(x, self.pool_size))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.enter(x, len(self.stages)))

    def _optional(self, name: str, x: Tensor) -> Tensor:
        part = getattr(self, name, None)
        return x if part is None else part(x)
