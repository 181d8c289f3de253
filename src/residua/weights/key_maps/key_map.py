"""residua's layer names -> those of another program, by rules.

A rule is a pair: a regular expression for a whole name, and a format string for the new name. The
groups of the expression fill the format; a number may take an offset, {0:+1}, or become a letter:
{0:a} maps 0, 1, 2 to a, b, c, and {0:a-1} maps 1, 2, 3 to them. Rules apply one after another,
each to the result of the last. A Keras layer that no rule names is numbered automatically
there (conv2d_12), in creation order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from residua.weights.key_maps.layers import WeightLayer

Rules = tuple[tuple[str, str], ...]
UNIT = r"stages\.(\d+)\.units\.(\d+)"  # in our names: stage and unit
BN = (r"(.*)norm(\d?)", "{0}bn{1}")  # a rule: norms are called bn in most programs
NOTHING = "(?!)"  # matches no name
OURS = "residua"  # the source whose names are ours


@dataclass(frozen=True)
class KeyMap:
    """How one program names the layers of some networks.

    source: the program, in words.
    networks: patterns of catalogue names.
    sign: matches a layer name that occurs only in such files.
    rules: see above. If one begins with "units.", they see units.N, numbered through all stages,
    for stages.S.units.U.
    sequences: pairs of (our container, theirs) whose layers are numbered through, as in a
    torch.nn.Sequential with its activations.
    unchanged: matches our names that stay as they are.
    ignored: matches stored layers outside the network, such as auxiliary heads.
    also: networks that such a file fits too, but only if the user names them.
    convolutions: our dense layers that are convolutions over the whole map there.
    shortcut_first: whether additions list the shortcut before the branch.
    """

    source: str
    networks: tuple[str, ...]
    sign: str
    rules: Rules = ()
    sequences: Rules = ()
    unchanged: str = NOTHING
    ignored: str = NOTHING
    also: tuple[str, ...] = ()
    convolutions: tuple[str, ...] = ()
    shortcut_first: bool = False

    def covers(self, network: str) -> bool:
        """Whether it names the layers of this network of the catalogue."""
        return any(fnmatch(network, pattern) for pattern in self.networks)

    def ignores(self, layer: str) -> bool:
        """Whether a stored layer is outside the network."""
        return re.match(self.ignored, layer) is not None

    def as_stored(self, layers: Sequence[WeightLayer]) -> list[WeightLayer]:
        """Our layers, with the kind "conv2d" where they are convolutions there."""
        return [
            replace(layer, kind="conv2d") if layer.name in self.convolutions else layer
            for layer in layers
        ]

    def names(self, network: nn.Module, layers: Sequence[WeightLayer]) -> dict[str, str]:
        """Our name -> theirs, for every layer that has a fixed name there."""
        numbered = self._numbered(network)
        names = {}
        for layer in layers:
            name = ours = self._through(network, layer.name)
            for pattern, theirs in self.rules:
                if match := re.fullmatch(pattern, name):
                    name = theirs.format(*map(_Group, match.groups()))
            name = numbered.get(layer.name, name)
            if name != ours or re.fullmatch(self.unchanged, name):
                names[layer.name] = name
        return names

    def _through(self, network: nn.Module, name: str) -> str:
        """The name with its unit numbered through all stages, if the map wants that."""
        wants = any(pattern.startswith("units") for pattern, _ in self.rules)
        match = re.match(UNIT, name) if wants else None
        if match is None:
            return name
        stages: Any = network.stages
        before = sum(len(stages[stage].units) for stage in range(int(match[1])))
        return f"units.{before + int(match[2])}{name[match.end() :]}"

    def _numbered(self, network: nn.Module) -> Mapping[str, str]:
        """Layers in sequences: their position among all leaf modules."""
        numbered: dict[str, str] = {}
        for ours, theirs in self.sequences:
            leaves = [
                name
                for name, module in network.named_modules()
                if name.startswith(f"{ours}.") and next(module.children(), None) is None
            ]
            numbered |= {name: f"{theirs}.{position}" for position, name in enumerate(leaves)}
        return numbered


class _Group(str):
    """A group of a rule's expression inside its format: {0}, {0:+1}, {0:a} or {0:a-1}."""

    def __format__(self, form: str) -> str:
        if form.startswith("a"):
            return chr(ord("a") + int(self) + int(form[1:] or 0))
        return str(int(self) + int(form)) if form else str(self)
