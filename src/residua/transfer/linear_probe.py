"""Frozen features -> a head, solved or learnt; the first answer of every way of transferring."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import time

import numpy as np
import torch
from torch import nn

from residua.config import parse
from residua.config.auto import FEW
from residua.data.prepare import thinned
from residua.data.random import Integers, shuffled
from residua.networks.staged import Staged
from residua.networks.surgery.freezing import freeze
from residua.runs.folder import RunFolder
from residua.system.signals import Interrupted
from residua.training import throughput
from residua.training.checkpoint import STATE
from residua.training.loop import fit as learn
from residua.training.progress import Progress, Task
from residua.transfer.answers import Answers
from residua.transfer.cached_batches import CachedInputs
from residua.transfer.context import Job, Learnt
from residua.transfer.estimate import Estimate
from residua.transfer.feature_layers import Tap
from residua.transfer.features import Rows
from residua.transfer.logistic import Floats, fit
from residua.transfer.probing import Seen, best_of, look
from residua.weights.load import read_file
from residua.weights.network import Logits, build_network

CHOOSING = 2_000, 5_000  # images that choose stage and strength, for few and for many classes
SHARE = 0.8  # of a budget that features may take where nothing follows
BEGIN_SHARE = 0.15  # of what is left of it, where training follows
HEAD_SHARE = 0.2  # of what is left of it, for a head with hidden layers before all else learns
MOST_THREADS = 8  # that fit heads at once, each on rows of its own


def by_features(
    job: Job, folder: RunFolder, *, until: float | None = None, head_share: float | None = None
) -> Learnt:
    """A head on the frozen network: the weights file, and what was measured for it.

    until: a time of time.monotonic() at which features end; None for a share of the budget.
    head_share: of what they leave of it, for a head that learns by gradient; None: all that
    judging and reporting leave. Raises Interrupted after a signal; what was computed is in the
    cache then.
    """
    train, until = job.prepared.training_members, until or job.clock.at(SHARE)
    begun = head_share is None and (folder.path / STATE).exists()
    if begun and until is not None:
        until = time.monotonic()  # what is cached, and so what the head began with
    seen, estimated, rows = _choose(job, train, until)
    until = _sparing(job, rows, until)
    best = best_of(seen)
    config = job.prepared.config
    job = _at(job, best)
    rows = _all_rows(job, best.tap, train, rows, until)
    measured: dict[str, object] = {
        "taps": [each.to_json() for each in seen],
        "images": len(rows.samples),
        "computed": rows.computed,
        "seconds": {"features": rows.seconds},
    }
    if config.network.head == "logistic":
        if estimated is not None:
            alone = int((~seen[0].probe.judged).sum())
            told = {"taught": len(rows.samples), "alone": alone}
            measured["cross_validated"] = _said(estimated) | told
        network = job.network()
        _solve(job, network, best, rows, until)
        metadata = dataclasses.replace(job.metadata(), notes={"strength": best.strength})
        folder.write_weights("best.safetensors", network.state_dict(), metadata)
        progress = Progress(seconds=job.clock.passed)
    else:
        network, task = job.network(), _task(job, best.tap, rows, until)
        if begun:
            task = dataclasses.replace(task, deadline=throughput.deadline(job.prepared, job.clock))
        else:
            job, task = _in_time(job, network, task, head_share)
        if head_share is None:
            folder.write_settings(
                job.prepared.config, job.prepared.choices
            )  # what goes on later must not plan anew
        progress = learn(network, task, job.prepared.config, folder, job.console)
    return Learnt(job.prepared, progress, measured, _answers(job, best.tap, folder))


def _answers(job: Job, tap: Tap, folder: RunFolder) -> Answers:
    """What the kept head says of cached features; it is read when it is asked."""

    def answers(samples: Integers) -> Logits:
        network = build_network(read_file(folder.weights), job.prepared.device)
        values = job.frozen.rows([tap], samples).values[tap]
        with torch.inference_mode():
            maps = _as_maps(values, tap, job.prepared.device)
            return network.classify(maps).float().cpu().numpy()

    return answers


def _choose(
    job: Job, train: Integers, until: float | None
) -> tuple[list[Seen], Estimate | None, Rows]:
    """Look at every tap, or at the one that the settings name, on some of the training part."""
    config, network = job.prepared.config, job.prepared.config.network
    taps = job.frozen.taps()
    if job.prepared.is_explicit("network.stage") or job.prepared.is_explicit("network.pool_size"):
        taps = [Tap(network.stage or job.frozen.front.stages, network.pool_size or 1)]
    elif network.head != "logistic":  # as tutorials 2 and 3: what the network itself would use
        taps = [tap for tap in taps if tap.stage == job.frozen.front.stages and tap.side == 1]
    count = int(np.clip(FEW * network.classes, *CHOOSING))  # so few are all, and judge as well
    some = shuffled(config.training.seed, 0, train)[:count] if len(train) > count else train
    half = None if until is None else (time.monotonic() + until) / 2
    with job.console.bar("features") as move:
        rows = job.frozen.rows(taps, some, until=half, report=move)
    labels = job.prepared.labels[rows.samples]
    contents = [key.hex() for key in job.frozen.keys(rows.samples)]
    with job.console.bar("choosing") as move:
        report = move
        seen, estimated = look(
            rows,
            labels,
            contents,
            network.classes,
            config.training.seed,
            balanced=config.optimization.class_weights == "balanced",
            report=report,
            threads=min(MOST_THREADS, torch.get_num_threads()),
        )
    job.frozen.looked |= {each.tap: each for each in seen if each.probe.followed}
    return seen, estimated, rows


def _at(job: Job, best: Seen) -> Job:
    """The settings of the chosen tap; none are needed where the network's own head would sit."""
    reason = f"separates the classes best: loss {best.loss:.3f} on images left out"
    if best.tap == Tap(job.frozen.front.stages, 1) and job.prepared.config.network.stage is None:
        return job
    return job.choose("network.stage", best.tap.stage, reason).choose(
        "network.pool_size", best.tap.side, reason
    )


