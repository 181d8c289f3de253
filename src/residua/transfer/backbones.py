"""Several initial weights -> those whose frozen features separate the classes best, and why.

A linear probe of each is cross-validated on the same images and folds; training starts from the
weights with the smallest loss, as if they alone had been named. If these predictions, averaged with
those of another probe, are clearly more accurate, the two networks are evaluated side by side, with
a probe on the later stages of both. Training starts from the pair if it is clearly better, too.
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
from residua.config.schema import JOINER
from residua.config.start import weights_sources
from residua.data.prepare import prepare
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.inference.features import FeatureRows, positions
from residua.inference.regressions import Labels
from residua.runs.provenance import images_seen_by, leakage_notes
from residua.runs.sources import absolute_source, initial_weights
from residua.system.budget import Clock
from residua.system.console import Console
from residua.system.words import decimals
from residua.training.initial import check_network
from residua.transfer.context import StrategyContext
from residua.transfer.cross_validation import LayerScore, ProbeScores, Targets, best_layer
from residua.transfer.expected_accuracy import Estimate
from residua.transfer.linear_probe import (
    CHOICE_SHARE,
    candidate_layers,
    rows_to_score,
    score_rows,
    targets_of,
)
from residua.transfer.result import BackboneResult, TransferResult
from residua.transfer.trial import CLEAR, paired_gain
from residua.uncertainty.softmax import log_softmax
from residua.weights.load import Weights

Correct = npt.NDArray[np.bool_]
SHARE = 0.3  # of a budget, for the features of all backbones
PAIR_SHARE = 0.5  # of a budget, until which features of two side by side may be computed


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
    """The best layer of a candidate, cross-validated on some samples.

    correct: of those that were evaluated, in their order.
    """

    candidate: _Candidate
    samples: Integers
    score: LayerScore
    estimate: Estimate
    correct: Correct

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
        deadline = _deadline(clock, SHARE, len(sources) - number)
        candidates.append(_candidate(source, context, deadline, console))
    samples = reduce(np.intersect1d, [candidate.rows.samples for candidate in candidates])
    first = candidates[0]  # whose folds count
    targets = first.targets.take(positions(first.rows.samples, samples))
    probes = [_probe(candidate, samples, targets, clock, console) for candidate in candidates]
    probes.sort(key=lambda probe: probe.score.probes.mean_loss)
    for probe in probes[1:]:
        for note in probe.candidate.notes:
            console.warn(note)
    probes, reason = _with_pair(probes, targets, start, clock, console)
    results = tuple(probe.result for probe in probes)
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


def _deadline(clock: Clock, share: float, remaining: int) -> float | None:
    """The time.monotonic() at which to stop computing features; None: there is no limit.

    remaining: sources for the time until that share of the budget has passed.
    """
    end = clock.at(share)
    now = time.monotonic()
    return None if end is None else now + max(0.0, end - now) / remaining


def _candidate(
    source: str, context: StrategyContext, deadline: float | None, console: Console
) -> _Candidate:
    prepared, weights = context.prepared, context.weights
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


def _probe(
    candidate: _Candidate, samples: Integers, targets: Targets, clock: Clock, console: Console
) -> _Probe:
    end = clock.at(CHOICE_SHARE)
    with console.bar(f"cross-validation of {candidate.source}") as move:
        scores, estimate = score_rows(candidate.rows_of(samples), targets, move, end)
    if estimate is None:
        raise ResiduaError(
            "no class has two images, so several --weights cannot be compared: name one of them."
        )
    best = best_layer(scores)
    correct = _correct(best.probes, best.probes.log_probabilities, targets.labels)
    return _Probe(candidate, samples, best, estimate, correct)


def _with_pair(
    probes: Sequence[_Probe], targets: Targets, start: Chooser, clock: Clock, console: Console
) -> tuple[list[_Probe], str]:
    """The probes, the one to continue with first, and why; with that of a pair, if it was tried.

    probes: the best first.
    """
    alone = _reason(probes)
    other = _complement(probes, targets.labels)
    if other is None:
        return list(probes), alone
    source = JOINER.join((probes[0].candidate.source, other.candidate.source))
    try:
        candidate = _pair(source, start, clock, console)
    except ResiduaError as error:
        return list(probes), f"{alone}; two side by side not tried: {error}"
    shared = np.intersect1d(probes[0].samples, candidate.rows.samples)
    if len(shared) < len(probes[0].samples):  # there was no time for more
        targets = targets.take(positions(probes[0].samples, shared))
        probes = [_probe(probe.candidate, shared, targets, clock, console) for probe in probes]
        probes.sort(key=lambda probe: probe.score.probes.mean_loss)
    pair, (best, *others) = _probe(candidate, shared, targets, clock, console), probes
    gain, noise = paired_gain(pair.correct, best.correct)
    difference = f"{100 * gain:+.1f} points of accuracy, noise {100 * noise:.1f} points"
    if gain > CLEAR * noise:
        reason = f"better than {best.candidate.source} alone: {difference}"
        ordered = [pair, *probes]
        listed = _listed([probe.result for probe in ordered])
        return ordered, f"{reason}; cross-validated loss {listed}"
    return [best, pair, *others], f"{_reason(probes)}; {source} side by side: {difference}"


def _reason(probes: Sequence[_Probe]) -> str:
    """The loss of the first, the smallest of a single network, and those of the others."""
    return f"smallest cross-validated loss, {_listed([probe.result for probe in probes])}"


def _listed(results: Sequence[BackboneResult]) -> str:
    """Loss and accuracy of all, but the source of the first."""
    lines = [
        f"{result.loss:.3g} (expected accuracy {decimals(result.accuracy, 4)}, 95 % CI "
        f"{decimals(result.interval[0], 4)} to {decimals(result.interval[1], 4)})"
        for result in results
    ]
    others = [f"{result.source} {line}" for result, line in zip(results, lines, strict=True)]
    return "; ".join([lines[0], *others[1:]])


def _complement(probes: Sequence[_Probe], labels: Labels) -> _Probe | None:
    """The probe whose predictions, averaged with those of the first, gain most in accuracy; None if
    the gain is within the noise."""
    best, *others = probes
    logs, gains = best.score.probes.log_probabilities, []
    for number, other in enumerate(others):
        averaged = log_softmax((logs + other.score.probes.log_probabilities) / 2)
        gain, noise = paired_gain(_correct(best.score.probes, averaged, labels), best.correct)
        if gain > CLEAR * noise:
            gains.append((gain, -number))
    return others[-max(gains)[1]] if gains else None


def _pair(source: str, start: Chooser, clock: Clock, console: Console) -> _Candidate:
    """The features of two networks side by side. Raises ResiduaError if they cannot be joined."""
    config = parse.with_settings(start.config, {"network.weights": source})
    weights = initial_weights(config, console)
    assert weights is not None
    context = _context(Chooser(config, start.choices), weights, clock)
    return _candidate(source, context, _deadline(clock, PAIR_SHARE, 1), console)


def _correct(
    probes: ProbeScores, log_probabilities: npt.NDArray[np.floating], labels: Labels
) -> Correct:
    """Whether each evaluated row is classified correctly."""
    return np.asarray(log_probabilities.argmax(axis=1) == labels)[probes.evaluated]
