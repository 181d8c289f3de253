"""Frozen features -> a head: logistic regression, or trained by gradient descent.

It is the result of `--transfer features` and the initial head of fine-tuning.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from residua.config.auto import cross_validated
from residua.data.random import Integers, shuffled
from residua.evaluation.cross_validated import CrossValidated
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureRows
from residua.inference.logistic import fit_logistic
from residua.networks.staged import Staged
from residua.runs.folder import BEST, RunFolder
from residua.system.console import Report, announcing
from residua.system.words import decimals
from residua.training import throughput
from residua.training.checkpoint import STATE
from residua.training.progress import Progress
from residua.transfer.context import PredictLogits, StrategyContext, StrategyOutcome
from residua.transfer.cross_validation import LayerScore, Targets, best_layer, score_layers
from residua.transfer.expected_accuracy import Estimate
from residua.transfer.result import CrossValidation, TransferResult
from residua.transfer.trained_head import head_task, pretrain_head, train_head, views_of
from residua.weights.load import read_file
from residua.weights.network import Logits, build_network

FEATURE_SHARE = 0.8  # of a budget that features may take if nothing follows
CHOICE_SHARE = 0.9  # of a budget, until which layers and C are compared
INITIAL_SHARE = 0.15  # of the time left, for the features of an initial head
MAX_THREADS = 8  # that fit heads concurrently, each on its own rows


@dataclass(frozen=True, eq=False)
class _LayerComparison:
    """The candidate layers, cross-validated on `rows`, and what the best one can be expected to do.

    estimate: None if no class has two images.
    """

    scores: list[LayerScore]
    estimate: Estimate | None
    rows: FeatureRows

    @property
    def best(self) -> LayerScore:
        """See `best_layer`."""
        return best_layer(self.scores)

    @property
    def predictions(self) -> CrossValidated:
        """Those of the best layer."""
        probes = self.best.probes
        return CrossValidated(
            self.rows.samples,
            probes.correct[:, probes.best],
            probes.evaluated,
            probes.log_probabilities,
            self.rows.values[self.best.layer],
            probes.c,
        )

    def result(self, training_images: int) -> CrossValidation | None:
        """The accuracy to expect of a head fitted on training_images, for transfer.json."""
        if self.estimate is None:
            return None
        probes = self.best.probes
        return CrossValidation(
            self.estimate.accuracy,
            self.estimate.interval,
            self.estimate.images,
            training_images,
            skipped=int((~probes.evaluated).sum()),
            errors=int((~probes.correct[probes.evaluated, probes.best]).sum()),
        )


def fit_probe(
    context: StrategyContext,
    folder: RunFolder,
    *,
    deadline: float | None = None,
    final: bool = True,
) -> StrategyOutcome:
    """Choose a feature layer and fit a head on it; the weights file is in `folder`.

    deadline: time.monotonic() at which to stop computing features; None: at FEATURE_SHARE of the
    budget. final: a head that is trained may use the whole budget but for evaluation and report;
    else a share of the time left. Raises Interrupted after a signal; computed features are
    cached then.
    """
    members = context.prepared.training_members
    deadline = deadline or context.clock.at(FEATURE_SHARE)
    is_resumed = final and (folder.path / STATE).exists()
    if is_resumed and deadline is not None:
        deadline = time.monotonic()  # the cached features are those that training began with
    comparison = _cross_validate(context, candidate_layers(context), members, deadline)
    deadline = _leaving_time_to_finish(context, comparison.rows, deadline)
    best = comparison.best
    if best.probes.abandoned:
        context.console.warn("the time budget ended the choice of C: a longer one may improve it")
    context = _with_layer(context, best)
    rows = _training_rows(context, best.layer, members, comparison.rows, deadline)
    result = TransferResult(
        layers=tuple(score.result for score in comparison.scores),
        images=len(rows.samples),
        computed=rows.computed,
        feature_seconds=rows.seconds,
        engine=context.features.engine.name,
        refusal=context.features.refusal or None,
    )
    began = time.monotonic()
    if context.prepared.config.network.head == "logistic":
        if final:
            warn_of_unused(len(rows.samples), context)
        progress = _save_logistic_head(context, folder, best, rows, deadline)
        cross_validation = comparison.result(len(rows.samples))
        result = dataclasses.replace(result, cross_validation=cross_validation)
        context.console.print(_summary(best, len(comparison.scores), cross_validation))
    else:
        task = head_task(context, best.layer, rows, deadline)
        context, progress = train_head(context, folder, task, final, is_resumed)
    fit_seconds = time.monotonic() - began
    return StrategyOutcome(
        context.prepared,
        progress,
        comparison.predictions,
        predict_logits=_cached_predictor(context, best.layer, folder),
        result=result,
        scores=_complete(comparison.scores),
        fit_seconds=fit_seconds,
    )


def refit_probe(
    context: StrategyContext, folder: RunFolder, probe: StrategyOutcome, deadline: float | None
) -> StrategyOutcome:
    """The logistic regression of `probe`, its layer and C, on the training set of `context`, which
    has more images: as many as there are features of until the deadline. Its file replaces the one
    in `folder`; the cross-validation stays that of `probe`."""
    best, measured = best_layer(list(probe.scores.values())), probe.result
    context = _with_layer(context, best)
    members = context.prepared.training_members
    rows = _training_rows(context, best.layer, members, None, deadline)
    warn_of_unused(len(rows.samples), context)
    progress = _save_logistic_head(context, folder, best, rows, deadline)
    images, crossed = len(rows.samples), measured.cross_validation
    if crossed is not None:
        crossed = dataclasses.replace(crossed, training_images=images)
    return dataclasses.replace(
        probe,
        prepared=context.prepared,
        progress=progress,
        result=dataclasses.replace(measured, images=images, cross_validation=crossed),
        predict_logits=_cached_predictor(context, best.layer, folder),
    )


def initialise_head(
    context: StrategyContext, network: Staged, folder: RunFolder
) -> tuple[TransferResult, dict[FeatureLayer, LayerScore]]:
    """Fit the head of `network` on its frozen features, in place."""
    layer = FeatureLayer(len(network.stages), network.pool_size, network.earlier_pools)
    members, deadline = context.prepared.training_members, context.clock.ahead(INITIAL_SHARE)
    if layer in context.scores:
        score, rows = context.scores[layer], None
    else:
        comparison = _cross_validate(context, [layer], members, deadline)
        score, rows = comparison.best, comparison.rows
    rows = _training_rows(context, layer, members, rows, deadline)
    if isinstance(network.head, nn.Linear):
        _solve_head(context, network.head, score, rows, deadline)
        context.console.print(f"head initialised: {_summary(score, 1, None)}")
    else:
        pretrain_head(context, network, folder, head_task(context, layer, rows, deadline))
    return TransferResult(layers=(score.result,), images=len(rows.samples)), _complete([score])


# Which layer


def candidate_layers(context: StrategyContext) -> list[FeatureLayer]:
    """The layer of the settings, or else those that are worth comparing."""
    prepared, network = context.prepared, context.prepared.config.network
    last = context.features.stages.count
    if any(
        map(prepared.is_explicit, ("network.stage", "network.pool_size", "network.earlier_pools"))
    ):
        return [
            FeatureLayer(network.stage or last, network.pool_size or 1, network.earlier_pools or ())
        ]
    if network.head != "logistic":  # as tutorials 2 and 3: the input of the network's own head
        return [FeatureLayer(last, 1)]
    return context.features.candidates


def _cross_validate(
    context: StrategyContext,
    layers: Sequence[FeatureLayer],
    members: Integers,
    deadline: float | None,
) -> _LayerComparison:
    """Cross-validate layers on the training set, or on some of it."""
    half = None if deadline is None else (time.monotonic() + deadline) / 2
    context.features.prepare_engine()
    with context.console.bar("features") as move:
        report = announcing(context.console, move, "features of")
        rows = rows_to_score(context, layers, members, half, report)
    with context.console.bar("cross-validation") as move:
        targets, end = targets_of(context, rows.samples), context.clock.at(CHOICE_SHARE)
        scores, estimate = score_rows(rows, targets, move, end)
    return _LayerComparison(scores, estimate, rows)


def rows_to_score(
    context: StrategyContext,
    layers: Sequence[FeatureLayer],
    members: Integers,
    deadline: float | None,
    report: Report,
) -> FeatureRows:
    """The features that layers are cross-validated on: of the training set, or of some of it."""
    config = context.prepared.config
    count = cross_validated(config.network.classes)
    if len(members) > count:
        members = shuffled(config.training.seed, 0, members)[:count]
    return context.features.rows(
        layers, members, deadline=deadline, least=context.least_images, report=report
    )


def score_rows(
    rows: FeatureRows, targets: Targets, report: Report, deadline: float | None = None
) -> tuple[list[LayerScore], Estimate | None]:
    """`score_layers` on all cores."""
    threads = min(MAX_THREADS, torch.get_num_threads())
    return score_layers(rows, targets, report=report, threads=threads, deadline=deadline)


def targets_of(context: StrategyContext, samples: Integers) -> Targets:
    """The targets of a probe of these samples, by the settings.

    Samples of a group share a fold: their key is that of its first image.
    """
    prepared, config = context.prepared, context.prepared.config
    keys = [key.hex() for key in context.features.keys(samples)]
    first: dict[str, str] = {}
    groups = prepared.groups_of(samples)
    return Targets(
        prepared.labels[samples],
        config.network.classes,
        config.optimization.class_weights == "balanced",
        prepared.weights_of(samples),
        [first.setdefault(group, key) for group, key in zip(groups, keys, strict=True)],
        config.training.seed,
    )


def _complete(scores: Sequence[LayerScore]) -> dict[FeatureLayer, LayerScore]:
    """The best score, and the others that were compared at every C."""
    best = best_layer(scores)
    return {score.layer: score for score in scores if score is best or not score.probes.abandoned}


def _with_layer(context: StrategyContext, best: LayerScore) -> StrategyContext:
    """The settings of a layer; none are needed for the input of the network's own head."""
    layer = best.layer
    is_default = layer == FeatureLayer(context.features.stages.count, 1)
    if is_default and context.prepared.config.network.stage is None:
        return context
    reason = f"smallest cross-validated loss, {best.probes.mean_loss:.3f}"
    context = context.choose("network.stage", layer.stage, reason)
    context = context.choose("network.pool_size", layer.pool_size, reason)
    if not layer.earlier_pools:
        return context
    return context.choose("network.earlier_pools", list(layer.earlier_pools), reason)


