"""Frozen stages and images -> batches of their output, for the layers behind them.

Equivalent to training on the images. The output is cached where the images of all epochs are the
same, else computed for each batch, with folded norms and without gradients.
"""

from __future__ import annotations

import dataclasses
import time
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from residua.data.augmentation import changes_nothing
from residua.data.batches import Batch, Inputs, in_step, weights_of
from residua.data.prepared import Prepared
from residua.data.random import Integers, shuffled
from residua.inference.feature_layers import FrozenStages
from residua.inference.features import FeatureExtractor
from residua.networks.staged import Staged
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training.memory import free_bytes
from residua.training.throughput import synchronize, validation_limit

MEMORY_SHARE = 0.25  # of the free memory, for the output of the frozen stages
TIME_SHARE = 0.3  # of the time left, to compute it


class CachedBatches:
    """Inputs of the layers behind the frozen stages; see `data.batches.Inputs`.

    plain_maps: [N, C, h, w] of `samples`, int64 [N], without augmentation.
    views: [M, C, h, w] each, of `members`, the training set, in their order, augmented. Epoch e
    uses view e modulo their number + 1; view 0 is without augmentation. stages: see Inputs.
    """

    def __init__(
        self,
        prepared: Prepared,
        plain_maps: Tensor,
        samples: Integers,
        members: Integers,
        *,
        stages: int,
        views: tuple[Tensor, ...] = (),
    ) -> None:
        self.plain_maps, self.views, self.stages = plain_maps, views, stages
        self.labels, self.members, self.weights = prepared.labels, members, prepared.weights
        seed, batch_size = prepared.config.training.seed, prepared.config.training.batch_size
        self.steps = -(-len(members) // batch_size)
        self._sample_rows = _rows_of(samples, len(self.labels))
        self._member_rows = _rows_of(members, len(self.labels))
        self._order = lru_cache(maxsize=1)(lambda epoch: shuffled(seed, epoch, members))

    @property
    def device(self) -> torch.device:
        """See Inputs."""
        return self.plain_maps.device

    def batch(self, epoch: int, step: int) -> Batch:
        """See Inputs."""
        samples = in_step(self._order(epoch), step, self.steps)
        view = epoch % (len(self.views) + 1)
        if view:
            x = self.views[view - 1][self._index(self._member_rows, samples)]
        else:
            x = self.plain_maps[self._index(self._sample_rows, samples)]
        labels = torch.from_numpy(self.labels[samples]).to(self.device)
        weights = weights_of(self.weights, samples, self.device)
        return Batch(x.float(), labels, labels, samples, weights)

    def plain(self, samples: Integers) -> Tensor:
        """See Inputs."""
        return self.plain_maps[self._index(self._sample_rows, samples)].float()

    def _index(self, rows: Integers, samples: Integers) -> Tensor:
        return torch.from_numpy(rows[samples]).to(self.device)


class FrozenBatches:
    """The output of frozen stages for batches of images; see `data.batches.Inputs`."""

    def __init__(self, images: Inputs, frozen: FrozenStages, stages: int) -> None:
        self.images, self.frozen, self.stages = images, frozen, stages
        self.labels, self.members, self.steps = images.labels, images.members, images.steps

    @property
    def device(self) -> torch.device:
        """See Inputs."""
        return self.images.device

    def batch(self, epoch: int, step: int) -> Batch:
        """See Inputs."""
        batch = self.images.batch(epoch, step)
        return dataclasses.replace(batch, images=self._map(batch.images))

    def plain(self, samples: Integers) -> Tensor:
        """See Inputs."""
        return self._map(self.images.plain(samples))

    def _map(self, images: Tensor) -> Tensor:
        # a copy, as a tensor of inference mode cannot be saved for the backward pass
        return self.frozen.map(images, self.stages).to(torch.float32, copy=True)


def _rows_of(samples: Integers, total: int) -> Integers:
    """int64 [total]: the row of each sample among `samples`; -1: it has none."""
    rows = np.full(total, -1, np.int64)
    rows[samples] = np.arange(len(samples))
    return rows


def batches_after(
    network: Staged, prepared: Prepared, clock: Clock, console: Console
) -> tuple[Inputs, str]:
    """Training batches for what follows the frozen stages, and a line to print.

    Their output is computed once per image and cached if augmentation, memory and time allow it.
    The line states why it is not cached, where memory or time are the reason; a search of settings
    prints the last one.
    """
    config, members = prepared.config, prepared.training_members
    images = prepared.training_batches()
    stages, views = min(config.network.freeze, network.last_cut), config.transfer.views
    if stages == 0:
        return images, ""
    extractor = FeatureExtractor(network, prepared)
    uncached = FrozenBatches(images, extractor.stages, stages)
    mixes = config.augmentation.mixup or config.augmentation.cutmix
    if mixes or not (views or changes_nothing(config.augmentation)):
        return uncached, ""
    evaluated = prepared.eval_splits(validation_limit(clock))
    samples = np.concatenate([members, *evaluated.values()])
    first, total = samples[: extractor.batch], len(samples) + views * len(members)
    extractor.maps(first, stages)  # a warm-up
    began = time.monotonic()
    maps = extractor.maps(first, stages)
    synchronize(prepared.device)
    seconds = (time.monotonic() - began) * total / len(first)
    needed = maps[0].numel() * maps.element_size() * total
    if needed > MEMORY_SHARE * free_bytes(prepared.device):
        return uncached, f"{needed / 1e6:,.0f} MB of feature maps do not fit: computed each time"
    if seconds > TIME_SHARE * clock.left:
        line = f"caching feature maps would take {seconds:.0f} s: computed each time"
        return uncached, line
    console.print(f"caching the output of {stages} frozen stages: {needed / 1e6:,.0f} MB")
    batches = CachedBatches(
        prepared,
        extractor.maps(samples, stages),
        samples,
        members,
        stages=stages,
        views=tuple(extractor.maps(members, stages, view) for view in range(1, views + 1)),
    )
    return batches, ""
