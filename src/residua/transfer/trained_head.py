"""Frozen features -> a head trained by gradient descent, within the budget."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import numpy as np
import torch

from residua.data.prepared import thinned
from residua.data.random import Integers
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureRows
from residua.inference.regressions import Floats
from residua.networks.staged import Staged
from residua.networks.surgery.freezing import freeze
from residua.runs.folder import RunFolder
from residua.system.signals import Interrupted
from residua.training import throughput
from residua.training.loop import fit
from residua.training.progress import Progress, Task
from residua.transfer.cached_batches import CachedBatches
from residua.transfer.context import StrategyContext
from residua.weights.load import read_file

HEAD_SHARE = 0.2  # of the time left, to train a head before other training follows


def views_of(
    context: StrategyContext, layer: FeatureLayer, samples: Integers, deadline: float | None
) -> list[Floats]:
    """Features of the augmented views, as many views as time allows."""
    views: list[Floats] = []
    for view in range(1, context.prepared.config.transfer.views + 1):
        with context.console.bar(f"view {view}") as move:
            rows = context.features.rows(
                [layer], samples, view=view, deadline=deadline, report=move
            )
        if len(rows.samples) < len(samples):
            context.console.warn(f"the time budget suffices for {len(views)} augmented views")
            break
        views.append(rows.values[layer])
    return views


def head_task(
    context: StrategyContext, layer: FeatureLayer, rows: FeatureRows, deadline: float | None
) -> Task:
    """Training a head on the features of the training set, with those of the validation set."""
    prepared = context.prepared
    limit = throughput.validation_limit(context.clock)
    validated = thinned(prepared.splits["validation"], limit)
    values = [rows.values[layer]]
    if len(validated):
        values.append(context.features.rows([layer], validated).values[layer])
    batches = CachedBatches(
        prepared,
        _as_maps(np.concatenate(values), layer, prepared.device),
        np.concatenate([rows.samples, validated]),
        rows.samples,
        stages=layer.stage,
        views=tuple(
            _as_maps(view, layer, prepared.device)
            for view in views_of(context, layer, rows.samples, deadline)
        ),
    )
    return Task(
        batches,
        {"validation": validated} if len(validated) else {},
        prepared.counts("train"),
        context.metadata(),
    )


def train_head(
    context: StrategyContext, folder: RunFolder, task: Task, final: bool, is_resumed: bool
) -> tuple[StrategyContext, Progress]:
    """Train the head in the run folder. final: see fit_probe."""
    network = context.network()
    if is_resumed:
        deadline = throughput.deadline(context.prepared, context.clock)
        task = dataclasses.replace(task, deadline=deadline)
    else:
        context, task = _scheduled(context, network, task, None if final else HEAD_SHARE)
    if final:  # a resumed run does not replan
        folder.write_settings(context.prepared.config, context.prepared.choices)
    return context, fit(network, task, context.prepared.config, folder, context.console)


def pretrain_head(context: StrategyContext, network: Staged, folder: RunFolder, task: Task) -> None:
    """Train a head with hidden layers alone, in a temporary folder, before the other layers."""
    temporary = RunFolder(folder.path / "head")
    temporary.path.mkdir(exist_ok=True)
    frozen = copy.deepcopy(network)
    freeze(frozen, len(frozen.stages))
    scheduled, task = _scheduled(context, frozen, task, HEAD_SHARE)
    try:
        fit(frozen, task, scheduled.prepared.config, temporary, context.console)
    except Interrupted as error:
        raise Interrupted(error.number, str(folder.path)) from None
    network.load_state_dict(read_file(temporary.weights).tensors)
    shutil.rmtree(temporary.path)


def _scheduled(
    context: StrategyContext, network: Staged, task: Task, share: float | None
) -> tuple[StrategyContext, Task]:
    """With as many epochs as fit into a share of the time left; None: all but the finishing."""
    clock, prepared, batches = context.clock, context.prepared, task.batches
    if not clock.bounded:
        return context, task
    deadline = throughput.deadline(prepared, clock)
    schedule = throughput.measure_schedule(network, batches, prepared, task.eval_splits)
    left = clock.left
    seconds = max(0.0, left - schedule.finish if share is None else left * share)
    prepared = throughput.plan_epochs(prepared, seconds, schedule.epoch, batches, whole=True)
    return context.with_prepared(prepared), dataclasses.replace(task, deadline=deadline)


def _as_maps(values: Floats, layer: FeatureLayer, device: torch.device) -> torch.Tensor:
    """Features [N, D] -> maps [N, C, pool_size, pool_size], which pooling leaves unchanged."""
    side = layer.pool_size
    shape = (len(values), values.shape[1] // side**2, side, side)
    return torch.from_numpy(values).view(shape).to(device)
