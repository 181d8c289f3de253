"""Runs with a transfer strategy: as a user starts, interrupts, resumes and uses them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from references.lines import Lines

import residua
from residua.config.parse import with_settings
from residua.config.recipes import compose, read_recipe
from residua.config.validate import checked
from residua.errors import ResiduaError
from residua.experiment import resume, train
from residua.networks.analysis.cost import measure
from residua.networks.analysis.shapes import on_meta
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo.catalogue import build_from
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.signals import Interrupted
from residua.transfer.context import StrategyContext
from residua.transfer.result import TransferResult
from residua.weights.load import read_file

ContextOf = Callable[..., StrategyContext]
QUICK = {"training.precision": "fp32", "network.stage": 3, "network.pool_size": 1}


def history_without_clocks(folder: RunFolder) -> list[dict[str, str]]:
    with (folder.path / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    clocks = ("images_per_second", "seconds")
    return [{key: row[key] for key in row if key not in clocks} for row in rows]


def test_only_strategies_that_use_the_weights_have_an_extractor(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    assert context_of(shapes, weights, "full").extractor is not None
    scratch = context_of(shapes, weights, "scratch")
    assert scratch.extractor is None
    assert scratch.with_extractor() is scratch


@pytest.mark.slow
@pytest.mark.parametrize("head", ["logistic", "mlp:16"])
def test_a_head_on_features_is_an_ordinary_run(
    with_splits: Path, weights: Path, tmp_path: Path, head: str
) -> None:
    before = {file: file.stat().st_mtime_ns for file in with_splits.rglob("*")}
    run = residua.train(
        with_splits,
        weights=weights,
        transfer="features",
        head=head,
        out=tmp_path / "run",
        epochs=3,
        settings=QUICK,
        quiet=True,
    )
    assert {file: file.stat().st_mtime_ns for file in with_splits.rglob("*")} == before
    reported = json.loads((run.path / "evaluations" / "test" / "scores.json").read_text())
    assert run.evaluate().metrics.accuracy == reported["accuracy"]
    assert reported["images"] == 12
    assert f"{100 * reported['accuracy']:.1f}" in (run.path / "report.html").read_text("utf-8")
    assert residua.load(run.path).config == run.config
    assert ": auto" not in (run.path / "config.yaml").read_text()
    result = TransferResult.from_json(run.folder.read_json("transfer.json"))
    assert [layer.stage for layer in result.layers] == [3]

    folder = with_splits / "test" / "class1"
    predictions = run.predict(folder, top=3)
    features = residua.features(run, folder)
    network = run.network()
    with torch.inference_mode():
        expected = network.head(torch.from_numpy(features.values)).softmax(1)  # type: ignore[operator]
    assert [row.file for row in predictions] == list(features.files)
    for row, probabilities in zip(predictions, expected, strict=True):
        for name, probability in row.top:
            index = run.classes.index(name)
            assert probability == pytest.approx(float(probabilities[index]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("features", {"network.head": "mlp:16", "network.stage": 3}),
        ("partial", {"transfer.views": 1}),
        ("full", {"network.head": "mlp:16", "optimization.ema_decay": 0.9}),
        ("none", {"network.new_head": True, "network.freeze": 2, "transfer.views": 1}),
    ],
)
def test_an_interrupted_run_resumes_with_the_same_bits(
    shapes: Path, weights: Path, tmp_path: Path, strategy: str, settings: dict[str, Any]
) -> None:
    named = {"transfer.strategy": strategy, "network.weights": str(weights), **settings}
    named |= {"training.epochs": 2, "training.precision": "fp32"}
    config = compose(shapes, None, named)
    whole = train(config, str(tmp_path / "whole"), Console(quiet=True), report=False)
    stopping = Lines(stop="epoch 1/2")
    if strategy == "full":
        stopping = Lines(stop="before training")  # not while its head alone is trained
    with pytest.raises(Interrupted):
        train(config, str(tmp_path / "broken"), stopping)
    broken = RunFolder(tmp_path / "broken")
    assert len((broken.path / "history.csv").read_text().split()) < 3
    measured = broken.path / "transfer.json"
    before = measured.read_text() if strategy in ("partial", "full") else None
    resume(broken, Console(quiet=True))
    assert history_without_clocks(broken) == history_without_clocks(whole)
    for name in ("best.safetensors", "last.safetensors"):
        assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert broken.config == whole.config
    if before is not None:
        assert measured.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["none", "full"])
def test_the_epochs_that_a_budget_planned_stay_after_an_interruption(
    shapes: Path, weights: Path, tmp_path: Path, strategy: str
) -> None:
    """Another number of epochs would be another schedule, and other weights at each step."""
    named = {"transfer.strategy": strategy, "transfer.budget": "6s"}
    named |= {"network.weights": str(weights), "network.new_head": True}
    config = compose(shapes, None, named)
    with pytest.raises(Interrupted):
        train(config, str(tmp_path / "run"), Lines(stop="epoch 1/"))
    run = RunFolder(tmp_path / "run")
    planned = run.config.training.epochs
    (choice,) = [choice for choice in run.choices if choice.setting == "training.epochs"]
    assert "of the budget" in choice.reason
    resume(run, Console(quiet=True))
    assert run.config.training.epochs == planned
    assert run.read_history()[-1]["epoch"] <= planned


@pytest.mark.slow
def test_the_settings_of_a_finished_search_train_the_same_weights(
    with_splits: Path, weights: Path, tmp_path: Path
) -> None:
    named = {"transfer.strategy": "auto", "network.weights": str(weights), **QUICK}
    config = compose(with_splits, None, {**named, "training.epochs": 1})
    first = train(config, str(tmp_path / "first"), Console(quiet=True), report=False)
    assert first.config.transfer.strategy != "auto"
    recipe = compose(with_splits, first.path / "config.yaml", {})
    again = train(recipe, str(tmp_path / "again"), Console(quiet=True), report=False)
    assert again.config == first.config
    tensors, others = read_file(first.weights).tensors, read_file(again.weights).tensors
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


@pytest.mark.slow
def test_a_search_killed_before_its_report_keeps_its_trials_and_its_reason(
    with_splits: Path, weights: Path, tmp_path: Path
) -> None:
    named = {"transfer.strategy": "auto", "network.weights": str(weights), **QUICK}
    config = compose(with_splits, None, {**named, "training.epochs": 1})
    run = train(config, str(tmp_path / "run"), Console(quiet=True), report=False)
    names = ("trials", "expected", "data", "scenario", "chosen", "reason")
    before, chosen = run.read_json("transfer.json"), run.choices
    assert before["chosen"] == "features"
    resume(run, Console(quiet=True))
    after = run.read_json("transfer.json")
    assert [after.get(name) for name in names] == [before.get(name) for name in names]
    assert run.choices == chosen
    assert run.is_finished


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"transfer.strategy": "auto", "network.name": "resnet18"}, "add --weights"),
        (
            {"transfer.strategy": "features", "network.weights": True, "network.stage": 4},
            "stage = 4: the network has stages 1 to 3",
        ),
    ],
)
def test_what_is_impossible_is_refused_before_there_is_a_run(
    shapes: Path, weights: Path, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    named = {name: str(weights) if value is True else value for name, value in settings.items()}
    with pytest.raises(ResiduaError, match=reason):
        train(compose(shapes, None, named), str(tmp_path / "run"), Console(quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "frozen", "total", "trainable"),
    [
        ("tutorial_frozen_head", 4, 24_114_826, 527_114),
        ("tutorial_vgg16_mnist", 5, 33_638_218, 18_923_530),
    ],
)
def test_recipes_of_the_tutorials_train_what_these_train(
    recipe: str, frozen: int, total: int, trainable: int
) -> None:
    """The totals that Keras prints in tutorials 2 and 3; the fast recipes differ in the head."""
    config = with_settings(read_recipe(recipe), {"network.weights": "w", "network.classes": 10})
    config = with_settings(checked(config), {"preprocessing.channels": 3})
    with on_meta():
        network = build_from(config.network_spec)
    freeze(network, frozen)
    cost = measure(network, (3, 48, 48))
    assert (cost.total, cost.trainable) == (total, trainable)
    fast = checked(
        with_settings(read_recipe(recipe.removeprefix("tutorial_")), {"network.weights": "w"})
    )
    assert fast.network.name == config.network.name
    assert fast.transfer.strategy == "features"
