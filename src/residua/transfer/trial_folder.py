"""A trial that has ended <-> the files in its folder, where an interrupted search continues."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from residua.data.prepared import thinned
from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.training import throughput
from residua.training.progress import Progress
from residua.transfer.context import StrategyContext, StrategyOutcome, saved_predictor
from residua.transfer.result import TransferResult
from residua.transfer.trial import Trial

ENDED = "ended.json"


def correct_of(outcome: StrategyOutcome) -> npt.NDArray[np.bool_]:
    """Whether the saved weights classify each of some validation images correctly, bool [N]."""
    prepared = outcome.prepared
    samples = thinned(prepared.splits["validation"], throughput.VALIDATION_LIMIT)
    if not len(samples):
        return np.zeros(0, bool)
    return np.asarray(outcome.predict_logits(samples).argmax(1) == prepared.labels[samples])


def write_ended(trial: Trial) -> None:
    """Write what `ended_trial` reads, besides the weights."""
    outcome = trial.outcome
    trial.folder.write_settings(outcome.prepared.config, outcome.prepared.choices)
    values = {"seconds": trial.seconds, "progress": asdict(outcome.progress)}
    trial.folder.write_json(ENDED, values | {"result": outcome.result.to_json()})


def ended_trial(context: StrategyContext, strategy: str, folder: RunFolder) -> Trial:
    """A trial that was complete before the run was interrupted; or the long training so far.

    Raises ResiduaError if a file is damaged.
    """
    prepared = context.with_settings_of(folder).prepared
    predict_logits = saved_predictor(folder, prepared)
    if not (folder.path / ENDED).exists():
        history = folder.read_history()
        seconds = sum(row["seconds"] for row in history)
        progress = Progress(epoch=len(history), seconds=seconds, history=history)
        outcome = StrategyOutcome(prepared, progress, predict_logits=predict_logits)
        return Trial(strategy, outcome, folder, correct_of(outcome), seconds)
    values = folder.read_json(ENDED, dict)
    try:
        result = TransferResult.from_json(values.get("result") or values["measured"])  # of 0.1.0
        progress, seconds = Progress.from_json(values["progress"]), float(values["seconds"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ResiduaError(f"{folder.path / ENDED}: is damaged: {error!r}.") from error
    outcome = StrategyOutcome(prepared, progress, predict_logits=predict_logits, result=result)
    return Trial(strategy, outcome, folder, correct_of(outcome), seconds)
