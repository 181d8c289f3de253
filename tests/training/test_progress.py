"""Which epoch is the best, and progress that earlier versions saved."""

from __future__ import annotations

import dataclasses
import math

import pytest

from residua.training.progress import Progress


def test_a_higher_accuracy_wins_then_a_lower_loss_then_the_earlier_epoch() -> None:
    progress = Progress()
    assert progress.improve({"val_accuracy": 0.5, "val_loss": 1.0}, "accuracy", 1)
    assert not progress.improve({"val_accuracy": 0.5, "val_loss": 1.0}, "accuracy", 2)
    assert progress.improve({"val_accuracy": 0.5, "val_loss": 0.9}, "accuracy", 3)
    assert not progress.improve({"val_accuracy": 0.4, "val_loss": 0.1}, "accuracy", 4)
    assert (progress.best_epoch, progress.waited) == (3, 1)


def test_select_loss_ranks_by_loss() -> None:
    progress = Progress()
    progress.improve({"val_accuracy": 0.5, "val_loss": 1.0}, "loss", 1)
    assert progress.improve({"val_accuracy": 0.4, "val_loss": 0.9}, "loss", 2)


def test_a_loss_that_is_not_finite_is_the_worst() -> None:
    progress = Progress()
    progress.improve({"val_accuracy": 0.5, "val_loss": math.nan}, "accuracy", 1)
    assert progress.improve({"val_accuracy": 0.5, "val_loss": 9.0}, "accuracy", 2)


def test_without_validation_nothing_is_the_best() -> None:
    progress = Progress()
    assert not progress.improve({"loss": 1.0}, "accuracy", 1)
    assert progress.best is None


def test_the_keys_of_version_0_1_0_are_read() -> None:
    values = dataclasses.asdict(Progress(epoch=1, images=7, history=[{"epoch": 1.0}]))
    values["pictures"], values["judged"] = values.pop("images"), 3
    values["history"] = [{"epoch": 1.0, "rate": 0.1, "pictures_per_second": 5.0}]
    progress = Progress.from_json(values)
    assert progress.images == 7
    assert progress.history == [{"epoch": 1.0, "learning_rate": 0.1, "images_per_second": 5.0}]


@pytest.mark.parametrize(
    "damage",
    [
        {"epoch": "1"},
        {"epoch": -1},
        {"epoch": 1},
        {"step": 10**400},
        {"history": 5},
        {"history": [{"loss": "low"}], "epoch": 1},
        {"best": ["high", 1]},
        {"unknown": 1},
    ],
)
def test_a_damaged_progress_is_refused(damage: dict[str, object]) -> None:
    values = dataclasses.asdict(Progress())
    assert Progress.from_json(values) == Progress()
    with pytest.raises((AttributeError, TypeError, ValueError)):
        Progress.from_json({**values, **damage})
