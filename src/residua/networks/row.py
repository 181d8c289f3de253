"""What a row of the catalogue is: a network's plan, its defaults, and who published its count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


class Network(Protocol):
    """What every network here offers besides being an nn.Module."""

    def features(self, x: Tensor) -> list[Tensor]:
        """The feature maps of its stages, the last one as its head sees it."""


class Plan(Protocol):
    """A network's description, from which it is built."""

    def build(self, classes: int, channels: int) -> nn.Module:
        """A freshly initialised network."""


@dataclass(frozen=True)
class Published:
    """Parameters as their source counts them; total includes BatchNorm's statistics."""

    trainable: int
    total: int | None = None


@dataclass(frozen=True)
class Row:
    """One network: its plan, its defaults and where it comes from."""

    plan: Plan
    classes: int
    channels: int
    size: int
    published: Published
    source: str
