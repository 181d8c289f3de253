"""A job -> the same data for one way of learning, its automatic settings chosen for that way."""

from __future__ import annotations

import dataclasses
from typing import cast

from residua.config import auto, parse
from residua.config.auto import Choice, Chooser
from residua.config.schema import AUTO
from residua.data.prepare import prepare
from residua.networks.analysis.cost import measure
from residua.system.console import Console
from residua.transfer.context import Job

SMALL_NETWORK = 100_000_000  # multiply-adds: above, another network tries from scratch
SMALL_NAME, SMALL_SIZE = "cifar_resnet20", 32
NOTHING_FROZEN = {"network.stage": None, "network.pool_size": None, "transfer.views": 0}
OF_A_WAY = (  # settings that depend on the way of learning
    "network.head",
    "optimization.learning_rate",
    "optimization.optimizer",
    "optimization.layer_decay",
    "optimization.warmup_epochs",
    "training.epochs",
)


def as_way(job: Job, way: str) -> Job:
    """The same data for one way of learning, its automatic settings chosen for that way."""
    if way == "scratch" and _is_large(job):
        return _small(job)
    prepared = job.prepared
    automatically = {each.setting for each in prepared.choices} & set(OF_A_WAY)
    asked: dict[str, object] = {"transfer.strategy": way, **dict.fromkeys(automatically, AUTO)}
    if way == "features" and "network.head" in automatically:
        asked["network.head"] = "logistic"
    if way == "scratch":
        asked |= NOTHING_FROZEN
    others = (each for each in prepared.choices if each.setting not in automatically)
    chooser = Chooser(parse.with_settings(prepared.config, asked), others)
    auto.choose_network(chooser, len(prepared.dataset.classes), len(prepared.splits["train"]))
    auto.choose_training(chooser, prepared.counts("train"))
    own = dataclasses.replace(prepared, config=chooser.config, choices=tuple(chooser.choices))
    return dataclasses.replace(job, prepared=own)


def _is_large(job: Job) -> bool:
    config = job.prepared.config
    if job.weights is None:
        return False
    shape = (config.preprocessing.channels, config.preprocessing.size, config.preprocessing.size)
    return measure(job.frozen.network, shape).multiply_adds > SMALL_NETWORK


def _small(job: Job) -> Job:
    """A small network on small images, as it would be without any weights; made once."""
    if "small" in job.made:
        known = cast(Job, job.made["small"])
        return dataclasses.replace(known, clock=job.clock, console=job.console)
    asked, reason = job.asked, f"from nothing, {job.prepared.config.network.name} takes too long"
    changes = {
        "network.name": SMALL_NAME,
        "network.head": "default",
        "network.ordering": None,
        "network.shortcut": None,
        "network.cardinality": None,
        "network.weights": "",
        "network.new_head": False,
        "network.freeze": 0,
        **NOTHING_FROZEN,
        "transfer.strategy": "scratch",
        "preprocessing.size": SMALL_SIZE,
        "preprocessing.mean": AUTO,  # what was given was meant for the weights
        "preprocessing.std": AUTO,
    }
    if not job.prepared.has_own_splits:  # else it has no effect
        changes["data.val_fraction"] = job.prepared.config.data.val_fraction
    job.console.print(f"scratch: {SMALL_NAME} at {SMALL_SIZE} px ({reason})")
    prepared = prepare(parse.with_settings(asked, changes), Console(quiet=True))
    choices = (
        *prepared.choices,
        Choice("network.name", SMALL_NAME, reason),
        Choice("preprocessing.size", SMALL_SIZE, reason),
    )
    prepared = dataclasses.replace(prepared, choices=choices)
    small = Job(prepared, None, job.clock, job.console, asked)
    job.made["small"] = small
    return small
