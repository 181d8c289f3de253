"""The name of a study -> its folder with page, tables, figures and, where it trains, runs."""

from __future__ import annotations

import dataclasses
import datetime
from functools import partial
from pathlib import Path

from residua._version import __version__
from residua.errors import ResiduaError, UsageError
from residua.report.page import Page, write
from residua.runs.folder import RunFolder
from residua.studies import definition
from residua.studies.claims import bottleneck_cost, history, identity, scenarios, signal, softmax
from residua.studies.definition import SECTIONS, Definition
from residua.studies.page import build_page
from residua.studies.rows import run_rows
from residua.studies.study import FLAGS, STUDY, Study, StudyOptions, check_options, check_record
from residua.system.console import Console
from residua.system.device import environment
from residua.system.files import refuse_inside, short_name, user_path
from residua.system.words import counted

STUDIES: dict[str, Study] = {  # beside those of the YAML files
    study.name: study
    for study in (
        bottleneck_cost.STUDY,
        history.STUDY,
        identity.STUDY,
        scenarios.STUDY,
        signal.STUDY,
        softmax.STUDY,
    )
}


def available() -> list[tuple[str, str]]:
    """Name and title of every study."""
    trained = [(name, definition.read(name).title) for name in definition.shipped()]
    return sorted([*trained, *((study.name, study.title) for study in STUDIES.values())])


def run_study(name: str, options: StudyOptions, out: str | None, console: Console) -> Path:
    """Run or resume a study and write its page; returns the path of index.html.

    out: a new folder, or that of the same study; None: studies/NAME, or studies/NAME-DATA if the
    study trains on data of the user's choice. Raises ResiduaError.
    """
    study = _study(name, options.paper)
    check_options(study, options)
    with_data = "data" in study.options
    suffix = f"-{short_name(Path(options.data).name) or 'data'}" if with_data else ""
    folder = user_path(out or f"studies/{study.name}{suffix}")
    if with_data:
        refuse_inside(folder, options.data)
    _claim(folder, study.name)
    page = study.run(folder, options, console)
    return write(page if with_data else _with_machine(page), folder)


def _study(name: str, paper: bool) -> Study:
    if name in STUDIES:
        return STUDIES[name]
    known = [known for known, _ in available()]
    if Path(name).suffix not in (".yaml", ".yml") and name not in known:
        raise UsageError(
            f"study {name!r} is unknown: expected a .yaml file or one of {', '.join(known)}."
        )
    trained = definition.read(name, paper=paper)
    return Study(trained.name, trained.title, partial(_train_rows, trained), frozenset(FLAGS))


def _train_rows(study: Definition, folder: Path, options: StudyOptions, console: Console) -> Page:
    """Train the rows that are missing and compare all of them."""
    outcomes = run_rows(study, options, folder, console)
    extra = SECTIONS[study.sections]() if study.sections else None
    return build_page(study, outcomes, options, extra)


def _with_machine(page: Page) -> Page:
    """The page, with date, machine and versions among its conditions."""
    import torch

    facts = environment(torch.device("cpu"))
    line = (
        f"{datetime.date.today()}; {facts['device_name']}, {counted(facts['threads'], 'thread')}; "
        f"residua {__version__}, torch {facts['torch']}."
    )
    return dataclasses.replace(page, conditions=[*page.conditions, line])


def _claim(folder: Path, name: str) -> None:
    """Make the folder if it is missing. Raises ResiduaError if it contains anything else."""
    try:
        used = folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir())
    except OSError as error:
        raise ResiduaError(f"{folder}: cannot store a study: {error.strerror}.") from error
    if not folder.is_dir():
        RunFolder.new(str(folder), "study")
    elif used and not (folder / STUDY).exists():
        raise ResiduaError(f"{folder}: contains other files: expected a new folder.")
    elif used:
        check_record(folder, {"study": name})
