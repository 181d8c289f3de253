"""A prepared training and the weights that it may start from: what every way of learning needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from residua.config.auto import Choice, value_of
from residua.config.schema import Config
from residua.data.prepare import Prepared
from residua.data.random import Integers
from residua.networks.staged import Staged
from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training.initial import initial_network
from residua.training.progress import Progress
from residua.transfer.features import Frozen
from residua.weights.load import Weights
from residua.weights.native import Metadata
from residua.weights.network import Logits, build_network


@dataclass(frozen=True)
class Learnt:
    """How a way of learning ended: its settings, now all resolved, where the training stands, and
    what was measured on the way, as plain data for transfer.json. answers: [N] sample numbers ->
    logits [N, K] from cached features, in their precision; None where there are none."""

    prepared: Prepared
    progress: Progress
    measured: dict[str, Any]
    answers: Callable[[Integers], Logits] | None = None


@dataclass(frozen=True)
class Job:
    """weights: None where everything begins at random. asked: the settings before any choice."""

    prepared: Prepared
    weights: Weights | None
    clock: Clock
    console: Console
    asked: Config
    made: dict[str, Any] = field(default_factory=dict)  # what is not to be made twice

    @property
    def frozen(self) -> Frozen:
        """The whole network of the weights, for features. The job must have weights."""
        if "frozen" not in self.made:
            assert self.weights is not None
            prepared, sha256 = self.prepared, self.weights.sha256()
            network = build_network(self.weights, prepared.device, require_head=False)
            self.made["frozen"] = Frozen(
                network, sha256, prepared.config, prepared.pixels, prepared.labels
            )
        return cast(Frozen, self.made["frozen"])

    def network(self) -> Staged:
        """The network of the settings, with the weights, frozen as the settings say."""
        return initial_network(self.prepared.config, self.weights, self.prepared.device)

    def metadata(self) -> Metadata:
        """What the weights file of this training will say of itself."""
        config = self.prepared.config
        return Metadata(
            config.network_spec, self.prepared.dataset.classes, config.preprocessing, {}
        )

    def freed(self, setting: str) -> Job:
        """The same, but for a setting that a choice may change though the user gave it."""
        if not self.prepared.is_explicit(setting):
            return self
        value = value_of(self.prepared.config, setting)
        choices = (*self.prepared.choices, Choice(setting, value, "explicit"))
        return dataclasses.replace(
            self, prepared=dataclasses.replace(self.prepared, choices=choices)
        )

    def choose(self, setting: str, value: object, reason: str) -> Job:
        """The same with an automatic setting changed; an explicit one stays."""
        return dataclasses.replace(self, prepared=self.prepared.choose(setting, value, reason))

    def with_prepared(self, prepared: Prepared) -> Job:
        """The same with other settings or data."""
        return dataclasses.replace(self, prepared=prepared)


def as_written(prepared: Prepared, folder: RunFolder) -> Prepared:
    """The same data, with the settings and choices that a folder holds. Raises ResiduaError."""
    return dataclasses.replace(prepared, config=folder.config, choices=folder.choices)
