"""The inputs of a training, and its result, whatever the strategy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

from residua.config import auto
from residua.config.auto import Choice
from residua.config.schema import Config
from residua.data.prepared import Prepared
from residua.evaluation.calibrate import HeldOut
from residua.evaluation.cross_validated import CrossValidated
from residua.inference.features import FeatureExtractor, FeatureRows
from residua.networks.staged import Staged
from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training.initial import initial_metadata, initial_network
from residua.training.progress import Progress
from residua.weights.load import Weights
from residua.weights.native import Metadata


@dataclass(frozen=True)
class Context:
    """The inputs of a training.

    weights: None if training starts from random weights, or continues from a checkpoint.
    requested: the settings before any automatic choice. clock: of the time budget.
    """

    prepared: Prepared
    weights: Weights | None
    requested: Config
    clock: Clock
    console: Console

    def network(self) -> Staged:
        """The network of the settings, with the weights, frozen as the settings state."""
        return initial_network(self.prepared.config, self.weights, self.prepared.device)

    def metadata(self) -> Metadata:
        """The metadata of the weights files of this training."""
        return initial_metadata(self.prepared)

    def choose(self, setting: str, value: object, reason: str) -> Self:
        """The same with an automatic setting changed; an explicit one stays."""
        return self.with_prepared(self.prepared.choose(setting, value, reason))

    def allow_change(self, setting: str) -> Self:
        """The same, but `choose` may change the setting even if it is explicit."""
        if not self.prepared.is_explicit(setting):
            return self
        choice = Choice(setting, auto.value_of(self.prepared.config, setting), "explicit")
        choices = (*self.prepared.choices, choice)
        return self.with_prepared(dataclasses.replace(self.prepared, choices=choices))

    def with_prepared(self, prepared: Prepared) -> Self:
        """The same with other settings or data."""
        return dataclasses.replace(self, prepared=prepared)

    def with_settings_of(self, folder: RunFolder) -> Self:
        """The same with the settings and choices in a run folder. Raises ResiduaError."""
        return self.with_prepared(
            dataclasses.replace(self.prepared, config=folder.config, choices=folder.choices)
        )


@dataclass(frozen=True)
class Outcome:
    """The result of a training; its weights are in the run folder.

    prepared: with all settings resolved.
    cross_validated: of a linear probe.
    features: of the last stage, pooled, of the images for which they are cached.
    extractor: whose features of the training set are cached; None if they are not.
    """

    prepared: Prepared
    progress: Progress
    cross_validated: CrossValidated | None = None
    features: FeatureRows | None = None
    extractor: FeatureExtractor | None = None

    @property
    def is_from_scratch(self) -> bool:
        """Whether a strategy trained a network from scratch, which `auto` may have chosen."""
        return self.prepared.config.transfer.strategy == "scratch"

    @property
    def held_out(self) -> HeldOut | None:
        """The cross-validated predictions, if the saved head is a linear probe like theirs."""
        if self.cross_validated is None or self.prepared.config.network.head != "logistic":
            return None
        return self.cross_validated.held_out(self.prepared)
