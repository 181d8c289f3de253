"""The state of a training as plain data: step, metrics, best epoch; and its task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from residua.data.batches import Inputs
from residua.data.random import Integers
from residua.runs.folder import current_columns
from residua.weights.native import Metadata


@dataclass(frozen=True)
class Task:
    """The batches that a network is trained on, and how it is evaluated.

    eval_splits: name -> sample indices, evaluated after each epoch; "validation" selects the best.
    class_counts: training images per class.
    metadata: what the weights files state.
    deadline: time.monotonic() after which no new epoch begins.
    evaluate_first: evaluate before the first epoch too; the initial weights may be the best.
    """

    batches: Inputs
    eval_splits: Mapping[str, Integers]
    class_counts: list[int]
    metadata: Metadata
    deadline: float | None = None
    evaluate_first: bool = False


@dataclass
class Progress:
    """How far training is, as plain numbers.

    epoch: completed epochs. step: completed steps of the current one.
    loss, correct, images: sums over its steps.
    seconds: of wall time, over all processes that trained.
    best: (accuracy or -loss, tie-breaker) of the best epoch, best_epoch: its number, from 1; 0 is
    the state before training. waited: epochs since then.
    history: a row per completed epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0
    best: list[float] | None = None
    best_epoch: int = 0
    waited: int = 0
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """From plain data, also as version 0.1.0 wrote it."""
        known = {("images" if key == "pictures" else key): value for key, value in values.items()}
        known.pop("judged", None)  # a validation that was interrupted is repeated
        known["history"] = [current_columns(row) for row in known["history"]]
        progress = cls(**known)
        numbers = [value for row in progress.history for value in row.values()]
        numbers += [progress.loss, progress.seconds, *(progress.best or ())]
        counts = [progress.epoch, progress.step, progress.correct, progress.images]
        counts += [progress.best_epoch, progress.waited]
        if not all(type(value) in (int, float) for value in numbers):
            raise TypeError("its progress has values that are no numbers")
        if not all(type(value) is int and 0 <= value < 2**53 for value in counts):
            raise TypeError("its progress has values that are no counts")
        if len(progress.history) != progress.epoch:
            raise ValueError("its history has other epochs than its progress")
        return progress

    @property
    def kept_initial(self) -> bool:
        """Whether the weights before training are still the best after an epoch."""
        return self.best is not None and self.best_epoch == 0 and self.epoch > 0

    @property
    def has_begun(self) -> bool:
        """Whether any step was taken, or the initial weights were evaluated."""
        return self.best is not None or self.step > 0 or self.epoch > 0

    def improve(
        self, metrics: Mapping[str, float], select: Literal["accuracy", "loss"], epoch: int
    ) -> bool:
        """Compare an epoch with the best; ties go to the other metric, then to the earlier one."""
        if "val_accuracy" not in metrics:
            return False
        loss = metrics["val_loss"]
        figures = [metrics["val_accuracy"], -loss if math.isfinite(loss) else -math.inf]
        if select == "loss":
            figures.reverse()
        if self.best is None or figures > self.best:
            self.best, self.best_epoch, self.waited = figures, epoch, 0
            return True
        self.waited += 1
        return False
