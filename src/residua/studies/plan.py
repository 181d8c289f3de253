"""A definition and a user's wishes -> the settings of all rows, which study.json holds to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residua.config import parse
from residua.config.schema import AUTO, Config
from residua.data.open import EMBEDDED
from residua.data.prepare import prepare
from residua.errors import ResiduaError
from residua.networks.analysis.cost import costs_of
from residua.networks.zoo import catalogue
from residua.runs.folder import Busy, RunFolder
from residua.studies.definition import Definition
from residua.system.budget import seconds_of
from residua.system.console import Console
from residua.training.initial import initial_network
from residua.training.throughput import REPORT_SECONDS, epoch_seconds, measure_throughput

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
SEEDS = 3  # where a user says nothing
WAIT = 1.0  # seconds between looks at what another process holds


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

    @property
    def shortened(self) -> bool:
        """Whether the epochs are not those of the study."""
        return bool(self.budget) or "training.epochs" in self.given


def settled(
    study: Definition, asked: Asked, folder: Path, console: Console
) -> tuple[dict[str, Config], dict[str, float]]:
    """The settings of each row, and its cost; study.json, which a later call must agree with.

    cost: what the time of a run is about proportional to. Raises ResiduaError, also for a network
    that cannot be, before anything is written.
    """
    _refuse(study, asked)
    written = {row.name: study.config(row, {}) for row in study.rows}
    _refuse_compared(study, written, asked)
    data = asked.data
    if data != EMBEDDED:  # the same images, from wherever the study is gone on with
        data = str(Path(data).expanduser().absolute())
    common: dict[str, object] = {
        "data.path": data,
        "data.test_fraction": TEST_FRACTION,
        "data.val_fraction": 0.0,  # the last weights are judged; nothing is chosen
        "training.curve_test": True,
        **asked.given,
    }
    configs = {row.name: study.config(row, common) for row in study.rows}
    if "training.epochs" in asked.given:
        configs = {
            name: _stretched(each, written[name], each.training.epochs)
            for name, each in configs.items()
        }
    costs = {}
    for name, config in configs.items():
        try:
            costs[name] = _cost(config)
        except ResiduaError as error:
            raise ResiduaError(f"study {study.name}, row {name}: {error}") from None
    said = {
        "study": study.name,
        "budget": asked.budget,
        "rows": {name: _plain(config) for name, config in configs.items()},
    }
    with _alone(folder):
        kept = _kept(folder)
        differing = "nothing" if kept is None else _difference(kept, said)
        if differing and not any(folder.glob("runs/*/*/config.yaml")) and not _at_work(folder):
            epochs = _epochs_within(configs, asked, console) if asked.budget else None
            kept, differing = {**said, "epochs": epochs}, ""
            RunFolder(folder).write_json(STUDY, kept)
    if kept is None or differing:
        raise ResiduaError(
            f"{folder}: holds runs of this study with other settings ({differing}). Give the same "
            "options to go on with it, or another --out."
        )
    if kept["epochs"] is None:
        return configs, costs
    epochs = kept["epochs"]
    return {name: _stretched(each, each, epochs) for name, each in configs.items()}, costs


def _stretched(config: Config, written: Config, epochs: Any) -> Config:
    """So many epochs; steps of the rate keep their shares of those that were written with them."""
    changes: dict[str, object] = {"training.epochs": epochs}
    steps, before = config.optimization.steps, written.training.epochs
    same = steps == written.optimization.steps
    if steps and same and AUTO not in (before, epochs) and before != epochs:
        moved = [[round(place * epochs / before, 3), factor] for place, factor in steps]
        changes["optimization.steps"] = moved
    return parse.with_settings(config, changes)


def _at_work(folder: Path) -> bool:
    """Whether another process prepares or trains a run of the study."""
    for row in folder.glob("runs/*/"):
        try:
            with RunFolder(row).lock():
                pass
        except Busy:
            return True
    return False


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process settles the same study now; waits for one that does."""
    while True:
        try:
            with RunFolder(folder).lock():
                yield
                return
        except Busy:
            time.sleep(WAIT)


