"""The name of a study -> its folder with page, tables, figures and, where it trains, runs."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from residua._version import __version__
from residua.data.open import EMBEDDED
from residua.errors import ResiduaError
from residua.report.page import Page, write
from residua.report.view import counted
from residua.runs.folder import RunFolder
from residua.studies import definition
from residua.studies.page import page_of
from residua.studies.plan import SEEDS, STUDY, Asked
from residua.studies.rows import run_all
from residua.system.budget import seconds_of
from residua.system.console import Console
from residua.system.device import environment
from residua.system.files import refuse_inside

# Studies that train nothing by a recipe, each a module of residua.studies, and what they show.
CLOSED = {
    "bottleneck-cost": "What bottlenecks, halving and 1x1 convolutions cost",
    "history": "Accuracy against cost, from AlexNet on",
    "identity": "When a residual unit is the identity",
    "signal": "Gradients and responses by depth",
    "softmax": "What softmax does to scores",
}
SEEDED = ("signal",)  # of these, what draws its weights by --seeds
SLOW = ("history", "signal")  # and what takes minutes, so that it says how far it is
SCENARIOS = "transfer-scenarios"  # trains, but on images of its own
BUDGET = "10s"  # of each of its runs


def listing() -> list[tuple[str, str]]:
    """Name and title of every study."""
    trained = [(name, definition.read(name).title) for name in definition.shipped()]
    return sorted([*trained, *CLOSED.items(), (SCENARIOS, "Four scenarios of transfer learning")])


def conduct(name: str, asked: Asked, out: str | None, console: Console) -> Path:
    """Run a study to its end, or go on with it, and write its page; gives index.html.

    out: a new folder, or that of the same study; None: studies/<name>-<data>. Raises ResiduaError.
    """
    if name == SCENARIOS:
        return _scenarios(asked, out, console)
    if name in CLOSED:
        return _closed(name, asked, out, console)
    known = [each for each, _ in listing()]
    if Path(name).suffix not in (".yaml", ".yml") and name not in known:
        raise ResiduaError(
            f"study {name!r} is unknown: expected a .yaml file or one of {', '.join(known)}."
        )
    study = definition.read(name, paper=asked.paper)
    data = Path(asked.data).name or "data"
    folder = _folder(out or f"studies/{study.name}-{data}", study.name, asked.data)
    outcomes = run_all(study, asked, folder, console)
    extra = _module(study.sections).study() if study.sections else None
    return write(page_of(study, outcomes, asked, extra), folder)


def _scenarios(asked: Asked, out: str | None, console: Console) -> Path:
    from residua.studies.claims import scenarios

    if asked != Asked(EMBEDDED, asked.seeds, asked.budget):
        raise ResiduaError(
            f"study {SCENARIOS}: makes its own images, so --data, --epochs, --paper, --jobs and "
            "--set do not apply; --budget is the time of each run."
        )
    budget = asked.budget or BUDGET
    seconds_of(budget)  # is refused before the folder is its
    folder = _folder(out or f"studies/{SCENARIOS}", SCENARIOS)
    _agree(folder, {"study": SCENARIOS, "budget": budget})
    page = scenarios.study(folder, asked.seeds, budget, console)
    return write(_with_machine(page), folder)


def _with_machine(page: Page) -> Page:
    """The page, with where it was made among its conditions."""
    import torch

    facts = environment(torch.device("cpu"))
    said = (
        f"{datetime.date.today()}; {facts['device_name']}, {counted(facts['threads'], 'thread')}; "
        f"residua {__version__}, torch {facts['torch']}."
    )
    return dataclasses.replace(page, conditions=[*page.conditions, said])


def _module(name: str) -> Any:
    """What computes a closed study: its study() gives a page."""
    return import_module(f"residua.studies.claims.{name.replace('-', '_')}")


def _closed(name: str, asked: Asked, out: str | None, console: Console) -> Path:
    if asked != Asked(EMBEDDED, asked.seeds):
        raise ResiduaError(
            f"study {name}: trains no runs, so --data, --epochs, --budget, --paper, --jobs and "
            "--set do not apply."
        )
    if name not in SEEDED and asked.seeds != SEEDS:
        raise ResiduaError(f"study {name}: draws nothing by chance, so --seeds does not apply.")
    folder = _folder(out or f"studies/{name}", name)
    _agree(folder, {"study": name})
    given: dict[str, Any] = {"seeds": asked.seeds} if name in SEEDED else {}
    with console.bar(name) as move:
        if name in SLOW:
            given["report"] = console.reporter(move)
        page = _module(name).study(**given)
    return write(_with_machine(page), folder)


def _folder(out: str, name: str, data: str | None = None) -> Path:
    """A folder for the study, made if need be. Raises ResiduaError if it holds something else."""
    folder = Path(out).expanduser()
    if data is not None:
        refuse_inside(folder, data)
    try:
        empty = not folder.is_dir() or all(each.name.startswith(".") for each in folder.iterdir())
    except OSError as error:
        raise ResiduaError(f"{folder}: cannot hold a study: {error.strerror}.") from error
    if empty:
        return folder if folder.is_dir() else RunFolder.new(str(folder), "study").path
    if not (folder / STUDY).exists():
        raise ResiduaError(f"{folder}: holds something else: expected a new folder.")
    _agree(folder, {"study": name})
    return folder


def _agree(folder: Path, said: Mapping[str, object]) -> None:
    """Raise ResiduaError unless study.json of the folder, if there is one, says the same."""
    if not (folder / STUDY).exists():
        RunFolder(folder).write_json(STUDY, dict(said))
    kept = RunFolder(folder).read_json(STUDY)
    for key, value in said.items():
        had = kept.get(key) if isinstance(kept, dict) else None
        if had != value:
            raise ResiduaError(
                f"{folder}: holds a study with {key} {had!r}, not {value!r}: give another --out."
            )
