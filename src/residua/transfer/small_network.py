"""A search of strategies -> the small network that is trained from scratch in it."""

from __future__ import annotations

import dataclasses

from residua.config import parse
from residua.config.auto import Choice
from residua.config.schema import AUTO
from residua.data.prepare import prepare
from residua.networks.analysis.cost import measure
from residua.system.console import Console
from residua.transfer.context import NO_FROZEN_STAGES, StrategyContext

LARGE_NETWORK = 100_000_000  # multiply-adds; above, a smaller network is trained from scratch
SMALL_NAME, SMALL_SIZE = "cifar_resnet20", 32


def is_large(context: StrategyContext) -> bool:
    """Whether the network of the weights takes too long to train from scratch in a search."""
    preprocessing = context.prepared.config.preprocessing
    shape = (preprocessing.channels, preprocessing.size, preprocessing.size)
    return measure(context.features.network, shape).multiply_adds > LARGE_NETWORK


def small_context(context: StrategyContext) -> StrategyContext:
    """A small network on small images, as if there were no weights."""
    name = context.prepared.config.network.name
    reason = f"{name} takes too long to train from scratch"
    settings = {
        "network.name": SMALL_NAME,
        "network.head": "default",
        "network.ordering": None,
        "network.shortcut": None,
        "network.cardinality": None,
        "network.weights": "",
        "network.new_head": False,
        "network.freeze": 0,
        **NO_FROZEN_STAGES,
        "transfer.strategy": "scratch",
        "data.path": context.prepared.config.data.path,
        "preprocessing.value_range": context.prepared.config.preprocessing.value_range,
        "preprocessing.size": SMALL_SIZE,
        "preprocessing.mean": AUTO,  # explicit values are meant for the weights
        "preprocessing.std": AUTO,
    }
    if not context.prepared.has_own_splits:  # else it has no effect
        settings["data.val_fraction"] = context.prepared.config.data.val_fraction
    context.console.print(f"scratch: {SMALL_NAME} at {SMALL_SIZE} px ({reason})")
    config = parse.with_settings(context.requested, settings)
    prepared = prepare(config, Console(quiet=True), recorded=context.prepared.members)
    chosen = {"network.name": SMALL_NAME, "preprocessing.size": SMALL_SIZE}
    extra = [Choice(setting, value, reason) for setting, value in chosen.items()]
    if not context.prepared.has_own_splits:  # it is given above, though it was chosen
        choices = context.prepared.choices
        extra += [choice for choice in choices if choice.setting == "data.val_fraction"]
    prepared = dataclasses.replace(prepared, choices=(*prepared.choices, *extra))
    return dataclasses.replace(context, prepared=prepared, weights=None, extractor=None, scores={})
