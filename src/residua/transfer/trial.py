"""Trials of strategies -> the one with the largest expected gain, and the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.system.words import counted
from residua.transfer.context import StrategyOutcome
from residua.transfer.result import Phase, TrialResult

TRIAL_EPOCHS = 0.1  # of a strategy's epochs, without a budget
CLEAR = 1.0  # standard deviations of a difference


@dataclass(frozen=True, eq=False)
class Trial:
    """A strategy that was tried. correct: bool [N], its predictions for validation images.

    seconds: that it took.
    """

    strategy: str
    outcome: StrategyOutcome
    folder: RunFolder
    correct: npt.NDArray[np.bool_]
    seconds: float

    @property
    def accuracy(self) -> float:
        """On the validation images."""
        return float(self.correct.mean())

    @property
    def summary(self) -> str:
        """Accuracy, epochs and seconds, to print."""
        progress = self.outcome.progress
        epochs = counted(progress.epoch, "epoch")
        length = f", {epochs}" if progress.epoch else ""
        if progress.kept_initial:
            length = f" before training, not improved in {epochs}"
        images = counted(len(self.correct), "image")
        return f"val accuracy {self.accuracy:.4f} ({images}){length}, {self.seconds:.1f} s"

    def gain_over(self, other: Trial) -> tuple[float, float]:
        """See `paired_gain`."""
        return paired_gain(self.correct, other.correct)

    def is_clearly_better_than(self, other: Trial) -> bool:
        """Whether the gain is more than CLEAR times the noise."""
        gain, noise = self.gain_over(other)
        return gain > CLEAR * noise

    def compared_with(self, first: Trial, phase: Phase) -> TrialResult:
        """A row of transfer.json."""
        gain, noise = self.gain_over(first)
        return TrialResult(
            strategy=self.strategy,
            phase=phase,
            epochs=self.outcome.progress.epoch,
            seconds=self.seconds,
            predicted_seconds=self.outcome.result.predicted_seconds,
            accuracy=self.accuracy,
            gain=gain,
            noise=noise,
            kept_initial=self.outcome.progress.kept_initial,
            images=len(self.correct),
        )


def paired_gain(
    correct: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """The difference of two accuracies on the same images, and its standard deviation if both are
    equally good; bool [N] each.

    Of the images that only one of them classifies correctly each is then as likely won as lost
    (McNemar 1947).
    """
    won, lost = int((correct & ~other).sum()), int((other & ~correct).sum())
    return (won - lost) / len(correct), math.sqrt(won + lost) / len(correct)


def more_time(trials: Sequence[Trial], clock: Clock) -> str:
    """The shortest training that the time limit did not allow, in words; "" if there is none."""
    needed = [
        (seconds, trial.strategy)
        for trial in trials
        if trial.strategy != "scratch"  # which fine-tuning mostly exceeds
        and (seconds := trial.outcome.result.predicted_seconds or 0.0) > clock.left
    ]
    if not clock.bounded or not needed:
        return ""
    seconds, strategy = min(needed)
    minutes = math.ceil(seconds / 60)
    return (
        f" within the time limit; all epochs of {strategy} take about {minutes} min: --effort best"
    )


def expected_error(clock: Clock, trial: Trial) -> float:
    """The error that a strategy may reach in the time left: about as the inverse root of time."""
    longer = trial.seconds / TRIAL_EPOCHS
    if clock.bounded:  # or less, if all its epochs take less
        longer = min(clock.left, trial.outcome.result.predicted_seconds or math.inf)
    share = min(1.0, trial.seconds / max(longer, 1e-9))
    return (1 - trial.accuracy) * math.sqrt(share)


def most_promising(trials: Sequence[Trial], errors: Mapping[str, float]) -> Trial:
    """The trial with the lowest expected error.

    A short trial favours partial fine-tuning, while full can reach more: partial must be clearly
    better.
    """
    best = min(trials, key=lambda trial: errors[trial.strategy])
    full = next((trial for trial in trials if trial.strategy == "full"), None)
    if full is None or best.strategy != "partial" or best.is_clearly_better_than(full):
        return best
    return full


def most_accurate(trials: Sequence[Trial], first: Trial) -> Trial:
    """The most accurate trial that is clearly better than `first`, the linear probe; else `first`.

    Its accuracy is the highest of several epochs, and a probe is fitted on the validation images
    too: a difference within the noise would often be none. A trial whose weights are those before
    its training is a linear probe as well.
    """
    better = [
        trial
        for trial in trials
        if not trial.outcome.progress.kept_initial and trial.is_clearly_better_than(first)
    ]
    return max(better, key=lambda trial: int(trial.correct.sum()), default=first)
