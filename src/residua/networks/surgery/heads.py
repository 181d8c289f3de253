"""A network -> the same network with another head, which may read an earlier stage, or several."""

from __future__ import annotations

import torch
from torch import nn

from residua.config.parse import hidden_of
from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.analysis.shapes import on_meta, weightless
from residua.networks.layers import Initialisation, dense_head, initialise
from residua.networks.staged import Staged

DROPOUT = 0.5  # before the last layer of a head with hidden layers, as in tutorials 2 and 3
LARGEST_POOL = 16


def replace_head(
    network: Staged, spec: NetworkSpec, size: int, initialisation: Initialisation
) -> None:
    """Replace the head in place by that of `spec`, which has one; see NetworkSpec.

    Stages behind the one that it reads are dropped, and the tail. size: of images, in pixels.
    Raises ResiduaError if stage, pool_size or earlier_pools is out of range.
    """
    assert spec.head is not None
    hidden, count, stage = hidden_of(spec.head), len(network.stages), spec.stage
    if stage is not None and not 1 <= stage <= count:
        raise ResiduaError(f"stage = {stage}: the network has stages 1 to {count}.")
    pool_size = 1 if spec.pool_size is None else spec.pool_size
    earlier_pools = spec.earlier_pools or ()
    for pool in (*earlier_pools, pool_size):
        if not 1 <= pool <= LARGEST_POOL:
            raise ResiduaError(f"pool_size = {pool}: expected 1 to {LARGEST_POOL}.")
    last = stage or count
    if len(earlier_pools) >= last:
        raise ResiduaError(
            f"earlier_pools = {list(earlier_pools)}: {last - 1} stages precede stage {last}."
        )
    is_cut = last < count
    if is_cut:
        network.stages, network.tail = network.stages[:last], nn.Identity()
    is_same = (pool_size, earlier_pools) == (network.pool_size, network.earlier_pools)
    network.pool_size, network.earlier_pools = pool_size, earlier_pools
    if isinstance(network.head, nn.Linear) and is_same and not is_cut:
        inputs = network.head.in_features
    else:
        with on_meta():
            outline = weightless(network)
            maps = outline.head_maps(torch.empty(1, spec.channels, size, size), 0)
            inputs = int(outline.pool(maps).shape[1])
    head = (
        dense_head(inputs, hidden, spec.classes, dropout=DROPOUT, after=[len(hidden)])
        if hidden
        else nn.Linear(inputs, spec.classes)
    )
    network.head = initialise(head, initialisation)
