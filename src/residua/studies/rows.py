"""A definition and a folder -> a run for each row and seed, each trained once; their results.

Finished runs are skipped and interrupted ones resumed, so a study may be stopped at any moment and
gives the same results as one that was not.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.experiment import resume, train
from residua.runs.folder import Busy, RunFolder
from residua.studies.definition import Definition
from residua.studies.plan import WAIT, cost, plan, seeded
from residua.studies.results import (
    DIVERGED,
    Outcome,
    accuracy_on_test,
    check_same_splits,
    has_diverged,
    is_finished,
    outcome_of,
    run_path,
)
from residua.studies.study import StudyOptions
from residua.studies.workers import workers
from residua.system.console import Bar, Console
from residua.system.signals import Interrupted, signal_of
from residua.training.meter import Diverged


@dataclass(frozen=True)
class _Run:
    """One run of the study."""

    name: str
    config: Config
    path: Path


def run_rows(
    study: Definition, options: StudyOptions, folder: Path, console: Console
) -> list[Outcome]:
    """Train every run that is missing, seed by seed, and collect the results of all rows.

    Raises ResiduaError if the folder contains another study, or this one with other settings.
    """
    configs = plan(study, options, folder, console)
    order = [(seed, row) for seed in range(options.seeds) for row in study.rows]
    runs = [
        _Run(
            f"{number} of {len(order)}: {row.name}, seed {seed}",
            seeded(configs[row.name], seed),
            run_path(folder, row, seed),
        )
        for number, (seed, row) in enumerate(order, start=1)
    ]
    advice = f"the same command resumes the study in {folder}"
    try:
        with workers(min(options.jobs, len(study.rows)), _train_quietly, runs):
            _train_all(runs, console)
    except Interrupted as error:
        raise Interrupted(error.number, str(folder), "", advice) from None
    except KeyboardInterrupt as error:
        raise Interrupted(signal_of(error), str(folder), "", advice) from None
    check_same_splits(folder, study.rows, options.seeds)
    return [outcome_of(row, folder, options.seeds) for row in study.rows]


def _train_all(runs: Sequence[_Run], console: Console) -> None:
    """Train every run that no other process trains, and wait for those until all are finished.

    Any number of processes may call this with the same runs. Raises ResiduaError.
    """
    started, waiting = time.monotonic(), False
    total = _cost(_unfinished(runs))
    while remaining := _unfinished(runs):
        run = next((run for run in remaining if _train(run, console)), None)
        if run is None:
            if not waiting:
                console.print(f"waiting for another process, which trains {remaining[0].name}")
            waiting = True
            time.sleep(WAIT)
            continue
        rest = _cost(_unfinished(runs))
        left = (time.monotonic() - started) * rest / max(total - rest, cost(run.config))
        console.print(f"{run.name}: {_result(run.path)}; about {left / 60:.0f} min left")


def _train_quietly(runs: Sequence[_Run]) -> None:
    _train_all(runs, Console(quiet=True))


def _unfinished(runs: Sequence[_Run]) -> list[_Run]:
    return [run for run in runs if not is_finished(run.path)]


def _cost(runs: Sequence[_Run]) -> float:
    return sum(cost(run.config) for run in runs)


def _train(run: _Run, console: Console) -> bool:
    """Train or resume a run to its end; False if another process trains a run of this row."""
    try:
        run.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResiduaError(f"{run.path.parent}: cannot store a run: {error.strerror}.") from error
    try:
        with RunFolder(run.path.parent).lock():
            if not is_finished(run.path):  # another process may have finished it
                _train_locked(run, _PrefixedBar(console, run.name))
    except Busy:
        return False
    return True


def _train_locked(run: _Run, console: Console) -> None:
    try:
        if (run.path / "config.yaml").exists():
            resume(RunFolder(run.path), console)
        else:
            shutil.rmtree(run.path, ignore_errors=True)  # killed before its settings were written
            train(run.config, str(run.path), console)
    except Diverged as error:
        RunFolder(run.path).write_json(DIVERGED, {"message": str(error)})


def _result(path: Path) -> str:
    if has_diverged(path):
        return "diverged"
    return f"test accuracy {accuracy_on_test(RunFolder(path))[0]:.4f}"


class _PrefixedBar(Console):
    """Shows a run's bars with a prefix; its lines are in the files of the run."""

    def __init__(self, outer: Console, prefix: str) -> None:
        super().__init__(quiet=True)
        self.outer, self.prefix = outer, prefix

    @contextlib.contextmanager
    def bar(self, description: str, plain_seconds: float = 10.0) -> Iterator[Bar]:
        """The outer console's bar, under the prefix."""
        with self.outer.bar(f"{self.prefix}, {description}", 6 * plain_seconds) as move:
            yield move