def _sparing(job: Job, rows: Rows, until: float | None) -> float | None:
    """`until`, or so early that there is time for the features of the images that will judge."""
    if until is None or not rows.computed:
        return until
    needed = throughput.finishing_seconds(job.prepared, rows.seconds / rows.computed)
    return min(until, time.monotonic() + job.clock.left - needed)


def _all_rows(
    job: Job, tap: Tap, train: Integers, chosen: Rows | None, until: float | None
) -> Rows:
    """The chosen tap's features of the whole training part, as far as time allows."""
    if chosen is not None and len(chosen.samples) == len(train):
        return chosen
    with job.console.bar("features") as move:
        report = move
        rows = job.frozen.rows([tap], train, until=until, report=report)
    if len(rows.samples) < len(train):
        job.console.warn(
            f"the time allows features of {len(rows.samples):,} of {len(train):,} images"
        )
    return rows


def _views(job: Job, tap: Tap, samples: Integers, until: float | None) -> list[Floats]:
    """Features of the augmented views, for the head alone; as many views as time allows."""
    found: list[Floats] = []
    for view in range(1, job.prepared.config.transfer.views + 1):
        with job.console.bar(f"view {view}") as move:
            report = move
            rows = job.frozen.rows([tap], samples, view=view, until=until, report=report)
        if len(rows.samples) < len(samples):
            job.console.warn(f"the time allows {len(found)} of the augmented views")
            break
        found.append(rows.values[tap])
    return found


def begin_head(job: Job, network: Staged, folder: RunFolder) -> dict[str, object]:
    """Bring the head of `network` to what its frozen features suggest, in place."""
    tap = Tap(len(network.stages), network.pool_size)
    linear = isinstance(network.head, nn.Linear)
    named = {"network.stage": tap.stage, "network.pool_size": tap.side}
    config = parse.with_settings(job.prepared.config, named)
    own = dataclasses.replace(job, prepared=dataclasses.replace(job.prepared, config=config))
    train, until = job.prepared.training_members, job.clock.ahead(BEGIN_SHARE)
    if tap in job.frozen.looked:
        seen, chosen = [job.frozen.looked[tap]], None
    else:
        seen, _, chosen = _choose(own, train, until)
    rows = _all_rows(job, tap, train, chosen, until)
    if linear:
        _solve(job, network, seen[0], rows, until)
    else:
        _learn_head(job, network, folder, _task(job, tap, rows, until))
    return {"taps": [each.to_json() for each in seen], "images": len(rows.samples)}


