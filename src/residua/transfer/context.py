"""A prepared training and the weights that it may start from: what every way of learning needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from residua.config import parse
from residua.config.auto import Choice
from residua.config.schema import AUTO, Config
from residua.data.prepare import Prepared
from residua.data.random import Integers
from residua.networks.staged import Staged
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo.catalogue import build_from
from residua.runs.folder import RunFolder
from residua.runs.sources import start_from
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training.checkpoint import Progress
from residua.transfer.features import Frozen
from residua.weights.load import Weights
from residua.weights.native import Metadata
from residua.weights.network import Logits, build_network, on_device

UNSET = (None, AUTO)
OFF_AT_ZERO = ("network.freeze", "training.max_images")  # where 0 is the default, and no wish


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

    @property
    def taught(self) -> Integers:
        """The images of the training part that may teach: all, or training.max_images of them."""
        return thinned(self.prepared.splits["train"], self.prepared.config.training.max_images)

    def network(self) -> Staged:
        """What the settings describe, with the weights, and frozen where they say so."""
        config = self.prepared.config
        spec, seed = config.network_spec, config.training.seed
        if self.weights is None or config.transfer.strategy == "scratch":
            network = build_from(spec, seed=seed)
        else:
            new_head = config.network.new_head
            network = start_from(self.weights, spec, new_head=new_head, seed=seed)
        if config.transfer.strategy == "features":
            freeze(network, len(network.stages))
        elif config.transfer.strategy != "scratch":
            freeze(network, config.network.freeze)
        return on_device(network, self.prepared.device)

    def metadata(self) -> Metadata:
        """What the weights file of this training will say of itself."""
        config = self.prepared.config
        return Metadata(config.network_spec, self.prepared.source.classes, config.preprocessing, {})

    def is_given(self, setting: str) -> bool:
        """Whether the user gave this setting, so that no choice may change it."""
        section, _, key = setting.partition(".")
        chosen = any(each.setting == setting for each in self.prepared.choices)
        value = getattr(getattr(self.prepared.config, section), key)
        return not chosen and value not in UNSET and not (value == 0 and setting in OFF_AT_ZERO)

    def freed(self, setting: str) -> Job:
        """The same, but for a setting that a choice may change though the user gave it."""
        if not self.is_given(setting):
            return self
        section, _, key = setting.partition(".")
        value = getattr(getattr(self.prepared.config, section), key)
        choices = [*self.prepared.choices, Choice(setting, value, "given")]
        return dataclasses.replace(
            self, prepared=dataclasses.replace(self.prepared, choices=choices)
        )

    def decided(self, setting: str, value: object, reason: str) -> Job:
        """The same with an automatic setting set; one that the user gave stays."""
        if self.is_given(setting):
            return self
        config = parse.with_settings(self.prepared.config, {setting: value})
        rest = [each for each in self.prepared.choices if each.setting != setting]
        choices = [*rest, Choice(setting, value, reason)]
        prepared = dataclasses.replace(self.prepared, config=config, choices=choices)
        return dataclasses.replace(self, prepared=prepared)


def write_settings(folder: RunFolder, prepared: Prepared) -> None:
    """config.yaml, choices.json and preprocessing.json of a run, as they are now."""
    preprocessing = dataclasses.asdict(prepared.config.preprocessing)
    folder.write_json("preprocessing.json", preprocessing)
    folder.write_json("choices.json", [dataclasses.asdict(each) for each in prepared.choices])
    folder.write_text("config.yaml", parse.to_yaml(prepared.config))


def as_written(prepared: Prepared, folder: RunFolder) -> Prepared:
    """The same data, with the settings and choices that a folder holds. Raises ResiduaError."""
    return dataclasses.replace(prepared, config=folder.config, choices=choices_of(folder))


def choices_of(folder: RunFolder) -> list[Choice]:
    """What was automatic, as write_settings wrote it. Raises ResiduaError."""
    return [Choice(**each) for each in folder.read_json("choices.json")]


def thinned(members: Integers, most: int) -> Integers:
    """An even choice of `most` members; 0 stands for all."""
    if not 0 < most < len(members):
        return members
    return members[np.arange(most) * len(members) // most]


def synchronise(device: torch.device) -> None:
    """Wait for a GPU, before the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
