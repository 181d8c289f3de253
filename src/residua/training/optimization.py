"""Gradients -> steps: parameter groups, optimizers, learning rate schedules, weight averaging."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from residua.config.schema import Optimization


def optimizer_for(network: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    """The optimizer, with two groups per learning rate: kernels, which decay, and all others.

    With layer_decay below 1 each stage has its own two; "lr_scale" is the group's factor of the
    learning rate.
    """
    groups: list[dict[str, Any]] = []
    for scale, weights in _by_depth(network, settings.layer_decay):
        kernels = [weight for weight in weights if weight.ndim > 1]
        others = [weight for weight in weights if weight.ndim <= 1]  # biases and norms
        groups.append({"params": kernels, "lr_scale": scale})
        groups.append({"params": others, "lr_scale": scale, "weight_decay": 0.0})
    lr, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, lr, settings.momentum, 0, decay, nesterov, fused=True)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr, weight_decay=decay, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr, weight_decay=decay, fused=True)


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Its tensors and its numbers, by "index of the parameter.name"."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            target = tensors if isinstance(value, Tensor) else numbers
            target[f"{index}.{name}"] = value
    return tensors, numbers


def load_optimizer_state(optimizer: torch.optim.Optimizer, values: Mapping[str, Any]) -> None:
    """Restore what `optimizer_state` gave, each tensor in the memory layout of its parameter."""
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _by_depth(network: nn.Module, decay: float) -> list[tuple[float, list[Tensor]]]:
    """(factor of the learning rate, trainable parameters), from the head to the stem."""
    trainable = [
        (name, weight) for name, weight in network.named_parameters() if weight.requires_grad
    ]
    if decay == 1:
        return [(1.0, [weight for _, weight in trainable])]
    stages = len(network.stages)  # type: ignore[arg-type]
    by_distance: dict[int, list[Tensor]] = {}
    for name, weight in trainable:
        module, _, rest = name.partition(".")
        depth = {"stem": -1}.get(module, stages)
        if module == "stages":
            depth = int(rest.partition(".")[0])
        by_distance.setdefault(stages - depth, []).append(weight)
    return [(decay**distance, by_distance[distance]) for distance in sorted(by_distance)]


def learning_rate_at(settings: Optimization, step: int, steps: int, epochs: int) -> float:
    """The learning rate at a step (from 0) of `epochs` epochs of `steps` steps.

    cosine: Loshchilov and Hutter 2017, eq. 5, down to 0; one_cycle: the same after a warm-up from
    1/25 of the peak (Smith 2018); steps: the factor of the last pair whose epoch has started;
    inverse_time: Keras' decay, peak / (1 + decay x step).
    """
    peak, total = settings.learning_rate, steps * epochs
    warmup = min(settings.warmup_epochs * steps, total - 1)
    if step < warmup:
        start = 1 / 25 if settings.schedule == "one_cycle" else 0.0
        return peak * (start + (1 - start) * (step + 1) / (warmup + 1))
    if settings.schedule in ("cosine", "one_cycle"):
        passed = (step - warmup) / max(total - warmup, 1)
        return peak * 0.5 * (1 + math.cos(math.pi * passed))
    if settings.schedule == "steps":
        begun = [factor for epoch, factor in settings.steps if step >= epoch * steps]
        return peak * (begun[-1] if begun else 1.0)
    if settings.schedule == "inverse_time":
        return peak / (1 + settings.decay * step)
    return peak


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """A loss weight per class, inverse to its count; their mean over all images is 1."""
    present = sum(count > 0 for count in counts)
    return [sum(counts) / (present * count) if count else 0.0 for count in counts]


class Average:
    """Exponential average of the parameters; its decay is min(decay, (1 + t) / (10 + t))."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.decay = decay
        self.values = [weight.detach().clone() for weight in parameters] if decay else []

    def update(self, parameters: Iterable[Tensor], step: int) -> None:
        """Move towards the parameters after step `step` (from 0)."""
        if self.values:
            weight = 1 - min(self.decay, (1 + step) / (10 + step))
            current = [weight.detach() for weight in parameters]
            torch._foreach_lerp_(self.values, current, weight)
