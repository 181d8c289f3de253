"""The state of a transfer strategy: its inputs, and its result with measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from residua.config import auto, parse
from residua.config.auto import Chooser
from residua.config.schema import AUTO
from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureExtractor
from residua.runs.folder import RunFolder
from residua.training.context import Context, Outcome
from residua.transfer.cross_validation import LayerScore
from residua.transfer.result import TransferResult
from residua.weights.load import read_file
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
class StrategyContext(Context):
    """The inputs of a transfer strategy.

    extractor: of features in the network of the weights; None where no strategy needs it.
    scores: layers that were cross-validated already.
    """

    extractor: FeatureExtractor | None = None
    scores: Mapping[FeatureLayer, LayerScore] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Context) -> StrategyContext:
        """The same inputs, with a feature extractor if there are weights that the strategy uses."""
        inputs = {item.name: getattr(context, item.name) for item in dataclasses.fields(Context)}
        return cls(**inputs).with_extractor()

    def with_extractor(self) -> StrategyContext:
        """The same with a feature extractor, if there are weights that the strategy uses."""
        prepared, weights = self.prepared, self.weights
        if weights is None or prepared.config.transfer.strategy == "scratch":
            return self
        network = build_network(weights, prepared.device, require_head=False)
        extractor = FeatureExtractor(network, prepared, weights.sha256(), self.console.warn)
        return dataclasses.replace(self, extractor=extractor)

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

    def for_strategy(self, strategy: str) -> StrategyContext:
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


@dataclass(frozen=True, kw_only=True)
class StrategyOutcome(Outcome):
    """The result of a transfer strategy.

    predict_logits: by the saved weights, in the precision of the training.
    result: its measurements.
    scores: the layers that were cross-validated completely.
    fit_seconds: that the final logistic regression took.
    """

    predict_logits: PredictLogits
    result: TransferResult = field(default_factory=TransferResult)
    scores: Mapping[FeatureLayer, LayerScore] = field(default_factory=dict)
    fit_seconds: float = 0.0


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
