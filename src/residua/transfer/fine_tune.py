"""Weights learnt elsewhere, or none -> a network that has learnt on, in the time that there is."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from residua.config import auto
from residua.data.augmentation import changes_nothing
from residua.data.batches import Inputs
from residua.data.cache import free_memory
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.networks.staged import Staged
from residua.runs.folder import RunFolder
from residua.training.checkpoint import STATE, restore_network
from residua.training.loop import fit
from residua.training.recorder import Task
from residua.transfer.answers import answers_of
from residua.transfer.cached_batches import CachedInputs
from residua.transfer.context import Job, Learnt, synchronise, thinned, write_settings
from residua.transfer.features import Frozen
from residua.transfer.linear_probe import begin_head
from residua.transfer.throughput import JUDGED, deadline, in_time, pace_of, predicted_seconds

KNOWN = 0.9  # accuracy of a head on frozen features from which on small steps keep what is known
MANY_EPOCHS = 10
CACHED_SHARE = 0.25  # of the memory that is free, for what the frozen stages make of the images
CACHED_TIME = 0.3  # of the time that is left, to make it


def by_tuning(job: Job, folder: RunFolder, *, final: bool = True) -> Learnt:
    """Train what is not frozen: everything, or the later stages; from weights or from nothing.

    Where weights are transferred, the head is brought to what the frozen features suggest first:
    a fresh one would spoil them with its first gradients. final: the result will be judged and
    reported within the budget. Raises Interrupted after a signal.
    """
    strategy = job.prepared.config.transfer.strategy
    if strategy == "partial" and job.prepared.config.network.freeze == 0:
        last = len(job.network().stages) - 1
        if last == 0:
            raise ResiduaError("--transfer partial: the head reads stage 1, so nothing is frozen.")
        job = job.decided("network.freeze", last, "all stages but the last stay as they are")
    network, begun = job.network(), (folder.path / STATE).exists()
    if begun:
        restore_network(network, folder)
    measured: dict[str, Any] = {}
    inputs, cut = _inputs(job, network)
    if not begun:
        if strategy in ("partial", "full"):
            measured = begin_head(job, network, folder)
        judged = sum(map(len, _judged(job).values()))
        if strategy != "none" or job.clock.bounded:
            pace = pace_of(job, network, inputs, cut)
            measured["predicted_seconds"] = predicted_seconds(job, pace, inputs, judged)
            measured["predicted_epochs"] = job.prepared.config.training.epochs
        if job.clock.bounded:
            job = in_time(job, pace, inputs, judged, -1.0 if final else 1.0)
            if job.prepared.config.training.max_images:
                inputs, cut = _inputs(job, network)
        if strategy == "full":
            job = _at_speed(job, measured)
        if final and (strategy != "none" or job.clock.bounded):
            write_settings(folder, job.prepared)  # what goes on later must not plan anew
        if final and strategy != "none":
            folder.write_json("transfer.json", measured)
    task = Task(
        inputs,
        _judged(job),
        job.prepared.counts("train"),
        job.metadata(),
        cut,
        deadline(job),
        evaluate_first=strategy in ("partial", "full"),
    )
    progress = fit(network, task, job.prepared.config, folder, job.console)
    answers = None if strategy == "none" else answers_of(folder, job.prepared)
    return Learnt(job.prepared, progress, measured, answers)


def _at_speed(job: Job, measured: dict[str, Any]) -> Job:
    """Large steps where the frozen features miss much and there are epochs to make it good.

    Small steps keep what was learnt elsewhere, which is only worth it where that is of use.
    """
    known, epochs = measured["taps"][-1]["linear"], job.prepared.config.training.epochs
    if known >= KNOWN or epochs < MANY_EPOCHS:
        return job
    reason = f"its frozen features miss {1 - known:.0%}, and {epochs} epochs can make it good"
    if job.prepared.config.optimization.optimizer == "sgd":
        rate = auto.RATE * job.prepared.config.training.batch_size / 128
        job = job.decided("optimization.learning_rate", rate, reason)
    return job.decided("optimization.layer_decay", 1.0, reason)


def _judged(job: Job) -> dict[str, Integers]:
    """The parts whose figures are recorded each epoch; the test part only where that was asked."""
    parts, most = job.prepared.splits, JUDGED if job.clock.bounded else 0
    found = {"validation": thinned(parts["validation"], most)}
    if job.prepared.config.training.curve_test:
        found["test"] = parts["test"]
    return {part: members for part, members in found.items() if len(members)}


def _inputs(job: Job, network: Staged) -> tuple[Inputs, int]:
    """Images, or what the frozen stages made of them where augmentation allows to keep that."""
    prepared, config = job.prepared, job.prepared.config
    members = job.taught
    images = prepared.training_batches(prepared.device, members)
    stages, views = config.network.freeze, config.transfer.views
    if config.transfer.strategy == "scratch" or stages == 0:
        return images, 0
    mixes = config.augmentation.mixup or config.augmentation.cutmix
    if mixes or not (views or changes_nothing(config.augmentation)):
        return images, 0
    samples = np.concatenate([members, *_judged(job).values()])
    frozen = Frozen(network, "", config, prepared.pixels, prepared.labels)
    some, number = samples[: frozen.batch], len(samples) + views * len(members)
    frozen.maps(some, stages)  # the first one takes longer
    began = time.monotonic()
    part = frozen.maps(some, stages)
    synchronise(prepared.device)
    seconds = (time.monotonic() - began) * number / len(some)
    needed = part[0].numel() * part.element_size() * number
    if needed > CACHED_SHARE * _free(prepared.device):
        job.console.print(
            f"{needed / 1e6:,.0f} MB of maps are too many to keep: computed each time"
        )
        return images, 0
    if seconds > CACHED_TIME * job.clock.left:
        job.console.print(f"maps of all images take {seconds:.0f} s, too long: computed each time")
        return images, 0
    job.console.print(
        f"what the first {stages} stages make of each image is kept: {needed / 1e6:,.0f} MB"
    )
    inputs = CachedInputs(
        frozen.maps(samples, stages),
        samples,
        prepared.labels,
        members,
        batch=config.training.batch_size,
        seed=config.training.seed,
        views=tuple(frozen.maps(members, stages, view) for view in range(1, views + 1)),
    )
    return inputs, stages


def _free(device: torch.device) -> int:
    """Bytes of memory that are free where the maps will lie."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