def _kept(folder: Path) -> dict[str, Any] | None:
    """What study.json says, if there is one. Raises ResiduaError."""
    if not (folder / STUDY).exists():
        return None
    kept = RunFolder(folder).read_json(STUDY)
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        rows = kept["rows"].values()
        whole = all(isinstance(each, dict) for row in rows for each in row.values())
        if whole and "epochs" in kept:
            found: dict[str, Any] = kept
            return found
    raise ResiduaError(
        f"{folder / STUDY}: is not what a study writes: expected study, budget, rows and epochs. "
        "Restore it, or give another --out."
    )


def _refuse(study: Definition, asked: Asked) -> None:
    """Raise ResiduaError for what a study needs to decide itself."""
    for name in OWN:
        if name in asked.given:
            raise ResiduaError(f"--set {name}: a study sets it itself, for each of its runs.")
    if asked.budget and "training.epochs" in asked.given:
        raise ResiduaError("--budget chooses the epochs, --epochs gives them: leave one out.")
    own = [each.name for each in study.rows if "training.epochs" in each.settings]
    if own and asked.budget:
        raise ResiduaError(
            f"study {study.name}: row {own[0]} has its own epochs, which is what it compares: "
            "leave --budget out."
        )


def _refuse_compared(study: Definition, written: Mapping[str, Config], asked: Asked) -> None:
    """Raise ResiduaError for a given setting in which rows, as written, differ: they compare it."""
    for name in asked.given:
        section, _, key = name.partition(".")
        values = {
            row: getattr(getattr(each, section, None), key, None) for row, each in written.items()
        }
        first = next(iter(values))
        for row, value in values.items():
            if value != values[first]:
                option = "--epochs" if name == "training.epochs" else f"--set {name}"
                raise ResiduaError(
                    f"{option}: the rows of study {study.name} differ in it ({first}: "
                    f"{values[first]}, {row}: {value}), which is what they compare: leave it out."
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
                had = kept["rows"][name].get(section, {}).get(key, defaults[section][key])
                if had != value:
                    return f"{name}: {section}.{key} = {had!r}, not {value!r}"
    return ""


def _epochs_within(configs: Mapping[str, Config], asked: Asked, console: Console) -> int:
    """The same number of epochs for all rows, such that all runs fit into the budget."""
    seconds, each_epoch = seconds_of(asked.budget) * SHARE, 0.0
    for config in configs.values():
        prepared = prepare(seeded(config, 0), Console(quiet=True))
        network = initial_network(prepared.config, None, prepared.device)
        batches, tested = prepared.training_batches(), len(prepared.splits["test"])
        speed = measure_throughput(network, batches, prepared.config, 0)
        each_epoch += epoch_seconds(speed, batches, prepared.config, tested)
        seconds -= asked.seeds * (REPORT_SECONDS + tested * speed.evaluation)
    epochs = math.floor(seconds / (each_epoch * asked.seeds))
    if epochs < 1:
        console.warn(f"{asked.budget} do not hold one epoch of all rows and seeds: it takes longer")
    else:
        console.print(
            f"{asked.budget} hold {epochs} epochs of each of {len(configs)} rows and seeds"
        )
    return max(1, epochs)


def seeded(config: Config, seed: int) -> Config:
    """The settings of one run."""
    return parse.with_settings(config, {"training.seed": seed, "data.split_seed": seed})


def _cost(config: Config) -> float:
    """Multiply-adds times epochs."""
    channels, size = config.preprocessing.channels, config.preprocessing.size
    if size == AUTO:
        size = max(32, catalogue.row(config.network.name).size)
    channels = 3 if channels == AUTO else channels
    spec = dataclasses.replace(config.network_spec, channels=channels, classes=10)
    cost = costs_of(spec, size)
    epochs = 1 if config.training.epochs == AUTO else config.training.epochs
    return float(cost.multiply_adds * epochs)
