"""A network in training -> loss and accuracy on parts it does not learn, and a copy to keep.

What is judged is a copy: averaged parameters where there is an average, and BatchNorm statistics
that are estimated anew. The running ones lag; with Keras' momentum of .99 they still hold a third
of their start after a hundred steps, and a network judged with them can be nonsense that trains
well (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.config.schema import Config
from residua.data.batches import Inputs
from residua.data.random import Integers, shuffled
from residua.system.device import autocast
from residua.training.optimization import Average

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
STATISTICS = "statistics"


@dataclass
class Judge:
    """Works through a list of batches, one at a time, and can be stopped and restored between two.

    parts: name -> sample numbers, in the order of judging. cut: see Task.
    """

    network: nn.Module
    inputs: Inputs
    parts: Mapping[str, Integers]
    config: Config
    cut: int = 0
    position: int = 0
    logits: dict[str, list[Tensor]] = field(default_factory=dict)
    plan: list[tuple[str, Integers]] = field(default_factory=list)

    def begin(self, network: nn.Module, average: Average, epoch: int) -> None:
        """Copy the network as it stands and plan the batches of this epoch."""
        self.network.load_state_dict(network.state_dict())
        if average.values:
            for parameter, value in zip(self.network.parameters(), average.values, strict=True):
                parameter.data.copy_(value)
        for mine, theirs in zip(self.network.modules(), network.modules(), strict=True):
            mine.training = theirs.training
        training = self.config.training
        wanted = min(training.precise_bn_images, len(self.inputs.members))
        chosen = shuffled(training.seed, epoch, self.inputs.members)[:wanted]
        batch = training.batch_size
        self.plan = [(STATISTICS, each) for each in _pieces(chosen, batch)] if self.norms else []
        for part, members in self.parts.items():
            self.plan += [(part, each) for each in _pieces(members, batch)]
        self.position, self.logits = 0, {part: [] for part in self.parts}

    @property
    def has_norms(self) -> bool:
        """Whether there is anything to estimate at all."""
        return any(
            isinstance(each, NORMS) and not getattr(each, "frozen", False)
            for each in self.network.modules()
        )

    @property
    def norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        """The norms whose statistics are not frozen."""
        return [
            each for each in self.network.modules() if isinstance(each, NORMS) and each.training
        ]

    def steps(self) -> Iterator[None]:
        """Work off what is left of the plan, one batch at a time."""
        norms, momenta = self.norms, [each.momentum for each in self.norms]
        for place in range(self.position, len(self.plan)):
            kind, samples = self.plan[place]
            if place == 0 and kind == STATISTICS:
                for norm in norms:
                    norm.reset_running_stats()
            self.network.eval()
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.train(kind == STATISTICS)
                norm.momentum = None if kind == STATISTICS else momentum  # None: a plain average
            x = self.inputs.plain(samples)
            with torch.no_grad(), autocast(x.device, self.config.training.precision):
                logits = logits_from(self.network, x, self.cut)
            if kind != STATISTICS:
                self.logits[kind].append(logits.float())
            self.position = place + 1
            for norm in norms:  # so that a restored judge knows them
                norm.train()
            yield
        self.network.eval()

    def results(self) -> dict[str, float]:
        """loss and accuracy of each part, as "val_loss", "val_accuracy", "test_loss", ...

        The loss is the plain cross entropy, without smoothing, weights or decay.
        """
        found: dict[str, float] = {}
        for part, members in self.parts.items():
            logits = torch.cat(self.logits[part]).double().cpu()
            labels = torch.from_numpy(self.inputs.labels[members])
            prefix = {"validation": "val"}.get(part, part)
            found[f"{prefix}_loss"] = F.cross_entropy(logits, labels).item()
            found[f"{prefix}_accuracy"] = (logits.argmax(1) == labels).double().mean().item()
        return found

    def state(self) -> dict[str, Tensor]:
        """Tensors from which `restore` continues; nothing at the start of the plan."""
        if self.position == 0:
            return {}
        buffers = {f"buffer.{name}": each for name, each in self.network.named_buffers()}
        logits = {f"logits.{part}": torch.cat(each) for part, each in self.logits.items() if each}
        return buffers | logits

    def restore(self, tensors: Mapping[str, Tensor], position: int) -> None:
        """Take up a judging that `begin` has planned again."""
        for name, buffer in self.network.named_buffers():
            if f"buffer.{name}" in tensors:
                buffer.copy_(tensors[f"buffer.{name}"])
        for part in self.parts:
            if f"logits.{part}" in tensors:
                self.logits[part] = [tensors[f"logits.{part}"].to(self.inputs.device)]
        self.position = position


def judge_for(
    network: nn.Module, inputs: Inputs, parts: Mapping[str, Integers], config: Config, cut: int
) -> Judge:
    """A judge with a copy of its own of the network."""
    return Judge(copy.deepcopy(network), inputs, parts, config, cut)


def logits_from(network: nn.Module, x: Tensor, cut: int) -> Tensor:
    """Images [B, C, S, S], or what the first `cut` stages made of them -> logits [B, K]."""
    return network.leave(x, cut) if cut else network(x)  # type: ignore[operator, no-any-return]


def _pieces(members: Integers, batch: int) -> list[Integers]:
    """Consecutive pieces of nearly equal length, none above `batch`."""
    count = -(-len(members) // batch)
    return [
        members[each * len(members) // count : (each + 1) * len(members) // count]
        for each in range(count)
    ]
