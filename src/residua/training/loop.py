"""Batches and a network -> the weights, log and history of a run folder: the one training loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.config.schema import Config
from residua.data.batches import Batch
from residua.networks.layers import draw_dropout_from
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.device import autocast
from residua.system.signals import Interrupted, Signals
from residua.training.checkpoint import Checkpointer, under
from residua.training.margins import Margins
from residua.training.meter import Meter
from residua.training.optimization import (
    Average,
    balanced_weights,
    learning_rate_at,
    load_optimizer_state,
    optimizer_for,
    optimizer_state,
)
from residua.training.progress import Progress, Task
from residua.training.recorder import Recorder
from residua.training.validation import Validator, forward, trainable_norms


class Trainer:
    """Everything that changes while a network trains, and the update that changes it."""

    def __init__(self, network: nn.Module, task: Task, config: Config) -> None:
        self.network, self.task, self.config = network, task, config
        self.parameters = [weight for weight in network.parameters() if weight.requires_grad]
        self.optimizer = optimizer_for(network, config.optimization)
        self.average = Average(network.parameters(), config.optimization.ema_decay)
        self.progress = Progress()
        self.meter = Meter(self.progress, task.batches.device, config.training.precision)
        self.margins = Margins(len(task.batches.labels), task.batches.device)
        self.generator = torch.Generator(task.batches.device)
        draw_dropout_from(network, self.generator)
        self.class_weights: Tensor | None = None
        if config.optimization.class_weights == "balanced":
            weights = balanced_weights(task.class_counts)
            self.class_weights = torch.tensor(weights, device=task.batches.device)

    def train_epoch(self, recorder: Recorder, checkpointer: Checkpointer) -> None:
        """Take the steps that are left of an epoch."""
        batches, progress, began = self.task.batches, self.progress, time.monotonic()
        self.network.train()
        while progress.step < batches.steps:
            batch = batches.batch(progress.epoch, progress.step)
            self._update(batch, progress.epoch * batches.steps + progress.step)
            progress.step += 1
            now = time.monotonic()
            recorder.step(len(batch.labels), now - began)
            began = time.monotonic() if checkpointer.step() else now

    def _update(self, batch: Batch, step: int) -> None:
        """Update the weights on a batch. step: since the start of the first epoch."""
        training, optimization = self.config.training, self.config.optimization
        batches = self.task.batches
        lr = learning_rate_at(optimization, step, batches.steps, training.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.generator.manual_seed((training.seed << 32) + step)  # no hidden state

        with autocast(batches.device, training.precision):
            logits = forward(self.network, batch.images, batches.stages)
        losses = F.cross_entropy(
            logits.float(),
            batch.targets,
            self.class_weights,
            reduction="none",  # "mean" would divide by the sum of the class weights
            label_smoothing=optimization.label_smoothing,
        )
        loss = (losses if batch.weights is None else losses * batch.weights).mean()
        self.meter.add(loss.detach(), logits.detach(), batch.labels, lr)
        self.margins.add(batch, logits.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if optimization.clip_grad_norm:
            nn.utils.clip_grad_norm_(self.parameters, optimization.clip_grad_norm)
        self.optimizer.step()
        self.average.update(self.network.parameters(), step)

    def end_epoch(
        self, metrics: Mapping[str, float], seconds: float, images_per_second: float
    ) -> bool:
        """Add the row of the history and start the next epoch; whether it is the best so far."""
        self.meter.flush(self.network.parameters())
        progress, steps = self.progress, self.task.batches.steps
        last_step = progress.epoch * steps + progress.step - 1
        epochs = self.config.training.epochs
        row = {
            "epoch": progress.epoch + 1,
            "loss": progress.loss / progress.images,
            "accuracy": progress.correct / progress.images,
            **metrics,
            "learning_rate": learning_rate_at(self.config.optimization, last_step, steps, epochs),
            "images_per_second": images_per_second,
            "seconds": seconds,
        }
        improved = progress.improve(metrics, self.config.training.select, progress.epoch + 1)
        progress.history.append(row)
        progress.epoch, progress.step = progress.epoch + 1, 0
        self.meter.reset()
        return improved

    def reason_to_stop(self) -> str:
        """Why no further epoch begins, though some are left; "" if one does."""
        if self.progress.epoch >= self.config.training.epochs:
            return ""
        if self.task.deadline is not None and time.monotonic() > self.task.deadline:
            return "the time budget is used up"
        patience = self.config.training.patience
        if patience and self.progress.waited >= patience:
            return f"no improvement for {patience} epochs"
        return ""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See checkpoint.Stateful. Raises Diverged if a loss or a weight is not finite."""
        self.meter.flush(self.network.parameters())
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{index}": value for index, value in enumerate(self.average.values)}
        optimizer_tensors, numbers = optimizer_state(self.optimizer)
        tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors.items()}
        tensors |= self.margins.state_dict()
        return tensors, {"progress": asdict(self.progress), "optimizer": numbers}

    def load_state_dict(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See checkpoint.Stateful."""
        self.network.load_state_dict(under("network.", tensors))
        for index, value in enumerate(self.average.values):
            value.copy_(tensors[f"average.{index}"])
        numbers = under("optimizer.", values["optimizer"]) or values["optimizer"]
        load_optimizer_state(self.optimizer, under("optimizer.", tensors) | numbers)
        self.margins.load_state_dict(tensors)
        self.progress = Progress.from_json(values["progress"])
        precision = self.config.training.precision
        self.meter = Meter(self.progress, self.task.batches.device, precision)


def fit(
    network: nn.Module, task: Task, config: Config, folder: RunFolder, console: Console
) -> Progress:
    """Train `network`, on its device, until the epochs, the time or the patience are used up.

    folder: locked by the caller. Continues from the run's checkpoint if there is one. Raises
    Interrupted after Ctrl-C or SIGTERM, ResiduaError when the loss is no longer finite.
    """
    training = config.training
    trainer = Trainer(network, task, config)
    validator = Validator(network, task, config)
    with Signals() as signals:
        checkpointer = Checkpointer(
            trainer, folder, task.metadata, signals, training.save_seconds, training.save_every
        )
        checkpointer.restore()
        progress = trainer.progress
        recorder = Recorder(
            progress,
            trainer.meter,
            folder,
            console,
            epochs=training.epochs,
            steps=task.batches.steps,
        )

        def after_batch() -> None:  # of a validation
            recorder.update_bar()
            checkpointer.step()

        def validate() -> dict[str, float]:
            return validator.validate(network, trainer.average, progress.epoch, after_batch)

        with recorder, checkpointer:
            images = training.precise_bn_images if trainable_norms(network) else 0
            recorder.begin(network, images, training.precision)
            if not progress.has_begun:
                checkpointer.save()
                if task.evaluate_first and task.eval_splits:
                    metrics = validate()
                    if progress.improve(metrics, training.select, 0):
                        checkpointer.keep_best(validator.network, 0)
                    recorder.before_training(metrics)
            while progress.epoch < training.epochs and not progress.stopped:
                trainer.train_epoch(recorder, checkpointer)
                metrics = validate()
                speed = recorder.images_per_second
                improved = trainer.end_epoch(metrics, checkpointer.seconds, speed)
                reason = trainer.reason_to_stop()
                progress.stopped = bool(reason)
                is_last = progress.stopped or progress.epoch == training.epochs
                checkpointer.end_epoch(validator.network, improved, is_last)
                recorder.end_epoch(progress.history[-1], improved)
                if reason:
                    recorder.early_stop(reason)
            checkpointer.save()
            recorder.end()
            if signals.received:
                raise Interrupted(signals.received, str(folder.path))
    return progress
