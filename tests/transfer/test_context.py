"""The settings of a strategy: automatic ones are chosen for it, explicit ones stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from residua.config.validate import check
from residua.data.prepared import with_validation_set
from residua.transfer.context import Context, CrossValidated

ContextOf = Callable[..., Context]


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
    check(auto)


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
    check(config)
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


def test_a_probe_is_compared_by_a_head_that_saw_the_same_images_as_its_rivals(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    """With labels that features do not explain, a head on all images would know every answer."""
    prepared = context_of(shapes, weights, "features").prepared
    divided = with_validation_set(prepared, 0.3, "to compare")
    samples = prepared.splits["train"]
    features = np.random.default_rng(0).normal(size=(len(samples), 256)).astype(np.float32)
    none = np.zeros(len(samples), bool)
    logits = np.zeros((len(samples), 3), np.float32)
    crossed = CrossValidated(samples, none, ~none, logits, features, 1.0)

    held_out = divided.splits["validation"]
    correct = crossed.correct_without(held_out, divided)

    trained = np.isin(samples, divided.splits["train"])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-6, max_iter=2_000))
    model.fit(features[trained], prepared.labels[samples[trained]])
    expected = model.predict(features[~trained]) == prepared.labels[samples[~trained]]
    assert correct is not None
    assert dict(zip(held_out.tolist(), correct.tolist(), strict=True)) == dict(
        zip(samples[~trained].tolist(), expected.tolist(), strict=True)
    )
    assert not correct.all()
    unknown = np.array([10_000])
    assert crossed.correct_without(unknown, divided) is None
