"""A definition and the user's options -> the settings of all rows, which study.json records."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from residua.config.parse import current_name, from_mapping, plain, with_settings
from residua.config.schema import AUTO, Config
from residua.data.open import resolved
from residua.data.prepare import prepare
from residua.errors import ResiduaError
from residua.networks.analysis.cost import costs_of
from residua.networks.zoo import catalogue
from residua.runs.folder import Busy, RunFolder
from residua.studies.definition import Definition
from residua.studies.study import STUDY, StudyOptions
from residua.system.budget import seconds_of
from residua.system.console import Console
from residua.training.initial import initial_network
from residua.training.throughput import REPORT_SECONDS, epoch_seconds, measure_throughput

TEST_FRACTION = 0.25  # where the dataset has no test set
FIXED = (  # settings that make runs comparable
    "data.path",
    "data.split_seed",
    "data.test_fraction",
    "data.val_fraction",
    "training.curve_test",
    "training.seed",
    "transfer.strategy",
)
PLANNED = 0.9  # fraction of a budget that is scheduled
WAIT = 1.0  # seconds between attempts to lock a folder


def plan(
    study: Definition, options: StudyOptions, folder: Path, console: Console
) -> dict[str, Config]:
    """Row name -> its settings, recorded in study.json, with which later calls must agree.

    Raises ResiduaError, also for a network that cannot be built, before anything is written.
    """
    settings = {current_name(name): value for name, value in options.settings.items()}
    written = {row.name: study.config(row, {}) for row in study.rows}
    _refuse_fixed(study, options, settings)
    _refuse_compared(study, written, settings)
    configs = _configs(study, written, options, settings)
    for name, config in configs.items():
        try:
            cost(config)
        except ResiduaError as error:
            raise ResiduaError(f"study {study.name}, row {name}: {error}") from None
    epochs = _agreed_epochs(study, options, configs, folder, console)
    if epochs is None:
        return configs
    return {name: _with_epochs(config, config, epochs) for name, config in configs.items()}


def seeded(config: Config, seed: int) -> Config:
    """The settings of one run."""
    return with_settings(config, {"training.seed": seed, "data.split_seed": seed})


def _refuse_fixed(study: Definition, options: StudyOptions, settings: Mapping[str, object]) -> None:
    """Raise ResiduaError for what the study itself must decide."""
    for name in FIXED:
        if name in settings:
            raise ResiduaError(f"--set {name}: is set by the study, for each of its runs.")
    if options.budget and "training.epochs" in settings:
        raise ResiduaError("--budget and --epochs both set the epochs: leave one out.")
    fixed = [row.name for row in study.rows if "training.epochs" in row.settings]
    if fixed and options.budget:
        raise ResiduaError(
            f"study {study.name}: row {fixed[0]} has its own epochs, which the study compares: "
            "leave --budget out."
        )


def _refuse_compared(
    study: Definition, written: Mapping[str, Config], settings: Mapping[str, object]
) -> None:
    """Raise ResiduaError for a setting in which the rows, as written, differ."""
    for name in settings:
        section, _, key = name.partition(".")
        values = {
            row: getattr(getattr(config, section, None), key, None)
            for row, config in written.items()
        }
        first = next(iter(values))
        for row, value in values.items():
            if value != values[first]:
                flag = "--epochs" if name == "training.epochs" else f"--set {name}"
                raise ResiduaError(
                    f"{flag}: the rows of study {study.name} differ in it ({first}: "
                    f"{values[first]}, {row}: {value}), so the study compares it: leave it out."
                )


def _configs(
    study: Definition,
    written: Mapping[str, Config],
    options: StudyOptions,
    settings: Mapping[str, object],
) -> dict[str, Config]:
    """The settings of all rows but seeds and the epochs of a budget."""
    common: dict[str, object] = {
        "data.path": resolved(options.data),
        "data.test_fraction": TEST_FRACTION,
        "data.val_fraction": 0.0,  # no model selection: the last weights are evaluated
        "training.curve_test": True,
        **settings,
    }
    configs = {row.name: study.config(row, common) for row in study.rows}
    if "training.epochs" not in settings:
        return configs
    return {
        name: _with_epochs(config, written[name], config.training.epochs)
        for name, config in configs.items()
    }


def _with_epochs(config: Config, written: Config, epochs: Any) -> Config:
    """Other epochs; the milestones of the learning rate keep their fractions of all epochs."""
    changes: dict[str, object] = {"training.epochs": epochs}
    steps, before = config.optimization.steps, written.training.epochs
    same = steps == written.optimization.steps
    if steps and same and AUTO not in (before, epochs) and before != epochs:
        scaled = [[round(epoch * epochs / before, 3), factor] for epoch, factor in steps]
        changes["optimization.steps"] = scaled
    return with_settings(config, changes)


def _agreed_epochs(
    study: Definition,
    options: StudyOptions,
    configs: Mapping[str, Config],
    folder: Path,
    console: Console,
) -> int | None:
    """The epochs of the budget, if there is one: of study.json, which is written if need be.

    Raises ResiduaError if the folder has runs of other settings.
    """
    record: dict[str, Any] = {
        "study": study.name,
        "budget": options.budget,
        "rows": {name: plain(config) for name, config in configs.items()},
    }
    with _exclusive(folder):
        saved = _saved(folder)
        differing = "nothing" if saved is None else _difference(saved, record, configs, folder)
        unused = not any(folder.glob("runs/*/*/config.yaml")) and not _is_training(folder)
        if differing and unused:
            epochs = _epochs_within(configs, options, console) if options.budget else None
            saved, differing = {**record, "epochs": epochs}, ""
            RunFolder(folder).write_json(STUDY, saved)
    if saved is None or differing:
        raise ResiduaError(
            f"{folder}: contains runs of this study with other settings ({differing}). Use the "
            "same options to resume it, or another --out."
        )
    agreed: int | None = saved["epochs"]
    return agreed


def _is_training(folder: Path) -> bool:
    """Whether another process prepares or trains a run of the study."""
    for row in folder.glob("runs/*/"):
        try:
            with RunFolder(row).lock():
                pass
        except Busy:
            return True
    return False


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Lock the folder, waiting for any process that plans the same study."""
    while True:
        try:
            with RunFolder(folder).lock():
                yield
                return
        except Busy:
            time.sleep(WAIT)


