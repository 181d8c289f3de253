"""The settings of a strategy: automatic ones are chosen for it, explicit ones stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from residua.config.validate import checked
from residua.transfer.context import StrategyContext

ContextOf = Callable[..., StrategyContext]


@pytest.mark.parametrize("strategy", ["features", "partial", "full", "scratch"])
def test_automatic_settings_are_those_of_the_strategy_by_itself(
    shapes: Path, weights: Path, context_of: ContextOf, strategy: str
) -> None:
    auto = context_of(shapes, weights, "auto").for_strategy(strategy).prepared.config
    alone = context_of(shapes, weights, strategy).prepared.config
    assert auto.optimization == alone.optimization
    assert auto.transfer == alone.transfer
    assert auto.training == alone.training
    assert auto.network.head == alone.network.head
    checked(auto)


def test_explicit_settings_stay_in_every_strategy(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    settings = {"optimization__learning_rate": 0.123, "training__epochs": 4}
    context = context_of(shapes, weights, "auto", **settings)
    for strategy in ("features", "full", "scratch"):
        config = context.for_strategy(strategy).prepared.config
        assert (config.optimization.learning_rate, config.training.epochs) == (0.123, 4)


def test_training_from_scratch_drops_the_settings_of_frozen_stages(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    context = context_of(shapes, weights, "auto", transfer__views=2, network__stage=2)
    config = context.for_strategy("scratch").prepared.config
    checked(config)
    assert (config.transfer.views, config.network.stage, config.network.pool_size) == (
        0,
        None,
        None,
    )


def test_an_explicit_setting_changes_only_if_it_is_allowed(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    context = context_of(shapes, weights, "full", training__epochs=7)
    assert context.choose("training.epochs", 1, "a trial") is not context
    assert context.choose("training.epochs", 1, "a trial").prepared is context.prepared
    changed = context.allow_change("training.epochs").choose("training.epochs", 1, "a trial")
    assert changed.prepared.config.training.epochs == 1
    assert context.prepared.config.training.epochs == 7
