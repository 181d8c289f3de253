"""What is evaluated after an epoch: a copy, with precise BN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references.tasks import config_for, network_for, task_for

from residua.networks.layers import BatchNorm
from residua.training.optimization import Average
from residua.training.validation import Validator, chunks


def test_precise_bn_replaces_lagging_statistics_on_a_copy() -> None:
    """With Keras' momentum and no steps, running statistics are useless, and precise ones exact."""
    config = config_for(training__precise_bn_images=36, training__batch_size=36)
    network, task = network_for(config).train(), task_for(config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    validator = Validator(network, task, config)
    validator.validate(network, Average([], 0.0), 0, lambda: None)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    inputs = task.batches.plain(task.batches.members)
    maps = network.stem.conv(inputs)  # type: ignore[operator, union-attr]
    precise = validator.network.stem.norm  # type: ignore[union-attr]
    torch.testing.assert_close(precise.running_mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    assert (network.stem.norm.running_mean - maps.mean((0, 2, 3))).abs().max() > 0.01  # type: ignore[union-attr, operator]
    assert all(
        norm.momentum == original.momentum
        for norm, original in zip(norms(validator.network), norms(network), strict=True)
    )


def norms(network: torch.nn.Module) -> list[BatchNorm]:
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


def test_frozen_statistics_stay() -> None:
    from residua.networks.surgery.freezing import freeze

    config = config_for()
    network = network_for(config)
    freeze(network, 1)
    validator = Validator(network.train(), task_for(config), config)
    validator.validate(network, Average([], 0.0), 0, lambda: None)
    for norm, original in zip(norms(validator.network), norms(network), strict=True):
        assert torch.equal(norm.running_mean, original.running_mean)  # type: ignore[arg-type]


def test_metrics_are_those_of_the_averaged_weights() -> None:
    config = config_for(optimization__ema_decay=0.9)
    network, task = network_for(config).train(), task_for(config)
    average = Average(network.parameters(), 0.9)
    with torch.no_grad():
        for value in average.values:
            value.zero_()
    validator = Validator(network, task, config)
    metrics = validator.validate(network, average, 0, lambda: None)
    assert metrics["val_loss"] == pytest.approx(np.log(3))  # all logits are 0
    repeated = validator.validate(network, average, 0, lambda: None)
    assert metrics == repeated


def test_chunks_are_nearly_equal() -> None:
    sizes = [len(chunk) for chunk in chunks(np.arange(10), 4)]
    assert sizes == [3, 3, 4]
    assert list(chunks(np.arange(0), 4)) == []