def _saved(folder: Path) -> dict[str, Any] | None:
    """The content of study.json, if there is one. Raises ResiduaError."""
    if not (folder / STUDY).exists():
        return None
    saved: dict[str, Any] = RunFolder(folder).read_json(STUDY)
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        sections = [section for row in saved["rows"].values() for section in row.values()]
        if all(isinstance(section, dict) for section in sections) and "epochs" in saved:
            return saved
    raise ResiduaError(
        f"{folder / STUDY}: is not the record of a study: expected study, budget, rows and "
        "epochs. Restore it, or use another --out."
    )


def _difference(
    saved: Mapping[str, Any], record: Mapping[str, Any], configs: Mapping[str, Config], folder: Path
) -> str:
    """The first setting in which the saved study differs, in words; "" if none does."""
    for key in ("study", "budget"):
        if saved.get(key) != record[key]:
            return f"{key} {saved.get(key)!r}, not {record[key]!r}"
    if saved["rows"].keys() != configs.keys():
        return "other rows"
    for name, config in configs.items():
        # Read as settings, so that earlier names count and newer settings have their defaults
        earlier = plain(from_mapping(saved["rows"][name], f"{folder / STUDY}: {name}"))
        for section, values in plain(config).items():
            for key, value in values.items():
                if (before := earlier[section][key]) != value:
                    return f"{name}: {section}.{key} = {before!r}, not {value!r}"
    return ""


def _epochs_within(configs: Mapping[str, Config], options: StudyOptions, console: Console) -> int:
    """The most epochs, equal for all rows, with which all runs fit into the budget; at least 1."""
    seconds, seconds_per_epoch = seconds_of(options.budget) * PLANNED, 0.0
    for config in configs.values():
        prepared = prepare(seeded(config, 0), Console(quiet=True))
        network = initial_network(prepared.config, None, prepared.device)
        batches, test_images = prepared.training_batches(), len(prepared.splits["test"])
        speed = measure_throughput(network, batches, prepared.config)
        seconds_per_epoch += epoch_seconds(speed, batches, prepared.config, test_images)
        seconds -= options.seeds * (REPORT_SECONDS + test_images * speed.evaluation)
    epochs = math.floor(seconds / (seconds_per_epoch * options.seeds))
    if epochs < 1:
        console.warn(f"one epoch of all rows and seeds takes longer than {options.budget}")
    else:
        console.print(f"{epochs} epochs of {len(configs)} rows fit into {options.budget}")
    return max(1, epochs)


def cost(config: Config) -> float:
    """Multiply-adds times epochs: about proportional to the time of a run. Raises ResiduaError."""
    channels, size = config.preprocessing.channels, config.preprocessing.size
    if size == AUTO:
        size = max(32, catalogue.row(config.network.name).size)
    channels = 3 if channels == AUTO else channels
    spec = dataclasses.replace(config.network_spec, channels=channels, classes=10)
    epochs = 1 if config.training.epochs == AUTO else config.training.epochs
    return float(costs_of(spec, size).multiply_adds * epochs)
