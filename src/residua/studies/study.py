"""A study: its name, its title, the options that apply to it, and how its page is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from residua.data.open import EMBEDDED
from residua.errors import ResiduaError
from residua.report.page import Page
from residua.runs.folder import RunFolder
from residua.system.budget import seconds_of
from residua.system.console import Console, Report
from residua.system.words import joined

STUDY = "study.json"  # in the folder of a study: which study it is, and with which options
FLAGS = {  # fields of StudyOptions -> the options of the command that set them
    "data": "--data",
    "seeds": "--seeds",
    "budget": "--budget",
    "paper": "--paper",
    "settings": "--epochs or --set",
    "jobs": "--jobs",
}


@dataclass(frozen=True)
class StudyOptions:
    """The options of `residua study`.

    data: dataset of all rows. seeds: runs of each row, with seeds from 0. budget: time for all
    runs, such as "20m"; "" for the study's own epochs. paper: use the paper's settings. settings:
    dotted name -> value, for every row. jobs: runs that train at once, each on its share of the
    threads.
    """

    data: str = EMBEDDED
    seeds: int = 3
    budget: str = ""
    paper: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    jobs: int = 1


@dataclass(frozen=True)
class Study:
    """A study that `residua study NAME` runs.

    run: computes or trains what is missing in a folder; raises ResiduaError. options: fields of
    StudyOptions that apply; any other must have its default.
    """

    name: str
    title: str
    run: Callable[[Path, StudyOptions, Console], Page]
    options: frozenset[str] = frozenset()


def computed(
    name: str,
    title: str,
    compute: Callable[[int, Report], Page],
    options: frozenset[str] = frozenset(),
) -> Study:
    """A study that trains no runs. compute: (number of seeds, progress report) -> page."""

    def run(folder: Path, chosen: StudyOptions, console: Console) -> Page:
        check_record(folder, {"study": name})
        with console.bar(name) as move:
            return compute(chosen.seeds, move)

    return Study(name, title, run, options)


def check_options(study: Study, options: StudyOptions) -> None:
    """Raise ResiduaError for an option that does not apply, or a budget that is no duration."""
    default = StudyOptions()
    refused = [
        flag
        for name, flag in FLAGS.items()
        if name not in study.options and getattr(options, name) != getattr(default, name)
    ]
    if refused:
        others = [flag for name, flag in FLAGS.items() if name in study.options]
        raise ResiduaError(
            f"study {study.name}: {joined(refused)} {'do' if len(refused) > 1 else 'does'} not "
            f"apply: expected {joined([*others, '--out'])} only."
        )
    if options.budget:
        seconds_of(options.budget)


def check_record(folder: Path, record: Mapping[str, object]) -> None:
    """Write study.json, or raise ResiduaError if there is one with other values."""
    if not (folder / STUDY).exists():
        RunFolder(folder).write_json(STUDY, dict(record))
    saved = RunFolder(folder).read_json(STUDY)
    for key, value in record.items():
        earlier = saved.get(key) if isinstance(saved, dict) else None
        if earlier != value:
            raise ResiduaError(
                f"{folder}: contains a study with {key} {earlier!r}, not {value!r}: use another "
                "--out."
            )
