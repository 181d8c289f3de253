"""Several initial weights -> those whose frozen features separate the classes best, and why.

A linear probe of each is cross-validated on the same images and folds; training starts from the
weights with the smallest loss, as if they alone had been named. Averaged predictions of two probes
are evaluated too, but no such model is built.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.config import parse
from residua.config.auto import Choice, Chooser
from residua.config.start import weights_sources
from residua.data.prepare import prepare
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.inference.features import FeatureRows, positions
from residua.inference.regressions import Labels
from residua.runs.provenance import images_seen_by
from residua.runs.sources import absolute_source, initial_weights, leakage_notes
from residua.system.budget import Clock
from residua.system.console import Console
from residua.system.words import decimals
from residua.training.initial import check_network
from residua.transfer.context import StrategyContext
from residua.transfer.cross_validation import Estimate, LayerScore, Targets, best_layer
from residua.transfer.linear_probe import candidate_layers, rows_to_score, score_rows, targets_of
from residua.transfer.result import BackboneResult, TransferResult
from residua.transfer.trial import CLEAR, paired_gain
from residua.uncertainty.softmax import log_softmax
from residua.weights.load import Weights

SHARE = 0.3  # of a budget, for the features of all backbones


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One of the sources: features and targets of its rows, without the images.

    notes: of images that it was trained on.
    """

    source: str
    network: str
    rows: FeatureRows
    targets: Targets
    notes: Sequence[str]

    def rows_of(self, samples: Integers) -> FeatureRows:
        """The features of some of its samples."""
        at = positions(self.rows.samples, samples)
        values = {layer: rows[at] for layer, rows in self.rows.values.items()}
        return FeatureRows(samples, values, self.rows.computed, self.rows.seconds)


@dataclass(frozen=True, eq=False)
class _Probe:
    """The best layer of a candidate."""

    candidate: _Candidate
    score: LayerScore
    estimate: Estimate

    @property
    def result(self) -> BackboneResult:
        """As a row of transfer.json."""
        layer, estimate = self.score.layer, self.estimate
        return BackboneResult(
            source=self.candidate.source,
            network=self.candidate.network,
            stage=layer.stage,
            pool_size=layer.pool_size,
            earlier_pools=layer.earlier_pools,
            loss=self.score.probes.mean_loss,
            accuracy=estimate.accuracy,
            interval=estimate.interval,
            images=estimate.images,
        )


def choose_backbone(
    start: Chooser, clock: Clock, console: Console
) -> tuple[Chooser, dict[str, Any]]:
    """The settings with the best of several sources as network.weights, and the comparison for
    transfer.json.

    Opens every source before it reads an image. Raises ResiduaError.
    """
    sources = weights_sources(start.config.network.weights)
    configs = [parse.with_settings(start.config, {"network.weights": name}) for name in sources]
    weights = [initial_weights(config, console) for config in configs]
    candidates = []
    for number, (source, opened) in enumerate(zip(sources, weights, strict=True)):
        assert opened is not None
        context = _context(Chooser(configs[number], start.choices), opened, clock)
        candidates.append(_candidate(source, context, len(sources) - number, console))
    samples = reduce(np.intersect1d, [candidate.rows.samples for candidate in candidates])
    first = candidates[0]  # whose folds count
    targets = first.targets.take(positions(first.rows.samples, samples))
    probes = [_probe(candidate, samples, targets, console) for candidate in candidates]
    probes.sort(key=lambda probe: probe.score.probes.mean_loss)
    for probe in probes[1:]:
        for note in probe.candidate.notes:
            console.warn(note)
    results = tuple(probe.result for probe in probes)
    reason = _reason(results) + _together(probes, targets.labels)
    console.print(f"initial weights {results[0].source}: {reason}")
    chosen = absolute_source(results[0].source)
    config = parse.with_settings(start.config, {"network.weights": chosen})
    choices = (*start.choices, Choice("network.weights", chosen, reason))
    return Chooser(config, choices), TransferResult(backbones=results).to_json()


def _context(start: Chooser, weights: Weights, clock: Clock) -> StrategyContext:
    """Data, preprocessing and feature extractor as the weights need them, for a linear probe."""
    quiet = Console(quiet=True)
    prepared = prepare(start.config, quiet, weights.expects, start.choices)
    check_network(prepared, weights)
    context = StrategyContext(prepared, weights, start.config, clock, quiet)
    return context.for_strategy("features").with_extractor()


def _candidate(
    source: str, context: StrategyContext, remaining: int, console: Console
) -> _Candidate:
    """remaining: sources that share the rest of the time, with this one."""
    clock, prepared, weights = context.clock, context.prepared, context.weights
    deadline = None
    if clock.bounded:
        now, end = time.monotonic(), clock.at(SHARE)
        assert end is not None
        deadline = now + max(0.0, end - now) / remaining
    assert weights is not None
    context.features.prepare_engine()
    with console.bar(f"features of {source}") as move:
        rows = rows_to_score(
            context, candidate_layers(context), prepared.training_members, deadline, move
        )
    return _Candidate(
        source,
        weights.metadata.network.name,
        rows,
        targets_of(context, rows.samples),
        leakage_notes(images_seen_by(weights), prepared.config, prepared),
    )


def _probe(candidate: _Candidate, samples: Integers, targets: Targets, console: Console) -> _Probe:
    with console.bar(f"cross-validation of {candidate.source}") as move:
        scores, estimate = score_rows(candidate.rows_of(samples), targets, move)
    if estimate is None:
        raise ResiduaError(
            "no class has two images, so several --weights cannot be compared: name one of them."
        )
    return _Probe(candidate, best_layer(scores), estimate)


def _reason(results: Sequence[BackboneResult]) -> str:
    """The accuracies of all, the best first."""
    listed = [
        f"{result.loss:.3g} (expected accuracy {decimals(result.accuracy, 4)}, 95 % CI "
        f"{decimals(result.interval[0], 4)} to {decimals(result.interval[1], 4)})"
        for result in results
    ]
    others = [f"{result.source} {line}" for result, line in zip(results, listed, strict=True)]
    return f"smallest cross-validated loss, {listed[0]}; " + "; ".join(others[1:])


def _together(probes: Sequence[_Probe], labels: Labels) -> str:
    """A clause on the pair with the best that gains most in accuracy; "" if within the noise."""
    logs = [probe.score.probes.log_probabilities for probe in probes]
    best, *others = probes
    evaluated = best.score.probes.evaluated
    alone = _correct(logs[0], labels)[evaluated]
    clauses = []
    for other, log in zip(others, logs[1:], strict=True):
        both = _correct(log_softmax((logs[0] + log) / 2), labels)[evaluated]
        gain, noise = paired_gain(both, alone)
        if gain > CLEAR * noise:
            clauses.append(
                (
                    gain,
                    f"; averaged with the predictions of {other.candidate.source} it would gain "
                    f"{100 * gain:.1f} points, noise {100 * noise:.1f} points",
                )
            )
    return max(clauses, default=(0.0, ""))[1]


def _correct(log_probabilities: npt.NDArray[np.floating], labels: Labels) -> npt.NDArray[np.bool_]:
    return np.asarray(log_probabilities.argmax(axis=1) == labels)
