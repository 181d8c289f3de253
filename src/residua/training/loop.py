"""Batches and a network -> the weights, log and history of a run folder: the one training loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from residua.config.schema import Config
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.device import autocast
from residua.system.signals import Signals
from residua.training.checkpoint import Learner, Progress
from residua.training.meter import Meter
from residua.training.optimization import Average, balanced_weights, optimizer_for, rate_at
from residua.training.recorder import Books, Task
from residua.training.validation import judge_for, logits_from


def fit(
    network: nn.Module, task: Task, config: Config, run: RunFolder, console: Console
) -> Progress:
    """Train `network`, on its device, until the epochs are done or patience ends.

    Goes on from the run's state file if there is one. Raises Interrupted after Ctrl-C or SIGTERM,
    ResiduaError when the loss is no longer finite.
    """
    training, optimization, batches = config.training, config.optimization, task.batches
    device = batches.device
    parameters = [each for each in network.parameters() if each.requires_grad]
    learner = Learner(
        network,
        optimizer_for(network, optimization),
        Average(network.parameters(), optimization.ema_decay),
        judge_for(network, batches, task.eval_splits, config, task.cached_stages),
        Progress(),
    )
    optimizer, average, judge = learner.optimizer, learner.average, learner.judge
    class_weights = None
    if optimization.class_weights == "balanced":
        class_weights = torch.tensor(balanced_weights(task.class_counts), device=device)

    with torch.random.fork_rng(devices=[]), run.lock(), Signals() as signals:
        learner.restore(run)
        progress = learner.progress
        meter = Meter(progress, device)
        with Books(learner, task, config, run, console, signals, meter) as books:
            if (
                task.evaluate_first
                and task.eval_splits
                and progress.best is None
                and not progress.step
            ):
                network.train()
                judge.begin(network, average, 0)
                for _ in judge.steps():
                    pass
                books.start(judge.results())
            while progress.epoch < training.epochs and not progress.stopped:
                network.train()
                while progress.step < batches.steps:
                    batch = batches.batch(progress.epoch, progress.step)
                    step = progress.epoch * batches.steps + progress.step
                    rate = rate_at(optimization, step, batches.steps, training.epochs)
                    for group in optimizer.param_groups:
                        group["lr"] = rate * group["factor"]
                    torch.manual_seed((training.seed << 32) + step)  # dropout has no hidden state

                    with autocast(device, training.precision):
                        logits = logits_from(network, batch.images, task.cached_stages)
                    loss = F.cross_entropy(
                        logits.float(),
                        batch.targets,
                        class_weights,
                        reduction="none",
                        label_smoothing=optimization.label_smoothing,
                    ).mean()
                    meter.add(loss.detach(), logits.detach(), batch.labels, rate)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    if optimization.clip_grad_norm:
                        nn.utils.clip_grad_norm_(parameters, optimization.clip_grad_norm)
                    optimizer.step()
                    average.update(network.parameters(), step)

                    progress.step += 1
                    books.tick(len(batch.labels))

                if judge.position == 0:
                    judge.begin(network, average, progress.epoch)
                for _ in judge.steps():
                    books.tick(0)
                books.end_epoch(judge.results())
            books.finish()
    return progress
