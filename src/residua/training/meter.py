"""Losses and logits of steps -> running sums of an epoch, kept on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from residua.errors import ResiduaError
from residua.training.checkpoint import Progress

_ADVICE = (
    "The last good checkpoint and weights remain. Start again with a smaller --lr, a longer "
    "optimization.warmup_epochs, --set optimization.clip_grad_norm=1, or --precision fp32."
)


class Diverged(ResiduaError):  # noqa: N818 - a result of a training
    """A loss or a weight is not finite; the last good state and weights remain."""


class Meter:
    """Running sums of loss and accuracy, on the device; complains of a loss that is not finite.

    On a CPU every loss is looked at before its gradient is taken, on a GPU a few times a second, so
    that it never waits, and always before anything is saved.
    """

    def __init__(self, progress: Progress, device: torch.device) -> None:
        self.progress, self.at_once = progress, device.type == "cpu"
        self.loss = torch.tensor(progress.loss, dtype=torch.float64, device=device)
        self.correct = torch.tensor(progress.correct, dtype=torch.int64, device=device)
        self.unseen: list[tuple[int, float, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, rate: float) -> None:
        """Count a step's mean loss [] and its logits [B, K] against labels [B]."""
        self.unseen.append((self.progress.step + 1, rate, loss))
        if self.at_once:
            self.check()
        self.loss += loss.double() * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        self.progress.images += len(labels)

    def check(self) -> None:
        """Look at the losses since the last time. Raises Diverged if one is not finite."""
        if not self.unseen:
            return
        values = torch.stack([each for _, _, each in self.unseen]).tolist()
        for (step, rate, _), value in zip(self.unseen, values, strict=True):
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss became {value} in epoch {self.progress.epoch + 1}, step {step}, at "
                    f"rate {rate:.3g}. {_ADVICE}"
                )
        self.unseen.clear()

    def collect(self, weights: Iterable[Tensor]) -> None:
        """Check losses and weights, and move the sums into the progress. Raises Diverged."""
        self.check()
        norms = torch._foreach_norm([each.detach() for each in weights])
        if not torch.stack([each.float() for each in norms]).isfinite().all():
            raise Diverged(
                f"a weight is no longer finite in epoch {self.progress.epoch + 1}, after step "
                f"{self.progress.step}. {_ADVICE}"
            )
        self.progress.loss = self.loss.item()
        self.progress.correct = int(self.correct.item())

    def reset(self) -> None:
        """Start an epoch."""
        self.loss.zero_()
        self.correct.zero_()
        self.progress.loss, self.progress.correct, self.progress.images = 0.0, 0, 0
