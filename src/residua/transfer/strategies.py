"""The strategy of the settings -> its outcome, with its measurements in transfer.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from residua.inference.feature_layers import FeatureLayer
from residua.runs.folder import TRANSFER, RunFolder
from residua.training.context import Context, Outcome
from residua.transfer.context import StrategyContext, StrategyOutcome
from residua.transfer.fine_tune import fine_tune
from residua.transfer.linear_probe import fit_probe
from residua.transfer.result import result_of
from residua.transfer.search import search

STRATEGIES: dict[str, Callable[[StrategyContext, RunFolder], StrategyOutcome]] = {
    "features": fit_probe,
    "partial": fine_tune,
    "full": fine_tune,
    "scratch": fine_tune,
    "auto": search,
}


def transfer(inputs: Context, folder: RunFolder) -> Outcome:
    """Train by the strategy of the settings."""
    strategy = inputs.prepared.config.transfer.strategy
    assert strategy is not None
    earlier = result_of(folder)
    context = StrategyContext.of(inputs)
    outcome = STRATEGIES[strategy](context, folder)
    result = dataclasses.replace(outcome.result, backbones=earlier.backbones)
    if result.chosen is None and earlier.chosen is not None:  # by `auto`, before an interruption
        kept = ("trials", "expected", "data", "scenario", "chosen", "reason")
        result = dataclasses.replace(result, **{name: getattr(earlier, name) for name in kept})
    folder.write_json(TRANSFER, result.to_json())
    features, extractor = None, context.extractor
    if extractor is not None:
        last = FeatureLayer(extractor.stages.count, 1)
        features = extractor.cached(last, outcome.prepared.readable)
    if strategy not in ("features", "auto") and not outcome.scores:
        extractor = None
    return dataclasses.replace(outcome, result=result, features=features, extractor=extractor)
