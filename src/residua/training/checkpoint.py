"""A training between two steps <-> one file, from which it goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.training.optimization import Average
from residua.training.validation import Judge
from residua.weights.native import Metadata, read_weights

STATE = "state.safetensors"


@dataclass
class Progress:
    """Where a training stands, as plain numbers.

    epoch: epochs that have ended. step: steps done of the running one. judged: batches judged at
    its end. loss, correct, images: sums over its steps. best: (accuracy or -loss, tie-breaker) of
    the best epoch. waited: epochs since then. history: a row for each epoch that has ended.
    """

    epoch: int = 0
    step: int = 0
    judged: int = 0
    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0
    best: list[float] | None = None
    best_epoch: int = 0
    waited: int = 0
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Learner:
    """Everything that changes while a network trains."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average
    judge: Judge
    progress: Progress

    def save(self, run: RunFolder, metadata: Metadata) -> None:
        """Write the state file, one atomic step."""
        tensors = {f"network.{name}": each for name, each in self.network.state_dict().items()}
        tensors |= {f"average.{place}": each for place, each in enumerate(self.average.values)}
        tensors |= {f"judge.{name}": each for name, each in self.judge.state().items()}
        numbers: dict[str, Any] = {}
        for place, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{place}.{name}"] = value
                else:
                    numbers[f"optimizer.{place}.{name}"] = value
        self.progress.judged = self.judge.position
        notes = {"progress": asdict(self.progress), "optimizer": numbers}
        described = Metadata(metadata.network, metadata.classes, metadata.preprocessing, notes)
        run.write_weights(STATE, tensors, described)

    def restore(self, run: RunFolder) -> None:
        """Take up the state file, if there is one. Raises ResiduaError if it does not fit."""
        path = run.path / STATE
        if not path.exists():
            return
        tensors, metadata = read_weights(path)
        try:
            self.network.load_state_dict(_under("network.", tensors))
            for place, value in enumerate(self.average.values):
                value.copy_(tensors[f"average.{place}"])
            self._restore_optimizer(tensors, metadata.notes["optimizer"])
            self.progress = Progress(**metadata.notes["progress"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ResiduaError(f"{path}: does not belong to this run: {first}.") from error
        if self.progress.judged:
            self.network.train()
            self.judge.begin(self.network, self.average, self.progress.epoch)
            self.judge.restore(_under("judge.", tensors), self.progress.judged)

    def _restore_optimizer(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Put each tensor of the optimizer's state into the memory layout of its parameter."""
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        state: dict[int, dict[str, Any]] = {}
        for key, value in {
            **_under("optimizer.", tensors),
            **_under("optimizer.", numbers),
        }.items():
            place, _, name = key.partition(".")
            parameter = parameters[int(place)]
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(place), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def restore_network(network: nn.Module, run: RunFolder) -> None:
    """The network of the state file alone, for what is computed with it before training goes on.

    Raises ResiduaError if it does not fit.
    """
    path = run.path / STATE
    tensors, _ = read_weights(path)
    try:
        network.load_state_dict(_under("network.", tensors))
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise ResiduaError(f"{path}: does not belong to this run: {first}.") from error


def _under(prefix: str, items: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): each for key, each in items.items() if key.startswith(prefix)}