def _summary(score: LayerScore, candidates: int, cross: CrossValidation | None) -> str:
    """The layer, its regularisation, its errors and expected accuracy, in a line."""
    compared = f", best of {candidates} layers" if candidates > 1 else ""
    line = f"linear probe on {score.layer} (C = {score.probes.c:g}{compared})"
    if cross is None:
        accuracy = score.probes.accuracy
        return f"{line}: cross-validated accuracy {decimals(accuracy, 4)}" if accuracy else line
    expected, low, high = (decimals(share, 4) for share in (cross.accuracy, *cross.interval))
    line += (
        f": {cross.errors:,} of {cross.images:,} images misclassified in cross-validation, "
        f"expected accuracy {expected} (95 % CI {low} to {high})"
    )
    alone = f"; {cross.skipped:,} without another image of the same class skipped"
    return line + alone if cross.skipped else line


# Its features


def _leaving_time_to_finish(
    context: StrategyContext, rows: FeatureRows, deadline: float | None
) -> float | None:
    """The deadline, or as much earlier as evaluation and report need."""
    if deadline is None or not rows.computed:
        return deadline
    finish = throughput.finishing_seconds(context.prepared, rows.seconds / rows.computed)
    return min(deadline, time.monotonic() + context.clock.left - finish)


def _training_rows(
    context: StrategyContext,
    layer: FeatureLayer,
    members: Integers,
    scored: FeatureRows | None,
    deadline: float | None,
) -> FeatureRows:
    """The layer's features of the training set, as far as time allows."""
    if scored is not None and len(scored.samples) == len(members):
        return scored
    with context.console.bar("features") as move:
        return context.features.rows([layer], members, deadline=deadline, report=move)


