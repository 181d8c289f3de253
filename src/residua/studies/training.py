"""A definition and a folder -> a run for each row and seed, each trained once; their figures.

What is finished is skipped, what was interrupted goes on; so a study may be stopped at any moment,
and gives the same figures as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residua import settings
from residua.config import AUTO, Config
from residua.data.sources import EMBEDDED
from residua.errors import ResiduaError
from residua.learning import go_on, train_run
from residua.networks.cost import counted
from residua.preparation import prepare
from residua.run import Busy, RunFolder
from residua.screen import Screen
from residua.studies.definition import Definition
from residua.studies.outcome import (
    DIVERGED,
    Outcome,
    has_diverged,
    is_finished,
    outcome_of,
    place_of,
    scores_of,
)
from residua.studies.sharing import helped
from residua.training.interruption import Interrupted
from residua.training.meter import Diverged
from residua.transfer.clock import Clock, seconds_of
from residua.transfer.job import Job
from residua.transfer.pace import REPORT_SECONDS, epochs_within, pace_of
from residua.transfer.tuning import thinned

STUDY = "study.json"
TEST_FRACTION = 0.25  # where the data brings no test part
OWN = (  # settings that make runs comparable
    "data.path",
    "data.split_seed",
    "data.test_fraction",
    "data.val_fraction",
    "training.curve_test",
    "training.seed",
    "transfer.strategy",
)
SHARE = 0.9  # of a budget that is planned
WAIT = 1.0  # seconds between looks at what other processes train


@dataclass(frozen=True)
class Asked:
    """What a user says. budget: "" for none; then the epochs of the study, or `given`, hold.

    jobs: processes that train at once, each on its share of the threads.
    """

    data: str
    seeds: int
    budget: str = ""
    paper: bool = False
    given: Mapping[str, object] = field(default_factory=dict)
    jobs: int = 1


@dataclass(frozen=True)
class _Turn:
    """One run of the study. cost: what its time is about proportional to."""

    name: str
    config: Config
    place: Path
    cost: float


def run_all(study: Definition, asked: Asked, folder: Path, screen: Screen) -> list[Outcome]:
    """Train what is not trained yet, seed by seed, and collect the figures of all rows.

    Raises ResiduaError if the folder holds another study, or this one with other settings.
    """
    configs = _settled(study, asked, folder, screen)
    runs = [(seed, row) for seed in range(asked.seeds) for row in study.rows]
    turns = [
        _Turn(
            f"{number} of {len(runs)}: {row.name}, seed {seed}",
            _seeded(configs[row.name], seed),
            place_of(folder, row, seed),
            _cost(configs[row.name]),
        )
        for number, (seed, row) in enumerate(runs, start=1)
    ]
    with helped(asked.jobs, _take_quietly, turns):
        try:
            _take_turns(turns, screen)
        except Interrupted as error:
            further = f"the same command goes on, in {folder}"
            raise Interrupted(error.number, str(folder), further) from None
    return [outcome_of(row, folder, asked.seeds) for row in study.rows]


def _take_turns(turns: Sequence[_Turn], screen: Screen) -> None:
    """Train what nobody trains yet, and wait for what others train, until all is finished.

    Any number of processes may do so on the same turns. Raises ResiduaError.
    """
    began, waits = time.monotonic(), False
    whole = sum(each.cost for each in _open(turns))
    while remaining := _open(turns):
        turn = next((each for each in remaining if _trained(each, screen)), None)
        if turn is None:
            if not waits:
                screen.say(f"another process trains {remaining[0].name}; waiting for it")
            waits = True
            time.sleep(WAIT)
            continue
        rest = sum(each.cost for each in _open(turns))
        left = (time.monotonic() - began) * rest / max(whole - rest, turn.cost)
        screen.say(f"{turn.name}: {_came_to(turn.place)}; about {left / 60:.0f} min left")


def _take_quietly(turns: Sequence[_Turn]) -> None:
    _take_turns(turns, Screen(quiet=True))


def _open(turns: Sequence[_Turn]) -> list[_Turn]:
    return [each for each in turns if not is_finished(each.place)]


def _trained(turn: _Turn, screen: Screen) -> bool:
    """Bring a run to its end; False if another process is at a run of this row."""
    turn.place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with RunFolder(turn.place.parent).lock():
            if not is_finished(turn.place):  # by now
                _train_one(turn.config, turn.place, _Inner(screen, turn.name))
    except Busy:
        return False
    return True


def _came_to(place: Path) -> str:
    if has_diverged(place):
        return "diverged"
    return f"test accuracy {scores_of(RunFolder(place))['accuracy']:.4f}"


def _settled(study: Definition, asked: Asked, folder: Path, screen: Screen) -> dict[str, Config]:
    """The settings of each row, and study.json, which a later call must agree with."""
    _refuse(study, asked)
    data = asked.data
    if data != EMBEDDED:  # the same pictures, from wherever the study is gone on with
        data = str(Path(data).expanduser().absolute())
    common: dict[str, object] = {
        "data.path": data,
        "data.test_fraction": TEST_FRACTION,
        "data.val_fraction": 0.0,  # the last weights are judged; nothing is chosen
        "training.curve_test": True,
        **asked.given,
    }
    configs = {row.name: study.config(row, common) for row in study.rows}
    said = {
        "study": study.name,
        "budget": asked.budget,
        "rows": {name: _plain(config) for name, config in configs.items()},
    }
    path = folder / STUDY
    if not path.exists():
        epochs = _epochs_within(configs, asked, screen) if asked.budget else None
        RunFolder(folder).write_json(STUDY, {**said, "epochs": epochs})
    kept = RunFolder(folder).read_json(STUDY)
    try:
        differing = _difference(kept, said)
    except (AttributeError, KeyError, TypeError) as error:
        raise ResiduaError(f"{path}: is not what a study writes: {error!r}.") from error
    if differing:
        raise ResiduaError(
            f"{folder}: holds study {kept.get('study')} with other settings ({differing}). Give "
            "the same options to go on with it, or another --out."
        )
    if kept.get("epochs") is None:
        return configs
    chosen = {"training.epochs": kept["epochs"]}
    return {name: settings.with_settings(each, chosen) for name, each in configs.items()}


def _refuse(study: Definition, asked: Asked) -> None:
    """Raise ResiduaError for what a study needs to decide itself."""
    for name in OWN:
        if name in asked.given:
            raise ResiduaError(f"--set {name}: a study sets it itself, for each of its runs.")
    own = [each.name for each in study.rows if "training.epochs" in each.settings]
    if own and (asked.budget or "training.epochs" in asked.given):
        raise ResiduaError(
            f"study {study.name}: row {own[0]} has its own epochs, which is what it compares: "
            "leave --epochs and --budget out."
        )


def _plain(config: Config) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _difference(kept: Any, said: Mapping[str, Any]) -> str:
    """The first setting in which a folder's study is another one, in words; "" if none is."""
    for key in ("study", "budget"):
        if kept.get(key) != said[key]:
            return f"{key} {kept.get(key)!r}, not {said[key]!r}"
    if kept["rows"].keys() != said["rows"].keys():
        return "other rows"
    defaults = _plain(Config())  # of settings that are newer than the folder
    for name, config in said["rows"].items():
        for section, values in config.items():
            for key, value in values.items():
                had = kept["rows"][name][section].get(key, defaults[section][key])
                if had != value:
                    return f"{name}: {section}.{key} = {had!r}, not {value!r}"
    return ""


