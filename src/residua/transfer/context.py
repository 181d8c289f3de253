"""A prepared training, its initial weights and a strategy -> the state of all strategies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from residua.config import auto, parse
from residua.config.auto import Choice, Chooser
from residua.config.schema import AUTO, Config
from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.evaluation.calibrate import HeldOut
from residua.evaluation.score import CROSS_VALIDATION, Evaluation, evaluation_of, with_slices
from residua.inference.feature_layers import FeatureLayer
from residua.networks.staged import Staged
from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training.initial import initial_metadata, initial_network
from residua.training.progress import Progress
from residua.transfer.cross_validation import LayerScore
from residua.transfer.feature_cache import Floats
from residua.transfer.features import FeatureExtractor, FeatureRows
from residua.transfer.logistic import fit_logistic
from residua.transfer.result import TransferResult
from residua.uncertainty.record import Uncertainty
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata
from residua.weights.network import Logits, build_network

NO_FROZEN_STAGES = {
    "network.stage": None,
    "network.pool_size": None,
    "network.earlier_pools": None,
    "transfer.views": 0,
}
OF_A_STRATEGY = (  # automatic settings that depend on the strategy
    "network.freeze_norms",
    "network.head",
    "optimization.learning_rate",
    "optimization.optimizer",
    "optimization.layer_decay",
    "optimization.warmup_epochs",
    "training.epochs",
)

LEAST_IMAGES = 1_000

PredictLogits = Callable[[Integers], Logits]  # [N] sample indices -> logits [N, K]


@dataclass(frozen=True)
class Context:
    """The inputs of a training, with a transfer strategy or without.

    weights: None if training starts from random weights, or continues from a checkpoint.
    requested: the settings before any automatic choice. clock: of the time budget.
    extractor: of features in the network of the weights; None where no strategy needs it.
    scores: layers that were cross-validated already.
    """

    prepared: Prepared
    weights: Weights | None
    requested: Config
    clock: Clock
    console: Console
    extractor: FeatureExtractor | None = None
    scores: Mapping[FeatureLayer, LayerScore] = field(default_factory=dict)

    @property
    def least_images(self) -> int:
        """Images whose features are computed however little time there is: without an explicit
        time limit, enough for a result that means something on a slow machine too."""
        return 0 if self.prepared.is_explicit("transfer.budget") else LEAST_IMAGES

    @property
    def features(self) -> FeatureExtractor:
        """The extractor, for strategies that need one."""
        assert self.extractor is not None
        return self.extractor

    def network(self) -> Staged:
        """The network of the settings, with the weights, frozen as the settings state."""
        return initial_network(self.prepared.config, self.weights, self.prepared.device)

    def metadata(self) -> Metadata:
        """The metadata of the weights files of this training."""
        return initial_metadata(self.prepared)

    def choose(self, setting: str, value: object, reason: str) -> Context:
        """The same with an automatic setting changed; an explicit one stays."""
        return self.with_prepared(self.prepared.choose(setting, value, reason))

    def allow_change(self, setting: str) -> Context:
        """The same, but `choose` may change the setting even if it is explicit."""
        if not self.prepared.is_explicit(setting):
            return self
        choice = Choice(setting, auto.value_of(self.prepared.config, setting), "explicit")
        choices = (*self.prepared.choices, choice)
        return self.with_prepared(dataclasses.replace(self.prepared, choices=choices))

    def with_prepared(self, prepared: Prepared) -> Context:
        """The same with other settings or data."""
        return dataclasses.replace(self, prepared=prepared)

    def with_settings_of(self, folder: RunFolder) -> Context:
        """The same with the settings and choices in a run folder. Raises ResiduaError."""
        return self.with_prepared(
            dataclasses.replace(self.prepared, config=folder.config, choices=folder.choices)
        )

    def for_strategy(self, strategy: str) -> Context:
        """The same data for a strategy, with the automatic settings that suit it."""
        prepared = self.prepared
        automatic = {choice.setting for choice in prepared.choices} & set(OF_A_STRATEGY)
        settings: dict[str, object] = {"transfer.strategy": strategy}
        settings |= dict.fromkeys(automatic, AUTO)
        if strategy == "features" and "network.head" in automatic:
            settings["network.head"] = "logistic"
        if strategy == "scratch":
            settings |= NO_FROZEN_STAGES
        others = (choice for choice in prepared.choices if choice.setting not in automatic)
        chooser = Chooser(parse.with_settings(prepared.config, settings), others)
        auto.choose_network(chooser, len(prepared.dataset.classes), len(prepared.splits["train"]))
        auto.choose_training(chooser, prepared.counts("train"))
        choices = tuple(chooser.choices)
        return self.with_prepared(
            dataclasses.replace(prepared, config=chooser.config, choices=choices)
        )


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """The predictions of linear probes for images that they were not fitted on.

    samples: int64 [N]. correct: bool [N]. evaluated: bool [N], see ProbeScores. logits:
    log-probabilities float32 [N, K]. features: float32 [N, D], which the probe reads. c: its
    inverse regularisation strength.
    """

    samples: Integers
    correct: npt.NDArray[np.bool_]
    evaluated: npt.NDArray[np.bool_]
    logits: Logits
    features: Floats
    c: float

    def correct_without(
        self, samples: Integers, prepared: Prepared
    ) -> npt.NDArray[np.bool_] | None:
        """Whether a head fitted on the training set of `prepared` classifies each of these samples
        correctly, bool [N]; None if the features of some are not there."""
        fitted = np.isin(self.samples, prepared.splits["train"])
        row_of = {sample: row for row, sample in enumerate(self.samples.tolist())}
        if not set(samples.tolist()) <= row_of.keys():
            return None
        head = fit_logistic(
            self.features[fitted],
            prepared.labels[self.samples[fitted]],
            len(prepared.dataset.classes),
            self.c,
            balanced=prepared.config.optimization.class_weights == "balanced",
            weights=prepared.weights_of(self.samples[fitted]),
        )
        rows = [row_of[sample] for sample in samples.tolist()]
        logits = self.features[rows] @ head.weight.T + head.bias
        return np.asarray(logits.argmax(1) == prepared.labels[samples])

    def held_out(self, prepared: Prepared) -> HeldOut:
        """The evaluated predictions, to calibrate a probe on all images with."""
        rows = self.evaluated
        balanced = prepared.config.optimization.class_weights == "balanced"

        def fit_head(features: Floats, labels: Integers) -> tuple[Floats, Floats]:
            head = fit_logistic(features, labels, int(labels.max()) + 1, self.c, balanced=balanced)
            return head.weight, head.bias

        labels, groups = prepared.labels[self.samples], prepared.group_numbers(self.samples)
        return HeldOut(
            "cross-validation",
            self.logits[rows],
            self.features[rows],
            labels[rows],
            groups[rows],
            (self.features, labels, groups, fit_head),
        )

    def evaluation(
        self, prepared: Prepared, uncertainty: Uncertainty | None, caveat: str
    ) -> Evaluation:
        """The predictions with calibrated probabilities, as an evaluation of the evaluated images,
        of which there must be one.

        uncertainty: of the saved weights. caveat: see Evaluation.
        """
        temperature = 1.0 if uncertainty is None else uncertainty.temperature
        samples = self.samples[self.evaluated]
        evaluation = evaluation_of(
            self.logits[self.evaluated] / np.float32(temperature),
            prepared.pixels,
            samples,
            prepared.labels[samples],
            [prepared.dataset.entries[sample].path for sample in samples],
            CROSS_VALIDATION,
            prepared.dataset.classes,
            groups=prepared.groups_of(samples),
        )
        evaluation = dataclasses.replace(evaluation, caveat=caveat, uncertainty=uncertainty)
        return with_slices(evaluation, samples, prepared.headers, prepared.dataset.columns)


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    prepared: with all settings resolved.
    result: the measurements of a transfer strategy; empty without one.
    predict_logits: by the saved weights, in the precision of the training.
    scores: the layers that were cross-validated completely.
    cross_validated: of a linear probe.
    features: of the last stage, pooled, of the images for which they are cached.
    extractor: whose features of the training set are cached; None if they are not.
    fit_seconds: that the final logistic regression took.
    """

    prepared: Prepared
    progress: Progress
    result: TransferResult
    predict_logits: PredictLogits
    scores: Mapping[FeatureLayer, LayerScore] = field(default_factory=dict)
    cross_validated: CrossValidated | None = None
    features: FeatureRows | None = None
    extractor: FeatureExtractor | None = None
    fit_seconds: float = 0.0

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


def saved_predictor(folder: RunFolder, prepared: Prepared) -> PredictLogits:
    """Logits of the saved weights, with folded norms; the file is read at each call."""

    def predict_logits(samples: Integers) -> Logits:
        network = build_network(read_file(folder.weights), prepared.device)
        extractor = FeatureExtractor(network, prepared)
        logits, stages = [], network.last_cut
        for start in range(0, len(samples), extractor.batch):
            maps = extractor.maps(samples[start : start + extractor.batch], stages)
            with torch.inference_mode():
                logits.append(network.leave(maps.float(), stages).float().cpu().numpy())
        return np.concatenate(logits)

    return predict_logits
