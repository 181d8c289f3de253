"""What others call the layers of our networks: what a dialect is.

A rule is a pair (regular expression of a whole name, a format for what it becomes). The groups of
the expression fill the format; numbers take an offset, {0:+1}, or become a letter, {1:a}. Rules
act one after another on what the earlier ones made. Layers for which a Keras dialect has no rule
are named automatically there (conv2d_12), in creation order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

    from residua.weights.key_maps.layers import Place

Rules = tuple[tuple[str, str], ...]
ALL = ("*",)
UNIT = r"stages\.(\d+)\.units\.(\d+)"  # of our names: stage and unit


@dataclass(frozen=True)
class Dialect:
    """One way to name the layers of some networks.

    rows: patterns of catalogue names. sign: matches the names of layers that only such files have.
    rules: see above. flat: pairs of (our containers, theirs) whose children they number through.
    kept: layers that have the same name there, or ALL. spare: matches layers beside the network,
    such as auxiliary heads.
    adopted: rows that such a file fits too, but only if the user names them.
    convolutions: our dense layers that are convolutions over their whole map there.
    shortcut_first: whether its additions name the shortcut before the branch.
    """

    name: str
    framework: Literal["keras", "pytorch"]
    rows: tuple[str, ...]
    sign: str
    rules: Rules = ()
    flat: Rules = ()
    kept: tuple[str, ...] = ()
    spare: str = "(?!)"
    adopted: tuple[str, ...] = ()
    convolutions: tuple[str, ...] = ()
    shortcut_first: bool = False

    def knows(self, row: str) -> bool:
        """Whether this network may be named so."""
        return any(fnmatch(row, pattern) for pattern in self.rows)

    def spares(self, layer: str) -> bool:
        """Whether a stored layer is beside the network."""
        return re.match(self.spare, layer) is not None

    def as_there(self, places: Sequence[Place]) -> list[Place]:
        """Our layers, those that are convolutions there as such."""
        return [
            replace(each, kind="conv2d") if each.name in self.convolutions else each
            for each in places
        ]

    def names(self, network: nn.Module, places: Sequence[Place]) -> dict[str, str]:
        """Our layer -> theirs, for every layer that has a name of its own there."""
        found = {}
        numbers = self._numbers(network)
        for place in places:
            if place.name in numbers:
                found[place.name] = numbers[place.name]
                continue
            name = place.name
            for ours, theirs in self.rules:
                if hit := re.fullmatch(ours, name):
                    name = theirs.format(*map(_Group, hit.groups()))
            if name != place.name or name in self.kept or self.kept == ALL:
                found[place.name] = name
        return found

    def _numbers(self, network: nn.Module) -> Mapping[str, str]:
        """Layers of flat containers: their number in one sequence, activations counted."""
        numbers: dict[str, str] = {}
        modules = dict(network.named_modules())
        for ours, theirs in self.flat:
            leaves = [
                name
                for name, module in modules.items()
                if name.startswith(f"{ours}.") and not any(True for _ in module.children())
            ]
            numbers |= {name: f"{theirs}.{place}" for place, name in enumerate(leaves)}
        return numbers


class _Group(str):
    """A group of a rule's expression, inside a format: {0}, {0:+1}, {0:a} (0 -> a, 1 -> b)."""

    def __format__(self, form: str) -> str:
        if form == "a":
            return chr(ord("a") + int(self))
        return str(int(self) + int(form)) if form else str(self)
