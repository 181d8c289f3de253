"""The training loop on a small network: the same bits however often it is interrupted."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from references.tasks import config_for, network_for, task_for
from safetensors.torch import load_file

from residua.config.schema import Config
from residua.data.batches import Batch
from residua.runs.folder import BEST, RunFolder
from residua.system.console import Console
from residua.system.signals import Interrupted
from residua.training.loop import Trainer, fit
from residua.training.meter import Diverged
from residua.training.progress import Progress, Task
from residua.weights.load import read_file
from residua.weights.network import build_network

QUIET = Console(quiet=True)


def run(folder: Path, config: Config, task: Task | None = None) -> Progress:
    folder.mkdir(exist_ok=True)
    task = task_for(config) if task is None else task
    return fit(network_for(config), task, config, RunFolder(folder), QUIET)


def interrupted_at(task: Task, epoch: int, step: int, number: int = signal.SIGINT) -> Task:
    """The same task; a signal arrives while that batch is prepared."""
    batch_of: Callable[[int, int], Batch] = task.batches.batch

    def batch(at_epoch: int, at_step: int) -> Batch:
        if (at_epoch, at_step) == (epoch, step):
            signal.raise_signal(number)
        return batch_of(at_epoch, at_step)

    task.batches.batch = batch  # type: ignore[method-assign]
    return task


def same(first: Path, second: Path) -> bool:
    left, right = load_file(first), load_file(second)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def without_clocks(history: list[dict[str, float]]) -> list[dict[str, float]]:
    clocks = ("images_per_second", "seconds")
    return [{key: row[key] for key in row if key not in clocks} for row in history]


BUSY = {
    "optimization__ema_decay": 0.9,
    "optimization__optimizer": "adamw",
    "optimization__learning_rate": 0.003,
    "optimization__class_weights": "balanced",
    "optimization__clip_grad_norm": 1.0,
}


@pytest.mark.parametrize("settings", [{}, BUSY], ids=["sgd", "adamw with EMA"])
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (1, 1), (2, 2)])
def test_an_interrupted_training_continues_with_the_same_bits(
    tmp_path: Path, settings: dict[str, object], epoch: int, step: int
) -> None:
    config = config_for(**settings)
    whole = run(tmp_path / "whole", config)
    with pytest.raises(Interrupted, match="residua resume"):
        run(tmp_path / "broken", config, interrupted_at(task_for(config), epoch, step))
    continued = run(tmp_path / "broken", config)
    assert without_clocks(continued.history) == without_clocks(whole.history)
    for name in ("best.safetensors", "last.safetensors", "state.safetensors"):
        assert same(tmp_path / "whole" / name, tmp_path / "broken" / name), name


def test_a_validation_that_is_interrupted_is_repeated(tmp_path: Path) -> None:
    config = config_for(training__save_seconds=0.0)
    whole = run(tmp_path / "whole", config)
    task = task_for(config)
    plain = task.batches.plain
    calls: list[int] = []

    def signal_in_the_second_validation(samples: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:  # three batches each: two of precise BN, one of validation
            signal.raise_signal(signal.SIGTERM)
        return plain(samples)  # type: ignore[arg-type]

    task.batches.plain = signal_in_the_second_validation  # type: ignore[method-assign]
    with pytest.raises(Interrupted) as caught:
        run(tmp_path / "broken", config, task)
    assert caught.value.number == signal.SIGTERM
    continued = run(tmp_path / "broken", config)
    assert without_clocks(continued.history) == without_clocks(whole.history)
    assert same(tmp_path / "whole/last.safetensors", tmp_path / "broken/last.safetensors")


def test_the_best_epoch_is_saved_and_the_earlier_of_equals(tmp_path: Path) -> None:
    progress = run(tmp_path / "run", config_for(training__epochs=5))
    best = max(
        progress.history, key=lambda row: (row["val_accuracy"], -row["val_loss"], -row["epoch"])
    )
    assert progress.best_epoch == best["epoch"]
    assert progress.history[-1]["loss"] < progress.history[0]["loss"]
    every = config_for(training__epochs=5, training__save_every=1)
    run(tmp_path / "every", every)
    epoch = f"epoch-{progress.best_epoch:04}.safetensors"
    assert same(tmp_path / "run/best.safetensors", tmp_path / "every" / epoch)


def test_weights_multiply_the_losses(tmp_path: Path) -> None:
    """Equal weights change no bit; without the others, images of one class train the network."""
    config = config_for(training__epochs=4)
    plain, equal, single = (task_for(config) for _ in range(3))
    labels = equal.batches.labels
    equal.batches.weights = np.ones(len(labels))
    single.batches.weights = np.where(labels == 1, 3.0, 1e-6)
    for name, task in (("plain", plain), ("equal", equal), ("single", single)):
        run(tmp_path / name, config, task)
    assert same(tmp_path / "plain" / BEST, tmp_path / "equal" / BEST)
    network = build_network(read_file(tmp_path / "single" / BEST), torch.device("cpu"))
    with torch.inference_mode():
        logits = network(single.batches.plain(single.batches.members))
    assert (logits.argmax(dim=1) == 1).all()


def test_patience_stops_training_and_the_best_weights_remain(tmp_path: Path) -> None:
    config = config_for(training__epochs=30, training__patience=2, optimization__learning_rate=0.0)
    progress = run(tmp_path / "run", config)
    assert progress.epoch == progress.best_epoch + 2 < 30
    assert (tmp_path / "run/last.safetensors").exists()


def test_no_epoch_begins_after_the_deadline(tmp_path: Path) -> None:
    config = config_for(training__epochs=50)
    progress = run(tmp_path / "run", config, task_for(config, deadline=time.monotonic()))
    assert progress.epoch == 1
    assert progress.stopped


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    config = config_for(optimization__learning_rate=1e30, optimization__schedule="constant")
    with pytest.raises(Diverged, match=r"loss became .* epoch \d+, step \d+, at learning rate"):
        run(tmp_path / "run", config)
    saved = load_file(tmp_path / "run/state.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_without_a_validation_set_the_last_weights_are_written_early(tmp_path: Path) -> None:
    config = config_for(training__epochs=2, training__save_seconds=20.0)
    progress = run(tmp_path / "run", config, task_for(config, validation=False))
    assert not (tmp_path / "run/best.safetensors").exists()
    assert "val_loss" not in progress.history[0]
    assert progress.best is None
    task = interrupted_at(task_for(config, validation=False), 1, 1)
    with pytest.raises(Interrupted):
        run(tmp_path / "early", config, task)
    assert (tmp_path / "early/last.safetensors").exists()


def test_initial_weights_can_be_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(training__epochs=4)
    trained = network_for(config)
    folder = tmp_path / "first"
    folder.mkdir()
    fit(trained, task_for(config), config, RunFolder(folder), QUIET)
    harmful = config_for(training__epochs=1, optimization__learning_rate=5.0)
    (tmp_path / "second").mkdir()
    task = task_for(harmful)
    task = Task(task.batches, task.eval_splits, task.class_counts, task.metadata, None, True)
    progress = fit(trained, task, harmful, RunFolder(tmp_path / "second"), Console())
    assert progress.best_epoch == 0
    assert progress.best is not None
    assert progress.best[0] > progress.history[0]["val_accuracy"]
    printed = " ".join(capsys.readouterr().err.split())
    assert "no epoch was better than the weights before fine-tuning" in printed


def test_training_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run(tmp_path / "run", config_for(training__epochs=1))
    assert torch.equal(torch.rand(4), expected)


def test_state_dict_round_trips() -> None:
    config = config_for(**BUSY)
    first, second = (Trainer(network_for(config), task_for(config), config) for _ in range(2))
    first.progress.epoch, first.progress.history = 1, [{"epoch": 1.0, "loss": 0.5}]
    with torch.no_grad():
        for weight in first.parameters:
            weight += 1
    second.load_state_dict(*first.state_dict())
    assert second.progress == first.progress
    state, expected = second.network.state_dict(), first.network.state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_trainings_in_threads_do_not_disturb_each_other_nor_the_caller(tmp_path: Path) -> None:
    config = config_for(network__head="mlp:16")  # with dropout
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        alone, *others = pool.map(
            lambda name: run(tmp_path / name, config), ("alone", "a", "b", "c"), timeout=60
        )
    assert torch.equal(torch.get_rng_state(), before)
    for name, other in zip("abc", others, strict=True):
        assert without_clocks(other.history) == without_clocks(alone.history)
        assert same(tmp_path / "alone/last.safetensors", tmp_path / name / "last.safetensors")


def test_training_continues_when_nobody_reads_its_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        config = config_for()
        folder = RunFolder(tmp_path)
        progress = fit(network_for(config), task_for(config), config, folder, Console())
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    assert progress.epoch == config.training.epochs
    assert folder.read_history()[-1]["epoch"] == progress.epoch
