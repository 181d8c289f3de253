"""Steps and epochs of a training -> bar, printed lines, log.jsonl, history.csv, trackers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from types import TracebackType

from torch import nn

from residua.runs.folder import METRICS, Log, RunFolder
from residua.system.console import Console, short_count
from residua.system.signals import Interrupted
from residua.training.meter import Meter
from residua.training.progress import Progress

BAR_SECONDS = 0.2  # between two updates of the bar, and on a GPU two checks of the loss


class Recorder(contextlib.AbstractContextManager["Recorder"]):
    """Reports on a training. steps: of an epoch."""

    def __init__(
        self,
        progress: Progress,
        meter: Meter,
        folder: RunFolder,
        console: Console,
        *,
        epochs: int,
        steps: int,
    ) -> None:
        self.progress, self.meter, self.folder, self.console = progress, meter, folder, console
        self.epochs, self.steps = epochs, steps
        self.resources = contextlib.ExitStack()
        self.log = Log(folder.path / "log.jsonl", self.total_steps, progress.epoch)
        self.resources.callback(self.log.close)
        self.moved = time.monotonic()
        self.images, self.training_seconds = 0, 0.0  # of this epoch, in this process

    def __enter__(self) -> Recorder:
        self.bar = self.resources.enter_context(self.console.bar("training"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if isinstance(error, Interrupted):
                self.log.write("interrupted", self.total_steps)
        finally:
            self.resources.close()

    def begin(self, network: nn.Module, precise_bn_images: int, precision: str) -> None:
        """Print the size of the network, and where training continues if it was interrupted.

        precision: that epochs are validated in.
        """
        self.folder.write_history(self.progress.history)
        weights = list(network.parameters())
        total = sum(weight.numel() for weight in weights)
        trainable = sum(weight.numel() for weight in weights if weight.requires_grad)
        validated = f"; epochs are validated in {precision}, the result in float32"
        self.console.print(
            f"{short_count(total)} parameters ({short_count(trainable)} trainable, "
            f"{short_count(total - trainable)} frozen){validated * (precision != 'fp32')}"
        )
        if precise_bn_images:
            self.log.write("precise_bn", self.total_steps, images=precise_bn_images)
        if self.total_steps:
            self.console.print(
                f"resuming from epoch {self.progress.epoch + 1}, step {self.progress.step}"
            )
            self.log.write("resumed", self.total_steps)

    @property
    def total_steps(self) -> int:
        """Steps since the start of the first epoch."""
        return self.progress.epoch * self.steps + self.progress.step

    @property
    def images_per_second(self) -> float:
        """Training throughput of this epoch, without validation and saving."""
        return self.images / max(self.training_seconds, 1e-9)

    def step(self, images: int, seconds: float) -> None:
        """After each training step. Raises Diverged on a loss that is not finite."""
        self.images, self.training_seconds = self.images + images, self.training_seconds + seconds
        self.update_bar()

    def update_bar(self) -> None:
        """Move the bar, now and then."""
        now = time.monotonic()
        if now - self.moved < BAR_SECONDS:
            return
        self.moved = now
        self.meter.check()
        note = f"epoch {self.progress.epoch + 1}  {self.images_per_second:,.0f} images/s"
        if self.progress.images:
            loss = self.meter.loss.item() / self.progress.images
            accuracy = self.meter.correct.item() / self.progress.images
            note += f"  loss {loss:.4f}  accuracy {accuracy:.4f}"
        if self.progress.step == self.steps:
            note += "  validating"
        self.bar(self.total_steps, self.steps * self.epochs, note)

    def before_training(self, metrics: Mapping[str, float]) -> None:
        """Print how the initial weights do."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.console.print(f"before training  {figures}")

    def end_epoch(self, row: Mapping[str, float], improved: bool) -> None:
        """Write a completed epoch everywhere."""
        self.folder.write_history(self.progress.history)
        self.log.write("epoch", self.total_steps, best=improved, **row)
        if self.folder.trackers is not None:
            self.folder.trackers.epoch(row)
        figures = [f"{name} {row[name]:.4f}" for name in METRICS if name in row]
        line = [f"epoch {int(row['epoch']):>3}/{self.epochs}", *figures]
        line.append(f"{row['images_per_second']:,.0f} images/s")
        self.console.print("  ".join(line) + ("  * best" if improved else ""))
        self.images, self.training_seconds = 0, 0.0

    def early_stop(self, reason: str) -> None:
        """Print why training ends before its last epoch."""
        self.console.print(f"stopped after epoch {self.progress.epoch}: {reason}")

    def end(self) -> None:
        """Log that training is complete; print if it improved nothing."""
        if self.progress.kept_initial:
            self.console.print(
                "no epoch was better than the weights before fine-tuning, so these are the result"
            )
        self.log.write("end", self.total_steps, best_epoch=self.progress.best_epoch)
