"""Parameter groups, schedules, class weights and averages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from references.tasks import config_for, network_for

from residua.config.schema import Optimization
from residua.training.optimization import (
    Average,
    balanced_weights,
    learning_rate_at,
    load_optimizer_state,
    optimizer_for,
    optimizer_state,
)

STEPS = 100


def rates(**settings: object) -> list[float]:
    fixed = {"learning_rate": 1.0, "warmup_epochs": 0.0}
    optimization = Optimization(**{**fixed, **settings})  # type: ignore[arg-type]
    return [learning_rate_at(optimization, step, STEPS, 10) for step in range(10 * STEPS)]


def test_schedules_have_the_shapes_of_their_names() -> None:
    assert set(rates(schedule="constant")) == {1.0}
    cosine = rates(schedule="cosine", warmup_epochs=1.0)
    assert max(cosine) == pytest.approx(1, abs=0.02)
    assert cosine[:STEPS] == sorted(cosine[:STEPS])
    assert cosine[STEPS:] == sorted(cosine[STEPS:], reverse=True)
    assert cosine[-1] < 1e-4
    steps = rates(schedule="steps", steps=((5, 0.1), (8, 0.01)))
    assert [steps[499], steps[500], steps[799], steps[800]] == [1.0, 0.1, 0.1, 0.01]
    one_cycle = rates(schedule="one_cycle", warmup_epochs=3.0)
    assert one_cycle[0] == pytest.approx(1 / 25, abs=0.01)
    assert np.argmax(one_cycle) in range(295, 305)


def test_inverse_time_decay_is_that_of_tutorial_3() -> None:
    """lr .05, decay 1e-5: .04954 after epoch 1, .04571 after 10, as in the tutorial."""
    optimization = Optimization(
        learning_rate=0.05, schedule="inverse_time", decay=1e-5, warmup_epochs=0.0
    )
    steps = math.ceil(60000 / 64)
    assert learning_rate_at(optimization, steps, steps, 10) == pytest.approx(0.04954, abs=5e-6)
    assert learning_rate_at(optimization, 10 * steps, steps, 10) == pytest.approx(0.04571, abs=5e-6)


def test_weight_decay_applies_to_kernels_only() -> None:
    config = config_for(optimization__weight_decay=0.5)
    network = network_for(config)
    optimizer = optimizer_for(network, config.optimization)
    decayed = {
        id(weight)
        for group in optimizer.param_groups
        if group["weight_decay"]
        for weight in group["params"]
    }
    for name, parameter in network.named_parameters():
        is_kernel = "conv" in name or name == "head.weight"
        assert (id(parameter) in decayed) == is_kernel, name


def test_layer_decay_lowers_the_learning_rate_towards_the_stem() -> None:
    config = config_for(network__stage=3, optimization__layer_decay=0.5)
    network = network_for(config)
    scale = {
        id(weight): group["lr_scale"]
        for group in optimizer_for(network, config.optimization).param_groups
        for weight in group["params"]
    }
    scales = {name: scale[id(weight)] for name, weight in network.named_parameters()}
    assert scales["head.weight"] == 1
    assert scales["stages.2.units.0.branch.conv1.weight"] == 0.5
    assert scales["stages.0.units.0.branch.conv1.weight"] == 0.125
    assert scales["stem.conv.weight"] == 0.0625


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_the_state_of_every_optimizer_round_trips(name: str) -> None:
    config = config_for(optimization__optimizer=name)
    networks = [network_for(config) for _ in range(2)]
    first, second = (optimizer_for(network, config.optimization) for network in networks)
    for weight in networks[0].parameters():
        weight.grad = torch.ones_like(weight)
    first.step()
    tensors, numbers = optimizer_state(first)
    load_optimizer_state(second, tensors | numbers)
    again_tensors, again_numbers = optimizer_state(second)
    assert tensors.keys() == again_tensors.keys()
    assert all(torch.equal(tensors[key], again_tensors[key]) for key in tensors)
    assert numbers == again_numbers


def test_balanced_weights_even_out_the_classes() -> None:
    counts = [90, 10, 0]
    weights = balanced_weights(counts)
    assert weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert sum(w * c for w, c in zip(weights, counts, strict=True)) == pytest.approx(100)


def test_the_average_follows_quickly_at_first() -> None:
    value = torch.zeros(1)
    average = Average([value], 0.99)
    average.update([torch.ones(1)], 0)
    assert average.values[0].item() == pytest.approx(0.9)
    assert Average([value], 0.0).values == []
