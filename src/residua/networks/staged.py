"""Images [B, C, H, W] -> logits [B, K]: stem, stages, tail, pool and head of every network.

A network can be cut after a stage: `between` computes the map at the cut, `leave` the logits of it.
The frozen layers before a cut need to run only once per image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pooled(x: Tensor, pool_size: int) -> Tensor:
    """[B, C, H, W] -> [B, C x pool_size x pool_size]: adaptive average pooling, flattened."""
    return torch.flatten(F.adaptive_avg_pool2d(x, pool_size), 1)


class Staged(nn.Module):
    """A network in stages: [B, C, H, W] -> logits [B, K].

    stem: belongs to the first stage. tail: belongs to the last one. dropout: before the head.
    pool_size: side of the average-pooled map that the head reads.
    earlier_pools: such sides for the stages before the last one, where the head reads several maps
    side by side, the earliest first (as Evci et al. 2022, "Head2Toe", section 3).
    """

    earlier_pools: tuple[int, ...] = ()

    def __init__(
        self,
        *,
        stem: nn.Module | None = None,
        stages: Iterable[nn.Module],
        tail: nn.Module | None = None,
        dropout: nn.Module | None = None,
        head: nn.Module,
        pool_size: int = 1,
    ) -> None:
        super().__init__()
        self.stem = stem or nn.Identity()
        self.stages = nn.ModuleList(stages)
        self.tail = tail or nn.Identity()
        self.dropout = dropout or nn.Identity()
        self.head = head
        self.pool_size = pool_size

    @property
    def last_cut(self) -> int:
        """The number of stages up to the first map that the head reads: no cut is behind it."""
        return len(self.stages) - len(self.earlier_pools)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> one map per stage, the last one after the tail.

        H and W of the maps are those of x divided by the stage's stride, rounded as its padding
        requires.
        """
        maps = []
        for stage in range(len(self.stages)):
            x = self.between(x, stage, stage + 1)
            maps.append(x)
        return maps

    def between(self, x: Tensor, first: int, last: int) -> Tensor:
        """The map after `first` stages (0: the image) -> the one after `last`, first <= last."""
        if first == 0 < last:
            x = self.stem(x)
        for stage in self.stages[first:last]:
            x = stage(x)
        return self.tail(x) if first < last == len(self.stages) else x

    def leave(self, x: Tensor, stages: int) -> Tensor:
        """The map after the first `stages` stages, at most `last_cut` -> logits [B, K]."""
        return self.classify(self.pool(self.head_maps(x, stages)))

    def head_maps(self, x: Tensor, stages: int) -> list[Tensor]:
        """The map after the first `stages` stages -> the maps that the head reads, the last stage's
        last."""
        maps = []
        for stage in range(self.last_cut, len(self.stages) + 1):
            x, stages = self.between(x, stages, stage), stage
            maps.append(x)
        return maps

    def pool(self, maps: Sequence[Tensor]) -> Tensor:
        """The maps that the head reads -> its input, [B, D]."""
        sizes = (*self.earlier_pools, self.pool_size)
        parts = [pooled(x, size) for x, size in zip(maps, sizes, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def classify(self, features: Tensor) -> Tensor:
        """The input of the head, [B, D] -> logits [B, K]."""
        return self.head(self.dropout(features))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(x, 0)
