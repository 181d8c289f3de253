"""A row of the catalogue: a network's config, its defaults and its published parameter count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from residua.networks.layers import Initialisation
from residua.networks.staged import Staged


class NetworkConfig(Protocol):
    """The interface of every architecture's config."""

    @property
    def initialisation(self) -> Initialisation:
        """The rule that fills the kernels."""

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes]."""


@dataclass(frozen=True)
class Row:
    """One network.

    source, trainable: who publishes the network, and its number of trainable parameters there.
    total: the published count with the statistics of BatchNorm; None: not published.
    classes, channels, size: defaults; size is the side of the input in pixels.
    """

    config: NetworkConfig
    source: str
    trainable: int
    total: int | None = None
    classes: int = 1000
    channels: int = 3
    size: int = 224