def warn_of_unused(images: int, context: StrategyContext) -> None:
    """Print how many training images a saved probe was fitted on, if not on all."""
    members = len(context.prepared.training_members)
    if images < members:
        context.console.warn(
            f"the time budget suffices for features of {images:,} of {members:,} images"
        )


# A head by logistic regression


def _save_logistic_head(
    context: StrategyContext,
    folder: RunFolder,
    best: LayerScore,
    rows: FeatureRows,
    deadline: float | None,
) -> Progress:
    network = context.network()
    assert isinstance(network.head, nn.Linear)
    _solve_head(context, network.head, best, rows, deadline)
    metadata = dataclasses.replace(context.metadata(), notes={"C": best.probes.c})
    folder.write_weights(BEST, network.state_dict(), metadata)
    return Progress(seconds=context.clock.passed)


def _solve_head(
    context: StrategyContext,
    head: nn.Linear,
    score: LayerScore,
    rows: FeatureRows,
    deadline: float | None,
) -> None:
    """Set a linear head to the logistic regression on all rows and views, in place."""
    config = context.prepared.config
    views = views_of(context, score.layer, rows.samples, deadline)
    values = np.concatenate([rows.values[score.layer], *views])
    labels = np.tile(context.prepared.labels[rows.samples], 1 + len(views))
    c = score.probes.c / (1 + len(views))  # C multiplies the sum over all rows
    balanced = config.optimization.class_weights == "balanced"
    weights = context.prepared.weights_of(np.tile(rows.samples, 1 + len(views)))
    solved = fit_logistic(
        values, labels, config.network.classes, c, balanced=balanced, weights=weights
    )
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(solved.weight))
        head.bias.copy_(torch.from_numpy(solved.bias))


# Predictions


def _cached_predictor(
    context: StrategyContext, layer: FeatureLayer, folder: RunFolder
) -> PredictLogits:
    """Logits of the saved head from cached features; the file is read at each call."""

    def predict_logits(samples: Integers) -> Logits:
        network = build_network(read_file(folder.weights), context.prepared.device)
        values = context.features.rows([layer], samples).values[layer]
        with torch.inference_mode():
            features = torch.from_numpy(values).to(context.prepared.device)
            return network.classify(features).float().cpu().numpy()

    return predict_logits
