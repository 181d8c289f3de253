"""A definition and a folder -> a run for each row and seed, each trained once; their figures.

What is finished is skipped, what was interrupted goes on; so a study may be stopped at any moment,
and gives the same figures as one that was not.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.experiment import resume, train
from residua.runs.folder import Busy, RunFolder
from residua.studies.definition import Definition
from residua.studies.plan import WAIT, Asked, seeded, settled
from residua.studies.results import (
    DIVERGED,
    Outcome,
    compare_parts,
    has_diverged,
    is_finished,
    judged,
    outcome_of,
    place_of,
)
from residua.studies.workers import helped
from residua.system.console import Console
from residua.system.signals import Interrupted
from residua.training.meter import Diverged


@dataclass(frozen=True)
class _Turn:
    """One run of the study. cost: what its time is about proportional to."""

    name: str
    config: Config
    place: Path
    cost: float


def run_all(study: Definition, asked: Asked, folder: Path, console: Console) -> list[Outcome]:
    """Train what is not trained yet, seed by seed, and collect the figures of all rows.

    Raises ResiduaError if the folder holds another study, or this one with other settings.
    """
    configs, costs = settled(study, asked, folder, console)
    runs = [(seed, row) for seed in range(asked.seeds) for row in study.rows]
    turns = [
        _Turn(
            f"{number} of {len(runs)}: {row.name}, seed {seed}",
            seeded(configs[row.name], seed),
            place_of(folder, row, seed),
            costs[row.name],
        )
        for number, (seed, row) in enumerate(runs, start=1)
    ]
    further = f"the same command goes on, in {folder}"
    try:
        with helped(min(asked.jobs, len(study.rows)), _take_quietly, turns):
            _take_turns(turns, console)
    except Interrupted as error:
        raise Interrupted(error.number, str(folder), further) from None
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, str(folder), further) from None
    compare_parts(folder, study.rows, asked.seeds)
    return [outcome_of(row, folder, asked.seeds) for row in study.rows]


def _take_turns(turns: Sequence[_Turn], console: Console) -> None:
    """Train what nobody trains yet, and wait for what others train, until all is finished.

    Any number of processes may do so on the same turns. Raises ResiduaError.
    """
    began, waits = time.monotonic(), False
    whole = sum(each.cost for each in _open(turns))
    while remaining := _open(turns):
        turn = next((each for each in remaining if _trained(each, console)), None)
        if turn is None:
            if not waits:
                console.print(f"another process trains {remaining[0].name}; waiting for it")
            waits = True
            time.sleep(WAIT)
            continue
        rest = sum(each.cost for each in _open(turns))
        left = (time.monotonic() - began) * rest / max(whole - rest, turn.cost)
        console.print(f"{turn.name}: {_came_to(turn.place)}; about {left / 60:.0f} min left")


def _take_quietly(turns: Sequence[_Turn]) -> None:
    _take_turns(turns, Console(quiet=True))


def _open(turns: Sequence[_Turn]) -> list[_Turn]:
    return [each for each in turns if not is_finished(each.place)]


def _trained(turn: _Turn, console: Console) -> bool:
    """Bring a run to its end; False if another process is at a run of this row."""
    try:
        turn.place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResiduaError(f"{turn.place.parent}: cannot hold a run: {error.strerror}.") from error
    try:
        with RunFolder(turn.place.parent).lock():
            if not is_finished(turn.place):  # by now
                _train_one(turn.config, turn.place, _Inner(console, turn.name))
    except Busy:
        return False
    return True


def _came_to(place: Path) -> str:
    if has_diverged(place):
        return "diverged"
    return f"test accuracy {judged(RunFolder(place))[0]:.4f}"


def _train_one(config: Config, place: Path, console: Console) -> None:
    try:
        if (place / "config.yaml").exists():
            resume(RunFolder(place), console)
        else:
            shutil.rmtree(place, ignore_errors=True)  # was killed before it was a run
            train(config, str(place), console)
    except Diverged as error:
        RunFolder(place).write_json(DIVERGED, {"message": str(error)})


class _Inner(Console):
    """Shows a run's bars under the name of its turn; its lines are in the run's own files."""

    def __init__(self, outer: Console, prefix: str) -> None:
        super().__init__(quiet=True)
        self.outer, self.prefix = outer, prefix

    @contextlib.contextmanager
    def bar(
        self, what: str, plain_seconds: float = 10.0
    ) -> Iterator[Callable[[int, int, str], None]]:
        """The outer screen's bar, under the prefix."""
        with self.outer.bar(f"{self.prefix}, {what}", 6 * plain_seconds) as move:
            yield move
