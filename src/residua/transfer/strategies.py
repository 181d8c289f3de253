"""The strategy of the settings -> its outcome, with its measurements in transfer.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from residua.inference.feature_layers import FeatureLayer
from residua.runs.folder import RunFolder
from residua.transfer.context import Context, Outcome
from residua.transfer.features import FeatureExtractor
from residua.transfer.fine_tune import fine_tune
from residua.transfer.linear_probe import fit_probe
from residua.transfer.result import RESULT, result_of
from residua.transfer.search import search
from residua.weights.network import build_network

STRATEGIES: dict[str, Callable[[Context, RunFolder], Outcome]] = {
    "features": fit_probe,
    "partial": fine_tune,
    "full": fine_tune,
    "scratch": fine_tune,
    "auto": search,
}


def transfer(context: Context, folder: RunFolder) -> Outcome:
    """Train by the strategy of the settings."""
    strategy = context.prepared.config.transfer.strategy
    assert strategy is not None
    earlier = result_of(folder)
    context = with_extractor(context)
    outcome = STRATEGIES[strategy](context, folder)
    result = dataclasses.replace(outcome.result, backbones=earlier.backbones)
    if result.chosen is None and earlier.chosen is not None:  # by `auto`, before an interruption
        kept = ("trials", "expected", "data", "scenario", "chosen", "reason")
        result = dataclasses.replace(result, **{name: getattr(earlier, name) for name in kept})
    folder.write_json(RESULT, result.to_json())
    features, extractor = None, context.extractor
    if extractor is not None:
        last = FeatureLayer(extractor.stages.count, 1)
        features = extractor.cached(last, outcome.prepared.readable)
    if strategy not in ("features", "auto") and not outcome.scores:
        extractor = None
    return dataclasses.replace(outcome, result=result, features=features, extractor=extractor)


def with_extractor(context: Context) -> Context:
    """The same with a feature extractor, if there are weights that the strategy uses."""
    prepared, weights = context.prepared, context.weights
    if weights is None or prepared.config.transfer.strategy == "scratch":
        return context
    network = build_network(weights, prepared.device, require_head=False)
    extractor = FeatureExtractor(network, prepared, weights.sha256(), context.console.warn)
    return dataclasses.replace(context, extractor=extractor)
