"""What a frozen front made of each image, kept -> batches for the rest of the network.

The rest learns from these as from images; that nothing is computed twice is all that changes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from residua.data.batches import Batch, in_step
from residua.data.random import Integers, shuffled


class CachedInputs:
    """Inputs of the layers behind a cut; see `data.batches.Inputs`.

    plain_values: [N, C, h, w], of `samples` (int64 [N], sample numbers) as they are. views: each
    [M, C, h, w], of `members` in their order, as augmentation made them; epoch e sees view e modulo
    their number + 1, the first of which is the plain one.
    """

    def __init__(
        self,
        plain_values: Tensor,
        samples: Integers,
        labels: Integers,
        members: Integers,
        *,
        batch: int,
        seed: int,
        views: tuple[Tensor, ...] = (),
    ) -> None:
        self.values, self.views = plain_values, views
        self.labels, self.members = labels, members
        self.steps = -(-len(members) // batch)
        self._place = np.full(len(labels), -1, np.int64)
        self._place[samples] = np.arange(len(samples))
        self._member = np.full(len(labels), -1, np.int64)
        self._member[members] = np.arange(len(members))
        self._order = lru_cache(maxsize=1)(lambda epoch: shuffled(seed, epoch, members))

    @property
    def device(self) -> torch.device:
        """See Inputs."""
        return self.values.device

    def batch(self, epoch: int, step: int) -> Batch:
        """See Inputs."""
        samples = in_step(self._order(epoch), step, self.steps)
        view = epoch % (len(self.views) + 1)
        if view:
            x = self.views[view - 1][self._index(self._member, samples)]
        else:
            x = self.values[self._index(self._place, samples)]
        labels = torch.from_numpy(self.labels[samples]).to(self.device)
        return Batch(x.float(), labels, labels)

    def plain(self, samples: Integers) -> Tensor:
        """See Inputs."""
        return self.values[self._index(self._place, samples)].float()

    def _index(self, places: Integers, samples: Integers) -> Tensor:
        return torch.from_numpy(places[samples]).to(self.device)
