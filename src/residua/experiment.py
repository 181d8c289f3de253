"""A config -> a trained, evaluated and reported run folder; or an interrupted run, continued."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from residua.audits.audit import Audit, check_training
from residua.config import parse
from residua.config.auto import Chooser
from residua.config.schema import AUTO, Config
from residua.config.start import weights_sources
from residua.data.batches import Inputs
from residua.data.dataset import SplitName
from residua.data.fixes import joined_fixes, write_fixes
from residua.data.open import resolved
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.errors import ResiduaError
from residua.evaluation.calibrate import calibrate
from residua.evaluation.recorded import caveat_of, record, recorded_scores
from residua.evaluation.score import CROSS_VALIDATION, Evaluation, EvaluationSet, score_images
from residua.evaluation.thumbnail import baselines
from residua.networks.zoo.catalogue import config_of
from residua.report import html
from residua.report.evidence import evidence_of
from residua.report.facts import report_facts
from residua.report.header import print_header
from residua.report.model_card import write_model_card
from residua.report.text import accuracy_text, cautions, finished_text
from residua.runs.folder import REPORT, START, TRANSFER, Busy, RunFolder
from residua.runs.provenance import images_seen_by, with_leakage_notes, write_earlier_images
from residua.runs.sources import (
    absolute_source,
    chosen_start,
    in_order_of,
    initial_weights,
    report_initial_weights,
)
from residua.runs.tracking import Tracker, Trackers, trackers_for
from residua.system.budget import Clock, seconds_of
from residua.system.console import Console
from residua.system.device import environment
from residua.system.files import check_writable, refuse_inside
from residua.system.signals import Interrupted, signal_of
from residua.training import throughput
from residua.training.checkpoint import STATE, restore_network
from residua.training.context import Context, Outcome
from residua.training.initial import check_network, check_own, initial_metadata, with_own
from residua.training.loop import fit
from residua.training.margins import recorded_margins
from residua.training.memory import with_fitting_batch
from residua.training.meter import Diverged
from residua.training.progress import Task
from residua.training.readable_errors import readable_errors
from residua.transfer.result import result_of
from residua.uncertainty.record import Uncertainty
from residua.weights.load import Weights


def train(
    config: Config,
    out: str | None,
    console: Console,
    *,
    report: bool = True,
    track: Sequence[Tracker] = (),
) -> RunFolder:
    """Train as the config states, in a new run folder: `out`, else the next free runs/<data>-<n>.

    report: whether to write one. track: the user's trackers. Whatever can be refused is refused
    before an image is read. Raises ResiduaError.
    """
    _check_settings(config, out)
    trackers = Trackers(trackers_for(config, track), console)
    began = time.monotonic()
    start = chosen_start(config, console)
    clock = Clock(seconds_of(start.config.transfer.budget), began)
    start, comparison = _with_one_backbone(start, clock, console)
    requested = start.config
    weights = initial_weights(requested, console)
    config = _with_absolute_weights(requested, weights)
    expects = None if weights is None else weights.expects
    prepared = prepare(config, console, expects, start.choices)
    weights = in_order_of(prepared, weights)
    with readable_errors(prepared.config):
        check_network(prepared, weights)
    seen = set() if config.transfer.strategy == "scratch" else images_seen_by(weights)
    folder = RunFolder.new(out, prepared.dataset.name)
    try:
        write_earlier_images(folder, seen)
        if comparison:
            folder.write_json(TRANSFER, comparison)
        _write_inputs(folder, prepared, weights)
        if weights is not None:
            report_initial_weights(weights, prepared, console)
        folder.trackers = trackers
        _run(Context(prepared, weights, requested, clock, console), folder, report=report)
    except (Busy, Diverged):
        raise
    except (ResiduaError, KeyboardInterrupt):
        folder.discard_untrained()
        raise
    return folder


def resume(
    folder: RunFolder,
    console: Console,
    data_path: str | None = None,
    model: str | None = None,
    track: Sequence[Tracker] = (),
) -> None:
    """Complete an interrupted run; a finished one is reported and not changed.

    Raises ResiduaError if its data or weights have changed.

    data_path: where the data are now, if they were moved. model: its network, where that is the
    user's own. track: the user's trackers.
    """
    if folder.is_finished:
        console.print(finished_text(folder, *recorded_scores(folder)))
        return
    config, choices = with_own(folder.config, model), folder.choices
    if config.network.freeze_norms == AUTO:  # of version 0.1.0
        config = parse.with_settings(config, {"network.freeze_norms": False})
    folder.trackers = Trackers(trackers_for(config, track), console)
    clock = Clock(seconds_of(config.transfer.budget))
    path = config.data.path if data_path is None else resolved(data_path)
    data = dataclasses.replace(config.data, path=path, cache=AUTO)  # there may be less memory now
    config = dataclasses.replace(config, data=data)
    prepared = prepare(config, console, recorded=folder.read_split())
    prepared = dataclasses.replace(prepared, choices=choices)
    if data_path is not None:
        refuse_inside(folder.path, path)
        folder.write_settings(prepared.config, choices)
    weights, strategy = None, config.transfer.strategy
    is_begun = (folder.path / STATE).exists()  # then the weights are in the checkpoint
    if strategy in ("features", "auto") or (strategy != "scratch" and not is_begun):
        weights = initial_weights(config, console)
    if weights is not None and weights.sha256() != folder.read_json(START, dict).get("sha256"):
        raise ResiduaError(
            f"{weights.path}: has changed since {folder.path} was created. Restore it, or "
            "train again."
        )
    weights = in_order_of(prepared, weights)
    names = [choice.setting for choice in choices if "." in choice.setting]
    automatic = {name: AUTO for name in names if parse.field_of(name).default is AUTO}
    requested = parse.with_settings(config, automatic)
    _run(Context(prepared, weights, requested, clock, console), folder, is_resumed=True)


def _run(
    context: Context, folder: RunFolder, *, report: bool = True, is_resumed: bool = False
) -> None:
    """Train, evaluate, and write a report, if any: what a new and a resumed run have in common."""
    console, config = context.console, context.prepared.config
    print_header(with_leakage_notes(context.prepared, folder), folder, console)
    with readable_errors(config), folder.lock(), _tracked(context, folder) as metrics:
        try:
            trained = _train(context, folder)
            folder.write_split(trained.prepared.members)  # `auto` may have held out some
            folder.write_settings(trained.prepared.config, trained.prepared.choices)
            if trained.is_from_scratch:
                folder.discard_initial_weights()
            weights = calibrate(folder, trained.prepared, trained.held_out, console)
            evaluation = _evaluate(weights, folder, trained.prepared, console, report)
            if evaluation is None:
                evaluation = _cross_validated(folder, trained, weights.metadata.uncertainty)
            if evaluation is not None:
                name = evaluation.split.replace(" ", "_")
                metrics[f"{name}_accuracy"] = evaluation.metrics.accuracy
            if report:
                _write_report(context, folder, trained, weights, evaluation)
        except KeyboardInterrupt as error:  # where nothing waits for a signal
            saved = "weights saved" if folder.has_weights else "no weights saved yet"
            raise Interrupted(signal_of(error), str(folder.path), saved) from None
    seconds, total = trained.progress.seconds, context.clock.passed
    if (strategy := trained.prepared.config.transfer.strategy) not in (None, "none"):
        console.print(f"model {trained.prepared.config.network.name}, strategy {strategy}")
    since = " since it was resumed" if is_resumed else ""
    console.print(f"training {seconds:.1f} s, total {total:.1f} s{since}")
    if report:
        console.print(f"report: {folder.path / REPORT}")


@contextmanager
def _tracked(context: Context, folder: RunFolder) -> Iterator[dict[str, float]]:
    """Trackers follow what is done inside; at the end they get the metrics put into the dict."""
    trackers = folder.trackers or Trackers((), context.console)
    trackers.begin(folder.path, context.prepared.config, len(folder.read_history()))
    metrics: dict[str, float] = {}
    try:
        yield metrics
    except BaseException as error:
        trackers.end({}, "interrupted" if isinstance(error, Interrupted) else "failed")
        raise
    trackers.end(metrics, "finished")


def _train(context: Context, folder: RunFolder) -> Outcome:
    """Train by the strategy of the settings; without one, all layers that are not frozen."""
    if context.prepared.config.transfer.strategy in (None, "none"):
        return _train_plainly(context, folder)
    from residua.transfer.strategies import transfer

    return transfer(context, folder)


def _train_plainly(context: Context, folder: RunFolder) -> Outcome:
    prepared, clock, network = context.prepared, context.clock, context.network()
    if is_resumed := (folder.path / STATE).exists():
        restore_network(network, folder)
    else:
        prepared = with_fitting_batch(network, prepared, context.console)

    def training_batches(prepared: Prepared) -> tuple[Inputs, str]:
        if not prepared.config.network.freeze:
            return prepared.training_batches(), ""
        from residua.transfer.cached_batches import batches_after

        return batches_after(network, prepared, clock, context.console)

    batches, line = training_batches(prepared)
    eval_splits = prepared.eval_splits(throughput.validation_limit(clock))
    if clock.bounded and not is_resumed:
        schedule = throughput.measure_schedule(network, batches, prepared, eval_splits)
        seconds = max(0.0, clock.left - schedule.finish)
        prepared = throughput.plan_epochs(prepared, seconds, schedule.epoch, batches)
        if prepared.config.training.max_images:
            batches, line = training_batches(prepared)
    if not is_resumed:  # a resumed run does not plan again
        folder.write_settings(prepared.config, prepared.choices)
    if line:
        context.console.print(line)
    task = Task(
        batches,
        eval_splits,
        prepared.counts("train"),
        initial_metadata(prepared),
        throughput.deadline(prepared, clock),
    )
    progress = fit(network, task, prepared.config, folder, context.console)
    return Outcome(prepared, progress)


def _evaluate(
    weights: Weights, folder: RunFolder, prepared: Prepared, console: Console, report: bool
) -> Evaluation | None:
    """Evaluate saved weights on the test set, else on the validation set, if there is one.

    report: whether to compare them with baselines.
    """
    split: SplitName = "test" if len(prepared.splits["test"]) else "validation"
    members = prepared.splits[split]
    if not len(members):
        return None
    images = EvaluationSet.of(prepared, members, split)
    evaluation = dataclasses.replace(
        score_images(weights, images, prepared.device, console),
        caveat=caveat_of(folder, prepared.members, split),
        baselines=baselines(prepared, members) if report else {},
    )
    record(folder, split, evaluation)
    console.print(f"{split} accuracy {accuracy_text(evaluation.metrics)}")
    if evaluation.caveat:
        console.print(evaluation.caveat)
    for caution in cautions(evaluation, result_of(folder).cross_validation):
        console.warn(caution)
    return evaluation


def _write_report(
    context: Context,
    folder: RunFolder,
    trained: Outcome,
    weights: Weights,
    evaluation: Evaluation | None,
) -> None:
    """Check the data, explain some predictions, and write model card and report."""
    prepared, console, seconds = trained.prepared, context.console, context.clock.left
    audit = _check_data(folder, trained, console)
    evidence = None
    if evaluation is not None:
        extractor = None if trained.is_from_scratch else trained.extractor
        evidence = evidence_of(weights, prepared, evaluation, extractor, seconds)
    facts = report_facts(
        folder,
        with_leakage_notes(prepared, folder),
        evaluation,
        trained.progress,
        audit,
        weights.metadata.uncertainty,
        evidence,
    )
    write_model_card(folder, facts)
    for warning in html.write(facts, folder.path):  # last: the run is finished then
        console.warn(warning)


def _check_data(folder: RunFolder, trained: Outcome, console: Console) -> Audit:
    """The audit of the data; in audit.json and fixes.csv, and in a line if something is serious."""
    rows, prepared = trained.features, trained.prepared
    samples, features = np.zeros(0, np.int64), np.zeros((0, 1), np.float32)
    if rows is not None:
        samples, (features,) = rows.samples, rows.values.values()
    # margins of fine-tuning rank labels worse than the features it starts from (audit-margins.txt)
    margins = recorded_margins(folder) if trained.is_from_scratch else None
    audit = check_training(prepared, samples, features, margins)
    if audit.findings:
        folder.write_json("audit.json", audit.to_json())
    if audit.fixes:
        write_fixes(
            folder.path / "fixes.csv", joined_fixes(prepared.config.data.fixes, audit.fixes)
        )
    if audit.alarm:
        console.warn(f"data check: {audit.alarm}. {folder.path / 'audit.json'} lists the images.")
    return audit


def _with_one_backbone(
    start: Chooser, clock: Clock, console: Console
) -> tuple[Chooser, dict[str, Any]]:
    """The settings with one source of weights, and for transfer.json what it was compared with."""
    if len(weights_sources(start.config.network.weights)) == 1:
        return start, {}
    from residua.transfer.backbones import choose_backbone

    return choose_backbone(start, clock, console)


def _cross_validated(
    folder: RunFolder, trained: Outcome, uncertainty: Uncertainty | None
) -> Evaluation | None:
    """Evaluate the cross-validated predictions of a linear probe that all images were used for."""
    crossed = trained.cross_validated
    if crossed is None or not crossed.evaluated.any():
        return None
    caveat = caveat_of(folder, trained.prepared.members, CROSS_VALIDATION)
    evaluation = crossed.evaluation(trained.prepared, uncertainty, caveat)
    return record(folder, CROSS_VALIDATION, evaluation)


def _check_settings(config: Config, out: str | None) -> None:
    """Raise ResiduaError where the settings alone show that the run cannot be done."""
    if config.network.name != AUTO:
        config_of(config.network_spec)
    check_own(config)
    if out is not None:
        RunFolder.check_unused(out)
    refuse_inside(Path(out or "runs"), config.data.path)
    check_writable(Path(out or "runs"))


def _with_absolute_weights(config: Config, weights: Weights | None) -> Config:
    """The path of the weights made absolute, so that `resume` works from any folder."""
    if weights is None:
        return config
    return parse.with_settings(config, {"network.weights": absolute_source(config.network.weights)})


def _write_inputs(folder: RunFolder, prepared: Prepared, weights: Weights | None) -> None:
    """Everything that is known before training; config.yaml last, which makes it a run."""
    folder.write_json("classes.json", list(prepared.dataset.classes))
    folder.write_json("environment.json", environment(prepared.device))
    folder.write_split(prepared.members)
    folder.write_unreadable(prepared.unreadable)
    if weights is not None:
        origin = dataclasses.asdict(weights.metadata.origin)
        start = {"sha256": weights.sha256(), **origin, **weights.metadata.notes}
        folder.write_json(START, start)
    folder.write_settings(prepared.config, prepared.choices)
