"""Finished runs -> what each came to, how surely they differ, and a folder that shows it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from residua.comparison.page import Facts, Subject, page_of
from residua.comparison.pairing import Pair, pair, read
from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.networks.analysis.cost import costs_of
from residua.report.charts import counted
from residua.report.fonts import shorten
from residua.report.page import Cell, Page
from residua.report.page_files import markdown, said, write
from residua.runs.folder import RunFolder, throughputs
from residua.system.files import refuse_inside, write_atomically

PARENT = "comparisons"
WIDEST = 30  # columns of a cell on a terminal


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `residua compare` found; pairs: each further run against the first.

    settings: dotted name -> a value for each run, of the settings in which they differ.
    """

    folder: Path
    runs: tuple[Facts, ...]
    pairs: tuple[Pair, ...]
    settings: Mapping[str, tuple[object, ...]]
    page: Page

    def to_json(self) -> dict[str, object]:
        """The object that `residua compare --json` prints; differences are shares."""
        return {
            "folder": str(self.folder),
            "runs": [dataclasses.asdict(each) for each in self.runs],
            "pairs": [dataclasses.asdict(each) for each in self.pairs],
            "settings": {name: list(values) for name, values in self.settings.items()},
            "findings": list(self.page.findings),
        }

    def text(self) -> str:
        """Tables and sentences for a terminal: a column for each run."""
        lines = [self.page.title, ""]
        for section in self.page.sections:
            for table in section.tables:
                lines += [table.title, *_aligned(table.lines, table.digits), ""]
        lines += [f"- {finding}" for finding in self.page.findings]
        return "\n".join([*lines, "", str(self.folder / "index.html")])


class Placed(Protocol):
    """What lies in a run folder: a `residua.Run`, a RunFolder."""

    @property
    def path(self) -> Path:
        """The folder."""


def compare(*runs: str | Path | Placed, out: str | Path | None = None) -> Comparison:
    """What two or more runs came to, each further one against the first; as `residua compare`.

    Accuracies are compared on the images that both have judged and neither has learnt from, with
    a paired interval. out: a new folder, else the next free comparisons/<n>; it gets a page,
    tables and figures. Raises ResiduaError, also for a run that has not judged its images yet.
    """
    places = [each if isinstance(each, str | Path) else each.path for each in runs]
    folders = [RunFolder.existing(each) for each in places]
    _check(folders)
    names = _names([each.path for each in folders])
    subjects = [_read(run, name) for run, name in zip(folders, names, strict=True)]
    _check_folder(out, subjects)
    pairs = tuple(pair(subjects[0].judged, each.judged) for each in subjects[1:])
    settings = differing([each.config for each in subjects])
    page = page_of(subjects, pairs, settings)
    folder = _new_folder(out)
    _write(page, folder)
    return Comparison(folder, tuple(each.facts for each in subjects), pairs, settings, page)


def differing(configs: Sequence[Config]) -> dict[str, tuple[object, ...]]:
    """Dotted name -> a value for each config, of every setting in which they differ."""
    flat = [
        {
            f"{section}.{name}": value
            for section, values in dataclasses.asdict(config).items()
            for name, value in values.items()
        }
        for config in configs
    ]
    rows = {name: tuple(each[name] for each in flat) for name in flat[0]}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _check(runs: Sequence[RunFolder]) -> None:
    if len(runs) < 2:
        some = runs[0].path if runs else "no run"
        raise ResiduaError(
            f"{some}: is nothing to compare by itself: expected two runs or more. `residua "
            "evaluate RUN` judges one."
        )
    seen: set[Path] = set()
    for run in runs:
        place = run.path.resolve()
        if place in seen:
            raise ResiduaError(f"{run.path}: is named twice: expected different runs.")
        seen.add(place)


def _names(paths: Sequence[Path]) -> list[str]:
    """The fewest last parts of each path that tell all of them apart."""
    parts = [each.resolve().parts for each in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(each) for each in paths]


def _read(run: RunFolder, name: str) -> Subject:
    """All that is known of a run. Raises ResiduaError that says what to do with an unfinished."""
    weights, judged, config = run.weights, read(run, name), run.config
    history = run.read_history()
    counts = costs_of(config.network_spec, config.preprocessing.size)
    speeds = throughputs(history)
    facts = Facts(
        name=name,
        path=str(run.path),
        network=config.network.name,
        split=judged.split,
        accuracy=judged.accuracy,
        images=len(judged.answers[judged.split]) if judged.split else 0,
        parameters=counts.total,
        multiply_adds=counts.multiply_adds,
        file_bytes=weights.stat().st_size,
        epochs=len(history),
        images_per_second=median(speeds) if speeds else None,
        seconds=history[-1].get("seconds") if history else None,
        device=_device(run.read_json("environment.json"), run),
    )
    return Subject(run, config, judged, history, tuple(run.read_json("classes.json")), facts)


def _device(environment: Any, run: RunFolder) -> str:
    try:
        threads = counted(int(environment["threads"]), "thread")
        return f"{environment['device_name']}, {threads}"
    except (KeyError, TypeError, ValueError) as error:
        raise ResiduaError(f"{run.path / 'environment.json'}: names no device.") from error


def _check_folder(out: str | Path | None, subjects: Sequence[Subject]) -> None:
    """Raise ResiduaError if `out` is used, or lies in a run or in the data of one."""
    target = Path(out or PARENT).expanduser()
    for each in subjects:
        refuse_inside(target, each.config.data.path)
    place = target.resolve()
    for parent in (place, *place.parents):
        if (parent / "config.yaml").is_file() and (parent / "split.csv").is_file():
            raise ResiduaError(
                f"{target}: lies inside the run {parent}: give --out another folder, or start "
                "from another one."
            )
    try:
        used = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise ResiduaError(f"{target}: cannot hold a comparison: {error.strerror}.") from error
    if out is not None and used:
        raise ResiduaError(f"{target}: is not empty: expected a new folder for the comparison.")


def _new_folder(out: str | Path | None) -> Path:
    """`out`, or the next free comparisons/<n>. Raises ResiduaError if it cannot be made."""
    target = Path(out or PARENT).expanduser()
    try:
        target.mkdir(parents=True, exist_ok=True)
        if out is not None:
            return target
        for number in range(1, 1_000_000):
            with contextlib.suppress(FileExistsError):  # also when another process was faster
                folder = target / str(number)
                folder.mkdir()
                return folder
    except OSError as error:
        raise ResiduaError(f"{target}: cannot hold a comparison: {error.strerror}.") from error
    raise ResiduaError(f"{target}: holds a million comparisons.")


def _write(page: Page, folder: Path) -> None:
    """The page's files, with its figures in the Markdown too, which is named compare.md."""
    write(page, folder)
    drawn = [each for section in page.sections for each in section.figures]
    images = [f"\n![{each.caption}](figures/{each.name}.png)\n" for each in drawn]
    write_atomically(folder / "compare.md", markdown(page) + "".join(images))
    (folder / "tables.md").unlink()


def _aligned(rows: Sequence[Sequence[Cell]], digits: int) -> list[str]:
    """Cells under each other: the first column to the left, the others to the right."""
    cells = [[shorten(said(cell, digits), WIDEST) for cell in row] for row in rows]
    wide = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return [
        "  ".join(
            [row[0].ljust(wide[0]), *(c.rjust(w) for c, w in zip(row[1:], wide[1:], strict=True))]
        ).rstrip()
        for row in cells
    ]
