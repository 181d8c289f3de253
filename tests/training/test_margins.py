"""Margins are averaged over the epochs, per image, and are in the run's checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from references.tasks import config_for, network_for, task_for
from safetensors.torch import load_file

from residua.data.batches import Batch
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.training.checkpoint import STATE
from residua.training.loop import fit
from residua.training.margins import Margins, recorded_margins
from residua.weights.native import read_weights


def batch_of(samples: list[int], labels: list[int]) -> Batch:
    tensor = torch.tensor(labels)
    return Batch(torch.zeros(len(labels), 1, 1, 1), tensor, tensor, np.array(samples))


def test_the_margin_is_to_the_largest_other_logit() -> None:
    margins = Margins(4, torch.device("cpu"))
    margins.add(batch_of([2, 0], [1, 0]), torch.tensor([[3.0, 5.0, 4.5], [1.0, 7.0, -1.0]]))
    margins.add(batch_of([2], [1]), torch.tensor([[0.0, 2.0, 0.5]]))
    assert margins.total.tolist() == [-6.0, 0.0, 0.5 + 1.5, 0.0]
    assert margins.epochs.tolist() == [1, 0, 2, 0]


def test_mixed_images_have_no_margin() -> None:
    margins = Margins(2, torch.device("cpu"))
    labels = torch.tensor([0, 1])
    mixed = Batch(torch.zeros(2, 1, 1, 1), torch.full((2, 2), 0.5), labels, np.array([0, 1]))
    margins.add(mixed, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert not margins.epochs.any()


def test_a_run_records_the_margins_of_its_training_images(tmp_path: Path) -> None:
    folder, config = RunFolder(tmp_path), config_for(training__epochs=3)
    task = task_for(config)
    fit(network_for(config), task, config, folder, Console(quiet=True))
    margins = recorded_margins(folder)
    assert margins is not None
    assert np.flatnonzero(np.isfinite(margins)).tolist() == sorted(task.batches.members.tolist())
    assert load_file(tmp_path / STATE)["margins.epochs"].max() == 3


def test_a_checkpoint_without_margins_is_continued(tmp_path: Path) -> None:
    """As version 0.1.0 wrote it."""
    folder, config = RunFolder(tmp_path), config_for(training__epochs=1)
    fit(network_for(config), task_for(config), config, folder, Console(quiet=True))
    tensors, metadata = read_weights(tmp_path / STATE)
    earlier = {name: value for name, value in tensors.items() if not name.startswith("margins.")}
    folder.write_weights(STATE, earlier, metadata)
    assert recorded_margins(folder) is None
    longer = config_for(training__epochs=2)
    progress = fit(network_for(longer), task_for(longer), longer, folder, Console(quiet=True))
    assert progress.epoch == 2
    margins = recorded_margins(folder)
    assert margins is not None
    assert np.isfinite(margins).any()