def _epochs_within(configs: Mapping[str, Config], asked: Asked, screen: Screen) -> int:
    """The same number of epochs for all rows, such that all runs fit into the budget."""
    seconds, each_epoch = seconds_of(asked.budget) * SHARE, 0.0
    for config in configs.values():
        prepared = prepare(_seeded(config, 0), Screen(quiet=True))
        job = Job(prepared, None, Clock(math.inf), screen, config)
        members = thinned(prepared.parts["train"], config.training.pictures)
        inputs = prepared.training_batches(prepared.device, members)
        judged = len(prepared.parts["test"])
        pace = pace_of(job, job.network(), inputs, 0)
        each_epoch += 1 / epochs_within(job, pace, inputs, judged, 1.0)
        seconds -= asked.seeds * (REPORT_SECONDS + judged * pace.judged)
    epochs = math.floor(seconds / (each_epoch * asked.seeds))
    if epochs < 1:
        screen.warn(f"{asked.budget} do not hold one epoch of all rows and seeds: it takes longer")
    else:
        screen.say(f"{asked.budget} hold {epochs} epochs of each of {len(configs)} rows and seeds")
    return max(1, epochs)


def _seeded(config: Config, seed: int) -> Config:
    return settings.with_settings(config, {"training.seed": seed, "data.split_seed": seed})


def _train_one(config: Config, place: Path, screen: Screen) -> None:
    try:
        if (place / "config.yaml").exists():
            go_on(RunFolder(place), screen)
        else:
            shutil.rmtree(place, ignore_errors=True)  # was killed before it was a run
            train_run(config, str(place), screen)
    except Diverged as error:
        RunFolder(place).write_json(DIVERGED, {"message": str(error)})


def _cost(config: Config) -> float:
    """Multiply-adds and epochs: what the time of a run is about proportional to."""
    channels, size = config.preprocessing.channels, config.preprocessing.size
    known = {"channels": 3 if channels == AUTO else channels, "classes": 10}
    cost = counted({**config.network_arguments, **known}, 32 if size == AUTO else size)
    epochs = 1 if config.training.epochs == AUTO else config.training.epochs
    return float(cost.multiply_adds * epochs)


class _Inner(Screen):
    """Shows a run's bars under the name of its turn; its lines are in the run's own files."""

    def __init__(self, outer: Screen, prefix: str) -> None:
        super().__init__(quiet=True)
        self.outer, self.prefix = outer, prefix

    @contextlib.contextmanager
    def bar(
        self, what: str, plain_seconds: float = 10.0
    ) -> Iterator[Callable[[int, int, str], None]]:
        """The outer screen's bar, under the prefix."""
        with self.outer.bar(f"{self.prefix}, {what}", 6 * plain_seconds) as move:
            yield move
