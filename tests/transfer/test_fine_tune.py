"""Fine-tuning and training from scratch: what is frozen, what changes, and how fast."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from references.lines import Lines

from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.transfer import cached_batches
from residua.transfer.context import StrategyContext
from residua.transfer.fine_tune import TRANSFER, _with_learning_rate, fine_tune, fits
from residua.transfer.result import TransferResult
from residua.weights.load import read_file

pytestmark = pytest.mark.slow  # each test trains

ContextOf = Callable[..., StrategyContext]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.mark.parametrize("views", [0, 1])
def test_partial_fine_tuning_leaves_frozen_stages_bit_for_bit(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf, views: int
) -> None:
    """With or without a cache of their output."""
    console = Lines()
    settings = {"training__epochs": 1, "transfer__views": views}
    outcome = fine_tune(context_of(shapes, weights, "partial", console, **settings), folder)
    assert outcome.prepared.config.network.freeze == 2
    assert ("caching the output of 2 frozen stages" in console.text) == bool(views)
    assert "head initialised: linear probe on stage 3 (C =" in console.text
    source = read_file(weights).tensors
    tensors = read_file(folder.path / "last.safetensors").tensors
    frozen = ("stem.", "stages.0.", "stages.1.")
    for name, tensor in tensors.items():
        if name.startswith(frozen) or "running" in name or "tracked" in name:
            assert torch.equal(tensor, source[name]), name
        elif not name.startswith("head."):
            assert not torch.equal(tensor, source[name]), name
    written = TransferResult.from_json(json.loads((folder.path / TRANSFER).read_text()))
    assert written == outcome.result
    assert written.predicted_epochs == 1


def test_full_fine_tuning_changes_every_layer_from_a_head_that_classifies(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    settings = {"training__epochs": 1, "training__precise_bn_images": 0}  # as if trained
    context = context_of(shapes, weights, "full", **settings)
    outcome = fine_tune(context, folder)
    source = read_file(weights).tensors
    tensors = read_file(folder.path / "last.safetensors").tensors
    kernels = [name for name, tensor in tensors.items() if tensor.ndim == 4]
    assert kernels
    assert not any(torch.equal(tensors[name], source[name]) for name in kernels)
    assert outcome.prepared.config.optimization.layer_decay < 1
    assert outcome.progress.best is not None  # the initial weights were evaluated
    assert outcome.progress.best[0] > 0.6
    members = outcome.prepared.splits["validation"]
    correct = outcome.predict_logits(members).argmax(1) == outcome.prepared.labels[members]
    assert correct.mean() == pytest.approx(outcome.progress.best[0])


def test_training_from_scratch_uses_nothing_of_the_weights(
    shapes: Path, weights: Path, blind: Path, tmp_path: Path, context_of: ContextOf
) -> None:
    tensors = []
    for file in (weights, blind):
        folder = RunFolder(tmp_path / file.stem)
        folder.path.mkdir()
        outcome = fine_tune(context_of(shapes, file, "scratch", training__epochs=1), folder)
        assert outcome.result.layers == ()
        tensors.append(read_file(folder.weights).tensors)
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])


def test_a_budget_plans_the_epochs_and_explicit_settings_stay(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    settings = {"transfer__budget": "4s", "optimization__warmup_epochs": 0}
    outcome = fine_tune(context_of(shapes, weights, "full", **settings), folder)
    training = outcome.prepared.config.training
    assert 1 <= training.epochs <= 60
    (choice,) = [c for c in outcome.prepared.choices if c.setting == "training.epochs"]
    assert "of the budget" in choice.reason
    assert len(outcome.progress.history) <= training.epochs
    assert outcome.prepared.config.optimization.warmup_epochs == 0
    assert folder.config.training.epochs == training.epochs  # a resumed run does not replan


def test_too_few_epochs_are_not_started(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    context = context_of(shapes, weights, "full", transfer__budget="1s")
    assert not fits(context, 10)
    assert fits(context_of(shapes, weights, "full", transfer__budget="1h"), 10)
    with pytest.raises(ResiduaError, match="fewer than 50 epochs fit into the time left"):
        fine_tune(context, folder, least_epochs=50)
    assert not (folder.path / "best.safetensors").exists()


def test_why_frozen_stages_are_not_cached_is_printed_once(
    shapes: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though the batches are made again, without augmentation and for fewer images."""
    monkeypatch.setattr(cached_batches, "TIME_SHARE", 0)
    console = Lines()
    settings = {"transfer__budget": "3s", "transfer__views": 1}
    fine_tune(context_of(shapes, weights, "partial", console, **settings), folder)
    assert console.text.count("computed each time") == 1


def test_large_steps_are_taken_only_if_the_probe_fails_and_there_is_time(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    many = context_of(shapes, weights, "full", training__epochs=10)
    small = many.prepared.config.optimization
    large = _with_learning_rate(many, 0.5).prepared.config.optimization
    assert large.learning_rate > small.learning_rate
    assert large.layer_decay == 1.0
    few = context_of(shapes, weights, "full", training__epochs=9)
    assert _with_learning_rate(many, 0.95) is many
    assert _with_learning_rate(few, 0.5) is few
    explicit = {"optimization__learning_rate": 0.01, "optimization__layer_decay": 0.5}
    own = context_of(shapes, weights, "full", training__epochs=10, **explicit)
    assert _with_learning_rate(own, 0.5).prepared.config == own.prepared.config


def test_a_head_on_stage_1_leaves_nothing_to_freeze(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    context = context_of(shapes, weights, "full", network__stage=1)
    with pytest.raises(ResiduaError, match="the head reads stage 1, so nothing is frozen"):
        fine_tune(context.for_strategy("partial"), folder)


def test_a_damaged_result_is_refused_with_a_way_out(
    shapes: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
) -> None:
    context = context_of(shapes, weights, "partial", training__epochs=1, transfer__views=1)
    fine_tune(context, folder)
    for content in ("[1]", '{"layers": [{"stage": 1}]}', '{"surprise": 1}'):
        (folder.path / TRANSFER).write_text(content)
        with pytest.raises(ResiduaError, match=r"transfer\.json: is damaged.*Delete it"):
            fine_tune(context, folder)
    (folder.path / TRANSFER).unlink()
    assert fine_tune(context, folder).result == TransferResult()
