"""Pretrained weights, or a network from scratch -> a trained network, in the time available."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from residua.config import auto
from residua.data.batches import Inputs
from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.networks.staged import Staged
from residua.runs.folder import TRANSFER, RunFolder
from residua.system.words import percent
from residua.training import throughput
from residua.training.checkpoint import STATE, restore_network
from residua.training.loop import fit
from residua.training.memory import with_fitting_batch
from residua.training.progress import Task
from residua.transfer.cached_batches import CachedBatches, batches_after
from residua.transfer.context import StrategyContext, StrategyOutcome, saved_predictor
from residua.transfer.cross_validation import LayerScore
from residua.transfer.linear_probe import initialise_head
from residua.transfer.result import TransferResult, result_of

USEFUL_FEATURES = 0.9  # accuracy of the linear probe from which on small steps preserve them
FEW_EPOCHS, MANY_EPOCHS = 3, 10
LARGE_ADAMW_RATE = 1e-3
TRAINED_STAGES = 0.45  # of the stages, by partial fine-tuning
NO_AUGMENTATION = {
    "augmentation.flip": False,
    "augmentation.crop_padding": 0,
    "augmentation.rotation": 0.0,
    "augmentation.zoom": [1.0, 1.0],
    "augmentation.brightness": 0.0,
    "augmentation.contrast": 0.0,
    "augmentation.saturation": 0.0,
}


def fits(context: StrategyContext, epochs: int) -> bool:
    """Whether this number of epochs of a strategy fits into the time left, by a measurement."""
    _, _, schedule = _measured(context, context.network())
    return epochs * schedule.epoch <= context.clock.left - schedule.finish


def fine_tune(
    context: StrategyContext, folder: RunFolder, *, final: bool = True, least_epochs: int = 0
) -> StrategyOutcome:
    """Train what is not frozen: all layers, the later stages, or a network from scratch.

    The head of pretrained weights is initialised with a linear probe first: the gradients of a
    random one would destroy the features. final: the result is evaluated and reported within the
    budget. Raises Interrupted after a signal, ResiduaError if fewer than least_epochs fit.
    """
    strategy = context.prepared.config.transfer.strategy
    is_pretrained = strategy in ("partial", "full")
    if strategy == "partial":
        context = _with_frozen_stages(context)
    network, clock, console = context.network(), context.clock, context.console
    result, reserved = TransferResult(), 0.0
    scores: dict[FeatureLayer, LayerScore] = {}
    if (folder.path / STATE).exists():  # planned before the interruption
        restore_network(network, folder)
        result = result_of(folder)
        batches, line = batches_after(network, context.prepared, clock, console)
    else:
        if is_pretrained:
            result, scores = initialise_head(context, network, folder)
        context = context.with_prepared(with_fitting_batch(network, context.prepared, console))
        plan = _plan(context, network, final, least_epochs)
        context, batches, line, reserved = plan.context, plan.batches, plan.line, plan.reserved
        result = dataclasses.replace(
            result, predicted_epochs=plan.all_epochs, predicted_seconds=plan.seconds
        )
        if is_pretrained:
            context = _with_learning_rate(context, result.layers[-1].accuracy)
        if final:
            folder.write_settings(context.prepared.config, context.prepared.choices)
            folder.write_json(TRANSFER, result.to_json())
    if line:
        console.print(line)
    prepared = context.prepared
    task = Task(
        batches,
        prepared.eval_splits(throughput.validation_limit(clock)),
        prepared.counts("train"),
        context.metadata(),
        throughput.deadline(prepared, clock, reserved),
        evaluate_first=is_pretrained,
    )
    progress = fit(network, task, prepared.config, folder, console)
    return StrategyOutcome(
        prepared,
        progress,
        predict_logits=saved_predictor(folder, prepared),
        result=result,
        scores=scores,
    )


@dataclass(frozen=True)
class _Plan:
    """A training that fits into the time left.

    context: with the planned epochs. line: to print about the batches.
    all_epochs, seconds: of the training without a time limit.
    reserved: seconds of the budget in which no further epoch may begin.
    """

    context: StrategyContext
    batches: Inputs
    line: str
    all_epochs: int
    seconds: float
    reserved: float = 0.0


def _plan(context: StrategyContext, network: Staged, final: bool, least_epochs: int) -> _Plan:
    """Measure the speed, and plan as many epochs as fit. The parameters: see `fine_tune`."""
    clock, console = context.clock, context.console
    batches, line, schedule = _measured(context, network)
    is_computed = batches.stages and not isinstance(batches, CachedBatches)
    if is_computed and clock.left < FEW_EPOCHS * schedule.epoch:
        context = _without_augmentation(context)
        batches, line, schedule = _measured(context, network)
    epochs = context.prepared.config.training.epochs
    plan = _Plan(context, batches, line, epochs, epochs * schedule.epoch)
    if not clock.bounded:
        return plan
    seconds = max(0.0, clock.left - (schedule.finish if final else 0.0))
    prepared = throughput.plan_epochs(context.prepared, seconds, schedule.epoch, batches)
    if prepared.config.training.epochs < min(least_epochs, epochs):
        raise ResiduaError(
            f"fewer than {least_epochs} epochs fit into the time left; --effort best has "
            "no time limit"
        )
    if prepared.config.training.max_images:
        batches, line = batches_after(network, prepared, clock, console)
    return dataclasses.replace(
        plan,
        context=context.with_prepared(prepared),
        batches=batches,
        line=line,
        reserved=schedule.epoch + schedule.finish if final else 0.0,
    )


def _measured(context: StrategyContext, network: Staged) -> tuple[Inputs, str, throughput.Schedule]:
    """The batches behind the frozen stages, a line to print about them, and the time they take."""
    prepared, clock = context.prepared, context.clock
    batches, line = batches_after(network, prepared, clock, context.console)
    splits = prepared.eval_splits(throughput.validation_limit(clock))
    return batches, line, throughput.measure_schedule(network, batches, prepared, splits)


def _with_frozen_stages(context: StrategyContext) -> StrategyContext:
    """Freeze the first stages, unless the settings state how many."""
    if context.prepared.config.network.freeze:
        return context
    count = len(context.network().stages)
    frozen = count - max(1, int(TRAINED_STAGES * count))
    if frozen == 0:
        raise ResiduaError(
            "--transfer partial: the head reads stage 1, so nothing is frozen. Use --transfer "
            "features or --transfer full."
        )
    return context.choose("network.freeze", frozen, f"{frozen} of {count} stages")


def _without_augmentation(context: StrategyContext) -> StrategyContext:
    """With frozen stages and time for few epochs: their output can be cached only for images that
    stay the same, and epochs help more than augmentation does."""
    if context.prepared.config.network.freeze:
        for setting, value in NO_AUGMENTATION.items():
            context = context.choose(setting, value, "few epochs fit: frozen stages are cached")
    return context


def _with_learning_rate(context: StrategyContext, accuracy: float) -> StrategyContext:
    """Large steps if the linear probe often fails and there are epochs enough to improve on it.

    Small steps preserve the features, which pays only where these are useful.
    """
    config = context.prepared.config
    if accuracy >= USEFUL_FEATURES or config.training.epochs < MANY_EPOCHS:
        return context
    reason = (
        f"linear probe error {percent(1 - accuracy)}, {config.training.epochs} epochs to improve it"
    )
    batch = auto.images_per_step(config, sum(context.prepared.counts("train")))
    rates = {"sgd": auto.LEARNING_RATE * batch / 128, "adamw": LARGE_ADAMW_RATE}
    if learning_rate := rates.get(config.optimization.optimizer):
        context = context.choose("optimization.learning_rate", learning_rate, reason)
    return context.choose("optimization.layer_decay", 1.0, reason)
