"""A network in training -> its loss and accuracy on other splits, and a copy that can be saved.

The copy is evaluated, not the network: averaged parameters where there is an EMA, and precise BN,
statistics that are re-estimated on training images. Running statistics lag behind; with Keras'
momentum of .99 they still hold a third of their initial value after a hundred steps, and a network
that trains well can seem useless (Wu and Johnson 2021, "Rethinking Batch in BatchNorm",
section 3).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.config.schema import Config
from residua.data.random import Integers, shuffled
from residua.system.device import autocast
from residua.training.optimization import Average
from residua.training.progress import Task

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Validator:
    """Evaluates a copy of a network after each epoch; `network` is that copy."""

    def __init__(self, network: nn.Module, task: Task, config: Config) -> None:
        self.network = copy.deepcopy(network)
        self.task, self.config = task, config

    @torch.no_grad()
    def validate(
        self, network: nn.Module, average: Average, epoch: int, after_batch: Callable[[], None]
    ) -> dict[str, float]:
        """Loss and accuracy of each split: "val_loss", "val_accuracy", "test_loss", ...

        The loss is plain cross entropy, without smoothing, class weights or decay. Repeating it
        gives the same bits, so nothing of it is saved when it is interrupted.
        """
        self._copy(network, average)
        self._estimate_statistics(epoch, after_batch)
        metrics: dict[str, float] = {}
        for split, members in self.task.eval_splits.items():
            logits = []
            for samples in chunks(members, self.config.training.batch_size):
                logits.append(self._forward(samples).float())
                after_batch()
            outputs = torch.cat(logits).double().cpu()
            labels = torch.from_numpy(self.task.batches.labels[members])
            prefix = {"validation": "val"}.get(split, split)
            metrics[f"{prefix}_loss"] = F.cross_entropy(outputs, labels).item()
            metrics[f"{prefix}_accuracy"] = (outputs.argmax(1) == labels).double().mean().item()
        return metrics

    def _copy(self, network: nn.Module, average: Average) -> None:
        self.network.load_state_dict(network.state_dict())
        if average.values:
            for parameter, value in zip(self.network.parameters(), average.values, strict=True):
                parameter.copy_(value)
        self.network.eval()

    def _estimate_statistics(self, epoch: int, after_batch: Callable[[], None]) -> None:
        """Precise BN: the plain average over batches of training images, without augmentation."""
        norms, training = trainable_norms(self.network), self.config.training
        members = shuffled(training.seed, epoch, self.task.batches.members)
        members = members[: training.precise_bn_images]
        if not norms or not len(members):
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for samples in chunks(members, training.batch_size):
            self._forward(samples)
            after_batch()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    def _forward(self, samples: Integers) -> Tensor:
        x = self.task.batches.plain(samples)
        with autocast(x.device, self.config.training.precision):
            return forward(self.network, x, self.task.batches.stages)


def trainable_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers whose statistics are not frozen."""
    return [
        module
        for module in network.modules()
        if isinstance(module, NORMS) and not getattr(module, "frozen", False)
    ]


def forward(network: nn.Module, x: Tensor, stages: int) -> Tensor:
    """Images [B, C, S, S], or the output of the first `stages` stages -> logits [B, K]."""
    return network.leave(x, stages) if stages else network(x)  # type: ignore[operator, no-any-return]


def chunks(members: Integers, size: int) -> Iterator[Integers]:
    """Consecutive chunks of nearly equal length, none above `size`."""
    count = -(-len(members) // size)
    for number in range(count):
        yield members[number * len(members) // count : (number + 1) * len(members) // count]
