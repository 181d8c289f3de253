"""Gradients -> steps: parameter groups, optimizers, the rate of a step, averaging."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from residua.config.schema import Optimization


def optimizer_for(network: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    """The optimizer over pairs of groups: kernels, which decay, and biases and norms, which do not.

    A pair for each stage where layer_decay is below 1; "factor" is the group's share of the rate.
    """
    groups: list[dict[str, Any]] = []
    for factor, trained in _by_distance(network, settings.layer_decay):
        groups += [
            {"params": [each for each in trained if each.ndim > 1], "factor": factor},
            {
                "params": [each for each in trained if each.ndim <= 1],
                "factor": factor,
                "weight_decay": 0.0,
            },
        ]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, rate, settings.momentum, 0, decay, nesterov, fused=True)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, rate, weight_decay=decay, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, rate, weight_decay=decay, fused=True)


def _by_distance(network: nn.Module, decay: float) -> list[tuple[float, list[Tensor]]]:
    """(factor of the rate, parameters that learn), from the head to the stem."""
    named = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    if decay == 1:
        return [(1.0, [each for _, each in named])]
    stages = len(network.stages)  # type: ignore[arg-type]
    found: dict[int, list[Tensor]] = {}
    for name, each in named:
        part, _, rest = name.partition(".")
        place = {"stem": -1}.get(part, stages)
        if part == "stages":
            place = int(rest.partition(".")[0])
        found.setdefault(stages - place, []).append(each)
    return [(decay**distance, found[distance]) for distance in sorted(found)]


def rate_at(settings: Optimization, step: int, steps: int, epochs: int) -> float:
    """The learning rate of a step (from 0) of a training of `epochs` epochs of `steps` steps.

    cosine: Loshchilov and Hutter 2017, eq. 5, down to 0 at the end; one_cycle: the same from
    rate/25 and with the warm-up as its first leg (Smith 2018); steps: the factor of the last pair
    whose epoch has begun; inverse_time: Keras' decay, rate / (1 + decay x step).
    """
    total = steps * epochs
    warmup = min(settings.warmup_epochs * steps, total - 1)
    if step < warmup:
        start = 1 / 25 if settings.schedule == "one_cycle" else 0.0
        return settings.learning_rate * (start + (1 - start) * (step + 1) / (warmup + 1))
    if settings.schedule in ("cosine", "one_cycle"):
        passed = (step - warmup) / max(total - warmup, 1)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))
    if settings.schedule == "steps":
        begun = [factor for epoch, factor in settings.steps if step >= epoch * steps]
        return settings.learning_rate * (begun[-1] if begun else 1.0)
    if settings.schedule == "inverse_time":
        return settings.learning_rate / (1 + settings.decay * step)
    return settings.learning_rate


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """A loss weight per class, inverse to its count, whose mean over the images is 1."""
    present = sum(count > 0 for count in counts)
    return [sum(counts) / (present * count) if count else 0.0 for count in counts]


class Average:
    """Exponential average of the parameters; its decay is min(decay, (1 + t) / (10 + t))."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.decay = decay
        self.values = [each.detach().clone() for each in parameters] if decay else []

    def update(self, parameters: Iterable[Tensor], step: int) -> None:
        """Move towards the parameters after step `step` (from 0)."""
        if self.values:
            weight = 1 - min(self.decay, (1 + step) / (10 + step))
            current = [each.detach() for each in parameters]
            torch._foreach_lerp_(self.values, current, weight)
