"""How many epochs fit into a time budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from references.tasks import config_for, network_for, task_for

from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training import throughput


@pytest.fixture(scope="module")
def prepared(shapes: Path) -> Prepared:
    config = with_settings(
        Config(), {"data.path": str(shapes), "preprocessing.size": 16, "training.batch_size": 4}
    )
    return prepare(config, Console(quiet=True))


def test_throughput_is_measured_without_training_anything() -> None:
    config = config_for()
    network, task = network_for(config), task_for(config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    speed = throughput.measure_throughput(network, task.batches, config)
    assert speed.step > 0
    assert speed.evaluation == speed.full_evaluation > 0
    assert all((before[name] == value).all() for name, value in network.state_dict().items())


def test_an_epoch_counts_steps_validation_and_precise_bn() -> None:
    config, speed = config_for(), throughput.Throughput(2.0, 0.5, 0.5)
    seconds = throughput.epoch_seconds(speed, task_for(config).batches, config, validated=10)
    assert seconds == pytest.approx(3 * 2.0 + (10 + 16) * 0.5, abs=0.1)


def test_as_many_epochs_as_fit_are_planned_and_the_warm_up_follows(prepared: Prepared) -> None:
    batches = prepared.training_batches()
    planned = throughput.plan_epochs(prepared, 100.0, 10.0, batches)
    assert planned.config.training.epochs == 9  # with a margin
    assert planned.config.optimization.warmup_epochs == pytest.approx(0.9)
    reasons = {choice.setting: choice.reason for choice in planned.choices}
    assert "fit into 100 s" in reasons["training.epochs"]
    usual = prepared.config.training.epochs
    assert throughput.plan_epochs(prepared, 1e6, 1.0, batches).config.training.epochs == usual


def test_less_than_an_epoch_trains_on_fewer_images(prepared: Prepared) -> None:
    planned = throughput.plan_epochs(prepared, 5.0, 10.0, prepared.training_batches())
    assert planned.config.training.epochs == 1
    assert 0 < planned.config.training.max_images < len(prepared.splits["train"])
    assert len(planned.training_members) == planned.config.training.max_images


def test_explicit_epochs_win_over_the_budget(prepared: Prepared) -> None:
    choices = tuple(c for c in prepared.choices if c.setting != "training.epochs")
    explicit = dataclasses.replace(prepared, choices=choices)
    planned = throughput.plan_epochs(explicit, 5.0, 10.0, prepared.training_batches())
    assert planned.config.training.epochs == prepared.config.training.epochs
    assert throughput.deadline(explicit, Clock(1.0)) is None
    assert throughput.deadline(prepared, Clock(1.0)) is not None
