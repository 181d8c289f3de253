"""A row of the catalogue: a network's config, its defaults and the published parameter count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from residua.networks.layers import Initialisation
from residua.networks.staged import Staged


class NetworkConfig(Protocol):
    """What every architecture's config provides."""

    @property
    def initialisation(self) -> Initialisation:
        """The rule that fills the kernels."""

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes]."""


@dataclass(frozen=True)
class PublishedCount:
    """Parameters as the source counts them. total: with the statistics of BatchNorm."""

    trainable: int
    total: int | None = None


@dataclass(frozen=True)
class Row:
    """One network.

    classes, channels, size: defaults; size is the side of the input in pixels.
    published, source: the parameter count, and who publishes it.
    """

    config: NetworkConfig
    classes: int
    channels: int
    size: int
    published: PublishedCount
    source: str
