"""What a row of the catalogue is: a network's plan, its defaults, and who published its count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from residua.networks.layers import Initialisation
from residua.networks.staged import Staged


class Plan(Protocol):
    """A network's description, from which it is built."""

    @property
    def initialisation(self) -> Initialisation:
        """How its layers begin."""

    def build(self, classes: int, channels: int) -> Staged:
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
