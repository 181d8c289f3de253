"""Losses and logits of steps -> running sums of an epoch, on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from residua.errors import ResiduaError
from residua.training.progress import Progress

_ADVICE = (
    "The last good checkpoint and weights remain. Start again with a smaller --lr, a longer "
    "optimization.warmup_epochs, or --set optimization.clip_grad_norm=1{}."
)


class Diverged(ResiduaError):  # noqa: N818 - a result of training
    """A loss or a weight is not finite; the last good checkpoint and weights remain."""


class Meter:
    """Running sums of loss and accuracy, on the device; raises on a loss that is not finite.

    On a CPU each loss is checked before its gradient is computed. On a GPU they are checked a few
    times a second, so that no step waits, and always before anything is saved.
    """

    def __init__(self, progress: Progress, device: torch.device, precision: str) -> None:
        self.advice = _ADVICE.format(", or --precision fp32" if precision != "fp32" else "")
        self.progress, self.check_each = progress, device.type == "cpu"
        self.loss = torch.tensor(progress.loss, dtype=torch.float64, device=device)
        self.correct = torch.tensor(progress.correct, dtype=torch.int64, device=device)
        self.unchecked: list[tuple[int, float, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, learning_rate: float) -> None:
        """Count a step's mean loss [] and its logits [B, K] against labels [B]."""
        self.unchecked.append((self.progress.step + 1, learning_rate, loss))
        if self.check_each:
            self.check()
        self.loss += loss.double() * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        self.progress.images += len(labels)

    def check(self) -> None:
        """Check the losses since the last call. Raises Diverged if one is not finite."""
        if not self.unchecked:
            return
        values = torch.stack([loss for _, _, loss in self.unchecked]).tolist()
        for (step, learning_rate, _), value in zip(self.unchecked, values, strict=True):
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss became {value} in epoch {self.progress.epoch + 1}, step {step}, at "
                    f"learning rate {learning_rate:.3g}. {self.advice}"
                )
        self.unchecked.clear()

    def flush(self, weights: Iterable[Tensor]) -> None:
        """Check losses and weights, and move the sums into the progress. Raises Diverged."""
        self.check()
        norms = torch._foreach_norm([weight.detach() for weight in weights])
        if not torch.stack([norm.float() for norm in norms]).isfinite().all():
            raise Diverged(
                f"a weight is no longer finite in epoch {self.progress.epoch + 1}, after step "
                f"{self.progress.step}. {self.advice}"
            )
        self.progress.loss = self.loss.item()
        self.progress.correct = int(self.correct.item())

    def reset(self) -> None:
        """Start an epoch."""
        self.loss.zero_()
        self.correct.zero_()
        self.progress.loss, self.progress.correct, self.progress.images = 0.0, 0, 0
