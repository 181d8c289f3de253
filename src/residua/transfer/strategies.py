"""The strategy of the settings -> its outcome, with what was measured in transfer.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from residua.runs.folder import RunFolder
from residua.transfer import telling
from residua.transfer.context import Job, Learnt
from residua.transfer.fine_tune import fine_tune
from residua.transfer.linear_probe import by_features
from residua.transfer.search import by_measuring

STRATEGIES: dict[str, Callable[[Job, RunFolder], Learnt]] = {
    "features": by_features,
    "partial": fine_tune,
    "full": fine_tune,
    "scratch": fine_tune,
    "auto": by_measuring,
}


def transfer(job: Job, folder: RunFolder) -> Learnt:
    """Train by the strategy of the settings; write and print what was measured on the way."""
    outcome = STRATEGIES[job.prepared.config.transfer.strategy](job, folder)
    measured = _earlier(folder) | outcome.measured
    folder.write_json("transfer.json", measured)
    for line in telling.lines(measured):
        job.console.print(line)
    return dataclasses.replace(outcome, measured=measured)


def _earlier(folder: RunFolder) -> dict[str, object]:
    """What was measured before an interruption."""
    path = folder.path / "transfer.json"
    return dict(folder.read_json("transfer.json")) if path.exists() else {}
