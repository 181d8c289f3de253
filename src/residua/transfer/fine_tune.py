"""Pretrained weights, or a network from scratch -> a trained network, in the time available."""

from __future__ import annotations

from typing import Any

from residua.config import auto
from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.training import throughput
from residua.training.checkpoint import STATE, restore_network
from residua.training.loop import fit
from residua.training.progress import Task
from residua.transfer.answers import answers_of
from residua.transfer.cached_batches import batches_after
from residua.transfer.context import Job, Learnt
from residua.transfer.linear_probe import begin_head

KNOWN = 0.9  # accuracy of the linear probe from which on small steps preserve the features
MANY_EPOCHS = 10


def fine_tune(job: Job, folder: RunFolder, *, final: bool = True) -> Learnt:
    """Train what is not frozen: all layers, the later stages, or a network from scratch.

    The head of pretrained weights is initialised with a linear probe first: the gradients of a
    random one would destroy the features. final: the result is evaluated and reported within the
    budget. Raises Interrupted after a signal.
    """
    if job.prepared.config.transfer.strategy == "partial":
        job = _with_frozen_stages(job)
    strategy = job.prepared.config.transfer.strategy
    is_pretrained = strategy in ("partial", "full")
    network, is_resumed = job.network(), (folder.path / STATE).exists()
    if is_resumed:
        restore_network(network, folder)
    batches, cached_stages = batches_after(network, job.prepared, job.clock, job.console)
    measured: dict[str, Any] = {}
    if not is_resumed:
        if is_pretrained:
            measured = begin_head(job, network, folder)
        limit = throughput.VALIDATION_LIMIT if job.clock.bounded else 0
        validated = sum(map(len, job.prepared.eval_splits(limit).values()))
        speed = throughput.measure_throughput(network, batches, job.prepared.config, cached_stages)
        each = throughput.epoch_seconds(speed, batches, job.prepared.config, validated)
        measured["predicted_epochs"] = job.prepared.config.training.epochs
        measured["predicted_seconds"] = job.prepared.config.training.epochs * each
        if job.clock.bounded:
            finish = throughput.finishing_seconds(job.prepared, speed.full_evaluation)
            seconds = max(0.0, job.clock.left - (finish if final else 0.0))
            job = job.with_prepared(throughput.plan_epochs(job.prepared, seconds, each, batches))
            if job.prepared.config.training.max_images:
                batches, cached_stages = batches_after(
                    network, job.prepared, job.clock, job.console
                )
        if strategy == "full":
            job = _with_learning_rate(job, measured)
        if final:  # what continues later must not plan again
            folder.write_settings(job.prepared.config, job.prepared.choices)
            folder.write_json("transfer.json", measured)
    task = Task(
        batches,
        job.prepared.eval_splits(throughput.VALIDATION_LIMIT if job.clock.bounded else 0),
        job.prepared.counts("train"),
        job.metadata(),
        cached_stages,
        throughput.deadline(job.prepared, job.clock),
        evaluate_first=is_pretrained,
    )
    progress = fit(network, task, job.prepared.config, folder, job.console)
    return Learnt(job.prepared, progress, measured, answers_of(folder, job.prepared))


def _with_frozen_stages(job: Job) -> Job:
    """Freeze all stages but the last, unless the settings say how many."""
    if job.prepared.config.network.freeze:
        return job
    last = len(job.network().stages) - 1
    if last == 0:
        raise ResiduaError("--transfer partial: the head reads stage 1, so nothing is frozen.")
    return job.choose("network.freeze", last, "all stages but the last")


def _with_learning_rate(job: Job, measured: dict[str, Any]) -> Job:
    """Large steps where the frozen features fail often and there are epochs enough to do better.

    Small steps preserve the features, which pays only where these are useful.
    """
    accuracy = measured["taps"][-1]["linear"]
    training = job.prepared.config.training
    if accuracy >= KNOWN or training.epochs < MANY_EPOCHS:
        return job
    reason = f"linear probe error {1 - accuracy:.0%}, {training.epochs} epochs to improve on it"
    if job.prepared.config.optimization.optimizer == "sgd":
        learning_rate = auto.LEARNING_RATE * training.batch_size / 128
        job = job.choose("optimization.learning_rate", learning_rate, reason)
    return job.choose("optimization.layer_decay", 1.0, reason)
