"""A built network -> the same, with another head, which may read an earlier stage."""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
from torch import nn

from residua.errors import ResiduaError
from residua.networks.analysis.shapes import on_meta, weightless
from residua.networks.layers import Initialisation, initialise
from residua.networks.staged import Staged

DROPOUT = 0.5  # before the last layer of a head with hidden ones, as in tutorials 2 and 3
LARGEST_SIDE = 16


def hidden_of(head: str) -> tuple[int, ...]:
    """Widths of the hidden layers that a word says: () for "linear", (256,) for "mlp:256".

    Raises ResiduaError.
    """
    if head == "linear":
        return ()
    if not re.fullmatch(r"mlp:[1-9]\d{0,5}(,[1-9]\d{0,5})*", head):
        raise ResiduaError(
            f"head {head!r} is unknown: expected linear, or mlp: with the widths of its hidden "
            "layers, such as mlp:256 or mlp:4096,4096."
        )
    return tuple(int(width) for width in head.removeprefix("mlp:").split(","))


def replace_head(
    network: Staged,
    head: str,
    classes: int,
    *,
    input: tuple[int, int, int],
    stage: int | None = None,
    side: int | None = None,
    initialisation: Initialisation = "he",
) -> None:
    """Put a head of `classes` outputs on the pooled map of a stage, in place.

    head: see `hidden_of`. stage: from 1; the ones behind it and the tail are dropped; None is the
    last. side: of the grid of means that it reads; None is 1. input: (C, H, W) of a picture.
    Raises ResiduaError if the network has no such stage.
    """
    hidden, count, side = hidden_of(head), len(network.stages), 1 if side is None else side
    if stage is not None and not 1 <= stage <= count:
        raise ResiduaError(f"stage = {stage}: the network has stages 1 to {count}.")
    if not 1 <= side <= LARGEST_SIDE:
        raise ResiduaError(f"side = {side}: expected 1 to {LARGEST_SIDE}.")
    if stage is not None and stage < count:
        network.stages = network.stages[:stage]
        if getattr(network, "tail", None) is not None:
            network.tail = nn.Sequential()
    network.side = side
    width = _channels(network, input) * side**2
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, wide in enumerate((*hidden, classes), start=1):
        if number > len(hidden) > 0:
            layers["dropout"] = nn.Dropout(DROPOUT)
        layers[f"linear{number}"] = nn.Linear(width, wide)
        if number <= len(hidden):
            layers[f"act{number}"] = nn.ReLU(inplace=True)
        width = wide
    network.head = nn.Sequential(layers) if hidden else layers["linear1"]
    initialise(network.head, initialisation)


def _channels(network: Staged, input: tuple[int, int, int]) -> int:
    """Channels of the last map, for a picture (C, H, W)."""
    with on_meta():
        return int(weightless(network).enter(torch.empty(1, *input), len(network.stages)).shape[1])