def _learn_head(job: Job, network: Staged, folder: RunFolder, task: Task) -> None:
    """A head with hidden layers learns alone first, in a folder of its own that then goes."""
    own = RunFolder(folder.path / "head")
    own.path.mkdir(exist_ok=True)
    alone = copy.deepcopy(network)
    freeze(alone, len(alone.stages))
    short, task = _in_time(job, alone, task, HEAD_SHARE)
    try:
        learn(alone, task, short.prepared.config, own, job.console)
    except Interrupted as error:
        raise Interrupted(error.number, str(folder.path)) from None
    network.load_state_dict(read_file(own.weights).tensors)
    shutil.rmtree(own.path)


def _in_time(job: Job, network: Staged, task: Task, share: float | None) -> tuple[Job, Task]:
    """With as many epochs as fit into a share of the time left; None: all but the finishing."""
    if not job.clock.bounded:
        return job, task
    config, batches = job.prepared.config, task.batches
    until = throughput.deadline(job.prepared, job.clock)
    speed = throughput.measure_throughput(network, batches, config, task.cached_stages)
    validated = sum(map(len, task.eval_splits.values()))
    each = throughput.epoch_seconds(speed, batches, config, validated)
    left = job.clock.left
    finish = throughput.finishing_seconds(job.prepared, speed.full_evaluation)
    seconds = max(0.0, left - finish if share is None else left * share)
    prepared = throughput.plan_epochs(job.prepared, seconds, each, batches, whole=True)
    return job.with_prepared(prepared), dataclasses.replace(task, deadline=until)


def _solve(job: Job, network: Staged, best: Seen, rows: Rows, until: float | None) -> None:
    """Give the network the linear head of logistic regression, in place."""
    views = _views(job, best.tap, rows.samples, until)
    values = np.concatenate([rows.values[best.tap], *views])
    labels = np.tile(job.prepared.labels[rows.samples], 1 + len(views))
    config = job.prepared.config
    balanced = config.optimization.class_weights == "balanced"
    strength = best.strength / (1 + len(views))  # it multiplies a sum, over views too
    found = fit(values, labels, config.network.classes, strength, balanced=balanced)
    head = network.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(found.weight))
        head.bias.copy_(torch.from_numpy(found.bias))


def _task(job: Job, tap: Tap, rows: Rows, until: float | None) -> Task:
    """Learning a head by gradient, on features of the training and the validation part."""
    prepared, config = job.prepared, job.prepared.config
    judged = thinned(
        prepared.splits["validation"], throughput.VALIDATION_LIMIT if job.clock.bounded else 0
    )
    held = job.frozen.rows([tap], judged) if len(judged) else None
    values = [rows.values[tap], *([held.values[tap]] if held else [])]
    inputs = CachedInputs(
        _as_maps(np.concatenate(values), tap, prepared.device),
        np.concatenate([rows.samples, judged]),
        prepared.labels,
        rows.samples,
        batch=config.training.batch_size,
        seed=config.training.seed,
        views=tuple(
            _as_maps(each, tap, prepared.device) for each in _views(job, tap, rows.samples, until)
        ),
    )
    return Task(
        inputs,
        {"validation": judged} if len(judged) else {},
        prepared.counts("train"),
        job.metadata(),
        cached_stages=tap.stage,
    )


def _as_maps(values: Floats, tap: Tap, device: torch.device) -> torch.Tensor:
    """Features [N, D] -> the map [N, C, side, side] whose pooling they are."""
    shape = (len(values), values.shape[1] // tap.side**2, tap.side, tap.side)
    return torch.from_numpy(values).view(shape).to(device)


def _said(found: Estimate) -> dict[str, object]:
    return {
        "accuracy": found.accuracy,
        "interval": list(found.interval),
        "images": found.images,
    }
