"""Data and weights -> the best of several strategies, by measurement within the time budget.

`auto` fits a linear probe. Without a time limit it runs a short trial of each other strategy and
continues the best one if its expected gain exceeds the noise. Within a limit it fine-tunes in the
time that is left; a short trial of training from scratch shows whether that could be better. The
result is the other strategy if it is clearly better than the probe. If the budget allowed only a
part of the images for the first probe, it is fitted on more next. The test set is never used.

Each completed trial and the training that continues have folders below the run's, where an
interrupted run continues them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import signal
import time
from collections.abc import Mapping, Sequence

from residua.config import parse
from residua.config.auto import Choice
from residua.data.prepared import Prepared, thinned, with_validation_set, without_validation_set
from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.runs.folder import BEST, LAST, RunFolder
from residua.system.budget import Clock
from residua.system.console import Console
from residua.system.signals import Interrupted, signal_of
from residua.training import throughput
from residua.training.checkpoint import STATE
from residua.transfer.context import StrategyContext, StrategyOutcome, saved_predictor
from residua.transfer.fine_tune import MANY_EPOCHS, fine_tune, fits
from residua.transfer.larger_images import probe_on_larger_images
from residua.transfer.linear_probe import fit_probe, refit_probe, warn_of_unused
from residua.transfer.result import TOO_FEW_ERRORS, Phase, TrialResult
from residua.transfer.scenario import data_summary, scenario_of
from residua.transfer.small_network import is_large, small_context
from residua.transfer.trial import (
    TRIAL_EPOCHS,
    Trial,
    expected_error,
    more_time,
    most_accurate,
    most_promising,
)
from residua.transfer.trial_folder import ENDED, correct_of, ended_trial, write_ended

TRIED = "tried"
FINE_TUNING = ("full", "partial")
OTHERS = (*FINE_TUNING, "scratch")  # besides the linear probe
HELD_OUT = 0.2  # of the images, to compare strategies on
MIN_ERRORS = 4  # of the probe on the validation set, below which any gain would be within the noise
LEAST_EPOCHS = 2  # of fine-tuning, below which it rarely improves on the probe
FIRST_SECONDS, FIRST_SHARE = 10.0, 0.15  # of the budget, for the features of the first probe
TRIAL_SHARE = 0.06  # of the budget, for each trial
CALIBRATION_FITS = 10  # of the head: what calibration and the detector of unknown images take
REFIT_SHARE = 0.9  # of the budget, until which a probe may use the validation images too
MORE_SHARE = 0.75  # of the budget, for features if the first probe had only some of them
LEFT_FOR_TRIALS = 0.5  # of the budget; with less, training would not get far enough


def search(context: StrategyContext, folder: RunFolder) -> StrategyOutcome:
    """The outcome of the best strategy, its files in `folder`.

    Raises Interrupted after a signal; the first linear probe is in the folder then.
    """
    runner = Search(context, folder)
    try:
        probe = runner.probe()
        best, reason = runner.best(probe)
    except Interrupted as error:  # it names the folder of a trial
        raise Interrupted(error.number, str(folder.path), "completed trials saved") from None
    shutil.rmtree(folder.path / TRIED, ignore_errors=True)
    outcome, measured = best.outcome, probe.outcome.result
    if best.strategy == "features":  # on larger images, it is not the first probe
        outcome = runner.refitted(best) or outcome
        measured = outcome.result
        if outcome is best.outcome and measured.images is not None:
            warn_of_unused(measured.images, runner.context)
    result = dataclasses.replace(
        measured,
        trials=tuple(runner.rows),
        expected=runner.expected,
        data=data_summary(context.prepared),
        scenario=scenario_of(len(context.prepared.splits["train"]), measured.layers, runner.rows),
        chosen=best.strategy,
        reason=reason,
    )
    context.console.print(f"strategy {best.strategy}: {reason}")
    prepared = _with_strategy(outcome.prepared, best.strategy, reason)
    return dataclasses.replace(outcome, prepared=prepared, result=result)


class Search:
    """The trials of a run.

    rows: a result per trial. expected: strategy -> the accuracy expected in the time left.
    """

    def __init__(self, context: StrategyContext, folder: RunFolder) -> None:
        self.context, self.folder = context, folder
        self.rows: list[TrialResult] = []
        self.expected: Mapping[str, float] | None = None
        self._small: StrategyContext | None = None
        self._larger: StrategyContext | None = None  # of the probe, if its images are larger

    def probe(self) -> Trial:
        """A linear probe, fitted on more images if the first one had time for some only."""
        clock, began = self.context.clock, time.monotonic()
        deadline = min(began + FIRST_SECONDS, clock.at(FIRST_SHARE) or math.inf)
        features_context = self.context.for_strategy("features")
        outcome = fit_probe(features_context, self.folder, deadline=deadline, final=False)
        self._remember(outcome)
        correct = correct_of(outcome)
        first = Trial("features", outcome, self.folder, correct, time.monotonic() - began)
        self._record(first, first, "first")
        images, members = outcome.result.images or 0, len(self.context.prepared.training_members)
        if images == members or clock.passed >= MORE_SHARE * clock.seconds:
            return first
        self.context.console.print(
            f"fitted on {images:,} of {members:,} training images; next, a linear probe on all of "
            "them, as far as time allows"
        )
        more = self._try("features", self._trial_folder("more"), final=True)
        if more is None:
            return first
        self._record(more, first, "final")
        if len(correct) and first.is_clearly_better_than(more):
            return first
        return self._promoted(more)

    @property
    def _may_redraw(self) -> bool:
        """Whether the validation set is not the user's."""
        prepared = self.context.prepared
        return not prepared.has_own_splits and not prepared.is_explicit("data.val_fraction")

    def refitted(self, probe: Trial) -> StrategyOutcome | None:
        """The probe fitted on the validation images too, which no comparison needs any more; None
        if these are the user's, the head is none of a probe, or time or memory do not suffice."""
        context, clock = self._larger or self.context, self.context.clock
        prepared = context.prepared
        is_probe = probe.outcome.prepared.config.network.head == "logistic"
        if not is_probe or not self._may_redraw or not len(prepared.splits["validation"]):
            return None
        needed = self._finishing_seconds(probe)
        if clock.left < needed:
            return None
        reason = "a linear probe: cross-validation selects it, so all images train it"
        whole = context.with_prepared(without_validation_set(prepared, reason))
        try:
            deadline = clock.at(REFIT_SHARE)
            if deadline is not None:
                deadline = min(deadline, time.monotonic() + clock.left - needed)
            whole = whole.for_strategy("features")
            return refit_probe(whole, self.folder, probe.outcome, deadline)
        except (ResiduaError, RuntimeError, MemoryError) as error:
            self.context.console.warn(f"validation images not used: {' '.join(str(error).split())}")
            return None

    def _finishing_seconds(self, probe: Trial) -> float:
        """Seconds to fit the probe on the validation images too, to calibrate and evaluate it, and
        to write the report."""
        outcome, measured = probe.outcome, probe.outcome.result
        prepared = self.context.prepared
        of_an_image = measured.seconds_per_image
        refit = outcome.fit_seconds + len(prepared.splits["validation"]) * of_an_image
        calibration = CALIBRATION_FITS * outcome.fit_seconds
        return refit + calibration + throughput.finishing_seconds(prepared, of_an_image)

    def _clock_of_others(self, probe: Trial) -> Clock:
        """The clock of other strategies, which leaves the time to finish the probe."""
        clock = self.context.clock
        return Clock(clock.seconds - self._finishing_seconds(probe), clock.began)

    def best(self, probe: Trial) -> tuple[Trial, str]:
        """The best trial, its files in the run folder, and the reason of the choice.

        Ctrl-C ends the search with the best trial so far.
        """
        clock = self.context.clock
        try:
            probe = self._with_larger_images(probe)
        except (Interrupted, KeyboardInterrupt) as error:
            return self._stopped(error, probe)
        if reason := self._reason_to_stop(probe):
            return probe, reason
        if clock.bounded and clock.left < LEFT_FOR_TRIALS * clock.seconds:
            return probe, "computing features left too little time for other strategies"
        if not len(probe.correct):
            probe = self._with_validation_set(probe)
        if not len(probe.correct):
            return probe, "no validation set to compare strategies on"
        limit = f"at most {clock.left:.0f} s" if clock.bounded else "no time limit"
        self.context.console.print(f"other strategies: {limit}; Ctrl-C ends with the best so far")
        try:
            return self._best_of_all(probe)
        except (Interrupted, KeyboardInterrupt) as error:
            return self._stopped(error, probe)

    def _stopped(self, error: Interrupted | KeyboardInterrupt, probe: Trial) -> tuple[Trial, str]:
        """The best trial so far, after Ctrl-C."""
        number = error.number if isinstance(error, Interrupted) else signal_of(error)
        if number != signal.SIGINT:
            raise error
        return self._chosen(self._ended(), probe, "stopped by Ctrl-C: ")

    def _with_larger_images(self, probe: Trial) -> Trial:
        """The probe on larger images, if that is better; else the same."""
        folder, began = self._trial_folder("larger"), time.monotonic()
        larger = probe_on_larger_images(self.context, probe.outcome, folder)
        if larger is None:
            return probe
        self._larger, outcome = larger
        trial = Trial("features", outcome, folder, correct_of(outcome), time.monotonic() - began)
        self._record(trial, probe, "final")
        return self._promoted(trial)

    def _best_of_all(self, probe: Trial) -> tuple[Trial, str]:
        trials = self._trials(probe)
        if strategy := self._to_continue(trials, probe):
            longer = self._continued(strategy, probe)
            trials = [longer, *trials] if longer else trials  # of equals, the longer training
        return self._chosen(trials, probe)

    def _to_continue(self, trials: Sequence[Trial], probe: Trial) -> str:
        """The strategy that trains for the time left; "" if none can be expected to gain.

        Within a time limit it costs nothing else to try.
        """
        clock = self._clock_of_others(probe)
        errors = {trial.strategy: expected_error(clock, trial) for trial in trials}
        self.expected = {strategy: 1 - error for strategy, error in errors.items()}
        if clock.bounded and not any(trial.strategy in FINE_TUNING for trial in trials):
            return self._fine_tuning(clock) if clock.left > 0 else ""
        if not trials:
            return ""
        promising = most_promising(trials, errors)
        gain = 1 - probe.accuracy - errors[promising.strategy]
        is_worth = clock.bounded or gain > promising.gain_over(probe)[1]
        return promising.strategy if is_worth else ""

    def _chosen(self, trials: Sequence[Trial], probe: Trial, prefix: str = "") -> tuple[Trial, str]:
        """The most accurate trial, in the run folder, and why."""
        best = most_accurate(trials, probe)
        if best is probe:
            reason = f"{prefix}no other strategy has a clearly higher validation accuracy"
            return probe, reason + more_time(trials, self.context.clock)
        gain, noise = best.gain_over(probe)
        reason = f"{100 * gain:.1f} points above the linear probe, noise {100 * noise:.1f} points"
        return self._promoted(best), prefix + reason

    def _reason_to_stop(self, probe: Trial) -> str:
        """Why no other strategy could show a gain; "" if one could.

        Of few images, a fifth would be held out to compare strategies, so a fifth of the probe's
        errors would count.
        """
        crossed = probe.outcome.cross_validated
        if len(probe.correct):
            correct, images, share, where = probe.correct, "validation images", 1.0, ""
        elif crossed is not None:
            correct, images, share = crossed.correct[crossed.evaluated], "images", HELD_OUT
            where = " in cross-validation"
        else:
            return ""
        errors = int((~correct).sum())
        if share * errors >= MIN_ERRORS:
            return ""
        return f"{errors} of {len(correct):,} {images} misclassified{where}: {TOO_FEW_ERRORS}"

    def _with_validation_set(self, probe: Trial) -> Trial:
        """The probe evaluated on a validation set that is drawn now, where all images were used
        for training: a head of its layer and C, fitted on the images that the others train on."""
        prepared, crossed = self.context.prepared, probe.outcome.cross_validated
        if not self._may_redraw or crossed is None:
            return probe
        reason = "20 % held out to compare strategies"
        prepared = with_validation_set(prepared, HELD_OUT, reason)
        samples = thinned(prepared.splits["validation"], throughput.VALIDATION_LIMIT)
        correct = crossed.correct_without(samples, prepared)
        if correct is None or not len(correct):
            return probe
        self.context = self.context.with_prepared(prepared)
        probe = dataclasses.replace(probe, correct=correct)
        self._record(probe, probe, "first")
        return probe

    def _ended(self) -> list[Trial]:
        """The trials that have weights, after an interruption; the long training first."""
        trials = []
        for name in (*(f"long-{strategy}" for strategy in OTHERS), *OTHERS):
            folder, strategy = self._trial_folder(name), name.removeprefix("long-")
            if (folder.path / BEST).exists() and (folder.path / "config.yaml").exists():
                trials.append(ended_trial(self.context_for(strategy), strategy, folder))
        return trials

    def _trials(self, probe: Trial) -> list[Trial]:
        """A short trial of other strategies, while time allows; those that fail are skipped.

        Within a time limit, fine-tuning is tried only if training from scratch is as accurate as
        the head that fine-tuning begins with; else it is what continues.
        """
        clock = self._clock_of_others(probe)
        if not clock.bounded:
            return self._tried(OTHERS, probe, clock)
        trials = self._tried(("scratch",), probe, clock)
        if trials and trials[0].accuracy >= self._initial_accuracy(probe):
            trials += self._tried((self._fine_tuning(clock),), probe, clock)
        return trials

    def _tried(self, strategies: Sequence[str], probe: Trial, clock: Clock) -> list[Trial]:
        trials: list[Trial] = []
        for strategy in strategies:
            if clock.left <= (trials[-1].seconds if trials else 0.0):
                break
            trial = self._try(strategy, self._trial_folder(strategy), final=False)
            if trial is not None:
                trials.append(trial)
                self._record(trial, probe, "trial")
        return trials

    def _initial_accuracy(self, probe: Trial) -> float:
        """Of fine-tuning: that of a probe on the last stage, in cross-validation."""
        score = self.context.scores.get(FeatureLayer(self.context.features.stages.count, 1))
        return probe.accuracy if score is None else score.probes.accuracy

    def _fine_tuning(self, clock: Clock) -> str:
        """Full fine-tuning, which can reach more, where many epochs fit into the time left; else
        partial, whose epochs take a fraction of the time."""
        for strategy in FINE_TUNING:
            if (self._trial_folder(f"long-{strategy}").path / STATE).exists():
                return strategy
        if self.context.features.stages.count == 1:  # there is no earlier stage to freeze
            return "full"
        full = dataclasses.replace(self.context_for("full"), clock=clock)
        return "full" if fits(full, MANY_EPOCHS) else "partial"

    def _continued(self, strategy: str, probe: Trial) -> Trial | None:
        trial = self._try(strategy, self._trial_folder(f"long-{strategy}"), final=True)
        if trial is not None:
            self._record(trial, probe, "final")
        return trial

    def _try(self, strategy: str, folder: RunFolder, final: bool) -> Trial | None:
        """Run a strategy; None, with a warning, if it diverges or memory does not suffice.

        There is a model already, which a failing strategy must not take away. An interrupted run
        continues with the content of the folder.
        """
        try:
            context, began = self.context_for(strategy), time.monotonic()
            if (folder.path / ENDED).exists() and (folder.path / BEST).exists():
                return ended_trial(context, strategy, folder)
            if final and strategy != "features" and (folder.path / STATE).exists():
                context = context.with_settings_of(folder)
            else:
                shutil.rmtree(folder.path, ignore_errors=True)
                folder.path.mkdir(parents=True)
            if not final:
                context = _shortened(context, self.context.clock)
            if strategy == "features":
                deadline = self.context.clock.at(MORE_SHARE)
                outcome = fit_probe(context, folder, deadline=deadline, final=False)
            else:
                least = LEAST_EPOCHS if final and context.clock.bounded else 0
                outcome = fine_tune(context, folder, final=final, least_epochs=least)
            self._remember(outcome)
            correct = correct_of(outcome)
            trial = Trial(strategy, outcome, folder, correct, time.monotonic() - began)
            if not final:
                write_ended(trial)
        except (ResiduaError, RuntimeError, MemoryError, ValueError) as error:
            self.context.console.warn(f"{strategy} skipped: {' '.join(str(error).split())}")
            return None
        return trial

    def context_for(self, strategy: str) -> StrategyContext:
        """The context of a strategy; scratch replaces a large network by a small one."""
        if strategy == "scratch" and is_large(self.context):
            if self._small is None:
                self._small = small_context(self.context)
            return self._small
        return self.context.for_strategy(strategy)

    def _remember(self, outcome: StrategyOutcome) -> None:
        """No layer is cross-validated twice."""
        scores = {**self.context.scores, **outcome.scores}
        self.context = dataclasses.replace(self.context, scores=scores)

    def _record(self, trial: Trial, first: Trial, phase: Phase) -> None:
        if not len(trial.correct):
            return
        self.rows.append(trial.compared_with(first, phase))
        self.context.console.print(f"{trial.strategy}: {trial.summary}")

    def _trial_folder(self, name: str) -> RunFolder:
        return RunFolder(self.folder.path / TRIED / name)

    def _promoted(self, trial: Trial) -> Trial:
        """The same, with its files in the run folder; the best weights, if any, are moved last."""
        for name in ("history.csv", "log.jsonl", LAST, STATE, BEST):
            with contextlib.suppress(FileNotFoundError):
                (trial.folder.path / name).replace(self.folder.path / name)
        predict_logits = saved_predictor(self.folder, trial.outcome.prepared)
        outcome = dataclasses.replace(trial.outcome, predict_logits=predict_logits)
        return dataclasses.replace(trial, folder=self.folder, outcome=outcome)


def _shortened(context: StrategyContext, clock: Clock) -> StrategyContext:
    """The context of a short trial, without output. clock: of the whole search."""
    context = dataclasses.replace(context, console=Console(quiet=True))
    context = context.allow_change("training.epochs")
    if clock.bounded:
        trial_clock = Clock(min(TRIAL_SHARE * clock.seconds, clock.left))
        return dataclasses.replace(context, clock=trial_clock)
    epochs = max(1, round(TRIAL_EPOCHS * context.prepared.config.training.epochs))
    return context.with_prepared(throughput.with_epochs(context.prepared, epochs, "a short trial"))


def _with_strategy(prepared: Prepared, strategy: str, reason: str) -> Prepared:
    settings = {"transfer.strategy": strategy}
    if strategy != "features" and prepared.config.network.head == "logistic":
        settings["network.head"] = "linear"  # the same layer, only initialised by a probe
    config = parse.with_settings(prepared.config, settings)
    choices = (*prepared.choices, Choice("transfer.strategy", strategy, reason))
    return dataclasses.replace(prepared, config=config, choices=choices)
