"""What a frozen front made of each image, kept -> batches for the rest of the network.

The rest learns from these as from images; that nothing is computed twice is all that changes.
"""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from residua.data.augmentation import changes_nothing
from residua.data.batches import Batch, Inputs, in_step
from residua.data.cache import free_memory
from residua.data.prepare import Prepared
from residua.data.random import Integers, shuffled
from residua.networks.staged import Staged
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training.throughput import VALIDATION_LIMIT, synchronize
from residua.transfer.features import Frozen

MEMORY_SHARE = 0.25  # of the free memory, for the output of the frozen stages
TIME_SHARE = 0.3  # of the time left, to compute it


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


def batches_after(
    network: Staged, prepared: Prepared, clock: Clock, console: Console
) -> tuple[Inputs, int]:
    """Batches for what is not frozen, and how many frozen stages they have passed already.

    The output of the frozen stages is computed once for each image, and cached, where augmentation,
    memory and time allow; else the batches hold images, and the number is 0.
    """
    config, members = prepared.config, prepared.training_members
    images = prepared.training_batches()
    stages, views = config.network.freeze, config.transfer.views
    mixes = config.augmentation.mixup or config.augmentation.cutmix
    if stages == 0 or mixes or not (views or changes_nothing(config.augmentation)):
        return images, 0
    evaluated = prepared.eval_splits(VALIDATION_LIMIT if clock.bounded else 0)
    samples = np.concatenate([members, *evaluated.values()])
    frozen = Frozen(network, "", config, prepared.pixels, prepared.labels)
    first, number = samples[: frozen.batch], len(samples) + views * len(members)
    frozen.maps(first, stages)  # a warm-up
    began = time.monotonic()
    maps = frozen.maps(first, stages)
    synchronize(prepared.device)
    seconds = (time.monotonic() - began) * number / len(first)
    needed = maps[0].numel() * maps.element_size() * number
    if needed > MEMORY_SHARE * _free_bytes(prepared.device):
        console.print(f"{needed / 1e6:,.0f} MB of feature maps do not fit: computed each time")
        return images, 0
    if seconds > TIME_SHARE * clock.left:
        console.print(f"caching feature maps would take {seconds:.0f} s: computed each time")
        return images, 0
    console.print(f"caching the output of {stages} frozen stages: {needed / 1e6:,.0f} MB")
    batches = CachedInputs(
        frozen.maps(samples, stages),
        samples,
        prepared.labels,
        members,
        batch=config.training.batch_size,
        seed=config.training.seed,
        views=tuple(frozen.maps(members, stages, view) for view in range(1, views + 1)),
    )
    return batches, stages


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
