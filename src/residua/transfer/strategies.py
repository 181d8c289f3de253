"""The strategy of the settings -> its outcome, with its measurements in transfer.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from residua.runs.folder import RunFolder
from residua.transfer.context import Context, Outcome
from residua.transfer.features import FeatureExtractor
from residua.transfer.fine_tune import RESULT, fine_tune
from residua.transfer.linear_probe import fit_probe
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
    prepared, weights = context.prepared, context.weights
    strategy = prepared.config.transfer.strategy
    if weights is not None and strategy != "scratch":
        network = build_network(weights, prepared.device, require_head=False)
        extractor = FeatureExtractor(network, prepared, weights.sha256())
        context = dataclasses.replace(context, extractor=extractor)
    outcome = STRATEGIES[strategy](context, folder)
    folder.write_json(RESULT, outcome.result.to_json())
    return outcome
